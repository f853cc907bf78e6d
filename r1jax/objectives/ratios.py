"""How likely a policy makes what another wrote: log-ratios of tokens, and the forms in which objectives use them.

Every function takes `log_ratio` [B, T] and `mask` [B, T] where it needs them. Which two policies are compared is the
caller's: trained against old for an objective, old against sampler for an importance correction.
"""

import jax
import jax.numpy as jnp

from r1jax.ops.masked import masked_mean, masked_sum


def log_ratio(logprobs, other_logprobs, mask):
    """logprobs - other_logprobs where the mask is non-zero and 0 elsewhere, [B, T]; masked entries may hold anything.

    It comes before every exp: what a padded position holds would otherwise reach the gradient as NaN.
    """
    return jnp.where(jnp.asarray(mask) > 0, logprobs - other_logprobs, 0.0)


def token_ratio(log_ratio):
    """r_t = pi(o_t) / pi_old(o_t), [B, T]: PPO, and GRPO as DeepSeekMath prints it (arXiv 2402.03300, eq. 3)."""
    return jnp.exp(log_ratio)


def sequence_ratio(log_ratio, mask):
    """pi(o) / pi_old(o) of whole completions, [B, 1]: GRPO as DeepSeek-R1 prints it (arXiv 2501.12948, eq. 1).

    It is a product over all tokens: over thousands it leaves every trust region, and float32, at once.
    """
    return jnp.exp(masked_sum(log_ratio, mask, axis=-1))[:, None]


def mean_sequence_ratio(log_ratio, mask):
    """s = (pi(o) / pi_old(o))^(1 / |o|), [B, 1]: GSPO (arXiv 2507.18071, eq. 7)."""
    return jnp.exp(masked_mean(log_ratio, mask, axis=-1))[:, None]


def mean_sequence_token_ratio(log_ratio, mask):
    """s_t = sg[s] pi(o_t) / sg[pi(o_t)], [B, T]: GSPO-token (arXiv 2507.18071, eq. 14), for advantages of tokens.

    Its value is s at every token; its gradient goes through the token alone.
    """
    fixed = jax.lax.stop_gradient
    return fixed(mean_sequence_ratio(log_ratio, mask)) * jnp.exp(log_ratio - fixed(log_ratio))
