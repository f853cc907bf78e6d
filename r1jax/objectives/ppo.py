"""PPO with a value model (arXiv 1707.06347), the baseline that DeepSeek-R1 compares GRPO with (supplement A.3).

The value model is a decoder with a scalar head at every token: `r1jax.models.reward_model.token_values`.
"""

import jax
import jax.numpy as jnp

from r1jax.objectives.ratios import log_ratio
from r1jax.objectives.variants import dapo_sums
from r1jax.ops.masked import masked_sum


@jax.jit
def token_rewards(scores, logprobs, ref_logprobs, mask, *, kl_coef):
    """-kl_coef (log pi - log pi_ref) at every token, and the score at the last (InstructGPT, arXiv 2203.02155, eq. 2).

    Args:
      scores: [B] rewards of whole completions.
      logprobs, ref_logprobs: [B, T] of the sampling policy and the reference.
      mask: [B, T], non-zero on the completion's tokens. Masked entries may hold anything.
      kl_coef: a traced number.

    Returns:
      [B, T], 0 where masked. In the reward, unlike in the loss, this estimator of the KL has the right gradient.
    """
    mask = jnp.asarray(mask) > 0
    place = jnp.arange(mask.shape[1])
    last = mask & (place == jnp.max(jnp.where(mask, place, -1), axis=-1, keepdims=True))
    return jnp.where(last, jnp.asarray(scores)[:, None], 0.0) - kl_coef * log_ratio(logprobs, ref_logprobs, mask)


@jax.jit
def generalized_advantages(rewards, values, mask, *, discount=1.0, trace=1.0):
    """Generalized advantage estimation (arXiv 1506.02438, eq. 16).

    A_t = delta_t + discount trace A_(t+1), delta_t = r_t + discount V_(t+1) - V_t, with A = V = 0 after the last token.

    Args:
      rewards: [B, T].
      values: [B, T] of the value model, before each token.
      mask: [B, T], non-zero on the completion's tokens; masked places are passed over. They may hold anything.
      discount: gamma; 1 for language.
      trace: lambda. DeepSeek-R1 finds 1.0 near GRPO and the usual 0.95 far below.

    Returns:
      (advantages, returns), [B, T] each, returns = advantages + values; 0 where masked.
    """
    mask = jnp.asarray(mask) > 0
    rewards, values = (jnp.where(mask, x, 0.0) for x in (rewards, values))

    def step(after, now):
        next_advantage, next_value = after
        reward, value, known = now
        advantage = reward + discount * next_value - value + discount * trace * next_advantage
        kept = jnp.where(known, advantage, next_advantage), jnp.where(known, value, next_value)
        return kept, jnp.where(known, advantage, 0.0)

    nothing = jnp.zeros_like(values[:, 0]), jnp.zeros_like(values[:, 0])
    _, advantages = jax.lax.scan(step, nothing, (rewards.T, values.T, mask.T), reverse=True)
    return advantages.T, advantages.T + values


def value_sums(values, old_values, returns, mask, *, clip):
    """1/2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), as (sum, count) over tokens.

    Args:
      values: [B, T] of the value model being trained.
      old_values: [B, T] of the value model that made the returns.
      returns: [B, T].
      mask: [B, T]. Masked entries may hold anything.
      clip: how far a value may move in one update; a traced number, infinite for no clipping.
    """
    mask = jnp.asarray(mask) > 0
    values, old_values, returns = (jnp.where(mask, x, 0.0) for x in (values, old_values, returns))
    clipped = jnp.clip(values, old_values - clip, old_values + clip)
    loss = 0.5 * jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns))
    return masked_sum(loss, mask), mask.sum().astype(jnp.float32)


def ppo_sums(
    logprobs, values, old_logprobs, old_values, advantages, returns, mask, *, clip_epsilon, value_clip, value_coef
):
    """Policy and value losses of PPO (eq. 9, without entropy), token means: divide all by count.

    Args:
      logprobs, values: [B, T] of the models being trained; differentiate in both.
      old_logprobs, old_values: [B, T] when the completions were sampled.
      advantages, returns: [B, T] from `generalized_advantages`.
      mask: [B, T]. Masked entries may hold anything.
      clip_epsilon, value_clip, value_coef: traced numbers.

    Returns:
      (loss_sum, count, metric_sums), the metrics those of `dapo_sums` and `value_loss`.
    """
    policy, count, metrics = dapo_sums(
        logprobs, old_logprobs, advantages, mask, clip_low=clip_epsilon, clip_high=clip_epsilon
    )
    value, _ = value_sums(values, old_values, returns, mask, clip=value_clip)
    return policy + value_coef * value, count, metrics | {"value_loss": value}
