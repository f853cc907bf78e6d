"""Files as rows: the same set in every kind of file, and damaged ones."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from r1jax.config import UserError
from r1jax.data.sources import read_records, write_array_record, write_json_lines

GOOD = [{"question": f"{n} plus 1?", "answer": f"<<{n}+1>>\n#### {n + 1:,}"} for n in range(1000, 1006)]
PROBLEM = {"problem": "p", "answer": "x^2"}
SOLVED = {"problem": "p", "solution": "so \\boxed{1}", "level": "Level 5", "type": "Algebra"}


def lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def written(folder, name, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_one_set_reads_the_same_in_every_kind_of_file(tmp_path):
    import pyarrow
    from pyarrow import parquet

    expected = list(read_records(written(tmp_path, "s.jsonl", lines(GOOD))))
    written(tmp_path, "s.jsonl.gz", gzip.compress(lines(GOOD)))
    written(tmp_path, "lines.json", lines(GOOD))
    written(tmp_path, "crlf.jsonl", lines(GOOD).replace(b"\n", b"\r\n"))
    written(tmp_path, "array.json", json.dumps(GOOD).encode())
    written(tmp_path, "indented.json.gz", gzip.compress(json.dumps(GOOD, indent=2).encode()))
    parquet.write_table(pyarrow.Table.from_pylist(GOOD), tmp_path / "s.parquet")
    names = ["s.jsonl.gz", "lines.json", "crlf.jsonl", "array.json", "indented.json.gz", "s.parquet"]
    for name in names:
        found = list(read_records(tmp_path / name, name="s"))
        assert [{**r, "id": ""} for r in found] == [{**r, "id": ""} for r in expected], name
    assert write_array_record(expected, tmp_path / "s.array_record") == 6
    assert write_json_lines(expected, tmp_path / "again.jsonl") == 6
    for name in ("s.array_record", "again.jsonl"):
        assert list(read_records(tmp_path / name)) == expected


def test_places_in_json_arrays_are_lines(tmp_path):
    rows = [PROBLEM, {"problem": "p", "answer": None}, {"problem": "p", "answer": float("nan")}]
    path = written(tmp_path, "x.json", json.dumps(rows, indent=1).encode())
    with pytest.raises(UserError) as error:
        list(read_records(path))
    assert "line 6: missing field" in str(error.value) and "line 10: not a number" in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"[]", "holds an empty array"),
        (b'[\n{"problem": "p", "answer": "1"}\n,\n{"problem" "p"}]', "line 4: .*the rest of the file"),
        (b'[{"problem": "p", "answer": "1"}', "found the end"),
        (b'[{"problem": "p", "answer": "1"}] x', "text after the array"),
        (b'[{"problem": "p", "answer": "1"}\n{"problem": "p"}]', "line 2: expected ','"),
        (b'\xef\xbb\xbf[{"problem": "p", "answer": "1"}]', "byte order mark"),
        (b'[{"problem": "p",\n"answer": "\xff"}]', "line 2: invalid UTF-8"),
        (b"[" * 100_000, "line 1"),
    ],
)
def test_a_damaged_json_array_stops_even_with_a_quarantine(content, problem, tmp_path):
    path = written(tmp_path, "x.json", content)
    with pytest.raises(UserError, match=problem):
        list(read_records(path, quarantine=tmp_path / "q.jsonl"))


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.parquet", "x.array_record"])
def test_a_truncated_file_is_not_a_short_one(name, tmp_path):
    import pyarrow
    from pyarrow import parquet

    records = list(read_records(written(tmp_path, "s.jsonl", lines(GOOD * 500))))
    if name.endswith("gz"):
        written(tmp_path, name, gzip.compress(lines(GOOD * 500)))
    elif name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(GOOD * 500), tmp_path / name)
    else:
        write_array_record(records, tmp_path / name)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with pytest.raises(UserError, match=f"{name}.*not a whole"):
        list(read_records(path, quarantine=tmp_path / "q.jsonl"))


def test_folders_are_read_whole_and_odd_paths_are_named(tmp_path):
    for subject in ("algebra", "geometry"):
        (tmp_path / "train" / subject).mkdir(parents=True)
        for number in (1, 2):
            row = SOLVED | {"problem": f"{subject} {number}"}
            (tmp_path / "train" / subject / f"{number}.json").write_text(json.dumps(row, indent=2))
    records = list(read_records(tmp_path / "train", name="math"))
    assert [r["question"] for r in records] == ["algebra 1", "algebra 2", "geometry 1", "geometry 2"]
    assert len({r["id"] for r in records}) == 4 and records[0]["id"] == "math:algebra/1.json:1"
    (tmp_path / "none").mkdir()
    written(tmp_path, "x.csv", b"a,b")
    for path, problem in (("none", "no data file"), ("x.csv", "unknown kind"), ("absent.jsonl", "is missing")):
        with pytest.raises(UserError, match=problem):
            read_records(tmp_path / path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'r1jax\[parquet\]'"):
        list(read_records(written(tmp_path, "x.parquet", b"PAR1")))
