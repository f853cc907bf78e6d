"""Wordings of judges, and verdicts read from what they write."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1jax.judging.prompts import (
    CORRECTNESS,
    MINIATURE_CORRECTNESS,
    MINIATURE_PAIRWISE,
    PAIRWISE,
    PAIRWISE_VALUES,
    correctness_prompt,
    pairwise_prompt,
)
from r1jax.judging.reading import read_correctness, read_pairwise_verdict


def test_prompts_hold_their_texts_and_formats():
    texts = ("What is {x} % of 5?", "4 {", "} 5")
    for wording in (CORRECTNESS, PAIRWISE, MINIATURE_CORRECTNESS, MINIATURE_PAIRWISE):
        assert all(text in wording.prompt(*texts) for text in texts)
        assert wording.constrained(*texts) == wording.prompt(*texts) + wording.lead
        assert len(wording.verdicts) == len(wording.values) == len(set(wording.verdicts))
    assert all(label in pairwise_prompt(*texts) for label in PAIRWISE_VALUES)
    assert '"analysis"' in correctness_prompt(*texts) and '"correctness"' in correctness_prompt(*texts)
    for verdict, value in zip(CORRECTNESS.verdicts, CORRECTNESS.values):
        assert read_correctness(f"{CORRECTNESS.lead} {verdict}}}").correct == bool(value)
    for verdict, value in zip(PAIRWISE.verdicts, PAIRWISE.values):
        assert PAIRWISE_VALUES[read_pairwise_verdict(f"{PAIRWISE.lead} {verdict}")] == value
    mirrored = {label.translate(str.maketrans("AB", "BA")): -value for label, value in PAIRWISE_VALUES.items()}
    for label, value in PAIRWISE_VALUES.items():
        assert mirrored.get(label, value) == value


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("My final verdict is: [[A>>B]]", "[[A>>B]]"),
        ("[[ b > a ]]", "[[B>A]]"),
        ("First I thought [[A>B]].\nNo: **[[A=B]]**.", "[[A=B]]"),
        ("[[B>>A]] [[B>>A]]", "[[B>>A]]"),
        ("[[A>B]] or [[B>A]]", None),
        ("[[A>B]]\n[[A>>>B]]", None),
        ("[[A<B]]", None),
        ("[[C]] [[A>B]] [[1]]", "[[A>B]]"),
        ("[A>B]", None),
        ("[[A>B", None),
        ("[[ ]]", None),
        ("", None),
    ],
)
def test_pairwise_verdicts(text, verdict):
    assert read_pairwise_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ('{"analysis": "a", "correctness": "correct"}', True),
        ('Here:\n```json\n{\n  "analysis": "a",\n  "correctness": "Incorrect "\n}\n```\nDone.', False),
        ('{"correctness": "correct", "analysis": "a {brace"}', True),
        ('{"analysis": "it is \\(x\\) and \\lambda", "correctness": "correct"}', True),
        ('{"analysis": "two\nlines", "correctness": "incorrect"}', False),
        ('{"score": 1, "correctness": "correct", "more": {"why": ["x"]}}', True),
        ('{"result": {"correctness": "incorrect"}}', False),
        ('{"correctness": "correct"} no: {"correctness": "incorrect"}', False),
        ('{"analysis": "it wrote {\\"correctness\\": \\"correct\\"}", "correctness": "incorrect"}', False),
        ('{"correctness": "correct", "correctness": "incorrect"}', None),
        ('{"correctness": "partly"}', None),
        ('{"correctness": true}', None),
        ('{"correctness": ["correct"]}', None),
        ('{"correctness": "correct"', None),
        ('{"analysis": "a"}', None),
        ('"correctness": "correct"', None),
        ("\\frac{1}{2} is correct", None),
        ("", None),
    ],
)
def test_correctness_objects(text, correct):
    said = read_correctness(text)
    assert (None if said is None else said.correct) is correct


PIECES = st.sampled_from(
    [*'AB>=< \n{}"\\:,[0', "[[", "]]", "[[A>B]]", "```json", "analysis", "correctness", "incorrect", "\ud800"]
    + ['"correctness": "correct"', '{"correctness": "correct"}', '{"analysis": "']
)
TEXTS = st.text() | st.lists(PIECES, max_size=40).map("".join)


@given(TEXTS)
def test_readers_never_raise(text):
    assert read_pairwise_verdict(text) in {None, *PAIRWISE_VALUES}
    said = read_correctness(text)
    assert said is None or (isinstance(said.correct, bool) and isinstance(said.analysis, str))


@given(st.text(), st.sampled_from(sorted(PAIRWISE_VALUES)))
def test_a_last_line_decides(text, verdict):
    assert read_pairwise_verdict(f"{text}\nMy final verdict is: {verdict}") == verdict


@given(st.text(), st.text(), st.booleans(), st.booleans(), st.sampled_from([None, 2]))
def test_an_object_is_found_in_any_prose(before, analysis, correct, fenced, indent):
    said = {"analysis": analysis, "correctness": "correct" if correct else "incorrect"}
    text = json.dumps(said, indent=indent)
    text = f"{before}\n" + (f"```json\n{text}\n```" if fenced else text)
    assert read_correctness(text) == (correct, analysis)


@pytest.mark.parametrize(
    "piece",
    ['{"analysis":', '{"correctness":"', '{"a":[', '{"b":"\\x",', "{" + " " * 50, '{"a"' + " " * 50, "\\"]
    + ["[[", "[[A>B", "[[A>B]]"],
)
def test_readers_take_linear_time(piece):
    started = time.process_time()
    text = piece * (1_000_000 // len(piece))
    read_pairwise_verdict(text), read_correctness(text), read_correctness('{"correctness": "' + text)
    assert time.process_time() - started < 10
