"""Countdown: reach a target from some of the given numbers, each used at most once."""

import itertools
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from r1jax.rewards.format import extract_answer
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.expression import evaluate
from r1jax.tasks.languages import Language
from r1jax.tasks.splits import Split, is_kept_back

SMALLEST, LARGEST = 2, 15
LEVELS = (1, 2, 3)
QUESTION_PHRASES = ("Use two of the numbers", "to make")
CHINESE_PHRASES = ("用其中两个数", "得到")


class Problem(NamedTuple):
    """Numbers in ascending order, a target that two of them reach, and the level."""

    numbers: tuple[int, ...]
    target: int
    level: int
    language: Language = "en"

    @property
    def question(self) -> str:
        start, goal = QUESTION_PHRASES if self.language == "en" else CHINESE_PHRASES
        return (
            f"{start} {' '.join(map(str, self.numbers))} {goal} {self.target} {'.' if self.language == 'en' else '。'}"
        )

    @property
    def record(self) -> dict:
        """The problem, and what a reward needs to judge an answer."""
        asked = {"family": "countdown", "level": self.level, "language": self.language, "question": self.question}
        return asked | {"numbers": list(self.numbers), "target": self.target}


def candidates(numbers: tuple[int, ...]) -> list[tuple[str, int]]:
    """Every (expression, value) from two of the numbers by +, - and *, differences positive, in reading order."""
    found = []
    for a, b in itertools.combinations(numbers, 2):
        low, high = min(a, b), max(a, b)
        found += [(f"{a} + {b}", a + b), (f"{high} - {low}", high - low), (f"{a} * {b}", a * b)]
    return found


def is_held_out(numbers: tuple[int, ...], target: int) -> bool:
    """Whether a problem belongs to the held-out split: decided by a hash of its number multiset and target alone."""
    return is_kept_back(f"{sorted(numbers)}|{target}")


@lru_cache
def problems(level: int, split: Split) -> tuple[Problem, ...]:
    """All problems of a level in one split, in a fixed order.

    Level L gives L + 2 distinct numbers from 2 to 15, of which two reach the target; the target is none of them.
    The splits cannot overlap, whatever the level.

    Raises:
      ValueError: unknown level or split.
    """
    if level not in LEVELS or split not in ("train", "held_out"):
        raise ValueError(f"no level {level!r} with split {split!r}: levels are {LEVELS}, splits 'train' and 'held_out'")
    found = []
    for numbers in itertools.combinations(range(SMALLEST, LARGEST + 1), level + 2):
        targets = {value for _, value in candidates(numbers)} - set(numbers)
        for target in sorted(targets):
            if is_held_out(numbers, target) == (split == "held_out"):
                found.append(Problem(numbers, target, level))
    return tuple(found)


def draw_problems(levels: tuple[int, ...], split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
    """`count` problems, the levels in turn, each drawn with equal chance from its split, numbers in random order.

    No problem comes twice unless a level has too few.
    """
    chosen = []
    for place, level in enumerate(levels):
        pool, wanted = problems(level, split), len(range(place, count, len(levels)))
        picks = rng.choice(len(pool), wanted, replace=wanted > len(pool))
        chosen.append([pool[i]._replace(numbers=tuple(rng.permutation(pool[i].numbers).tolist())) for i in picks])
    return [chosen[i % len(levels)][i // len(levels)] for i in range(count)]


def check_answer(expression: str, numbers: list[int], target: int) -> bool:
    """Whether the expression uses at least two of the numbers, each at most as often as given, and equals the target.

    Raises:
      ValueError: not an expression; see `evaluate`.
    """
    value, used = evaluate(expression)
    return len(used) >= 2 and not Counter(used) - Counter(numbers) and value == target


def countdown_reward(record: dict, completion: str) -> Judgement:
    """Judge the answer block of a completion against `record["numbers"]` and `record["target"]`: 1 or 0."""
    answer = extract_answer(completion)
    if answer is None:
        return Judgement("no_answer", 0.0)
    try:
        correct = check_answer(answer, record["numbers"], record["target"])
    except ValueError:
        correct = False
    return Judgement("correct", 1.0) if correct else Judgement("wrong", 0.0)
