"""What a record of a programming problem must hold to be judged."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from r1jax.rewards.code.names import BrokenTests

DEFAULT_TIMEOUT = 5.0
TOTAL_PER_TEST = 10
"""A judgement may take as long as this many tests at their limit; see `Problem.total_timeout`."""


class OutputTest(NamedTuple):
    """One input, and what must be printed for it."""

    stdin: str
    stdout: str | None
    """None where a checker decides alone."""


class TestResult(NamedTuple):
    """How one test ended."""

    passed: bool
    reason: str = ""

    __test__ = False  # pytest collects classes of this name


class Problem(NamedTuple):
    """A programming problem, checked."""

    tests: tuple[OutputTest, ...] | tuple[str, ...]
    """All of one form: inputs with outputs, or test code."""
    setup: str
    """Test code that runs before the tests; its import statements run before the solution too."""
    preamble: str
    """Source that the solution may rely on and the tests too, such as the helpers in a prompt of HumanEval. Each side
    has its own, but for classes: an instance is the solution's, and the tests handle it from afar."""
    entry_point: str | None
    """The function under test, where the tests do not show it."""
    checker: str | None
    """A program that decides on each output instead of comparing; see `run_output_tests`."""
    tolerance: float | None
    """By how much numbers in an output may be off, absolutely or relatively; None compares text."""
    scoring: Literal["all", "fraction"]
    """Whether the score is 1 or 0, or the share of tests that pass."""
    timeout: float
    """Seconds a test may compute."""
    total_timeout: float
    """Seconds after which the tests that have not run count as failed."""
    allow_unsafe: bool = False
    """Whether programs may run without isolation where the host offers none; never read from a record."""


def read_problem(record: Mapping) -> Problem:
    """The problem in a record; fields that are not there have the defaults of this module.

    Raises:
      BrokenTests: a field is missing or not what it should be; the message names it.
    """
    tests = record.get("tests")
    if not isinstance(tests, (list, tuple)) or not tests:
        raise BrokenTests(f"tests: expected a non-empty list, found {tests!r:.80}")
    checker = _text(record, "checker", None)
    if all(isinstance(test, str) for test in tests):
        tests = tuple(_clean(test, f"tests[{place}]") for place, test in enumerate(tests))
        if checker is not None:
            raise BrokenTests("checker: it needs tests with stdin")
    else:
        tests = tuple(_output_test(test, place, checker) for place, test in enumerate(tests))
        if checker is None and not any(test.stdout.strip() for test in tests):
            raise BrokenTests("tests: every expected output is empty; a program that does nothing would pass")
    scoring = record.get("scoring", "all")
    if scoring not in ("all", "fraction"):
        raise BrokenTests(f"scoring: expected 'all' or 'fraction', found {scoring!r:.80}")
    tolerance = None if record.get("tolerance") is None else _positive(record, "tolerance", None)
    timeout = _positive(record, "timeout", DEFAULT_TIMEOUT)
    total = _positive(record, "total_timeout", TOTAL_PER_TEST * timeout)
    texts = [_text(record, "setup", ""), _text(record, "preamble", ""), _text(record, "entry_point", None)]
    return Problem(tests, *texts, checker, tolerance, scoring, timeout, total)


def _output_test(test: object, place: int, checker: str | None) -> OutputTest:
    if not isinstance(test, Mapping):
        raise BrokenTests(f"tests[{place}]: expected stdin and stdout like the others, or all text; found {test!r:.80}")
    optional = checker is not None and test.get("stdout") is None
    stdin, stdout = (test.get("stdin"), "" if optional else test.get("stdout"))
    for name, value in (("stdin", stdin), ("stdout", stdout)):
        if not isinstance(value, str):
            raise BrokenTests(f"tests[{place}].{name}: expected text, found {value!r:.80}")
        _clean(value, f"tests[{place}].{name}")
    return OutputTest(stdin, None if optional else stdout)


def _text(record: Mapping, name: str, default: str | None) -> str | None:
    value = record.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise BrokenTests(f"{name}: expected text, found {value!r:.80}")
    return _clean(value, name)


def _clean(text: str, name: str) -> str:
    if not is_unicode(text):
        raise BrokenTests(f"{name}: holds half of a surrogate pair, which no file can hold")
    return text


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _positive(record: Mapping, name: str, default: float | None) -> float:
    value = record.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise BrokenTests(f"{name}: expected a positive number, found {value!r:.80}")
    return float(value)
