"""How fast prepare_data is, and what memory it takes, on a synthetic corpus.

Words follow Zipf's law over a vocabulary of 50,000; one document in twenty repeats an earlier one with a word changed;
the benchmark to be kept out has a thousand items, of which some are planted.
"""

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from r1jax import launch

PREPARE_DATA = Path(__file__).resolve().parents[1] / "prepare_data.py"

VOCABULARY, DOCUMENT, ITEM, ITEMS = 50_000, 400, 50, 1000  # words, words a document, words an item, items


@dataclasses.dataclass(frozen=True)
class Config:
    """Benchmark of data preparation."""

    workdir: str = "runs/data_preparation"
    """The corpus and the prepared data go here; an earlier run's are replaced."""
    seed: int = 0
    """The corpus follows from it."""
    megabytes: int = 200
    """Size of the corpus."""


def write_corpus(folder: Path, megabytes: int, rng: np.random.Generator) -> int:
    """Write corpus.jsonl and benchmark.jsonl; returns the number of documents."""
    letters = rng.integers(97, 123, (VOCABULARY, 7), np.uint8)
    words = np.array([bytes(row[: 2 + number % 6]).decode() for number, row in enumerate(letters)])
    draw = lambda size: words[np.minimum(rng.zipf(1.1, size) - 1, VOCABULARY - 1)]
    items = [" ".join(words[rng.integers(VOCABULARY, size=ITEM)]) for _ in range(ITEMS)]
    (folder / "benchmark.jsonl").write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
    written, count, earlier = 0, 0, draw(DOCUMENT)
    with (folder / "corpus.jsonl").open("w") as file:
        while written < megabytes * 1_000_000:
            document = earlier if count % 20 == 19 else draw(DOCUMENT)
            document[rng.integers(DOCUMENT)] = f"changed{count}"
            text = " ".join(document) + (f". {items[count % ITEMS]}" if count % 500 == 7 else "")
            written += file.write(json.dumps({"text": text}) + "\n")
            earlier, count = document, count + 1
    return count


def main(config: Config) -> None:
    folder = Path(config.workdir)
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    documents = write_corpus(folder, config.megabytes, np.random.default_rng(config.seed))
    start = time.perf_counter()
    command = [sys.executable, PREPARE_DATA, "--workdir", folder / "prepared", "--seed", config.seed]
    command += ["--inputs", f"corpus={folder / 'corpus.jsonl'}", "--benchmarks", f"items={folder / 'benchmark.jsonl'}"]
    subprocess.run(list(map(str, command)), check=True)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    launch.console.print(
        f"{documents} documents, {config.megabytes} MB in {seconds:.0f} s ({usage.ru_utime:.0f} s of processor time): "
        f"{documents / seconds:.0f} rows/s, {config.megabytes / seconds:.1f} MB/s; "
        f"peak memory {usage.ru_maxrss / 1024:.0f} MB",
        soft_wrap=True,
    )


if __name__ == "__main__":
    launch.run(main, Config)
