"""Arithmetic on text: a parser for + - * / and parentheses over exact fractions. Nothing is ever passed to eval."""

import re
from fractions import Fraction

MAX_LENGTH = 200
MAX_DEPTH = 20
_TOKEN = re.compile(r"\s*(?:([0-9]{1,9})(?![0-9])|([-+*/()]))")


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression, and the numbers in it from left to right.

    The grammar is `sum = product (('+'|'-') product)*`, `product = atom (('*'|'/') atom)*`,
    `atom = digits | '(' sum ')'`. There is no unary minus and no power.

    Raises:
      ValueError: not such an expression, a division by zero, or more than MAX_LENGTH characters, MAX_DEPTH nested
        parentheses or 9 digits a number.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    parser = _Parser(_tokenize(text))
    value = parser.sum(0)
    if parser.peek() is not None:
        raise ValueError(f"unexpected {parser.peek()!r}")
    return value, parser.numbers


def _tokenize(text: str) -> list[str]:
    tokens, place, text = [], 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise ValueError(f"unexpected {text[place : place + 12]!r}")
        tokens.append(match[1] or match[2])
        place = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.place = 0
        self.numbers: list[int] = []

    def peek(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self) -> str | None:
        token = self.peek()
        self.place += 1
        return token

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            value = value + self.product(depth) if self.take() == "+" else value - self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.atom(depth)
        while self.peek() in ("*", "/"):
            divide, other = self.take() == "/", self.atom(depth)
            if divide and other == 0:
                raise ValueError("division by zero")
            value = value / other if divide else value * other
        return value

    def atom(self, depth: int) -> Fraction:
        token = self.take()
        if token == "(":
            if depth >= MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} nested parentheses")
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise ValueError("missing ')'")
            return value
        if token is None or not token[0].isdigit():
            raise ValueError(f"expected a number, found {token!r}")
        self.numbers.append(int(token))
        return Fraction(int(token))
