"""Tests made for a programming problem: inputs from generators, outputs from right programs, and what is kept."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1jax.rewards.code import code_reward
from r1jax.rewards.code.problem import OutputTest
from r1jax.rewards.sandbox import probe
from r1jax.tasks.test_cases import expect_outputs, exposed_by, make_inputs, make_tests, sandboxed, select_tests

READ = "n = int(input())\nxs = list(map(int, input().split()))\nassert len(xs) == n > 0\n"
"""The problem: given n and n numbers, print the largest sum of neighbours (one at least)."""

RIGHT = {
    "one pass": READ
    + "best = now = xs[0]\nfor x in xs[1:]:\n    now = max(x, now + x)\n    best = max(best, now)\nprint(best)",
    "all pairs": READ + "print(max(sum(xs[i:j]) for i in range(n) for j in range(i + 1, n + 1)))",
    "prefix sums": (
        READ + "low = total = 0\nbest = xs[0]\nfor x in xs:\n    total += x\n    best = max(best, total - low)\n"
        "    low = min(low, total)\nprint(best)"
    ),
}  # fmt: skip
WRONG = {
    "takes none of negative numbers": READ
    + "best = now = 0\nfor x in xs:\n    now = max(0, now + x)\n    best = max(best, now)\nprint(best)",
    "adds what is positive": READ + "print(sum(x for x in xs if x > 0) or max(xs))",
    "takes all": READ + "print(sum(xs))",
    "takes the largest": READ + "print(max(xs))",
    "forgets the last": READ + "print(max([sum(xs[i:j]) for i in range(n) for j in range(i + 1, n)] + [xs[0]]))",
    "takes too long": READ
    + "while n > 12: pass\nprint(max(sum(xs[i:j]) for i in range(n) for j in range(i + 1, n + 1)))",
    "right after all": RIGHT["all pairs"],
}  # fmt: skip
GENERATORS = [
    "n = random.randint(1, 8)\nprint(n)\nprint(*[random.randint(-9, 9) for _ in range(n)])",
    "import random\nprint(20)\nprint(*[random.randint(-99, 99) for _ in range(20)])",
    "print(3)\nprint(*[random.randint(-9, -1) for _ in range(3)])",
    "print(3)\nprint(1, 2)",  # against the statement
    "raise ValueError",
    "pass",
]


@pytest.mark.skipif(probe().level == "none", reason="no sandbox on this host")
def test_a_problem_from_generators_to_a_record():
    run, right, wrong = sandboxed(1.0), list(RIGHT.values()), list(WRONG.values())
    made = make_tests(GENERATORS, right, wrong, range(2), run)
    assert made.unexposed == [list(WRONG).index("right after all")]
    assert made.invalid == [("3\n1 2\n", "right program 0 fails on it")]
    assert 2 <= len(made.tests) <= 6
    record = {"tests": made.records, "timeout": 1.0}
    outcomes = {name: code_reward(record, f"```python\n{code}\n```").outcome for name, code in (RIGHT | WRONG).items()}
    expected = dict.fromkeys(RIGHT, "correct") | dict.fromkeys(WRONG, "wrong") | {"right after all": "correct"}
    assert outcomes == expected


def table(rows: dict):
    """A runner that looks up what programs print."""
    return lambda program, stdin: rows.get((program, stdin))


def test_right_programs_must_agree():
    rows = {("a", "1"): "x\n", ("b", "1"): "x", ("a", "2"): "x", ("b", "2"): "y", ("a", "3"): "x", ("b", "4"): "x"}
    tests, invalid = expect_outputs(["1", "2", "3", "4"], ["a", "b"], table(rows))
    assert tests == [OutputTest("1", "x\n")]
    assert [text for text, _ in invalid] == ["2", "3", "4"]
    assert [reason.split(" ", 2)[1:][0] for _, reason in invalid] == ["programs", "program", "program"]
    with pytest.raises(ValueError, match="reference"):
        expect_outputs(["1"], [], table(rows))


def test_a_tolerance_holds_in_both_filters():
    rows = {("a", "1"): "0.5", ("b", "1"): "0.5000001", ("w", "1"): "0.51", ("v", "1"): "0.4999999"}
    assert expect_outputs(["1"], ["a", "b"], table(rows))[0] == []
    (test,), _ = expect_outputs(["1"], ["a", "b"], table(rows), 1e-6)
    assert exposed_by(test, ["w", "v"], table(rows), 1e-6) == {0}
    assert exposed_by(test, ["w", "v", "crashes"], table(rows)) == {0, 1, 2}


def test_inputs_are_seeded_and_come_once():
    run = lambda program, stdin: in_process(program)
    inputs = make_inputs([GENERATORS[0], "print(1)", "pass", "print(' ')"], range(5), run)
    assert inputs == make_inputs([GENERATORS[0], "print(1)"], range(5), run)
    assert len(inputs) == len(set(inputs)) == 6
    assert make_inputs(["print('1' * (1 << 21))"], [0], run) == []


def in_process(program: str) -> str:
    """What a program of this file prints; for programs this test has made itself."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program, {})
    return printed.getvalue()


@given(st.lists(st.frozensets(st.integers(0, 5)), max_size=7), st.integers(0, 7))
def test_the_selection_exposes_all_that_can_be_exposed_and_none_of_it_is_idle(exposed, minimum):
    tests = [OutputTest(str(place), "") for place in range(len(exposed))]
    found = select_tests(tests, exposed, 6)
    chosen = [exposed[int(test.stdin)] for test in found.tests]
    everything = frozenset().union(*exposed)
    assert frozenset().union(*chosen) == everything and found.unexposed == sorted(set(range(6)) - everything)
    for place in range(len(chosen)):
        assert frozenset().union(*chosen[:place], *chosen[place + 1 :]) != everything
    smallest = next(
        size for size in range(len(exposed) + 1)
        if any(frozenset().union(*some) == everything for some in itertools.combinations(exposed, size))
    )  # fmt: skip
    assert (
        smallest <= len(chosen) <= 2.45 * smallest
    )  # the bound of the greedy cover for six programs: 1 + 1/2 + ... + 1/6
    more = select_tests(tests, exposed, 6, minimum)
    assert len(more.tests) == max(len(chosen), min(minimum, len(tests))) and set(found.tests) <= set(more.tests)
    assert more.tests == sorted(more.tests, key=lambda test: int(test.stdin))
