"""Published relatives of GRPO, each one line of the pieces: a ratio, a surrogate, an aggregation.

`*_sums` return (loss_sum, count, metric_sums) for callers that micro-batch: add all of them, divide once by max(count,
1). `*_loss` do that for one batch and return (loss, metrics). All are to be minimised, all differentiate in `logprobs`
alone, and none has a KL term unless it says so: add `kl_coef` times one of `r1jax.objectives.kl` under the same
aggregation. Common arguments:

  logprobs: [B, T] of the policy being trained.
  old_logprobs: [B, T] of the policy that sampled, recomputed by the trainer.
  advantages: [B]; where said, [B, T] too.
  mask: [B, T], non-zero on the completion's tokens. Masked entries of the arrays above may hold anything.
  weights: [B, T] or [B, 1], from `r1jax.objectives.corrections`; 1 for none. Finite everywhere.

Metrics, under the aggregation of the loss: `clip_fraction`, `ratio_deviation` (mean of |r - 1|). All scalars are
traced.
"""

from functools import partial

import jax
import jax.numpy as jnp

from r1jax.objectives.aggregation import completion_mean_sums, constant_length_sums, token_mean_sums
from r1jax.objectives.kl import k3
from r1jax.objectives.ratios import (
    log_ratio,
    mean_sequence_ratio,
    mean_sequence_token_ratio,
    sequence_ratio,
    token_ratio,
)
from r1jax.objectives.surrogates import cispo_surrogate, clipped_surrogate, is_clipped, per_token


def dapo_sums(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, weights=1.0):
    """`dapo_loss` as sums over tokens."""
    ratio = token_ratio(log_ratio(logprobs, old_logprobs, mask))
    return _clipped_sums(token_mean_sums, ratio, advantages, mask, clip_low, clip_high, weights)


@jax.jit
def dapo_loss(logprobs, old_logprobs, advantages, mask, *, clip_low=0.2, clip_high=0.28, weights=1.0):
    """DAPO (arXiv 2503.14476, eq. 8): -1 / sum_i |o_i| sum_it min(r A, clip(r, 1 - low, 1 + high) A).

    Advantages [B] or [B, T]. Its dynamic sampling is `informative_groups`, its soft overlong punishment
    `r1jax.rewards.shaping.soft_overlong`.
    """
    return _mean(
        dapo_sums(logprobs, old_logprobs, advantages, mask, clip_low=clip_low, clip_high=clip_high, weights=weights)
    )


def dr_grpo_sums(logprobs, old_logprobs, advantages, mask, *, length, clip_epsilon, weights=1.0):
    """`dr_grpo_loss` as sums over completions."""
    ratio = token_ratio(log_ratio(logprobs, old_logprobs, mask))
    aggregate = partial(constant_length_sums, length=length)
    return _clipped_sums(aggregate, ratio, advantages, mask, clip_epsilon, clip_epsilon, weights)


@jax.jit
def dr_grpo_loss(logprobs, old_logprobs, advantages, mask, *, length, clip_epsilon=0.2, weights=1.0):
    """Dr. GRPO (arXiv 2503.20783): -1/B sum_i 1/length sum_t min(r A, clip(r) A), one `length` for all completions.

    Advantages [B] or [B, T]; the paper's are `group_advantages(rewards, scale="none")`.
    """
    return _mean(
        dr_grpo_sums(
            logprobs, old_logprobs, advantages, mask, length=length, clip_epsilon=clip_epsilon, weights=weights
        )
    )


def gspo_sums(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, weights=1.0):
    """`gspo_loss` as sums over completions."""
    ratio = mean_sequence_ratio(log_ratio(logprobs, old_logprobs, mask), mask)
    return _clipped_sums(completion_mean_sums, ratio, advantages, mask, clip_low, clip_high, weights)


@jax.jit
def gspo_loss(logprobs, old_logprobs, advantages, mask, *, clip_low=3e-4, clip_high=4e-4, weights=1.0):
    """GSPO (arXiv 2507.18071, eq. 5): -1/B sum_i min(s A, clip(s) A), s the geometric mean of a completion's ratios.

    Advantages [B]. A completion is clipped as a whole, which spares MoE models the replay of routing.
    """
    return _mean(
        gspo_sums(logprobs, old_logprobs, advantages, mask, clip_low=clip_low, clip_high=clip_high, weights=weights)
    )


def gspo_token_sums(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, weights=1.0):
    """`gspo_token_loss` as sums over completions."""
    ratio = mean_sequence_token_ratio(log_ratio(logprobs, old_logprobs, mask), mask)
    return _clipped_sums(completion_mean_sums, ratio, advantages, mask, clip_low, clip_high, weights)


@jax.jit
def gspo_token_loss(logprobs, old_logprobs, advantages, mask, *, clip_low=3e-4, clip_high=4e-4, weights=1.0):
    """GSPO-token (arXiv 2507.18071, eq. 13): GSPO for advantages [B, T]; with [B] its loss and gradient are GSPO's."""
    return _mean(
        gspo_token_sums(
            logprobs, old_logprobs, advantages, mask, clip_low=clip_low, clip_high=clip_high, weights=weights
        )
    )


def cispo_sums(logprobs, old_logprobs, advantages, mask, *, clip_high, clip_low=1.0, weights=1.0):
    """`cispo_loss` as sums over tokens."""
    ratio, advantages = token_ratio(log_ratio(logprobs, old_logprobs, mask)), per_token(advantages)
    known = jnp.where(jnp.asarray(mask) > 0, logprobs, 0.0)
    objective = weights * cispo_surrogate(ratio, known, advantages, low=clip_low, high=clip_high)
    loss, count = token_mean_sums(objective, mask)
    bounded = (ratio > 1.0 + clip_high) | (ratio < 1.0 - clip_low)
    return -loss, count, _metrics(token_mean_sums, ratio, bounded.astype(jnp.float32), mask)


@jax.jit
def cispo_loss(logprobs, old_logprobs, advantages, mask, *, clip_high, clip_low=1.0, weights=1.0):
    """CISPO (MiniMax-M1, arXiv 2506.13585): -1 / sum_i |o_i| sum_it sg[clip(r, 1 - low, 1 + high)] A log pi.

    Advantages [B] or [B, T]. `clip_fraction` is the share of tokens whose weight is clipped; all keep a gradient. The
    paper does not give its clip_high; 4 is used by ScaleRL (arXiv 2510.13786).
    """
    return _mean(
        cispo_sums(logprobs, old_logprobs, advantages, mask, clip_high=clip_high, clip_low=clip_low, weights=weights)
    )


def sequence_grpo_sums(logprobs, old_logprobs, ref_logprobs, advantages, mask, *, clip_epsilon, kl_coef):
    """`sequence_grpo_loss` as sums over completions."""
    ratio = sequence_ratio(log_ratio(logprobs, old_logprobs, mask), mask)
    loss, count, metrics = _clipped_sums(completion_mean_sums, ratio, advantages, mask, clip_epsilon, clip_epsilon, 1.0)
    kl, _ = completion_mean_sums(k3(log_ratio(logprobs, ref_logprobs, mask).sum(-1)[:, None]), mask)
    return loss + kl_coef * kl, count, metrics | {"kl": kl}


@jax.jit
def sequence_grpo_loss(logprobs, old_logprobs, ref_logprobs, advantages, mask, *, clip_epsilon=0.2, kl_coef=0.001):
    """GRPO as DeepSeek-R1 prints it (arXiv 2501.12948, eq. 1-2): ratio and KL of whole completions, no 1/|o|.

    -1/B sum_i [ min(r A, clip(r, 1 - eps, 1 + eps) A) - beta (pi_ref(o) / pi(o) - log(pi_ref(o) / pi(o)) - 1) ].
    Advantages [B]. For study: over long completions the ratios and the KL overflow; the text of the paper, which speaks
    of clipped tokens, fits `grpo_loss`.
    """
    arrays = logprobs, old_logprobs, ref_logprobs, advantages, mask
    return _mean(sequence_grpo_sums(*arrays, clip_epsilon=clip_epsilon, kl_coef=kl_coef))


def _clipped_sums(aggregate, ratio, advantages, mask, low, high, weights):
    advantages = per_token(advantages)
    objective = weights * clipped_surrogate(ratio, advantages, low=low, high=high)
    loss, count = aggregate(objective, mask)
    return -loss, count, _metrics(aggregate, ratio, is_clipped(ratio, advantages, low=low, high=high), mask)


def _metrics(aggregate, ratio, clipped, mask):
    values = {"clip_fraction": clipped, "ratio_deviation": jnp.abs(ratio - 1.0)}
    return {name: aggregate(value, mask)[0] for name, value in values.items()}


def _mean(sums):
    loss, count, metrics = sums
    count = jnp.maximum(count, 1.0)
    return loss / count, {name: value / count for name, value in metrics.items()}
