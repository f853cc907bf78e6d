"""Tokenizers, prompts and batches. grain and numpy, no jax."""
