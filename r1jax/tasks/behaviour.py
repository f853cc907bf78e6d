"""What a countdown response does besides answering: computing, checking, trying again, reflecting."""

import re
from typing import NamedTuple

from r1jax.tasks.expression import evaluate

REFLECTION_WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
"""The paper's list (Nature 645:633, Extended Data)."""

_CHECK = re.compile(r"(?<![0-9])([0-9]{1,9}) ([-+*]) ([0-9]{1,9}) = ([0-9]{1,9}) (yes|no|对|不对)(?!\w)")
_REFLECTION = re.compile(r"\b(" + "|".join(REFLECTION_WORDS) + r")\b", re.IGNORECASE)


class Check(NamedTuple):
    """One attempt that was computed and marked."""

    text: str
    right: bool
    """The value is the expression's, and the mark is what the value deserves."""
    repeated: bool
    """The same expression was checked before in this response."""


def read_checks(response: str, target: int) -> list[Check]:
    """All checks `a op b = value yes|no` (对|不对 in Chinese) in a response, in order."""
    checks, seen = [], set()
    for match in _CHECK.finditer(response):
        left, operator, right, value, mark = match.groups()
        expression = f"{left} {operator} {right}"
        exact = evaluate(expression)[0] == int(value)
        checks.append(Check(match[0], exact and (mark in ("yes", "对")) == (int(value) == target), expression in seen))
        seen.add(expression)
    return checks


def count_reflection_words(response: str) -> int:
    """How many words of REFLECTION_WORDS a response contains."""
    return len(_REFLECTION.findall(response))
