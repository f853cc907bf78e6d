"""Answers of a fixed form, read exactly: numbers, lists and words. Linear in the text; nothing is evaluated."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

from r1jax.rewards.answer import FinalAnswer, conclusion, final_answer
from r1jax.rewards.judgement import Judgement

MAX_LENGTH = 2000
"""Characters of an answer; no family asks for half as many."""
MAX_NUMBER_LENGTH = 100

Answer = TypeVar("Answer")
Reader = Callable[[str], Answer | None]
"""Reads an answer's text; None where it is not exactly one answer of the form asked for."""

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|texttt|textrm|mathrm|mathbf|mathit|mathtt)[ ]?\{([^{}]*)\}")
_LATEX_SPACE = re.compile(r"\\(?:[,;:! ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|left(?![a-zA-Z])|right(?![a-zA-Z]))")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019"))
_BRACKETS = (("[", "]"), ("(", ")"))
_DECIMAL = re.compile(r"([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?")
_RATIO = re.compile(r"([0-9]+)\s*/\s*([0-9]+)")
_LATEX_RATIO = re.compile(r"\\[dt]?frac\s*\{\s*([+-]?\s*[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_WORD = re.compile(r"[A-Za-z]+")


class BrokenRecord(ValueError):
    """A record that cannot be judged; the message names the field."""


def judge_answer(
    record: dict, completion: str, prepare: Callable[[dict], tuple[Answer, Reader[Answer]]], *, bare: bool = False
) -> Judgement:
    """Judge a completion by reading its final answer and comparing it with the right one: 1 or 0.

    Args:
      record: the problem; "prefill" is what the prompt template wrote at the start of the response.
      completion: what the policy wrote.
      prepare: the right answer of a record and the reader of answers of its form; raises BrokenRecord.
      bare: an answer need not be marked where nothing else follows the reasoning.
    """
    try:
        right, read = prepare(record)
        prefill = field(record, "prefill", str) if "prefill" in record else ""
    except BrokenRecord as error:
        return Judgement("gold_unparseable", 0.0, str(error))
    answer = final_answer(completion, prefill)
    if bare and answer.text is None:
        whole = (conclusion(completion, prefill) or "").strip()
        if len(whole) <= MAX_LENGTH and read(whole) is not None:
            answer = FinalAnswer(whole)
    if answer.text is None:
        return Judgement("no_answer", 0.0, answer.reason)
    found = read(answer.text) if len(answer.text) <= MAX_LENGTH else None
    if found is None:
        return Judgement("wrong", 0.0, f"not an answer of the form asked for: {answer.text[:80]!r}")
    if found != right:
        return Judgement("wrong", 0.0, f"read as {str(found)[:80]}, right is {str(right)[:80]}")
    return Judgement("correct", 1.0, f"read as {str(found)[:80]}")


def field(record: dict, name: str, kind: type | tuple[type, ...]) -> Any:
    """The value of a field of a record.

    Raises:
      BrokenRecord: the field is missing, empty, or of another type.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(each.__name__ for each in kinds)
    if name not in record:
        raise BrokenRecord(f"field {name!r} is missing; expected {expected}")
    value = record[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise BrokenRecord(f"field {name!r} holds {type(value).__name__} {shown(value)!r}; expected {expected}")
    if value == [] or (isinstance(value, str) and name != "prefill" and not value.strip()):
        raise BrokenRecord(f"field {name!r} is empty")
    return value


def shown(value: Any, length: int = 40) -> str:
    """The beginning of a value as text, for messages; of one that Python will not write out, its type."""
    try:
        return str(value)[:length]
    except (ValueError, RecursionError):  # an integer of more than 4300 digits, a list nested very deeply
        return f"a {type(value).__name__} of extreme size"


def right_answer(record: dict, read: Reader[Answer]) -> Answer:
    """What a reader finds in `record["answer"]`, which is text or a whole number.

    Raises:
      BrokenRecord: the field is missing or is not an answer of the reader's form.
    """
    answer = field(record, "answer", (str, int))
    if isinstance(answer, int) and abs(answer) >= 10**MAX_NUMBER_LENGTH:
        raise BrokenRecord(f"field 'answer' holds more than {MAX_NUMBER_LENGTH} digits")
    text = str(answer)
    right = read(text) if len(text) <= MAX_LENGTH else None
    if right is None:
        raise BrokenRecord(f"field 'answer' holds {text[:80]!r}, which is not an answer of the form asked for")
    return right


def plain(text: str) -> str:
    """An answer without what only sets it in type: mathematics delimiters, LaTeX spaces, text commands, bold type."""
    text = _TEXT_COMMAND.sub(r"\1", text).replace("\u2212", "-").replace("{,}", ",")
    text = _LATEX_SPACE.sub(" ", text).strip()
    for _ in range(4):
        text = text.removesuffix(".").strip()
        text = _unwrap(text, _WRAPPERS)
    return text


def read_number(text: str, labels: tuple[str, ...] = ()) -> Fraction | None:
    """One number, exactly: `-3`, `1,234`, `2.50`, `3/2`, `\\frac{3}{2}`; with a label before it also `label = 3`.

    Args:
      text: the answer.
      labels: what may stand before an equals sign, spaces apart.
    """
    text = plain(text)
    left, equals, right = text.partition("=")
    if equals and "".join(left.split()) in labels:
        text = right.strip()
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    sign, unsigned = (-1 if text[:1] == "-" else 1), text[text[:1] in ("-", "+") :].strip()
    if match := _DECIMAL.fullmatch(unsigned):
        digits = match[1].replace(",", "")
        return sign * Fraction(f"{digits}.{match[2] or 0}")
    if match := _RATIO.fullmatch(unsigned) or _LATEX_RATIO.fullmatch(unsigned):
        top, bottom = int("".join(match[1].split())), int(match[2])
        return sign * Fraction(top, bottom) if bottom else None
    return None


def read_integers(text: str) -> tuple[int, ...] | None:
    """A list of whole numbers: `3, 1, 2`, `3 1 2`, `[3, 1, 2]`, `(3, 1, 2)`."""
    items = read_items(text)
    if not all(len(item) <= MAX_NUMBER_LENGTH and _INTEGER.fullmatch(item) for item in items):
        return None
    return tuple(int(item) for item in items) or None


def read_words(text: str) -> tuple[str, ...] | None:
    """A list of words of letters, upper and lower case apart: `oak, elm`, `oak elm`, `["oak", "elm"]`."""
    words = tuple(_unwrap(item, _QUOTES) for item in read_items(text))
    return words if words and all(_WORD.fullmatch(word) for word in words) else None


def read_word(text: str) -> str | None:
    """One word of letters, upper and lower case apart, with or without quotation marks."""
    word = _unwrap(plain(text), _QUOTES)
    return word if _WORD.fullmatch(word) else None


def read_items(text: str) -> list[str]:
    """What commas separate, or white space where there is no comma, within one pair of brackets or none."""
    text = _unwrap(plain(text), _BRACKETS)
    return [item.strip() for item in (text.split(",") if "," in text else text.split())]


def _unwrap(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """What one pair encloses; the text itself where none does, or where the pair stands in it again."""
    for opening, closing in pairs:
        inner = text[len(opening) : len(text) - len(closing)]
        if inner and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner.strip() if closing not in inner else text
    return text
