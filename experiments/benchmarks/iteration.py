"""How long one R1-Zero iteration takes and where, with and without the allocator setting of r1jax.launch.

Both runs are made in turn, several times, because a machine's speed drifts; ratios are of medians.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from r1jax import launch
from r1jax.metrics import read_json_lines

R1_ZERO = Path(__file__).resolve().parents[1] / "r1_zero.py"


@dataclasses.dataclass(frozen=True)
class Config:
    """Timing of R1-Zero's iterations."""

    workdir: str = "runs/benchmark_iteration"
    """iteration.json goes here."""
    seed: int = 0
    """Of the timed runs; the same for both settings, so that both process the same tokens."""
    iterations: int = 12
    """Iterations a run; the first, which compiles, is left out."""
    repeats: int = 2
    """Runs of each setting, in turn."""


def time_run(config: Config, tunables: str) -> list[dict]:
    """Records of a run's iterations after the first, under a value of GLIBC_TUNABLES."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"--seed {config.seed} --grpo.iterations {config.iterations}"
        few = "--evaluation-problems 2 --training-problems 2"
        command = [sys.executable, str(R1_ZERO), "--workdir", f"{folder}/run", *options.split(), *few.split()]
        subprocess.run(command, check=True, env=os.environ | {"GLIBC_TUNABLES": tunables}, stdout=subprocess.DEVNULL)
        return read_json_lines(f"{folder}/run/metrics.jsonl")[1:]


def main(config: Config) -> None:
    settings, records = {"as set by r1jax": launch.ALLOCATOR, "glibc's default": ""}, {}
    for _ in range(config.repeats):
        for name, tunables in settings.items():
            records.setdefault(name, []).extend(time_run(config, tunables))
    phases = ("rollout", "reward", "scoring", "update")
    median = {name: {p: statistics.median(r["seconds"][p] for r in rs) for p in phases} for name, rs in records.items()}
    for seconds in median.values():
        seconds["iteration"] = sum(seconds.values())
    table = Table("median seconds", *settings, "ratio")
    ours, default = median.values()
    for phase in ours:
        table.add_row(phase, f"{ours[phase]:.3f}", f"{default[phase]:.3f}", f"{default[phase] / ours[phase]:.2f}")
    launch.console.print(table)
    path = Path(config.workdir) / "iteration.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(median, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
