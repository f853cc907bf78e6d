"""Countdown: expressions, problems, answers, the miniature corpus, and what is read from a response."""

import hashlib
import itertools
import random
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from r1jax.rewards.format import format_problem
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.authors import Population, write_document
from r1jax.tasks.behaviour import Check, count_reflection_words, read_checks
from r1jax.tasks.countdown import LEVELS, Problem, candidates, check_answer, countdown_reward, is_held_out, problems
from r1jax.tasks.expression import MAX_DEPTH, MAX_LENGTH, evaluate

# Expressions


def random_expression(rng, depth=0):
    if depth > 3 or rng.random() < 0.3:
        return str(rng.choice((0, 1, 2, 3, 7, 12, 99, 1000)))
    left, right = random_expression(rng, depth + 1), random_expression(rng, depth + 1)
    text = f"{left}{rng.choice(('', ' '))}{rng.choice('+-*/')}{rng.choice(('', ' ', '  '))}{right}"
    return f"({text})" if rng.random() < 0.5 else text


def python_value(text):
    """The value by Python's own grammar; for texts this test has made itself."""
    pieces = "".join(f"Fraction({piece})" if piece.isdigit() else piece for piece in _split_numbers(text))
    return eval(pieces, {"Fraction": Fraction})  # noqa: S307


def _split_numbers(text):
    return ["".join(run) for _, run in itertools.groupby(text, str.isdigit)]


def test_evaluate_agrees_with_python():
    rng, divisions = random.Random(0), 0
    texts = [text for text in (random_expression(rng) for _ in range(3000)) if len(text) <= MAX_LENGTH]
    for text in texts:
        try:
            expected = python_value(text)
        except ZeroDivisionError:
            divisions += 1
            with pytest.raises(ValueError, match="zero"):
                evaluate(text)
            continue
        assert evaluate(text) == (expected, [int(piece) for piece in _split_numbers(text) if piece.isdigit()])
    assert 20 < divisions < len(texts) / 2


def test_evaluate_is_exact_and_reads_numbers_in_order():
    assert evaluate(" 1/3 + (2-5)*4 ") == (Fraction(1, 3) - 12, [1, 3, 2, 5, 4])
    assert evaluate("8 - 4 - 2") == (Fraction(2), [8, 4, 2])
    assert evaluate("8 / 4 / 2") == (Fraction(1), [8, 4, 2])
    assert evaluate("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH)[0] == 1
    assert evaluate("999999999")[0] == 999999999


HOSTILE = {
    "nothing": "",
    "white space": " \n",
    "power": "2 ** 3",
    "tower": "9**9**9**9",
    "caret": "2 ^ 3",
    "floor division": "7 // 2",
    "long number": "1234567890",
    "very long number": "9" * 150,
    "too long": "1" + " + 1" * 50,
    "much too long": "1+" * 10**6 + "1",
    "deep": "(" * 3000 + "1" + ")" * 3000,
    "deep but short": "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
    "unary minus": "-1 + 2",
    "unary minus inside": "3 * -1",
    "unary plus": "+1",
    "name": "x + 1",
    "call": "__import__('os').getpid()",
    "boolean": "True + 1",
    "point": "1.5 + 1",
    "exponent": "1e3",
    "underscore": "1_0 + 1",
    "hexadecimal": "0x10",
    "superscript": "3² + 1",
    "Arabic digits": "٣ + ٤",
    "full-width digits": "３ + ４",
    "circled digit": "①",
    "multiplication sign": "3 × 4",
    "minus sign": "4 − 3",
    "juxtaposition": "2 3",
    "product by juxtaposition": "2(3)",
    "equation": "2 + 3 = 5",
    "comma": "2, 3",
    "open": "(2 + 3",
    "close": "2 + 3)",
    "empty parentheses": "() + 1",
    "operator at the end": "2 +",
    "division by zero": "1 / (2 - 2)",
    "null": "1 + 1\0",
    "tag": "<answer> 1 + 1",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_quickly(text):
    began = time.process_time()
    with pytest.raises(ValueError):
        evaluate(text)
    assert time.process_time() - began < 0.5
    completion = f"<think> a </think> <answer> {text} </answer>"
    assert countdown_reward({"numbers": [1, 2, 3], "target": 5}, completion).score == 0


# Problems and answers


def test_candidates_are_all_sums_differences_and_products_of_two_numbers():
    assert candidates((7, 2, 5)) == [
        ("7 + 2", 9), ("7 - 2", 5), ("7 * 2", 14),
        ("7 + 5", 12), ("7 - 5", 2), ("7 * 5", 35),
        ("2 + 5", 7), ("5 - 2", 3), ("2 * 5", 10),
    ]  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_problems_are_well_formed_solvable_and_not_trivial(level):
    chosen = problems(level, "held_out") + problems(level, "train")[::7]
    for numbers, target, its_level, _ in chosen:
        assert its_level == level and len(set(numbers)) == len(numbers) == level + 2
        assert list(numbers) == sorted(numbers) and 2 <= numbers[0] and numbers[-1] <= 15
        assert target > 0 and target not in numbers
        assert any(target in (a + b, abs(a - b), a * b) for a, b in itertools.combinations(numbers, 2))


def test_splits_are_disjoint_over_all_levels_and_a_tenth_is_held_out():
    key = lambda problem: (tuple(sorted(problem.numbers)), problem.target)
    train, held_out = ([key(p) for level in LEVELS for p in problems(level, split)] for split in ("train", "held_out"))
    assert not set(train) & set(held_out)
    assert len(set(train)) == len(train) and len(set(held_out)) == len(held_out)
    assert 0.09 < len(held_out) / (len(train) + len(held_out)) < 0.11


def test_splits_ignore_the_order_of_the_numbers():
    for problem in problems(1, "held_out")[:20]:
        assert all(is_held_out(order, problem.target) for order in itertools.permutations(problem.numbers))


@pytest.mark.parametrize(
    "level, split, count, digest",
    [
        (1, "train", 2670, "84f3cec351be101e"),
        (1, "held_out", 333, "175faaf6d3818cc0"),
        (2, "train", 13477, "c855c8b44fe55ff9"),
        (2, "held_out", 1456, "a5b1666a56afcb49"),
        (3, "train", 39328, "3defb25c2f10cfb8"),
        (3, "held_out", 4378, "8ffcb15771a64f4e"),
    ],
)
def test_problems_never_change(level, split, count, digest):
    found = problems(level, split)
    assert (len(found), hashlib.sha256(repr([tuple(p[:3]) for p in found]).encode()).hexdigest()[:16]) == (count, digest)


@pytest.mark.parametrize("level, split", [(0, "train"), (4, "train"), (1, "test")])
def test_unknown_levels_and_splits_raise(level, split):
    with pytest.raises(ValueError):
        problems(level, split)


def test_a_problem_describes_itself():
    problem = Problem((2, 5, 7), 12, 1)
    assert problem.question == "Use two of the numbers 2 5 7 to make 12 ."
    asked = {"family": "countdown", "level": 1, "language": "en", "question": problem.question}
    assert problem.record == asked | {"numbers": [2, 5, 7], "target": 12}


@pytest.mark.parametrize(
    "expression, numbers, target, correct",
    [
        ("2 + 3", [2, 3, 9], 5, True),
        ("3+2", [2, 3, 9], 5, True),
        ("(2 + 3)", [2, 3, 9], 5, True),
        ("2 + 3", [2, 3, 9], 6, False),
        ("9 - 2 * 2", [2, 3, 9], 5, False),
        ("9 - 2 * 2", [2, 2, 9], 5, True),
        ("2 + 2 + 2", [2, 2, 9], 6, False),
        ("5", [2, 3, 5], 5, False),
        ("4 + 1", [2, 3, 9], 5, False),
        ("9 / 2", [2, 3, 9], Fraction(9, 2), True),
        ("9 / 2", [2, 3, 9], 4, False),
        ("9 - 3 - 2", [2, 3, 9], 4, True),
    ],
)
def test_an_answer_uses_each_number_at_most_as_often_as_given(expression, numbers, target, correct):
    assert check_answer(expression, numbers, target) is correct
    completion = f"<think> a </think> <answer> {expression} </answer>"
    expected = Judgement("correct", 1.0) if correct else Judgement("wrong", 0.0)
    assert countdown_reward({"numbers": numbers, "target": target}, completion) == expected


def test_a_completion_without_answer_is_told_from_a_wrong_one():
    record = {"numbers": [2, 3, 9], "target": 5}
    assert countdown_reward(record, "2 + 3") == Judgement("no_answer", 0.0)
    assert countdown_reward(record, "<think> <answer> 2 + 3 </answer> </think>") == Judgement("no_answer", 0.0)
    assert countdown_reward(record, "<think> a </think> <answer> two + 3 </answer>") == Judgement("wrong", 0.0)


# The corpus


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [write_document(rng, Population()) for _ in range(12000)]


def assert_share(observed, total, expected):
    """Within four standard deviations of a binomial share."""
    assert abs(observed / total - expected) < 4 * (expected * (1 - expected) / total) ** 0.5


def test_the_kinds_of_document_have_their_shares(documents):
    kinds, population = Counter(d.kind for d in documents), Population()
    solutions = len(documents) - kinds["worksheet"]
    assert_share(kinds["worksheet"], len(documents), population.worksheet)
    assert_share(kinds["blurt"], solutions, population.blurt)
    assert_share(kinds["single"], solutions, population.single)
    assert_share(kinds["search"], solutions, 1 - population.blurt - population.single)
    well_formed = sum(format_problem(d.text) is None for d in documents if d.kind != "worksheet")
    assert_share(well_formed, solutions, 1 - population.malformed)


def test_only_training_problems_appear(documents):
    assert not any(is_held_out(d.record["numbers"], d.record["target"]) for d in documents)
    assert {d.record["level"] for d in documents} == set(LEVELS)


def test_few_solutions_are_complete_correct_searches(documents):
    solutions = [d for d in documents if d.kind != "worksheet"]
    solved = [d for d in solutions if d.solved]
    assert 0.01 < len(solved) / len(solutions) < 0.10
    for d in solved:
        if format_problem(d.text) is None:
            assert countdown_reward(d.record, d.text).outcome == "correct"


def test_a_search_is_solved_when_every_value_is_right_and_the_last_is_the_target(documents):
    for d in (d for d in documents if d.kind == "search"):
        checks = read_checks(d.text, d.record["target"])
        assert d.solved == (
            all(check.right for check in checks) and checks[-1].text.endswith(f"= {d.record['target']} yes")
        )


def test_attempts_are_computed_and_marked_and_some_slip(documents):
    population, attempts, slips, waits, later = Population(), 0, 0, 0, 0
    for d in documents:
        checks = read_checks(d.text, d.record["target"])
        assert len(checks) == d.attempts
        assert d.attempts == 0 if d.kind == "blurt" else d.attempts >= 1
        if d.kind == "worksheet":
            assert all(check.right for check in checks) and "<" not in d.text
            continue
        values = [(check.text.split(), check) for check in checks]
        wrong = [eval("".join(words[:3])) != int(words[4]) for words, _ in values]
        marks = [(words[5] == "yes") == (int(words[4]) == d.record["target"]) for words, _ in values]
        assert all(marks)  # a slip is in the value; the mark follows the value
        attempts, slips = attempts + len(checks), slips + sum(wrong)
        waits, later = waits + count_reflection_words(d.text), later + max(d.attempts - 1, 0)
    assert_share(slips, attempts, population.slip)
    assert_share(waits, later, population.wait)


def test_the_corpus_follows_from_the_generator():
    write = lambda seed: [
        write_document(rng, Population(), (1,)) for rng in [np.random.default_rng(seed)] for _ in range(50)
    ]
    assert write(3) == write(3)
    assert write(3) != write(4)
    assert {d.record["level"] for d in write(3)} == {1}


# Reading responses


@pytest.mark.parametrize(
    "response, checks",
    [
        ("", []),
        ("<answer> 2 + 3 </answer>", []),
        ("2 + 3 = 5", []),
        ("2 + 3 = 5 maybe", []),
        ("2 + 3 = 5 yes", [("2 + 3 = 5 yes", True, False)]),
        ("2 + 3 = 5 yesterday", []),
        ("2 + 3 = 5 no", [("2 + 3 = 5 no", False, False)]),
        ("2 + 3 = 6 no", [("2 + 3 = 6 no", False, False)]),
        ("2 + 3 = 6 yes", [("2 + 3 = 6 yes", False, False)]),
        ("4 * 3 = 12 no", [("4 * 3 = 12 no", True, False)]),
        (
            "4 * 3 = 12 no wait 4 - 3 = 1 no 4 * 3 = 12 no",
            [("4 * 3 = 12 no", True, False), ("4 - 3 = 1 no", True, False), ("4 * 3 = 12 no", True, True)],
        ),
        ("3 - 4 = 1 no", [("3 - 4 = 1 no", False, False)]),
    ],
)
def test_checks_in_a_response(response, checks):
    assert read_checks(response, 5) == [Check(*check) for check in checks]


@pytest.mark.parametrize(
    "response",
    [
        "1234567890123 + 1 = 5 yes",
        "1 + 1234567890123 = 5 no",
        f"{'9' * 5000} + 1 = 1 no",
        f"1 + 1 = {'9' * 5000} no",
        "٣ + ٤ = ٧ no",
    ],
    ids=["left", "right", "very long left", "very long value", "Arabic digits"],
)
def test_reading_checks_never_fails_on_what_a_model_may_write(response):
    assert not any(check.right for check in read_checks(response, 5))


def test_reflection_words_are_whole_words():
    assert count_reflection_words("Wait, that is WRONG. Awaiting checks; but check.") == 4
