"""Distillation on a teacher's next-token distributions."""

import jax.numpy as jnp

from r1jax.objectives.sft import next_token_sums
from r1jax.ops.masked import masked_sum


def distillation_sums(logprobs, divergence, mask, *, weight, temperature=1.0):
    """Next-token prediction plus the divergence from a teacher, as (sum, count): divide for nats a token.

    loss = sum_t [ -log p(x_t) + weight * temperature^2 * KL(teacher_t || student_t) ], both distributions of the KL at
    `temperature`; its square keeps the gradient's size (Hinton et al., arXiv 1503.02531, section 2).

    Args:
      logprobs: [B, T] of the target tokens, at temperature 1.
      divergence: [B, T] of the student from the teacher, as `token_divergence` gives it at `temperature`.
      mask: [B, T], non-zero where a target counts. Masked entries may hold anything.
      weight: of the divergence; a traced number.
      temperature: a traced number.
    """
    loss, count = next_token_sums(logprobs, mask)
    return loss + weight * jnp.square(temperature) * masked_sum(divergence, mask), count
