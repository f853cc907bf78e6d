"""What streams cost: records and tokens a second beside reading the file plainly, and memory over a large corpus.

The corpus is made here and is larger than the memory that the streams may take: text of random syllables, which
compresses like prose, and documents of random token ids.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.data.documents import DocumentFiles, plain_document, write_documents
from r1jax.data.packing import fill_share
from r1jax.data.sources import read_records, write_array_record, write_json_lines
from r1jax.data.streams import Hosts, RecordFiles, Source, packed_stream, record_stream
from r1jax.metrics import write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """Throughput and memory of the data streams."""

    workdir: str = "runs/benchmark_data_stream"
    """The corpus is written here, and data_stream.json."""
    records: int = 100_000
    """Records of the corpus, about 2 kB each."""
    rows: int = 32
    """Rows of a packed global batch."""
    sequence_length: int = 4096
    """Tokens a row."""
    hosts: int = 8
    """For what one host of several does: it plans all, and reads its own part."""
    seed: int = 0
    """Of the corpus and of the order."""


def make_records(config: Config) -> Iterator[dict]:
    rng = np.random.default_rng(config.seed)
    syllables = np.array(["ka", "to", "mi", "ren ", "sol ", "va", "de ", "lu", "pen ", "o "])
    for number in range(config.records):
        yield {"family": "text", "id": f"t:{number}", "text": "".join(syllables[rng.integers(0, 10, 840)])}


def make_documents(config: Config):
    rng = np.random.default_rng(config.seed)
    for _ in range(config.records):
        size = int(np.clip(rng.lognormal(6, 1), 2, config.sequence_length))
        yield plain_document(rng.integers(0, 100_000, size))


def resident_bytes() -> int:
    """Memory of this process; pages of mapped files count once they were touched."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(items: Iterable, count: Callable, seconds: float = 20.0) -> dict:
    """Things a second, counted in at most so many seconds, and how far memory rose after the first 0.1 s."""
    start, total, base, peak, worst = time.monotonic(), 0, None, 0, 0.0
    before = start
    for item in items:
        total += count(item)
        now = time.monotonic()
        worst, before = max(worst, now - before), now
        if base is None and now - start > 0.1:
            base = resident_bytes()
        peak = max(peak, resident_bytes())
        if now - start > seconds:
            break
    elapsed = time.monotonic() - start
    return {"a second": total / elapsed, "rise, MB": (peak - (base or peak)) / 1e6, "longest wait, s": worst}


def plain_lines(path: Path) -> Iterator[dict]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)


def main(config: Config) -> None:
    folder = Path(config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    lines, records, packed = (folder / name for name in ("text.jsonl", "text.array_record", "documents.array_record"))
    write_json_lines(make_records(config), lines)
    write_array_record(read_records(lines), records)
    write_documents(make_documents(config), packed)
    one, documents = lambda item: 1, DocumentFiles([packed])
    tokens = lambda batch: int((batch.segments > 0).sum())
    text, several = [Source("text", RecordFiles([records]))], Hosts(0, config.hosts)
    stream = lambda hosts: record_stream(text, batch=64, seed=config.seed, epochs=1, hosts=hosts)
    pack = lambda packing, hosts: packed_stream(
        [Source("documents", documents)],
        batch=config.rows,
        length=config.sequence_length,
        seed=config.seed,
        epochs=1,
        hosts=hosts,
        packing=packing,
    )
    best, end_to_end = (
        (lambda hosts=Hosts(): pack("best_fit", hosts)),
        (lambda hosts=Hosts(): pack("concatenate", hosts)),
    )
    measured = {
        "records: json.loads of every line": measure(plain_lines(lines), one),
        "records: read_records, checked": measure(read_records(lines), one),
        "records: shuffled stream": measure(stream(Hosts()), len),
        f"records: shuffled stream, one host of {config.hosts}": measure(stream(several), len),
        "tokens: documents in the order of the file": measure(documents, lambda document: len(document.ids)),
        "tokens: shuffled and packed, best fit": measure(best(), tokens),
        f"tokens: the same, one host of {config.hosts}": measure(best(several), tokens),
        "tokens: shuffled, end to end": measure(end_to_end(), tokens),
    }
    table = Table("", "a second", "rise, MB", "longest wait, s")
    for name, figures in measured.items():
        table.add_row(name, f"{figures['a second']:,.0f}", *(f"{x:.1f}" for x in list(figures.values())[1:]))
    launch.console.print(table)
    batches = best()
    shares = [fill_share(next(batches).segments) for _ in range(10)]
    sizes = {path.name: path.stat().st_size for path in (lines, records, packed)}
    launch.console.print(f"fill share {np.mean(shares):.4f}; files, MB: { {n: s // 10**6 for n, s in sizes.items()} }")
    write_json(folder / "data_stream.json", {"measured": measured, "fill_share": shares, "bytes": sizes})


if __name__ == "__main__":
    launch.run(main, Config)
