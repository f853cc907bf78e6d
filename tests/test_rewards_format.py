"""The output formats and what is read from them."""

import pickle

import pytest
from growth import growth
from hypothesis import given
from hypothesis import strategies as st
from labelled_completions import CASES, ZERO

from r1jax.rewards.format import (
    TAGS,
    extract_answer,
    format_problem,
    format_reward,
    reasoning,
    says_something,
    think_flaw,
    think_format_reward,
    zero_flaw,
)
from r1jax.rewards.judgement import Judgement

GOOD = "<think> 2 + 3 = 5 yes </think> <answer> 2 + 3 </answer>"

OBEYING = {
    "plain": GOOD,
    "white space around": f"\n {GOOD} \n",
    "no white space": "<think>a</think><answer>1</answer>",
    "line breaks": "<think>\na\n\nb\n</think>\n\n<answer>\n1\n</answer>",
    "empty reasoning": "<think></think><answer>1</answer>",
    "carriage returns": "<think>\r\na\r\n</think>\r\n<answer>1</answer>\r\n",
    "white space of Unicode": "\u2028<think>a</think>\u00a0\u3000\x85<answer>1</answer>\u2003",
    "comparisons in the reasoning": "<think>a<b and c>d</think><answer>a<b</answer>",
    "an empty set for an answer": "<think>a</think><answer>{}</answer>",
    "brackets for an answer": "<think> a </think> <answer> )]} </answer>",
    "a comparison for an answer": "<think> a </think> <answer> < </answer>",
    "a Devanagari answer": "<think> a </think> <answer> हाँ </answer>",
    "other tags in the reasoning": "<think> <b>a</b> < think > </think> <answer> 1 </answer>",
}
BREAKING = {
    "nothing": ("", "missing <think>"),
    "no <think>": (GOOD.replace("<think>", ""), "missing <think>"),
    "no </think>": (GOOD.replace("</think>", ""), "missing </think>"),
    "no <answer>": (GOOD.replace("<answer>", ""), "missing <answer>"),
    "no </answer>": (GOOD.replace("</answer>", ""), "missing </answer>"),
    "capital letters": (GOOD.replace("<think>", "<THINK>"), "missing <think>"),
    "answer first": ("<answer> 1 </answer> <think> a </think>", "tags out of order"),
    "answer inside the reasoning": ("<think> a <answer> 1 </answer> </think>", "tags out of order"),
    "crossed blocks": ("<think> a <answer> </think> 1 </answer>", "tags out of order"),
    "closed before opened": ("</think> a <think> <answer> 1 </answer>", "tags out of order"),
    "nested reasoning": ("<think> <think> a </think> </think> <answer> 1 </answer>", "<think> more than once"),
    "nested answer": ("<think> a </think> <answer> <answer> 1 </answer> </answer>", "<answer> more than once"),
    "text before": (f"Well, {GOOD}", "text before <think>"),
    "text between": (GOOD.replace("</think>", "</think> so"), "text between </think> and <answer>"),
    "text after": (f"{GOOD} yes", "text after </answer>"),
    "text after on another line": (f"{GOOD}\nyes", "text after </answer>"),
    "repeated whole": (f"{GOOD}\n{GOOD}", "<think> more than once"),
    "empty answer": ("<think> a </think> <answer> \n </answer>", "empty answer"),
    "invisible answer": ("<think> a </think> <answer>\u200b\u3164\u2800\ufeff\x00</answer>", "empty answer"),
    "dots for an answer": ("<think> a </think> <answer> ... </answer>", "empty answer"),
    "Chinese dots for an answer": ("<think> a </think> <answer> ……。 </answer>", "empty answer"),
    "a special token for an answer": ("<think> a </think> <answer><｜end▁of▁sentence｜></answer>", "empty answer"),
    "combining marks for an answer": ("<think> a </think> <answer> \u0301\u0302 </answer>", "empty answer"),
    "almost a tag in the answer": (
        "<think> a </think> <answer> 1 < /Answer > 2 </answer>",
        "almost a tag in the answer",
    ),
    "a tag with attributes": (GOOD.replace("<answer>", "<answer id=1>"), "missing <answer>"),
    "white space in a tag": (GOOD.replace("</think>", "</ think>"), "missing </think>"),
    "full-width brackets": (GOOD.replace("<think>", "＜think＞"), "missing <think>"),
    "a byte order mark before": ("\ufeff" + GOOD, "text before <think>"),
    "end of sequence left in": (GOOD + "<｜end▁of▁sentence｜>", "text after </answer>"),
    "all in a fence": (f"```\n{GOOD}\n```", "text before <think>"),
    "doubled brackets": ("<<think>>a<</think>>b<<answer>>1<</answer>>", "text before <think>"),
    "a space that is an entity": (GOOD.replace("</think>", "</think>&nbsp;"), "text between </think> and <answer>"),
    "a null after": (GOOD + "\x00", "text after </answer>"),
    "an invisible space between": (GOOD.replace("</think>", "</think>\u200b"), "text between </think> and <answer>"),
    "another name": (GOOD.replace("think>", "thinking>"), "missing <think>"),
    "quoted in code": (GOOD.replace("yes", "`</think>`"), "</think> more than once"),
}


@pytest.mark.parametrize("text", OBEYING.values(), ids=OBEYING)
def test_texts_that_obey_the_format(text):
    assert format_problem(text) is None
    assert format_reward({}, text) == Judgement("correct", 1.0)


@pytest.mark.parametrize("text, problem", BREAKING.values(), ids=BREAKING)
def test_texts_that_break_the_format(text, problem):
    assert format_problem(text) == problem
    judgement = format_reward({}, text)
    assert (judgement.outcome, judgement.score) == ("wrong", 0.0) and judgement.reason.startswith(problem)


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_may_occur_once_only(tag):
    assert format_problem(GOOD.replace(tag, f"{tag} {tag}")) == f"{tag} more than once"
    assert format_problem(f"{GOOD} {tag}") == f"{tag} more than once"


def test_a_prefilled_think_tag_belongs_to_the_judged_text():
    completion = GOOD.removeprefix("<think>")
    assert format_problem(completion) == "missing <think>"
    assert format_problem("<think>" + completion) is None
    assert extract_answer(completion) == "2 + 3"


ANSWERS = {
    "plain": (GOOD, "2 + 3"),
    "no reasoning block": ("<answer> 1 </answer>", None),
    "reasoning not closed": ("<think> a <answer> 1 </answer>", None),
    "inside the reasoning only": ("<think> <answer> 1 </answer> </think>", None),
    "inside the reasoning and after it": ("<think> <answer> 1 </answer> </think> <answer> 2 </answer>", "2"),
    "before the last end of reasoning": ("<think> a </think> <answer> 1 </answer> </think>", None),
    "after the last end of reasoning": ("a </think> <answer> 1 </answer> </think> <answer> 2 </answer>", "2"),
    "two answers": ("<think> a </think> <answer> 1 </answer> <answer> 2 </answer>", None),
    "not closed": ("<think> a </think> <answer> 1", None),
    "not opened": ("<think> a </think> 1 </answer>", None),
    "closed before opened": ("<think> a </think> </answer> 1 <answer>", None),
    "opened twice": ("<think> a </think> <answer> <answer> 1 </answer>", None),
    "empty": ("<think> a </think> <answer>  </answer>", None),
    "text around": ("a </think> so <answer>\n 1 \n</answer> yes", "1"),
}


@pytest.mark.parametrize("text, answer", ANSWERS.values(), ids=ANSWERS)
def test_the_answer_is_what_the_completion_commits_itself_to(text, answer):
    assert extract_answer(text) == answer


RELEASED = {
    "plain": ("<think>\na\n</think>\n\nTwo.", None),
    "white space before": ("\n <think>a</think>Two.", None),
    "empty reasoning": ("<think>\n\n</think>\n\nTwo.", None),
    "an answer block in the summary": ("<think>a</think> <answer> 2 </answer>", None),
    "nothing": ("", "missing <think>"),
    "no <think>": ("a</think>Two.", "missing <think>"),
    "never closed": ("<think>a Two.", "missing </think>"),
    "closed before opened": ("</think>a<think> Two.", "tags out of order"),
    "closed twice": ("<think>a</think>b</think>Two.", "</think> more than once"),
    "opened in the summary": ("<think>a</think>Two. <think>", "<think> more than once"),
    "almost a tag in the summary": ("<think>a</think>Two. </THINK>", "almost a tag in the summary"),
    "text before": ("So <think>a</think>Two.", "text before <think>"),
    "no summary": ("<think>a</think>\n", "empty summary"),
    "invisible summary": ("<think>a</think>\u200b\u2060", "empty summary"),
    "only an end of sequence": ("<think>a</think><｜end▁of▁sentence｜>", "empty summary"),
}


@pytest.mark.parametrize("text, problem", RELEASED.values(), ids=RELEASED)
def test_the_released_form(text, problem):
    flaw = think_flaw(text)
    assert (flaw.problem if flaw else None) == problem
    assert think_format_reward({}, text).score == float(problem is None)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_verdict_agrees_with_the_label(case):
    judgement = (format_reward if case.style == ZERO else think_format_reward)(case.record, case.completion)
    assert (judgement.outcome == "correct") == case.well_formed, judgement.reason
    assert judgement.score == float(case.well_formed)


@pytest.mark.parametrize("prefill", ["<think>", "<think>\n", "  <think>"])
@pytest.mark.parametrize("reward, text", [(format_reward, GOOD), (think_format_reward, "<think>a</think> Two.")])
def test_what_the_template_wrote_belongs_to_the_response(reward, text, prefill):
    assert reward({"prefill": prefill}, text.removeprefix("<think>")).score == 1
    assert reward({"prefill": prefill}, text).reason.startswith("<think> more than once at character 0")
    assert (
        reward({"prefill": ""}, text)
        == reward({"prefill": None}, text)
        == reward({}, text)
        == Judgement("correct", 1.0)
    )


def test_the_reason_says_where():
    assert format_reward({}, f"{GOOD} yes").reason == f"text after </answer> at character {len(GOOD) + 1}: 'yes'"
    assert format_reward({}, "<think> a").reason == "missing </think> at the end, character 9"
    assert format_reward({"prefill": "Sure <think>"}, "a</think><answer>1</answer>").reason == (
        "text before <think> in the prefill 'Sure <think>'"
    )


REASONING = {
    "plain": ("<think>a</think>b", "", "a"),
    "prefilled": ("a</think>b", "<think>\n", "\na"),
    "never opened": ("a</think>b", "", "a"),
    "never closed": ("x<think>a", "", "a"),
    "no tags": ("a", "", "a"),
    "several blocks": ("<think>a</think>b<think>c</think>d", "", "a</think>b<think>c"),
    "closed before opened": ("b</think><think>a", "", "a"),
}


@pytest.mark.parametrize("text, prefill, expected", REASONING.values(), ids=REASONING)
def test_the_reasoning_of_a_completion(text, prefill, expected):
    assert reasoning(text, prefill) == expected


PIECES = st.lists(
    st.sampled_from([*TAGS, " ", "\n", "a", "1", ".", "<", "</", ">", "<THINK>", "\u200b", "答"]) | st.text()
)


def brute_force_zero(text: str) -> bool:
    """The grammar read from left to right, every split tried."""
    squeezed = text.strip()
    if any(squeezed.count(tag) != 1 for tag in TAGS) or not squeezed.startswith("<think>"):
        return False
    inside, _, rest = squeezed.removeprefix("<think>").partition("</think>")
    rest = rest.lstrip()
    if not rest.startswith("<answer>") or not rest.endswith("</answer>") or "<answer>" in inside:
        return False
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    lower = "".join(answer.lower().split())
    return says_something(answer) and not any(tag in lower for tag in TAGS)


@given(PIECES)
def test_any_text_gets_a_verdict_and_the_grammar_agrees_with_brute_force(pieces):
    text = "".join(pieces)
    for reward in (format_reward, think_format_reward):
        judgement = reward({}, text)
        assert judgement.score in (0.0, 1.0) and bool(judgement.reason) == (judgement.score == 0)
    flaw = zero_flaw(text)
    assert (flaw is None) == brute_force_zero(text)
    assert flaw is None or 0 <= flaw.position <= len(text)
    if flaw is None:
        assert extract_answer(text) is not None
        assert think_flaw(text) is None
    assert isinstance(reasoning(text), str)


@given(st.text(), st.text(min_size=1))
def test_well_formed_texts_stay_so_with_white_space_around_and_break_with_text_around(inside, outside):
    text = f"<think>{inside}</think><answer>1</answer>"
    if zero_flaw(text) is None:
        assert zero_flaw(f" \n{text}\t") is None
        assert (zero_flaw(text + outside) is None) == (not outside.strip())
        assert (zero_flaw(outside + text) is None) == (not outside.strip())


@pytest.mark.parametrize(
    "unit",
    [*TAGS, "<", "< ", "< / ", "</", "<think ", "<answer", "<|", "<｜", "<| |", "\u200b", " ", ". ", "<think", "|>"],
)
@pytest.mark.parametrize("judge", [zero_flaw, think_flaw])
def test_the_time_is_linear(judge, unit):
    wrap = lambda n: f"<think></think><answer>{unit * n}</answer>"
    assert growth(judge, wrap, 20_000) < 40
    assert growth(judge, lambda n: "<think></think><answer>" + "<" + " " * n + "</answer>", 20_000) < 40


def test_judges_travel_between_processes():
    assert pickle.loads(pickle.dumps(think_format_reward)) is think_format_reward
