"""Expression trees: a recursive-descent parser of scalar expressions with bounded depth."""

from fractions import Fraction
from typing import NamedTuple

from r1jax.rewards.math.functions import UNKNOWN
from r1jax.rewards.math.latex import Malformed, Token

MAX_DEPTH = 30
MAX_DIVISIONS = 4  # in one term; with the depth, this bounds the depth of the tree
MAX_DIGITS = 1000
MAX_EXPONENT = 2000  # of a number in scientific notation

CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "floor(": "floor)", "ceil(": "ceil)"}
INVERSES = {name: "arc" + name for name in ("sin", "cos", "tan")}
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}


class Node(NamedTuple):
    """One operation on nodes; "num" holds (value, text), "sym" holds (name,)."""

    op: str
    args: tuple


def number(text: str) -> Node:
    """The exact value of a decimal, of scientific notation, or of a repeating decimal (`0.1r6r`)."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or (exponent and abs(int(exponent[:9])) > MAX_EXPONENT):
        raise Malformed("a number with too many digits")
    if "r" in mantissa:
        whole, _, tail = mantissa.partition(".")
        fixed, _, period = tail.replace("rr", "r").strip("r").partition("r")
        if not period:
            fixed, period = "", fixed
        scale = 10 ** len(fixed)
        value = Fraction(int(whole + fixed or "0"), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))
        return Node("num", (value, text))
    return Node("num", (Fraction(mantissa) * Fraction(10) ** int(exponent or "0"), text))


def repeated(text: str) -> str:
    """A decimal before an ellipsis, 0.1666..., as a repeating decimal.

    Raises:
      Malformed: its digits do not repeat: one digit three times, or several twice.
    """
    whole, _, tail = text.partition(".")
    for width in range(1, min(len(tail) // 2, 12) + 1):
        times = 3 if width == 1 else 2
        if len(tail) >= width * times and tail.endswith(tail[-width:] * times):
            return f"{whole}.{tail[: -width * times]}r{tail[-width:]}r"
    raise Malformed("an ellipsis behind digits that do not repeat")


def is_integer(node: Node) -> bool:
    """Whether a node is a literal natural number."""
    return node.op == "num" and node.args[1].isdigit()


def is_proper_fraction(node: Node) -> bool:
    """Whether a node is a literal fraction such as 2/3, as in a mixed number."""
    return node.op == "div" and all(map(is_integer, node.args)) and 0 < node.args[0].args[0] < node.args[1].args[0]


def product(factors: list[Node]) -> Node:
    """The product of one or more factors."""
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


class Parser:
    """Reads an expression from tokens; `place` is the next token, where `expression` stopped."""

    def __init__(self, tokens: list[Token]):
        self.tokens, self.place, self.depth, self.bars = list(tokens), 0, 0, 0

    def peek(self, offset: int = 0) -> Token:
        place = self.place + offset
        return self.tokens[place] if place < len(self.tokens) else Token("op", "")

    def take(self) -> Token:
        token = self.peek()
        self.place += 1
        return token

    def takes(self, *texts: str) -> bool:
        """Whether the next token is an operator among `texts`, which is then consumed."""
        found = self.peek().kind == "op" and self.peek().text in texts
        self.place += found
        return found

    def expression(self) -> Node:
        """A sum of terms, or what TeX puts two of them over each other with."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Malformed("nested too deep")
        terms = [self.signed(self.term)]
        while self.peek().kind == "op" and self.peek().text in ("+", "-"):
            terms.append(self.signed(self.term))
        node = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
        for mark, op in (("over", "div"), ("choose", "binom")):  # {n \choose k}
            node = Node(op, (node, self.expression())) if self.takes(mark) else node
        self.depth -= 1
        return node

    def signed(self, operand) -> Node:
        """An operand after any number of signs."""
        negative = False
        while self.peek().kind == "op" and self.peek().text in ("+", "-"):
            negative ^= self.take().text == "-"
        node = operand()
        return Node("neg", (node,)) if negative else node

    def term(self) -> Node:
        """A product or quotient, read from the left; 2\\frac{1}{3} and `2 1/3` are mixed numbers."""
        factors, divisions = [self.power()], 0
        while True:
            if self.takes("*"):
                factors.append(self.signed(self.power))
            elif self.takes("/"):
                divisions += 1
                if divisions > MAX_DIVISIONS:
                    raise Malformed("too many divisions in a row")
                factors = [Node("div", (product(factors), self.signed(self.power)))]
            elif self.starts_factor():
                factors[-1:] = self.implicit(factors[-1])
            else:
                return product(factors)

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind == "op":
            if token.text == "(" and self.peek(1).kind == "word":  # 120 (ways)
                return False
            return token.text in ("(", "[", "{", "floor(", "ceil(") or (token.text == "|" and not self.bars)
        return token.kind in ("num", "name", "fun", "cmd")

    def implicit(self, left: Node) -> list[Node]:
        """A factor and the one written beside it, as one mixed number or as two factors."""
        before, token = self.peek(-1), self.peek()
        if token.kind == "num":
            if before.kind == "num" and token.spaced and self.peek(1).text == "/" and self.peek(2).kind == "num":
                fraction = Node("div", (number(self.take().text), number(self.tokens[self.place + 1].text)))
                self.place += 2
                if is_integer(left) and is_proper_fraction(fraction):
                    return [Node("mixed", (left, fraction))]
            raise Malformed("two numbers side by side")
        right = self.power()
        if before.kind == "num" and is_integer(left) and is_proper_fraction(right) and token.kind == "cmd":
            return [Node("mixed", (left, right))]
        return [left, right]

    def power(self) -> Node:
        """An atom with postfix operators and exponent."""
        node = self.postfix(self.atom())
        if self.takes("^") or (
            self.peek().text == "*" and self.peek(1) == Token("op", "*") and self.takes("*") + self.takes("*")
        ):
            node = self.postfix(Node("pow", (node, self.argument(whole=True))))
            if self.peek().text == "^":
                raise Malformed("two exponents")
        return node

    def postfix(self, node: Node) -> Node:
        if self.peek().text == "!" and self.peek(1).text == "!":
            raise Malformed("a double factorial")
        if self.peek().kind == "op" and self.peek().text in ("!", "deg", "%"):
            node = Node({"!": "factorial", "deg": "degrees", "%": "percent"}[self.take().text], (node,))
        return node

    def argument(self, *, whole: bool) -> Node:
        """What follows a command or a ^: a group, or one symbol; a number whole, or its first digit as TeX has it."""
        if self.depth > MAX_DEPTH:
            raise Malformed("nested too deep")
        token = self.peek()
        if token.kind == "num" and not whole and len(token.text) > 1:
            if not token.text.isdigit():
                raise Malformed("a decimal as the argument of a command")
            self.tokens[self.place] = Token("num", token.text[1:])
            return number(token.text[0])
        self.depth += 1
        node = self.signed(self.power if whole and token.text in ("-", "+") else self.atom)
        if whole and self.takes("^"):
            node = Node("pow", (node, self.argument(whole=True)))
        self.depth -= 1
        return node

    def atom(self) -> Node:
        """A number, symbol, command, function or bracketed expression."""
        token = self.take()
        if token.kind == "num":
            return number(repeated(token.text) if self.takes("...") else token.text)
        if token.kind == "name":
            return self.symbol(token.text)
        if token.kind == "cmd":
            return self.command(token.text)
        if token.kind == "fun":
            return self.function(token.text)
        if token.kind == "op" and token.text in ("(", "[", "{", "floor(", "ceil("):
            bars, self.bars = self.bars, 0
            node = self.expression()
            self.bars = bars
            if not self.takes(CLOSING[token.text]):
                raise Malformed(f"expected {CLOSING[token.text]!r}, found {self.peek().text!r}")
            return node if len(token.text) == 1 else Node("fun", (token.text[:-1], node))
        if token == Token("op", "|", token.spaced):
            self.bars += 1
            node = self.expression()
            self.bars -= 1
            if not self.takes("|"):
                raise Malformed("expected '|'")
            return Node("fun", ("abs", node))
        raise Malformed(f"unexpected {token.text or 'end'!r}")

    def symbol(self, name: str) -> Node:
        """A symbol with its subscript and primes; \\angle and \\triangle take the name after them."""
        if name in ("angle", "triangle") and self.peek().kind == "name":
            name = f"{name} {self.take().text}"
        if name == "emptyset":
            raise Malformed("the empty set in an expression")
        while self.takes("'"):
            name += "'"
        if self.takes("_"):
            name += "_" + self.subscript()
        if name.rstrip("'") == "f" and self.peek().kind == "op" and self.peek().text == "(":
            return Node("fun", (UNKNOWN + name, self.atom()))
        return Node("sym", (name,))

    def subscript(self) -> str:
        if not self.takes("{"):
            return self.take().text
        parts = []
        while not self.takes("}"):
            if self.peek().text in ("", "{"):
                raise Malformed("a subscript that never ends")
            parts.append(self.take().text)
        return "".join(parts)

    def command(self, name: str) -> Node:
        if name == "frac":
            return Node("div", (self.argument(whole=False), self.argument(whole=False)))
        if name == "binom":
            return Node("binom", (self.argument(whole=False), self.argument(whole=False)))
        if name == "sqrt":
            degree = Node("num", (Fraction(2), "2"))
            if self.takes("["):
                degree = self.expression()
                if not self.takes("]"):
                    raise Malformed("expected ']'")
            return Node("root", (self.argument(whole=True), degree))
        names = []
        braced = self.takes("{")
        while self.peek().kind == "name" and (braced or not names):
            names.append(self.take().text)
        if not names or (braced and not self.takes("}")):
            raise Malformed(f"\\{name} of something that is no name")
        return Node("sym", (f"{name} {''.join(names)}",))

    def function(self, name: str) -> Node:
        """A named function: the brackets after it, or else the product that follows it, are its argument."""
        name, base, exponent = ALIASES.get(name, name), None, None
        if name == "log" and self.takes("_"):
            base = self.argument(whole=True)
        if self.takes("^"):
            exponent = self.argument(whole=True)
            if name in INVERSES and exponent == Node("neg", (number("1"),)):
                name, exponent = INVERSES[name], None
        argument = self.function_argument()
        if name == "sqrt":
            node = Node("root", (argument, number("2")))
        elif name == "cbrt":
            node = Node("root", (argument, number("3")))
        elif base is not None:
            node = Node("log", (base, argument))
        else:
            node = Node("fun", (name, argument))
        return node if exponent is None else Node("pow", (node, exponent))

    def function_argument(self) -> Node:
        if self.peek().text in ("(", "[", "{") and self.peek().kind == "op":
            return self.power()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Malformed("nested too deep")
        factors = [self.signed(self.power)]
        while self.starts_factor() and self.peek().kind != "fun" and self.peek().text not in ("(", "["):
            factors[-1:] = self.implicit(factors[-1])
        node = product(factors)
        if self.peek().text == "/" and self.peek(-1).kind == "name" and self.peek(1).kind == "num":
            self.place += 1  # \cos \pi/3
            node = Node("div", (node, self.power()))
        self.depth -= 1
        return node
