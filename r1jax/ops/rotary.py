"""Rotary position embedding, in the two layouts of published weights, which differ in what makes a pair of channels.

`apply_rotary` is DeepSeek's, interleaved: pairs are (x0, x1), (x2, x3), ...
`apply_rotary_halves` is that of Llama and Qwen as Hugging Face stores them: pairs are (x0, x[H/2]), (x1, x[H/2+1]), ...
"""

import math

import jax
import jax.numpy as jnp

from r1jax.ops.wide import wide


def rotary_frequencies(head_dim: int, theta: float) -> jax.Array:
    """Angular frequencies theta^(-2i/H) in radians per position, [head_dim // 2] float32 (RoFormer, eq. 15)."""
    return theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)


def yarn_frequencies(
    head_dim: int, theta: float, *, factor: float, original_length: int, beta_fast: float, beta_slow: float
) -> jax.Array:
    """Angular frequencies for a context `factor` times as long, [head_dim // 2] float32: YaRN, as DeepSeek has it.

    Channels that turn more than `beta_fast` times within `original_length` keep their frequency, those that turn less
    than `beta_slow` times have it divided by `factor`, and between the two it is mixed linearly in the index of the
    channel, where the paper (arXiv 2309.00071, eq. 18) mixes linearly in the number of turns.
    """
    channel = lambda turns: head_dim * math.log(original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = max(math.floor(channel(beta_fast)), 0), min(math.ceil(channel(beta_slow)), head_dim - 1)
    ramp = (jnp.arange(head_dim // 2, dtype=jnp.float32) - low) / max(high - low, 1e-3)
    slowed = jnp.clip(ramp, 0.0, 1.0)
    frequencies = rotary_frequencies(head_dim, theta)
    return frequencies * (1.0 - slowed) + frequencies / factor * slowed


def yarn_temperature(factor: float, coefficient: float) -> float:
    """0.1 c ln(factor) + 1, the root of the inverse temperature by which YaRN sharpens attention (eq. 22)."""
    return 0.1 * coefficient * math.log(factor) + 1.0


def llama3_frequencies(
    head_dim: int, theta: float, *, factor: float, low_freq_factor: float, high_freq_factor: float, original_length: int
) -> jax.Array:
    """Angular frequencies of Llama 3.1, [head_dim // 2] float32: YaRN's idea, mixed linearly in the number of turns.

    Channels that turn more than `high_freq_factor` times within `original_length` keep their frequency, those that
    turn less than `low_freq_factor` times have it divided by `factor`. No temperature changes.
    """
    frequencies = rotary_frequencies(head_dim, theta)
    turns = original_length * frequencies / (2 * math.pi)
    kept = jnp.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0)
    return frequencies * kept + frequencies / factor * (1.0 - kept)


def apply_rotary(x: jax.Array, positions: jax.Array, frequencies: jax.Array, *, amplitude: float = 1.0) -> jax.Array:
    """Rotate each interleaved pair of channels by position times frequency (DeepSeek).

    Args:
      x: [B, T, N, H] queries or keys, H even.
      positions: [B, T] int32, counted in tokens from the start of each sequence.
      frequencies: [H // 2] radians per position.
      amplitude: multiplies cosines and sines.

    Returns:
      [B, T, N, H], dtype of `x`; angles are computed in float32 or wider.
    """
    pairs = x.astype(wide(x)).reshape(*x.shape[:-1], -1, 2)
    rotated = jnp.stack(_rotate(pairs[..., 0], pairs[..., 1], positions, frequencies), axis=-1)
    return (rotated.reshape(x.shape) * amplitude).astype(x.dtype)


def apply_rotary_halves(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotate channel i with channel i + H/2 (Llama, Qwen); arguments and result as `apply_rotary`."""
    first, second = jnp.split(x.astype(wide(x)), 2, axis=-1)
    return jnp.concatenate(_rotate(first, second, positions, frequencies), axis=-1).astype(x.dtype)


def _rotate(first, second, positions, frequencies):
    """Turn the pairs (first, second), [B, T, N, H // 2] each, by position times frequency."""
    angles = positions[..., None, None].astype(first.dtype) * frequencies
    # Computed once for all heads: without the barrier XLA computes them again wherever a product is fused with them.
    cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
    return first * cos - second * sin, first * sin + second * cos
