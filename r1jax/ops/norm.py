"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp

from r1jax.ops.wide import wide


def rms_norm(x: jax.Array, scale: jax.Array, *, eps: float = 1e-6) -> jax.Array:
    """Scale `x` to unit root mean square over its last axis, then by `scale`.

    The statistics are float32 or wider, whatever the dtype of `x`; the result is cast back before the product with `scale`,
    as the released DeepSeek-V3 does.

    Args:
      x: [..., D].
      scale: [D].
      eps: added to the mean square.

    Returns:
      [..., D], dtype of `x`.
    """
    exact = x.astype(wide(x))
    normed = exact * jax.lax.rsqrt(jnp.mean(jnp.square(exact), axis=-1, keepdims=True) + eps)
    return normed.astype(x.dtype) * scale.astype(x.dtype)
