"""Published data sets as streams of uniform records; no malformed row is lost without a word."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from r1jax.config import UserError
from r1jax.data.forms import FORMS, UNIFORM, recognise
from r1jax.data.payloads import write_payloads
from r1jax.data.rows import Fault, Row, data_files, read_rows
from r1jax.data.schema import Form, field_fault

SHOWN = 5  # faults an error message lists
LONGEST_SHOWN = 80  # characters of a row
PATIENCE = 20  # rows of no known form before the first of a known one


class Summary(NamedTuple):
    """What became of the rows of a source; `rows` is `records` plus the sum of `faults`."""

    rows: int
    records: int
    faults: dict[str, int]
    """Rows that were left out, by kind of fault."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"{self.rows} rows: {self.records} records, {sum(self.faults.values())} left out" + (
            f" ({kinds})" if kinds else ""
        )


class FaultyRow(NamedTuple):
    """A row that was left out, and why."""

    file: str
    line: int
    """From 1; in parquet and ArrayRecord files the number of the row."""
    problem: str
    raw: str

    def __str__(self) -> str:
        raw = " ".join(self.raw[: 2 * LONGEST_SHOWN].split())
        shown = raw if len(raw) <= LONGEST_SHOWN else f"{raw[:LONGEST_SHOWN]}…"
        return f"{self.file}, line {self.line}: {self.problem}: {shown}"


class RecordReader(Iterator[dict]):
    """Iterates over the records of a source and counts what it meets; made by `read_records`."""

    def __init__(self, records: Callable[["RecordReader"], Iterator[dict]]):
        self.rows = self.records = 0
        self.faults: Counter[str] = Counter()
        self.first_faults: list[FaultyRow] = []
        self._iterator = records(self)

    def __next__(self) -> dict:
        return next(self._iterator)

    @property
    def summary(self) -> Summary:
        """Counts so far; final once the iteration has ended."""
        return Summary(self.rows, self.records, dict(self.faults))


def read_records(
    path: str | Path,
    form: Form | None = None,
    *,
    name: str | None = None,
    quarantine: str | Path | None = None,
    check: Callable[[dict], str | None] | None = None,
) -> RecordReader:
    """The uniform records of a published data set (see r1jax.data.forms), in the order of its rows.

    Args:
      path: a file, or a folder whose data files are read in the order of their names; by the end of its name JSON lines
        (.jsonl), JSON (.json: an array, an object, or lines), parquet or ArrayRecord; the first two also gzipped (.gz).
      form: what the rows must look like; recognised from the first readable row where it is not given.
      name: of the source, the beginning of every record's id; the name of the path without its ending by default.
      quarantine: rows that are malformed or that cannot be judged are appended to this JSON lines file as {file, line,
        problem, raw}, and reading goes on. Without it they stop the run once all have been counted.
      check: says why a record cannot be judged, None where it can; see `judging_fault`.

    Returns:
      An iterator with the counts in its `summary`.

    Raises:
      UserError: while iterating: faulty rows without `quarantine`, a damaged or empty file, no usable row, rows of no
        known form; at once: the path is missing or is of an unknown kind.
    """
    files = data_files(path)
    name = name if name is not None else Path(path).name.split(".")[0]

    keep = _Keeper(form, name, Path(path), len(files) > 1, check)
    return RecordReader(lambda reader: _records(reader, path, files, keep, quarantine))


def _records(reader: RecordReader, path, files: list[Path], keep: "_Keeper", quarantine) -> Iterator[dict]:
    out = None
    try:
        for file, row in ((file, row) for file in files for row in read_rows(file)):
            reader.rows += 1
            record, fault = keep(file, row)
            if fault is None:
                reader.records += 1
                if not reader.faults or quarantine:
                    yield record
                continue
            reader.faults[fault.kind] += 1
            faulty = FaultyRow(str(file), row.line, f"{fault.kind}: {fault.detail}", _raw_text(row))
            if len(reader.first_faults) < SHOWN:
                reader.first_faults.append(faulty)
            if quarantine:
                out = out or _open_quarantine(quarantine)
                out.write(json.dumps(faulty._asdict(), ensure_ascii=False) + "\n")
    finally:
        if out:
            out.close()
    if reader.faults and (not quarantine or not reader.records):
        raise UserError(_complaint(path, reader, quarantine))


def judging_fault(record: dict) -> str | None:
    """Why the judge of its family cannot judge answers to a record; None where it can, or where nothing is judged.

    The gold answer of a mathematical problem must be one that `math_reward` can parse, a program needs tests.
    """
    if record["family"] == "math":
        from r1jax.rewards.math import check_gold

        return check_gold(record["answer"])
    if record["family"] == "code" and not record["tests"]:
        return "there is no test"
    return None


def write_json_lines(records: Iterable[dict], path: str | Path) -> int:
    """Write records as JSON lines in one move, so that nobody sees half of the file; returns how many there were."""
    path, count = Path(path), 0
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for count, record in enumerate(records, start=1):
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    partial.rename(path)
    return count


def write_array_record(records: Iterable[dict], path: str | Path) -> int:
    """Write records as an ArrayRecord file of JSON texts for random access, in one move; returns how many there were.

    Raises:
      UserError: the file does not hold what was written, as on a full disk.
    """
    return write_payloads((json.dumps(r, ensure_ascii=False, allow_nan=False).encode() for r in records), path)


class _Keeper:
    """Rows to records, or faults; remembers the form of the source and the ids it has seen."""

    def __init__(self, form: Form | None, name: str, path: Path, several: bool, check):
        self.form, self.name, self.path, self.several, self.check = form, name, path, several, check
        self.seen: dict[str, tuple[Path, int]] = {}
        self.unknown = 0

    def __call__(self, file: Path, row: Row) -> tuple[dict | None, Fault | None]:
        if row.fault:
            return None, row.fault
        form = self.form = self.form or recognise(row.value)
        if form is None:
            return None, self._unknown(file, row)
        fault = field_fault(form, row.value)
        if fault:
            return None, fault
        try:
            record = form.convert(row.value)
            if row.raw and b"\\ud" in row.raw.lower():
                json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return None, Fault("invalid UTF-8", "half of a surrogate pair, which no UTF-8 text can hold")
        except ValueError as error:
            return None, Fault("malformed row", str(error))
        key = self._key(form, file, row)
        record = {"family": form.family or row.value["family"], "id": key, **record}
        if form.id_field:
            first = self.seen.setdefault(key, (file, row.line))
            if first != (file, row.line):
                return None, Fault("duplicate id", f"{key!r} also names line {first[1]} of {first[0].name}")
        reason = self.check(record) if self.check else None
        return (None, Fault("cannot be judged", reason)) if reason else (record, None)

    def _unknown(self, file: Path, row: Row) -> Fault:
        self.unknown += 1
        found = ", ".join(map(repr, row.value)) if isinstance(row.value, dict) else type(row.value).__name__
        if self.unknown == PATIENCE:
            known = "".join(f"\n  {f.name}: {', '.join(x.name for x in f.fields if x.required)}" for f in FORMS)
            raise UserError(f"{file}, line {row.line}: the fields ({found}) are those of no known form:{known}")
        return Fault("unknown form", f"its fields ({found}) are those of no known form")

    def _key(self, form: Form, file: Path, row: Row) -> str:
        if form is UNIFORM:
            return row.value["id"]
        if form.id_field:
            return f"{self.name}:{row.value[form.id_field]}"
        return f"{self.name}:{file.relative_to(self.path)}:{row.line}" if self.several else f"{self.name}:{row.line}"


def _raw_text(row: Row) -> str:
    if row.raw is None:
        return json.dumps(row.value, ensure_ascii=False, default=str)
    return row.raw.decode("utf-8", "backslashreplace")


def _open_quarantine(path: str | Path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", errors="backslashreplace")


def _complaint(path, reader: RecordReader, quarantine) -> str:
    total = sum(reader.faults.values())
    more = f"\n  and {total - len(reader.first_faults)} more" if total > len(reader.first_faults) else ""
    kinds = ", ".join(f"{kind} {count}" for kind, count in reader.faults.most_common())
    advice = (
        f"No row is usable; they are in {quarantine}."
        if quarantine
        else "Mend them, or name a quarantine file to go on without them."
    )
    return (
        f"{path}: {total} of {reader.rows} rows cannot be used ({kinds}):\n  "
        + "\n  ".join(map(str, reader.first_faults))
        + f"{more}\n{advice}"
    )
