"""Families of problems with exact checkers and levels, their split, and mixtures of them.

`python -m r1jax.tasks.families` prints a problem of every family and level.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from r1jax.rewards.code import code_reward
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.math import math_reward
from r1jax.tasks import (
    arithmetic,
    chains,
    countdown,
    equations,
    functions,
    gym,
    knights,
    modular,
    programs,
    requests,
    safety,
    sequences,
    strings,
    sums,
)
from r1jax.tasks.answers import MAX_NUMBER_LENGTH, BrokenRecord, field, judge_answer, plain, shown
from r1jax.tasks.expression import evaluate
from r1jax.tasks.languages import LANGUAGES, Language
from r1jax.tasks.levels import LEVELS
from r1jax.tasks.splits import HELD_OUT_SHARE, Split, is_kept_back

TRIES = 500
"""Draws in a row without a fresh problem after which a level counts as used up."""


def question_of(record: dict) -> str:
    """The question itself: the content of a problem that has no other form."""
    return record["question"]


class Family(NamedTuple):
    """Problems of one kind: how to draw one, and how to judge a completion."""

    name: str
    levels: tuple[int, ...]
    draw: Callable[[int, np.random.Generator], dict]
    """(level, rng) -> a JSON-able record with "family", "level", "question" and what the judge needs."""
    judge: Callable[[dict, str], Judgement]
    content: Callable[[dict], str] = question_of
    """What makes two records the same problem; decides the split."""
    held_out_share: int = HELD_OUT_SHARE
    """One problem in so many is held out."""


class Part(NamedTuple):
    """A family at one level, as a part of a mixture."""

    family: Family
    level: int
    language: Language | None = None
    """Of a family of the miniature world; None draws one for every problem."""

    def draw(self, rng: np.random.Generator) -> dict:
        """A problem of either split."""
        return self.family.draw(self.level, rng, *([self.language] if self.language else []))


def draw_countdown(level: int, rng: np.random.Generator, language: Language = "en") -> dict:
    """A countdown problem of a level, from both splits, its numbers in random order.

    Raises:
      ValueError: unknown level.
    """
    train, held_out = (countdown.problems(level, split) for split in ("train", "held_out"))
    place = int(rng.integers(len(train) + len(held_out)))
    problem = train[place] if place < len(train) else held_out[place - len(train)]
    numbers = tuple(rng.permutation(problem.numbers).tolist())
    return problem._replace(numbers=numbers, language=language).record


def draw_either_countdown(level: int, rng: np.random.Generator, language: Language | None = None) -> dict:
    """`draw_countdown` in a language drawn at random unless one is given."""
    return draw_countdown(level, rng, language or str(rng.choice(LANGUAGES)))


def judge_countdown(record: dict, completion: str) -> Judgement:
    """Judge an expression of at least two of the numbers, each used at most as often as given: 1 or 0.

    Unlike `countdown_reward`, which is the miniature's, it reads a box too, LaTeX operators and `expression = target`.
    """
    return judge_answer(record, completion, _prepare_countdown)


def countdown_content(record: dict) -> str:
    """The numbers, in ascending order, and the target: what decides the split."""
    return f"{sorted(record['numbers'])}|{record['target']}"


def _prepare_countdown(record: dict):
    numbers, target = field(record, "numbers", list), field(record, "target", int)
    if not all(type(number) is int for number in numbers):
        raise BrokenRecord(f"field 'numbers' holds {shown(numbers, 80)}; expected whole numbers")
    if abs(target) >= 10**MAX_NUMBER_LENGTH:
        raise BrokenRecord(f"field 'target' holds more than {MAX_NUMBER_LENGTH} digits")
    return Fraction(target), lambda text: read_countdown(text, numbers, target)


def read_countdown(text: str, numbers: list[int], target: int) -> Fraction | None:
    """The value of an expression of at least two of the numbers; None where it is not one."""
    for latex, sign in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\u00d7", "*"), ("\u00f7", "/")):
        text = text.replace(latex, sign)
    left, equals, right = plain(text).rpartition("=")
    expression = left if equals and right.strip() == str(target) else plain(text)
    try:
        value, used = evaluate(expression)
    except ValueError:
        return None
    left_over = list(numbers)
    for number in used:
        if number not in left_over:
            return None
        left_over.remove(number)
    return value if len(used) >= 2 else None


FAMILIES = (
    Family("countdown", countdown.LEVELS, draw_countdown, judge_countdown, countdown_content),
    Family("arithmetic", LEVELS, arithmetic.draw, arithmetic.judge, arithmetic.content),
    Family("equations", LEVELS, equations.draw, equations.judge, equations.content),
    Family("modular", LEVELS, modular.draw, modular.judge),
    Family("sequences", LEVELS, sequences.draw, sequences.judge, sequences.content),
    Family("strings", LEVELS, strings.draw, strings.judge),
    Family("knights_and_knaves", LEVELS, knights.draw, knights.judge, knights.content),
    Family("programs", programs.LEVELS, programs.draw, programs.judge),
)
"""The families made here."""

GYM_FAMILIES = tuple(
    Family(f"{gym.NAME}:{dataset}", LEVELS, gym.drawer(dataset), gym.judge) for dataset in gym.DATASETS
)
"""The families of reasoning-gym that are admitted; drawing from them needs the extra, judging them does not."""

ELEMENTARY = (Family("sums", sums.LEVELS, sums.draw, sums.judge, sums.content, held_out_share=3),)
"""Families of few problems, for chat models that were not trained here; more of them is held out."""

MINIATURE = {
    family.name: family
    for family in (
        Family("countdown", (1, 2), draw_either_countdown, judge_countdown, countdown_content),
        Family("chains", chains.LEVELS, chains.draw, chains.judge, chains.content),
        Family("functions", functions.LEVELS, functions.draw, functions.judge, functions.content),
        Family("requests", requests.LEVELS, requests.draw, requests.judge, requests.content),
        Family("safety", safety.LEVELS, safety.draw, safety.judge, safety.content),
    )
}
"""The families of the miniature world, each in two languages; their `draw` also takes one."""

PUBLISHED = {"math": math_reward, "code": code_reward}
"""The judges of families that are read from published sets and not made here."""

_BY_NAME = MINIATURE | {family.name: family for family in FAMILIES + ELEMENTARY + GYM_FAMILIES}


def family_of(record: dict) -> Family:
    """The family of a record.

    Raises:
      BrokenRecord: field "family" is missing or names none.
    """
    name = field(record, "family", str)
    if name not in _BY_NAME:
        known = ", ".join(family.name for family in FAMILIES)
        raise BrokenRecord(f"field 'family' holds {name[:40]!r}; expected one of {known}, {gym.NAME}:...")
    return _BY_NAME[name]


def family_reward(record: dict, completion: str, *, allow_unsafe: bool = False) -> Judgement:
    """Judge a completion by the family of its record, "math" and "code" of the published sets among them.

    Args:
      record: the problem.
      completion: what the policy wrote.
      allow_unsafe: run programs without isolation where the host offers none; see `code_reward`.
    """
    try:
        name = field(record, "family", str)
        judge = PUBLISHED[name] if name in PUBLISHED else family_of(record).judge
    except BrokenRecord as error:
        return Judgement("gold_unparseable", 0.0, str(error))
    if judge is code_reward:
        return code_reward(record, completion, allow_unsafe=allow_unsafe)
    return judge(record, completion)


def is_held_out(record: dict) -> bool:
    """Whether a problem belongs to the held-out split, mostly one in ten: decided by a hash of its content alone.

    Raises:
      BrokenRecord: the record is of no family.
    """
    family = family_of(record)
    return is_kept_back(family.content(record), family.held_out_share)


def draw_records(parts: Sequence[Part], split: Split, count: int, rng: np.random.Generator) -> list[dict]:
    """`count` problems of one split, the parts in turn; no problem comes twice before a level of its family is used up.

    A part that stands twice among the parts has twice the weight.

    Raises:
      ValueError: no parts, an unknown level or split, or a level without a problem in the split.
    """
    if split not in ("train", "held_out") or not parts:
        raise ValueError(f"cannot draw from split {split!r} and {len(parts)} parts: splits are 'train' and 'held_out'")
    seen: dict[str, set[str]] = {part.family.name: set() for part in parts}
    chosen = [parts[place % len(parts)] for place in range(count)]
    return [_draw_fresh(part, split, seen[part.family.name], rng) for part in chosen]


def read_parts(names: Sequence[str]) -> list[Part]:
    """The parts that names such as `arithmetic:2`, `countdown:1:zh` or `chains`, for all of its levels, stand for.

    A family of the miniature world is taken before another of the same name; without a language it draws one for every
    problem.

    Raises:
      ValueError: a name is of no family, or its level or language is not one of the family's.
    """
    return [part for name in names for part in _read_parts(name)]


def _read_parts(name: str) -> list[Part]:
    rest, language = name, None
    if name.endswith(tuple(f":{one}" for one in LANGUAGES)):
        rest, _, language = name.rpartition(":")
    head, colon, tail = rest.rpartition(":")
    family_name, levels = (head, [int(tail)]) if colon and tail.isdecimal() else (rest, None)
    family = MINIATURE.get(family_name) or _BY_NAME.get(family_name)
    if family is None:
        known = ", ".join(dict.fromkeys([*MINIATURE, *(family.name for family in FAMILIES + ELEMENTARY)]))
        raise ValueError(f"{name!r} names no family; expected NAME[:LEVEL][:LANGUAGE] with a name of {known}")
    if levels and levels[0] not in family.levels:
        raise ValueError(f"{name!r}: the levels of {family_name} are {', '.join(map(str, family.levels))}")
    if language and family_name not in MINIATURE:
        raise ValueError(f"{name!r}: {family_name} has one language only; leave {language!r} away")
    return [Part(family, level, language) for level in levels or family.levels]


def with_ids(records: Sequence[dict]) -> list[dict]:
    """Records that say which they are: "id" is family, level and place, unless a record has one."""
    return [{"id": f"{r['family']}:{r['level']}:{place}"} | r for place, r in enumerate(records)]


def _draw_fresh(part: Part, split: Split, seen: set[str], rng: np.random.Generator) -> dict:
    for _ in range(2):
        for _ in range(TRIES):
            record = part.draw(rng)
            content = part.family.content(record)
            if content not in seen and is_held_out(record) == (split == "held_out"):
                seen.add(content)
                return record
        seen.clear()  # used up: start over
    raise ValueError(f"family {part.family.name!r} has no {split} problem of level {part.level}")


if __name__ == "__main__":
    for family in FAMILIES + ELEMENTARY:
        for level in family.levels:
            print(f"{family.name} {level}: {family.draw(level, np.random.default_rng(0))['question']}")
