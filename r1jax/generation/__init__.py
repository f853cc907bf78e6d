"""Turning a model and prompts into completions."""
