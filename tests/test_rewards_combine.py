"""Weights, gates and masks against the sums written out."""

import math
import random

import numpy as np
import pytest

from r1jax.rewards.combine import Term, combine, combine_groups
from r1jax.rewards.judgement import OUTCOMES, TEACHING_OUTCOMES, Judgement

RIGHT, WRONG, PART = Judgement("correct", 1.0), Judgement("wrong", 0.0), Judgement("wrong", 0.25)
LOST = Judgement("timeout", 0.0, "no verdict")


@pytest.mark.parametrize(
    ("judgements", "terms", "reward"),
    [
        # DeepSeek-R1: accuracy and format with the same weight, the share of words in the target language added.
        ({"accuracy": RIGHT, "format": RIGHT}, {"accuracy": Term(), "format": Term()}, 2.0),
        ({"accuracy": WRONG, "format": RIGHT}, {"accuracy": Term(), "format": Term()}, 1.0),
        ({"a": RIGHT, "f": WRONG, "l": Judgement("correct", 0.75)}, {"a": Term(), "f": Term(), "l": Term()}, 1.75),
        ({"accuracy": PART, "format": RIGHT}, {"accuracy": Term(2.0), "format": Term(-0.5)}, 0.0),
        ({"accuracy": RIGHT, "format": RIGHT}, {"accuracy": Term()}, 1.0),
        # A gate is open for "correct" alone, whatever the score.
        ({"accuracy": RIGHT, "length": PART}, {"accuracy": Term(), "length": Term(1.0, gate="accuracy")}, 1.25),
        ({"accuracy": PART, "length": RIGHT}, {"accuracy": Term(), "length": Term(1.0, gate="accuracy")}, 0.25),
        ({"accuracy": PART, "format": RIGHT}, {"accuracy": Term(1.0, gate="format")}, 0.25),
        ({"accuracy": RIGHT}, {}, 0.0),
    ],
)
def test_reward(judgements, terms, reward):
    combined = combine(judgements, terms)
    assert combined.known and combined.reward == reward == math.fsum(combined.parts.values())
    assert combined.parts.keys() == terms.keys()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_what_teaches_is_known(outcome):
    """A judge that failed masks the sample where it enters the reward, as a term or as a gate, and only there."""
    said, known = {"a": Judgement(outcome, 0.0), "b": RIGHT}, outcome in TEACHING_OUTCOMES
    assert combine(said, {"a": Term(), "b": Term()}).known == known
    assert combine(said, {"b": Term(gate="a")}).known == known
    assert combine(said, {"a": Term(1.0, gate="b"), "b": Term()}).known == known
    assert combine(said, {"b": Term()}).known
    assert combine(said, {"a": Term(0.0), "b": Term(0.0, gate="a")}).known
    assert combine(said, {"a": Term(), "b": Term()}).reward == float(known)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"speed": Term()}, "the term 'speed' needs a judge 'speed'; there are accuracy"),
        ({"accuracy": Term(gate="format")}, "needs a judge 'format'"),
        ({"accuracy": Term(math.nan)}, "has the weight nan"),
    ],
)
def test_terms_that_cannot_be(terms, says):
    with pytest.raises(ValueError, match=says):
        combine({"accuracy": RIGHT}, terms)


def test_groups():
    groups = [[{"a": RIGHT, "f": RIGHT}, {"a": LOST, "f": RIGHT}], [{"a": PART, "f": WRONG}, {"a": RIGHT, "f": WRONG}]]
    rewards, known, parts = combine_groups(groups, {"a": Term(2.0), "f": Term()})
    np.testing.assert_array_equal(rewards, np.array([[3, 0], [0.5, 2]], np.float32))
    np.testing.assert_array_equal(known, [[True, False], [True, True]])
    assert rewards.dtype == np.float32 and known.dtype == bool
    assert parts == {"a": (2 + 0.5 + 2) / 3, "f": 1 / 3}
    assert combine_groups([[{"a": LOST}]], {"a": Term()}).parts == {"a": 0.0}


def test_the_mean_of_the_parts_is_that_of_the_known_rewards():
    rng, choices = random.Random(0), (RIGHT, WRONG, PART, LOST)
    groups = [[{n: rng.choice(choices) for n in "abc"} for _ in range(8)] for _ in range(20)]
    terms = {"a": Term(), "b": Term(0.5, gate="a"), "c": Term(-1.0)}
    rewards, known, parts = combine_groups(groups, terms)
    assert 0.2 < known.mean() < 0.7
    np.testing.assert_allclose(rewards[known].mean(), sum(parts.values()), rtol=1e-6)
