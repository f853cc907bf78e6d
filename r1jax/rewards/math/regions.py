"""Unions of intervals as sets of real numbers."""

from r1jax.rewards.math.equality import evaluate, same_value, symbols
from r1jax.rewards.math.evaluate import Undefined, Work
from r1jax.rewards.math.nodes import Node
from r1jax.rewards.math.structures import INFINITY, MINUS_INFINITY, Piece, Region

INFINITE = {INFINITY: float("inf"), MINUS_INFINITY: float("-inf")}


def same_region(gold: Region, answer: Region, work: Work) -> bool:
    """Whether two unions are the same set; names of what they are of must agree where both have one."""
    if gold.label and answer.label and gold.label != answer.label:
        return False
    if any(symbols(bound) for region in (gold, answer) for p in region.pieces for bound in (p.low, p.high)):
        return same_pieces(gold.pieces, answer.pieces, work)
    try:
        return same_pieces(merged(gold.pieces, work), merged(answer.pieces, work), work)
    except (Undefined, TypeError):  # a bound that is no real number, or bounds in the wrong order
        return False


def same_bound(left: Node, right: Node, work: Work) -> bool:
    """Whether two bounds agree; an infinite one only with the same infinity."""
    if left in INFINITE or right in INFINITE:
        return left == right
    return same_value(left, right, work)


def same_pieces(gold: tuple[Piece, ...], answer: tuple[Piece, ...], work: Work) -> bool:
    """Whether intervals agree one by one, in order."""
    return len(gold) == len(answer) and all(
        (g.low_closed, g.high_closed) == (a.low_closed, a.high_closed)
        and same_bound(g.low, a.low, work)
        and same_bound(g.high, a.high, work)
        for g, a in zip(gold, answer, strict=True)
    )


def merged(pieces: tuple[Piece, ...], work: Work) -> tuple[Piece, ...]:
    """Intervals in ascending order, those that overlap or touch made one."""

    def place(bound: Node):
        return INFINITE[bound] if bound in INFINITE else evaluate(bound, work)

    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (place(p.low), not p.low_closed)):
        low, high = place(piece.low), place(piece.high)
        if low > high or (low == high and not (piece.low_closed and piece.high_closed)):
            raise Undefined("an interval with nothing in it")
        last = found[-1] if found else None
        end = place(last.high) if last else None
        if last and (low < end or (low == end and (piece.low_closed or last.high_closed))):
            if high > end or (high == end and piece.high_closed):
                found[-1] = last._replace(high=piece.high, high_closed=piece.high_closed)
        else:
            found.append(piece)
    return tuple(found)
