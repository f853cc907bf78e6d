"""Whether an answer says the same as the gold answer, structure by structure."""

from fractions import Fraction

from r1jax.rewards.math.equality import evaluate, exact_value, proportional, same_value, symbols
from r1jax.rewards.math.evaluate import Undecided, Undefined, Work
from r1jax.rewards.math.nodes import Node, number
from r1jax.rewards.math.reading import as_region
from r1jax.rewards.math.regions import same_region
from r1jax.rewards.math.structures import (
    Bracket,
    Chain,
    Choice,
    Equation,
    Inequality,
    Items,
    Matrix,
    Numeral,
    Quantity,
    Ratio,
    Region,
    Scalar,
    Structure,
    Words,
)
from r1jax.rewards.math.units import DEGREE, PERCENT, conversion

HALF_TURN = Node("div", (Node("sym", ("pi",)), number("180")))
ROUNDED_DIGITS = 3  # decimals a gold needs before an exact answer may round to it


def same(gold: Structure, answer: Structure, work: Work) -> bool:
    """Whether two structures say the same; the gold decides what may be left out.

    Raises:
      TooBig: over the budget.
      Undecided: precision cannot tell.
    """
    work.spend(1)
    if gold == answer:
        return True
    if isinstance(gold, Chain):
        return any(same(value, answer, work) for value in gold.values)
    if isinstance(answer, Chain):
        return consistent(answer, work) and any(same(gold, value, work) for value in answer.values)
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        return same_equation(gold, answer, work)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return same_choice(gold, answer, work)
    if isinstance(gold, Region) or isinstance(answer, Region):
        regions = as_region(gold), as_region(answer)
        return None not in regions and same_region(*regions, work)
    if isinstance(gold, Items) or isinstance(answer, Items):
        return same_items(gold, answer, work)
    if isinstance(gold, Scalar | Quantity) and isinstance(answer, Scalar | Quantity):
        return same_quantity(gold, answer, work)
    match gold, answer:
        case Bracket(), Bracket():
            return same_bracket(gold, answer, work)
        case Matrix(), Matrix():
            return same_matrix(gold.rows, answer.rows, work)
        case Matrix() | Bracket(), Matrix() | Bracket():
            return same_matrix(rows_of(gold), rows_of(answer), work)
        case Numeral(), Numeral():
            return gold == answer
        case Words(), Words():
            return gold.text == answer.text
        case Ratio() | Scalar(), Ratio() | Scalar():
            return same_ratio(gold, answer, work)
        case Inequality(), Inequality():
            return same_inequality(gold, answer, work)
    return False


def consistent(chain: Chain, work: Work) -> bool:
    """Whether the forms in a chain are one value; behind an approximate sign, a decimal that rounds the first form."""
    first = chain.values[0]
    for value in chain.values[1:]:
        if same(first, value, work) or (not chain.exact and rounds(value, first, work, digits=1)):
            continue
        return False
    return True


def same_equation(gold: Structure, answer: Structure, work: Work) -> bool:
    """Equations agree in name and value, or are multiples of each other; a bare value may stand for a named one."""
    if not isinstance(answer, Equation):
        return gold.value is not None and same(gold.value, answer, work)
    if not isinstance(gold, Equation):
        return answer.value is not None and same(gold, answer.value, work)
    if gold.label and gold.label == answer.label:
        return same(gold.value, answer.value, work)
    if None in (gold.left, gold.right, answer.left, answer.right):
        return False
    left, right = (Node("add", (side.left, Node("neg", (side.right,)))) for side in (gold, answer))
    if len(symbols(left)) == 1 and gold.label and not answer.label:
        return False  # the equation that x = 5 solves, handed back unsolved
    return symbols(left) == symbols(right) and proportional(left, right, work, positive=False)


def same_choice(gold: Structure, answer: Structure, work: Work) -> bool:
    """Choices agree by their letters; an answer that is no choice is compared with what is behind the letter."""
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return gold.letter == answer.letter
    if isinstance(gold, Choice):
        return gold.rest is not None and same(gold.rest, answer, work)
    return answer.rest is not None and same(gold, answer.rest, work)


def same_items(gold: Structure, answer: Structure, work: Work) -> bool:
    """Lists and sets agree without order; named values may stand for a tuple, in the order in which they stand."""
    if not isinstance(gold, Items):
        if isinstance(gold, Bracket) and named(answer):
            return in_order(gold.items, answer.items, work)
        forms = answer.either and not answer.braces  # 1/2 or 0.5: one value in two forms
        return (len(answer.items) == 1 or forms) and all(same(gold, item, work) for item in answer.items)
    if not isinstance(answer, Items):
        if isinstance(answer, Bracket) and named(gold):
            return in_order(gold.items, answer.items, work)
        return len(gold.items) == 1 and same(gold.items[0], answer, work)
    if named(gold) and not named(answer):
        return in_order(gold.items, answer.items, work)
    if gold.braces or answer.braces:
        member = lambda g, a: isinstance(g, Items) == isinstance(a, Items) and same(g, a, work)  # {1} is not 1
        return all(any(member(g, a) for a in answer.items) for g in gold.items) and all(
            any(member(g, a) for g in gold.items) for a in answer.items
        )
    if len(gold.items) != len(answer.items):
        return False
    free = list(answer.items)
    for item in gold.items:
        match = next((place for place, other in enumerate(free) if same(item, other, work)), None)
        if match is None:
            return False
        del free[match]
    return True


def named(structure: Structure) -> bool:
    """Whether items are values of different names, as in x = 1, y = 2."""
    items = structure.items if isinstance(structure, Items) else ()
    labels = [item.label for item in items if isinstance(item, Equation)]
    return len(items) > 1 and len(labels) == len(items) == len(set(labels)) and None not in labels


def in_order(gold: tuple[Structure, ...], answer: tuple[Structure, ...], work: Work) -> bool:
    """Whether two lists agree one by one."""
    return len(gold) == len(answer) and all(same(g, a, work) for g, a in zip(gold, answer, strict=True))


def same_bracket(gold: Bracket, answer: Bracket, work: Work) -> bool:
    """Tuples and intervals agree in their brackets and in order; angle brackets are round ones."""
    kinds = [(b.left.replace("<<", "("), b.right.replace(">>", ")")) for b in (gold, answer)]
    return kinds[0] == kinds[1] and in_order(gold.items, answer.items, work)


def same_matrix(gold, answer, work: Work) -> bool:
    """Matrices agree entry by entry; a tuple may stand for a row or for a column."""
    if gold is None or answer is None:
        return False
    return len(gold) == len(answer) and all(
        len(row) == len(other) and all(same_value(g, a, work) for g, a in zip(row, other, strict=True))
        for row, other in zip(gold, answer, strict=True)
    )


def rows_of(structure: Matrix | Bracket) -> tuple[tuple[Node, ...], ...] | None:
    """The rows of a matrix or of a tuple, of tuples or numbers; a column counts as the tuple of its entries."""
    if isinstance(structure, Matrix):
        column = all(len(row) == 1 for row in structure.rows)
        return (tuple(row[0] for row in structure.rows),) if column else structure.rows
    rows = [item for item in structure.items if isinstance(item, Bracket)]
    if len(rows) == len(structure.items):
        found = [rows_of(row) for row in rows]
        return None if any(row is None or len(row) != 1 for row in found) else tuple(row[0] for row in found)
    if structure.left not in ("(", "<<") and structure.left != "[":
        return None
    return (tuple(i.node for i in structure.items),) if all(isinstance(i, Scalar) for i in structure.items) else None


def same_quantity(gold: Scalar | Quantity, answer: Scalar | Quantity, work: Work) -> bool:
    """Amounts agree in the gold's unit; a missing unit is the gold's, but a percentage is a hundredth either way."""
    left, right = gold.node, answer.node
    units = getattr(gold, "unit", None), getattr(answer, "unit", None)
    if units == (PERCENT, PERCENT) or units == (None, None):
        pass
    elif PERCENT in units:
        if None not in units:
            return False
        left, right = (Node("percent", (n,)) if u == PERCENT else n for n, u in zip((left, right), units, strict=True))
    elif None not in units:
        factor = conversion(*units)
        if factor is None:
            return False
        right = right if factor == 1 else Node("mul", (right, Node("num", (factor, str(factor)))))
    elif DEGREE in units:
        bare = right if units[0] == DEGREE else left
        if in_radians(bare):
            left, right = (
                Node("mul", (n, HALF_TURN)) if u == DEGREE else n for n, u in zip((left, right), units, strict=True)
            )
    return same_value(left, right, work) or rounds(Scalar(left), Scalar(right), work, digits=ROUNDED_DIGITS)


def in_radians(node: Node) -> bool:
    """Whether an expression has a pi or a degree sign in it."""
    if node == Node("sym", ("pi",)) or node.op == "degrees":
        return True
    return any(in_radians(arg) for arg in node.args if isinstance(arg, Node))


def rounds(decimal: Structure, exact: Structure, work: Work, *, digits: int) -> bool:
    """Whether a literal decimal with at least so many decimals is what an exact value rounds to.

    For `digits` of ROUNDED_DIGITS the exact value must be a fraction without a finite decimal, 1/3 for 0.333, and so
    simple that no other as simple rounds to it too: 0.323 is not 10/31.
    """
    if not isinstance(decimal, Scalar | Quantity) or not isinstance(exact, Scalar | Quantity):
        return False
    literal = decimal.node.args[0] if decimal.node.op == "neg" else decimal.node
    if literal.op != "num" or not isinstance(literal.args[1], str):
        return False
    decimals = len(literal.args[1].partition(".")[2])
    if not literal.args[1].replace(".", "", 1).isdigit() or decimals < digits or symbols(exact.node):
        return False
    try:
        value = exact_value(exact.node, work)
        target = exact_value(decimal.node, work)
        if value is None and digits < ROUNDED_DIGITS:
            found = evaluate(exact.node, work)
            value = None if hasattr(found, "imag") and found.imag else Fraction(str(found.real))
    except (Undefined, Undecided):
        return False
    if value is None or value == target:
        return False
    if digits >= ROUNDED_DIGITS:
        if exact.node.op == "num" or ends(value) or 2 * value.denominator**2 > 10**decimals:
            return False
    return abs(value - target) * 2 <= Fraction(1, 10**decimals)


def ends(value: Fraction) -> bool:
    """Whether a fraction has a finite decimal expansion."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def same_ratio(gold: Ratio | Scalar, answer: Ratio | Scalar, work: Work) -> bool:
    """Ratios agree up to a common factor, times of day exactly; a fraction may stand for a ratio of two numbers."""
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        if len(gold.parts) != len(answer.parts) or gold.suffix != answer.suffix:
            return False
        if all(same_value(g, a, work) for g, a in zip(gold.parts, answer.parts, strict=True)):
            return True
        if is_time(gold):
            return False
        pairs = zip(gold.parts, gold.parts[1:], answer.parts, answer.parts[1:], strict=False)
        return all(same_value(Node("mul", (a, d)), Node("mul", (b, c)), work) for a, b, c, d in pairs)
    ratio, scalar = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    if len(ratio.parts) != 2 or is_time(ratio) or ratio.suffix or scalar.node.op != "div":
        return False
    return same_value(Node("div", ratio.parts), scalar.node, work)


def is_time(ratio: Ratio) -> bool:
    """Whether a ratio may be a time of day: two digits below 60 behind the colons."""
    return all(text.isdigit() and len(text) == 2 and int(text) < 60 for text in ratio.texts[1:]) and (
        ratio.texts[0].isdigit() and int(ratio.texts[0]) < 25
    )


def same_inequality(gold: Inequality, answer: Inequality, work: Work) -> bool:
    """Inequalities agree if their differences do up to positive factors, in any order."""
    if len(gold.pairs) != len(answer.pairs):
        return False
    return all(
        any(strict == other and proportional(node, found, work, positive=True) for found, other in answer.pairs)
        for node, strict in gold.pairs
    )
