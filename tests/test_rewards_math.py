"""Outcomes of the judge of mathematics: what is correct, wrong, no answer, or not to be judged."""

import pickle
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.rewards.math import check_gold, math_reward, same_answer


def outcome(gold, text: str, **record) -> str:
    return math_reward({"answer": gold, **record}, text).outcome


def test_what_counts_is_what_follows_the_reasoning():
    assert outcome("4", r"<think>so \boxed{3}</think> it is \boxed{4}") == "correct"
    assert outcome("3", r"<think>so \boxed{3}</think> it is \boxed{4}") == "wrong"
    assert outcome("3", r"<think>so \boxed{3}</think> I do not know") == "no_answer"
    assert outcome("3", r"so \boxed{3}", prefill="<think>\n") == "no_answer"
    assert outcome("72", "48 / 2 = 24\n48 + 24 = 72\n#### 72") == "correct"
    assert outcome("0.5", r"\boxed{1/2}, as a decimal \boxed{0.5}") == "correct"
    assert outcome("4", r"\boxed{3} or \boxed{4}") == "no_answer"
    assert outcome("4", r"\boxed{3}. Wait, no, \boxed{4}") == "correct"
    assert outcome("1, 2", r"\boxed{1} and \boxed{2}") == "no_answer"  # boxes are never merged


@pytest.mark.parametrize(
    "gold", [None, "", "  ", True, float("nan"), float("inf"), [], "((", "9^{9^{9^{9}}}", "1/0", "x" * 5000]
)
def test_a_gold_that_cannot_be_judged_teaches_nothing(gold):
    judgement = math_reward({"answer": gold}, r"\boxed{5}")
    assert check_gold(gold) and judgement.outcome == "gold_unparseable" and not judgement.teaches and judgement.reason


def test_an_integer_beyond_every_float_is_refused_and_does_not_raise():
    for gold in (10**400, -(10**400), 10**5000):
        assert check_gold(gold) and outcome(gold, r"\boxed{5}") == "gold_unparseable"


@pytest.mark.parametrize(
    "gold", [5, 5.0, -3, 0.25, "5", r"\frac{1}{2}", "$5$", r"\boxed{5}", " 5 ", "1e-7", 1e-7, 2**70]
)
def test_golds_may_be_numbers_and_text(gold):
    assert check_gold(gold) is None
    assert outcome(gold, rf"\boxed{{{gold}}}") == "correct"
    assert outcome(gold, r"\boxed{77}") == "wrong"


def test_a_record_without_answer_does_not_raise():
    assert math_reward({}, r"\boxed{5}").outcome == "gold_unparseable"
    assert math_reward({"answer": "5", "choices": 7}, r"\boxed{4}").outcome == "error"


def test_choices_are_compared_by_letter_and_by_text():
    record = {"choices": ["10", "12", r"\frac{1}{2}", "none of these"]}
    for text in ("B", "(B)", "b", "12", r"\text{(B)}", "B) 12", "B. 12.0", r"\textbf{(B)}\ 12", r"12\text{ cm}"):
        assert outcome("B", rf"\boxed{{{text}}}", **record) == "correct", text
        assert outcome("12", rf"\boxed{{{text}}}", **record) == "correct", text
    for text in ("A", "10", "B) 10", "E", "13", "A or B", "A, B", r"\text{not B}", "C", "none of these"):
        assert outcome("B", rf"\boxed{{{text}}}", **record) == "wrong", text
    assert outcome("C", r"\boxed{0.5}", **record) == "correct"
    assert outcome("D", r"\boxed{\text{None of these}}", **record) == "correct"
    assert outcome("(B)", r"\boxed{12}", choices={"A": "10", "B": "12"}) == "correct"
    assert outcome("B", r"\boxed{12}", choices=["(A) 10", "(B) 12"]) == "correct"
    assert outcome("B", r"\boxed{12}") == "wrong"


def test_a_bare_number_is_a_percentage_only_where_the_question_asks_for_one():
    question = "What percent of the eggs are white?"
    assert outcome("25", r"\boxed{25\%}", question=question) == "correct"
    assert outcome(r"25\%", r"\boxed{25}", question=question) == "correct"
    assert outcome("25", r"\boxed{25\%}", question="How many eggs are white?") == "wrong"
    assert outcome("25", r"\boxed{0.25}", question=question) == "wrong"
    assert outcome("25", r"\boxed{25\%}") == "wrong"


def test_arithmetic_left_undone_is_wrong_but_equal():
    assert outcome("144", r"\boxed{12 \times 12}") == "wrong" and same_answer("144", r"12 \times 12")
    assert outcome("1440", r"\boxed{1.44 \times 10^3}") == "correct"
    assert outcome(r"2^{100} - 2", r"\boxed{2 \cdot 2^{99} - 2}") == "correct"


values = st.fractions(max_denominator=60).filter(lambda value: abs(value) < 10**6)
written = [
    lambda v: str(v),
    lambda v: rf"\frac{{{v.numerator}}}{{{v.denominator}}}",
    lambda v: rf"\dfrac{{{2 * v.numerator}}}{{{2 * v.denominator}}}",
    lambda v: rf"x = {v}",
    lambda v: rf"\left({v}\right)",
    lambda v: f"${v}$",
    lambda v: rf"\frac{{{-v.numerator}}}{{-{v.denominator}}}",
    lambda v: rf"{v}\text{{ apples}}",
]


@given(values, values, st.sampled_from(written), st.sampled_from(written))
def test_rationals_are_compared_exactly_and_symmetrically(left, right, write, rewrite):
    assert same_answer(write(left), rewrite(left)) and same_answer(rewrite(left), write(left))
    assert same_answer(write(left), rewrite(right)) == (left == right) == same_answer(rewrite(right), write(left))


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Sums, products, quotients, squares and negatives of expressions."""
    pairs = st.builds("({}+{})".format, inner, inner) | st.builds("{}({})".format, inner, inner)
    forms = [r"\frac{{{}}}{{x^2+1}}", "({})^2", "(-{})", r"\sqrt{{{}}}"]
    return pairs | st.builds(lambda form, part: form.format(part), st.sampled_from(forms), inner)


expressions = st.recursive(st.sampled_from(["x", "y", "2", "3", r"\pi", "7"]), composed, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(expressions, expressions)
def test_expressions_follow_the_laws_of_arithmetic(left, right):
    """Reflexive, commutative, distributive; and one more is never the same."""
    total = f"{left} + ({right})"
    assert same_answer(total, f"({right}) + ({left})")
    assert same_answer(f"({left})({right})", f"({right})({left})")
    assert same_answer(f"x({total})", f"x({left}) + x({right})")
    assert not same_answer(total, f"{total} + 1") and not same_answer(f"{total} + x", total)


def test_importing_is_cheap_and_the_judge_is_picklable():
    code = "import sys, r1jax.rewards.math; print(sorted({'sympy', 'math_verify', 'mpmath', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert pickle.loads(pickle.dumps(math_reward)) is math_reward


@pytest.mark.slow
def test_throughput():
    """At least 500 judgements a second on the cheap tier, 100 on a mixture; the figures are in the benchmark."""
    rows = [(str(i), f"{i} eggs.\n#### {i}") for i in range(300)]
    mixed = rows + [(rf"\frac{{{i}}}{{7}}\sqrt{{2}}", rf"\boxed{{{i}\sqrt 2/7}}") for i in range(100)]
    for pairs, least in ((rows, 500), (mixed, 100)):
        start = time.process_time()
        assert all(outcome(gold, text) == "correct" for gold, text in pairs)
        assert len(pairs) / (time.process_time() - start) > least
