"""Tests for programming problems, made as for DeepSeek-R1 (supplement B.3.1): generated inputs, then two filters.

Programs write the inputs, programs known to be right give the expected outputs, and of the tests that all right
programs pass those are kept that tell right from wrong. The caller gives the function that runs a program; `sandboxed`
makes one for programs that nobody trusts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from r1jax.rewards.code.output import same_output
from r1jax.rewards.code.output_tests import limits_for, run_failure
from r1jax.rewards.code.problem import OutputTest
from r1jax.rewards.sandbox import run_python

MAX_INPUT = 1 << 20  # characters; a test is carried in a record

Runner = Callable[[str, str], str | None]
"""(program, standard input) -> what it prints, or None where it fails, exceeds a limit or prints no text."""


class Selection(NamedTuple):
    """Tests that tell right programs from wrong ones."""

    tests: list[OutputTest]
    unexposed: list[int]
    """Places of the wrong programs that pass all valid tests: more inputs are needed, or they are right."""


class MadeTests(NamedTuple):
    """The tests of a problem, and what became of the rest."""

    tests: list[OutputTest]
    invalid: list[tuple[str, str]]
    """Inputs that cannot be used, each with the reason."""
    unexposed: list[int]
    """As in `Selection`."""

    @property
    def records(self) -> list[dict]:
        """The tests in the form of a record's `tests`."""
        return [test._asdict() for test in self.tests]


def sandboxed(timeout: float) -> Runner:
    """A function that runs a program in the sandbox, for `timeout` seconds at most.

    The function raises JudgeFailure or SandboxUnavailable where the sandbox does not work.
    """

    def run(program: str, stdin: str) -> str | None:
        done = run_python(program, stdin=stdin.encode(), limits=limits_for(timeout))
        if run_failure(done):
            return None
        try:
            return done.stdout.decode()
        except UnicodeDecodeError:
            return None

    return run


def make_inputs(generators: Sequence[str], seeds: Sequence[int], run: Runner) -> list[str]:
    """What the generators print, each started with each seed: one input a run, no input twice.

    A generator is a program that uses Python's `random`, which has been seeded when it starts. Runs that fail, print
    nothing, or more than MAX_INPUT characters, give no input.
    """
    programs = [f"import random\nrandom.seed({seed})\nexec({source!r})\n" for source in generators for seed in seeds]
    printed = [run(program, "") for program in programs]
    return list(dict.fromkeys(text for text in printed if text and text.strip() and len(text) <= MAX_INPUT))


def expect_outputs(
    inputs: Sequence[str], references: Sequence[str], run: Runner, tolerance: float | None = None
) -> tuple[list[OutputTest], list[tuple[str, str]]]:
    """The first filter: tests on which all right programs agree, and the inputs that are invalid, with the reason.

    Args:
      inputs: standard inputs.
      references: programs known to be right; with only one of them nothing can disagree, so give several.
      run: runs a program.
      tolerance: as in `same_output`.

    Raises:
      ValueError: there is no right program.
    """
    if not references:
        raise ValueError("no reference program: expected outputs have to come from programs known to be right")
    tests, invalid = [], []
    for text in inputs:
        reason, first = "", None
        for place, reference in enumerate(references):
            output = run(reference, text)
            first = output if place == 0 else first
            if output is None:
                reason = f"right program {place} fails on it"
            elif not same_output(output, first, tolerance):
                reason = f"right programs 0 and {place} print different outputs"
            if reason:
                break
        if reason:
            invalid.append((text, reason))
        else:
            tests.append(OutputTest(text, first))
    return tests, invalid


def exposed_by(test: OutputTest, wrong: Sequence[str], run: Runner, tolerance: float | None = None) -> frozenset[int]:
    """Places of the wrong programs that fail a test."""
    outputs = [run(program, test.stdin) for program in wrong]
    passes = [output is not None and same_output(output, test.stdout, tolerance) for output in outputs]
    return frozenset(place for place, passed in enumerate(passes) if not passed)


def select_tests(
    tests: Sequence[OutputTest], exposed: Sequence[frozenset[int]], wrong: int, minimum: int = 0
) -> Selection:
    """The second filter: few tests that together expose every wrong program that any test exposes.

    A greedy cover: the test that exposes most of those still passing comes first, the earlier of two equal ones; then a
    test is dropped where the others do without it. The result keeps the order of `tests`.

    Args:
      tests: valid tests.
      exposed: for each test, the places of the wrong programs that fail it.
      wrong: how many wrong programs there are.
      minimum: add tests, the most exposing first, until there are this many.
    """
    chosen, passing = [], set(range(wrong))
    while left := [place for place in range(len(tests)) if exposed[place] & passing]:
        best = max(left, key=lambda place: (len(exposed[place] & passing), -place))
        chosen.append(best)
        passing -= exposed[best]
    for place in list(chosen):
        others = frozenset().union(*(exposed[other] for other in chosen if other != place))
        if exposed[place] <= others:
            chosen.remove(place)
    rest = sorted(set(range(len(tests))) - set(chosen), key=lambda place: (-len(exposed[place]), place))
    chosen += rest[: max(0, minimum - len(chosen))]
    return Selection([tests[place] for place in sorted(chosen)], sorted(passing))


def make_tests(
    generators: Sequence[str],
    references: Sequence[str],
    wrong: Sequence[str],
    seeds: Sequence[int],
    run: Runner,
    *,
    minimum: int = 0,
    tolerance: float | None = None,
) -> MadeTests:
    """The tests of a problem from programs that write inputs, right programs and wrong ones."""
    tests, invalid = expect_outputs(make_inputs(generators, seeds, run), references, run, tolerance)
    exposed = [exposed_by(test, wrong, run, tolerance) for test in tests]
    selection = select_tests(tests, exposed, len(wrong), minimum)
    return MadeTests(selection.tests, invalid, selection.unexposed)
