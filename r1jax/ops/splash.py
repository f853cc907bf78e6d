"""Causal attention that never holds its scores: the splash kernels of Pallas, for TPU."""

import jax
import jax.numpy as jnp
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
        block = min(BLOCK, -(-length // LANES) * LANES)
        pad = lambda x: jnp.pad(x, ((0, 0), (0, -length % block), *((0, 0),) * (x.ndim - 2)))
        query, key, value, segments = (pad(x) for x in (query * jnp.asarray(scale, query.dtype), key, value, segments))
        kernel = _kernel(query.shape[2], query.shape[1], block, interpret)
        outward = lambda x: x.transpose(0, 2, 1, 3)
        mixed = jax.vmap(kernel)(outward(query), outward(key), outward(value), SegmentIds(segments, segments))
        return outward(mixed)[:, :length].astype(value.dtype)

    if spec is None:
        return local(query, key, value, segments)
    batch, _, heads = spec
    wide = PartitionSpec(batch, None, heads)
    placed = jax.shard_map(local, in_specs=(*[wide] * 3, PartitionSpec(batch)), out_specs=wide, check_vma=False)
    return placed(query, key, value, segments)


def _kernel(heads: int, length: int, block: int, interpret: bool):
    sizes = BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    mask = MultiHeadMask([CausalMask((length, length)) for _ in range(heads)])
    return make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
