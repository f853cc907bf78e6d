"""Judging completions: text in, numbers out. No jax."""
