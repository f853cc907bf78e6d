"""What all layers know about positions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.ops.attention import attention_mask


class Visibility(NamedTuple):
    """What every layer needs to know about positions; the same for all layers."""

    positions: jax.Array
    """[B, T] int32, -1 for padding."""
    mask: jax.Array
    """[B, T, T] bool, new tokens seeing new tokens."""
    cache_mask: jax.Array | None
    """[B, T, S] bool, new tokens seeing what the cache holds."""
    segments: jax.Array
    """[B, T] int32, from 1; 0 for padding, which no expert's load counts."""


def make_visibility(positions, segments, cache_positions=None, parents=None) -> Visibility:
    """Who sees whom; arguments as `Transformer.__call__`, and the positions [B, S] that a cache holds."""
    cache_mask = None if cache_positions is None else attention_mask(positions, cache_positions)
    numbered = jnp.ones_like(positions) if segments is None else segments
    numbered = jnp.where(positions >= 0, numbered, 0)
    mask = attention_mask(positions, positions, segments, segments, parents)
    return Visibility(positions, mask, cache_mask, numbered)
