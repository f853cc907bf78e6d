"""Shaping ingredients against their papers' formulas, computed another way."""

import math
from collections import Counter

import numpy as np
import pytest
from growth import growth
from hypothesis import given
from hypothesis import strategies as st

from r1jax.rewards.format import TAGS, zero_flaw
from r1jax.rewards.shaping import (
    cosine_length,
    group_length,
    repetition_penalty,
    soft_overlong,
    tag_count,
    text_units,
)

GOOD = "<think>a</think><answer>1</answer>"


@given(st.lists(st.integers(0, 40_000), max_size=8), st.integers(1, 20_480), st.integers(1, 20_480))
def test_soft_overlong_is_equation_13_of_dapo(tokens, one, other):
    cache, limit = min(one, other), max(one, other)

    def punishment(length):
        if length <= limit - cache:
            return 0.0
        return (limit - cache - length) / cache if length <= limit else -1.0

    np.testing.assert_allclose(soft_overlong(tokens, max_length=limit, cache=cache), [punishment(n) for n in tokens])


def test_soft_overlong_by_the_numbers_of_the_paper():
    lengths = [0, 16_384, 18_432, 20_480, 50_000]
    assert soft_overlong(lengths, max_length=20_480, cache=4_096).tolist() == [0, 0, -0.5, -1, -1]
    assert soft_overlong(18_432, max_length=20_480, cache=4_096).shape == ()


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=8))
def test_cosine_length_follows_its_cosine_and_never_turns_up_again(pairs):
    tokens, correct = [n for n, _ in pairs], [ok for _, ok in pairs]

    def reward(length, ok):
        if length >= 100:
            return -10.0
        start, end = (2.0, 1.0) if ok else (-10.0, 0.0)
        return end + (start - end) * (1 + math.cos(math.pi * length / 100)) / 2

    expected = [reward(*pair) for pair in pairs]
    np.testing.assert_allclose(cosine_length(tokens, correct, max_length=100), expected, atol=1e-12)


def test_cosine_length_prefers_short_where_right_and_long_where_wrong():
    lengths = np.arange(100)
    right = cosine_length(lengths, np.ones(100, bool), max_length=100)
    wrong = cosine_length(lengths, np.zeros(100, bool), max_length=100)
    assert (np.diff(right) < 0).all() and (np.diff(wrong) > 0).all() and right.min() >= 1 and wrong.max() <= 0
    assert (cosine_length([100, 150, 200, 10**9], [True] * 4, max_length=100) == -10).all()


GROUPS = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), min_size=4, max_size=4),
    min_size=1,
    max_size=4,
)


@given(GROUPS)
def test_group_length_is_the_formula_of_kimi_within_each_group(groups):
    tokens, correct, known = (np.array([[row[i] for row in group] for group in groups]) for i in range(3))
    expected = np.zeros(tokens.shape)
    for p, group in enumerate(groups):
        counted = [length for length, _, judged in group if judged]
        for i, (length, ok, judged) in enumerate(group):
            if judged and max(counted) > min(counted):
                value = 0.5 - (length - min(counted)) / (max(counted) - min(counted))
                expected[p, i] = value if ok else min(0.0, value)
    np.testing.assert_allclose(group_length(tokens, correct, known), expected)


def test_group_length_does_not_look_at_other_groups():
    rewards = group_length([[10, 20], [1000, 1000]], [[True, True], [True, False]])
    assert rewards.tolist() == [[0.5, -0.5], [0, 0]]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_repetition_counts_the_ngrams_that_were_there_before(items, n):
    grams = Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))
    total = sum(grams.values())
    expected = -sum(count - 1 for count in grams.values()) / total if total else 0.0
    assert repetition_penalty(items, n=n) == pytest.approx(expected)
    assert repetition_penalty(items, n=n, max_penalty=2.0) == pytest.approx(2 * expected)


def test_repetition_of_text_in_any_script():
    assert text_units("Wait, x轴上的点 Wait_wait") == ["wait", "x", "轴", "上", "的", "点", "wait", "wait"]
    assert repetition_penalty(text_units("等一下。" * 50), n=3) < -0.9
    assert repetition_penalty(text_units("我们先计算第一项的值"), n=3) == 0.0
    assert math.copysign(1, repetition_penalty([], n=3)) == math.copysign(1, repetition_penalty([1, 2, 3], n=3)) == 1


PARTIAL = {
    "whole": (GOOD, 1.0),
    "nothing": ("", 0.0),
    "text after": (GOOD + "x", 0.75),
    "empty answer": ("<think>a</think><answer></answer>", 0.75),
    "no answer": ("<think>a</think> 1", 0.5),
    "never closed": ("<think>a", 0.25),
    "answer first": ("<answer>1</answer><think>a</think>", 0.5),
    "two blocks": (GOOD + GOOD, 0.0),
    "many openings": ("<think>" * 9 + "</think>", 0.25),
}


@pytest.mark.parametrize("text, score", PARTIAL.values(), ids=PARTIAL)
def test_tag_count(text, score):
    assert tag_count(text) == score


def test_tag_count_with_a_prefilled_tag():
    assert tag_count(GOOD.removeprefix("<think>"), "<think>\n") == 1.0
    assert tag_count(GOOD, "<think>\n") == 0.75


@given(st.lists(st.sampled_from([*TAGS, "a", " "])))
def test_tag_count_is_full_only_with_the_whole_format(pieces):
    text = "".join(pieces)
    assert (tag_count(text) == 1.0) == (zero_flaw(text) is None)
    assert tag_count(text) in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert tag_count(text + text) < 1.0


@given(st.text())
def test_any_text_can_be_shaped(text):
    assert -1 <= repetition_penalty(text_units(text), n=2) <= 0 <= tag_count(text) <= 1


@pytest.mark.parametrize("unit", ["a", "a ", "的", "_", *TAGS])
def test_the_time_is_linear(unit):
    make = lambda n: unit * (n // len(unit))
    assert growth(lambda text: repetition_penalty(text_units(text), n=4), make, 20_000) < 40
    assert growth(tag_count, make, 50_000) < 40


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: soft_overlong(5, max_length=10, cache=11), "cache is 11"),
        (lambda: soft_overlong(5, max_length=10, cache=0), "cache is 0"),
        (lambda: soft_overlong([-1], max_length=10, cache=5), "a length is -1 tokens"),
        (lambda: soft_overlong([math.nan], max_length=10, cache=5), "a length is nan tokens"),
        (lambda: cosine_length([1, 2], [True], max_length=10), r"\(1,\) flags for \(2,\) lengths"),
        (lambda: cosine_length([1], [True], max_length=0), "max_length is 0"),
        (lambda: group_length([[1, 2]], [[True, False]], [True]), "flags"),
        (lambda: repetition_penalty([1], n=0), "n is 0"),
        (lambda: repetition_penalty([1], n=1, max_penalty=-1), "max_penalty -1"),
    ],
)
def test_wrong_arguments_are_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
