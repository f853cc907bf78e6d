"""Levels of difficulty: five of them, 1 the easiest."""

from typing import TypeVar

LEVELS = (1, 2, 3, 4, 5)

Settings = TypeVar("Settings")


def at_level(settings: tuple[Settings, ...], level: int) -> Settings:
    """The settings of a level.

    Args:
      settings: those of level 1, of level 2 and so on.
      level: from 1.

    Raises:
      ValueError: there is no such level.
    """
    if level not in range(1, len(settings) + 1):
        raise ValueError(f"no level {level!r}: levels are {tuple(range(1, len(settings) + 1))}")
    return settings[level - 1]
