"""Prepared data: every row is kept or written down with the reason, the counts add up, the bytes are repeatable."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.prepare_data import Config, main, named
from r1jax.config import UserError
from r1jax.data.card import card_markdown, data_card
from r1jax.data.deduplicate import Deduplicator
from r1jax.data.pass_rates import read_pass_rates
from r1jax.data.sifting import REASONS, Filters, Ledger, sift
from r1jax.data.sources import read_records
from r1jax.data.texts import all_text, asked_text

ASSETS = os.environ.get("R1JAX_ASSETS")

MILLER = (
    "A miller fills 14 sacks with 25 kilograms of barley each and sells every second sack for 30 crowns. "
    "How many crowns does the miller earn?"
)
TULIPS = "Wanda plants 5 rows of 12 tulips. A deer eats 7 tulips. How many are left?"
BENCHMARK = [{"question": MILLER, "answer": "7 sacks.\n#### 210"}]
PROBLEMS = [
    {"question": TULIPS, "answer": "60-7\n#### 53"},
    {"question": MILLER.replace("14", "15").upper(), "answer": "About 7 sacks.\n#### 210"},
    {"question": TULIPS.replace(". A", ";  a"), "answer": "5*12-7\n#### 53"},
    {"question": "Ten boats carry four crates each. How many crates do they carry?", "answer": "10*4\n#### 40"},
    {"question": "What is three more than the number of legs of a spider?", "answer": "8+3\n#### 11"},
]
DOCUMENTS = [{"text": "Barley grows in cool places, and the miller waits for it."}, {"text": "An entirely other page."}]


def write_rows(path: Path, rows) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.fixture
def files(tmp_path):
    """A small world: problems with one fault of every kind, documents, a benchmark, pass rates."""
    faulty = [*PROBLEMS[:4], '{"question": "cut off', PROBLEMS[4], {"question": "No answer?", "answer": "none"}]
    rates = [
        {"id": "problems:1", "pass_rate": 0.5},
        {"id": "problems:4", "outcomes": ["correct", "correct", "timeout"]},
    ]
    rates += [{"id": "problems:6", "outcome": outcome} for outcome in ("correct", "wrong", "error")]
    return {
        "problems": write_rows(tmp_path / "problems.jsonl", faulty),
        "documents": write_rows(tmp_path / "documents.jsonl", DOCUMENTS),
        "benchmark": write_rows(tmp_path / "benchmark.jsonl", BENCHMARK),
        "rates": write_rows(tmp_path / "rates.jsonl", rates),
    }


def config(files, workdir, **more) -> Config:
    more = {"quarantine": True, "pass_range": (0.1, 0.9), "pass_rates": str(files["rates"])} | more
    return Config(
        inputs=(f"problems={files['problems']}", f"documents={files['documents']}"),
        benchmarks=(f"mill={files['benchmark']}",),
        licences=("problems=MIT",),
        workdir=str(workdir),
        **more,
    )


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_row_is_kept_or_removed_with_its_reason(files, tmp_path):
    main(config(files, tmp_path / "data"))
    kept = [record["id"] for record in read_lines(tmp_path / "data/records/problems.jsonl")]
    assert kept == ["problems:1", "problems:6"]
    removed = {row.get("id") or row["detail"]["line"]: row for row in read_lines(tmp_path / "data/removed.jsonl")}
    reasons = {key: row["reason"] for key, row in removed.items()}
    assert reasons == {
        "problems:2": "contaminated", "problems:3": "duplicate", "problems:4": "pass rate", 5: "malformed",
        7: "malformed",
    }  # fmt: skip
    assert removed["problems:2"]["detail"]["item"] == "mill:1" and removed["problems:2"]["detail"]["share"] > 0.5
    assert removed["problems:3"]["detail"]["kept"] == "problems:1"
    assert removed["problems:4"]["detail"]["pass_rate"] == 1.0
    assert removed["problems:3"]["record"]["answer"] == "53", "the row itself is there"
    assert removed[5]["raw"] == '{"question": "cut off' and removed[5]["detail"]["file"] == str(files["problems"])


def test_the_card_adds_up(files, tmp_path):
    main(config(files, tmp_path / "data"))
    card = json.loads((tmp_path / "data/card.json").read_text())
    check_sums(card)
    assert card["sources"]["problems"]["rows"] == 7 and card["sources"]["documents"]["rows"] == 2
    assert card["total"]["kept"] == sum(len(read_lines(p)) for p in (tmp_path / "data/records").iterdir())
    assert card["total"]["rows"] - card["total"]["kept"] == len(read_lines(tmp_path / "data/removed.jsonl"))
    assert card["sources"]["documents"]["without_rate"] == 2
    assert card["sources"]["problems"]["licence"] == "MIT" and card["sources"]["documents"]["licence"] == "not given"
    kept = read_lines(tmp_path / "data/records/documents.jsonl")
    assert card["families"]["text"]["characters"]["total"] == sum(len(record["text"]) for record in kept)
    hashes = {file["file"]: file["sha256"] for file in card["files"]}
    for path in files.values():
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        assert hashes[str(path)] == digest
    text = (tmp_path / "data/card.md").read_text()
    assert "| problems | 7 | 2 | 0 | 1 | 1 | 1 | 2 |" in text and "barley" in text


def check_sums(card: dict) -> None:
    for counts in (card["total"], *card["sources"].values(), *card["families"].values()):
        assert counts["rows"] == counts["kept"] + sum(counts[reason] for reason in REASONS)
    for groups in (card["sources"], card["families"]):
        for column in ("rows", "kept", "without_rate", *REASONS):
            assert card["total"][column] == sum(counts[column] for counts in groups.values())


def test_the_same_inputs_give_the_same_bytes(files, tmp_path):
    for name in ("one", "two"):
        main(config(files, tmp_path / name))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_array_records_hold_the_same_records(files, tmp_path):
    main(config(files, tmp_path / "lines"))
    main(config(files, tmp_path / "arrays", form="array_record"))
    for name in ("problems", "documents"):
        lines = list(read_records(tmp_path / f"lines/records/{name}.jsonl"))
        assert lines == list(read_records(tmp_path / f"arrays/records/{name}.array_record")) and lines
    assert contents(tmp_path / "lines")["removed.jsonl"] == contents(tmp_path / "arrays")["removed.jsonl"]


def test_malformed_rows_stop_the_run_unless_told_otherwise(files, tmp_path):
    with pytest.raises(UserError, match="2 of 7 rows cannot be used"):
        main(config(files, tmp_path / "data", quarantine=False))
    assert not (tmp_path / "data").exists() and not (tmp_path / "data.partial").exists()
    main(config(files, tmp_path / "data"))


def test_answers_that_cannot_be_judged(tmp_path):
    rows = [{"problem": "Say something.", "answer": "\\frac{"}, {"problem": "What is one and one?", "answer": "2"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    main(Config(inputs=(f"rows={path}",), workdir=str(tmp_path / "data")))
    (row,) = read_lines(tmp_path / "data/removed.jsonl")
    assert row["reason"] == "unjudgeable" and row["id"] == "rows:1" and row["detail"]["problem"]
    main(Config(inputs=(f"rows={path}",), workdir=str(tmp_path / "all"), check_answers=False))
    assert len(read_lines(tmp_path / "all/records/rows.jsonl")) == 2


def test_a_finished_workdir_is_not_overwritten(files, tmp_path, capsys):
    main(config(files, tmp_path / "data"))
    before = contents(tmp_path / "data")
    main(config(files, tmp_path / "data"))
    assert "up to date" in capsys.readouterr().out and contents(tmp_path / "data") == before
    with pytest.raises(UserError, match="near_duplicate: 0.8 -> 0.9"):
        main(config(files, tmp_path / "data", near_duplicate=0.9))
    write_rows(files["documents"], DOCUMENTS[:1])
    with pytest.raises(UserError, match="other contents of .*documents.jsonl"):
        main(config(files, tmp_path / "data"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("mine")
    with pytest.raises(UserError, match="not a workdir"):
        main(config(files, tmp_path / "notes"))
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial/diary.txt").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        main(config(files, tmp_path / "other"))
    assert (tmp_path / "other.partial/diary.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "nothing to prepare"),
        ({"inputs": ("nosign",)}, "expected name=value"),
        ({"inputs": ("a/b=x.jsonl",)}, "expected name=value"),
        ({"inputs": ("a=x.jsonl", "a=y.jsonl")}, "only once"),
        ({"inputs": ("a=missing.jsonl",)}, "missing.jsonl is missing"),
        ({"benchmarks": ("b=missing.jsonl",)}, "missing.jsonl is missing"),
        ({"pass_rates": "missing.jsonl"}, "missing.jsonl is missing"),
        ({"licences": ("nobody=MIT",)}, "no source has this name"),
        ({"pass_range": (0.9, 0.1)}, "lowest <= highest"),
    ],
)
def test_wrong_options_are_said_before_anything_is_written(files, tmp_path, options, message):
    good = {"inputs": (f"documents={files['documents']}",), "workdir": str(tmp_path / "data")}
    with pytest.raises(UserError, match=message):
        main(Config(**good | options))
    assert not (tmp_path / "data").exists() and not (tmp_path / "data.partial").exists()


def test_names():
    assert named(("a=x=y", "b.c-d=z"), "inputs") == {"a": "x=y", "b.c-d": "z"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_data_and_can_be_repeated(tmp_path, how):
    rows = [{"text": f"document {number} " + "lorem ipsum dolor " * 200 + str(number)} for number in range(6000)]
    path = write_rows(tmp_path / "corpus.jsonl", rows)
    options = ["--inputs", f"corpus={path}", "--workdir", str(tmp_path / "data"), "--near-duplicate", "1.1"]
    command = [sys.executable, str(ROOT / "experiments/prepare_data.py"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    written = tmp_path / "data.partial/records/corpus.jsonl.partial"
    while process.poll() is None and not (written.exists() and written.stat().st_size):
        time.sleep(0.02)
    process.send_signal(how)
    output, errors = process.communicate(timeout=60)
    assert not (tmp_path / "data").exists()
    if how == signal.SIGINT:
        assert process.returncode == 0 and "nothing was written" in output, output + errors
        assert not (tmp_path / "data.partial").exists()
    write_rows(path, rows[:3])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_lines(tmp_path / "data/records/corpus.jsonl")) == 3 and not (tmp_path / "data.partial").exists()


def test_pass_rates(tmp_path):
    rows = [
        {"id": "a", "pass_rate": 1},
        {"id": "b", "outcome": "correct"},
        {"id": "b", "outcome": "no_answer"},
        {"id": "c", "outcomes": ["wrong", "timeout", "correct", "correct"]},
        {"id": "d", "outcome": "error"},
    ]
    rates = read_pass_rates(write_rows(tmp_path / "rates.jsonl", rows))
    assert rates == {"a": 1.0, "b": 0.5, "c": pytest.approx(2 / 3)}, "judges that failed do not count"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: broken JSON|line 2: truncated"),
        ([], "line 2: expected an object"),
        ({"id": 5, "pass_rate": 0.5}, "line 2: expected an object"),
        ({"id": "b"}, "line 2: outcome"),
        ({"id": "b", "outcome": "right"}, "line 2: outcome"),
        ({"id": "b", "pass_rate": 1.5}, "line 2: 'pass_rate' is 1.5"),
        ({"id": "b", "pass_rate": True}, "line 2: 'pass_rate' is True"),
        ({"id": "a", "pass_rate": 0.5}, "line 2: .* was given before"),
        ({"id": "a", "outcome": "wrong"}, "line 2: .* was given before"),
    ],
)
def test_wrong_pass_rates_are_named_by_line(tmp_path, row, message):
    path = write_rows(tmp_path / "rates.jsonl", [{"id": "a", "pass_rate": 0.1}, row])
    with pytest.raises(UserError, match=message):
        read_pass_rates(path)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["math", "text"]), st.sampled_from("abc"), st.booleans()), max_size=20))
def test_any_mixture_adds_up(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("mixture") / "removed.jsonl"
    with path.open("w") as removed:
        ledger = Ledger(removed)
        records = []
        for number, (family, text, good) in enumerate(rows):
            content = {"question": f"What is {text}?", "answer": "1" if good else "\\frac{"}
            content = {"text": text} if family == "text" else content
            records.append({"family": family, "id": str(number), **content})
        kept = list(sift(records, "all", Filters(duplicates=Deduplicator()), ledger))
    card = data_card(ledger, [], {}, command="", config={})
    check_sums(card)
    assert card["total"]["rows"] == len(rows) and card["total"]["kept"] == len(kept)
    ids = [row["id"] for row in read_lines(path)] + [record["id"] for record in kept]
    assert sorted(ids) == sorted(str(number) for number in range(len(rows)))
    card_markdown(card)


def test_texts_of_every_family():
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    pair = {"family": "preference", "messages": messages[:1], "chosen": {"role": "assistant", "content": "yes"},
            "rejected": {"role": "assistant", "content": "no", "reasoning": "hm"}}  # fmt: skip
    assert all_text(pair) == asked_text(pair) == "hello\nyes\nhm\nno"
    assert "look" in all_text({"family": "conversation", "messages": messages})
    math = {"family": "math", "question": "q", "answer": "1", "solution": "s"}
    assert asked_text(math) == "q" and all_text(math) == "q\ns"
    knights = {"family": "knights_and_knaves", "question": "q", "names": ["a"], "solution": [True]}
    assert all_text(knights) == "q"


@pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder of the data sets")
def test_gsm8k_and_mbpp_for_real(tmp_path):
    assets = Path(ASSETS)
    inputs = (f"mbpp={assets / 'code/mbpp.jsonl'}", f"test={assets / 'gsm8k/test.jsonl'}")
    benchmarks = (f"gsm8k={assets / 'gsm8k/test.jsonl'}",)
    main(Config(inputs=inputs, benchmarks=benchmarks, workdir=str(tmp_path / "data"), check_answers=False))
    card = json.loads((tmp_path / "data/card.json").read_text())
    check_sums(card)
    assert card["sources"]["test"]["contaminated"] == card["sources"]["test"]["rows"] == 1319
    assert card["sources"]["mbpp"]["kept"] >= 970
    reasons = collections.Counter(row["reason"] for row in read_lines(tmp_path / "data/removed.jsonl"))
    assert reasons["contaminated"] == 1319
