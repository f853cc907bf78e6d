"""Problems this project makes itself, with their checkers, and the miniature corpus. No jax."""

from pathlib import Path

BASE_MODEL = str(Path(__file__).parent / "base")
"""Workdir of the small base model that comes with the package; made by experiments/pretrain.py."""
WORLD_MODEL = str(Path(__file__).parent / "world")
"""Workdir of the base of the miniature world, of the same shape, which comes with the package too."""
STUDENT_MODEL = str(Path(__file__).parent / "student")
"""Workdir of the smaller dense base, pre-trained on the same world, that is distilled into."""
