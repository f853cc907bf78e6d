"""Equations, inequalities, and the regions of the number line that they describe."""

from collections.abc import Callable, Iterable

from r1jax.rewards.math.equality import symbols
from r1jax.rewards.math.latex import Malformed, Token
from r1jax.rewards.math.nodes import Node, Parser
from r1jax.rewards.math.structures import (
    INFINITY,
    MINUS_INFINITY,
    Chain,
    Equation,
    Inequality,
    Piece,
    Region,
    Structure,
)

RELATIONS = {"=", "<", ">", "<=", ">=", "!=", "in", "~="}
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
MAX_LABEL = 12  # tokens


def label_of(tokens: list[Token]) -> str | None:
    """The name that tokens are, as x, a_5, f(x), AB, (x, y), \\angle ABC or Area; None where they are an expression."""
    if not tokens or len(tokens) > MAX_LABEL:
        return None
    text = "".join(token.text for token in tokens)
    if all(token.kind == "word" for token in tokens):
        return text.lower()
    names = [token for token in tokens if token.kind == "name"]
    if not names or any(token.kind == "fun" for token in tokens) or text in ("e", "i", "pi", "infty"):
        return None
    if all(token.kind == "name" for token in tokens):
        lowercase = [token for token in names if len(token.text) == 1]
        return text if len(names) == 1 or len(lowercase) < 2 or "angle" in text or "triangle" in text else None
    first, rest = tokens[0], tokens[1:]
    if first.kind == "cmd" and first.text == "over":
        return text
    if first.kind == "name" and rest[0].kind == "op" and rest[0].text in ("_", "'"):
        while rest and rest[0].text == "'":
            rest = rest[1:]
        if rest and rest[0].text == "_":
            rest = rest[rest.index(Token("op", "}")) + 1 :] if Token("op", "}") in rest else rest[2:]
        return text if not rest or rest[0].text == "(" and rest[-1].text == ")" else None
    if first.kind == "name" and rest[0].text == "(" and rest[-1].text == ")" and first.text in "fghFGHPpqQVATSR":
        return text
    if first.text == "(" and tokens[-1].text == ")" and all(t.kind == "name" or t.text in "(),_" for t in tokens):
        return text if "," in text else None
    return None


def node_of(tokens: list[Token]) -> Node:
    """The expression that tokens are.

    Raises:
      Malformed: they are not one.
    """
    parser = Parser(tokens)
    node = parser.expression()
    if parser.place != len(parser.tokens):
        raise Malformed(f"unexpected {parser.peek().text!r}")
    return node


def node_or_none(tokens: list[Token]) -> Node | None:
    """The expression that tokens are; None where they are none."""
    try:
        return node_of(tokens)
    except Malformed:
        return None


def read_relation(
    sides: list[list[Token]], relations: list[str], read_side: Callable[[list[Token]], Structure]
) -> Structure:
    """An equation, a chain of equal values, a membership or an inequality."""
    if relations == ["in"]:
        label, value = label_of(sides[0]), read_side(sides[1])
        if label is None:
            raise Malformed("membership of something that is no name")
        return Region(value.pieces, label) if isinstance(value, Region) else Equation(None, None, label, value)
    if not set(relations) <= {"=", "~="}:
        return read_inequality(sides, relations)
    if not all(sides):
        raise Malformed("an equation with an empty side")
    label = label_of(sides[0])
    if label is None and len(sides) == 2 and label_of(sides[1]) is not None:
        sides = sides[::-1]
        label = label_of(sides[0])
    exact = "~=" not in relations
    if label is not None:
        values = tuple(read_side(side) for side in sides[1:])
        value = values[0] if len(values) == 1 else Chain(values, exact=exact)
        return Equation(node_or_none(sides[0]), node_or_none(sides[-1]), label, value)
    nodes = [node_or_none(side) for side in sides]
    if len(sides) == 2 and None not in nodes and symbols(nodes[0]) | symbols(nodes[1]):
        return Equation(*nodes)
    return Chain(tuple(read_side(side) for side in sides), exact=exact)


def read_inequality(sides: list[list[Token]], relations: list[str]) -> Structure:
    """An interval where a name stands beside or between numbers, else the differences that are positive."""
    if len(sides) > 3 or not set(relations) <= FLIPPED.keys():
        raise Malformed("a chain of relations that is no inequality")
    if len(sides) == 2:
        for name, number, relation in ((sides[0], sides[1], relations[0]), (sides[1], sides[0], FLIPPED[relations[0]])):
            label, bound = label_of(name), node_or_none(number)
            if label and bound and not symbols(bound):
                return Region(half_line(bound, relation), label)
    elif label_of(sides[1]):
        if relations[0] in (">", ">="):
            sides, relations = sides[::-1], [FLIPPED[relation] for relation in relations[::-1]]
        low, high = node_or_none(sides[0]), node_or_none(sides[2])
        if low and high and set(relations) <= {"<", "<="} and not symbols(low) | symbols(high):
            return Region((Piece(low, relations[0] == "<=", high, relations[1] == "<="),), label_of(sides[1]))
    pairs, nodes = [], [node_of(side) for side in sides]
    for left, relation, right in zip(nodes, relations, nodes[1:], strict=False):
        if relation == "!=":
            raise Malformed("an inequation of expressions")
        small, big = (left, right) if relation in ("<", "<=") else (right, left)
        pairs.append((Node("add", (big, Node("neg", (small,)))), relation in ("<", ">")))
    return Inequality(tuple(pairs))


def half_line(bound: Node, relation: str) -> tuple[Piece, ...]:
    """Where `x relation bound` holds."""
    below = Piece(MINUS_INFINITY, False, bound, relation == "<=")
    above = Piece(bound, relation == ">=", INFINITY, False)
    return (below, above) if relation == "!=" else (below,) if relation in ("<", "<=") else (above,)


def without_points(points: list[Node]) -> Region:
    """All numbers but one; more than one are left to the order in which they are written."""
    bounds = [MINUS_INFINITY, *points, INFINITY]
    return Region(tuple(Piece(low, False, high, False) for low, high in zip(bounds, bounds[1:], strict=False)))


def union(parts: Iterable[Region | tuple]) -> Region:
    """The union of regions or pieces, not yet in order; a label survives if all have the same."""
    pieces, labels = [], set()
    for part in parts:
        labels.add(part.label if isinstance(part, Region) else None)
        pieces += part.pieces if isinstance(part, Region) else [Piece(*part)]
    return Region(tuple(pieces), labels.pop() if len(labels) == 1 else None)


def intersection(regions: list[Region]) -> Region:
    """The intersection of two half-lines that face each other.

    Raises:
      Malformed: the regions are anything else.
    """
    pieces = [region.pieces for region in regions]
    if len(regions) != 2 or any(len(piece) != 1 for piece in pieces):
        raise Malformed("an intersection of regions")
    (left,), (right,) = pieces
    if left.low != MINUS_INFINITY:
        left, right = right, left
    if left.low != MINUS_INFINITY or right.high != INFINITY:
        raise Malformed("an intersection of regions")
    return Region((Piece(right.low, right.low_closed, left.high, left.high_closed),), regions[0].label)
