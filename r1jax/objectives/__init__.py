"""Losses and advantages as pure functions of arrays; import them into any JAX project."""

from r1jax.objectives.advantages import group_advantages
from r1jax.objectives.distillation import distillation_sums
from r1jax.objectives.grpo import grpo_loss, grpo_sums
from r1jax.objectives.preference import pairwise_sums, pointwise_sums
from r1jax.objectives.sft import next_token_sums, targets_after_next
from r1jax.ops.logprobs import token_divergence, token_logprobs

__all__ = [
    "distillation_sums",
    "group_advantages",
    "grpo_loss",
    "grpo_sums",
    "next_token_sums",
    "pairwise_sums",
    "pointwise_sums",
    "targets_after_next",
    "token_divergence",
    "token_logprobs",
]
