"""Mixtures of corpora: their weights, and which source a position of the mixed stream belongs to."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from r1jax.config import UserError

LARGEST_SOURCE = 2**32  # grain's index shuffle works on 32 bits


class Source(NamedTuple):
    """One corpus of a mixture."""

    name: str
    items: Sequence
    """Anything with a length and random access: a list, `RecordFiles`, `DocumentFiles`."""
    weight: int | None = None
    """Share of the stream relative to the other sources' weights; by default in proportion to the lengths."""


def check_sources(sources: Sequence[Source]) -> None:
    """Raise UserError, naming the source, where they cannot be mixed."""
    if not sources or len({source.name for source in sources}) < len(sources):
        raise UserError("a stream needs at least one source, and each needs a name of its own")
    for source in sources:
        if not 0 < len(source.items) < LARGEST_SOURCE:
            raise UserError(
                f"source {source.name!r} has {len(source.items)} items; 1 to {LARGEST_SOURCE - 1} can be shuffled"
            )
        if (source.weight is None) != (sources[0].weight is None) or source.weight is not None and source.weight < 1:
            raise UserError(
                f"source {source.name!r} has weight {source.weight}; give all a weight of at least 1, or none"
            )


def source_seed(seed: int, name: str) -> int:
    """The seed of a source's shuffle, from the seed of the stream and the name of the source.

    Hashed, because grain adds the epoch to the seed: neighbouring seeds would share their epochs.
    """
    return int.from_bytes(hashlib.blake2b(json.dumps([seed, name]).encode(), digest_size=4).digest())


class Interleaving:
    """Which source, and which place in it, a position of the mixture is: exactly by integer weights, evenly spread."""

    def __init__(self, sources: Sequence[Source]):
        lengths = [len(source.items) for source in sources]
        weights = lengths if sources[0].weight is None else [source.weight for source in sources]
        self._weights, total = tuple(weights), sum(weights)
        self._length = min(length * total // weight for length, weight in zip(lengths, weights, strict=True))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Peels off one source after the other: floor(k (rest - w) / rest) of the first k positions are not its own."""
        before, after, rest = position, position + 1, sum(self._weights)
        for source, weight in enumerate(self._weights):
            others_before, others_after = before * (rest - weight) // rest, after * (rest - weight) // rest
            if others_before == others_after:
                return source, before - others_before
            before, after, rest = others_before, others_after, rest - weight
        raise AssertionError("the last source takes what is left")
