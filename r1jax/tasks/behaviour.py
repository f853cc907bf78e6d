"""What a countdown response does besides answering: computing, checking, trying again, reflecting."""

import re
from collections.abc import Callable, Sequence
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


def check_ends(
    decode: Callable[[list[int]], str], ids: Sequence[int], response: str, checks: Sequence[Check]
) -> list[int]:
    """Index of the token in which each check of a response ends.

    Args:
      decode: token ids to text.
      ids: the tokens of the response.
      response: their text.
      checks: of `read_checks`, in order.
    """
    ends, place, token = [], 0, 0
    for check in checks:
        place = response.index(check.text, place) + len(check.text)
        while len(decode([int(i) for i in ids[: token + 1]])) < place:
            token += 1
        ends.append(token)
    return ends


def count_reflection_words(response: str) -> int:
    """How many words of REFLECTION_WORDS a response contains."""
    return len(_REFLECTION.findall(response))
