"""Functions: write a Python expression that a phrase describes, judged in the sandbox. The miniature's code, in two
languages."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from r1jax.rewards.code import code_reward
from r1jax.tasks.languages import LANGUAGES, Language

LEVELS = (1, 2, 3)
FACTORS, SUMMANDS = range(2, 7), range(1, 10)
OPENING = {"en": "Write f(xs) :", "zh": "写 f(xs) ："}
FENCE_OPEN, FENCE_CLOSE = "```python\ndef f(xs): return", "\n```"
INPUTS = ([3, 4, 9, 4], [-2, 7, 6, -5, 8], [5], [12, -1, -1, 10, 3], [2, -6, 7, 7, -3], [-4, -9], [6, 8])
"""What a function is tried on; tells apart all that differ anywhere."""


class Part(NamedTuple):
    """A choice of numbers, or what is made of them: how it is told, how Python says it, and what it does."""

    told: dict[Language, str]
    code: str
    """With {} where the list goes."""
    apply: Callable


CHOICES = (
    Part({"en": "the even numbers", "zh": "偶数"}, "[x for x in xs if x % 2 == 0]", lambda xs: [x for x in xs if not x % 2]),
    Part({"en": "the odd numbers", "zh": "奇数"}, "[x for x in xs if x % 2 == 1]", lambda xs: [x for x in xs if x % 2]),
    Part({"en": "the positive numbers", "zh": "正数"}, "[x for x in xs if x > 0]", lambda xs: [x for x in xs if x > 0]),
    Part({"en": "the negative numbers", "zh": "负数"}, "[x for x in xs if x < 0]", lambda xs: [x for x in xs if x < 0]),
    Part({"en": "the different numbers", "zh": "不同的数"}, "set(xs)", set),
    Part({"en": "the squares", "zh": "平方"}, "[x * x for x in xs]", lambda xs: [x * x for x in xs]),
)  # fmt: skip
ALL = Part({"en": "the numbers", "zh": "这些数"}, "xs", list)
RESULTS = (
    Part({"en": "the sum of", "zh": "之和"}, "sum( {} )", sum),
    Part({"en": "the count of", "zh": "的个数"}, "len( {} )", len),
    Part({"en": "the largest of", "zh": "中最大的"}, "max( {} , default=0 )", lambda xs: max(xs, default=0)),
    Part({"en": "the smallest of", "zh": "中最小的"}, "min( {} , default=0 )", lambda xs: min(xs, default=0)),
)


class Plan(NamedTuple):
    """What a function computes: factor * result(choice) + summand."""

    choice: Part
    result: Part
    factor: int
    summand: int

    @property
    def code(self) -> str:
        """The expression, without what multiplies by 1 and adds 0."""
        inner = self.result.code.format(self.choice.code)
        scaled = f"{self.factor} * {inner}" if self.factor != 1 else inner
        return f"{scaled} + {self.summand}" if self.summand else scaled

    def told(self, language: Language) -> str:
        """The plan in words."""
        choice, result = self.choice.told[language], self.result.told[language]
        if language == "en":
            times = f"{self.factor} times " if self.factor != 1 else ""
            return f"{times}{result} {choice}" + (f" plus {self.summand}" if self.summand else "")
        times = f" 的 {self.factor} 倍" if self.factor != 1 else ""
        return f"{choice} {result}{times}" + (f" 加 {self.summand}" if self.summand else "")

    def apply(self, xs: list[int]) -> int:
        return self.factor * self.result.apply(self.choice.apply(xs)) + self.summand


def draw_plan(rng: np.random.Generator, level: int) -> Plan:
    """Level 1 takes all numbers, multiplies and adds; level 2 chooses numbers and multiplies; level 3 does all three.

    Raises:
      ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: levels are {LEVELS}")
    choice = CHOICES[rng.integers(len(CHOICES))] if level > 1 else ALL
    result, factor = RESULTS[rng.integers(len(RESULTS))], int(rng.choice(FACTORS))
    return Plan(choice, result, factor, int(rng.choice(SUMMANDS)) if level != 2 else 0)


def program(expression: str) -> str:
    """A function as a fenced block."""
    return f"{FENCE_OPEN} {expression}{FENCE_CLOSE}"


def draw(level: int, rng: np.random.Generator, language: Language | None = None) -> dict:
    """A function to write, in a language drawn at random unless one is given; see `draw_plan`."""
    plan, language = draw_plan(rng, level), language or str(rng.choice(LANGUAGES))
    return {
        "family": "functions", "level": level, "language": language,
        "question": f"{OPENING[language]} {plan.told(language)} {'.' if language == 'en' else '。'}",
        "tests": [f"assert f({xs}) == {plan.apply(xs)}" for xs in INPUTS], "timeout": 2.0,
        "expression": plan.code, "plan": [plan.choice.code, plan.result.code, plan.factor, plan.summand],
    }  # fmt: skip


def content(record: dict) -> str:
    """The expression, whatever the language: what decides the split."""
    return record["expression"]


judge = code_reward
