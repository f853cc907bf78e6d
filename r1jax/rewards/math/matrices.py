"""Matrices from tokens."""

from r1jax.rewards.math.latex import Malformed, Token
from r1jax.rewards.math.nodes import Node, Parser
from r1jax.rewards.math.phrases import split, trim
from r1jax.rewards.math.quantities import read_value
from r1jax.rewards.math.structures import Matrix, Scalar

MATRICES = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"}


def read_matrix(tokens: list[Token]) -> Matrix:
    """A matrix, with a factor before it or without."""
    start = next(place for place, token in enumerate(tokens) if token.text.startswith(r"\begin{"))
    name = tokens[start].text[7:-1]
    if name not in MATRICES or tokens[-1].text != rf"\end{{{name}}}":
        raise Malformed("an environment that is no matrix")
    factor = None
    if start:
        parser = Parser(tokens[:start])
        factor = parser.term()
        if parser.place != start:
            raise Malformed("something before a matrix that is no factor")
    body = tokens[start + 1 : -1]
    if name == "array" and body and body[0].text == "{":
        body = body[[token.text for token in body].index("}") + 1 :] if any(t.text == "}" for t in body) else body
    rows = [row for row in split(body, {r"\\"})[0] if row]
    cells = [[read_cell(cell, factor) for cell in split(row, {"&"})[0]] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        raise Malformed("a matrix whose rows differ in length")
    return Matrix(tuple(map(tuple, cells)))


def read_cell(tokens: list[Token], factor: Node | None) -> Node:
    """An entry of a matrix, times the factor before the matrix."""
    value = read_value(trim(tokens)) if tokens else None
    if not isinstance(value, Scalar):
        raise Malformed("an entry of a matrix that is no number")
    return value.node if factor is None else Node("mul", (factor, value.node))
