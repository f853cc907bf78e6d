"""Chains: carry out a few operations on a number, one after the other. The miniature's arithmetic, in two languages."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import judge_answer, read_number, right_answer
from r1jax.tasks.languages import LANGUAGES, Language

LEVELS = (1, 2, 3)
SMALLEST, LARGEST = 1, 40
"""Every value of a chain lies between these."""
OPERANDS = range(2, 10)
OPENING = {"en": "Start with", "zh": "从"}
CLOSING = {"en": ". What is it now ?", "zh": "。 现在是多少 ？"}


class Operation(NamedTuple):
    """One operation: how it is told, how it is written, and what it does."""

    told: dict[Language, str]
    sign: str
    apply: Callable[[int, int], int]


OPERATIONS = (
    Operation({"en": "add", "zh": "加"}, "+", lambda value, number: value + number),
    Operation({"en": "take away", "zh": "减"}, "-", lambda value, number: value - number),
    Operation({"en": "multiply by", "zh": "乘"}, "*", lambda value, number: value * number),
)


class Step(NamedTuple):
    """One step of a chain: `before sign number = after`."""

    operation: Operation
    before: int
    number: int
    after: int

    @property
    def text(self) -> str:
        return f"{self.before} {self.operation.sign} {self.number}"


def draw_steps(rng: np.random.Generator, count: int) -> list[Step]:
    """A chain of so many steps, every value between SMALLEST and LARGEST."""
    value, steps = int(rng.integers(SMALLEST + 1, 16)), []
    while len(steps) < count:
        operation, number = OPERATIONS[rng.integers(len(OPERATIONS))], int(rng.choice(OPERANDS))
        after = operation.apply(value, number)
        if SMALLEST <= after <= LARGEST:
            steps.append(Step(operation, value, number, after))
            value = after
    return steps


def question(steps: list[Step], language: Language) -> str:
    """The chain in words."""
    told = " , ".join(f"{step.operation.told[language]} {step.number}" for step in steps)
    return f"{OPENING[language]} {steps[0].before} , {told} {CLOSING[language]}"


def draw(level: int, rng: np.random.Generator, language: Language | None = None) -> dict:
    """A chain of level + 1 steps, in a language drawn at random unless one is given.

    Raises:
      ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: levels are {LEVELS}")
    steps, language = draw_steps(rng, level + 1), language or str(rng.choice(LANGUAGES))
    return {
        "family": "chains", "level": level, "language": language, "question": question(steps, language),
        "steps": [[step.text, step.after] for step in steps], "answer": steps[-1].after,
    }  # fmt: skip


def content(record: dict) -> str:
    """The steps, whatever the language they are told in: what decides the split."""
    return str([text for text, _ in record["steps"]])


def judge(record: dict, completion: str) -> Judgement:
    """Judge the number that a completion ends with: 1 or 0."""
    return judge_answer(record, completion, lambda record: (right_answer(record, read_number), read_number))
