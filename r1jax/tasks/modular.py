"""Modular arithmetic: powers, inverses and simultaneous congruences (the Chinese remainder theorem)."""

import math
import re
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import BrokenRecord, field, judge_answer, plain, read_number, right_answer, shown
from r1jax.tasks.levels import at_level


class Size(NamedTuple):
    """How large a problem is."""

    modulus: int
    """The largest of a power or an inverse."""
    exponent: int
    congruences: int
    part: int
    """The largest modulus of one of several congruences."""


SIZES = (
    Size(20, 6, 2, 10),
    Size(50, 20, 2, 20),
    Size(100, 100, 2, 40),
    Size(300, 1000, 3, 20),
    Size(1000, 10**6, 3, 40),
)

_SUFFIX = re.compile(
    r"\s*(?:\\pmod\s*\{?|\(\s*(?:\\mod|\\bmod|mod)\s*|\\[bp]?mod\s*|(?<![a-z])mod\s*)([0-9]{1,20})\s*[})]?$"
)


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: a power, an inverse or congruences, with equal chance, moduli growing with the level.

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    kind = (_power, _inverse, _congruences)[int(rng.integers(3))]
    text, answer, modulus = kind(size, rng)
    question = f"{text} The answer is a whole number from 0 to {modulus - 1}."
    record = {"family": "modular", "level": level, "question": question}
    return record | {"modulus": modulus, "answer": str(answer)}


def judge(record: dict, completion: str) -> Judgement:
    """Judge a residue from 0 to the modulus - 1, also as `x = 3` or `x ≡ 3 (mod 7)`: 1 or 0."""
    return judge_answer(record, completion, _prepare)


def read_residue(text: str, modulus: int) -> int | None:
    """A residue from 0 to `modulus` - 1, with the modulus named after it or not; no other number of its class."""
    text = plain(text).replace("\\equiv", "=").replace("\u2261", "=")
    if match := _SUFFIX.search(text[-60:]):
        if int(match[1]) != modulus:
            return None
        text = text[: len(text) - len(match[0])]
    value = read_number(text, ("x",))
    return int(value) if value is not None and value.denominator == 1 and 0 <= value < modulus else None


def _prepare(record: dict):
    modulus = field(record, "modulus", int)
    if modulus < 2:
        raise BrokenRecord(f"field 'modulus' holds {shown(modulus)}; expected a whole number from 2")
    read = lambda text: read_residue(text, modulus)
    return right_answer(record, read), read


def _power(size: Size, rng) -> tuple[str, int, int]:
    modulus = int(rng.integers(3, size.modulus + 1))
    base, exponent = int(rng.integers(2, size.modulus + 1)), int(rng.integers(2, size.exponent + 1))
    return f"What is the remainder of {base}^{exponent} divided by {modulus} ?", pow(base, exponent, modulus), modulus


def _inverse(size: Size, rng) -> tuple[str, int, int]:
    modulus = int(rng.integers(5, size.modulus + 1))
    units = [number for number in range(2, modulus) if math.gcd(number, modulus) == 1]
    number = int(rng.choice(units))
    return f"Find x with {number} * x = 1 (mod {modulus}).", pow(number, -1, modulus), modulus


def _congruences(size: Size, rng) -> tuple[str, int, int]:
    moduli: list[int] = []
    while len(moduli) < size.congruences:
        candidate = int(rng.integers(2, size.part + 1))
        if all(math.gcd(candidate, other) == 1 for other in moduli):
            moduli.append(candidate)
    product = math.prod(moduli)
    answer = int(rng.integers(product))
    parts = ", ".join(f"x = {answer % modulus} (mod {modulus})" for modulus in sorted(moduli))
    return f"Find the smallest x from 0 with {parts}.", answer, product
