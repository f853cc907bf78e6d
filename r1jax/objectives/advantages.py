"""Advantages relative to the group of completions of one prompt."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames="scale")
def group_advantages(rewards, mask=None, *, scale: Literal["std", "none"] = "std", eps: float = 1e-6):
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Args:
      rewards: [P, G], one a completion.
      mask: [P, G], 0 for completions whose reward is unknown (a judge's outage): they get advantage 0 and do not
        enter the group's statistics. None for all ones.
      scale: "std" divides by the group's standard deviation (ddof 0); "none" only subtracts the mean
        (Dr. GRPO, arXiv 2503.20783).
      eps: added to the standard deviation.

    Returns:
      [P, G] float32; all zeros in a group whose rewards are all equal.
    """
    rewards = jnp.asarray(rewards, jnp.float32)
    valid = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask) > 0
    count = jnp.maximum(valid.sum(-1, keepdims=True), 1)
    known = jnp.where(valid, rewards, 0.0)
    # Compared exactly: rounding in the mean must not make a signal out of equal rewards.
    low = jnp.min(jnp.where(valid, rewards, jnp.inf), -1, keepdims=True)
    high = jnp.max(jnp.where(valid, rewards, -jnp.inf), -1, keepdims=True)
    centred = jnp.where(valid & (high > low), known - known.sum(-1, keepdims=True) / count, 0.0)
    if scale == "none":
        return centred
    if scale != "std":
        raise ValueError(f"scale must be 'std' or 'none', not {scale!r}")
    return centred / (jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / count) + eps)
