"""Problems this project makes itself, with their checkers, and the miniature corpus. No jax."""

from pathlib import Path

BASE_MODEL = str(Path(__file__).parent / "base")
"""Workdir of the small base model that comes with the package; made by experiments/pretrain.py."""
