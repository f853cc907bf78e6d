"""From values of tokens to a loss: (sum, count), to be added over micro-batches and devices and divided once.

`values` is [B, T], or [B, 1] for values of whole completions; `mask` [B, T], non-zero on a completion's tokens. Masked
values may hold anything, and a completion with an empty mask counts nowhere. Divide by max(count, 1).
"""

import jax.numpy as jnp

from r1jax.ops.masked import masked_mean, masked_sum


def completion_mean_sums(values, mask):
    """1/|o_i| sum_t, then the mean over completions: every completion weighs the same (DeepSeekMath, eq. 3)."""
    return masked_mean(_spread(values, mask), mask, axis=-1).sum(), count_completions(mask)


def token_mean_sums(values, mask):
    """The mean over all tokens of the batch: every token weighs the same (DAPO, arXiv 2503.14476, eq. 8)."""
    return masked_sum(_spread(values, mask), mask), jnp.sum(jnp.asarray(mask) > 0).astype(jnp.float32)


def constant_length_sums(values, mask, *, length):
    """sum_t / length, then the mean over completions, with one length for all (Dr. GRPO, arXiv 2503.20783).

    Args:
      length: a constant, by custom the longest a completion may be; a traced number.
    """
    return masked_sum(_spread(values, mask), mask) / length, count_completions(mask)


def count_completions(mask):
    """Completions with at least one token in the mask, float32."""
    return jnp.any(jnp.asarray(mask) > 0, axis=-1).sum().astype(jnp.float32)


def _spread(values, mask):
    return jnp.broadcast_to(values, jnp.shape(mask))
