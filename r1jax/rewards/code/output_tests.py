"""Tests that give a program an input and look at what it prints; every run is a sandbox of its own."""

import dataclasses
import time
from collections.abc import Iterator

from r1jax.rewards.code.output import first_difference, same_output, shorten
from r1jax.rewards.code.problem import OutputTest, Problem, TestResult
from r1jax.rewards.sandbox import Limits, Run, run_python

MIN_OUTPUT_BYTES = 1 << 20
CHECKED_OUTPUT_BYTES = 16 << 20  # where only a checker knows how much is right

LIMITS = {"timeout": "time limit", "cpu": "time limit", "memory": "memory limit", "output": "output limit"}


class JudgeFailure(RuntimeError):
    """The judge could not do its work; nothing is known about the solution."""


def limits_for(timeout: float) -> Limits:
    """Limits of one run: the seconds it may compute, and more by the clock because the machine may be busy."""
    return Limits(wall_seconds=4 * timeout + 2, cpu_seconds=timeout)


def sandbox_options(problem: Problem) -> dict:
    """Keyword arguments of `run_python` for one run of a problem."""
    return {"limits": limits_for(problem.timeout), "allow_unsafe": problem.allow_unsafe}


def run_output_tests(problem: Problem, code: str) -> Iterator[TestResult]:
    """The result of each test in turn.

    A checker is a program of its own, in a sandbox that the solution never enters. It finds the files input.txt,
    output.txt and, where the test has an expected output, expected.txt in its working directory, and says by its exit
    status whether the output is right: 0 for yes, 1 for no (an exception that nothing catches counts as no).

    Raises:
      JudgeFailure: the sandbox did not start, or the checker ended in any other way.
      SandboxUnavailable: this host cannot isolate programs.
    """
    end = time.monotonic() + problem.total_timeout
    for test in problem.tests:
        if time.monotonic() > end:
            yield TestResult(False, "not run: too slow in the tests before")
            continue
        options = sandbox_options(problem)
        options["limits"] = dataclasses.replace(options["limits"], output_bytes=output_bytes(problem, test))
        run = run_python(code, stdin=test.stdin.encode(), **options)
        failure = run_failure(run)
        yield TestResult(False, failure) if failure else judge_output(problem, test, run.stdout)


def output_bytes(problem: Problem, test: OutputTest) -> int:
    """How much a program may print: enough for the right output with white space that does not count."""
    if problem.checker is not None:
        return CHECKED_OUTPUT_BYTES
    return max(MIN_OUTPUT_BYTES, 2 * len(test.stdout.encode()))


def run_failure(run: Run) -> str | None:
    """Why a run of the solution failed, in words; None where it ended well.

    Raises:
      JudgeFailure: the sandbox did not start.
    """
    if run.status == "launch_failed":
        raise JudgeFailure(f"the sandbox did not start: {run.detail}")
    if run.status == "ok":
        return None
    if run.status in LIMITS:
        return LIMITS[run.status]
    last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"ended with {'signal' if run.status == 'signal' else 'status'} {run.returncode} {shorten(last)}"


def judge_output(problem: Problem, test: OutputTest, stdout: bytes) -> TestResult:
    """The result of a test for what was printed."""
    if problem.checker is not None:
        return run_checker(problem, test, stdout)
    found = stdout.decode(errors="replace")
    if same_output(found, test.stdout, problem.tolerance):
        return TestResult(True)
    return TestResult(False, first_difference(found, test.stdout))


def run_checker(problem: Problem, test: OutputTest, stdout: bytes) -> TestResult:
    """What the checker of a problem says about an output."""
    files = {"input.txt": test.stdin.encode(), "output.txt": stdout}
    if test.stdout is not None:
        files["expected.txt"] = test.stdout.encode()
    run = run_python(problem.checker, files=files, **sandbox_options(problem))
    if run.status == "ok":
        return TestResult(True)
    if run.status == "nonzero" and run.returncode == 1:
        return TestResult(False, f"the checker refused the output {shorten(stdout.decode(errors='replace'))}")
    raise JudgeFailure(f"the checker ended with {run.status} {run.returncode}: {run.detail}")
