"""What a policy gains at each token or completion, to be maximised: forms of ratio times advantage.

`ratio` is [B, T], or [B, 1] for whole completions; `advantages` [B, T] or [B, 1], see `per_token`. Bounds are traced
numbers. Results have the shape of the two broadcast, and go into one of `r1jax.objectives.aggregation`.
"""

import jax
import jax.numpy as jnp


def per_token(advantages):
    """Advantages [B] as [B, 1], to be broadcast over tokens; [B, T] as they are."""
    advantages = jnp.asarray(advantages)
    return advantages[:, None] if advantages.ndim == 1 else advantages


def clipped_surrogate(ratio, advantages, *, low, high):
    """min(r A, clip(r, 1 - low, 1 + high) A).

    PPO (arXiv 1707.06347, eq. 7) with low = high; clip-higher of DAPO (arXiv 2503.14476, eq. 8) with 0.2 and 0.28.
    With DeepSeek-R1's 10 for both the lower bound does nothing, the gradient of a positive advantage ends at a ratio of
    11, and a negative advantage is never clipped.
    """
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - low, 1.0 + high) * advantages)


def dual_clipped_surrogate(ratio, advantages, *, low, high, bound):
    """`clipped_surrogate`, and no less than bound * A where A < 0 (dual-clip PPO, arXiv 1912.09729).

    bound, above 1 + high and 3 in the paper, ends the push away from tokens that have become much likelier.
    """
    clipped = clipped_surrogate(ratio, advantages, low=low, high=high)
    return jnp.where(advantages < 0, jnp.maximum(clipped, bound * advantages), clipped)


def cispo_surrogate(ratio, logprobs, advantages, *, low, high):
    """sg[clip(r, 1 - low, 1 + high)] A log pi: CISPO (MiniMax-M1, arXiv 2506.13585).

    Clipping bounds the weight of a token and never its gradient. The paper does not use the lower bound: low = 1, as
    ratios are positive. (TRL's `epsilon_high` is this 1 + high.) Masked logprobs must be finite.
    """
    return jax.lax.stop_gradient(jnp.clip(ratio, 1.0 - low, 1.0 + high)) * advantages * logprobs


def is_clipped(ratio, advantages, *, low, high):
    """Where `clipped_surrogate` has no gradient, as 0.0 and 1.0."""
    return (ratio * advantages > jnp.clip(ratio, 1.0 - low, 1.0 + high) * advantages).astype(jnp.float32)
