"""What importing a Hugging Face checkpoint costs: bytes a second beside reading its files plainly, and memory.

The checkpoint is made here: a Llama of random bfloat16 numbers in several files. Before each reading its pages are
dropped from the cache of the system, so that both come from the disk; then both again, from the cache.
"""

import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import ml_dtypes
import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.config import UserError
from r1jax.interop.hf_config_writing import to_hf_config
from r1jax.interop.loading import load_checkpoint
from r1jax.interop.safetensors import write_checkpoint
from r1jax.interop.saving import checkpoint_specs
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, abstract_arrays, make_mesh


@dataclasses.dataclass(frozen=True)
class Config:
    """Throughput and memory of imports."""

    workdir: str = "runs/benchmark_import_checkpoint"
    """The checkpoint is written here, and import_checkpoint.json; the checkpoint is removed at the end."""
    gigabytes: float = 2.0
    """Size of the checkpoint."""
    shard_gigabytes: float = 0.5
    """Size of one of its files."""
    parameters: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the arrays that are filled; float32 is what training has, and twice the memory."""
    rounds: int = 3
    """Readings of each kind; the best counts."""
    mesh: MeshConfig = MeshConfig()


def make_model(config: Config) -> ModelConfig:
    """A Llama of 61M parameters a layer, and as many layers as the size asks for."""
    shape = {"embed_dim": 2048, "mlp_dim": 8192, "num_heads": 16, "num_kv_heads": 4, "head_dim": 128}
    layers = round((config.gigabytes * 1e9 / 2 - 32000 * 2048) / 60.8e6)
    if layers < 1:
        raise UserError(f"--gigabytes must be 0.3 or more, not {config.gigabytes}")
    return ModelConfig(
        vocab_size=32000, num_layers=layers, num_dense_layers=layers, tied_embeddings=True, max_positions=4096, **shape
    )


def write_model(config: Config, model: ModelConfig, folder: Path) -> int:
    """Write the checkpoint; returns its bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0).standard_normal(1 << 20).astype(ml_dtypes.bfloat16)
    specs = checkpoint_specs(model, "bfloat16")
    tensors = (np.resize(numbers, spec.shape) for spec in specs)
    write_checkpoint(folder, specs, tensors, max_shard_bytes=int(config.shard_gigabytes * 1e9))
    write_json(folder / "config.json", to_hf_config(model, dtype="bfloat16"))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def drop_pages(folder: Path) -> None:
    """Have the system forget what it holds of the files."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(folder: Path) -> None:
    """Read all files into one small buffer, as cat does."""
    buffer = bytearray(8 << 20)
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def import_weights(folder: Path, model: ModelConfig, shapes) -> None:
    """Import, wait, and let the arrays go."""
    jax.block_until_ready(load_checkpoint(folder, model, *shapes))


def memory(name: str) -> int:
    """VmRSS of this process, or VmHWM, its peak since the last `reset_peak`; mapped pages that were touched count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def cost(action: Callable[[], None], before: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor over all threads, which other processes hardly change."""
    before()
    start, work = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - work


def main(config: Config) -> None:
    model, folder = make_model(config), Path(config.workdir) / "checkpoint"
    size = write_model(config, model, folder)
    largest = max(spec.nbytes for spec in checkpoint_specs(model, "bfloat16"))
    abstract = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, config.parameters, sharding=leaf.sharding),
        abstract_arrays(abstract, make_mesh(config.mesh)),
    )
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    ways = {"plain reading": lambda: read_plainly(folder), "import": lambda: import_weights(folder, model, shapes)}
    before = memory("VmRSS")
    reset_peak()
    import_weights(folder, model, shapes)  # compiles its programs, whose number is that of kinds of tensors
    beyond = memory("VmHWM") - before - held
    costs, table = {}, Table("", "GB/s from disk", "GB/s from cache", "processor s/GB")
    drops = {"disk": lambda: drop_pages(folder), "cache": lambda: read_plainly(folder)}
    for source, drop in drops.items():
        for way in [*ways] * config.rounds:
            found, name = cost(ways[way], drop), f"{way} from {source}"
            costs[name] = tuple(map(min, zip(found, costs.get(name, found))))
    gigabytes = size / 1e9
    for way in ways:
        rates = [f"{gigabytes / costs[f'{way} from {source}'][0]:.2f}" for source in drops]
        table.add_row(way, *rates, f"{costs[f'{way} from cache'][1] / gigabytes:.2f}")
    launch.console.print(table)
    launch.console.print(
        f"{gigabytes:.2f} GB, the largest tensor {largest / 1e6:.0f} MB; arrays {held / 1e9:.2f} GB; peak of the "
        f"process in the first import, beyond what it had before and the arrays: {beyond / 1e6:.0f} MB"
    )
    record = {"bytes": size, "largest": largest, "arrays": held, "peak_beyond": beyond, "seconds_and_work": costs}
    write_json(Path(config.workdir) / "import_checkpoint.json", record)
    shutil.rmtree(folder)


if __name__ == "__main__":
    launch.run(main, Config)
