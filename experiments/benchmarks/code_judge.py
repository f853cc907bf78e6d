"""How many programs a second the code judge takes, by the form of the tests, and how many references of MBPP pass.

The forms are measured in turn, several times, because a machine's speed drifts; figures are medians.
"""

import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.table import Table

from r1jax import launch
from r1jax.config import UserError
from r1jax.rewards.code import code_reward
from r1jax.rewards.sandbox import probe

FORMS = {
    "input and output": {"tests": [{"stdin": "3 4\n", "stdout": "7\n"}]},
    "assert with literals": {"tests": ["assert add(3, 4) == 7"]},
    "assert, any code": {"tests": ["assert abs(add(3, 4) - 7) < 1e-9"]},
}
PROGRAM = "```python\ndef add(a, b):\n    return a + b\n\n\n{}```"
READ = "print(add(*map(int, input().split())))\n"


@dataclasses.dataclass(frozen=True)
class Config:
    """Timing of the code judge."""

    workdir: str = "runs/benchmark_code_judge"
    """code_judge.json goes here."""
    seed: int = 0
    """Draws the rows of MBPP."""
    threads: int = 2
    """Judgements at a time."""
    judgements: int = 60
    """Of each form a round."""
    rounds: int = 5
    """Rounds; every form has its turn in each."""
    mbpp: int = 974
    """Rows of MBPP whose reference solution is judged by its own tests; 0 leaves it out. R1JAX_ASSETS names the folder
    with code/mbpp.jsonl."""


def judge_all(records: list[dict], completions: list[str], threads: int) -> tuple[list, float]:
    """The judgements, and how many a second."""
    start = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        judgements = list(pool.map(code_reward, records, completions))
    return judgements, len(records) / (time.monotonic() - start)


def start_interpreter(_) -> None:
    """Start the interpreter and end it, in no sandbox: the least that a run can cost."""
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)


def measure_forms(config: Config) -> dict[str, float]:
    """Median judgements a second of each form, and starts a second of a bare interpreter."""
    rates = {}
    for _ in range(config.rounds):
        start = time.monotonic()
        with ThreadPoolExecutor(config.threads) as pool:
            list(pool.map(start_interpreter, range(config.judgements)))
        rates.setdefault("bare interpreter", []).append(config.judgements / (time.monotonic() - start))
        for name, record in FORMS.items():
            completion = PROGRAM.format(READ if name == "input and output" else "")
            count = config.judgements
            judgements, rate = judge_all([record] * count, [completion] * count, config.threads)
            if any(judgement.outcome != "correct" for judgement in judgements):
                raise UserError(f"{name}: a right program was judged {Counter(judgements).most_common(2)}")
            rates.setdefault(name, []).append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def read_mbpp(count: int, seed: int) -> list[dict]:
    """Rows of MBPP."""
    folder = os.environ.get("R1JAX_ASSETS")
    if not folder:
        raise UserError("set R1JAX_ASSETS to the folder that holds code/mbpp.jsonl, or give --mbpp 0")
    lines = Path(folder, "code", "mbpp.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return random.Random(seed).sample(rows, min(count, len(rows)))


def judge_mbpp(config: Config) -> dict:
    """How many references pass, which do not, and how many a second."""
    rows = read_mbpp(config.mbpp, config.seed)
    records = [{"tests": row["test_list"], "setup": row["test_setup_code"]} for row in rows]
    judgements, rate = judge_all(records, [f"```python\n{row['code']}\n```" for row in rows], config.threads)
    missed = {row["task_id"]: j.reason for row, j in zip(rows, judgements, strict=True) if j.outcome != "correct"}
    return {"rows": len(rows), "passed": len(rows) - len(missed), "missed": missed, "per second": rate}


def main(config: Config) -> None:
    result = {"isolation": probe().level, "threads": config.threads, "per second": measure_forms(config)}
    table = Table("form of the tests", f"judgements a second, {config.threads} at a time")
    for name, rate in result["per second"].items():
        table.add_row(name, f"{rate:.1f}")
    if config.mbpp:
        result["mbpp"] = mbpp = judge_mbpp(config)
        table.add_row(f"MBPP, {mbpp['passed']} of {mbpp['rows']} references pass", f"{mbpp['per second']:.1f}")
    launch.console.print(table)
    path = Path(config.workdir) / "code_judge.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
