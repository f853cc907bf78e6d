"""Attention of sequences that are cut over devices: what keys and values are made from travels, and they do not."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.ops.splash import make_kernel, run_kernel


class SequenceAxes(NamedTuple):
    """Mesh axes, by name, along which the arrays of an attention layer are cut; () or None where they are not."""

    batch: tuple[str, ...]
    length: str
    heads: str | None
    rank: tuple[str, ...] | None
    """Of the first axis of the matrix that expands; it is gathered along it for the time of its use."""


def zigzag_order(ways: int, length: int) -> np.ndarray:
    """[T]: which token lies at each place. Of 2 * ways chunks, device i holds the i-th and the i-th from the end."""
    chunks = np.arange(length).reshape(2 * ways, -1)
    return np.concatenate([chunks[[i, 2 * ways - 1 - i]].reshape(-1) for i in range(ways)])


def zigzag(x, *, rows: int, axis: int, batch, length: str, back: bool = False):
    """Move tokens, cut over devices in their order, to where `zigzag_order` puts them, or back.

    Causal attention costs a token as many products as it has keys. Cut in order, the last of n devices would have
    2 - 1 / n times the mean; like this all have the same.

    Args:
      x: [..., B, ..., T, ...], T a multiple of twice the devices.
      rows, axis: which axes B and T are.
      batch, length: their mesh axes.
      back: undo it.
    """
    ways = jax.sharding.get_abstract_mesh().shape[length]
    # Each device has an even and an odd chunk in either order, and each parity is a permutation of the devices.
    home = lambda chunk: min(chunk, 2 * ways - 1 - chunk)
    pairs = [[(chunk // 2, home(chunk)) for chunk in range(parity, 2 * ways, 2)] for parity in (0, 1)]

    def local(x):
        swapped = jax.lax.axis_index(length) % 2 == 1  # there the first chunk of the zigzag is the odd one
        halves = jnp.split(x, 2, axis)
        swap = lambda halves: [jnp.where(swapped, a, b) for a, b in (halves[::-1], halves)]
        if back:
            halves = swap(halves)
            turned = [[(target, source) for source, target in pair] for pair in pairs]
            return jnp.concatenate([jax.lax.ppermute(h, length, p) for h, p in zip(halves, turned)], axis)
        return jnp.concatenate(swap([jax.lax.ppermute(h, length, p) for h, p in zip(halves, pairs)]), axis)

    spec = PartitionSpec(*({rows: batch, axis: length}.get(place) for place in range(x.ndim)))
    return jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False)(x)


def sequence_attend(
    query, compressed, matrix, mask, segments,
    *, expand: Callable, attend: Callable | None, scale: float, axes: SequenceAxes, interpret: bool = False,
):  # fmt: skip
    """Attention among tokens that lie over devices as `zigzag_order` says; each device has the output of its own.

    A device keeps its queries, gathers what keys and values of all tokens are made from, and makes those of its own
    heads from it. Of DeepSeek-V3 that is a latent of 512 and a rotary key of 64 for each token, (512 + 64) x 2 = 1152
    bytes; keys and values of its 128 heads would be 128 x (192 + 128) x 2 = 81,920. For it each device expands every
    token, and not its own alone: 16.8 million products (512 x 128 x 256) a token, 73 ns on a v5p at its peak, where the
    80,768 bytes saved would take two links 404 ns. Backward the latent's slopes are scattered, and the latent is
    gathered again where layers are recomputed: three times 1152 bytes a token and layer of an update. Keys and values
    of the whole row are held for the heads of a device, in one layer at a time: 32,768 tokens of 128 heads are 2.7 GB,
    and their slopes as much.

    Args:
      query: [B, T, N, H].
      compressed: [B, T, C] that all heads share, or [B, T, K, C] of each key-value head.
      matrix: that `expand` takes, its axes rank, heads and more; or None.
      mask: [B, T, T] bool, of queries and keys that both lie in this order; kernels do not read it.
      segments: [B, T] int32; only kernels read it.
      expand: (compressed, matrix) -> key [B, T, K, H], value [B, T, K, Hv], of the heads that it is given.
      attend: (query, key, value, mask) -> [B, T, N, Hv]; None for the splash kernels, for which tokens of a segment
        must have rising positions along the row before `zigzag`, as for `splash_attend`.
      scale: multiplies the scores of the kernels.
      axes: of the mesh in force.
      interpret: run the kernels as ordinary operations, for tests without a TPU.

    Returns:
      [B, T, N, Hv].
    """
    mesh, length = jax.sharding.get_abstract_mesh(), query.shape[1]
    ways, kernel, kernel_spec = mesh.shape[axes.length], None, PartitionSpec()
    order = zigzag_order(ways, length)
    if attend is None:
        heads = query.shape[2] // (mesh.shape[axes.heads] if axes.heads else 1)
        kernel = make_kernel(heads, order, length, shards=ways, interpret=interpret)
        kernel_spec = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, axes.length)))

    def local(query, compressed, matrix, mask, segments, kernel):
        gather = partial(jax.lax.all_gather, axis_name=axes.length, axis=1, tiled=True)
        if matrix is not None and axes.rank:
            matrix = jax.lax.all_gather(matrix, axes.rank, axis=0, tiled=True)
        if kernel is None:
            return attend(query, *expand(gather(compressed), matrix), mask)
        key, value = expand(_in_order(gather(compressed), order, ways), matrix)
        return run_kernel(kernel, query, key, value, segments, _in_order(gather(segments), order, ways), scale=scale)

    tokens = PartitionSpec(axes.batch or None, axes.length)
    by_head = PartitionSpec(*tokens, axes.heads)
    of_compressed = tokens if compressed.ndim == 3 else by_head
    in_specs = by_head, of_compressed, PartitionSpec(axes.rank, axes.heads), tokens, tokens, kernel_spec
    placed = jax.shard_map(local, in_specs=in_specs, out_specs=by_head, check_vma=False)
    return placed(query, compressed, matrix, mask if kernel is None else None, segments, kernel)


def _in_order(x, order, ways: int):
    """[B, T, ...] as `zigzag_order` has it, in the order of the tokens: whole chunks change places."""
    chunks = x.reshape(x.shape[0], 2 * ways, -1, *x.shape[2:])
    first = order.reshape(2 * ways, -1)[:, 0]
    return chunks[:, np.argsort(first)].reshape(x.shape)
