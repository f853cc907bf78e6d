"""How many answers the judge of mathematics judges a second on one core, tier by tier, and how long the worst takes.

The items are made here, so that no data set is needed; with `--assets FOLDER` the published golds of GSM8K and MATH are
judged against themselves too. Seconds are processor time of this process, since a shared machine's clock says little.
"""

import dataclasses
import json
import time
from pathlib import Path

from rich.table import Table

from r1jax import launch
from r1jax.rewards.math import check_gold, math_reward
from r1jax.rewards.math.judge import read_gold


@dataclasses.dataclass(frozen=True)
class Config:
    """Throughput of the judge of mathematics."""

    workdir: str = "runs/benchmark_math_judge"
    """math_judge.json goes here."""
    seed: int = 0
    """Not used: the items are the same every time."""
    repeats: int = 300
    """Items of each kind."""
    assets: str = ""
    """Folder with gsm8k/train.jsonl, gsm8k/test.jsonl and math/train.json; empty leaves them out."""


REASONING = "First we add the eggs, which gives $12 + {i} = {total}$. Then we take what is left. " * 40


def made_items(count: int) -> dict[str, list[tuple[str, str]]]:
    """Gold answers and completions by the tier that decides them."""
    thought = [f"<think>{REASONING.format(i=i, total=12 + i)}</think> " for i in range(count)]
    return {
        "the same text": [(f"{i}", rf"{thought[i]}So the answer is \boxed{{{i}}}.") for i in range(count)],
        "exact rational": [
            (f"{i}/8", rf"{thought[i]}\boxed{{\dfrac{{{2 * i}}}{{16}}\text{{ eggs}}}}") for i in range(count)
        ],
        "structure": [(f"({i}, {i + 1}]", rf"{thought[i]}\boxed{{{i} < x \le {i + 1}}}") for i in range(count)],
        "60 and 250 digits": [
            (rf"{i + 1}\sqrt{{2}}", rf"{thought[i]}\boxed{{\sqrt{{{2 * (i + 1) ** 2}}}}}") for i in range(count)
        ],
        "functions": [("x^2+12x+35", rf"{thought[i]}\boxed{{(x+5)(x+7) + {i} - {i}}}") for i in range(count)],
        "wrong": [(f"{i}", rf"{thought[i]}\boxed{{\frac{{{i}}}{{7}} + x}}") for i in range(count)],
    }


def asset_items(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Published golds and their own solutions, or their own text in a box; golds that cannot be judged are left out."""
    found = {}
    for name in ("train", "test"):
        rows = [json.loads(line)["answer"] for line in (folder / "gsm8k" / f"{name}.jsonl").read_text().splitlines()]
        found[f"GSM8K {name}"] = [(row.rpartition("#### ")[2], row) for row in rows]
    rows = [row["answer"] for row in json.loads((folder / "math" / "train.json").read_text())]
    found["MATH train"] = [(row, rf"\boxed{{{row}}}") for row in rows if check_gold(row) is None]
    found["MATH train, rewritten"] = [
        (row, rf"\boxed{{x = {row.replace('{', ' {')}.}}") for row in rows if check_gold(row) is None and "=" not in row
    ]
    return found


def measure(items: list[tuple[str, str]]) -> dict[str, float]:
    """Judgements a second, the share of correct ones, and the milliseconds of the slowest."""
    math_reward({"answer": items[0][0]}, items[0][1])  # imports
    slowest, right, start = 0.0, 0, time.process_time()
    for gold, text in items:
        before = time.process_time()
        right += math_reward({"answer": gold}, text).outcome == "correct"
        slowest = max(slowest, time.process_time() - before)
    seconds = time.process_time() - start
    return {
        "items": len(items),
        "a second": len(items) / seconds,
        "correct": right / len(items),
        "slowest": 1e3 * slowest,
    }


def main(config: Config) -> None:
    kinds = made_items(config.repeats) | (asset_items(Path(config.assets)) if config.assets else {})
    kinds["a mixture like GSM8K"] = [item for kind in made_items(config.repeats // 6).values() for item in kind]
    golds = sorted({gold for kind in kinds.values() for gold, _ in kind})
    read_gold.cache_clear()
    start = time.process_time()
    for gold in golds:
        check_gold(gold)
    checked = {"items": len(golds), "a second": len(golds) / (time.process_time() - start)}
    measured = {"check_gold, distinct golds": checked} | {kind: measure(items) for kind, items in kinds.items()}
    table = Table("tier", "items", "judgements a second", "correct", "slowest, ms")
    for kind, row in measured.items():
        shown = (f"{row[key]:{form}}" if key in row else "" for key, form in (("correct", ".4f"), ("slowest", ".1f")))
        table.add_row(kind, str(row["items"]), f"{row['a second']:.0f}", *shown)
    launch.console.print(table)
    path = Path(config.workdir) / "math_judge.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
