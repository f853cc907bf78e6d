"""The program in a completion, and the comparison of outputs: text in, text or bool out; nothing runs."""

import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from r1jax.rewards.code import extract_code
from r1jax.rewards.code.output import first_difference, same_output

FOUND = {
    "python label": ("```python\nx = 1\n```", "x = 1\n"),
    "py label": ("```py\nx = 1\n```", "x = 1\n"),
    "upper case": ("```Python3\nx = 1\n```", "x = 1\n"),
    "attributes": ("``` {.python .numberLines}\nx = 1\n```", "x = 1\n"),
    "title after the label": ("```python title=\"a.py\"\nx = 1\n```", "x = 1\n"),
    "no label": ("```\nx = 1\n```", "x = 1\n"),
    "tildes": ("~~~python\nx = 1\n~~~", "x = 1\n"),
    "text around": ("So:\n\n```python\nx = 1\n```\nThis is it.", "x = 1\n"),
    "the last of two": ("```python\nx = 1\n```\nbetter:\n```python\nx = 2\n```", "x = 2\n"),
    "sample output after the program": ("```python\nx = 1\n```\nprints\n```\n5\n```", "x = 1\n"),
    "another language after the program": ("```python\nx = 1\n```\n```bash\nls\n```", "x = 1\n"),
    "a later block is cut off": ("```python\nx = 1\n```\nor\n```python\nx = 2", "x = 1\n"),
    "shorter fence inside": ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
    "other mark inside": ("~~~python\n# ```\nx = 1\n~~~", "# ```\nx = 1\n"),
    "a fence inside a line is text": ("```python\ns = '```'\n```", "s = '```'\n"),
    "a labelled fence closes nothing": ("```python\nx = '\n```python\n'\n```", "x = '\n```python\n'\n"),
    "longer closing fence": ("```python\nx = 1\n`````", "x = 1\n"),
    "indented": ("1. So:\n   ```python\n   if x:\n       y = 1\n\n   ```", "if x:\n    y = 1\n\n"),
    "indented by tabs": ("\t```python\n\tx = 1\n\t```", "x = 1\n"),
    "closing fence less indented": ("  ```python\n  x = 1\n```", "x = 1\n"),
    "windows line ends": ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
    "spaces after the fence": ("```python  \nx = 1\n```  ", "x = 1\n"),
    "after the reasoning": ("<think>\n```python\nx = 1\n```\n</think>\n```python\nx = 2\n```", "x = 2\n"),
    "in an answer block": ("<think> a </think> <answer>\n```python\nx = 1\n```\n</answer>", "x = 1\n"),
    "answer tags on the fence lines": ("<think> a </think>\n<answer>```python\nx = 1\n```</answer>", "x = 1\n"),
    "answer tags after a space": ("<think> a </think> <answer> ```python\nx = 1\n``` </answer>", "x = 1\n"),
    "answer tags in the program": ("```python\nx = '<answer>'\n```", "x = '<answer>'\n"),
}  # fmt: skip

MISSING = {
    "nothing": ("", "no Python code block"),
    "prose": ("x = 1", "no Python code block"),
    "not closed": ("```python\nx = 1\n", "not closed"),
    "closed by the other mark": ("```python\nx = 1\n~~~", "not closed"),
    "closed by too short a fence": ("````python\nx = 1\n```", "not closed"),
    "closing fence with text": ("```python\nx = 1\n``` and so on", "not closed"),
    "empty": ("```python\n\n  \n```", "empty"),
    "inline code": ("use ```x = 1``` here", "no Python code block"),
    "inline code on a line": ("```x = 1```", "no Python code block"),
    "another language": ("```java\nint x;\n```", "no Python code block"),
    "only in the reasoning": ("<think>\n```python\nx = 1\n```\n</think>\nDone.", "no Python code block"),
    "the reasoning never ends": ("<think>\n```python\nx = 1\n```", "reasoning never ended"),
}


@pytest.mark.parametrize(("completion", "code"), FOUND.values(), ids=FOUND)
def test_the_program_is_found(completion, code):
    assert extract_code(completion).code == code


@pytest.mark.parametrize(("completion", "reason"), MISSING.values(), ids=MISSING)
def test_there_is_no_program(completion, reason):
    found = extract_code(completion)
    assert found.code is None and reason in found.reason


def test_what_the_template_wrote_counts():
    completion = "```python\nx = 1\n```"
    assert extract_code(completion).code and extract_code(completion, "<think>\n").code is None
    assert extract_code(f"so </think>{completion}", "<think>\n").code == "x = 1\n"


SCRAPS = st.sampled_from(
    ["```", "~~~", "````", "python", "\n", "\n", " ", "\t", "x", "</think>", "<think>", "<answer>"]
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.lists(SCRAPS).map("".join)))
def test_extraction_takes_any_text_and_invents_nothing(text):
    code = extract_code(text).code
    assert code is None or all(line in text for line in code.split("\n"))


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(exclude_characters="\r", codec="utf-8")), st.sampled_from("`~"))
def test_any_program_survives_a_fence_that_is_long_enough(code, mark):
    assume("think>" not in code)  # the reasoning is read off the whole text, before there are blocks
    fence = mark * 100
    expected = code + "\n" if code.strip() else None
    assert extract_code(f"Here:\n{fence}python\n{code}\n{fence}\n").code == expected


@pytest.mark.parametrize(
    "piece",
    ["```", "```python\n", "`", "~", "\n", " ", "```\n", "\t```python\nx\n", "<think>", "</think>", "<answer>```\n"],
)
def test_extraction_takes_linear_time(piece):
    assert growth(lambda n: extract_code(piece * n), 20_000) < 6


def growth(run, size: int) -> float:
    """How many times more processor time twice the size takes, from the best of several tries."""
    seconds = {n: min(_seconds(run, n) for _ in range(5)) for n in (size, 2 * size)}
    return (seconds[2 * size] + 1e-3) / (seconds[size] + 1e-3)


def _seconds(run, n):
    start = time.process_time()
    run(n)
    return time.process_time() - start


# Outputs


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("1\n2\n", "1\n2", True),
        ("1  \n2\t\n\n\n", "1\n2", True),
        ("1\r\n2\r\n", "1\n2\n", True),
        ("", "\n", True),
        ("1\n", "1\n2\n", False),
        ("1\n2\n3\n", "1\n2\n", False),
        ("1 2\n", "1\n2\n", False),
        ("1  2\n", "1 2\n", False),
        (" 1\n", "1\n", False),
        ("\n1\n", "1\n", False),
        ("yes\n", "Yes\n", False),
        ("1.0\n", "1\n", False),
        ("١\n", "1\n", False),
        ("", "1\n", False),
    ],
)
def test_outputs_are_compared_whole(found, expected, same):
    assert same_output(found, expected) is same
    assert same_output(expected, found) is same
    assert same or first_difference(found, expected)


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("0.3333333\n", "0.33333334\n", True),
        ("1000000.5\n", "1000000\n", True),
        ("x 1.0000001\n", "x 1\n", True),
        ("1e3", "1000", True),
        ("1.01\n", "1\n", False),
        ("nan\n", "1\n", False),
        ("inf\n", "1\n", False),
        ("1\n", "inf\n", False),
        ("1_0\n", "10\n", False),
        ("1 1\n", "1\n", False),
        ("1\n1\n", "1\n", False),
        ("y 1\n", "x 1\n", False),
        ("9" * 400, "9" * 401, False),
    ],
)
def test_numbers_may_be_off_by_the_tolerance(found, expected, same):
    assert same_output(found, expected, 1e-6) is same


@settings(deadline=None, max_examples=300)
@given(st.text(), st.text(), st.one_of(st.none(), st.just(1e-6)))
def test_comparison_takes_any_text(found, expected, tolerance):
    assert same_output(found, found, tolerance)
    if "".join(found.split()) != "".join(expected.split()) and tolerance is None:
        assert not same_output(found, expected)


@pytest.mark.parametrize("piece", ["1\n", "\n", " ", "1 ", "\r", "1.5 x\n"])
def test_comparison_takes_linear_time(piece):
    assert growth(lambda n: same_output(piece * n + "a", piece * n + "b", 1e-6), 20_000) < 6
