"""Published data sets as records: every form, every planted fault, nothing lost without a word."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.config import UserError
from r1jax.data.forms import FORMS, last_boxed, recognise
from r1jax.data.rows import parse_json, read_rows
from r1jax.data.schema import field_fault
from r1jax.data.sources import judging_fault, read_records

ASSETS = os.environ.get("R1JAX_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder of published data sets")

GOOD = [{"question": f"{n} plus 1?", "answer": f"<<{n}+1>>\n#### {n + 1:,}"} for n in range(1000, 1006)]

# One row of every published form, and what must be found in its record.
PUBLISHED = {
    "gsm8k": ({"question": "q?", "answer": "so\n#### 1,234"}, {"question": "q?", "answer": "1234"}),
    "math": (
        {
            "problem": "p",
            "solution": "a \\boxed{1} then $\\boxed{\\frac{1}{2}}$.",
            "level": "Level 5",
            "type": "Algebra",
        },
        {"question": "p", "answer": "\\frac{1}{2}", "level": "Level 5", "subject": "Algebra"},
    ),
    "math_answers": ({"problem": "p", "answer": "x^2", "difficulty": 5.0}, {"question": "p", "answer": "x^2"}),
    "aime": (
        {"problem": "p", "solution": "s", "answer": "204", "year": 2024, "aime_number": 1, "problem_number": 1},
        {"answer": "204", "solution": "s"},
    ),
    "nemo_skills": (
        {"id": "aime25-0", "problem": "p", "expected_answer": "70", "reference_solution": ""},
        {"id": "x:aime25-0", "answer": "70"},
    ),
    "amc": ({"id": 0, "problem": "p", "answer": 27.0, "url": "u", "question": "p"}, {"id": "x:0", "answer": "27"}),
    "mawps": ({"input": "How many?", "target": 0.5}, {"question": "How many?", "answer": "0.5"}),
    "mbpp": (
        {"text": "t", "code": "a\r\nb", "task_id": 3, "test_setup_code": "", "test_list": ["assert f()"]},
        {"tests": ["assert f()"], "setup": "", "solution": "a\nb"},
    ),
    "mbpp_sanitized": (
        {"prompt": "t", "code": "c", "task_id": 3, "test_imports": ["import math"], "test_list": ["assert f()"]},
        {"setup": "import math", "tests": ["assert f()"]},
    ),
    "humaneval": (
        {
            "task_id": "HumanEval/0",
            "prompt": "def f():\n",
            "canonical_solution": "    return 1\n",
            "test": "def check(candidate):\n    assert candidate() == 1",
            "entry_point": "f",
        },
        {"solution": "def f():\n    return 1\n", "entry_point": "f", "question": "def f():\n"},
    ),
    "knights_and_knaves": (
        {"quiz": "Who?", "names": ["Ann", "Bob"], "solution": [True, False]},
        {"question": "Who?", "names": ["Ann", "Bob"], "solution": [True, False]},
    ),
    "share_gpt_preference": (
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"messages": [{"role": "user", "content": "hi"}], "chosen": {"role": "assistant", "content": "yes"}},
    ),
    "preference": (
        {
            "prompt": "hi",
            "chosen": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}],
            "rejected": "b",
        },
        {"chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "assistant", "content": "b"}},
    ),
    "question_preference": (
        {"system": "s", "question": "hi", "chosen": "a", "rejected": "b"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
    ),
    "two_conversations": (
        {"chosen": "\n\nHuman: hi\n\nAssistant: a\n\nmore", "rejected": "\n\nHuman: hi\n\nAssistant: b"},
        {"messages": [{"role": "user", "content": "hi"}], "chosen": {"role": "assistant", "content": "a\n\nmore"}},
    ),
    "prompt_completion": (
        {"prompt": "hi", "completion": "<think>\nhm\n</think>\n\nyo"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "reasoning": "hm"}]},
    ),
    "alpaca": (
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"messages": [{"role": "user", "content": "add\n1 2"}, {"role": "assistant", "content": "3"}]},
    ),
    "share_gpt": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}], "system": "s"},
        {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "hi"), ("assistant", "yo"))]},
    ),
    "openai": (
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "value": "hm"},
                        {"type": "tool_call", "value": '{"name": "f", "arguments": {"a": "ü"}}'},
                    ],
                },
            ],
            "tools": "[]",
        },
        {"tools": "[]"},
    ),
    "text": ({"text": "words", "url": "u"}, {"text": "words"}),
    "uniform": ({"family": "countdown", "id": "c:1", "question": "?", "target": 3}, {"id": "c:1", "target": 3}),
}


KEYS = ["role", "content", "from", "value", "type", "tool_calls", "function", "name", "arguments", "reasoning"]


def lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def written(folder, name, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_published_form_is_recognised_and_becomes_a_record(form, tmp_path):
    row, expected = PUBLISHED[form.name]
    assert recognise(row) is form
    (record,) = read_records(written(tmp_path, "x.jsonl", lines([row])))
    assert record["family"] == (form.family or row["family"]) and record["id"].startswith(("x:", "c:"))
    assert record | expected == record
    for field in form.fields:
        if field.required:
            broken = {name: value for name, value in row.items() if name != field.name}
            assert field_fault(form, broken).kind == "missing field"
            assert (
                field_fault(form, row | {field.name: {1: 2} if dict not in field.types else True}).kind == "wrong type"
            )


def test_a_field_given_twice_among_many_is_found_at_once():
    row = "{" + "".join(f'"k{n}": 1, ' for n in range(40_000)) + '"k39999": 2}'
    start = time.process_time()
    with pytest.raises(ValueError, match="'k39999' is given more than once"):
        parse_json(row.encode())
    assert time.process_time() - start < 5  # a minute where every field is counted


def test_a_program_is_shown_one_of_its_tests_and_judged_by_all(tmp_path):
    row = PUBLISHED["mbpp"][0] | {"test_list": ["assert f(1) == 1", "assert f(2) == 4"]}
    (record,) = read_records(written(tmp_path, "x.jsonl", lines([row])))
    assert record["question"].endswith("assert f(1) == 1") and len(record["tests"]) == 2
    (record,) = read_records(written(tmp_path, "x.jsonl", lines([PUBLISHED["humaneval"][0]])))
    names: dict = {}
    exec(record["solution"] + record["tests"][0], names)  # the published solution passes the published test
    exec(record["setup"], names)


GOOD_LINE = json.dumps(GOOD[0]).encode()
FAULTS = {  # name: (bytes of line 3, kind, words of the message)
    "broken JSON": (b'{"question": "a", "answer" "b"}', "broken JSON", "delimiter"),
    "two rows in a line": (GOOD_LINE + GOOD_LINE, "broken JSON", "Extra data"),
    "missing field": (b'{"question": "a"}', "missing field", "'answer' of gsm8k is missing"),
    "null": (b'{"question": "a", "answer": null}', "missing field", "is null"),
    "wrong type": (b'{"question": ["a"], "answer": "b"}', "wrong type", "a list"),
    "a truth value": (b'{"question": true, "answer": "b"}', "wrong type", "a truth value"),
    "not an object": (b"[1, 2]", "wrong type", "a list"),
    "NaN": (b'{"question": "a", "answer": NaN}', "not a number", "NaN"),
    "Infinity": (b'{"question": "a", "answer": "#### 1", "weight": -Infinity}', "not a number", "-Infinity"),
    "beyond numbers": (b'{"question": "a", "answer": "#### 1", "weight": 1e999}', "not a number", "1e999"),
    "empty field": (b'{"question": " ", "answer": "#### 1"}', "empty field", "'question'"),
    "no answer mark": (b'{"question": "a", "answer": "one"}', "malformed row", "####"),
    "empty line": (b"", "empty line", "a row was expected"),
    "invalid UTF-8": (b'{"question": "\xff\xfe", "answer": "#### 1"}', "invalid UTF-8", "byte 15"),
    "half a pair": (b'{"question": "\\ud83d", "answer": "#### 1"}', "invalid UTF-8", "surrogate"),
    "a field twice": (b'{"question": "a", "question": "b", "answer": "#### 1"}', "repeated field", "'question'"),
    "huge integer": (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", "broken JSON", "digits"),
    "deep nesting": (b'{"question": "a", "answer": ' + b"[" * 200_000 + b"}", "broken JSON", ""),
    "zero bytes": (b"\x00\x00\x00", "broken JSON", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_by_file_and_line_and_stops_the_run(name, tmp_path):
    line, kind, words = FAULTS[name]
    path = written(tmp_path, "bad.jsonl", lines(GOOD[:2]) + line + b"\n" + lines(GOOD[2:]))
    reader = read_records(path)
    with pytest.raises(UserError) as error:
        list(reader)
    message = str(error.value)
    assert (
        f"{path}, line 3: {kind}: " in message
        and words in message
        and f"1 of 7 rows cannot be used ({kind} 1)" in message
    )
    assert len(message) < 700
    assert reader.summary == (7, 6, {kind: 1})


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_goes_to_quarantine_as_configured(name, tmp_path):
    line, kind, words = FAULTS[name]
    path, quarantine = tmp_path / "bad.jsonl", tmp_path / "deep" / "quarantine.jsonl"
    path.write_bytes(lines(GOOD[:2]) + line + b"\n" + lines(GOOD[2:]))
    reader = read_records(path, quarantine=quarantine)
    assert [record["question"] for record in reader] == [row["question"] for row in GOOD]
    assert [json.loads(row)["line"] for row in quarantine.read_text().splitlines()] == [3]
    row = json.loads(quarantine.read_text())
    assert set(row) == {"file", "line", "problem", "raw"} and row["file"] == str(path)
    assert row["problem"].startswith(f"{kind}: ") and words in row["problem"]
    assert row["raw"] == line.decode("utf-8", "backslashreplace")
    assert str(reader.summary) == f"7 rows: 6 records, 1 left out ({kind} 1)"


def test_byte_order_marks_truncation_and_unknown_rows(tmp_path):
    marked = written(tmp_path, "bom.jsonl", b"\xef\xbb\xbf" + lines(GOOD))
    with pytest.raises(UserError, match="line 1: byte order mark"):
        list(read_records(marked))
    cut = written(tmp_path, "cut.jsonl", lines(GOOD)[:-30])
    with pytest.raises(UserError, match="line 6: truncated last line: .*without a line end"):
        list(read_records(cut))
    whole = written(tmp_path, "whole.jsonl", lines(GOOD)[:-1])
    assert len(list(read_records(whole))) == 6  # only the line end is missing
    late = written(tmp_path, "late.jsonl", b'{"a": 1}\n' + lines(GOOD))
    reader = read_records(late, quarantine=tmp_path / "q.jsonl")
    assert len(list(reader)) == 6 and reader.summary.faults == {"unknown form": 1}
    with pytest.raises(UserError, match="those of no known form:\n  gsm8k: question, answer"):
        list(read_records(written(tmp_path, "odd.jsonl", b'{"a": 1}\n' * 30), quarantine=tmp_path / "q.jsonl"))
    with pytest.raises(UserError, match="No row is usable"):
        list(read_records(written(tmp_path, "all.jsonl", b"{\n" * 3), quarantine=tmp_path / "q.jsonl"))


def test_many_faults_are_counted_and_a_few_are_shown(tmp_path):
    rows = lines(GOOD) + b"{}\n" * 30 + b"nonsense\n" * 10
    with pytest.raises(UserError) as error:
        list(read_records(written(tmp_path, "x.jsonl", rows)))
    message = str(error.value)
    assert "40 of 46 rows cannot be used (missing field 30, broken JSON 10)" in message and "and 35 more" in message
    assert message.count("line ") == 5


def test_ids_are_given_once(tmp_path):
    row = PUBLISHED["amc"][0]
    path = written(tmp_path, "amc.jsonl", lines([row, row | {"id": 1}, row | {"problem": "another"}]))
    with pytest.raises(UserError, match="line 3: duplicate id: 'amc:0' also names line 1 of amc.jsonl"):
        list(read_records(path))
    assert [r["id"] for r in read_records(path, quarantine=tmp_path / "q")] == ["amc:0", "amc:1"]


def test_gold_answers_that_cannot_be_judged_are_faults(tmp_path):
    path = written(tmp_path, "x.jsonl", lines(GOOD))
    check = lambda record: "odd" if int(record["answer"]) % 2 else None
    reader = read_records(path, quarantine=tmp_path / "q.jsonl", check=check)
    assert [record["answer"] for record in reader] == ["1002", "1004", "1006"]
    assert reader.summary.faults == {"cannot be judged": 3}
    with pytest.raises(UserError, match="line 1: cannot be judged: odd"):
        list(read_records(path, check=check))
    assert judging_fault({"family": "code", "tests": []}) == "there is no test"
    assert judging_fault({"family": "text", "text": "a"}) is None


# Fuzz


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_break_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "x.jsonl"
    path.write_bytes(lines(GOOD[:1]) + content + b"\n" + lines(GOOD[1:2]))
    reader = read_records(path, quarantine=path.with_name("q.jsonl"))
    records = list(reader)
    assert records[0]["question"] == GOOD[0]["question"] and records[-1]["question"] == GOOD[1]["question"]
    assert reader.summary.rows == 3 + content.count(b"\n") == len(records) + sum(reader.summary.faults.values())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_strict_json_is_json(value):
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("\\boxed{1} and \\boxed{\\sqrt{2}}", "\\sqrt{2}"),
        ("so $\\fbox{5}$", "5"),
        ("$\\boxed 2$", "2"),
        ("\\boxed{\\text{(A) } \\{1,2\\}}.", "\\text{(A) } \\{1,2\\}"),
        ("$\\boxed{f = \\left\\{ 1, x > 0 \\right.}$", "f = \\left\\{ 1, x > 0 \\right."),
        ("\\boxedtext{3}", None),
        ("none", None),
        ("\\boxed{1", None),
        ("\\boxed{}", None),
        ("\\boxed", None),
    ],
)
def test_the_answer_of_a_solution_is_its_last_box(solution, answer):
    if answer is not None:
        assert last_boxed(solution) == answer
        return
    with pytest.raises(ValueError, match="boxed"):
        last_boxed(solution)


# The real thing


@needs_assets
@pytest.mark.parametrize(
    ("name", "form", "rows", "left_out"),
    [
        ("gsm8k/train.jsonl", "gsm8k", 7473, 0),
        ("gsm8k/test.jsonl", "gsm8k", 1319, 0),
        ("math/train.json", "math_answers", 7474, 4),
        ("aime/aime24.json", "aime", 30, 0),
        ("aime/aime25.jsonl", "nemo_skills", 30, 0),
        ("amc/amc23.jsonl", "amc", 40, 0),
        ("code/mbpp.jsonl", "mbpp", 974, 0),
        ("easy/mawps_addsub.jsonl", "mawps", 395, 0),
        ("easy/mawps_singleop.jsonl", "mawps", 562, 0),
        ("logic/kk3_train.parquet", "knights_and_knaves", 900, 0),
        ("logic/kk3_test.parquet", "knights_and_knaves", 100, 0),
        ("chat/alpaca_en_demo.json", "alpaca", 999, 0),
        ("chat/dpo_en_demo.json", "share_gpt_preference", 299, 0),
        ("cot/reason_tool_use_demo_50.jsonl", "openai", 50, 1),
        ("text/c4_demo.jsonl", "text", 300, 0),
    ],
)
def test_published_sets_are_read_as_they_are_published(name, form, rows, left_out, tmp_path):
    path = Path(ASSETS) / name
    assert recognise(next(iter(read_rows(path))).value).name == form
    reader = read_records(path, quarantine=tmp_path / "q.jsonl")
    records = list(reader)
    assert reader.summary[:2] == (rows, rows - left_out)
    assert len({record["id"] for record in records}) == len(records)
    assert json.loads(json.dumps(records)) == records
