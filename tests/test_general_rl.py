"""The rewards of the last stage: rules for reasoning, reward models for the rest, and what must not count."""

import numpy as np
import pytest

from experiments.general_rl import Config, alternating, main, mixed_rewards
from r1jax.config import UserError
from r1jax.evaluation import Response
from r1jax.rewards.judgement import Judgement
from r1jax.rl_loop import Asked
from r1jax.tasks.families import read_parts

GENERAL = {"requests", "safety"}


def response(text, accuracy="correct", form=1.0, language=1.0):
    judge = lambda score: Judgement("correct" if score == 1.0 else "wrong", score)
    judgements = {"accuracy": Judgement(accuracy, float(accuracy == "correct"))}
    return Response(text, 5, True, judgements | {"format": judge(form), "language": judge(language)})


def scorer(values, seen):
    def score(prompts, responses):
        seen.append((tuple(prompts), tuple(responses)))
        return np.array([values[text] for text in responses], np.float32)

    return score


def rewards(records, groups, values, seen=None):
    asked = Asked(records, [f"prompt {n}" for n in range(len(records))])
    seen = [] if seen is None else seen
    scorers = {kind: scorer(values, seen) for kind in ("helpful", "safety")}
    return mixed_rewards(asked, groups, scorers, GENERAL)


def test_reasoning_is_rewarded_by_rules_and_no_reward_model_is_asked():
    seen = []
    group = [response("a"), response("b", accuracy="wrong", language=0.5), response("c", form=0.0)]
    result = rewards([{"family": "chains"}], [group], {}, seen)
    np.testing.assert_allclose(result.rewards, [[3.0, 1.5, 2.0]])
    assert not seen and result.known.all()


def test_general_prompts_are_rewarded_by_their_reward_model_and_never_by_the_hidden_rule():
    seen, values = [], {"a": 0.0, "b": 2.0}
    groups = [[response("a"), response("b", accuracy="wrong")], [response("b", form=0.0), response("a", language=0.25)]]
    result = rewards([{"family": "requests"}, {"family": "safety"}], groups, values, seen)
    high = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(result.rewards, [[2.5, 2 + high], [1 + high, 1.75]], rtol=1e-6)
    assert seen == [(("prompt 0",) * 2, ("a", "b")), (("prompt 1",) * 2, ("b", "a"))]
    assert result.parts["helpful"] == pytest.approx((0.5 + high) / 2) == result.parts["safety"]
    assert "accuracy" not in result.parts


def test_a_judge_of_general_prompts_that_failed_masks_the_sample_unless_it_is_the_hidden_rule():
    lost = lambda name: response("a")._replace(judgements=response("a").judgements | {name: Judgement("timeout", 0.0)})
    result = rewards([{"family": "requests"}], [[lost("language"), lost("accuracy"), response("a")]], {"a": 0.0})
    assert result.known.tolist() == [[False, True, True]] and result.rewards[0, 0] == 0.0


def test_reasoning_and_general_problems_come_in_equal_parts_or_general_ones_alone():
    reasoning, general = read_parts(["countdown:1", "chains:2", "functions:3"]), read_parts(["requests:1", "safety:2"])
    named = lambda parts: [(part.family.name, part.level) for part in parts]
    assert named(alternating(reasoning, general)) == [("countdown", 1), ("requests", 1), ("chains", 2), ("safety", 2)]
    assert alternating([], general) == general
    with pytest.raises(
        UserError, match="--preferences-from must be 1 or more, and 1 without --reasoning-parts, not 16"
    ):
        main(Config(reasoning_parts=()))
