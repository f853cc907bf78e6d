"""Fine-tuning data from samples: what is kept, what is dropped and why, and what the card says."""

import pytest

from r1jax.collect import as_written, collect, conversation, not_readable, table_5
from r1jax.evaluation import Response
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.rewriting import rewrite

RIGHT, WRONG, FAILED = Judgement("correct", 1.0), Judgement("wrong", 0.0), Judgement("timeout", 0.0)
RECORD = {
    "id": "countdown:1:0", "family": "countdown", "level": 1, "language": "en", "question": "Use ...",
    "numbers": [3, 4, 9], "target": 7,
}  # fmt: skip
GOOD = "<think> 9 - 3 = 6 no 3 + 4 = 7 yes </think> <answer> 3 + 4 </answer>"


def response(text=GOOD, tokens=20, finished=True, accuracy=RIGHT, form=RIGHT, language=1.0):
    judgements = {"accuracy": accuracy, "format": form, "language": Judgement("correct", language)}
    return Response(text, tokens, finished, judgements)


@pytest.mark.parametrize(
    "given, reason",
    [
        ({}, None),
        ({"accuracy": WRONG}, "not correct"),
        ({"accuracy": FAILED}, "the judge failed"),
        ({"finished": False}, "cut off"),
        ({"form": WRONG}, "format"),
        ({"language": 0.9}, "mixed languages"),
        ({"text": GOOD.replace("3 + 4 = 7 yes", "9 - 3 = 6 no 3 + 4 = 7 yes")}, "repetition"),
        ({"text": GOOD.replace("= 6 no", "= 5 no")}, "a wrong check"),
        ({"text": "<think> ```python\nx\n``` </think> <answer> 3 + 4 </answer>"}, "code block in the reasoning"),
        ({"text": f"<think> {'a ' * 3000} </think> <answer> 3 + 4 </answer>"}, "long paragraph"),
        ({"text": "<think> </think> <answer> 3 + 4 </answer>"}, "no reasoning"),
    ],
    ids=str,
)
def test_what_is_dropped_and_why(given, reason):
    assert not_readable(RECORD, response(**given), one_language=True) == reason


def test_mixed_languages_stay_where_a_rewriting_sees_to_them():
    assert not_readable(RECORD, response(language=0.5), one_language=False) is None


def test_the_shortest_different_responses_are_kept_and_all_are_counted():
    short = response("<think> 3 + 4 = 7 yes </think> <answer> 3 + 4 </answer>", tokens=12)
    group = [response(), response(), short, response(accuracy=WRONG), response(GOOD + " ", tokens=25)]
    collected = collect([RECORD], [group], rewrite, per_problem=2, one_language=True)
    assert [c["id"] for c in collected.conversations] == ["countdown:1:0:0", "countdown:1:0:1"]
    answers = [c["messages"][1] for c in collected.conversations]
    assert [a["reasoning"] for a in answers] == ["3 + 4 = 7 yes", "9 - 3 = 6 no 3 + 4 = 7 yes"]
    assert answers[0]["content"] == "The answer is \\boxed{ 3 + 4 } ."
    assert collected.reasons == {"countdown": {"kept": 2, "more than enough": 2, "not correct": 1}}
    assert collected.pass_rates == [{"id": "countdown:1:0", "family": "countdown", "level": 1, "pass_rate": 0.8}]


def test_a_judge_that_failed_does_not_enter_the_pass_rate():
    collected = collect([RECORD], [[response(), response(accuracy=FAILED)]], rewrite, per_problem=1, one_language=True)
    assert collected.pass_rates[0]["pass_rate"] == 1.0
    lost = collect([RECORD], [[response(accuracy=FAILED)]], rewrite, per_problem=1, one_language=True)
    assert lost.pass_rates[0]["pass_rate"] is None and not lost.conversations


def test_as_written_takes_the_parts_of_the_released_form():
    assert as_written(RECORD, "<think> a b </think> The answer is 7 .") == ("a b", "The answer is 7 .")


def test_the_table_counts_domains_rounds_and_tokens():
    other = RECORD | {"family": "chains"}
    records = [
        conversation(RECORD, "a", "x y", "z"),
        conversation(RECORD, "b", "", "z"),
        conversation(other, "c", "x", "z"),
    ]
    assert "reasoning" not in records[1]["messages"][1]
    words = lambda record: sum(len(f"{m.get('reasoning', '')} {m['content']}".split()) for m in record["messages"][1:])
    assert list(table_5(records, words)) == [
        {"domain": "countdown", "samples": 2, "rounds": 1.0, "tokens": 2.0},
        {"domain": "chains", "samples": 1, "rounds": 1.0, "tokens": 2.0},
        {"domain": "total", "samples": 3, "rounds": 1.0, "tokens": 2.0},
    ]
