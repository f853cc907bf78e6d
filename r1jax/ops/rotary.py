"""Rotary position embedding, in the two layouts of published weights, which differ in what makes a pair of channels.

`apply_rotary` is DeepSeek's, interleaved: pairs are (x0, x1), (x2, x3), ...
`apply_rotary_halves` is that of Llama and Qwen as Hugging Face stores them: pairs are (x0, x[H/2]), (x1, x[H/2+1]), ...
"""

import jax
import jax.numpy as jnp


def rotary_frequencies(head_dim: int, theta: float) -> jax.Array:
    """Angular frequencies theta^(-2i/H) in radians per position, [head_dim // 2] float32 (RoFormer, eq. 15)."""
    return theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)


def apply_rotary(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotate each interleaved pair of channels by position times frequency (DeepSeek).

    Args:
      x: [B, T, N, H] queries or keys, H even.
      positions: [B, T] int32, counted in tokens from the start of each sequence.
      frequencies: [H // 2] radians per position.

    Returns:
      [B, T, N, H], dtype of `x`; angles are computed in float32.
    """
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    rotated = jnp.stack(_rotate(pairs[..., 0], pairs[..., 1], positions, frequencies), axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def apply_rotary_halves(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotate channel i with channel i + H/2 (Llama, Qwen); arguments and result as `apply_rotary`."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate(_rotate(first, second, positions, frequencies), axis=-1).astype(x.dtype)


def _rotate(first, second, positions, frequencies):
    """Turn the pairs (first, second), [B, T, N, H // 2] each, by position times frequency."""
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return first * cos - second * sin, first * sin + second * cos
