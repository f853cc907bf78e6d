"""Knights and knaves: who tells the truth, from what everybody says, with exactly one solution.

The judge also takes the published sets (Xie et al., arXiv 2410.23123): it reads the fields "names" and "solution".
"""

import re
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import BrokenRecord, field, judge_answer, plain, shown
from r1jax.tasks.levels import at_level

NAMES = (
    "Abigail", "Aiden", "Amelia", "Aria", "Ava", "Benjamin", "Charlotte", "Chloe", "Daniel", "David", "Ella", "Emma",
    "Ethan", "Evelyn", "Grace", "Harper", "Henry", "Jack", "Jacob", "Liam", "Lily", "Logan", "Lucas", "Mason", "Mia",
    "Noah", "Oliver", "Olivia", "Owen", "Riley", "Samuel", "Sofia", "Victoria", "William", "Zoey",
)  # fmt: skip
KNIGHT, KNAVE = "telling-truth", "lying"
CONNECTIVES = ("and", "or", "->", "<=>")
RULES = "On an island knights always tell the truth and knaves always lie, and everybody is one or the other."

Statement = tuple
"""("telling-truth", i), ("lying", i), ("not", s), ("and", s, t), ("or", s, t), ("->", s, t) or ("<=>", s, t)."""


class Size(NamedTuple):
    """How large a problem is."""

    people: int
    depth: int
    """Of the statements: 0 says what one person is."""


SIZES = (Size(2, 2), Size(3, 1), Size(4, 1), Size(4, 2), Size(5, 2))

_NUMBERING = re.compile(r"(?<!\S)\(?[0-9]{1,2}[.):]\s|^[ \t]{0,8}[-*\u2022]\s", re.MULTILINE)
_CLAUSE = re.compile(r"(.+?)\s*(?::|=|\s-|\sis|\sare)\s*(?:an?\s+|both\s+|all\s+)?(knights?|knaves?)", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;.\n]|(?<![A-Za-z])and(?![A-Za-z])", re.IGNORECASE)


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: 2, 3, 4, 4 or 5 people, whose statements are nested in levels 1, 4 and 5.

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    while True:
        statements = [_draw_statement(speaker, size, rng) for speaker in range(size.people)]
        found = solutions(statements)
        if len(found) == 1:
            break
    names = [str(name) for name in rng.choice(NAMES, size.people, replace=False)]
    said = " ".join(f'{name} says: "{_english(s, names)}."' for name, s in zip(names, statements, strict=True))
    listing = f"{', '.join(names[:-1])} and {names[-1]}"
    question = f"{RULES} You meet {listing}. {said} Who is a knight and who is a knave?"
    record = {"family": "knights_and_knaves", "level": level, "question": question, "names": names}
    return record | {"statements": _as_lists(statements), "solution": list(found[0])}


def judge(record: dict, completion: str) -> Judgement:
    """Judge what a completion says every person is, in any order: 1 if it is the solution, else 0.

    Args:
      record: "names" and, in the same order, "solution": true for a knight.
      completion: what the policy wrote.
    """
    return judge_answer(record, completion, _prepare)


def content(record: dict) -> str:
    """The statements, whatever the names and the order of the people: what decides the split."""
    people = range(len(record["statements"]))
    templates = [f"{{{speaker}}} {_template(record['statements'][speaker])}" for speaker in people]
    return " | ".join(min(sorted(text.format(*order) for text in templates) for order in permutations(people)))


def solutions(statements: list[Statement]) -> list[tuple[bool, ...]]:
    """Every assignment (true: knight) in which exactly the knights' statements are true, by trying all of them."""
    worlds = product((True, False), repeat=len(statements))
    return [world for world in worlds if all(holds(s, world) == who for s, who in zip(statements, world, strict=True))]


def holds(statement: Statement, world: tuple[bool, ...]) -> bool:
    """Whether a statement is true in a world.

    Raises:
      ValueError: no such kind of statement.
    """
    kind, *parts = statement
    if kind in (KNIGHT, KNAVE):
        return world[parts[0]] == (kind == KNIGHT)
    values = [holds(part, world) for part in parts]
    if kind == "not":
        return not values[0]
    if kind == "and":
        return all(values)
    if kind == "or":
        return any(values)
    if kind == "->":
        return values[1] or not values[0]
    if kind == "<=>":
        return values[0] == values[1]
    raise ValueError(f"no statement of kind {kind!r}")


def read_roles(text: str, names: list[str]) -> tuple[bool, ...] | None:
    """What each of the people is (true: knight), in the order of the names; each must be told exactly once.

    Accepts `Zoey is a knight, Oliver is a knave` in any order, numbered or by lines, `Zoey: knight`, and
    `Zoey and Oliver are knights`.
    """
    places = {name.casefold(): place for place, name in enumerate(names)}
    roles, waiting = {}, []
    for clause in _SEPARATOR.split(_NUMBERING.sub("\n", plain(text).replace("**", ""))):
        clause = " ".join(clause.split())
        if not clause:
            continue
        match = _CLAUSE.fullmatch(clause)
        who = places.get((match[1] if match else clause).casefold())
        if who is None or who in roles or who in waiting:
            return None
        waiting.append(who)
        if match:
            if (len(waiting) > 1) != match[2].lower().endswith("s"):
                return None
            roles |= dict.fromkeys(waiting, match[2].lower().startswith("knight"))
            waiting = []
    return tuple(roles[place] for place in range(len(names))) if len(roles) == len(names) and not waiting else None


def _prepare(record: dict):
    names, solution = field(record, "names", list), field(record, "solution", list)
    if not all(isinstance(name, str) and name for name in names) or len({str(n).casefold() for n in names}) < len(
        names
    ):
        raise BrokenRecord(f"field 'names' holds {shown(names, 80)}; expected different names")
    if len(solution) != len(names) or not all(isinstance(value, bool) for value in solution):
        raise BrokenRecord(
            f"field 'solution' holds {shown(solution, 80)}; expected true or false for {len(names)} names"
        )
    return tuple(solution), lambda text: read_roles(text, names)


def _draw_statement(speaker: int, size: Size, rng, depth: int = 0) -> Statement:
    """A statement of at most the size's depth; a bare one is never about the speaker, who could not say "knave"."""
    if depth < size.depth and rng.random() < (0.8 if depth == 0 else 0.4):
        if rng.random() < 0.1:
            return ("not", _draw_statement(speaker, size, rng, depth + 1))
        while True:
            left, right = (_draw_statement(speaker, size, rng, depth + 1) for _ in range(2))
            if _people(left) != _people(right):  # nothing like "A is a knight or A is a knave"
                return (CONNECTIVES[int(rng.integers(len(CONNECTIVES)))], left, right)
    others = [person for person in range(size.people) if depth or person != speaker]
    return ((KNIGHT, KNAVE)[int(rng.integers(2))], others[int(rng.integers(len(others)))])


def _people(statement: Statement) -> set[int]:
    kind, *parts = statement
    return {parts[0]} if kind in (KNIGHT, KNAVE) else set().union(*map(_people, parts))


def _english(statement: Statement, names: list[str]) -> str:
    kind, *parts = statement
    if kind in (KNIGHT, KNAVE):
        return f"{names[parts[0]]} is a {'knight' if kind == KNIGHT else 'knave'}"
    said = [_english(part, names) for part in parts]
    said = [text if part[0] in (KNIGHT, KNAVE) else f"({text})" for text, part in zip(said, parts, strict=True)]
    forms = {"not": "it is not true that {}", "and": "{} and {}", "or": "{} or {}", "->": "if {} then {}"}
    return (forms | {"<=>": "{} if and only if {}"})[kind].format(*said)


def _as_lists(statements) -> list:
    return [_as_lists(part) if isinstance(part, tuple) else part for part in statements]


def _template(statement) -> str:
    """A statement as text with a place for every person."""
    kind, *parts = statement
    return f"({kind} {' '.join(f'{{{p}}}' if isinstance(p, int) else _template(p) for p in parts)})"
