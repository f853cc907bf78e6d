"""Duplicates: the same text but for its dress, and near-duplicates by MinHash with locality-sensitive hashing.

Broder (1997), "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", section 3.4. What is remembered of a kept record is a signature of fixed size, never its text.
"""

import json
from typing import Any, Literal, NamedTuple

import numpy as np

from r1jax.data.words import WordHashes, gram_hashes, text_hash, words_and_signs

BANDS, ROWS = 16, 6  # two texts of similarity 0.8 share a band with probability 0.99, of similarity 0.4 with 0.06
AT_ONCE = 1 << 12  # runs of words hashed together, so that the work stays in the processor's cache
SPARE = 4  # slots of the table for every band of every record, so that few bands find theirs taken


class Duplicate(NamedTuple):
    """Which kept record a record repeats."""

    kept: str
    """Its id."""
    rule: Literal["same", "near"]
    similarity: float
    """Share of their runs of words that two texts have in common (Jaccard), estimated; 1 where they are the same."""
    same_answer: bool
    """Whether the same answer is expected; if not, one of the two is wrong."""


class Deduplicator:
    """Remembers the records it kept, one to two kilobytes each, and says which later ones repeat them."""

    def __init__(self, *, near: float = 0.8, run: int = 5, seed: int = 0):
        """Begin with nothing.

        Args:
          near: similarity from which two texts are near-duplicates; above 1 to look for equal texts only.
          run: words in a row that are compared as one.
          seed: the hash functions follow from it.
        """
        self.near, self.run = near, run
        self._factors = np.random.default_rng(seed).integers(1 << 63, size=BANDS * ROWS, dtype=np.uint64) * 2 + 1
        self._hashes = WordHashes()
        self._ids: list[str] = []
        self._numbers: dict[int, int] = {}
        self._answers = np.zeros(1 << 8, np.uint64)
        self._signatures = np.zeros((1 << 8, BANDS * ROWS), np.uint32)
        self._table = np.full(SPARE * BANDS << 8, -1, np.int32)

    def __len__(self) -> int:
        """How many records were kept."""
        return len(self._ids)

    def find(self, key: str, text: str, answer: Any = None) -> Duplicate | None:
        """The earliest kept record that a text repeats; a text that repeats none is kept from then on.

        Problems that differ in a few words and in their answer are two problems, not near-duplicates.

        Args:
          key: the id by which later duplicates will refer to this record.
          text: what makes it the record it is.
          answer: what is expected of a right answer, as JSON; None where nothing is.
        """
        sequence = words_and_signs(text)
        same, expected = text_hash(" ".join(sequence)), text_hash(json.dumps(answer, sort_keys=True))
        number = self._numbers.get(same)
        if number is not None:
            return Duplicate(self._ids[number], "same", 1.0, bool(self._answers[number] == expected))
        signature = self._signature(sequence) if self.near <= 1 else None
        if signature is not None:
            duplicate = self._find_near(signature, expected)
            if duplicate:
                return duplicate
        self._keep(key, same, expected, signature)
        return None

    def _signature(self, sequence: list[str]) -> np.ndarray:
        """The smallest of each of the hash functions over the runs of words, [bands x rows] uint32."""
        runs = gram_hashes(self._hashes.of(sequence), min(self.run, len(sequence)))
        smallest = np.full(BANDS * ROWS, ~np.uint64(0))
        for start in range(0, len(runs), AT_ONCE):
            hashed = self._factors[:, None] * runs[None, start : start + AT_ONCE]
            np.minimum(smallest, hashed.min(axis=1), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)

    def _slots(self, signatures: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Where in the table each band of each signature is looked up, [N, bands]; each answer has its own places."""
        bands = signatures.reshape(len(signatures), BANDS, ROWS).astype(np.uint64)
        mixed = answers[:, None] + np.arange(BANDS, dtype=np.uint64)
        for row in range(ROWS):
            mixed = (mixed ^ bands[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        return (mixed % np.uint64(len(self._table))).astype(np.int64)

    def _find_near(self, signature: np.ndarray, expected: int) -> Duplicate | None:
        found = np.unique(self._table[self._slots(signature[None], np.array([expected], np.uint64))])
        found = found[found >= 0]
        found = found[self._answers[found] == expected]
        similar = (self._signatures[found] == signature).mean(axis=1)
        if not np.any(similar >= self.near):
            return None
        first = int(np.argmax(similar >= self.near))
        return Duplicate(self._ids[found[first]], "near", round(float(similar[first]), 3), True)

    def _keep(self, key: str, same: int, expected: int, signature: np.ndarray | None) -> None:
        number = len(self._ids)
        self._ids.append(key)
        self._numbers[same] = number
        if number == len(self._answers):
            self._grow()
        self._answers[number] = expected
        if signature is not None:
            self._signatures[number] = signature
            self._enter(np.array([number]))

    def _grow(self) -> None:
        self._answers = np.concatenate([self._answers, np.zeros_like(self._answers)])
        if self.near <= 1:
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
            self._table = np.full(2 * len(self._table), -1, np.int32)
            for start in range(0, len(self._ids) - 1, AT_ONCE):
                self._enter(np.arange(start, min(start + AT_ONCE, len(self._ids) - 1)))

    def _enter(self, numbers: np.ndarray) -> None:
        """Note the records in the free slots of their bands; where several want one, the earliest has it."""
        slots = self._slots(self._signatures[numbers], self._answers[numbers]).ravel()[::-1]
        owners = np.repeat(numbers, BANDS)[::-1]
        free = self._table[slots] < 0
        self._table[slots[free]] = owners[free]
