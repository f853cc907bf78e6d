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


def targets_after_next(targets, segments):
    """What a module that predicts the token after the next learns (DeepSeek-V3, eq. 24), as (targets, mask).

    Args:
      targets: [B, T], the next token of each position.
      segments: [B, T] int32, which sequence of its row a position belongs to, from 1; 0 for padding.

    Returns:
      [B, T] each, the targets one further, and a bool mask: the last position of each sequence has none.
    """
    ahead = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
    return ahead(targets), (segments > 0) & (segments == ahead(segments))
