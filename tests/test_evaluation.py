"""The statistics of evaluation against brute force."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

from r1jax.evaluation import (
    Response,
    accuracy_ci95,
    describe_responses,
    evaluation_batches,
    judge_outcomes,
    judged_groups,
    majority_vote,
    pass_at_k,
    summarize,
)
from r1jax.generation.rollout import Rollout
from r1jax.generation.sampler import SamplingConfig
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.rewards.judgement import OUTCOMES, Judgement
from r1jax.rewards.verdict import Judged, judge_inline
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
    assert judge_outcomes(groups) == {
        "accuracy": dict.fromkeys(OUTCOMES, 0.0) | {"correct": 0.5, "wrong": 0.5},
        "format": dict.fromkeys(OUTCOMES, 0.0) | {"correct": 1.0},
    }


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
    assert result["outcomes"]["accuracy"]["wrong"] == 0.375
    assert result["problems"] == 2 and result["samples_per_problem"] == 4 and "pass_at_8" not in result


class Letters:
    """A tokenizer of which every token is one letter."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, tokens):
        return "".join(chr(token) for token in tokens)


def test_a_batch_is_judged_while_the_next_is_sampled():
    """Five problems in batches of two: verdicts join their own responses, and are not waited for before sampling."""
    events, prompts = [], ["a", "b", "c", "d", "e"]
    config = SamplingConfig(prompts=2, group_size=3, prompt_slots=4, max_new_tokens=4)

    def sample(tokens, lengths, *, key):
        """Each completion is the prompt's letter, as often as its place in the group says."""
        events.append("sample")
        mask = np.tile(np.arange(4)[None] < np.arange(1, 4)[:, None], (2, 1, 1))
        letters = np.where(mask, tokens[:, -1][:, None, None], 0)
        return Rollout(letters, mask, np.zeros(mask.shape), mask[..., -2])

    class Waited(Judged):
        def result(self):
            events.append("wait")
            return super().result()

    judge = lambda record, text: Judgement("correct" if record["letter"] in text else "wrong", 1.0, text)

    def submit(records, completions):
        events.append(f"submit {len(completions)}")
        return Waited(*judge_inline({"accuracy": judge, "format": judge}, records, completions))

    options = {"seed": 0, "submit": submit, "records": [{"letter": p} for p in prompts], "prompts": prompts}
    groups = sum(evaluation_batches(sample, Letters(), config, **options), [])
    assert [[r.text for r in group] for group in groups] == [[p, 2 * p, 3 * p] for p in prompts]
    assert all(r.judgements["accuracy"] == ("correct", 1.0, r.text) for group in groups for r in group)
    assert [[r.tokens for r in group] for group in groups] == [[1, 2, 3]] * 5 and groups[0][2].finished
    assert events == ["sample", "submit 6", "sample", "submit 6", "wait", "sample", "submit 3", "wait", "wait"]


def test_verdicts_must_be_as_many_as_responses():
    rollout = Rollout(np.zeros((1, 2, 3)), np.ones((1, 2, 3), bool), None, np.ones((1, 2), bool))
    judging = partial(judge_inline, JUDGES)([RECORD] * 3, ["a", "b", "c"])
    with pytest.raises(ValueError):
        judged_groups(judging, rollout, [["a", "b"]])
