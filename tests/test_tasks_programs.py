"""Small program synthesis: the problems, their hidden tests, and who passes them."""

import contextlib
import io
import json
import random

import numpy as np
import pytest

from r1jax.rewards.code import check_reference
from r1jax.rewards.sandbox import probe
from r1jax.tasks import programs
from r1jax.tasks.programs import LEVELS, TESTS, draw, judge

needs_sandbox = pytest.mark.skipif(probe().level == "none", reason="no sandbox on this host")


def run_in_process(program: str, stdin: str) -> str:
    """What a reference solution prints; for programs of this project only."""
    lines = iter(stdin.splitlines())
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program, {"input": lambda: next(lines)})
    return printed.getvalue()


@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_program_agrees_with_the_functions_on_every_test(level):
    for seed in range(200):
        record = draw(level, np.random.default_rng([level, seed]))
        assert len(record["tests"]) == TESTS and len({test["stdout"] for test in record["tests"]}) >= 5
        for test in record["tests"]:
            assert run_in_process(record["solution"], test["stdin"]) == test["stdout"], record


def test_every_step_is_drawn_and_described_once():
    rng = np.random.default_rng(0)
    for steps in (programs._number_steps(rng), programs._word_steps(rng)):
        assert len({step.text for step in steps}) == len({step.code for step in steps}) == len(steps)
    questions = " ".join(draw(5, np.random.default_rng(seed))["question"] for seed in range(300))
    for step in programs._number_steps(rng) + programs._word_steps(rng):
        assert " ".join(step.text.split()[:3]) in questions


@pytest.mark.parametrize("level", LEVELS)
def test_levels_have_their_number_of_steps(level):
    for seed in range(100):
        record = draw(level, np.random.default_rng(seed))
        steps = programs.SIZES[level - 1].steps
        assert f"\n{steps + 1}. " in record["question"] and f"\n{steps + 2}. " not in record["question"]


def test_a_draw_depends_on_the_generator_alone_and_is_json():
    records = [draw(3, np.random.default_rng(7)) for _ in range(2)]
    assert records[0] == records[1] == json.loads(json.dumps(records[0]))
    assert len({draw(3, np.random.default_rng(seed))["question"] for seed in range(100)}) > 90
    with pytest.raises(ValueError, match="no level 6"):
        draw(6, np.random.default_rng(0))


@needs_sandbox
def test_reference_programs_are_judged_right_in_the_sandbox_and_changed_ones_wrong():
    for level in LEVELS:
        record = draw(level, np.random.default_rng(level))
        without_output = "\n".join(record["solution"].splitlines()[:-1])
        assert judge(record, f"<think> a </think>\n```python\n{record['solution']}```").outcome == "correct"
        assert judge(record, f"```python\n{without_output}\n```").outcome == "wrong"
        assert judge(record, f"<think>\n```python\n{record['solution']}```").outcome == "no_answer"
    assert check_reference(record) is None


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_that_leaves_out_one_step_fails(level):
    """Judged in this process, by comparing what is printed."""
    rng = random.Random(level)
    for seed in range(60):
        record = draw(level, np.random.default_rng([seed, level]))
        body = record["solution"].splitlines()
        starts = [place for place, line in enumerate(body) if not line.startswith(" ")]
        first = 2 if body[0].startswith("n =") else 1
        place = rng.choice([start for start in starts[:-1] if start >= first])
        end = starts[starts.index(place) + 1]
        program = "\n".join(body[:place] + body[end:])
        assert any(run_in_process(program, test["stdin"]) != test["stdout"] for test in record["tests"]), record
