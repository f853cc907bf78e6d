"""Whether two expressions have the same value, for every value of their symbols."""

import hashlib
from fractions import Fraction

from r1jax.rewards.math.evaluate import (
    PROOF_DIGITS,
    SCREEN_DIGITS,
    Evaluation,
    TooBig,
    Undecided,
    Undefined,
    Work,
    context,
)
from r1jax.rewards.math.functions import CONSTANTS
from r1jax.rewards.math.nodes import Node

CLEARLY_DIFFERENT = 15  # digits; values that differ within them need no second look at more digits
POSITIVE_POINTS, SIGNED_POINTS = 3, 4
KINKS = ("'abs'", "'floor'", "'ceil'", "'root'")
"""Operations after which agreement near zero does not mean agreement everywhere."""


def symbols(node: Node) -> set[str]:
    """The free symbols of an expression: those that are neither constants nor infinity."""
    found, stack = set(), [node]
    while stack:
        op, args = stack.pop()
        if op == "sym":
            found.add(args[0])
        stack += [arg for arg in args if isinstance(arg, Node)]
    return found - CONSTANTS - {"infty"}


def evaluate(node: Node, work: Work, point: dict = {}, digits: int = SCREEN_DIGITS):  # noqa: B006
    """The value of an expression at a point: a Fraction where it is exact, else an mpf or mpc.

    Raises:
      TooBig: over the budget.
      Undefined: no value there.
      Undecided: precision is lost.
    """
    return Evaluation(point, digits, work).value(node)


def exact_value(node: Node, work: Work) -> Fraction | None:
    """The rational value of an expression without symbols, if it is rational by arithmetic alone."""
    if symbols(node):
        return None
    value = evaluate(node, work)
    return value if isinstance(value, Fraction) else None


def close(left, right, digits: float) -> bool:
    """Whether two values agree to a number of significant digits; two exact values only if they are equal."""
    if left == right:
        return True
    if isinstance(left, Fraction) and isinstance(right, Fraction) or left == 0 or right == 0:
        return False
    mp = context(PROOF_DIGITS)
    left, right = (
        mp.mpf(v.numerator) / v.denominator if isinstance(v, Fraction) else mp.convert(v) for v in (left, right)
    )
    return abs(left - right) <= mp.mpf(10) ** -int(digits) * max(abs(left), abs(right))


def agree_at(left: Node, right: Node, point: dict, work: Work, *, real_only: bool, prove: bool) -> bool | None:
    """Whether two expressions agree at a point; None where one of them has no (real) value there."""
    try:
        values = [evaluate(node, work, point) for node in (left, right)]
        if real_only and any(hasattr(value, "imag") and value.imag != 0 for value in values):
            return None
        if isinstance(values[0], Fraction) and isinstance(values[1], Fraction):
            return values[0] == values[1]
        if not close(*values, CLEARLY_DIFFERENT):
            return False
        if not prove:
            return close(*values, SCREEN_DIGITS * 0.6)
        values = [evaluate(node, work, point, PROOF_DIGITS) for node in (left, right)]
        return close(*values, PROOF_DIGITS * 0.6)
    except Undefined:
        return None


def points(left: Node, right: Node) -> list[dict[str, Fraction]]:
    """Rational points for the symbols of two expressions, first positive ones, then ones of either sign.

    They follow from the expressions themselves, so that nobody can write an expression which is right at known points.
    """
    names = sorted(symbols(left) | symbols(right))
    if not names:
        return [{}]
    seed = repr((left, right)).encode()
    found = []
    for place in range(POSITIVE_POINTS + SIGNED_POINTS):
        point = {}
        for name in names:
            draw = hashlib.blake2b(f"{place} {name} ".encode() + seed, digest_size=8).digest()
            sign = -1 if place >= POSITIVE_POINTS and draw[0] % 2 else 1
            point[name] = sign * Fraction(97 + int.from_bytes(draw[1:]) % 99991, 33331)
        found.append(point)
    if len(names) == 1:  # at least one point to the left of zero
        found[-1] = {names[0]: -abs(found[-1][names[0]])}
    return found


def far_points(left: Node, right: Node) -> list[dict[str, Fraction]]:
    """A point far to the right of zero and one far to the left, for expressions with kinks: |x - 10| is not 10 - x."""
    written, near = repr((left, right)), points(left, right)[0]
    if not near or not any(kink in written for kink in KINKS):
        return []
    return [{name: sign * (20 + 40 * value) for name, value in near.items()} for sign in (1, -1)]


def same_value(left: Node, right: Node, work: Work) -> bool:
    """Whether two expressions are equal: as numbers, or as functions of their symbols.

    Without symbols the values are compared exactly if both are rational, else at 60 and then at 250 digits. With
    symbols they are compared at random points: at positive ones with complex values allowed, at signed ones only where
    both are real, so that the square root of x squared is |x| and not x; where there are kinks, also far from zero.

    Raises:
      TooBig: over the budget.
      Undecided: precision is lost, or no point where both are defined.
    """
    if left == right:
        return True
    judged = 0
    for place, point in enumerate(points(left, right)):
        agree = agree_at(left, right, point, work, real_only=place >= POSITIVE_POINTS, prove=place == 0)
        if agree is False:
            return False
        judged += agree is not None
    if not judged:
        raise Undecided("no point where both are defined")
    for point in far_points(left, right):
        try:
            if agree_at(left, right, point, work, real_only=True, prove=False) is False:
                return False
        except (TooBig, Undecided):  # too far out
            work.spend(0)  # raises again if it is the work that was too much
    return True


def proportional(left: Node, right: Node, work: Work, *, positive: bool) -> bool:
    """Whether two expressions differ only by a constant factor that is not zero (and positive, if asked).

    Then the equations left = 0 and right = 0, or the inequalities left > 0 and right > 0, say the same.
    """
    if left == right:
        return True
    ratio = None
    for point in points(left, right):
        try:
            above, below = evaluate(left, work, point), evaluate(right, work, point)
        except Undefined:
            continue
        if above == 0 or below == 0:
            if above == below:
                continue
            return False
        value = above / below if isinstance(above, Fraction) and isinstance(below, Fraction) else None
        if value is None:
            mp = context(SCREEN_DIGITS)
            above, below = (
                mp.mpf(v.numerator) / v.denominator if isinstance(v, Fraction) else v for v in (above, below)
            )
            value = above / below
        if ratio is not None and not close(ratio, value, SCREEN_DIGITS * 0.6):
            return False
        ratio = value
    return ratio is not None and not (positive and not (getattr(ratio, "imag", 0) == 0 and ratio > 0))
