"""Tests that are code: the solution and the tests run in two sandboxes, and what one says to the other passes here.

The solution's process holds no test and no expected value; it serves calls. The verdict comes from the tests' process,
which the solution can reach only by answering what it is asked.
"""

import ast
import dataclasses
import importlib.resources
import json
import marshal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple

from r1jax.rewards.code.literal_tests import LiteralTest, Undecided, answer_equals, read_literal_test
from r1jax.rewards.code.names import (
    BrokenTests,
    calls_check,
    only_imports,
    read_test_code,
    solution_names,
    used_modules,
    without_classes,
)
from r1jax.rewards.code.output import shorten
from r1jax.rewards.code.output_tests import JudgeFailure, limits_for
from r1jax.rewards.code.problem import Problem, TestResult
from r1jax.rewards.sandbox import Conversation, open_python

MAX_LINE_SHOWN = 200
MAX_GROWTH = 100  # bytes of an answer for each of the test's, such as 10**308 for 1e308
TALK_BYTES = 16 << 20  # of each side, in the whole conversation


class Plan(NamedTuple):
    """The test code of a problem, and what it needs."""

    imports: str
    """What the solution may rely on."""
    preamble: str
    """What the tests' side executes before it is given names of the solution."""
    tests: tuple[str, ...]
    names: list[str]
    """Names that the solution provides."""
    literals: tuple[LiteralTest, ...]
    """The same tests where all are of this form, else empty."""


class Ended(Exception):
    """A sandbox has ended, or does not answer in time; the text says why."""


def plan_tests(problem: Problem) -> Plan:
    """What to run for a problem.

    Raises:
      BrokenTests: the test code is no Python, or uses nothing of the solution.
    """
    preamble, setup = read_test_code(problem.preamble, "preamble"), read_test_code(problem.setup, "setup")
    tests = [read_test_code(test, f"tests[{place}]") for place, test in enumerate(problem.tests)]
    codes = [without_classes(preamble), setup, *tests]
    modules = "".join(f"import {name}\n" for name in sorted(used_modules(codes)))
    names = solution_names(codes, problem.entry_point)
    call = f"\ncheck({problem.entry_point})\n"
    texts = tuple(test.source + call * bool(problem.entry_point and calls_check(test.tree)) for test in tests)
    imports = only_imports(setup.tree)
    literals = [read_literal_test(test.tree, names) for test in tests]
    simple = len(imports) == len(setup.tree.body) and None not in literals
    imports = "\n".join(map(ast.unparse, imports))
    return Plan(imports, modules + problem.preamble, texts, sorted(names), tuple(literals) if simple else ())


def run_assert_tests(problem: Problem, code: str) -> Iterator[TestResult]:
    """The result of each test in turn.

    The tests share the two processes, as they would share one; where a process has ended, both are started again.

    Raises:
      BrokenTests: the test code cannot judge any solution.
      JudgeFailure: a sandbox did not start.
      SandboxUnavailable: this host cannot isolate programs.
    """
    plan, end, done = plan_tests(problem), time.monotonic() + problem.total_timeout, 0
    literals = plan.literals
    while done < len(plan.tests) and time.monotonic() < end:
        with ExitStack() as stack:
            tests = None if literals else stack.enter_context(open_side("run_tests", problem))
            pair = Pair(stack.enter_context(open_side("run_solution", problem)), tests)
            try:
                reason = start_pair(pair, plan, problem, code)
                if reason:
                    yield from [TestResult(False, reason)] * (len(plan.tests) - done)
                    return
                while done < len(plan.tests) and time.monotonic() < end:
                    if literals:
                        result = run_literal(pair.solution, plan.tests[done], literals[done], problem)
                    else:
                        result = run_code(pair, plan.tests[done], [], problem)
                    done += 1
                    yield result
            except Ended as ended:
                done += 1
                yield TestResult(False, str(ended))
            except Undecided:
                literals = ()
    yield from [TestResult(False, "not run: too slow in the tests before")] * (len(plan.tests) - done)


class Pair(NamedTuple):
    """The sandboxes of a judgement."""

    solution: Conversation
    tests: Conversation | None
    """None where all tests are literal."""


def open_side(side: str, problem: Problem) -> Conversation:
    """Start one side of the bridge in a sandbox."""
    limits = limits_for(problem.timeout * (len(problem.tests) + 1))
    source = f"import marshal\nexec(marshal.loads(open('bridge', 'rb').read()))\n{side}({problem.timeout})\n"
    limits = dataclasses.replace(limits, output_bytes=TALK_BYTES)
    return open_python(source, files={"bridge": bridge_code()}, limits=limits, allow_unsafe=problem.allow_unsafe)


@cache
def bridge_code() -> bytes:
    """The program that runs on both sides, compiled: the interpreter is the same."""
    source = importlib.resources.files(__package__).joinpath("bridge.py").read_text()
    return marshal.dumps(compile(source, "<bridge>", "exec"))


def start_pair(pair: Pair, plan: Plan, problem: Problem, code: str) -> str | None:
    """Load the solution and set up the tests; returns why the solution fails all of them, or None.

    Raises:
      BrokenTests, JudgeFailure: see `run_assert_tests`.
      Ended: while setting up the tests.
    """
    try:
        load(pair.solution, plan.imports, problem)  # where these fail, they fail in the setup too, which says so
        broken = load(pair.solution, problem.preamble, problem)
        if pair.tests:
            run_code(pair, plan.preamble, [], problem, alone=True)
    except Ended:  # nothing of the solution has been executed
        ends = [side.finish() for side in pair if side]
        raise JudgeFailure(f"a sandbox did not start: {'; '.join(end.detail for end in ends)}") from None
    if broken:
        raise BrokenTests(f"preamble: {broken}")
    try:
        failure = load(pair.solution, code, problem)
    except Ended as ended:
        failure = str(ended)
    if failure:
        return f"loading the program: {failure}"
    if pair.tests is None:
        return None
    result = run_code(pair, problem.setup, plan.names, problem, alone=True)
    return None if result.passed else f"setting up the tests: {result.reason}"


def load(solution: Conversation, source: str, problem: Problem) -> str | None:
    """Execute source text on the solution's side; returns what it raised, or None.

    Raises:
      Ended: it did not come to an end, or took the process along.
    """
    say(solution, json.dumps(["request", "load", [source]]).encode())
    line = hear(solution, deadline(problem))
    if line.startswith(b'["answer"'):
        return None
    return line[:MAX_LINE_SHOWN].decode(errors="replace")


def run_literal(solution: Conversation, source: str, test: LiteralTest, problem: Problem) -> TestResult:
    """Run a test that needs no process of its own.

    Raises:
      Ended: the solution has ended.
      Undecided: it does need one after all.
    """
    say(solution, test.request)
    line = hear(solution, deadline(problem))
    too_long = len(line) > MAX_GROWTH * len(source)  # to be equal; parsed it would fill the judge's own memory
    if not too_long and answer_equals(line, test.expected):
        return TestResult(True)
    return TestResult(False, f"{shorten(source)}: found {line[:MAX_LINE_SHOWN].decode(errors='replace')}")


def run_code(pair: Pair, source: str, names: list[str], problem: Problem, *, alone: bool = False) -> TestResult:
    """Execute source text on the tests' side, and pass on what the two sides say until it has a verdict.

    They speak in turn: the tests ask, the solution answers, or asks back and is answered.

    Args:
      pair: both sides.
      source: what to execute.
      names: what to take from the solution before.
      problem: for its limits.
      alone: whether the source may pass without asking the solution.

    Raises:
      BrokenTests: the test code failed and the solution had no part in it.
      Ended: one side has ended.
    """
    say(pair.tests, json.dumps([names, problem.entry_point, source]).encode())
    end = deadline(problem)
    while not (line := hear(pair.tests, end)).startswith(b'["verdict"'):
        say(pair.solution, line)
        say(pair.tests, hear(pair.solution, end))
    _, verdict, reason = json.loads(line)
    if verdict == "broken" or (verdict == "unrelated" and not alone):
        raise BrokenTests(f"the tests fail whatever the solution does: {reason}")
    return TestResult(verdict != "failed", f"{shorten(source)}: {reason}" if verdict == "failed" else "")


def say(side: Conversation, line: bytes) -> None:
    """Send a line; a side that has ended is noticed when it has to answer."""
    side.send(line)


def deadline(problem: Problem) -> float:
    """When a test that starts now has to end."""
    return time.monotonic() + limits_for(problem.timeout).wall_seconds


def hear(side: Conversation, end: float) -> bytes:
    """The next line of a side.

    Raises:
      Ended: there is none until `end`, or within the limits of the sandbox.
    """
    line = side.receive(end - time.monotonic())
    if line is None:
        raise Ended("time limit")
    if not line:
        raise Ended("the program ended itself, or exceeded a limit")
    return line
