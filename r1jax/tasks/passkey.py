"""Passkey retrieval (arXiv 2305.16300): a key hidden somewhere in text that repeats itself, and asked for at the end.

A document is a sequence of pieces, each of which is one token of `SYMBOLS`, so its length in tokens is known:

    stone river mill stone river The pass key is 4 8 2 1 . mill stone river mill The pass key is 4 8 2 1

The filler is a loop of different words, repeated, so that it can be predicted by looking back: it teaches a small model
to retrieve by content, as the key must be.
"""

from typing import NamedTuple

import numpy as np

from r1jax.tasks.splits import Split, is_kept_back

HIDDEN, STOP = "The pass key is", "."
WORDS = (
    "grass", "stone", "river", "mill", "cloud", "field", "bird", "tree", "road", "house", "lamp", "door", "ship", "sand",
    "wind", "snow", "hill", "lake", "moon", "star", "fire", "rain", "leaf", "seed", "bread", "salt", "iron", "wool",
    "bell", "rope", "boat", "fish",
)  # fmt: skip
SYMBOLS = (HIDDEN, STOP, *WORDS, *"0123456789")
"""All pieces; a tokenizer for this task gives each a token of its own."""
LOOPS = range(5, 10)
"""Words of a loop of filler."""


class Passkey(NamedTuple):
    """One problem."""

    loop: tuple[str, ...]
    """The words that the filler repeats."""
    key: tuple[str, ...]
    """Digits, all different."""
    prompt: tuple[str, ...]
    """All pieces up to the answer, which is the key."""

    @property
    def document(self) -> tuple[str, ...]:
        """The prompt with its answer."""
        return self.prompt + self.key


def is_held_out(pieces: tuple[str, ...]) -> bool:
    """Whether a loop or a key is for evaluation alone: decided by a hash of it, one in ten."""
    return is_kept_back(" ".join(pieces))


def draw_passkey(
    rng: np.random.Generator, split: Split, *, length: int, key_digits: int, depth: float | None = None
) -> Passkey:
    """A problem whose document has `length` pieces. In one split neither its loop nor its key is in the other.

    Args:
      rng: draws the loop, the key and, where it is not given, the depth.
      split: "train" or "held_out".
      length: pieces of the document, the answer included.
      key_digits: digits of the key, all different, so that each is found by the one before it; 2 to 10.
      depth: where the key is hidden, from 0, at the beginning, to 1, right before the question; uniform by default.

    Raises:
      ValueError: a document cannot be that short, or there is no such split or depth.
    """
    room = length - 2 * key_digits - 3
    if room < 0 or split not in ("train", "held_out") or not 0 <= (depth or 0.0) <= 1 or not 2 <= key_digits <= 10:
        raise ValueError(
            f"no document of {length} pieces in split {split!r} with a key of {key_digits} digits at depth {depth}: "
            f"a key has 2 to 10 digits, this one needs {2 * key_digits + 3} pieces or more, and a depth from 0 to 1"
        )
    loop = _draw(split, lambda: rng.choice(WORDS, size=rng.integers(LOOPS.start, LOOPS.stop), replace=False))
    key = _draw(split, lambda: rng.choice(list("0123456789"), size=key_digits, replace=False))
    before = rng.integers(room + 1) if depth is None else round(depth * room)
    filler = (loop * (room // len(loop) + 1))[:room]
    prompt = (*filler[:before], HIDDEN, *key, STOP, *filler[before:], HIDDEN)
    return Passkey(loop, key, prompt)


def _draw(split: Split, draw) -> tuple[str, ...]:
    """The first of several draws that belongs to the split."""
    while True:
        pieces = tuple(map(str, draw()))
        if is_held_out(pieces) == (split == "held_out"):
            return pieces
