"""What the sandbox costs: a program in it beside the bare interpreter, in turn, at every level that works here."""

import dataclasses
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import write_json
from r1jax.rewards.sandbox import LEVELS, Isolation, isolation, run_python, try_level


@dataclasses.dataclass(frozen=True)
class Config:
    """Overhead and throughput of the sandbox."""

    workdir: str = "runs/benchmark_sandbox"
    """sandbox.json goes here."""
    rounds: int = 40
    """Runs of each kind, in turn."""
    together: int = 100
    """Runs for the throughput, by as many threads as `threads`."""
    threads: int = 4
    """Runs at a time, for the throughput."""
    source: str = "pass"
    """The program that is run."""


def main(config: Config) -> None:
    levels = [found for found in map(try_level, LEVELS) if isinstance(found, Isolation)]
    if not levels:
        raise UserError("; ".join(f"{level}: {try_level(level)}" for level in LEVELS))
    bare = lambda: subprocess.run([isolation.interpreter(), "-I", "-S", "-c", config.source], check=True)
    kinds = {"bare interpreter": bare}
    kinds |= {level.level: lambda level=level: run_python(config.source, isolation=level) for level in levels}
    seconds = {name: [] for name in kinds}
    for _ in range(config.rounds):
        for name, run in kinds.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    table = Table(header_style="bold")
    for column in ("", "median ms", "least ms", "over bare, median ms", f"runs/s, {config.threads} threads"):
        table.add_column(column, justify="right" if column else "left")
    results = {}
    for name, run in kinds.items():
        over = 1e3 * np.median(np.subtract(seconds[name], seconds["bare interpreter"]))
        began = time.perf_counter()
        with ThreadPoolExecutor(config.threads) as threads:
            list(threads.map(lambda _: run(), range(config.together)))
        rate = config.together / (time.perf_counter() - began)
        figures = (1e3 * np.median(seconds[name]), 1e3 * min(seconds[name]), over, rate)
        table.add_row(name, *(f"{figure:.1f}" for figure in figures))
        results[name] = dict(zip(("median_ms", "least_ms", "median_ms_over_bare", "runs_per_second"), figures))
    launch.console.print(table)
    Path(config.workdir).mkdir(parents=True, exist_ok=True)
    write_json(Path(config.workdir) / "sandbox.json", results)


if __name__ == "__main__":
    launch.run(main, Config)
