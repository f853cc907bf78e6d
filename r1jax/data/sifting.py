"""Which records of a source are kept; every other one is written down with the reason."""

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from r1jax.data.decontaminate import BenchmarkIndex
from r1jax.data.deduplicate import Deduplicator
from r1jax.data.rows import read_rows
from r1jax.data.sources import judging_fault
from r1jax.data.texts import all_text, asked_text, expected

REASONS = ("malformed", "unjudgeable", "contaminated", "pass rate", "duplicate")
"""Why a row is removed, in the order in which it is asked."""
UNREADABLE = "unreadable"
"""Stands for the family of a malformed row."""
EXAMPLES = 3  # removed rows of each source and reason that the card shows


class Filters(NamedTuple):
    """What is asked of a record; None: not asked."""

    check_answers: bool = True
    """Remove problems whose answers cannot be judged."""
    benchmarks: BenchmarkIndex | None = None
    pass_rates: dict[str, float] | None = None
    pass_range: tuple[float, float] = (0.0, 1.0)
    duplicates: Deduplicator | None = None


@dataclass
class Tally:
    """What became of the rows of one family of a source."""

    kept: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    """By reason."""
    without_rate: int = 0
    """Kept although the pass rates do not name them."""
    characters: array = field(default_factory=lambda: array("Q"))
    """Length of every kept record."""

    @property
    def rows(self) -> int:
        return self.kept + self.removed.total()


class Ledger:
    """Counts by source and family, and the file to which removed rows go."""

    def __init__(self, removed: TextIO):
        self.tallies: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
        self.examples: defaultdict[tuple[str, str], list[dict]] = defaultdict(list)
        self.contaminated: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        """By benchmark and rule, how many rows were removed for each item."""
        self._removed = removed

    def keep(self, source: str, record: dict, *, has_rate: bool) -> None:
        tally = self.tallies[source, record["family"]]
        tally.kept += 1
        tally.without_rate += not has_rate
        tally.characters.append(len(all_text(record)))

    def remove(self, source: str, family: str, reason: str, detail: dict, rest: dict) -> None:
        """Write down a removed row; `rest` is all that is known of it."""
        row = {"source": source, "reason": reason, "detail": detail, **rest}
        self._removed.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.tallies[source, family].removed[reason] += 1
        if reason == "contaminated":
            self.contaminated[detail["benchmark"], detail["rule"]][detail["item"]] += 1
        examples = self.examples[source, reason]
        if len(examples) < EXAMPLES:
            examples.append(row)

    def remove_malformed(self, source: str, quarantine: Path) -> None:
        """Take over the rows that the reader of a source put into a quarantine file, and delete the file."""
        if not quarantine.exists():
            return
        for row in read_rows(quarantine):
            raw = row.value.pop("raw")
            self.remove(source, UNREADABLE, "malformed", row.value, {"raw": raw})
        quarantine.unlink()


def reason_to_remove(record: dict, filters: Filters) -> tuple[str, dict] | None:
    """The first reason why a record should not be trained on, with its details; None where there is none.

    Duplicates are looked for last, so that the copy that stays is one that passed everything else.
    """
    problem = judging_fault(record) if filters.check_answers else None
    if problem:
        return "unjudgeable", {"problem": problem}
    match = filters.benchmarks.find(all_text(record), asked_text(record)) if filters.benchmarks else None
    if match:
        return "contaminated", match._asdict()
    rate = (filters.pass_rates or {}).get(record["id"])
    low, high = filters.pass_range
    if rate is not None and not low <= rate <= high:
        return "pass rate", {"pass_rate": rate, "low": low, "high": high}
    if filters.duplicates is not None:
        duplicate = filters.duplicates.find(record["id"], asked_text(record), _answer(record))
        if duplicate:
            return "duplicate", duplicate._asdict()
    return None


def sift(records: Iterable[dict], source: str, filters: Filters, ledger: Ledger) -> Iterator[dict]:
    """The records of a source that are kept; the others go to the ledger, which counts both."""
    for record in records:
        found = reason_to_remove(record, filters)
        if found is None:
            ledger.keep(source, record, has_rate=filters.pass_rates is None or record["id"] in filters.pass_rates)
            yield record
        else:
            ledger.remove(source, record["family"], *found, {"id": record["id"], "record": record})


def _answer(record: dict) -> Any:
    return expected(record) if "question" in record else None
