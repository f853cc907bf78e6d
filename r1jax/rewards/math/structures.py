"""The kinds of answers: numbers, quantities, sets, tuples, intervals, matrices, equations, choices, words."""

from dataclasses import dataclass
from typing import NamedTuple

from r1jax.rewards.math.nodes import Node
from r1jax.rewards.math.units import Unit


@dataclass(frozen=True)
class Scalar:
    """A number or an expression."""

    node: Node


@dataclass(frozen=True)
class Quantity:
    """An amount of a unit."""

    node: Node
    unit: Unit


@dataclass(frozen=True)
class Words:
    """Running text, in lower case and without punctuation."""

    text: str


@dataclass(frozen=True)
class Choice:
    """A letter of a multiple choice, and what is written behind it."""

    letter: str
    rest: "Structure | None" = None


@dataclass(frozen=True)
class Numeral:
    """Digits in a base other than ten."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    """Numbers with colons: a ratio, or a time of day with its suffix."""

    parts: tuple[Node, ...]
    texts: tuple[str, ...]
    suffix: str = ""


@dataclass(frozen=True)
class Items:
    """Several answers without order: a list, or a set where `braces`; `either` where "or" stands between them."""

    items: "tuple[Structure, ...]"
    braces: bool = False
    either: bool = False


@dataclass(frozen=True)
class Bracket:
    """Items in order within brackets: a tuple, a vector, or an interval."""

    left: str
    items: "tuple[Structure, ...]"
    right: str


class Piece(NamedTuple):
    """One interval."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals, and what it is said to be of, where that is written."""

    pieces: tuple[Piece, ...]
    label: str | None = None


@dataclass(frozen=True)
class Matrix:
    """A matrix by rows."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Equation:
    """An equation; where one side is only a name, `label` is that name and `value` the other side."""

    left: Node | None
    right: Node | None
    label: str | None = None
    value: "Structure | None" = None


@dataclass(frozen=True)
class Inequality:
    """Expressions that are positive, or not negative where not strict, all at once."""

    pairs: tuple[tuple[Node, bool], ...]


@dataclass(frozen=True)
class Chain:
    """Several forms of one value, as in 0.56 = 56%; `exact` unless a sign between them was an approximate one."""

    values: "tuple[Structure, ...]"
    exact: bool = True


Structure = (
    Scalar
    | Quantity
    | Words
    | Choice
    | Numeral
    | Ratio
    | Items
    | Bracket
    | Region
    | Matrix
    | Equation
    | Inequality
    | Chain
)

INFINITY = Node("sym", ("infty",))
MINUS_INFINITY = Node("neg", (INFINITY,))
EMPTY = Items((), braces=True)
REALS = Region((Piece(MINUS_INFINITY, False, INFINITY, False),))
