"""Softmax attention, multi-head, grouped-query and latent, as einsum references."""

import jax
import jax.numpy as jnp

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
    scores = jnp.where(mask[:, None], scores, _MASKED)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    # Divided after the product: so neither pass, nor that of the gradient, reads the weights once more to normalize them.
    total = weights.sum(-1, keepdims=True)
    mixed = jnp.einsum("bnts,bnsh->bnth", weights.astype(value.dtype), value, preferred_element_type=wide(value))
    return (mixed / total).astype(value.dtype).transpose(0, 2, 1, 3)


def grouped_attention(query, parts, *, scale: float) -> jax.Array:
    """Grouped-query attention (arXiv 2305.13245, section 2.2): query head n reads key-value head n // (N / K).

    Args:
      query: [B, T, N, H].
      parts: one or more (key [B, K, H, S], value [B, K, S, H], mask [B, T, S] bool), K dividing N: disjoint sets of
        keys that are attended to as one sequence, for instance the cache and the new tokens. In this layout both
        products read keys and values as they lie: with one query a row that is three times as fast on CPU as [B, S, K, H].
      scale: multiplies the scores.

    Returns:
      [B, T, N, H], dtype of the values. Scores and softmax are float32 or wider.
    """
    batch, length, heads, width = query.shape
    kv_heads = parts[0][0].shape[1]
    # Heads are moved out, and the queries that share a key are merged: several times faster on CPU than einsums over
    # five axes, and nothing is repeated.
    query = query.transpose(0, 2, 1, 3).reshape(batch, kv_heads, -1, width)
    scores = []
    for key, _, mask in parts:
        score = jnp.einsum("bkqh,bkhs->bkqs", query, key, preferred_element_type=wide(query)) * scale
        scores.append(jnp.where(jnp.tile(mask, (1, heads // kv_heads, 1))[:, None], score, _MASKED))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    mixed, start = 0.0, 0
    for _, value, _ in parts:
        share = weights[..., start : start + value.shape[2]].astype(value.dtype)
        mixed += jnp.einsum("bkqs,bksh->bkqh", share, value, preferred_element_type=wide(value))
        start += value.shape[2]
    return mixed.reshape(batch, heads, length, width).transpose(0, 2, 1, 3).astype(value.dtype)


def latent_attend(latent_query, rope_query, parts, *, scale: float) -> jax.Array:
    """Absorbed multi-head latent attention: scores and values are taken in the latent space.

    With q~ = W_UK^T q, `softmax((q~ . c + q_rope . k_rope) * scale) c` equals naive attention before W_UV is applied
    (DeepSeek-V2, section 2.1.2), and reads R + Hr numbers a key instead of N * (H + Hv).

    Args:
      latent_query: [B, T, N, R], queries mapped into the latent space.
      rope_query: [B, T, N, Hr], rotated.
      parts: one or more (latent [B, S, R], rope_key [B, Hr, S], mask [B, T, S] bool): disjoint sets of keys that are
        attended to as one sequence, for instance the cache and the new tokens.
      scale: multiplies the scores.

    Returns:
      [B, T, N, R] float32 or wider.
    """
    batch, length, heads, _ = latent_query.shape
    merge = lambda x: x.reshape(batch, length * heads, -1)  # queries of all heads share the keys
    latent_query, rope_query = merge(latent_query), merge(rope_query)
    scores = []
    for latent, rope_key, mask in parts:
        # Latents on the left: products with one query a row are faster on CPU this way round.
        score = jnp.einsum("bsr,bqr->bsq", latent, latent_query, preferred_element_type=wide(latent_query))
        score = score.transpose(0, 2, 1)
        score += jnp.einsum("bqr,brs->bqs", rope_query, rope_key, preferred_element_type=wide(rope_query))
        scores.append(jnp.where(jnp.repeat(mask, heads, axis=1), score * scale, _MASKED))
    peak = jnp.max(jnp.stack([s.max(-1) for s in scores]), axis=0)[..., None]
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(w.sum(-1) for w in weights)[..., None]
    pooled = sum(
        jnp.einsum("bqs,bsr->bqr", w, latent, preferred_element_type=wide(latent))
        for w, (latent, _, _) in zip(weights, parts, strict=True)
    )
    return (pooled / total).reshape(batch, length, heads, -1)
