"""Documents packed into rows of fixed length."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class PackedBatch(NamedTuple):
    """Rows of several documents each; all [B, T] int32."""

    tokens: np.ndarray
    targets: np.ndarray
    """The next token of the same document."""
    positions: np.ndarray
    """Counted from the start of each document; -1 for padding."""
    segments: np.ndarray
    """Which document of the row, from 1; 0 for padding."""


def pack_documents(next_document: Callable[[], list[int]], *, batch: int, length: int) -> PackedBatch:
    """Fill `batch` rows with whole documents, each into the first of the open rows that has room.

    A row of T inputs holds documents of together at most T tokens less one each, for the last token of a document is
    only a target.

    Args:
      next_document: returns the token ids of one more document, end-of-sequence included.
      batch, length: shape of the result.

    Raises:
      ValueError: a document is longer than a row.
    """
    arrays = [np.zeros((batch, length), np.int32) for _ in range(2)]
    arrays += [np.full((batch, length), -1, np.int32), np.zeros((batch, length), np.int32)]
    result = PackedBatch(*arrays)
    used, segments = np.zeros(batch, int), np.zeros(batch, int)
    while True:
        ids = next_document()
        size = len(ids) - 1
        if size > length:
            raise ValueError(f"a document of {len(ids)} tokens does not fit into rows of {length}")
        fits = np.flatnonzero(used + size <= length)
        if not fits.size:
            return result
        row = fits[0]
        place = slice(used[row], used[row] + size)
        segments[row] += 1
        result.tokens[row, place], result.targets[row, place] = ids[:-1], ids[1:]
        result.positions[row, place], result.segments[row, place] = np.arange(size), segments[row]
        used[row] += size
