"""The statistics of evaluation against brute force."""

import itertools
import math

import numpy as np
import pytest

from r1jax.evaluation import (
    Response,
    accuracy_ci95,
    describe_responses,
    majority_vote,
    outcome_rates,
    pass_at_k,
    summarize,
)
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.tasks.countdown import countdown_reward

RECORD = {"numbers": [3, 4, 5], "target": 12, "level": 1}
JUDGES = {"accuracy": countdown_reward, "format": format_reward}


def respond(thought, answer, tokens=10, finished=True, record=RECORD):
    text = f"<think> {thought} </think> <answer> {answer} </answer>"
    return Response(text, tokens, finished, {name: judge(record, text) for name, judge in JUDGES.items()})


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_subsets(k):
    correct = np.random.default_rng(0).integers(0, 2, (7, 5))
    subsets = [[max(row[list(chosen)]) for chosen in itertools.combinations(range(5), k)] for row in correct]
    assert math.isclose(pass_at_k(correct, k), np.mean(subsets), rel_tol=1e-12)


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@6 needs at least 6 samples a problem, and there are 5"):
        pass_at_k(np.ones((2, 5)), 6)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Problems differ in difficulty, so samples of one problem are not independent; problems are."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(1000):
        difficulty = rng.beta(0.5, 0.5, 200)
        correct = rng.random((200, 8)) < difficulty[:, None]
        covered += abs(correct.mean() - 0.5) < accuracy_ci95(correct)
    assert 0.93 < covered / 1000 < 0.97


@pytest.mark.parametrize(
    ("answers", "correct", "score"),
    [
        ([["a", "a", "b"]], [[1, 1, 0]], 1.0),
        ([["a", "b", "b"]], [[1, 0, 0]], 0.0),
        ([["a", "b", None]], [[1, 0, 0]], 0.5),
        ([[None, None, "a"]], [[0, 0, 1]], 1.0),
        ([[None, None, None]], [[0, 0, 0]], 0.0),
        ([["a", "a", "b"], ["c", "d", "d"]], [[1, 1, 0], [1, 0, 0]], 0.5),
    ],
)
def test_majority_vote(answers, correct, score):
    assert majority_vote(answers, correct) == score


def test_behaviour_of_responses():
    groups = [
        [
            respond("3 * 4", "3 * 4", tokens=8),
            respond("3 + 4 = 7 no wait 3 * 4 = 12 yes", "3 * 4", tokens=20),
            respond("3 + 4 = 8 no 3 + 4 = 7 yes", "3 + 4", tokens=20),
            respond("3 + 4 = 7 no", "3 + 4", tokens=12, finished=False),
        ]
    ]
    found = describe_responses([RECORD], groups)
    assert found["accuracy"] == 0.5 and found["format_share"] == 1.0
    assert found["mean_response_tokens"] == found["mean_response_tokens_level_1"] == 15.0
    assert found["truncated_share"] == 0.25 and found["reflect_share"] == 0.25
    assert found["verify_share"] == 0.75 and found["retry_share"] == 0.5
    # Five checks: a wrong value and a wrong mark among them, and one expression twice.
    assert math.isclose(found["verdict_fidelity"], 3 / 5) and math.isclose(found["repeat_share"], 1 / 5)
    assert outcome_rates(groups) == {"correct": 0.5, "wrong": 0.5}


def test_summary_of_several_problems():
    other = {"numbers": [2, 5, 9], "target": 7, "level": 2}
    groups = [
        [respond("", "3 * 4")] * 4,
        [respond("", "2 + 5", record=other)] + [respond("", "2 + 9", record=other)] * 3,
    ]
    result = summarize([RECORD, other], groups, extract_answer)
    assert result["accuracy"] == result["pass_at_1"] == 0.625 and result["pass_at_4"] == 1.0
    assert result["majority_at_4"] == 0.5
    assert result["accuracy_level_1"] == 1.0 and result["accuracy_level_2"] == 0.25
    assert result["problems"] == 2 and result["samples_per_problem"] == 4 and "pass_at_8" not in result
