"""Tokens of an answer written in LaTeX, in plain text, or in the mixture that models write."""

import re
from typing import Literal, NamedTuple

from r1jax.rewards.math.notation import (
    COMMANDS,
    FUNCTIONS,
    NAMES,
    OPERATORS,
    SHORT_WORDS,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    SYMBOLIC,
    SYMBOLS,
    UNIT_LETTERS,
)

MAX_CHARACTERS = 2000
"""Longer answers are refused before anything else is done with them."""


class Malformed(ValueError):
    """Not an answer in any notation that is read here."""


class Unsupported(Malformed):
    """Notation that is mathematics, but that only the symbolic tier reads: sums, integrals, limits."""


class Token(NamedTuple):
    """One token; "op" covers operators, brackets and separators, "word" is running text."""

    kind: Literal["num", "name", "word", "fun", "op", "cmd"]
    text: str
    spaced: bool = False
    """Whether white space stands before it."""


TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|emph|[mh]box|math(?:rm|bf|it|sf)|operatorname\*?)"
TOKEN = re.compile(
    r"(?P<space>(?:\s|~|\\[,;: >]|\\(?:quad|qquad|displaystyle|textstyle|left|right|middle|[bB]igg?[lrm]?|limits"
    r"|nolimits|mathstrut|hfill|thinspace|strut)(?![a-zA-Z]))+)"
    r"|(?P<nothing>\\!|\\(?:phantom|hphantom|vphantom|hspace\*?|label)\s*(?:\{[^{}]*\}|[^\\\s{}]))"
    r"|(?P<degree>\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\degree(?![a-zA-Z])|\\textdegree)"
    r"|(?P<text>" + TEXT + r"\s*\{(?P<inside>[^{}]*)\}|\\(?:mathbb|mathcal|mathfrak)\s*\{?(?P<letter>[A-Z])\}?)"
    r"|(?P<font>\\(?:color|textcolor)\s*\{[^{}]*\}|\\(?:underline|boldsymbol|bm|bf|rm|it|large|Large|small|mathop|ensuremath"
    r"|text\w{0,6}|math(?:rm|bf|it|sf)|mbox|hbox|emph)(?![a-zA-Z]))"
    r"|(?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot)\s*\{?\s*\d+\s*\}?|\(\d+\)))"
    r"|(?P<num>\d+(?:\.\d+)?(?:[eE][+-]?\d+(?![\d.a-zA-Z]))?|\.\d+)"
    r"|(?P<marks>\{,\}|,\\!|\\\\\s*\[[\d.]+\s*(?:pt|em|ex|mm|cm)\]|\\(?:begin|end)\s*\{[a-zA-Z]+\*?\}|\.{3,})"
    r"|(?P<command>\\[a-zA-Z]+|\\.)|(?P<letters>[^\W\d_]+)|(?P<char>.)",
    re.DOTALL | re.ASCII,
)
TWO_LETTERS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2}")
BOLD = re.compile(r"(?<![^\s:])(?:\*\*)+([^*]+)(?:\*\*)+")  # of Markdown
UNIT_LETTER = re.compile(r"\s*[mgshlL]\s*")  # upright behind a number, these are units
SPACE_IN_TEXT = re.compile(r"~|\\[,;:!> ]")
THREE_DIGITS = re.compile(r"\d{3}(?:\.\d+)?")
TEXT_PIECE = re.compile(
    r"(?P<num>\d+(?:\.\d+)?|\.\d+)|(?P<word>[^\W\d_]+(?:[.'-][^\W\d_]+)*)|(?P<space>\s+)|(?P<char>.)", re.DOTALL
)


def clean(text: str) -> str:
    """The text with full-width forms, typographic signs and super- and subscript digits in their LaTeX form."""
    if not text.isascii():
        text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: f"^{{{match.group().translate(SUPERSCRIPTS)}}}", text)
        text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda match: f"_{{{match.group().translate(SUBSCRIPTS)}}}", text)
        text = text.translate(SYMBOLS)
    text = text.replace("{-}", "-").replace("{+}", "+").replace("{:}", ":").strip()
    text = BOLD.sub(r"\1", text)
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[2:-2].strip()
    for command in (r"\boxed", r"\fbox"):
        if text.startswith(command + "{") and text.endswith("}"):
            text = text[len(command) + 1 : -1].strip()
    dollars = text.count("$") - text.count(r"\$")
    return text.replace(r"\$", "\0").replace("$", " ").replace("\0", r"\$") if dollars % 2 == 0 else text


def tokenize(text: str) -> list[Token]:
    """The tokens of an answer, thousands separators still apart; linear in the length.

    Raises:
      Malformed: longer than MAX_CHARACTERS, or with a command or character that no answer has.
      Unsupported: a command that only the symbolic tier reads.
    """
    if len(text) > MAX_CHARACTERS:
        raise Malformed(f"longer than {MAX_CHARACTERS} characters")
    tokens, spaced = [], False
    for match in TOKEN.finditer(clean(text)):
        kind = match.lastgroup if match.lastgroup not in ("inside", "letter") else "text"
        if kind == "space":
            spaced = True
            continue
        if kind in ("nothing", "font"):
            continue
        for token in read_match(kind, match, tokens):
            tokens.append(token._replace(spaced=spaced or token.spaced))
            spaced = False
    return tokens


def read_match(kind: str, match: re.Match, before: list[Token]) -> list[Token]:
    """The tokens of one match of TOKEN."""
    text = match.group()
    if kind == "num":
        return [Token("num", text)]
    if kind == "repeating":
        return [Token("num", re.sub(r"\\(?:overline|bar|dot)|[{}()\s]", "r", text))]
    if kind == "degree":
        return [Token("op", "deg")]
    if kind == "marks":
        if text.startswith("\\\\"):  # the end of a row, with extra space below it
            return [Token("op", r"\\")]
        return [Token("op", "{,}" if "," in text else "..." if text[0] == "." else re.sub(r"\s", "", text))]
    if kind == "text":
        if match.group("letter"):
            return [Token("name", f"mathbb {match.group('letter')}")]
        inside = SPACE_IN_TEXT.sub(" ", match.group("inside"))
        if text.startswith(r"\mathrm") and UNIT_LETTER.fullmatch(inside) and before and closes_number(before[-1]):
            return [Token("word", inside.strip())]
        return read_text(inside, styled=text.startswith((r"\math", r"\operatorname")))
    if kind == "letters" or (kind == "char" and text.isalpha()):
        after_number = bool(before) and (closes_number(before[-1]) or before[-1].text in ("deg", "/"))
        return read_letters(text, after_number=after_number)
    if kind == "command":
        return read_command(text)
    return [Token("op", text)]


def closes_number(token: Token) -> bool:
    """Whether a unit may stand behind a token."""
    return token.kind == "num" or token.text in ("}", "sq", "cu")


def read_text(inside: str, *, styled: bool) -> list[Token]:
    """The tokens of the argument of a text command, or of a command that only changes the font."""
    if styled and inside in FUNCTIONS:
        return [Token("fun", inside)]
    if styled and not TWO_LETTERS.search(inside) and "/" not in inside:
        return tokenize(inside)
    inside = inside.replace(r"\cdot", "*") if styled else inside
    tokens, spaced = [], False
    for match in TEXT_PIECE.finditer(re.sub(r"\\(?=\W)|(?<!\\)\$", "", inside)):
        if match.lastgroup == "space":
            spaced = True
            continue
        text = match.group()
        kind = {"num": "num", "word": "word"}.get(match.lastgroup, "op")
        tokens.append(Token("op", text) if text in ("or", "and") else Token(kind, text, spaced))
        spaced = False
    return tokens


def read_letters(run: str, *, after_number: bool) -> list[Token]:
    """A run of letters outside text commands: a function, a unit, a word, a name such as AB, or a product."""
    if run in ("or", "and"):
        return [Token("op", run)]
    if run in FUNCTIONS:
        return [Token("fun", run)]
    if len(run) == 4 and run[:3] in FUNCTIONS and run[3] not in "ht":  # sinx, but not sinh and not cost
        return [Token("fun", run[:3]), Token("name", run[3])]
    if run in ("pi", "Pi", "infinity", "inf"):
        return [Token("name", "pi" if run in ("pi", "Pi") else "infty")]
    if len(run) == 1 and (run.isascii() or "\u0370" <= run <= "\u03ff"):
        return [Token("name", run)]
    if after_number and run in UNIT_LETTERS:
        return [Token("word", run)]
    if not run.isascii() or len(run) > 3 or (len(run) == 3 and run.islower() and set(run) & set("eio")):
        return [Token("name" if run.isupper() and run.isascii() else "word", run)]
    if run.isupper():
        return [Token("name", run)]
    if run[0].isupper() or run in SHORT_WORDS:
        return [Token("word", run)]
    return [Token("name", letter) for letter in run]


def read_command(text: str) -> list[Token]:
    """One LaTeX command."""
    if text in OPERATORS:
        return [Token("op", OPERATORS[text])]
    name = text[1:]
    if name in COMMANDS:
        return [Token("cmd", COMMANDS[name])]
    if name in FUNCTIONS:
        return [Token("fun", name)]
    if name in NAMES:
        return [Token("name", "emptyset" if name == "varnothing" else name)]
    if name in SYMBOLIC:
        raise Unsupported(f"\\{name} is left to be computed")
    if not name[:1].isalpha():
        raise Malformed(f"unknown command {text!r}")
    raise Unsupported(f"unknown command {text!r}")


def group_digits(tokens: list[Token], *, plain_commas: bool) -> list[Token]:
    r"""The tokens with digit groups joined: 1{,}234 and 1\,234 anywhere, 1,234 outside brackets if `plain_commas`.

    A plain comma joins only a whole chain of groups that is right throughout and has no space, so that `1, 234` and
    `1,2,345` stay lists. `3{,}5` is a decimal comma.
    """
    joined, depth, i = [], 0, 0
    while i < len(tokens):
        token = tokens[i]
        depth += {"(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1}.get(token.text, 0) if token.kind == "op" else 0
        end = i + 1
        if token.kind == "num" and token.text.isdigit():
            end = group_end(tokens, i, plain_commas=plain_commas and depth == 0)
            marked = i + 2 < len(tokens) and tokens[i + 1].text == "{,}" and tokens[i + 2].kind == "num"
            if end == i + 1 and marked and tokens[i + 2].text.isdigit():
                token, end = token._replace(text=f"{token.text}.{tokens[i + 2].text}"), i + 3
            elif end > i + 1:
                token = token._replace(text="".join(part.text for part in tokens[i:end] if part.kind == "num"))
        joined.append(token)
        i = end
    return joined


def group_end(tokens: list[Token], start: int, *, plain_commas: bool) -> int:
    """Where the digit groups that begin at `start` end."""
    if len(tokens[start].text) > 3 or tokens[start].text[0] == "0":
        return start + 1
    end, plain = start + 1, False
    while end < len(tokens):
        gap = 0 if tokens[end].kind == "num" else 1
        group = tokens[end + gap] if end + gap < len(tokens) else None
        comma = tokens[end].text == ","
        if (
            group is None
            or group.kind != "num"
            or (gap and tokens[end].text != "{,}" and not (comma and not group.spaced))
        ):
            break
        if not THREE_DIGITS.fullmatch(group.text):
            return start + 1 if comma and plain else end  # 1,234,5 is a list
        fraction_follows = end + 1 < len(tokens) and tokens[end + 1].text == "/"
        if (comma and not plain_commas) or (not gap and fraction_follows):  # 1 234/567 is a mixed number
            break
        plain, end = plain or comma, end + gap + 1
        if "." in group.text:
            break
    return end
