"""Causal attention that never holds its scores: the splash kernels of Pallas, for TPU."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha,
)
from jax.sharding import PartitionSpec

BLOCK = 512
"""Queries and keys that are worked on at a time."""
LANES = 128


def splash_attend(query, key, value, segments, *, scale: float, spec: PartitionSpec | None = None, interpret=False):
    """softmax(q k^T * scale) v over the keys of a query's own segment at its own place or before it.

    The same as `attend` and `grouped_attention` with the mask of `attention_mask`, where positions rise along a row
    within each segment, and but for queries of segment 0, padding, which see the padding before them.

    Args:
      query: [B, T, N, H].
      key: [B, T, K, H], K dividing N; query head n reads head n // (N / K).
      value: [B, T, K, Hv].
      segments: [B, T] int32.
      scale: multiplies the scores.
      spec: mesh axes of B, T and heads, by which the kernels are placed on the mesh in force; T must lie whole on each
        device (its entry is ignored). None without a mesh.
      interpret: run the kernels as ordinary operations, for tests without a TPU.

    Returns:
      [B, T, N, Hv], dtype of `value`.
    """

    def local(query, key, value, segments):
        length = query.shape[1]
        kernel = make_kernel(query.shape[2], np.arange(length), length, shards=1, interpret=interpret)
        return run_kernel(kernel, query, key, value, segments, segments, scale=scale)

    if spec is None:
        return local(query, key, value, segments)
    batch, _, heads = spec
    wide = PartitionSpec(batch, None, heads)
    placed = jax.shard_map(local, in_specs=(*[wide] * 3, PartitionSpec(batch)), out_specs=wide, check_vma=False)
    return placed(query, key, value, segments)


def make_kernel(heads: int, order: np.ndarray, keys: int, *, shards: int, interpret: bool):
    """A kernel for queries that see the keys at their own place or before it.

    Args:
      heads: of a device.
      order: [T] place of each query among the keys, those of the first device first.
      keys: how many there are.
      shards: devices over which the queries are cut; `manual_sharding_spec` of the kernel places it.
    """
    own = order.reshape(shards, -1)
    rows = _fill(own.shape[1])
    # What fills the last block sees everything, so that its softmax is one.
    places = np.pad(own, ((0, 0), (0, rows - own.shape[1])), constant_values=_fill(keys)).reshape(-1)
    mask = CausalMask((len(places), _fill(keys)))
    mask.q_sequence = places.astype(np.int32)
    block_q, block_kv = _block(rows), _block(keys)
    sizes = BlockSizes(
        block_q=block_q, block_kv=block_kv, block_kv_compute=block_kv, block_q_dkv=block_q, block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv, block_q_dq=block_q, block_kv_dq=block_kv,
    )  # fmt: skip
    return make_splash_mha(
        MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=shards, interpret=interpret
    )


def run_kernel(kernel, query, key, value, query_segments, key_segments, *, scale: float):
    """One device's part of attention by a kernel: shapes as for `splash_attend`, lengths of queries and keys apart."""
    length = query.shape[1]
    query = query * jnp.asarray(scale, query.dtype)
    query_segments = jnp.concatenate(
        [query_segments, jnp.repeat(key_segments[:, :1], _fill(length) - length, axis=1)], axis=1
    )
    pad = lambda x: jnp.pad(x, ((0, 0), (0, _fill(x.shape[1]) - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
    query, key, value, key_segments = (pad(x) for x in (query, key, value, key_segments))
    outward = lambda x: x.transpose(0, 2, 1, 3)
    segments = SegmentIds(query_segments, key_segments)
    mixed = jax.vmap(kernel)(outward(query), outward(key), outward(value), segments)
    return outward(mixed)[:, :length].astype(value.dtype)


def _block(length: int) -> int:
    return min(BLOCK, -(-length // LANES) * LANES)


def _fill(length: int) -> int:
    """The length with its last block filled."""
    return -(-length // _block(length)) * _block(length)
