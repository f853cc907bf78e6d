"""Compile the programs of training and sampling for a TPU slice that is not at hand, and tell whether they fit.

    python tpu_scripts/aot_compile.py --preset=qwen2_5_7b --topology=v5e:4x4 --mesh.fsdp=16

Needs `pip install -e '.[tpu]'` and no TPU. Arguments are shapes: nothing is allocated. Exits with 1 where a program does
not fit the memory of a chip with the headroom asked for. How to read the table: docs/tpu.md.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import tyro
from rich.table import Table

from r1jax import launch
from r1jax.aot import programs
from r1jax.aot.chips import chip_of
from r1jax.aot.measure import compile_case, record_measures, topology_devices
from r1jax.config import UserError
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig
from r1jax.models.describe import PRESETS
from r1jax.models.presets import for_tpu
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.sharding import MeshConfig, make_mesh

Program = Literal["sft", "grpo", "score", "prefill", "decode"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A model on a slice."""

    model: tyro.conf.AvoidSubcommands[ModelConfig]
    topology: str = "v5e:2x2"
    """Chip and slice, such as v5e:4x4 or v5p:8x8x8."""
    programs: tuple[Program, ...] = ("sft", "grpo", "score", "prefill", "decode")
    """Which to compile, one after the other."""
    mesh: MeshConfig = MeshConfig()
    """Of the trainer: SFT, GRPO and scoring."""
    sampler_mesh: MeshConfig = MeshConfig()
    """Of prefill and decoding."""
    sequences: int = 512
    """A batch of the trainer."""
    length: int = 4096
    """Tokens of a sequence."""
    prompt_slots: int = 1024
    """Of these, the prompt; also the length of a prefill."""
    micro_batches: int = 1
    """Parts of a batch that are in memory one at a time."""
    prompts: int = 32
    """Prompts of one prefill."""
    slots: int = 512
    """Rows that are decoded together."""
    cache_length: int = 32768
    """Tokens that each of them can hold."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-6, moments="bfloat16")
    headroom: float = 0.15
    """Share of a chip's memory that must stay free."""
    json: str = ""
    """The figures are written here, every collective among them."""
    hlo: str = ""
    """A folder for the text of the compiled programs."""


def make_cases(config: Config, mesh, sampler_mesh) -> dict[str, tuple[object, Callable, float]]:
    """Mesh, maker of the case, and keys that a query sees on average, by program."""
    model, dtype = config.model, config.model.dtype
    optimizer = make_optimizer(config.optimizer, 1)
    batch = {"sequences": config.sequences, "length": config.length, "micro_batches": config.micro_batches}
    rows, bind = batch | {"prompt_slots": config.prompt_slots}, functools.partial
    half = config.length / 2
    return {
        "sft": (mesh, bind(programs.sft_case, model, mesh, optimizer, **batch), half),
        "grpo": (mesh, bind(programs.grpo_case, model, mesh, optimizer, **rows), half),
        "score": (mesh, bind(programs.score_case, model, mesh, **rows, dtype=dtype), half),
        "prefill": (
            sampler_mesh,
            bind(programs.prefill_case, model, sampler_mesh, prompts=config.prompts, prompt_slots=config.prompt_slots,
                 dtype=dtype),
            config.prompt_slots / 2,
        ),
        "decode": (
            sampler_mesh,
            bind(programs.decode_case, model, sampler_mesh, slots=config.slots, cache_length=config.cache_length,
                 dtype=dtype),
            config.cache_length,
        ),
    }  # fmt: skip


def show(records: list[dict], config: Config) -> None:
    """Print the table and the collectives that should not be there."""
    table = Table(
        "program", "compile", "arguments", "temporaries", "outputs", "code", "headroom", "TFLOP", "HBM", "ICI",
        "compute s", "HBM s", "ICI s", "MFU bound", title=f"{config.topology}, a chip",
    )  # fmt: skip
    giga = lambda count: f"{count / 1e9:.2f} GB"
    for record in records:
        row = [record["program"], f"{record['compile_seconds']:.0f} s"]
        if "bytes" not in record:
            table.add_row(*row, record["failure"])
            continue
        sizes, times = record["bytes"], record["seconds"]
        row += [giga(sizes[kind]) for kind in ("arguments", "temporaries", "outputs", "code")]
        row += [f"{record['headroom']:.0%}", f"{record['flops'] / 1e12:.1f}"]
        row += [giga(record["hbm_bytes"]), giga(record["collective_bytes"])]
        row += [f"{times[name]:.3g}{'*' if name == record['binding'] else ''}" for name in ("compute", "hbm", "ici")]
        table.add_row(*row, f"{record['mfu_bound']:.1%}")
    launch.console.print(table)
    for record in records:
        for collective in record.get("collectives", ()):
            if collective["suspicion"]:
                launch.console.print(
                    f"{record['program']}: {collective['kind']} of {collective['dtype']}{list(collective['dims'])} over "
                    f"{', '.join(collective['axes'])}, {giga(collective['bytes'])}: {collective['suspicion']} "
                    f"({collective['place']})", soft_wrap=True, markup=False,
                )  # fmt: skip
        for what in record.get("unknown", ()):
            launch.console.print(f"{record['program']}: not known and not counted in full: {what}", soft_wrap=True)


def compile_all(config: Config) -> list[dict]:
    """The figures of every program of `config.programs`.

    Raises:
      UserError: the compiler, the topology or a mesh is not there, or something does not divide over a mesh.
    """
    chip, devices = chip_of(config.topology), topology_devices(config.topology)
    mesh, sampler_mesh = make_mesh(config.mesh, devices), make_mesh(config.sampler_mesh, devices)
    cases, records = make_cases(config, mesh, sampler_mesh), []
    for name in config.programs:
        on, make, context = cases[name]
        case = make()
        measures = compile_case(case, on, text=Path(config.hlo) / f"{name}.hlo" if config.hlo else None)
        records.append(record_measures(name, config.model, on, chip, case, measures, context))
    return records


def main(config: Config) -> None:
    jax.config.update("jax_platforms", "cpu")  # the compiler is asked for by name; no TPU is
    records = compile_all(config)
    show(records, config)
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "programs": records})
    tight = [r["program"] for r in records if r.get("headroom", -1.0) < config.headroom]
    if tight:
        raise UserError(f"{', '.join(tight)} leave less than {config.headroom:.0%} of a chip's memory free")


if __name__ == "__main__":
    launch.run(main, Config, {name: Config(for_tpu(make())) for name, make in PRESETS.items()})
