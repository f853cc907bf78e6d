"""How a table of tokens by vocabulary, too large to be held, is walked in tiles, each of which may lie across devices."""

import dataclasses
import math

import jax
import jax.numpy as jnp

MIN_COLUMNS = 512
"""Of the vocabulary in a tile: fewer, and its matrix products wait for memory."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A plan of `plan_tiles`, static. Parts of what lies across devices are taken from every device at once."""

    vocab: int
    shards: int
    """M: parts of the vocabulary that may lie on different devices."""
    width: int
    """Columns of each part in a tile."""
    rows: int
    """Of the batch in a tile."""
    times: int
    """Of each row in a tile."""

    @property
    def steps(self) -> int:
        """Tiles over the vocabulary."""
        return -(-self.vocab // (self.shards * self.width))

    @property
    def ragged(self) -> bool:
        """Whether the last tile goes back over columns of the one before."""
        return self.steps * self.shards * self.width != self.vocab

    def start(self, step):
        """First column, within each part, of a tile."""
        return jnp.minimum(step * self.width, self.vocab // self.shards - self.width)


def plan_tiles(
    shape: tuple[int, int],
    vocab: int,
    *,
    chunk_size: int | None,
    vocab_chunk: int | None,
    vocab_shards: int | None,
    tile_bytes: int,
) -> Tiling:
    """Choose tiles for [B, T] tokens; None is chosen here. Arguments as `token_logprobs`.

    Raises:
      ValueError: a chunk is not positive, or the shards do not divide the vocabulary.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else math.prod(mesh.shape[name] for name in mesh.auto_axes)
    shards = math.gcd(vocab, devices) if vocab_shards is None else vocab_shards
    if shards < 1 or vocab % shards:
        raise ValueError(f"vocab_shards is {shards}; it must divide the vocabulary, {vocab}")
    if min(chunk_size or 1, vocab_chunk or 1, tile_bytes) < 1 or 0 in (chunk_size, vocab_chunk):
        raise ValueError(f"chunks must be positive, not {chunk_size} tokens, {vocab_chunk} columns, {tile_bytes} bytes")
    entries, tokens = devices * tile_bytes // 4, max(shape[0] * shape[1], 1)
    if chunk_size is None:
        chunk_size = entries // min(vocab, vocab_chunk or MIN_COLUMNS * shards)
    chunk_size = min(max(chunk_size, 1), tokens)
    if vocab_chunk is None:
        vocab_chunk = max(entries // chunk_size, MIN_COLUMNS * shards)
    rows = _even(shape[0], chunk_size)
    times = _even(shape[1], max(chunk_size // rows, 1))
    return Tiling(vocab, shards, _even(vocab // shards, max(vocab_chunk // shards, 1), 128), rows, times)


def _even(total: int, most: int, unit: int = 1) -> int:
    """Size of the parts when `total` is cut into the fewest that are at most `most`, in multiples of a unit."""
    if most >= total:
        return max(total, 1)
    size = -(-total // -(-total // most))
    return min(-(-size // unit) * unit, most)


def cut_tokens(arrays, tiling: Tiling) -> tuple:
    """[B, T, ...] arrays as [chunks, rows, times, ...], padded with zeros.

    A chunk takes every n-th row and time, not neighbours: what lies on one device is then cut among all chunks.
    """

    def cut(x):
        batch, length = x.shape[:2]
        x = jnp.pad(x, ((0, -batch % tiling.rows), (0, -length % tiling.times), *((0, 0),) * (x.ndim - 2)))
        rest = x.shape[2:]
        x = x.reshape(tiling.rows, x.shape[0] // tiling.rows, tiling.times, x.shape[1] // tiling.times, *rest)
        return jnp.moveaxis(x, (1, 3), (0, 1)).reshape(-1, tiling.rows, tiling.times, *rest)

    return tuple(map(cut, arrays))


def join_tokens(x, shape: tuple[int, int]):
    """The inverse of `cut_tokens` for one array: [chunks, rows, times, ...] as [B, T, ...]."""
    rows, times, rest = x.shape[1], x.shape[2], x.shape[3:]
    across, along = -(-shape[0] // rows), -(-shape[1] // times)
    x = jnp.moveaxis(x.reshape(across, along, rows, times, *rest), (0, 1), (1, 3))
    return x.reshape(rows * across, times * along, *rest)[: shape[0], : shape[1]]


def columns(head, tiling: Tiling, step):
    """The part [D, M, width] of a [D, V] or [D, M, V / M] head that a tile needs."""
    head = head.reshape(head.shape[0], tiling.shards, -1)
    return jax.lax.dynamic_slice_in_dim(head, tiling.start(step), tiling.width, axis=2)


def cut_columns(tiling: Tiling, step):
    """Of a tile's columns [M, width]: their numbers in the vocabulary, and whether no tile before had them, or None."""
    inside = tiling.start(step) + jnp.arange(tiling.width)
    column = jnp.arange(tiling.shards)[:, None] * (tiling.vocab // tiling.shards) + inside
    return column, (inside >= step * tiling.width) if tiling.ragged else None
