"""Group Relative Policy Optimization."""

import jax
import jax.numpy as jnp

from r1jax.ops.masked import masked_mean


def grpo_sums(
    logprobs, old_logprobs, ref_logprobs, advantages, mask, *,
    clip_epsilon, kl_coef, clip_epsilon_high=None, weights=None,
):  # fmt: skip
    """`grpo_loss` as sums over completions, for callers that micro-batch: add the sums, divide once.

    Arguments as `grpo_loss`, and weights, [B, T] or [B, 1], of the tokens' surrogates and not of their KL, from
    `r1jax.objectives.corrections`; None for none. Finite everywhere.

    Returns:
      (loss_sum, count, metric_sums): count is the number of completions with at least one token in the mask; divide
      the loss and every metric by it.
    """
    mask = jnp.asarray(mask) > 0
    advantages = jnp.asarray(advantages, jnp.float32)
    advantages = advantages[:, None] if advantages.ndim == 1 else advantages
    difference = lambda a, b: jnp.where(mask, a - b, 0.0)  # before exp: padding may hold anything
    ratio = jnp.exp(difference(logprobs, old_logprobs))
    clip_epsilon_high = clip_epsilon if clip_epsilon_high is None else clip_epsilon_high
    clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon_high)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    surrogate = surrogate if weights is None else weights * surrogate
    log_ref_ratio = difference(ref_logprobs, logprobs)
    kl = jnp.exp(log_ref_ratio) - log_ref_ratio - 1.0
    per_completion = lambda x: masked_mean(x, mask, axis=-1).sum()  # 1/|o_i| sum_t, then sum over i
    clip_active = (ratio * advantages > clipped * advantages).astype(jnp.float32)
    metrics = {
        "kl": per_completion(kl),
        "clip_fraction": per_completion(clip_active),
        "ratio_deviation": per_completion(jnp.abs(ratio - 1.0)),
    }
    count = jnp.any(mask, axis=-1).sum().astype(jnp.float32)
    return -per_completion(surrogate - kl_coef * kl), count, metrics


@jax.jit
def grpo_loss(
    logprobs, old_logprobs, ref_logprobs, advantages, mask, *, clip_epsilon=0.2, kl_coef=0.001, clip_epsilon_high=None
):
    """The GRPO objective of DeepSeekMath (arXiv 2402.03300, eq. 3-4), token level, negated to be minimised.

    loss = -1/B sum_i 1/|o_i| sum_t [ min(r A, clip(r, 1 - eps, 1 + eps) A) - beta * k3 ], with
    r = exp(logprobs - old_logprobs) and k3 = exp(ref - logprobs) - (ref - logprobs) - 1.

    Args:
      logprobs: [B, T] of the policy being trained; the only argument to differentiate.
      old_logprobs: [B, T] of the policy that sampled, recomputed by the trainer.
      ref_logprobs: [B, T] of the reference policy.
      advantages: [B] or [B, T], from `group_advantages`.
      mask: [B, T], non-zero on the completion's tokens, end-of-sequence included. Masked entries may hold anything.
      clip_epsilon: half-width of the ratio's trust region; a traced number.
      kl_coef: beta, weight of the KL term; a traced number.
      clip_epsilon_high: where it is given, clipping is to [1 - clip_epsilon, 1 + clip_epsilon_high] (clip-higher, arXiv
        2503.14476, eq. 8); a traced number.

    Returns:
      (loss, metrics): scalar float32, and the means over completions of `kl`, `clip_fraction` (share of tokens whose
      gradient is clipped away) and `ratio_deviation` (mean of |r - 1|). Completions with an empty mask do not count.
    """
    loss, count, metrics = grpo_sums(
        logprobs, old_logprobs, ref_logprobs, advantages, mask,
        clip_epsilon=clip_epsilon, kl_coef=kl_coef, clip_epsilon_high=clip_epsilon_high,
    )  # fmt: skip
    count = jnp.maximum(count, 1.0)
    return loss / count, {name: value / count for name, value in metrics.items()}
