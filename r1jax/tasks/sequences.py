"""Number sequences whose rule is of a stated kind, with enough terms that every rule of the kind agrees on the next."""

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import judge_answer, read_number, right_answer
from r1jax.tasks.levels import at_level

LARGEST_TERM = 10**6
LARGEST_START = 20


class Rules(NamedTuple):
    """A kind of rule: what it says, the values its parameters can take, and the term that a rule gives."""

    text: str
    ranges: tuple[tuple[int, ...], ...]
    order: int
    """How many terms are given freely."""
    shown: int
    """How many terms a question shows."""
    step: Callable
    """(parameters, earlier terms) -> the next term; parameters are numbers, or arrays for many rules at once."""


def _whole(low: int, high: int, *, zero: bool = True) -> tuple[int, ...]:
    return tuple(number for number in range(low, high + 1) if number or zero)


def _alternate(rule, terms: list[int]):
    a, b, c, d = rule
    return a * terms[-1] + b if len(terms) % 2 else c * terms[-1] + d


RULES = (
    Rules(
        "each term is the one before it plus b, with b from -50 to 50",
        (_whole(-50, 50),),
        1,
        4,
        lambda rule, terms: terms[-1] + rule[0],
    ),
    Rules(
        "each term is a times the one before it plus b, with a from -5 to 5 but not 0 and b from -20 to 20",
        (_whole(-5, 5, zero=False), _whole(-20, 20)),
        1,
        5,
        lambda rule, terms: rule[0] * terms[-1] + rule[1],
    ),
    Rules(
        "each term is a times the one before it plus b times the one before that plus c, with a and b from -3 to 3 but "
        "not 0 and c from -10 to 10",
        (_whole(-3, 3, zero=False), _whole(-3, 3, zero=False), _whole(-10, 10)),
        2,
        6,
        lambda rule, terms: rule[0] * terms[-1] + rule[1] * terms[-2] + rule[2],
    ),
    Rules(
        "the second, fourth, sixth ... term is a times the one before it plus b, and the third, fifth, seventh ... is "
        "c times the one before it plus d, with a and c from -2 to 3 but not 0 and b and d from -4 to 4",
        (_whole(-2, 3, zero=False), _whole(-4, 4), _whole(-2, 3, zero=False), _whole(-4, 4)),
        1,
        7,
        _alternate,
    ),
    Rules(
        "each term is a times the one before it plus b times the second before it plus c times the third before it "
        "plus d, with a, b and c from -2 to 2 but not 0 and d from -25 to 25",
        (*(_whole(-2, 2, zero=False),) * 3, _whole(-25, 25)),
        3,
        8,
        lambda rule, terms: rule[0] * terms[-1] + rule[1] * terms[-2] + rule[2] * terms[-3] + rule[3],
    ),
)
"""The kinds, by level."""


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: a rule with 1, 2, 3, 4 or 4 unknown parameters, the last over three earlier terms.

    Raises:
      ValueError: unknown level.
    """
    rules = at_level(RULES, level)
    while True:
        rule = tuple(int(rng.choice(values)) for values in rules.ranges)
        terms = [int(number) for number in rng.integers(-LARGEST_START, LARGEST_START + 1, rules.order)]
        while len(terms) < rules.shown + 1:
            terms.append(rules.step(rule, terms))
        if max(map(abs, terms)) <= LARGEST_TERM and len(set(terms)) > 2:
            if continuations(rules, terms[:-1]) == {terms[-1]}:
                break
    shown = ", ".join(map(str, terms[:-1]))
    question = f"In a sequence of whole numbers, {rules.text}. What is the next term of {shown} ?"
    record = {"family": "sequences", "level": level, "question": question}
    return record | {"terms": terms[:-1], "answer": str(terms[-1])}


def judge(record: dict, completion: str) -> Judgement:
    """Judge the next term: 1 or 0."""
    return judge_answer(record, completion, lambda record: (right_answer(record, read_number), read_number))


def content(record: dict) -> str:
    """The terms that the question shows: what decides the split."""
    return str(record["terms"])


def continuations(rules: Rules, terms: list[int]) -> set[int]:
    """The next terms that rules of a kind give after these terms, by trying every rule."""
    every = _every_rule(rules.ranges)
    agrees = np.ones(every.shape[1], bool)
    for place in range(rules.order, len(terms)):
        agrees &= rules.step(every, terms[:place]) == terms[place]
    return set(rules.step(every, terms)[agrees].tolist())


@lru_cache
def _every_rule(ranges: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Every combination of parameters: [parameters, rules]."""
    return np.array(list(product(*ranges))).T
