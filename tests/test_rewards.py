"""The output format and what is read from it."""

import pickle

import pytest

from r1jax.rewards.format import TAGS, extract_answer, format_problem, format_reward
from r1jax.rewards.judgement import TEACHING_OUTCOMES, Judgement

GOOD = "<think> 2 + 3 = 5 yes </think> <answer> 2 + 3 </answer>"

OBEYING = {
    "plain": GOOD,
    "white space around": f"\n {GOOD} \n",
    "no white space": "<think>a</think><answer>1</answer>",
    "line breaks": "<think>\na\n\nb\n</think>\n\n<answer>\n1\n</answer>",
    "empty reasoning": "<think></think><answer>1</answer>",
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
}


@pytest.mark.parametrize("text", OBEYING.values(), ids=OBEYING)
def test_texts_that_obey_the_format(text):
    assert format_problem(text) is None
    assert format_reward({}, text) == Judgement("correct", 1.0)


@pytest.mark.parametrize("text, problem", BREAKING.values(), ids=BREAKING)
def test_texts_that_break_the_format(text, problem):
    assert format_problem(text) == problem
    assert format_reward({}, text) == Judgement("wrong", 0.0)


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


def test_rewards_travel_between_processes():
    assert pickle.loads(pickle.dumps(format_reward)) is format_reward
    assert pickle.loads(pickle.dumps(Judgement("wrong", 0.0))) == Judgement("wrong", 0.0)


def test_failures_of_the_judge_do_not_teach():
    assert set(TEACHING_OUTCOMES) == {"correct", "wrong", "no_answer"}
