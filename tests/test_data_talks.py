"""Conversations and preferences in the forms in which they are published."""

import json

import pytest

from r1jax.config import UserError
from r1jax.data.sources import read_records


def written(folder, row):
    path = folder / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]
REFUSED = [TALK[0], {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "prompt_id": "0", "messages": TALK, "chosen": TALK, "rejected": REFUSED, "score_chosen": 7.5},
        {"chosen": TALK, "rejected": REFUSED, "score_chosen": 7.5},
        {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": REFUSED[1:]},
    ],
    ids=["UltraFeedback", "TRL implicit prompt", "TRL explicit prompt"],
)
def test_preferences_as_they_are_published(row, tmp_path):
    (record,) = read_records(written(tmp_path, row))
    assert (record["messages"], record["chosen"], record["rejected"]) == (TALK[:1], TALK[1], REFUSED[1])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": TALK, "rejected": [{"role": "user", "content": "ho"}, REFUSED[1]]}, "before their last message"),
        ({"chosen": TALK[1:], "rejected": REFUSED[1:]}, "no 'prompt'"),
        ({"chosen": "Human hi", "rejected": "\n\nHuman: hi\n\nAssistant: b"}, "must begin with"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "'history'"),
        ({"instruction": "a", "output": "b", "history": [[3, "y"]]}, "content and reasoning must be text"),
    ],
)
def test_talks_that_cannot_be_used_are_named(row, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        list(read_records(written(tmp_path, row)))


def test_the_history_of_an_alpaca_row_comes_before_it(tmp_path):
    row = {"system": "s", "history": [["q", "a"]], "instruction": "i", "input": "", "output": "<think>t</think>o"}
    (record,) = read_records(written(tmp_path, row))
    assert [message["content"] for message in record["messages"]] == ["s", "q", "a", "i", "o"]
    assert record["messages"][-1]["reasoning"] == "t"
