"""What a RewardPool adds to the work itself: the same items judged in this process and in workers, in turn.

With W workers the pool would ideally take 1/W of the seconds of one process; what it takes beyond that is its overhead
in time. On a machine that does other things too, the overhead in processor time says more: that of this process and of
all workers, against that of judging here. Ratios are made within pairs of neighbouring runs, because speed drifts.
"""

import dataclasses
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that workers find this module too

from r1jax import launch
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.math import math_reward
from r1jax.rewards.pool import RewardPool
from r1jax.rewards.verdict import judge_inline
from r1jax.rewards.worker import descendants


@dataclasses.dataclass(frozen=True)
class Config:
    """Overhead of the reward pool."""

    workdir: str = "runs/benchmark_reward_pool"
    """reward_pool.json goes here."""
    seed: int = 0
    """Draws the items."""
    items: int = 1000
    """Items a run, of each kind."""
    repeats: int = 5
    """Pairs of runs for every kind of item and number of workers."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of workers to try; more than there are cores measures the machine, not the pool."""


def hash_reward(record: dict, completion: str) -> Judgement:
    """A fixed amount of work, about 2 ms: a judge of middling cost."""
    hashlib.pbkdf2_hmac("sha256", completion.encode(), b"salt", record["rounds"])
    return Judgement("correct", 1.0)


def hash_items(count: int, rng: np.random.Generator) -> tuple[list[dict], list[str]]:
    """Texts to be hashed in about 2 ms each."""
    return [{"rounds": 4000}] * count, [str(number) for number in rng.integers(0, 1 << 30, count)]


def math_items(count: int, rng: np.random.Generator) -> tuple[list[dict], list[str]]:
    """Answers as models write them to questions of a grade school, half of them right, after some reasoning."""
    golds = rng.integers(1, 5000, count)
    given = np.where(rng.random(count) < 0.5, golds, golds + 1)
    forms = [r"\boxed{{{:,}}}", r"\boxed{{\${}}}", r"\boxed{{\frac{{{0}}}{{1}}}}", r"\boxed{{{}\text{{ apples}}}}"]
    thought = "First we add what she has to what she buys, then we take away what she gives to her brother. "
    text = lambda i: f"<think>{thought * int(rng.integers(5, 40))}</think> So it is " + forms[i % 4].format(given[i])
    return [{"answer": str(gold)} for gold in golds], [text(i) for i in range(count)]


def mixed_items(count: int, rng: np.random.Generator) -> tuple[list[dict], list[str]]:
    """Math items and texts to be hashed, in turn."""
    pairs = zip(zip(*math_items(count, rng)), zip(*hash_items(count, rng)))
    flat = [item for pair in pairs for item in pair][:count]
    return [record for record, _ in flat], [text for _, text in flat]


def mixed_reward(record: dict, completion: str) -> Judgement:
    """The judge of mixed items."""
    return (hash_reward if "rounds" in record else math_reward)(record, completion)


def measure(config: Config, judge, draw: Callable) -> dict[str, dict]:
    """Processor time of the work in this process, and overheads by number of workers: medians over pairs.

    Every pair of runs has items of its own, so that what a judge remembers from one run does not help the next.
    """
    judges, found, rng = {"accuracy": judge}, {}, np.random.default_rng(config.seed)
    for workers in config.workers:
        with RewardPool(judges, workers=workers, timeout=60) as pool:
            pool.judge(*draw(config.items, rng))  # what judges import late is imported now
            judge_inline(judges, *draw(20, rng))
            pairs = []
            for _ in range(config.repeats):
                items = draw(config.items, rng)
                start = spent()
                expected = judge_inline(judges, *items).result()
                middle = spent()
                assert pool.judge(*items) == expected, "the pool judges otherwise than this process"
                pairs.append((middle - start, spent() - middle))
        ratios = np.array([pooled / alone * [workers, 1] - 1 for alone, pooled in pairs])
        found[f"{workers} workers" if workers > 1 else "1 worker"] = {
            "ms_an_item": 1e3 * statistics.median(alone[1] for alone, _ in pairs) / config.items,
            "time": np.median(ratios[:, 0]), "least": min(ratios[:, 0]), "most": max(ratios[:, 0]),
            "processor": np.median(ratios[:, 1]),
        }  # fmt: skip
    return found


def spent() -> np.ndarray:
    """Seconds on the clock, and of processors: ours and those of the processes below us."""
    ticks = 0
    for process in descendants(os.getpid()):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return np.array([time.perf_counter(), time.process_time() + ticks / os.sysconf("SC_CLK_TCK")])


def main(config: Config) -> None:
    from experiments.benchmarks import reward_pool  # by its name: workers cannot import the running script

    judges = {
        "math": (math_reward, math_items),
        "hash": (reward_pool.hash_reward, hash_items),
        "both": (reward_pool.mixed_reward, mixed_items),
    }
    found = {kind: measure(config, judge, draw) for kind, (judge, draw) in judges.items()}
    table = Table("items", "workers", "CPU ms an item", "more CPU time", "more time", "least to most")
    for kind, by_workers in found.items():
        for workers, r in by_workers.items():
            row = f"{r['ms_an_item']:.2f}", f"{r['processor']:+.1%}", f"{r['time']:+.1%}"
            table.add_row(kind, workers, *row, f"{r['least']:+.1%} to {r['most']:+.1%}")
    launch.console.print(table)
    path = Path(config.workdir) / "reward_pool.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
