"""Code: does the program in a completion pass the tests of its problem?"""

from r1jax.rewards.code.assert_tests import run_assert_tests
from r1jax.rewards.code.extraction import extract_code
from r1jax.rewards.code.names import BrokenTests
from r1jax.rewards.code.output_tests import JudgeFailure, run_output_tests
from r1jax.rewards.code.problem import Problem, is_unicode, read_problem
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.sandbox import SandboxUnavailable

MAX_REASON = 300


def code_reward(record: dict, completion: str, *, allow_unsafe: bool = False) -> Judgement:
    """Judge the last Python block of a completion by the tests of its problem (DeepSeek-R1, section 2.2.2).

    Args:
      record: `tests`, either [{"stdin": ..., "stdout": ...}, ...] or test code ["assert f(1) == 2", ...]; further
        fields are those of `Problem`, and `prefill`, what the prompt template wrote at the start of the response.
      completion: what the policy wrote.
      allow_unsafe: run programs without isolation where the host offers none; `partial(code_reward, allow_unsafe=True)`
        is a judge that does.

    Returns:
      "correct" where every test passes, else "wrong": a program that is slow, large, or kills itself has failed the
      test. The score is 1 or 0, or the share of tests that pass where `scoring` is "fraction". "gold_unparseable"
      where the tests can judge nothing, "error" where the sandbox or the checker fails.
    """
    try:
        problem = read_problem(record)._replace(allow_unsafe=allow_unsafe)
        extracted = extract_code(completion, record.get("prefill") or "")
        if extracted.code is None:
            return Judgement("no_answer", 0.0, extracted.reason)
        return judge_program(problem, extracted.code)
    except BrokenTests as error:
        return Judgement("gold_unparseable", 0.0, str(error)[:MAX_REASON])
    except (JudgeFailure, SandboxUnavailable, OSError) as error:
        return Judgement("error", 0.0, str(error)[:MAX_REASON])


def judge_program(problem: Problem, code: str) -> Judgement:
    """Judge a program; the first test that fails ends it where all must pass.

    Raises:
      BrokenTests, JudgeFailure, SandboxUnavailable: see `code_reward`.
    """
    if not is_unicode(code):
        return Judgement("wrong", 0.0, "the program holds half of a surrogate pair")
    asserts = isinstance(problem.tests[0], str)
    passed, reason = 0, ""
    for place, result in enumerate((run_assert_tests if asserts else run_output_tests)(problem, code), start=1):
        passed += result.passed
        if not result.passed:
            reason = reason or f"test {place} of {len(problem.tests)}: {result.reason}"[:MAX_REASON]
            if problem.scoring == "all":
                break
    if passed == len(problem.tests):
        return Judgement("correct", 1.0, f"{passed} tests passed")
    return Judgement("wrong", passed / len(problem.tests) if problem.scoring == "fraction" else 0.0, reason)


def check_reference(record: dict) -> str | None:
    """Why a record's own `solution` does not pass its tests; None where it does."""
    try:
        judgement = judge_program(read_problem(record), record["solution"])
    except BrokenTests as error:
        return str(error)
    return None if judgement.outcome == "correct" else judgement.reason
