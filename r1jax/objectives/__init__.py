"""Losses and advantages as pure functions of arrays; import them into any JAX project."""

from r1jax.objectives.advantages import group_advantages, informative_groups, process_advantages, rloo_advantages
from r1jax.objectives.aggregation import completion_mean_sums, constant_length_sums, token_mean_sums
from r1jax.objectives.corrections import masked_importance, off_policy_mask, truncated_importance
from r1jax.objectives.distillation import distillation_sums
from r1jax.objectives.grpo import grpo_loss, grpo_sums
from r1jax.objectives.kl import k1, k2, k3, unbiased_kl
from r1jax.objectives.ppo import generalized_advantages, ppo_sums, token_rewards, value_sums
from r1jax.objectives.preference import pairwise_sums, pointwise_sums
from r1jax.objectives.ratios import (
    log_ratio,
    mean_sequence_ratio,
    mean_sequence_token_ratio,
    sequence_ratio,
    token_ratio,
)
from r1jax.objectives.sft import next_token_sums, targets_after_next
from r1jax.objectives.surrogates import (
    cispo_surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    is_clipped,
    per_token,
)
from r1jax.objectives.variants import (
    cispo_loss,
    cispo_sums,
    dapo_loss,
    dapo_sums,
    dr_grpo_loss,
    dr_grpo_sums,
    gspo_loss,
    gspo_sums,
    gspo_token_loss,
    gspo_token_sums,
    sequence_grpo_loss,
    sequence_grpo_sums,
)
from r1jax.ops.logprobs import token_divergence, token_logprobs

__all__ = [
    "cispo_loss",
    "cispo_sums",
    "cispo_surrogate",
    "clipped_surrogate",
    "completion_mean_sums",
    "constant_length_sums",
    "dapo_loss",
    "dapo_sums",
    "distillation_sums",
    "dr_grpo_loss",
    "dr_grpo_sums",
    "dual_clipped_surrogate",
    "generalized_advantages",
    "group_advantages",
    "grpo_loss",
    "grpo_sums",
    "gspo_loss",
    "gspo_sums",
    "gspo_token_loss",
    "gspo_token_sums",
    "informative_groups",
    "is_clipped",
    "k1",
    "k2",
    "k3",
    "log_ratio",
    "masked_importance",
    "mean_sequence_ratio",
    "mean_sequence_token_ratio",
    "next_token_sums",
    "off_policy_mask",
    "pairwise_sums",
    "per_token",
    "pointwise_sums",
    "ppo_sums",
    "process_advantages",
    "rloo_advantages",
    "sequence_grpo_loss",
    "sequence_grpo_sums",
    "sequence_ratio",
    "targets_after_next",
    "token_divergence",
    "token_logprobs",
    "token_mean_sums",
    "token_ratio",
    "token_rewards",
    "truncated_importance",
    "unbiased_kl",
    "value_sums",
]
