"""Rotary position embedding in DeepSeek's interleaved layout: pairs are (x0, x1), (x2, x3), ..."""

import jax
import jax.numpy as jnp


def rotary_frequencies(head_dim: int, theta: float) -> jax.Array:
    """Angular frequencies theta^(-2i/H) in radians per position, [head_dim // 2] float32 (RoFormer, eq. 15)."""
    return theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)


def apply_rotary(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotate each pair of channels by position times frequency.

    Args:
      x: [B, T, N, H] queries or keys, H even.
      positions: [B, T] int32, counted in tokens from the start of each sequence.
      frequencies: [H // 2] radians per position.

    Returns:
      [B, T, N, H], dtype of `x`; angles are computed in float32.
    """
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)
