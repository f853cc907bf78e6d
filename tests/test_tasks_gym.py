"""reasoning-gym's generators: only their problems are used, and only exact answers count."""

import ast
import inspect
import json
import math
import re
import sys
from fractions import Fraction

import numpy as np
import pytest

from r1jax.tasks import gym
from r1jax.tasks.families import GYM_FAMILIES, family_reward, is_held_out
from r1jax.tasks.levels import LEVELS

RECORD = {"family": "reasoning_gym:gcd", "form": "number", "answer": "12"}


@pytest.fixture(scope="module")
def records():
    pytest.importorskip("reasoning_gym")
    draw = lambda dataset, level, seed: gym.draw(dataset, level, np.random.default_rng([seed, level]))
    return {name: [draw(name, level, seed) for level in LEVELS for seed in range(3)] for name in gym.DATASETS}


def outcome(record, answer):
    return family_reward(record, f"<think> </think> <answer>{answer}</answer>").outcome


def perturbed(record):
    """Answers that are near the right one and wrong."""
    text = record["answer"]
    wrong = [f"{text} or {text}1", f"The answer is {text}", f"{text}\n{text}x"]
    if record["form"] == "number":
        return [
            *wrong,
            str(Fraction(text) + 1),
            str(Fraction(text) - Fraction(1, 10**9)),
            f"{text} {text}",
            f"1{text}1",
        ]
    if record["form"] == "truth":
        return [*wrong, str(text not in ("True", "Yes")), "True or False", "Yes No"]
    items = re.split(r",\s*|\s+", text)
    if record["form"] in ("items", "integers") and len(set(items)) > 1:
        wrong += [", ".join(items[::-1])] if items != items[::-1] else []
        wrong += [", ".join(items[:-1]), ", ".join([*items, items[0]])]
    return [*wrong, f"{text}z", text[1:] or "z", f"z{text}"]


def test_right_answers_are_correct_and_perturbed_ones_wrong(records):
    for name, drawn in records.items():
        for record in drawn:
            assert record["family"] == f"reasoning_gym:{name}" and json.loads(json.dumps(record)) == record
            assert outcome(record, record["answer"]) == "correct", record
            assert family_reward(record, f"</think> \\boxed{{{record['answer']}}}").outcome == "correct", record
            for answer in perturbed(record):
                assert outcome(record, answer) == "wrong", (record, answer)


def test_answers_agree_with_solvers_of_our_own(records):
    numbers = lambda record: [int(number) for number in re.findall(r"-?[0-9]+", record["question"])]
    value = {
        "gcd": lambda r: math.gcd(*numbers(r)),
        "lcm": lambda r: math.lcm(*numbers(r)),
        "count_bits": lambda r: numbers(r)[-1].bit_count(),
        "products": lambda r: math.prod(map(int, re.search(r": ([0-9 *]+)\.", r["question"])[1].split("*"))),
        "count_primes": lambda r: sum(map(is_prime, range(numbers(r)[0], numbers(r)[1] + 1))),
        "chain_sum": lambda r: total(re.search(r": ([-0-9 +.]+) =", r["question"])[1]),
        "decimal_chain_sum": lambda r: total(re.search(r": ([-0-9 +.]+) =", r["question"])[1]),
    }
    for name, solve in value.items():
        for record in records[name]:
            assert Fraction(solve(record)) == Fraction(record["answer"]), record
    for record in records["base_conversion"]:
        question = record["question"].replace("binary", "base-2").replace("hexadecimal", "base-16")
        base, text, target = re.search(r"base-(\d+) number (\w+) to base-(\d+)", question).groups()
        assert int(text, int(base)) == int(record["answer"], int(target))
    for record in records["spell_backward"]:
        assert re.search(r": (\w+)$", record["question"])[1] == record["answer"][::-1]
    for record in records["word_sorting"]:
        assert record["answer"].split(", ") in (sorted(words := record["answer"].split(", ")), sorted(words)[::-1])


def is_prime(number):
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def total(text):
    terms = text.replace("- ", "+ -").replace("--", "").split("+ ")
    return sum(Fraction(term.replace(" ", "")) for term in terms)


def test_an_answer_that_cannot_be_written_is_drawn_again():
    pytest.importorskip("reasoning_gym")
    for seed in range(150):  # one in a hundred string manipulations leaves nothing
        record = gym.draw("string_manipulation", 5, np.random.default_rng(seed))
        assert outcome(record, record["answer"]) == "correct", record


def test_draws_are_deterministic_and_refuse_what_is_not_admitted():
    pytest.importorskip("reasoning_gym")
    draw = lambda name, level, seed: gym.draw(name, level, np.random.default_rng(seed))
    assert draw("gcd", 2, 7) == draw("gcd", 2, 7) != draw("gcd", 2, 8)
    for name in ("string_insertion", "n_queens", "no_such_set"):  # the first two eval the model's text to score it
        with pytest.raises(ValueError, match="admitted are base_conversion"):
            draw(name, 1, 0)
    with pytest.raises(ValueError, match="level"):
        draw("gcd", 6, 0)
    family = next(family for family in GYM_FAMILIES if family.name == "reasoning_gym:products")
    held_out = [is_held_out(family.draw(3, np.random.default_rng(seed))) for seed in range(300)]
    assert 10 < sum(held_out) < 60


def test_a_missing_package_is_named(monkeypatch):
    for name in ("reasoning_gym", "reasoning_gym.factory"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=r"pip install 'r1jax\[reasoning-gym\]'"):
        gym.draw("gcd", 1, np.random.default_rng(0))
    assert outcome(RECORD, "12") == "correct" and outcome(RECORD, "13") == "wrong"  # judging needs no generator


def test_no_scorer_of_the_package_is_called():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(gym))) if isinstance(node, ast.Attribute)]
    assert not [node.attr for node in calls if "score" in node.attr]


def test_a_broken_record_says_which_field():
    for name in ("form", "answer"):
        for value in (None, [], "", "poem" if name == "form" else "twelve"):
            judgement = family_reward(RECORD | {name: value}, "<answer>12</answer>")
            assert judgement.outcome == "gold_unparseable" and repr(name) in judgement.reason
