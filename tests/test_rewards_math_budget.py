"""No text, whatever it is, takes the judge of mathematics long, makes it raise, or hides behind it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.rewards.math import check_gold, math_reward, same_answer
from r1jax.rewards.math.latex import Malformed
from r1jax.rewards.math.reading import read_structure

SECONDS = 2.0  # the promise for one item


MONSTERS = {
    "tower": "9^{9^{9^{9^{9}}}}",
    "plain tower": "9**9**9**9",
    "factorial": "(10^{10})!",
    "factorials": "((5!)!)!",
    "binomial": r"\binom{10^{9}}{10^{8}}",
    "power": "x^{1000000000}",
    "big base": "(10^{900})^{1000000}",
    "complex power": r"(1+\sqrt2 i)^{1000000007}",
    "exponentials": r"\exp(\exp(\exp(\exp(9))))",
    "angle": r"\tan(10^{1000})",
    "parentheses": "(" * 3000 + "1" + ")" * 3000,
    "braces": "{" * 900 + "1" + "}" * 900,
    "bars": "|x" * 700,
    "fractions": r"\frac{1}{" * 150 + "2" + "}" * 150,
    "roots": r"\sqrt{" * 200 + "2" + "}" * 200,
    "sines": r"\sin" * 300,
    "digits": "9" * 1_900,
    "more digits": "9" * 1_000_000,
    "sum": "+".join(["1"] * 900),
    "factors": "(x+1)" * 300,
    "gammas": "+".join(f"(x+{i})!" for i in range(1, 150)),
    "arctans": "+".join(rf"\arctan(x+{i})" for i in range(120)),
    "list": ",".join(rf"\sqrt{{{i + 1000003}}}" for i in range(120)),
    "signs": r"\pm".join(["1"] * 300),
    "scientific": "1e999999999",
    "decimal": "0." + "1" * 1900,
    "unit": r"5 cm^{999999999}",
    "dollars": "$" * 1_000_000,
    "boxes": r"\boxed{" * 20_000,
    "closed boxes": r"\boxed{1}\boxed{2}" * 60_000,
    "commands": r"\frac" * 200_000,
    "commas": "1," * 900,
    "groups": "1" + ",234" * 400,
    "root of a power": r"\sqrt[63]{7^{6000}+1}",
    "zeta": r"\zeta(\zeta(\zeta(3)))",
    "nulls": "\0" * 100,
    "surrogates": "\ud800" * 50,
    "integral": r"\int_0^{100} e^{-x^{100}} \sin(x^{50}) dx",
    "long sum": r"\sum_{k=1}^{10^9} \frac{1}{k^3}",
    "tabs": "\t" * 100_000,
}


@pytest.mark.parametrize("name", MONSTERS)
@pytest.mark.parametrize("form", [r"\boxed{%s}", "<answer>%s</answer>", r"\boxed{1} wait \boxed{2} \boxed{%s}", "%s"])
def test_no_text_takes_long_or_hides_behind_the_judge(name, form):
    """A monster is the policy's doing: wrong or no answer, never an outcome that teaches nothing."""
    for gold in ("72", r"\frac{x}{2}", "1, 2", r"5\text{ cm}"):
        start = time.process_time()
        found = math_reward({"answer": gold}, form % MONSTERS[name]).outcome
        assert time.process_time() - start < SECONDS
        assert found in ("wrong", "no_answer")


PIECES = r"""\frac \sqrt { } ( ) [ ] , ; \{ \} ^ _ + - * / ! | = < > \le \cup \in \pm % \% \$ \text{cm} and or cm 1 23
4.5 0 1e9 x y i e \pi \infty \sin \log \binom \begin{pmatrix} \end{pmatrix} & \\ \, \! \left \right ^\circ : . ...
\overline \mathbb{R} \emptyset \langle \rangle \lfloor \rfloor ' B \sum \int \foo Monday １ − ² \ldots
\setminus \ne \cdot""".split()
fuzz = st.lists(st.sampled_from([piece.strip() for piece in PIECES]) | st.text(max_size=3), max_size=14).map(
    " ".join
) | st.text(max_size=40)


def check_any_text(text: str) -> None:
    try:
        read_structure(text)
        readable = True
    except Malformed:
        readable = False
    for gold in ("5", "x^2", "1, 2", "(1,2)", r"\sqrt{2}"):
        judgement = math_reward({"answer": gold}, rf"<answer>{text}</answer>")
        assert judgement.outcome in ("correct", "wrong", "no_answer", "timeout"), judgement
    if check_gold(text) is None and readable:
        assert same_answer(text, text)


@settings(max_examples=100, deadline=None)
@given(fuzz)
def test_any_text_is_judged(text):
    check_any_text(text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(fuzz)
def test_any_text_is_judged_at_length(text):
    check_any_text(text)


GROWING = [
    "1+",
    "x ",
    "(1)",
    "1,",
    "[1,2] \\cup ",
    r"\frac12 ",
    r"\text{a} ",
    "1{,}",
    "$",
    "x = ",
    "5! ",
    r"\pm 1 ",
    "a_1",
    "''",
    "cm ",
]


@pytest.mark.parametrize("piece", GROWING)
def test_reading_takes_no_more_than_linear_time_or_so(piece):
    def seconds(length: int) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            try:
                read_structure(piece * (length // len(piece)) + "1")
            except Malformed:
                pass
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(1800) < 30 * seconds(200) + 0.02  # nine times the text; 81 times the seconds, were it quadratic
