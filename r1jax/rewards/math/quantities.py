"""Single values from tokens: expressions, quantities with units, numerals in a base, ratios, words."""

from fractions import Fraction

from r1jax.rewards.math.latex import Malformed, Token
from r1jax.rewards.math.nodes import Node, Parser, number
from r1jax.rewards.math.structures import Numeral, Quantity, Ratio, Scalar, Structure, Words
from r1jax.rewards.math.units import DEGREE, DOLLAR, NOT_UNITS, PERCENT, Unit, read_unit

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
NUMBER_WORDS = {word: value for value, word in enumerate(f"{ONES} eighteen nineteen".split())}
NUMBER_WORDS |= {w: 10 * v for v, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
BASE_WORDS = NUMBER_WORDS | {"hex": 16, "bin": 2, "oct": 8}
CURRENCIES = {"$": DOLLAR, "€": Unit((("euro", 1),)), "£": Unit((("sterling", 1),)), "¥": Unit((("yuan", 1),))}
CURRENCIES |= {"¢": Unit((("dollar", 1),), Fraction(1, 100))}
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_value(tokens: list[Token]) -> Structure:
    """A number, quantity, numeral, ratio, expression or text.

    Raises:
      Malformed: none of these.
    """
    if not tokens:
        raise Malformed("nothing there")
    numeral = read_numeral(tokens)
    if numeral is not None:
        return numeral
    if any(token.kind == "op" and token.text == ":" for token in tokens):
        return read_ratio(tokens)
    if tokens[0].kind == "word":
        return read_words(tokens)
    return read_quantity(tokens)


def read_numeral(tokens: list[Token]) -> Structure | None:
    """Digits with a base as their subscript, as 1011_2 or (A5)_{11}; None where the tokens are something else."""
    place = next((i for i, token in enumerate(tokens) if token.kind == "op" and token.text == "_"), None)
    if not place:
        return None
    base = [token.text for token in tokens[place + 1 :] if token.text not in ("{", "}")]
    sign = "-" if tokens[0].text == "-" else ""
    digits = [token for token in tokens[bool(sign) : place] if token.text not in ("(", ")", "{", "}")]
    literal = any(token.kind in ("num", "word") for token in digits) and all(
        t.kind in ("num", "word", "name") for t in digits
    )
    if len(base) != 1 or not literal:
        return None
    value = BASE_WORDS.get(base[0].lower(), int(base[0]) if base[0].isdigit() and len(base[0]) < 3 else 0)
    text = "".join(token.text for token in digits).upper()
    if not 2 <= value <= 36 or not all(digit in DIGITS[:value] for digit in text.replace(".", "", 1)):
        return None
    if value == 10:
        return Scalar(Node("neg", (number(text),)) if sign else number(text))
    return Numeral(sign + (text.lstrip("0") or "0"), value)


def read_ratio(tokens: list[Token]) -> Ratio:
    """Numbers separated by colons, with a.m. or p.m. behind them or without."""
    suffix, end = "", len(tokens)
    while end and (tokens[end - 1].kind == "word" or tokens[end - 1].text in (".", "AM", "PM", "a", "p", "m")):
        suffix = tokens[end - 1].text + suffix
        end -= 1
    suffix = suffix.replace(".", "").lower()
    if suffix not in ("", "am", "pm"):
        raise Malformed(f"a ratio with {suffix!r} behind it")
    parts = [[]]
    for token in tokens[:end]:
        if token.kind == "op" and token.text == ":":
            parts.append([])
        else:
            parts[-1].append(token)
    parsers = [Parser(part) for part in parts]
    nodes = tuple(parser.expression() for parser in parsers)
    if any(parser.place != len(parser.tokens) for parser in parsers):
        raise Malformed("a ratio of something that is no number")
    return Ratio(nodes, tuple("".join(token.text for token in part) for part in parts), suffix)


def read_words(tokens: list[Token]) -> Structure:
    """Text; where it begins with a number in words, the number and what is counted."""
    first = tokens[0].text.lower()
    value = sum(NUMBER_WORDS.get(part, -1000) for part in first.split("-"))
    if value >= 0 and (first.count("-") == 0 or value % 10):
        try:
            return read_quantity([Token("num", str(value)), *tokens[1:]])
        except Malformed:
            pass
    if any(
        token.kind in ("fun", "cmd") or (token.kind == "op" and token.text not in ".-'\",!?()&") for token in tokens
    ):
        raise Malformed("text with mathematics in it")
    if first in NOT_UNITS and any(token.kind == "num" for token in tokens):
        raise Malformed(f"{first!r} before a number")
    return Words(" ".join(token.text for token in tokens if token.kind != "op").casefold().replace(".", ""))


def read_quantity(tokens: list[Token]) -> Structure:
    """An expression, with a currency sign before it or a unit behind it, or without."""
    negative = tokens[0].text == "-" and len(tokens) > 1 and tokens[1].text in CURRENCIES
    tokens = tokens[negative:]
    currency = CURRENCIES.get(tokens[0].text) if tokens[0].kind == "op" else None
    if currency:
        tokens = tokens[1:]
    marked = trailing_mark(tokens)
    parser = Parser(tokens[:-1] if marked else tokens)
    node = parser.expression()
    if negative:
        node = Node("neg", (node,))
    tail = parser.tokens[parser.place :]
    if marked and tail:
        raise Malformed("something before a percent or degree sign")
    if marked and currency:
        raise Malformed("two units of one number")
    if not tail:
        unit = currency or marked
        return Quantity(node, unit) if unit else Scalar(node)
    return with_unit(node, tail, currency)


def trailing_mark(tokens: list[Token]) -> Unit | None:
    """The unit of a last % or degree sign, unless the expression before it is a sum or has such a sign too."""
    if len(tokens) < 2 or tokens[-1].kind != "op" or tokens[-1].text not in ("%", "deg", *CURRENCIES):
        return None
    inner = [token.text for token in tokens[1:-1] if token.kind == "op"]
    if tokens[-1].text in inner or (tokens[-1].text == "%" and {"+", "-"} & set(inner)):
        return None
    if any(token.kind == "fun" for token in tokens):
        return None
    return {"%": PERCENT, "deg": DEGREE, **CURRENCIES}[tokens[-1].text]


def with_unit(node: Node, tail: list[Token], currency: Unit | None) -> Structure:
    """The quantity of an expression and the unit words behind it."""
    words, place = [], 0
    while place < len(tail):
        token = tail[place]
        if token.kind == "word" or (token.kind == "name" and words):
            words.append(token.text)
        elif token.kind == "op" and token.text in ("/", "*", ".", "-") and words:
            words.append(token.text)
        elif token.kind == "op" and token.text == "^" and words:
            exponent = [t.text for t in tail[place + 1 :]]
            closed = exponent[:1] == ["{"] and "}" in exponent
            inner = exponent[1 : exponent.index("}")] if closed else exponent[:1]
            words.append("^" + "".join(inner))
            place += len(inner) + 2 * closed
        elif (
            token.kind == "op" and token.text == "deg" and place + 1 < len(tail) and tail[place + 1].text in ("C", "F")
        ):
            words.append("degrees " + tail[place + 1].text)
            place += 1
        elif token.kind == "op" and token.text in ("{", "}", "(", ")"):
            pass
        elif token.kind == "op" and token.text in ("%", "deg") and not words and place == len(tail) - 1:
            return Quantity(node, PERCENT if token.text == "%" else DEGREE)
        else:
            raise Malformed(f"unexpected {token.text!r} behind a number")
        place += 1
    read = read_unit(words)
    if read is None or not words:
        raise Malformed(f"{' '.join(words)!r} is no unit")
    count, unit = read
    if count != 1:  # 1.5 million is one number, not a product
        literal = node.op == "num"
        node = Node("num", (node.args[0] * count, "")) if literal else Node("mul", (node, number(str(count))))
    if currency:
        if unit not in (currency, Unit()) and words[0] not in ("/", "per", "each"):
            raise Malformed("a currency sign and another unit")
        rate = unit if words[0] in ("/", "per", "each") else Unit()
        unit = Unit((*currency.dimensions, *rate.dimensions), currency.scale * rate.scale, rate.nouns)
    return Scalar(node) if unit == Unit() else Quantity(node, unit)
