"""The doctor names what would keep the reward flat, and is silent where nothing would."""

import pytest

from r1jax.doctor import diagnose
from r1jax.evaluation import Response, describe_responses, judge_outcomes
from r1jax.rewards.format import format_reward
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.countdown import countdown_reward

RECORD = {"numbers": [3, 4, 5], "target": 12, "level": 1}
RIGHT, WRONG = "<think> a </think> <answer> 3 * 4 </answer>", "<think> a </think> <answer> 3 + 4 </answer>"


def slow(record, text):
    return Judgement("timeout", 0.0, "no verdict within 5 s")


def findings(texts, *, prompt="Assistant:", finished=True, judge=countdown_reward, **metrics):
    judges = {"accuracy": judge, "format": format_reward}
    group = [Response(t, 9, finished, {n: j(RECORD, t) for n, j in judges.items()}) for t in texts]
    measured = describe_responses([RECORD], [group]) | {"outcomes": judge_outcomes([group])}
    measured |= {"sampler_mismatch": 1e-7, "sampler_mismatch_max": 1e-6, "zero_variance_groups": 0.0} | metrics
    return diagnose([prompt], [group], measured, max_new_tokens=64)


def test_silent_on_a_healthy_start():
    assert findings([RIGHT, WRONG, WRONG]) == []


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("cut at 64 tokens", {"texts": [RIGHT, "<think> and"], "finished": False}),
        ("end-of-sequence is never sampled", {"texts": [RIGHT, WRONG], "finished": False}),
        ("missing <answer>", {"texts": [RIGHT, "<think> a </think> 12", "<think> a </think> 12"]}),
        ("12", {"texts": [RIGHT, "<think> a </think> 12", "<think> a </think> 12"]}),
        ("<think> more than once", {"texts": [RIGHT, "<think> " + WRONG, "<think> " + WRONG]}),
        ("already opens <think>", {"texts": [WRONG.removeprefix("<think>")] * 3, "prompt": "Assistant: <think>\n"}),
        ("not one response is right", {"texts": [WRONG, WRONG]}),
        ("sampler and trainer disagree by 0.3 nats", {"texts": [RIGHT, WRONG], "sampler_mismatch": 0.3}),
        ("mostly never right", {"texts": [RIGHT, WRONG, WRONG], "zero_variance_groups": 0.9}),
        ("mostly always right", {"texts": [RIGHT, RIGHT, WRONG], "zero_variance_groups": 0.9}),
        (
            "judge of accuracy could not decide on 100% of the responses (timeout 100%)",
            {"texts": [RIGHT], "judge": slow},
        ),
        ("Most often: no verdict within 5 s", {"texts": [RIGHT], "judge": slow}),
    ],
)
def test_names_what_is_wrong(says, options):
    found = findings(**options)
    assert any(says in line for line in found), found


def test_the_most_damaging_comes_first():
    found = findings([WRONG, "<think>"], finished=False, sampler_mismatch=1.0, zero_variance_groups=1.0)
    assert "disagree" in found[0] and len(found) >= 4
