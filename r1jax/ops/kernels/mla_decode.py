"""Absorbed latent attention that reads its cache once: a Pallas kernel for TPU; the reference is `latent_attend`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from r1jax.ops.wide import wide

BLOCK_BYTES = 2048
"""Keys that are worked on at a time, at most, times the bytes of a number."""
BLOCK_QUERIES = 256
"""Queries that are worked on at a time, at most."""
LANES = 128
SUBLANES = 16
_NOTHING = -1e30
"""The logarithm of a sum over no key; finite, so that differences of two of them are numbers."""


class Pooled(NamedTuple):
    """Softmax attention over a set of keys, with what is needed to go on with others."""

    mean: jax.Array
    """[B, Q, R] float32, the weighted mean of latents; 0 where no key is visible."""
    log_total: jax.Array
    """[B, Q, 1] float32, the logarithm of the sum of exponentials of the scores; -1e30 where no key is visible."""


def mla_decode(
    latent_query, rope_query, latent, rope_key, visible, layer=0, *, scale: float, interpret: bool = False
) -> Pooled:
    """softmax((q~ . c + q_rope . k_rope) * scale) c over a latent cache, in one pass over it.

    Blocks of keys stream through fast memory with a running softmax, so a key costs the (R + Hr) numbers of its entry,
    read once, and scores are never held. Blocks before a row's first visible key, or after its last, are neither read
    nor computed: rows of different lengths cost what each of them holds. All queries of a row see the same keys: its
    heads, several new tokens, or several samples that share a prefix, as Q = tokens x heads.

    Args:
      latent_query: [B, Q, R], queries mapped into the latent space.
      rope_query: [B, Q, Hr], rotated.
      latent: [L, B, S, R] and rope_key [L, B, Hr, S], what the cache holds of a stack of layers, for a slice of a stack
        would have to be copied before a kernel can read it; bfloat16 or float32. Products are taken in this dtype with
        float32 sums; of float32 operands at full precision.
      visible: [B, S] bool, which keys a row sees.
      layer: int32, the one to read.
      scale: multiplies the scores.
      interpret: run the kernel as ordinary operations, for tests without a TPU.

    Returns:
      Pooled over the visible keys.
    """
    batch, queries, rank = latent_query.shape
    keys, rope = latent.shape[2], rope_key.shape[2]
    block_q = min(BLOCK_QUERIES, -(-queries // SUBLANES) * SUBLANES)
    item = latent.dtype.itemsize
    block_s = min(BLOCK_BYTES // item, -(-keys // LANES) * LANES)
    grid = batch, -(-queries // block_q), -(-keys // block_s)
    pad = lambda x: jnp.pad(x.astype(latent.dtype), ((0, 0), (0, -queries % block_q), (0, 0)))

    held = visible.any(-1)
    first = jnp.where(held, jnp.argmax(visible, -1), 0) // block_s
    last = jnp.where(held, keys - 1 - jnp.argmax(visible[:, ::-1], -1), -1) // block_s
    bounds = jnp.stack([first, last], -1).astype(jnp.int32)  # last is -1 where nothing is visible
    layer = jnp.asarray(layer, jnp.int32).reshape(1)

    # A block outside of the bounds asks for one inside, which is there already: nothing is read.
    def inside(row, block, bounds):
        return jnp.clip(block, bounds[row, 0], jnp.maximum(bounds[row, 1], bounds[row, 0]))

    of_queries = lambda width: pl.BlockSpec((1, block_q, width), lambda b, q, s, *_: (b, q, 0))
    of_latents = pl.BlockSpec((1, 1, block_s, rank), lambda b, q, s, at, layer: (layer[0], b, inside(b, s, at), 0))
    of_keys = pl.BlockSpec((1, 1, rope, block_s), lambda b, q, s, at, layer: (layer[0], b, 0, inside(b, s, at)))
    of_mask = pl.BlockSpec((1, 1, block_s), lambda b, q, s, at, _: (b, 0, inside(b, s, at)))
    padded = grid[1] * block_q
    mean, log_total = pl.pallas_call(
        partial(_kernel, scale=scale, keys=keys),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=grid,
            in_specs=[of_queries(rank), of_queries(rope), of_latents, of_keys, of_mask],
            out_specs=[of_queries(rank), of_queries(1)],
            scratch_shapes=[pltpu.VMEM((block_q, width), jnp.float32) for width in (rank, LANES, LANES)],
        ),
        out_shape=[jax.ShapeDtypeStruct((batch, padded, width), jnp.float32) for width in (rank, 1)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * batch * padded * keys * (2 * rank + rope),
            bytes_accessed=batch * (grid[1] * keys * ((rank + rope) * item + 4) + padded * (rank + rope) * (item + 4)),
            transcendentals=batch * padded * keys,
        ),
        interpret=interpret,
        name="mla_decode",
    )(
        bounds, layer, pad(latent_query), pad(rope_query), latent, rope_key,
        visible[:, None].astype(jnp.int32),
    )  # fmt: skip
    return Pooled(mean[:, :queries], log_total[:, :queries])


def _kernel(
    bounds, layer, latent_query, rope_query, latent, rope_key, visible, mean, log_total, pooled, peak, total,
    *, scale, keys,
):  # fmt: skip
    row, block = pl.program_id(0), pl.program_id(2)

    @pl.when(block == 0)
    def _():
        pooled[...] = jnp.zeros_like(pooled)
        peak[...] = jnp.full_like(peak, _NOTHING)
        total[...] = jnp.zeros_like(total)

    @pl.when((block >= bounds[row, 0]) & (block <= bounds[row, 1]))
    def _():
        compressed, seen = latent[0, 0], visible[0] > 0
        size = len(compressed)
        if keys % size:  # what lies behind the last key is not defined, and 0 times it need not be 0
            left = keys - block * size
            seen &= jax.lax.broadcasted_iota(jnp.int32, (1, size), 1) < left
            compressed = jnp.where(jax.lax.broadcasted_iota(jnp.int32, (size, 1), 0) < left, compressed, 0)
        exact = jax.lax.Precision.HIGHEST if compressed.dtype == jnp.float32 else None
        dot = partial(jax.lax.dot_general, precision=exact, preferred_element_type=jnp.float32)
        columns, rows = (((1,), (1,)), ((), ())), (((1,), (0,)), ((), ()))
        scores = dot(latent_query[0], compressed, columns) + dot(rope_query[0], rope_key[0, 0], rows)
        scores = jnp.where(seen, scores * scale, _NOTHING)
        before = peak[:, :1]
        highest = jnp.maximum(before, scores.max(1, keepdims=True))
        weights = jnp.where(seen, jnp.exp(scores - highest), 0.0)
        fade = jnp.exp(before - highest)
        peak[...] = jnp.broadcast_to(highest, peak.shape)
        total[...] = total[...] * fade + weights.sum(1, keepdims=True)
        pooled[...] = pooled[...] * fade + dot(weights.astype(compressed.dtype), compressed, rows)

    @pl.when(block == pl.num_programs(2) - 1)
    def _():
        some = total[:, :1] > 0
        mean[0] = jnp.where(some, pooled[...] / jnp.where(some, total[:, :1], 1.0), 0.0)
        log_total[0] = jnp.where(some, peak[:, :1] + jnp.log(jnp.where(some, total[:, :1], 1.0)), _NOTHING)


def latent_decode(
    latent_query, rope_query, cached, new, layer=0,
    *, scale: float, spec: PartitionSpec | None = None, interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """`latent_attend` to a cache and the new tokens, the cache by the kernel.

    Args:
      latent_query: [B, T, N, R], queries mapped into the latent space.
      rope_query: [B, T, N, Hr], rotated.
      cached: (latent [L, B, S, R], rope_key [L, B, Hr, S], mask [B, T, S] bool). New tokens of a row that see anything
        of the cache must see the same of it, as they do where they come after all of it.
      new: (latent [B, T, R], rope_key [B, Hr, T], mask [B, T, T] bool).
      layer: int32, of the cache, the one to read.
      scale: multiplies the scores.
      spec: mesh axes of B, T and N, by which the kernel is placed on the mesh in force; T must lie whole on each device
        (its entry is ignored), the cache too. None without a mesh.
      interpret: run the kernel as ordinary operations, for tests without a TPU.

    Returns:
      [B, T, N, R] float32.
    """

    def local(latent_query, rope_query, cached, new, layer):
        batch, length, heads, _ = latent_query.shape
        merge = lambda x: x.reshape(batch, length * heads, -1)
        queries, (latent, rope_key, mask) = [merge(latent_query), merge(rope_query)], new
        held = mla_decode(*queries, *cached[:2], cached[2].any(1), layer, scale=scale, interpret=interpret)
        dot = partial(jnp.einsum, preferred_element_type=wide(latent))
        scores = (dot("bqr,bsr->bqs", queries[0], latent) + dot("bqr,brs->bqs", queries[1], rope_key)) * scale
        scores = jnp.where(jnp.repeat(mask, heads, axis=1), scores, _NOTHING)
        # All that the cache holds is one more key, whose score is the logarithm of its sum and whose value its mean.
        weights = jax.nn.softmax(jnp.concatenate([held.log_total, scores], -1), axis=-1)
        fresh = dot("bqs,bsr->bqr", weights[..., 1:], latent)
        return (weights[..., :1] * held.mean + fresh).reshape(latent_query.shape)

    arrays = latent_query, rope_query, tuple(cached), tuple(new), layer
    if spec is None:
        return local(*arrays)
    batch, _, heads = spec
    queries, keys = PartitionSpec(batch, None, heads), PartitionSpec(batch)
    stack = PartitionSpec(None, batch)
    in_specs = (queries, queries, (stack, stack, keys), (keys,) * 3, PartitionSpec())
    return jax.shard_map(local, in_specs=in_specs, out_specs=queries, check_vma=False)(*arrays)
