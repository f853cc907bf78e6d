"""The data card: where records come from, what was removed and why, what is left."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.data.rows import data_files
from r1jax.data.sifting import REASONS, Ledger, Tally
from r1jax.data.texts import all_text

LONGEST_EXAMPLE = 240  # characters
QUANTILES = {"median": 0.5, "p95": 0.95, "longest": 1.0}


class DataFile(NamedTuple):
    """A file that was read, and its contents' hash."""

    role: str
    """"input", "benchmark" or "pass rates"."""
    name: str
    file: str
    bytes: int
    sha256: str


def describe_files(role: str, name: str, path: str | Path) -> list[DataFile]:
    """The data files at a path.

    Raises:
      UserError: see `data_files`.
    """
    found = []
    for file in data_files(path):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        found.append(DataFile(role, name, str(file), file.stat().st_size, digest))
    return found


def data_card(
    ledger: Ledger, files: Iterable[DataFile], licences: dict[str, str], *, command: str, config: dict
) -> dict:
    """The card as JSON: files, licences, configuration, counts by source and family, lengths, examples.

    Every count of rows is the sum of those kept and those removed for each reason.
    """
    by_source: dict[str, list[Tally]] = {}
    by_family: dict[str, list[Tally]] = {}
    for (source, family), tally in ledger.tallies.items():
        by_source.setdefault(source, []).append(tally)
        by_family.setdefault(family, []).append(tally)
    return {
        "total": _counts(ledger.tallies.values()),
        "sources": {
            name: {"licence": licences.get(name, "not given"), **_counts(tallies)}
            for name, tallies in by_source.items()
        },
        "families": {name: _counts(tallies) for name, tallies in by_family.items()},
        "benchmarks": _benchmark_counts(ledger),
        "files": [file._asdict() for file in files],
        "command": command,
        "config": config,
        "examples": [_example(row) for reason in REASONS for row in _examples(ledger, reason)],
    }


def card_markdown(card: dict) -> str:
    """A card for people."""
    lines = ["# Data card", ""]
    for title, groups in (("Sources", card["sources"]), ("Families", card["families"])):
        lines += [f"## {title}", "", *_count_table({**groups, "total": card["total"]}), ""]
    lines += [
        "A row is removed for the first of these reasons, from left to right; `removed.jsonl` has every removed row.",
        "",
    ]
    if card["total"]["without_rate"]:
        lines += [f"{card['total']['without_rate']} kept records have no pass rate.", ""]
    lines += ["## Length of the kept records, in characters", "", *_length_table(card["sources"]), ""]
    if card["benchmarks"]:
        lines += ["## Contamination", "", "| benchmark | rule | rows removed | items found |", "|---|---|---|---|"]
        lines += [f"| {b['benchmark']} | {b['rule']} | {b['rows']} | {b['items']} |" for b in card["benchmarks"]] + [""]
    lines += ["## Licences", "", *(f"- {name}: {source['licence']}" for name, source in card["sources"].items()), ""]
    lines += ["## Files", "", "| role | name | file | bytes | sha256 |", "|---|---|---|---|---|"]
    lines += [f"| {f['role']} | {f['name']} | {f['file']} | {f['bytes']} | {f['sha256']} |" for f in card["files"]]
    lines += ["", "## Command", "", "```", card["command"], "```", ""]
    lines += ["## Configuration", "", *(f"- {name}: {value}" for name, value in card["config"].items()), ""]
    lines += ["## Examples of what was removed", "", *(_example_line(example) for example in card["examples"])]
    return "\n".join(lines).rstrip() + "\n"


def _counts(tallies: Iterable[Tally]) -> dict:
    tallies = list(tallies)
    removed = sum((tally.removed for tally in tallies), Counter())
    lengths = np.concatenate([np.asarray(tally.characters) for tally in tallies] or [np.zeros(0)])
    characters = {"total": int(lengths.sum())}
    if len(lengths):
        characters["mean"] = round(float(lengths.mean()), 1)
        characters |= {n: int(np.quantile(lengths, q, method="inverted_cdf")) for n, q in QUANTILES.items()}
    return {
        "rows": sum(tally.rows for tally in tallies),
        **{reason: removed[reason] for reason in REASONS},
        "kept": sum(tally.kept for tally in tallies),
        "without_rate": sum(tally.without_rate for tally in tallies),
        "characters": characters,
    }


def _benchmark_counts(ledger: Ledger) -> list[dict]:
    return [
        {"benchmark": benchmark, "rule": rule, "rows": sum(items.values()), "items": len(items)}
        for (benchmark, rule), items in sorted(ledger.contaminated.items())
    ]


def _examples(ledger: Ledger, reason: str) -> list[dict]:
    return [row for (_, of_reason), rows in ledger.examples.items() if of_reason == reason for row in rows]


def _example(row: dict) -> dict:
    text = all_text(row["record"]) if "record" in row else row["raw"]
    text = " ".join(text.split())
    text = text if len(text) <= LONGEST_EXAMPLE else f"{text[:LONGEST_EXAMPLE]}…"
    return {
        "source": row["source"],
        "id": row.get("id"),
        "reason": row["reason"],
        "detail": row["detail"],
        "text": text,
    }


def _example_line(example: dict) -> str:
    detail = ", ".join(f"{name} {value}" for name, value in example["detail"].items())
    text = example["text"].replace("`", "'")
    return f"- **{example['reason']}**, {example['source']}, {example['id'] or 'no id'} ({detail}): `{text}`"


def _count_table(groups: dict[str, dict]) -> list[str]:
    columns = ("rows", *REASONS, "kept")
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return head + [
        f"| {name} | " + " | ".join(str(counts[c]) for c in columns) + " |" for name, counts in groups.items()
    ]


def _length_table(groups: dict[str, dict]) -> list[str]:
    columns = ("total", "mean", *QUANTILES)
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return head + [
        f"| {name} | " + " | ".join(str(counts["characters"].get(c, "–")) for c in columns) + " |"
        for name, counts in groups.items()
    ]
