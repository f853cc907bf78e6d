"""Structures from tokens: lists, sets, tuples, matrices, and the single values in them."""

from r1jax.rewards.math.latex import Malformed, Token, group_digits, tokenize
from r1jax.rewards.math.matrices import read_matrix
from r1jax.rewards.math.nodes import MAX_DEPTH
from r1jax.rewards.math.phrases import OPENING, closes_at_end, split, trim
from r1jax.rewards.math.quantities import read_value
from r1jax.rewards.math.relations import RELATIONS, intersection, read_relation, union, without_points
from r1jax.rewards.math.structures import (
    EMPTY,
    REALS,
    Bracket,
    Choice,
    Equation,
    Items,
    Region,
    Scalar,
    Structure,
)

EMPTY_NAMES = {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set"}
REAL_NAMES = {"all real numbers", "all reals", "real numbers", "the set of all real numbers", "the real numbers"}
MAX_ITEMS = 200


def read_structure(text: str, *, plain_commas: bool = True) -> Structure:
    """What an answer says.

    Args:
      text: the answer, in LaTeX or plain text.
      plain_commas: whether 1,234 outside brackets is one number rather than a list.

    Raises:
      Malformed: it is no answer in any notation read here.
      Unsupported: it has notation that only the symbolic tier reads.
    """
    tokens = group_digits(tokenize(text), plain_commas=plain_commas)
    try:
        return read(tokens, 0)
    except RecursionError as error:
        raise Malformed("nested too deep") from error


def read(tokens: list[Token], depth: int) -> Structure:
    """The structure of tokens: a choice, a list, or one item."""
    tokens = trim(tokens)
    if not tokens:
        raise Malformed("nothing there")
    if depth > MAX_DEPTH:
        raise Malformed("nested too deep")
    phrase = " ".join(token.text for token in tokens).lower()
    if phrase in EMPTY_NAMES:
        return EMPTY
    if phrase in REAL_NAMES:
        return REALS
    choice = read_choice(tokens, depth)
    if choice is not None:
        return choice
    parts, marks = split(tokens, {",", ";", "or", "and"})
    if not marks:
        return read_item(tokens, depth)
    if len(parts) > MAX_ITEMS:
        raise Malformed(f"more than {MAX_ITEMS} items")
    return read_list(parts, marks, depth)


def read_list(parts: list[list[Token]], marks: list[str], depth: int) -> Structure:
    """Several items; regions joined by `or` are one region, and by `and` their intersection."""
    kept = []
    for place, part in enumerate(parts):
        if part:
            kept.append(part)
        elif not {"or", "and"} & set(marks[max(0, place - 1) : place + 1]):  # only `, and` leaves a gap
            raise Malformed("an empty item")
    if not kept:
        raise Malformed("nothing there")
    items = [read_item(part, depth) for part in kept]
    label = items[0].label if isinstance(items[0], Equation) else None
    if all(isinstance(item, Region) for item in items) and {"or", "and"} & set(marks):
        if "and" not in marks:
            return union(items)
        if "or" not in marks:
            return intersection(items)
    flat = []
    for item in items:
        if label and not isinstance(item, Equation):
            item = Equation(None, None, label, item)  # x = 1, 2
        flat += item.items if isinstance(item, Items) and not item.braces else [item]
    return Items(tuple(flat), either="or" in marks)


def read_choice(tokens: list[Token], depth: int) -> Choice | None:
    """A letter of a multiple choice: B, (B), B), B. 12, (B) 12; None where the tokens are something else."""
    bracketed = tokens[0].text == "(" and tokens[0].kind == "op" and len(tokens) > 2 and tokens[2].text == ")"
    letter, after = (tokens[1], 3) if bracketed else (tokens[0], 1)
    if letter.kind not in ("name", "word") or len(letter.text) != 1 or not letter.text.isascii():
        return None
    if not letter.text.isupper() and (not bracketed or letter.kind == "name"):
        return None
    rest = tokens[after:]
    if not bracketed and rest:
        if rest[0].kind != "op" or rest[0].text not in (")", ".", ":"):
            return None
        rest = rest[1:]
    if not rest:
        return Choice(letter.text.upper())
    if bracketed and (
        rest[0].kind == "op" and rest[0].text not in (r"\{", "$", ".", ":", "-", "(") or not rest[0].spaced
    ):
        if not (rest[0].kind == "num" or rest[0].text in (".", ":")):
            return None
    if bracketed and rest[0].text == "-":
        return None
    return Choice(letter.text.upper(), read(rest, depth + 1))


def read_item(tokens: list[Token], depth: int) -> Structure:
    """One item of a list: a relation or a value; with a plus-minus sign, both values."""
    tokens = trim(tokens)
    signed = any(token.kind == "op" and token.text in ("+-", "-+") for token in tokens)
    if signed and tokens[0].text != r"\{":
        both = []
        for signs in ({"+-": "+", "-+": "-"}, {"+-": "-", "-+": "+"}):
            replaced = [t._replace(text=signs.get(t.text, t.text)) if t.kind == "op" else t for t in tokens]
            both.append(read_item(replaced, depth))
        return Items(tuple(both))
    if (
        len(tokens) == 1
        and tokens[0].kind in ("name", "word")
        and len(tokens[0].text) == 1
        and tokens[0].text.isupper()
    ):
        return Choice(tokens[0].text)
    sides, relations = split(tokens, RELATIONS)
    if relations:
        return read_relation(sides, relations, lambda part: read_single(part, depth))
    return read_single(tokens, depth)


def read_single(tokens: list[Token], depth: int) -> Structure:
    """One value: a set, a tuple or interval, a union, a matrix, a quantity or an expression."""
    tokens = trim(tokens)
    if not tokens:
        raise Malformed("nothing there")
    if depth > MAX_DEPTH:
        raise Malformed("nested too deep")
    if len(tokens) == 1 and tokens[0].kind == "name" and tokens[0].text in ("emptyset", "mathbb R"):
        return EMPTY if tokens[0].text == "emptyset" else REALS
    parts, marks = split(tokens, {"cup", "cap", "setminus"})
    if marks:
        return read_union(parts, marks, depth)
    if any(token.text.startswith(r"\begin{") for token in tokens) and tokens[0].text not in OPENING:
        return read_matrix(tokens)
    if tokens[0].kind == "op" and tokens[0].text in OPENING and closes_at_end(tokens):
        bracket = read_bracket(tokens, depth)
        if bracket is not None:
            return bracket
    if tokens[0].text == r"\{" and len(tokens) == 2 and tokens[1].text == r"\}":
        return EMPTY
    return read_value(tokens)


def read_bracket(tokens: list[Token], depth: int) -> Structure | None:
    """What a pair of brackets holds; None where they only group an expression."""
    left, inside, right = tokens[0].text, tokens[1:-1], tokens[-1].text
    if left == "{":  # braces of LaTeX, which nobody sees
        inner = read(inside, depth + 1)
        return None if isinstance(inner, Scalar) else inner
    parts, marks = split(inside, {",", ";"})
    if left == r"\{":
        if not inside:
            return EMPTY
        condition = split(inside, {"|", ":"})[0]
        if len(condition) == 2 and split(condition[1], RELATIONS)[1]:
            return read_item(condition[1], depth + 1)
        items = read_list(parts, marks, depth + 1) if marks else Items((read_item(inside, depth + 1),))
        return Items(items.items, braces=True) if isinstance(items, Items) else None
    if marks:
        if len(parts) > MAX_ITEMS or not all(parts):
            raise Malformed("too many or empty items in brackets")
        return Bracket(left, tuple(read_item(part, depth + 1) for part in parts), right)
    if (left, right) in (("(", ")"), ("[", "]")):
        inner = read(inside, depth + 1)
        return None if isinstance(inner, Scalar) else inner
    return None


def as_region(structure: Structure) -> Region | None:
    """A structure as a union of intervals, if it can be one."""
    if isinstance(structure, Region):
        return structure
    if isinstance(structure, Equation) and structure.label and isinstance(structure.value, Bracket | Region):
        region = as_region(structure.value)
        return region and Region(region.pieces, structure.label)
    if isinstance(structure, Items) and structure.either:
        regions = [as_region(item) for item in structure.items]
        return None if None in regions else union(regions)
    if not isinstance(structure, Bracket) or structure.left not in "([" or structure.right not in ")]":
        return None
    if len(structure.items) != 2 or not all(isinstance(item, Scalar) for item in structure.items):
        return None
    low, high = structure.items
    return union([(low.node, structure.left == "[", high.node, structure.right == "]")])


def read_union(parts: list[list[Token]], marks: list[str], depth: int) -> Structure:
    """A union of intervals and sets of points, or all numbers but a few."""
    values = [read_single(part, depth + 1) for part in parts]
    if marks == ["setminus"] and values[0] == REALS and isinstance(values[1], Items):
        return without_points([item.node for item in values[1].items if isinstance(item, Scalar)])
    if set(marks) != {"cup"}:
        raise Malformed("an intersection or difference of sets")
    if all(isinstance(value, Items) and value.braces for value in values):
        return Items(tuple(item for value in values for item in value.items), braces=True)
    pieces = []
    for value in values:
        region = as_region(value)
        if region is None and isinstance(value, Items) and all(isinstance(item, Scalar) for item in value.items):
            pieces += [(item.node, True, item.node, True) for item in value.items]
        elif region is None:
            raise Malformed("a union of something that is no set of numbers")
        else:
            pieces += region.pieces
    return union(pieces)
