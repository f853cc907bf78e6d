"""Judging programs by their tests."""

from r1jax.rewards.code.extraction import extract_code
from r1jax.rewards.code.judge import check_reference, code_reward

__all__ = ["check_reference", "code_reward", "extract_code"]
