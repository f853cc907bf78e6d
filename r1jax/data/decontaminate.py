"""Decontamination: whether a text contains items of a benchmark, or near-copies of them.

DeepSeek-R1 removes training texts that share a run of ten words with an evaluation item (arXiv 2501.12948 v2).
A copy with another name or number in every sentence breaks most of those runs, so shorter runs are counted too, in
which any number stands for any other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from r1jax.data.words import WordHashes, gram_hashes, words

NEAR_RUN = 4  # words of the short runs
FEWEST_RUNS = 8  # short runs of its own that an item needs to be recognised by their share
SHORTEST_CONTAINED = 5  # words; shorter items are looked for as whole texts only
NUMBER = "0"  # in place of every number of a short run
NUMBER_WORDS = frozenset("one two three four five six seven eight nine ten eleven twelve".split())


class Item(NamedTuple):
    """A text of a benchmark that training must not have seen."""

    benchmark: str
    id: str
    part: str
    """"question" or "solution"."""
    text: str


class Match(NamedTuple):
    """Which item a text contains, and by which rule that was seen."""

    benchmark: str
    item: str
    part: str
    rule: Literal["run", "whole", "near"]
    """A run of words in common; the whole of an item without telling runs; a share of an item's short runs."""
    share: float
    """Of the item's short runs (of its words, if it is shorter), how many are in the text; for "near" whatever their
    numbers."""
    words: str
    """The first words in common."""


class _Runs:
    """Sorted hashes of runs of words, and which items each is in."""

    def __init__(self, pairs: Iterable[tuple[int, int]]):
        ordered = np.array(sorted(set(pairs)), np.uint64).reshape(-1, 2)
        self.keys, starts = np.unique(ordered[:, 0], return_index=True)
        self.starts = np.append(starts, len(ordered))
        self.items = ordered[:, 1].astype(np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in `hashes` of known runs, and their numbers."""
        if not len(self.keys) or not len(hashes):
            return np.zeros(0, int), np.zeros(0, int)
        number = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        places = np.flatnonzero(self.keys[number] == hashes)
        return places, number[places]

    def items_of(self, numbers: np.ndarray) -> np.ndarray:
        """The items of each run, one after another."""
        return np.concatenate([self.items[self.starts[n] : self.starts[n + 1]] for n in numbers] or [np.zeros(0, int)])


class BenchmarkIndex:
    """The runs of words of benchmarks, against which texts are compared; its size is that of the benchmarks."""

    def __init__(
        self, items: Iterable[Item], *, run: int = 10, common: int = 3, near: float = 0.4, least_share: float = 0.0
    ):
        """Index the items.

        Args:
          items: of all benchmarks.
          run: words in a row that a text may not share with an item.
          common: a run of words that more items of one benchmark have in common is a phrase ("where m and n are
            relatively prime positive integers") and counts for nothing.
          near: share of an item's short runs, phrases aside, from which a text is a near-copy; above 1 to switch off.
          least_share: share of an item's short runs below which a run in common counts for nothing: 0 in the paper;
            0.25 lets texts pass that share a turn of phrase and nothing else.
        """
        self.run, self.near, self.least_share = run, near, least_share
        self._hashes = WordHashes()
        self.items: list[Item] = []
        self._words: list[list[str]] = []
        known: set[tuple[str, tuple[str, ...]]] = set()
        for item in items:
            sequence = words(item.text)
            if sequence and (item.benchmark, tuple(sequence)) not in known:
                known.add((item.benchmark, tuple(sequence)))
                self.items.append(item)
                self._words.append(sequence)
        self._templates = [_template(sequence) for sequence in self._words]
        long = self._evidence(self._words, run, common)
        short = self._evidence(self._templates, NEAR_RUN, common)
        self._long, self._near = _Runs(_pairs(long)), _Runs(_pairs(short))
        own = zip(short, self._words, strict=True)
        self._own = np.array([len(runs) if _tells(len(runs), len(item)) else 0 for runs, item in own], np.int64)
        whole = [
            (number, self._hashes.of(sequence))
            for number, (item, sequence) in enumerate(zip(self.items, self._words, strict=True))
            if not long[number] and item.part == "question"
        ]
        self._tiny = {h.tobytes(): n for n, h in reversed(whole) if len(h) < SHORTEST_CONTAINED}
        self._whole = {n: h for n, h in whole if len(h) >= SHORTEST_CONTAINED}
        self._starts = _Runs(
            (int(gram_hashes(h[:SHORTEST_CONTAINED], SHORTEST_CONTAINED)[0]), n) for n, h in self._whole.items()
        )

    def _evidence(self, sequences: list[list[str]], size: int, common: int) -> list[list[int]]:
        """Of every item the runs of words that tell it from others."""
        found, seen = [], defaultdict(Counter)
        for item, sequence in zip(self.items, sequences, strict=True):
            runs = gram_hashes(self._hashes.of(sequence), size).tolist()
            seen[item.benchmark].update(set(runs))
            found.append([h for place, h in enumerate(runs) if _says_something(sequence[place : place + size])])
        frequent = {run for counts in seen.values() for run, count in counts.items() if count > common}
        return [[run for run in dict.fromkeys(runs) if run not in frequent] for runs in found]

    def find(self, text: str, question: str | None = None) -> Match | None:
        """The item that a text has most in common with, if it has too much in common with one.

        Args:
          text: all of it.
          question: the part of it that an item too short to be looked for inside a text is compared with; all by
            default.
        """
        sequence = words(text)
        hashes = self._hashes.of(sequence)
        match = self._find_run(sequence, hashes) or self._find_whole(hashes, question)
        return match or self._find_near(sequence)

    def _find_run(self, sequence: list[str], hashes: np.ndarray) -> Match | None:
        places, numbers = self._long.find(gram_hashes(hashes, self.run))
        if not len(places):
            return None
        item = int(np.bincount(self._long.items_of(np.unique(numbers))).argmax())
        place = next(p for p, n in zip(places, numbers, strict=True) if item in self._long.items_of([n]))
        match = self._match(item, "run", sequence[place : place + self.run], hashes)
        return match if match.share >= self.least_share else None

    def _find_whole(self, hashes: np.ndarray, question: str | None) -> Match | None:
        places, numbers = self._starts.find(gram_hashes(hashes, SHORTEST_CONTAINED))
        for place, number in zip(places, numbers, strict=True):
            for item in self._starts.items_of([number]).tolist():
                if np.array_equal(hashes[place : place + len(self._whole[item])], self._whole[item]):
                    return self._match(item, "whole", self._words[item], hashes)
        if self._tiny:
            asked = hashes if question is None else self._hashes.of(words(question))
            item = self._tiny.get(asked.tobytes())
            return None if item is None else self._match(item, "whole", self._words[item], hashes)
        return None

    def _find_near(self, sequence: list[str]) -> Match | None:
        hashes = self._hashes.of(_template(sequence))
        places, numbers = self._near.find(gram_hashes(hashes, NEAR_RUN))
        if len(places) < FEWEST_RUNS * self.near:
            return None
        counts = np.bincount(self._near.items_of(np.unique(numbers)), minlength=len(self.items))
        enough = np.flatnonzero((self._own > 0) & (counts >= self.near * self._own))
        for item in sorted(enough, key=lambda i: (-counts[i] / self._own[i], i)):
            of_item = np.isin(numbers, [n for n in np.unique(numbers) if item in self._near.items_of([n])])
            place = self._densest(places[of_item], numbers[of_item], int(item))
            if place is not None:
                return self._match(int(item), "near", sequence[place : place + NEAR_RUN], hashes)
        return None

    def _densest(self, places: np.ndarray, numbers: np.ndarray, item: int) -> int | None:
        """Where the near-copy begins; None if the runs are scattered over a text much longer than the item."""
        width = 2 * len(self._words[item])
        for first, place in enumerate(places):
            inside = np.searchsorted(places, place + width)
            if len(set(numbers[first:inside].tolist())) >= self.near * self._own[item]:
                return int(place)
        return None

    def _match(self, item: int, rule: str, shared: list[str], hashes: np.ndarray) -> Match:
        size = min(NEAR_RUN, len(self._words[item]))
        own = self._templates[item] if rule == "near" else self._words[item]
        runs = np.unique(gram_hashes(self._hashes.of(own), size))
        share = float(np.isin(runs, gram_hashes(hashes, size)).mean())
        found = self.items[item]
        return Match(found.benchmark, found.id, found.part, rule, round(share, 3), " ".join(shared))


def _pairs(evidence: list[list[int]]) -> list[tuple[int, int]]:
    return [(run, item) for item, runs in enumerate(evidence) for run in runs]


def _template(sequence: list[str]) -> list[str]:
    """A sequence of words with one number in place of all."""
    return [NUMBER if word[0].isdigit() or word in NUMBER_WORDS else word for word in sequence]


def _tells(runs: int, words: int) -> bool:
    """Whether the short runs of an item's own are enough of it to recognise it by: not those of bare arithmetic."""
    return runs >= FEWEST_RUNS and 2 * runs >= words - NEAR_RUN + 1


def _says_something(run: list[str]) -> bool:
    """Whether at least half of a run is words; the rest of a run is arithmetic or symbols, which prove nothing."""
    return 2 * sum(len(word) > 1 or not word.isascii() for word in run if word[0].isalpha()) >= len(run)
