"""Judging mathematical answers: is the final answer of a completion the same mathematical object as the gold answer?"""

from r1jax.rewards.math.judge import check_gold, math_reward, same_answer

__all__ = ["check_gold", "math_reward", "same_answer"]
