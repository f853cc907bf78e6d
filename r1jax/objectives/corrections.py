"""Corrections for completions that another policy, or other arithmetic, sampled than the trainer believes.

`ratio` is pi_old / pi_sampler: the trainer's probabilities of what the sampler wrote over the sampler's own, both
under the parameters that sampled. It is not the ratio of the objective, pi / pi_old: multiply by the correction only an
objective whose ratio has pi_old below, or the mismatch counts twice. Token level: `token_ratio` [B, T]; whole
completions: `sequence_ratio` [B, 1]. Corrections are weights, [B, T] or [B, 1]: no gradient flows through them.
"""

import jax
import jax.numpy as jnp

from r1jax.objectives.surrogates import per_token
from r1jax.ops.masked import masked_mean


def truncated_importance(ratio, *, cap):
    """min(ratio, cap): truncated importance sampling (F. Yao et al., "Your efficient RL framework", 2025); cap 2."""
    return jax.lax.stop_gradient(jnp.minimum(ratio, cap))


def masked_importance(ratio, *, low, high):
    """The ratio within [low, high] and 0 outside: masked importance sampling, IcePop (Ling team, 2025); 0.5 and 5."""
    return jax.lax.stop_gradient(jnp.where((ratio >= low) & (ratio <= high), ratio, 0.0))


def off_policy_mask(log_ratio, advantages, mask, *, threshold):
    """0 for completions with a negative advantage that the policy has left behind, 1 for others (DeepSeek-V3.2, 3.1).

    M_i = 0 where A_i < 0 and 1/|o_i| sum_t log(pi_sampler / pi) > threshold.

    Args:
      log_ratio: [B, T] of the policy being trained to the sampler's own log-probabilities, masked as `log_ratio` does.
      advantages: [B], or [B, T] for advantages of tokens.
      mask: [B, T].
      threshold: in nats a token; a traced number.

    Returns:
      [B, 1], or [B, T] where the advantages are of tokens.
    """
    drift = -masked_mean(log_ratio, mask, axis=-1)[:, None]
    return jax.lax.stop_gradient(1.0 - ((per_token(advantages) < 0) & (drift > threshold)))
