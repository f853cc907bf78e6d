"""Values of expressions: exact rationals where possible, else 60 or more digits, within a budget of work."""

import math
import threading
from collections.abc import Mapping
from fractions import Fraction

from r1jax.rewards.math.functions import CONSTANTS, integer_root, named_function
from r1jax.rewards.math.nodes import Node

MAX_BITS = 20_000  # of an exact numerator or denominator
MAX_MAGNITUDE = 1 << 40  # of log2 of a value
MAX_ANGLE_BITS = 200
MAX_GAMMA = 10**6
SCREEN_DIGITS, PROOF_DIGITS = 60, 250
TRUSTED = 0.8  # the share of the working digits below which a difference counts as zero


class TooBig(ValueError):
    """Over the budget of size or of work."""


class Undefined(ValueError):
    """No value: division by zero, a pole, the logarithm of zero."""


class Undecided(ValueError):
    """The working precision cannot tell."""


class Work:
    """What may still be spent on one judgement; every operation spends some, so that no text takes long."""

    def __init__(self, units: int = 30_000):
        self.left = units

    def spend(self, units: int) -> None:
        """Spend some.

        Raises:
          TooBig: nothing is left.
        """
        self.left -= units
        if self.left < 0:
            raise TooBig("takes too much work")


_LOCAL = threading.local()  # a context of mpmath has a precision of its own and must not be shared by threads


def context(digits: int):
    """This thread's mpmath context of a precision."""
    import mpmath

    contexts = _LOCAL.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


class Evaluation:
    """Evaluates nodes at one point and one precision; a value is a Fraction, or an mpf or mpc of `self.mp`."""

    def __init__(self, point: Mapping[str, Fraction], digits: int, work: Work):
        self.point, self.mp, self.work = point, context(digits), work
        self.tiny = self.mp.mpf(10) ** -int(digits * TRUSTED)
        self.cost = 1 if digits <= SCREEN_DIGITS else 3

    def value(self, node: Node):
        """The value of a node.

        Raises:
          TooBig: over the budget.
          Undefined: it has none.
          Undecided: precision is lost.
        """
        self.work.spend(self.cost)
        op, args = node
        match op:
            case "num":
                return args[0]
            case "sym":
                return self.symbol(args[0])
            case "fun":
                return self.function(args[0], self.value(args[1]))
        values = [self.value(arg) for arg in args]
        match op:
            case "neg":
                return -values[0]
            case "add" | "mixed":
                return self.total(values)
            case "mul":
                return self.product(values)
            case "div":
                return self.quotient(*values)
            case "pow":
                return self.power(*values)
            case "root":
                return self.root(*values)
            case "log":
                return self.quotient(self.function("ln", values[1]), self.function("ln", values[0]))
            case "degrees":
                return self.product([values[0], self.mp.pi / 180])
            case "percent":
                return values[0] / 100
            case "factorial":
                return self.factorial(values[0])
            case "binom":
                return self.binomial(*values)
        raise Undefined(f"unknown operation {op}")

    def symbol(self, name: str):
        if name in CONSTANTS:
            return {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.mpc(0, 1)}[name]
        if name == "infty":
            raise Undefined("infinity in an expression")
        return self.point[name]

    def real(self, value):
        """The value as an mpf or mpc of this precision."""
        return self.mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value

    def checked(self, value):
        """The value, if it keeps to the budget; a real one as mpf."""
        if isinstance(value, Fraction):
            bits = value.numerator.bit_length() + value.denominator.bit_length()
            self.work.spend(bits >> 11)
            if bits <= 2 * MAX_BITS:
                return value
            value = self.real(value)
        if isinstance(value, self.mp.mpc) and value.imag == 0:
            value = value.real
        if not self.mp.isfinite(value):
            raise Undefined("not finite")
        if value != 0 and abs(self.mp.mag(value)) > MAX_MAGNITUDE:
            raise TooBig("a value too large or too small")
        return value

    def total(self, values: list):
        result = values[0]
        for value in values[1:]:
            if isinstance(result, Fraction) and isinstance(value, Fraction):
                result = self.checked(result + value)
                continue
            left, right = self.real(result), self.real(value)
            if left != 0 and right != 0 and abs(self.mp.mag(left) - self.mp.mag(right)) > self.mp.prec:
                raise Undecided("a sum of terms too far apart in size")
            result = left + right
            if abs(result) <= self.tiny * max(abs(left), abs(right)):
                result = Fraction(0)
            result = self.checked(result)
        return result

    def product(self, values: list):
        result = values[0]
        for value in values[1:]:
            if isinstance(result, Fraction) and isinstance(value, Fraction):
                result = self.checked(result * value)
            elif result == 0 or value == 0:
                result = Fraction(0)
            else:
                result = self.checked(self.real(result) * self.real(value))
        return result

    def quotient(self, above, below):
        if below == 0:
            raise Undefined("division by zero")
        if isinstance(above, Fraction) and isinstance(below, Fraction):
            return self.checked(above / below)
        return self.checked(self.real(above) / self.real(below))

    def power(self, base, exponent):
        """base ** exponent; a negative real to a fraction with an odd denominator is real, as at school."""
        if base == 0:
            if isinstance(exponent, Fraction) and exponent > 0:
                return Fraction(0)
            raise Undefined("zero to such a power")
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            if isinstance(base, Fraction) and abs(base) == 1:
                return base if exponent.numerator % 2 else Fraction(1)
            magnitude = abs(exponent.numerator) * (abs(self.mp.mag(self.real(base))) + 1)
            if magnitude > MAX_MAGNITUDE:
                raise TooBig("a power too large")
            if isinstance(base, Fraction):
                bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent.numerator)
                self.work.spend(min(bits, MAX_BITS) >> 9)
                if bits <= MAX_BITS:
                    return base ** int(exponent)
            self.work.spend(5 * self.cost)
            return self.checked(self.real(base) ** exponent.numerator)
        if isinstance(exponent, Fraction) and isinstance(base, Fraction):
            if exponent.denominator <= 64 and abs(exponent.numerator) <= 1000:
                return self.power(self.root(base, Fraction(exponent.denominator)), Fraction(exponent.numerator))
        exponent = self.real(exponent)
        if abs(exponent) * (abs(self.mp.mag(self.real(base))) + 1) > MAX_MAGNITUDE:
            raise TooBig("a power too large")
        self.work.spend(10 * self.cost)
        return self.checked(self.mp.power(self.real(base), exponent))

    def root(self, value, degree):
        """The principal root; exact where it is rational, real for odd roots of negative numbers."""
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= 1000:
            return self.power(value, self.quotient(Fraction(1), degree))
        degree = int(degree)
        if value == 0:
            return Fraction(0)
        self.work.spend(5 * self.cost)
        if isinstance(value, Fraction):
            exact = (
                [None]
                if degree > 64
                else [integer_root(abs(part), degree) for part in (value.numerator, value.denominator)]
            )
            if None not in exact and (value > 0 or degree % 2):
                return Fraction(*exact) * (1 if value > 0 else -1)
        value = self.real(value)
        if degree % 2 and not isinstance(value, self.mp.mpc) and value < 0:
            return self.checked(-self.mp.root(-value, degree))
        return self.checked(self.mp.root(value, degree))

    def function(self, name: str, argument):
        """A named function of a value."""
        if isinstance(argument, Fraction) and name in ("abs", "floor", "ceil"):
            return Fraction({"abs": abs, "floor": math.floor, "ceil": math.ceil}[name](argument))
        value = self.real(argument)
        self.work.spend(15 * self.cost)
        if name == "exp" and abs(value) > MAX_MAGNITUDE:
            raise TooBig("an exponential too large")
        if value != 0 and self.mp.mag(value) > MAX_ANGLE_BITS and name not in ("ln", "log", "lg", "abs", "exp"):
            raise TooBig(f"{name} of a value too large")
        if value == 0 and name in ("ln", "log", "lg", "cot", "csc"):
            raise Undefined(f"{name} of zero")
        try:
            result = named_function(name)(self.mp, value)
        except (ZeroDivisionError, ValueError, TypeError) as error:
            raise Undefined(f"{name} has no value there") from error
        if abs(result) <= self.tiny and abs(value) > self.tiny:
            return Fraction(0)
        if name in ("tan", "cot", "sec", "csc") and abs(result) * self.tiny >= 1:
            raise Undefined(f"a pole of {name}")
        return self.checked(result)

    def factorial(self, value):
        if isinstance(value, Fraction) and value.denominator == 1:
            if value < 0:
                raise Undefined("factorial of a negative number")
            if value <= 1500:
                self.work.spend(int(value) >> 4)
                return self.checked(Fraction(math.factorial(int(value))))
        if abs(value) > MAX_GAMMA:
            raise TooBig("a factorial too large")
        self.work.spend(60 * self.cost)
        return self.checked(self.mp.gamma(self.real(value) + 1))

    def binomial(self, above, below):
        whole = all(isinstance(value, Fraction) and value.denominator == 1 for value in (above, below))
        if whole and 0 <= below <= above <= 1500:
            return self.checked(Fraction(math.comb(int(above), int(below))))
        if max(abs(above), abs(below)) > MAX_GAMMA:
            raise TooBig("a binomial too large")
        self.work.spend(150 * self.cost)
        return self.checked(self.mp.binomial(self.real(above), self.real(below)))
