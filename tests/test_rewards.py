"""What every judge returns."""

import pickle

from r1jax.rewards.format import format_reward
from r1jax.rewards.judgement import TEACHING_OUTCOMES, Judgement


def test_rewards_travel_between_processes():
    assert pickle.loads(pickle.dumps(format_reward)) is format_reward
    assert pickle.loads(pickle.dumps(Judgement("wrong", 0.0))) == Judgement("wrong", 0.0)


def test_failures_of_the_judge_do_not_teach():
    assert set(TEACHING_OUTCOMES) == {"correct", "wrong", "no_answer"}
