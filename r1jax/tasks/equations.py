"""Linear equations with exactly one solution: one unknown, systems of two and of three."""

import re
from fractions import Fraction
from itertools import permutations
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import BrokenRecord, field, judge_answer, plain, read_items, read_number, right_answer, shown
from r1jax.tasks.levels import at_level

UNKNOWNS = ("x", "y", "z")
LARGEST_DENOMINATOR = 6


class Size(NamedTuple):
    """How large a problem is."""

    unknowns: int
    largest: int
    """Of the coefficients."""
    fractions: bool
    """Some unknown is not a whole number, if so."""


SIZES = (Size(1, 12, False), Size(1, 12, True), Size(2, 9, False), Size(3, 5, False), Size(3, 9, True))

_SEPARATOR = re.compile(r"[,;\n]|\\\\|(?<![A-Za-z])and(?![A-Za-z])")


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: one unknown (1, 2: on both sides, fractions), two (3), three (4, 5: larger, fractions).

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    names = list(UNKNOWNS[: size.unknowns])
    if size.unknowns == 1:
        equations, solution = _one_unknown(size, rng)
    else:
        equations, solution = _system(size, rng)
    example = ", ".join(f"{name} = {value}" for name, value in zip(names, ("3", "-1/2", "4"), strict=False))
    question = f"Solve for {_listing(names)}: {' ; '.join(equations)} . Answer in the form {example} ."
    answer = ", ".join(f"{name} = {value}" for name, value in zip(names, solution, strict=True))
    record = {"family": "equations", "level": level, "question": question}
    return record | {"unknowns": names, "equations": equations, "answer": answer}


def judge(record: dict, completion: str) -> Judgement:
    """Judge the values of the unknowns: named, in any order, or as a tuple in the order of the record: 1 or 0."""
    return judge_answer(record, completion, _prepare)


def content(record: dict) -> str:
    """The equations, in a fixed order: what decides the split."""
    return "|".join(sorted(record["equations"]))


def read_values(text: str, names: list[str]) -> tuple[Fraction, ...] | None:
    """The values of unknowns in the order of the names, each given exactly once.

    Accepts `x = 3, y = -1` in any order, `(3, -1)`, `(x, y) = (3, -1)`, and a bare number for a single unknown.
    """
    text = plain(text)
    left, equals, right = text.partition("=")
    if left.strip().startswith("("):
        if equals and read_items(left) != names:
            return None
        values = [read_number(item) for item in read_items(right if equals else text)]
        return tuple(values) if len(values) == len(names) and None not in values else None
    if len(names) == 1:
        value = read_number(text, (names[0],))
        return None if value is None else (value,)
    values = {}
    for part in filter(str.strip, _SEPARATOR.split(text)):
        name, equals, number = plain(part).partition("=")
        value = read_number(number)
        if not equals or value is None or name.strip() in values:
            return None
        values[name.strip()] = value
    return tuple(values[name] for name in names) if values.keys() == set(names) else None


def determinant(matrix: list[list[int]]) -> int:
    """The determinant of a small whole-number matrix, by Leibniz's formula."""
    total = 0
    for order in permutations(range(len(matrix))):
        inversions = sum(a > b for place, a in enumerate(order) for b in order[place + 1 :])
        product = -1 if inversions % 2 else 1
        for row, column in zip(matrix, order, strict=True):
            product *= row[column]
        total += product
    return total


def _prepare(record: dict):
    names = field(record, "unknowns", list)
    if not all(isinstance(name, str) and name.isalpha() for name in names) or len(set(names)) < len(names):
        raise BrokenRecord(f"field 'unknowns' holds {shown(names, 80)}; expected different names of letters")
    read = lambda text: read_values(text, names)
    return right_answer(record, read), read


def _listing(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _nonzero(largest: int, rng) -> int:
    return int(rng.integers(1, largest + 1)) * int(rng.choice((-1, 1)))


def _one_unknown(size: Size, rng) -> tuple[list[str], list[Fraction]]:
    """a x + b = c with a whole solution, or a x + b = c x + d with a fraction."""
    offset = _nonzero(5 * size.largest, rng)
    if not size.fractions:
        slope, solution = _nonzero(size.largest, rng), _nonzero(20, rng)
        return [f"{_side([slope], offset)} = {slope * solution + offset}"], [Fraction(solution)]
    while True:
        left, right, solution = _nonzero(size.largest, rng), _nonzero(size.largest, rng), None
        constant = _nonzero(5 * size.largest, rng)
        if left != right:
            solution = Fraction(constant - offset, left - right)
        if solution is not None and solution.denominator > 1:
            return [f"{_side([left], offset)} = {_side([right], constant)}"], [solution]


def _system(size: Size, rng) -> tuple[list[str], list[Fraction]]:
    """As many equations as unknowns; drawn again until they have one solution, which is the hidden one."""
    solution = _hidden(size, rng)
    while True:
        equations = [_equation(solution, size.largest, rng) for _ in solution]
        if determinant([row for row, _ in equations]) != 0:
            return [f"{_side(row, 0)} = {constant}" for row, constant in equations], solution


def _hidden(size: Size, rng) -> list[Fraction]:
    """Values for the unknowns; with fractions, one denominator that at least one of them has."""
    while True:
        bottom = int(rng.integers(2, LARGEST_DENOMINATOR + 1)) if size.fractions else 1
        values = [Fraction(top, bottom) for top in rng.integers(-12, 13, size.unknowns).tolist()]
        if any(value.denominator > 1 for value in values) == size.fractions:
            return values


def _equation(solution: list[Fraction], largest: int, rng) -> tuple[list[int], int]:
    """Coefficients, at least two of them not 0, and the whole number that the solution gives with them."""
    while True:
        row = rng.integers(-largest, largest + 1, len(solution)).tolist()
        constant = sum(c * value for c, value in zip(row, solution, strict=True))
        if sum(map(bool, row)) >= 2 and constant.denominator == 1:
            return row, int(constant)


def _side(coefficients: list[int], constant: int) -> str:
    """One side of an equation: `2x - y + 3`."""
    terms = [(c, name) for c, name in zip(coefficients, UNKNOWNS, strict=False) if c]
    parts = [(c < 0, f"{abs(c) if abs(c) != 1 else ''}{name}") for c, name in terms]
    parts += [(constant < 0, str(abs(constant)))] if constant or not parts else []
    first = f"{'-' if parts[0][0] else ''}{parts[0][1]}"
    return first + "".join(f" {'-' if negative else '+'} {text}" for negative, text in parts[1:])
