"""The common test `assert f(1, [2]) == 3`: arguments and expected value are literals, so no process is needed for it.

What the solution returns arrives as the JSON of `bridge`, and is compared with the expected value without being built:
the walk goes down the expected value, so no answer can make it long.
"""

import ast
import json
from typing import NamedTuple

from r1jax.rewards.code.bridge import NotData, Wire

NUMBERS = (bool, int, float, complex)

NOTHING = object()
"""Equals no literal."""


class LiteralTest(NamedTuple):
    """A call of the solution, as the line that asks for it, and the value that must come back."""

    request: bytes
    expected: object


class Undecided(Exception):
    """The answer is a kind of number or date that has to be built to be compared."""


def read_literal_test(tree: ast.Module, names: set[str]) -> LiteralTest | None:
    """The test in a syntax tree, or None where it has another form; `names` are those of the solution."""
    match tree.body:
        case [ast.Assert(ast.Compare(ast.Call(ast.Name(name), args, keywords), [ast.Eq()], [right]))] if name in names:
            pass
        case _:
            return None
    try:
        values = tuple(map(ast.literal_eval, args))
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
        wire = Wire(None, None, {}, may_give=lambda value: False)
        line = json.dumps(["request", "call_by_name", [name, wire.encode(values), wire.encode(named)]])
        return None if None in named else LiteralTest(line.encode(), ast.literal_eval(right))
    except (ValueError, TypeError, NotData, RecursionError, MemoryError):
        return None


def answer_equals(line: bytes, expected: object) -> bool:
    """Whether a line of the solution's side is an answer with this value.

    Raises:
      Undecided: the value is of a kind that equals literals but is not compared here.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, list) and len(answer) == 2 and answer[0] == "answer" and _equals(answer[1], expected)


def _equals(data: object, expected: object) -> bool:
    """Whether encoded data has a value that `==` the expected one, which is a literal."""
    if not isinstance(data, list):
        return not isinstance(data, dict) and data == expected
    kind, *items = data or [None]
    if kind in ("Decimal", "Fraction") and isinstance(expected, NUMBERS):
        raise Undecided
    if isinstance(expected, (list, tuple)):
        same = kind == type(expected).__name__ and len(items) == len(expected)
        return same and all(_equals(item, value) for item, value in zip(items, expected, strict=True))
    if isinstance(expected, dict):
        return kind == "dict" and _same_items(items, expected)
    if isinstance(expected, set):
        return kind in ("set", "frozenset") and _same_items([[item, None] for item in items], dict.fromkeys(expected))
    return _scalar(data) == expected


def _same_items(pairs: list, expected: dict) -> bool:
    """Whether pairs of encoded keys and values make up a dictionary."""
    if len(pairs) != len(expected) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return False
    rest = dict(expected)
    for key, value in pairs:
        key = _key(key)
        if key not in rest or not _equals(value, rest.pop(key)):
            return False
    return True


def _key(data: object) -> object:
    """The hashable value that data encodes, as far as a literal can hold such a one; else a value that equals none."""
    if isinstance(data, list) and data and data[0] == "tuple":
        return tuple(map(_key, data[1:]))
    return _scalar(data)


def _scalar(data: object) -> object:
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    match data:
        case ["int", str(digits)]:
            return _from_hex(digits, lambda text: int(text, 16))
        case ["complex", float(real), float(imaginary)]:
            return complex(real, imaginary)
        case ["bytes" | "bytearray", str(digits)]:
            return _from_hex(digits, bytes.fromhex)
        case ["Decimal" | "Fraction", *_]:
            raise Undecided
    return NOTHING


def _from_hex(digits: str, read) -> object:
    try:
        return read(digits)
    except ValueError:
        return NOTHING
