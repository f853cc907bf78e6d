"""What counts as the final answer of a completion."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.rewards.answer import boxes, conclusion, final_answer

TAKEN = {
    r"So \boxed{5}.": "5",
    r"<think>\boxed{3}</think> So \boxed{5}.": "5",
    r"<think> a </think> <answer> \boxed{5} </answer>": "5",
    "<think> a </think> <answer> 5 </answer>": "5",
    "<answer>the answer is 5</answer>": "the answer is 5",
    r"\fbox{5}": "5",
    r"\boxed 5": "5",
    r"$\boxed 12$": "12",
    r"\boxed  {5}": "5",
    r"\boxed{ 5 }": "5",
    r"\boxed{\boxed{5}}": "5",
    r"\boxed{\fbox{\boxed{5}}}": "5",
    r"\boxed{\text{(B)}}": r"\text{(B)}",
    r"\boxed{\frac{1}{2}}": r"\frac{1}{2}",
    r"\boxed{\{1, 2\}}": r"\{1, 2\}",
    r"\boxed{\left\{\frac{a}{b}\right\}} and }": r"\left\{\frac{a}{b}\right\}",
    r"\boxed{3}. Wait, that is not right: \boxed{4}": "4",
    r"\boxed{3}. Actually, I made a mistake. The answer is \boxed{4}.": "4",
    r"\boxed{3}。等等，算错了。\boxed{4}": "4",
    r"\boxed{2}, wait, \boxed{3}, no, that is wrong, \boxed{4}": "4",
    r"\boxed{4} and again \boxed{4}": "4",
    r"\boxed{4}, checking again: \boxed{ 4 }": "4",
    "48/2 = 24\n#### 72": "72",
    "48/2 = 24\n#### 72\n\n": "72",
    "#### 71\nOops, a mistake.\n#### 72": "72",
    "<answer>we get\n#### 72</answer>": "72",
    r"#### 72" + "\n" + r"\boxed{5}": "5",
    r"<answer> \boxed{5} </answer> and so \boxed{6}": "5",
}
REFUSED = {
    "": "no box",
    "The answer is 5.": "no box",
    r"<think>\boxed{3}</think> I do not know.": "no box",
    r"<think>\boxed{3}": "never ended",
    r"a</think> b <think> \boxed{3}": "never ended",
    r"\boxed{}": "empty",
    r"\boxed{ }": "empty",
    "<answer> </answer>": "empty",
    r"\boxed{3} or \boxed{4}": "several",
    r"\boxed{3}\boxed{4}": "several",
    r"x = \boxed{1}, y = \boxed{2}": "several",
    r"Either \boxed{3}, or, wait, maybe \boxed{4}": "several",
    r"\boxed{3}, actually it could be \boxed{4}": "several",
    r"\boxed{3} and \boxed{4}, wait, no: \boxed{5} or \boxed{6}": "several",
    r"Wait: \boxed{3} \boxed{4}": "several",
    r"\boxed{5": "never closes",
    r"\boxed{5} hence \boxed{5": "never closes",
    r"\boxed{\frac{1}{2}": "never closes",
    r"\boxed{5\}": "never closes",
    "<answer>5</answer><answer>6</answer>": "block",
    "<answer>5</answer> or <answer>5</answer>": "block",
    "<answer>5": "block",
    "5</answer>": "block",
    "</answer>5<answer>": "block",
    r"<answer> 5 \boxed{} </answer>": "empty",
    "#### 72\nand so on": "no box",
    "#### 71\n#### 72": "several",
}


@pytest.mark.parametrize("completion", TAKEN)
def test_answers_that_are_taken(completion):
    assert final_answer(completion).text == TAKEN[completion]


@pytest.mark.parametrize("completion", REFUSED)
def test_answers_that_are_refused_with_the_reason(completion):
    answer = final_answer(completion)
    assert answer.text is None and REFUSED[completion] in answer.reason


def test_equal_boxes_are_decided_by_the_caller():
    text = r"\boxed{1/2}, that is \boxed{0.5}"
    assert final_answer(text).text is None
    assert final_answer(text, same=lambda first, second: {first, second} == {"1/2", "0.5"}).text == "0.5"


def test_a_prefilled_think_tag_counts():
    assert conclusion("5", "<think>\n") is None
    assert conclusion("5</think>6", "<think>\n") == "6"
    assert final_answer(r"\boxed{5}", "<think>\n").text is None
    assert final_answer(r"\boxed{3}</think>\boxed{5}", "<think>\n").text == "5"


@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed", "{", "}", r"\boxed{}", "<answer>", "####\n", r"\fbox{1}", "\\", "$"]
)
def test_megabytes_of_one_piece_are_read_in_one_pass(piece, seconds_of):
    """Twice the text may not take four times as long, as it would if every box were searched to the end."""
    sizes = (200_000, 800_000)
    short, long = (seconds_of(lambda size=size: final_answer(piece * (size // len(piece)))) for size in sizes)
    assert long < 10 * short + 0.2


@pytest.fixture
def seconds_of():
    import time

    def measure(call) -> float:
        found = []
        for _ in range(3):
            start = time.process_time()
            call()
            found.append(time.process_time() - start)
        return min(found)

    return measure


PIECES = [
    r"\boxed",
    r"\fbox",
    "{",
    "}",
    r"\{",
    " ",
    "5",
    "wait",
    "or",
    "<answer>",
    "</answer>",
    "</think>",
    "<think>",
    "\n####",
    "\\",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_gives_an_answer_or_a_reason(text):
    answer = final_answer(text)
    assert (answer.text is None) == bool(answer.reason)
    if answer.text is not None:
        assert answer.text in text and answer.text == answer.text.strip() and answer.text


@given(st.text(alphabet="ab{}\\", max_size=20))
def test_a_balanced_content_comes_back_whole(content):
    depth, deepest = 0, 0
    for character in content.replace("\\{", "").replace("\\}", ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        deepest = min(deepest, depth)
    if depth == 0 and deepest == 0 and "\\" not in content:
        assert boxes(rf"x \boxed{{{content}}} y")[0].text == content.strip()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is $\\boxed{4}$ or 5.", None),
        ("The answer is \\boxed{4} (or 5)", None),
        ("It is either 3 or $\\boxed{4}$.", None),
        ("It is 1/3 or \\boxed{4}", None),
        ("So it is not $\\boxed{4}$.", None),
        ("The answer is \\boxed{4}, or 4 if you prefer.", "4"),
        ("Hence \\boxed{\\frac{1}{3}} or 0.333 in decimals.", "\\frac{1}{3}"),
        ("Hence \\boxed{\\frac12} or 50%.", "\\frac12"),
        ("We choose 3 of them, or more, so $\\boxed{4}$.", "4"),
        ("It is not 3 but \\boxed{4}", "4"),
        ("It is \\boxed{4} or maybe 5.", None),
        ("It is \\boxed{4}, possibly 5.", None),
        ("\\boxed{4} 或 5", None),
        ("It cannot be \\boxed{4}.", None),
        ("$\\boxed{4} \\text{ or } 5$", None),
        ("$x = -\\boxed{4}$", None),
        ("- **Answer** - $\\boxed{4}$", "4"),
        ("\\boxed{4}\n\nAlternatively, 2 + 2 = 4.", "4"),
        ("$\\boxed{4}$. Perhaps 3 more could be added.", "4"),
        ("It doesn't equal \\boxed{4}.", None),
        ("22 more touch the ceiling than not\n#### 22", "22"),
    ],
)
def test_an_alternative_or_a_denial_beside_the_box(text, answer):
    assert final_answer(text).text == answer
