"""Integer arithmetic: the value of an expression in +, -, * and exact division, with brackets."""

from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import field, judge_answer, read_number, right_answer
from r1jax.tasks.levels import at_level

OPERATORS = ("+", "-", "*", "/")
LARGEST_DIVISOR = 9


class Size(NamedTuple):
    """How large an expression is."""

    operations: int
    largest: int
    """Of the value, and of the numbers that are drawn to reach it."""


SIZES = (Size(1, 50), Size(2, 50), Size(4, 50), Size(6, 100), Size(9, 200))


class Term(NamedTuple):
    """An expression, and how strongly its outermost operator binds: 1 sums, 2 products, 3 numbers."""

    text: str
    binding: int


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: 1, 2, 4, 6 or 9 operations, every division exact, every number positive.

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    value = int(rng.integers(-size.largest, size.largest + 1))
    expression = _express(value, size.operations, size.largest, rng).text
    question = f"Compute {expression} . The answer is a whole number."
    record = {"family": "arithmetic", "level": level, "question": question}
    return record | {"expression": expression, "answer": str(value)}


def judge(record: dict, completion: str) -> Judgement:
    """Judge a value, alone or as the right side of `expression = value`: 1 or 0."""
    return judge_answer(record, completion, _prepare)


def content(record: dict) -> str:
    """The numbers of the expression, in ascending order, and its value: what decides the split."""
    digits = "".join(character if character.isdigit() else " " for character in record["expression"])
    return f"{sorted(map(int, digits.split()))}|{record['answer']}"


def _prepare(record: dict):
    labels = ("".join(field(record, "expression", str).split()),)
    read = lambda text: read_number(text, labels)
    return right_answer(record, read), read


def _express(value: int, operations: int, largest: int, rng: np.random.Generator) -> Term:
    """An expression of a value with a number of operations; the value is positive where there are none."""
    if operations == 0:
        return Term(str(value), 3)
    before = int(rng.integers(operations))
    inner = before, operations - 1 - before
    for operator in rng.permutation(OPERATORS):
        parts = _split(value, str(operator), inner, largest, rng)
        fits = parts and all(part > 0 or (part < 0 and more) for part, more in zip(parts, inner, strict=True))
        if fits and (operator == "-" or max(map(abs, parts)) <= 10 * largest):
            left, right = (_express(part, more, largest, rng) for part, more in zip(parts, inner, strict=True))
            return _join(left, str(operator), right)
    right = int(rng.integers(1, largest + 1)) + max(0, -value)  # a difference of positive numbers reaches any value
    return _join(_express(value + right, inner[0], largest, rng), "-", _express(right, inner[1], largest, rng))


def _split(value: int, operator: str, inner: tuple[int, int], largest: int, rng) -> tuple[int, int] | None:
    """Two numbers that the operator makes into a value; None where this operator does not suit it."""
    if operator == "+":
        bound = largest if inner[1] else min(largest, value - 1)
        left = int(rng.integers(1, bound + 1)) if bound >= 1 else 0
        return left, value - left
    if operator == "-":
        right = int(rng.integers(1, largest + 1))
        return value + right, right
    if operator == "/":
        right = int(rng.integers(2, LARGEST_DIVISOR + 1))
        return value * right, right
    divisors = [d for d in range(2, largest + 1) if value % d == 0 and abs(value) // d > 1]
    if not divisors:
        return None
    factor = int(rng.choice(divisors))
    return (factor, value // factor) if rng.random() < 0.5 else (value // factor, factor)


def _join(left: Term, operator: str, right: Term) -> Term:
    """Two expressions joined by an operator, with the brackets that are needed and no others."""
    binding = 1 if operator in "+-" else 2
    before = f"({left.text})" if left.binding < binding else left.text
    tight = right.binding < binding or (right.binding == binding and operator in "-/")
    return Term(f"{before} {operator} {f'({right.text})' if tight else right.text}", binding)
