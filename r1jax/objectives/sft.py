"""Next-token prediction."""

import jax.numpy as jnp

from r1jax.ops.masked import masked_sum


def next_token_sums(logprobs, mask):
    """Negative log-likelihood of the tokens in the mask, as (sum, count): divide for nats a token.

    Args:
      logprobs: [B, T] of the target tokens.
      mask: [B, T], non-zero where a target counts.
    """
    return -masked_sum(logprobs, mask), jnp.sum(mask > 0).astype(jnp.float32)
