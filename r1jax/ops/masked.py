"""Reductions under a mask. Every mean in the losses goes through these."""

import jax
import jax.numpy as jnp


def masked_sum(x: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
    """Sum of `x` where `mask` is non-zero; masked entries may hold anything, NaN included."""
    return jnp.sum(jnp.where(mask > 0, x, 0.0), axis=axis)


def masked_mean(x: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
    """Mean of `x` where `mask` is non-zero; 0 where nothing is selected."""
    count = jnp.sum(mask > 0, axis=axis)
    return masked_sum(x, mask, axis) / jnp.maximum(count, 1)
