"""Whether a program printed what was expected."""

import math

MAX_SHOWN = 60


def same_output(found: str, expected: str, tolerance: float | None = None) -> bool:
    """Whether two outputs are the same, compared whole.

    White space at the end of each line, and empty lines at the end, do not count; all else does.

    Args:
      found, expected: texts.
      tolerance: where given, words that are not equal but both finite decimal numbers may differ by this much,
        absolutely or relative to the expected one; lines and words must still correspond.
    """
    left, right = output_lines(found), output_lines(expected)
    if left == right:
        return True
    if tolerance is None or len(left) != len(right):
        return False
    return all(_same_line(a.split(), b.split(), tolerance) for a, b in zip(left, right, strict=True))


def output_lines(text: str) -> list[str]:
    """The lines of an output without what does not count."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def first_difference(found: str, expected: str) -> str:
    """Where two outputs first differ, in words."""
    left, right = output_lines(found), output_lines(expected)
    for number, (a, b) in enumerate(zip(left, right, strict=False), start=1):
        if a != b:
            return f"line {number} is {shorten(a)}, expected {shorten(b)}"
    return f"{len(left)} lines printed, expected {len(right)}"


def shorten(text: str) -> str:
    """The start of a text, quoted."""
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "...")


def _same_line(left: list[str], right: list[str], tolerance: float) -> bool:
    return len(left) == len(right) and all(_same_word(a, b, tolerance) for a, b in zip(left, right, strict=True))


def _same_word(found: str, expected: str, tolerance: float) -> bool:
    if found == expected:
        return True
    a, b = _number(found), _number(expected)
    return a is not None and b is not None and abs(a - b) <= tolerance * max(1.0, abs(b))


def _number(word: str) -> float | None:
    """The value of a plain decimal number; None for all else, also for what `float` would take beyond that."""
    if not set(word) <= set("0123456789+-.eE"):
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
