"""The constants and functions that expressions may use; `mp` is the mpmath context of a precision."""

import math
import zlib
from collections.abc import Callable

CONSTANTS = frozenset({"pi", "e", "i"})
FUNCTIONS = {
    "abs": lambda mp, x: abs(x),
    "sin": lambda mp, x: mp.sin(x),
    "cos": lambda mp, x: mp.cos(x),
    "tan": lambda mp, x: mp.tan(x),
    "sec": lambda mp, x: mp.sec(x),
    "csc": lambda mp, x: mp.csc(x),
    "cot": lambda mp, x: mp.cot(x),
    "sinh": lambda mp, x: mp.sinh(x),
    "cosh": lambda mp, x: mp.cosh(x),
    "tanh": lambda mp, x: mp.tanh(x),
    "sech": lambda mp, x: mp.sech(x),
    "csch": lambda mp, x: mp.csch(x),
    "coth": lambda mp, x: mp.coth(x),
    "exp": lambda mp, x: mp.exp(x),
    "ln": lambda mp, x: mp.ln(x),
    "floor": lambda mp, x: mp.floor(x),
    "ceil": lambda mp, x: mp.ceil(x),
    "log": lambda mp, x: mp.log10(x),
    "lg": lambda mp, x: mp.log10(x),
    "arcsin": lambda mp, x: mp.asin(x),
    "arccos": lambda mp, x: mp.acos(x),
    "arctan": lambda mp, x: mp.atan(x),
    "arccot": lambda mp, x: mp.acot(x),
    "arcsec": lambda mp, x: mp.asec(x),
    "arccsc": lambda mp, x: mp.acsc(x),
    "arsinh": lambda mp, x: mp.asinh(x),
    "arcosh": lambda mp, x: mp.acosh(x),
    "artanh": lambda mp, x: mp.atanh(x),
    "arcsinh": lambda mp, x: mp.asinh(x),
    "arccosh": lambda mp, x: mp.acosh(x),
    "arctanh": lambda mp, x: mp.atanh(x),
}
UNKNOWN = "unknown "
"""Before the name of a function that an answer speaks of without saying what it is, as in f(4 - x)."""


def named_function(name: str) -> Callable:
    """A function of (mp, x); for an unknown one, some function that obeys no law, so that f(2x) is not 2f(x)."""
    if not name.startswith(UNKNOWN):
        return FUNCTIONS[name]
    shift = 1 + zlib.crc32(name.encode()) / (1 << 32)
    return lambda mp, x: x * mp.sin(x + shift) + shift


def integer_root(value: int, degree: int) -> int | None:
    """The natural number whose power is `value`, by Newton's method from above; None where there is none."""
    if value < 2 or degree == 1:
        return value
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // degree)
        while (smaller := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
            root = smaller
    return root if root**degree == value else None
