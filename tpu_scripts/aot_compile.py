"""Compile the programs of training and sampling for a TPU slice that is not at hand, and tell whether they fit.

    python tpu_scripts/aot_compile.py --preset=qwen2_5_7b --topology=v5e:4x4 --grpo.sampling.max-new-tokens=3072

Needs `pip install -e '.[tpu]'` and no TPU. Arguments are shapes: nothing is allocated. Settings are the stages' own.
Exits with 1 where a program does not fit the memory of a chip with the headroom asked for. How to read the table:
docs/tpu.md.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import tyro
from rich.table import Table

from r1jax import launch
from r1jax.aot import programs
from r1jax.aot.chips import chip_of
from r1jax.aot.measure import compile_case, record_measures, topology_devices
from r1jax.aot.search import propose
from r1jax.aot.table import markdown, notes, table_rows
from r1jax.config import UserError
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.metrics import read_json, write_json
from r1jax.models.config import ModelConfig
from r1jax.models.describe import PRESETS
from r1jax.models.presets import for_tpu
from r1jax.optimizer import OptimizerConfig
from r1jax.sft_stage import SftConfig
from r1jax.sharding import MeshConfig, make_mesh

Program = Literal["sft", "grpo", "score", "relayout", "prefill", "decode"]
RL = {
    "grpo": programs.grpo_case, "score": programs.score_case, "relayout": programs.relayout_case,
    "prefill": programs.prefill_case, "decode": programs.decode_case,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """A model on a slice."""

    model: tyro.conf.AvoidSubcommands[ModelConfig]
    topology: str = "v5e:2x2"
    """Chip and slice, such as v5e:4x4 or v5p:8x8x8."""
    programs: tuple[Program, ...] = ("sft", "grpo", "score", "relayout", "prefill", "decode")
    """Which to compile, one after the other."""
    mesh: MeshConfig = MeshConfig()
    """Of the trainer; the sampler's is grpo.sampling.mesh."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=1e-6, moments="bfloat16"), iterations=1, packing="rows",
        sampling=SamplingConfig(relayout=True, slots=512, max_new_tokens=3072, prefill_chunk=1024),
    )  # fmt: skip
    sft: SftConfig = SftConfig(
        optimizer=OptimizerConfig(learning_rate=5e-5, moments="bfloat16"), batch_size=512, sequence_length=4096
    )
    headroom: float = 0.15
    """Share of a chip's memory that must stay free."""
    search: bool = False
    """Propose mesh, remat and micro-batches for the first of `programs`, sft or grpo, in place of compiling all."""
    json: str = ""
    """The figures are written here, every collective among them."""
    hlo: str = ""
    """A folder for the text of the compiled programs."""
    show: tuple[str, ...] = ()
    """Compile nothing: print files that --json wrote as tables for docs/tpu.md."""


def make_case(config: Config, program: Program, mesh) -> programs.Case:
    """One of the programs."""
    if program == "sft":
        return programs.sft_case(config.model, mesh, config.sft)
    return RL[program](config.model, mesh, config.grpo)


def compile_all(config: Config) -> list[dict]:
    """The figures of every program of `config.programs`.

    Raises:
      UserError: the compiler, the topology or a mesh is not there, or something does not divide over a mesh.
    """
    chip, mesh = chip_of(config.topology), make_mesh(config.mesh, topology_devices(config.topology))
    config.grpo.check(mesh)
    records = []
    for name in config.programs:
        case = make_case(config, name, mesh)
        measures = compile_case(case, text=Path(config.hlo) / f"{name}.hlo" if config.hlo else None)
        records.append(record_measures(name, config.model, chip, case, measures))
        launch.console.print(f"{name}: {measures.compile_seconds:.0f} s", style="dim")
    return records


def search(config: Config) -> None:
    """Print what was tried, and the options of the best."""
    chip, devices = chip_of(config.topology), topology_devices(config.topology)
    tried, best = propose(config, config.programs[0], make_case, chip, devices)
    table = Table("mesh", "remat", "micro-batches", "headroom", "bound s", "compile s", title="tried")
    for one in tried:
        table.add_row(*one.cells())
    launch.console.print(table)
    if config.json:
        records = [{"options": one.options(config.programs[0])} | one.record for one in tried]
        write_json(config.json, {"config": dataclasses.asdict(config), "tried": records})
    if best is None:
        raise UserError("nothing that was tried fits; take a larger slice, or a smaller batch")
    launch.console.print(f"best: {best.options(config.programs[0])}", soft_wrap=True)


def show(records: list[dict], title: str) -> None:
    """Print the table, and the collectives that should not be there."""
    heads, *rows = table_rows(records)
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    launch.console.print(table)
    for note in notes(records):
        launch.console.print(note, soft_wrap=True, markup=False)


def main(config: Config) -> None:
    jax.config.update("jax_platforms", "cpu")  # the compiler is asked for by name; no TPU is
    if config.show:
        for path in config.show:
            print(markdown(read_json(path)))
        return
    if config.search:
        return search(config)
    records = compile_all(config)
    show(records, f"{config.topology}, a chip")
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "programs": records})
    tight = [r["program"] for r in records if r.get("headroom", -1.0) < config.headroom]
    if tight:
        raise UserError(f"{', '.join(tight)} leave less than {config.headroom:.0%} of a chip's memory free")


if __name__ == "__main__":
    launch.run(main, Config, {name: Config(for_tpu(make())) for name, make in PRESETS.items()})
