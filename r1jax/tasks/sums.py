"""Sums of one-digit numbers, for chat models that answer without reasoning: a plain number is an answer."""

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import field, judge_answer, read_number, right_answer
from r1jax.tasks.levels import at_level

LEVELS = (1, 2, 3)
TERMS = (2, 3, 4)


def draw(level: int, rng: np.random.Generator) -> dict:
    """A sum of two, three or four numbers from 0 to 9.

    Raises:
      ValueError: unknown level.
    """
    numbers = rng.integers(0, 10, at_level(TERMS, level)).tolist()
    expression = " + ".join(map(str, numbers))
    record = {"family": "sums", "level": level, "question": f"Compute {expression}. Write only the result."}
    return record | {"numbers": numbers, "answer": str(sum(numbers))}


def judge(record: dict, completion: str) -> Judgement:
    """Judge a value, alone or as the right side of `sum = value`, with or without a mark around it: 1 or 0."""
    return judge_answer(record, completion, _prepare, bare=True)


def content(record: dict) -> str:
    """The numbers in ascending order: what decides the split."""
    return str(sorted(record["numbers"]))


def _prepare(record: dict):
    labels = ("+".join(str(number) for number in field(record, "numbers", list)),)
    read = lambda text: read_number(text, labels)
    return right_answer(record, read), read
