"""Softmax attention, multi-head, grouped-query and latent, as einsum references."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax.ops.wide import wide

_MASKED = -1e30  # finite, so that a row with no visible key gives a uniform distribution instead of NaN


def attention_mask(
    query_positions, key_positions, query_segments=None, key_segments=None, query_parents=None
) -> jax.Array:
    """Which keys each query may see: those of its own segment, or its parent, at its own position or earlier.

    Args:
      query_positions: [B, T] int32.
      key_positions: [B, S] int32; a negative position marks an empty cache slot, which nobody sees.
      query_segments, key_segments: [B, T] and [B, S] int32, or None for one sequence a row.
      query_parents: [B, T] int32, a second segment that a query sees, such as the prompt of its completion, or None.

    Returns:
      [B, T, S] bool.
    """
    visible = (key_positions[:, None, :] <= query_positions[:, :, None]) & (key_positions >= 0)[:, None, :]
    if query_segments is not None:
        related = query_segments[:, :, None] == key_segments[:, None, :]
        if query_parents is not None:
            related |= query_parents[:, :, None] == key_segments[:, None, :]
        visible &= related
    return visible


def attend(query, key, value, mask, *, scale: float) -> jax.Array:
    """Multi-head attention softmax(q k^T * scale) v; the key and value widths may differ.

    Args:
      query: [B, T, N, H].
      key: [B, S, N, H].
      value: [B, S, N, Hv].
      mask: [B, T, S] bool.
      scale: multiplies the scores.

    Returns:
      [B, T, N, Hv], dtype of `value`. Scores and softmax are float32 or wider.
    """
    # The head axis is moved out first: batched products in bnts order are faster on CPU than in btns order.
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = jnp.einsum("bnth,bnsh->bnts", query, key, preferred_element_type=wide(query)) * scale
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, _MASKED), axis=-1).astype(value.dtype)
    return jnp.einsum("bnts,bnsh->bnth", weights, value).transpose(0, 2, 1, 3)


def grouped_attention(query, parts, *, scale: float) -> jax.Array:
    """Grouped-query attention (arXiv 2305.13245, section 2.2): query head n reads key-value head n // (N / K).

    Args:
      query: [B, T, N, H].
      parts: one or more (key [B, S, K, H], value [B, S, K, H], mask [B, T, S] bool), K dividing N: disjoint sets of
        keys that are attended to as one sequence, for instance the cache and the new tokens.
      scale: multiplies the scores.

    Returns:
      [B, T, N, H], dtype of the values. Scores and softmax are float32 or wider.
    """
    batch, length, heads, width = query.shape
    kv_heads = parts[0][0].shape[2]
    # Heads are moved out, and the queries that share a key are merged: several times faster on CPU than einsums over
    # five axes, and nothing is repeated.
    outward = lambda x: x.transpose(0, 2, 1, 3)
    query = outward(query).reshape(batch, kv_heads, -1, width)
    scores = []
    for key, _, mask in parts:
        score = jnp.einsum("bkqh,bksh->bkqs", query, outward(key), preferred_element_type=wide(query)) * scale
        scores.append(jnp.where(jnp.tile(mask, (1, heads // kv_heads, 1))[:, None], score, _MASKED))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    mixed, start = 0.0, 0
    for _, value, _ in parts:
        share = weights[..., start : start + value.shape[1]].astype(value.dtype)
        mixed += jnp.einsum("bkqs,bksh->bkqh", share, outward(value), preferred_element_type=wide(value))
        start += value.shape[1]
    return outward(mixed.reshape(batch, heads, length, width)).astype(value.dtype)


def grouped_decode(query, parts, *, scale: float, spec: PartitionSpec | None = None) -> jax.Array:
    """As `grouped_attention` for one query a row, reading keys and values as a cache keeps them.

    Query heads are spread over a block-diagonal matrix, so that each row's keys are one matrix that is multiplied as it
    lies, with no transposed copy; the K-fold products cost less than the copy, for decoding is bound by memory.

    Args:
      query: [B, 1, N, H].
      parts: one or more (key [B, S, K * H], value [B, S, K * H], mask [B, 1, S] bool).
      scale: multiplies the scores.
      spec: mesh axes of rows, queries (ignored) and heads of keys, on which each device does its own; None without a
        mesh.

    Returns:
      [B, 1, N, H], dtype of the values. Scores and softmax are float32 or wider.
    """
    if spec is not None:
        batch, _, heads = spec
        wide_spec, mask_spec = PartitionSpec(batch, None, heads), PartitionSpec(batch)
        local = lambda query, parts: grouped_decode(query, parts, scale=scale)
        in_specs = wide_spec, [(wide_spec, wide_spec, mask_spec)] * len(parts)
        return jax.shard_map(local, in_specs=in_specs, out_specs=wide_spec)(query, parts)
    batch, _, heads, width = query.shape
    kv_heads = parts[0][0].shape[2] // width
    own = (jnp.arange(heads)[:, None] // (heads // kv_heads) == jnp.arange(kv_heads))[..., None]  # [N, K, 1]
    spread = jnp.where(own, query[:, 0, :, None], 0).reshape(batch, heads, -1)
    scores = []
    for key, _, mask in parts:
        score = jnp.einsum("bsc,bnc->bsn", key, spread, preferred_element_type=wide(query)) * scale
        scores.append(jnp.where(mask, score.transpose(0, 2, 1), _MASKED))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    mixed, start = 0.0, 0
    for _, value, _ in parts:
        share = weights[..., start : start + value.shape[1]].astype(value.dtype)
        mixed += jnp.einsum("bns,bsc->bnc", share, value, preferred_element_type=wide(value))
        start += value.shape[1]
    mixed = jnp.where(own, mixed.reshape(batch, heads, kv_heads, width), 0.0).sum(2)
    return mixed[:, None].astype(parts[0][1].dtype)


def latent_attend(latent_query, rope_query, parts, *, scale: float) -> jax.Array:
    """Absorbed multi-head latent attention: scores and values are taken in the latent space.

    With q~ = W_UK^T q, `softmax((q~ . c + q_rope . k_rope) * scale) c` equals naive attention before W_UV is applied
    (DeepSeek-V2, section 2.1.2), and reads R + Hr numbers a key instead of N * (H + Hv).

    Args:
      latent_query: [B, T, N, R], queries mapped into the latent space.
      rope_query: [B, T, N, Hr], rotated.
      parts: one or more (latent [B, S, R], rope_key [B, S, Hr], mask [B, T, S] bool): disjoint sets of keys that are
        attended to as one sequence, for instance the cache and the new tokens.
      scale: multiplies the scores.

    Returns:
      [B, T, N, R] float32 or wider.
    """
    batch, length, heads, _ = latent_query.shape
    merge = lambda x: x.reshape(batch, length * heads, -1)  # queries of all heads share the keys
    latent_query, rope_query = merge(latent_query), merge(rope_query)
    # Keys on the left: products with one query a row are several times faster on CPU this way round.
    dot = lambda key, query: jnp.einsum("bsr,bqr->bsq", key, query, preferred_element_type=wide(query))
    scores = []
    for latent, rope_key, mask in parts:
        score = (dot(latent, latent_query) + dot(rope_key, rope_query)) * scale
        scores.append(jnp.where(jnp.repeat(mask, heads, axis=1), score.transpose(0, 2, 1), _MASKED))
    peak = jnp.max(jnp.stack([s.max(-1) for s in scores]), axis=0)[..., None]
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(w.sum(-1) for w in weights)[..., None]
    pooled = sum(
        jnp.einsum("bqs,bsr->bqr", w, latent, preferred_element_type=wide(latent))
        for w, (latent, _, _) in zip(weights, parts, strict=True)
    )
    return (pooled / total).reshape(batch, length, heads, -1)
