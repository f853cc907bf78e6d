"""Documents packed into rows of fixed length."""

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from r1jax.data.documents import Document


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


class TrainingRows(NamedTuple):
    """Rows of several documents each, and what is learned from them; all [B, T], int32 but for the mask."""

    tokens: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    """Counted from the start of each piece of a document; -1 for padding."""
    segments: np.ndarray
    """Which piece of the row, from 1; 0 for padding. Tokens attend within their segment."""
    loss_mask: np.ndarray
    """float32: 1 where the target is learned."""


class Piece(NamedTuple):
    """Part of a document: its tokens from `start` to `stop`."""

    document: int
    start: int
    stop: int


Row = tuple[Piece, ...]


def plan_best_fit(lengths: Sequence[int], row_length: int, *, long: Literal["error", "split"] = "error") -> list[Row]:
    """Lay whole documents into rows, the largest first, each into the fullest row that has room.

    A document of L tokens takes L - 1 places, for its last token is only a target. The rows come in the order of their
    first documents, so that the order of a shuffled stream survives the sorting.

    Args:
      lengths: tokens of each document, the end of sequence included.
      row_length: places of a row.
      long: what to do with a document that no row can hold: refuse it, or split it into pieces that do not see each
        other. Every token but a document's first is a target exactly once either way.

    Returns:
      Pieces by row; here `stop` is the last target, so a piece holds the inputs from `start` to `stop` - 1.

    Raises:
      ValueError: a document has fewer than two tokens, or is too long and `long` is "error".
    """
    pieces = []
    for document, length in enumerate(lengths):
        if length < 2:
            raise ValueError(f"document {document} has {length} tokens; with fewer than 2 there is nothing to predict")
        if length - 1 > row_length and long == "error":
            raise ValueError(f"document {document} of {length} tokens does not fit into rows of {row_length}")
        starts = range(0, length - 1, row_length)
        pieces += [Piece(document, start, min(start + row_length, length - 1)) for start in starts]
    rows, rooms = [], []  # rooms: (places left, row), ascending
    for piece in sorted(pieces, key=lambda piece: piece.start - piece.stop):
        size = piece.stop - piece.start
        place = bisect.bisect_left(rooms, (size,))
        room, row = rooms.pop(place) if place < len(rooms) else (row_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(piece)
        if room > size:
            bisect.insort(rooms, (room - size, row))
    return sorted(tuple(sorted(row)) for row in rows)


def plan_concatenated(lengths: Sequence[int], row_length: int) -> list[Row]:
    """Lay documents end to end and cut them into rows, as DeepSeek-V3 is pre-trained (arXiv 2412.19437, section 4.1).

    A row shares its last target with the first input of the next; only the last row may have room.

    Returns:
      Pieces by row, together `row_length` + 1 tokens: inputs and, one further, targets.
    """
    ends = np.cumsum(lengths)
    rows = []
    for first in range(0, int(ends[-1]) - 1 if len(ends) else 0, row_length):
        last = min(first + row_length + 1, int(ends[-1]))
        pieces, at = [], first
        document = int(np.searchsorted(ends, first, side="right"))
        while at < last:
            begin, end = int(ends[document] - lengths[document]), int(ends[document])
            if at < end:
                pieces.append(Piece(document, at - begin, min(end, last) - begin))
                at = min(end, last)
            document += 1
        rows.append(tuple(pieces))
    return rows


def fill_separate(rows: Sequence[Row], documents: Mapping[int, Document], row_length: int) -> TrainingRows:
    """Rows of `plan_best_fit` as arrays: every piece is a segment of its own with positions from 0."""
    result = _empty_rows(len(rows), row_length)
    for number, row in enumerate(rows):
        at = 0
        for segment, (name, start, stop) in enumerate(row, start=1):
            document, size = documents[name], stop - start
            place = number, slice(at, at + size)
            result.tokens[place], result.targets[place] = document.ids[start:stop], document.ids[start + 1 : stop + 1]
            result.positions[place], result.segments[place] = np.arange(size), segment
            result.loss_mask[place] = document.learned[start + 1 : stop + 1]
            at += size
    return result


def fill_concatenated(rows: Sequence[Row], documents: Mapping[int, Document], row_length: int) -> TrainingRows:
    """Rows of `plan_concatenated` as arrays: one segment a row, documents see each other."""
    result = _empty_rows(len(rows), row_length)
    for number, row in enumerate(rows):
        if not row:
            continue
        ids = np.concatenate([documents[name].ids[start:stop] for name, start, stop in row])
        learned = np.concatenate([documents[name].learned[start:stop] for name, start, stop in row])
        place = number, slice(0, len(ids) - 1)
        result.tokens[place], result.targets[place], result.loss_mask[place] = ids[:-1], ids[1:], learned[1:]
        result.positions[place], result.segments[place] = np.arange(len(ids) - 1), 1
    return result


def fill_share(segments: np.ndarray) -> float:
    """Share of the places of a batch that hold a token."""
    return float(np.mean(segments > 0))


def _empty_rows(batch: int, length: int) -> TrainingRows:
    zeros, shape = np.zeros((batch, length), np.int32), (batch, length)
    return TrainingRows(zeros, zeros.copy(), np.full(shape, -1, np.int32), zeros.copy(), np.zeros(shape, np.float32))
