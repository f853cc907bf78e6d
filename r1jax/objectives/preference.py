"""Losses of reward models: which of two responses is better, and whether one is safe (Nature 645:633, Methods)."""

import jax
import jax.numpy as jnp

from r1jax.ops.masked import masked_sum


def pairwise_sums(chosen, rejected, mask):
    """-log sigmoid(chosen - rejected), the negative log-likelihood of Bradley and Terry, as (sum, count).

    Args:
      chosen: [B] scores of the preferred responses.
      rejected: [B] scores of the others.
      mask: [B], non-zero where a pair counts. Masked scores may hold anything.
    """
    return _sums(jax.nn.softplus(_known(rejected, mask) - _known(chosen, mask)), mask)


def pointwise_sums(scores, labels, mask):
    """Binary cross-entropy of sigmoid(scores) with the labels, as (sum, count).

    Args:
      scores: [B], logits of the label 1.
      labels: [B], in [0, 1].
      mask: [B], non-zero where a response counts. Masked scores may hold anything.
    """
    scores = _known(scores, mask)
    # Not softplus(scores) - labels * scores, which cancels where a large score is right.
    return _sums(labels * jax.nn.softplus(-scores) + (1.0 - labels) * jax.nn.softplus(scores), mask)


def _known(scores, mask):
    return jnp.where(mask > 0, jnp.asarray(scores, jnp.float32), 0.0)  # before the loss: NaN would reach the gradient


def _sums(losses, mask):
    return masked_sum(losses, mask), jnp.sum(mask > 0).astype(jnp.float32)
