"""Files as rows: JSON lines, JSON, parquet and ArrayRecord, every row with its place and, if unreadable, its fault."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from r1jax.config import UserError

JSON_LINES, JSON, PARQUET, ARRAY_RECORD = ".jsonl", ".json", ".parquet", ".array_record"
SUFFIXES = (JSON_LINES, ".ndjson", JSON, PARQUET, ARRAY_RECORD)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
READ_AT_ONCE = 1024  # rows of a parquet file or an ArrayRecord file


class Fault(NamedTuple):
    """What is wrong with a row."""

    kind: str
    """Short, for counting: "missing field"."""
    detail: str
    """For people: which field, what was found, what was expected."""


class Row(NamedTuple):
    """One row of a file, or the fault that made it unreadable."""

    line: int
    """From 1: the line where the row begins; in parquet and ArrayRecord files, which have no lines, its number."""
    value: Any
    """As parsed; None where there is a fault."""
    raw: bytes | None
    """As it stands in the file, without the line end; None where the file does not hold text."""
    fault: Fault | None = None


def data_files(path: str | Path) -> list[Path]:
    """The data files at a path: the file itself, or those below a folder, in the order of their names.

    Raises:
      UserError: the path is missing, or its name does not say what it holds.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in SUFFIXES)
        if not found:
            raise UserError(
                f"{path} holds no data file: none of its files ends in {', '.join(SUFFIXES)} or these + .gz"
            )
        return found
    if not path.is_file():
        raise UserError(f"{path} is missing")
    if _suffix(path) not in SUFFIXES:
        raise UserError(
            f"{path}: unknown kind of file; the name must end in {', '.join(SUFFIXES)} or one of these + .gz"
        )
    return [path]


def read_rows(path: str | Path) -> Iterator[Row]:
    """Every row of a file, in order, the unreadable ones with their fault.

    Raises:
      UserError: the file is damaged in a way that hides how many rows are lost (a broken JSON array, a truncated gzip,
        parquet or ArrayRecord file), is empty, or needs a package that is not installed.
    """
    path = Path(path)
    suffix = _suffix(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    if suffix == PARQUET:
        return _parquet_rows(path)
    if suffix == ARRAY_RECORD:
        return _array_record_rows(path)
    return _json_rows(path) if suffix == JSON and not _begins_with_a_row(path) else _json_line_rows(path)


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text, strictly: no NaN, no infinity, no field given twice.

    Raises:
      ValueError: it is not one; `UnicodeDecodeError` where it is not UTF-8.
    """
    return _parse(raw.decode("utf-8"))


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] and suffixes[-2] in (JSON_LINES, ".ndjson", JSON):
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def _refuse_constant(name: str):
    raise _NotFinite(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _NotFinite(f"{text[:20]} is beyond the range of numbers")
    return value


class _NotFinite(ValueError):
    """NaN, Infinity or 1e999, which Python's JSON reader would let through."""


class _Repeated(ValueError):
    """A field that an object gives twice, of which Python's JSON reader would drop the first."""


def _object(pairs: list[tuple[str, Any]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Repeated(f"field {repeated!r} is given more than once")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object)


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _fault_of(error: ValueError) -> Fault:
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 4]
        return Fault("invalid UTF-8", f"byte {error.start + 1} of the row, {found!r}: {error.reason}")
    kinds = {_NotFinite: "not a number", _Repeated: "repeated field"}
    return Fault(kinds.get(type(error), "broken JSON"), str(error))


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _json_line_rows(path: Path) -> Iterator[Row]:
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield _json_line(number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}; fetch it again") from error


def _json_line(number: int, line: bytes) -> Row:
    raw = line.rstrip(b"\r\n")
    if number == 1 and raw.startswith(BYTE_ORDER_MARK):
        return Row(number, None, raw, Fault("byte order mark", "save the file as UTF-8 without a byte order mark"))
    if not raw.strip():
        return Row(number, None, raw, Fault("empty line", "a row was expected"))
    try:
        return Row(number, parse_json(raw), raw)
    except ValueError as error:
        fault = _fault_of(error)
    if fault.kind in ("broken JSON", "invalid UTF-8") and not line.endswith(b"\n"):
        fault = Fault("truncated last line", f"{fault.detail}; the file ends without a line end")
    return Row(number, None, raw, fault)


def _begins_with_a_row(path: Path) -> bool:
    """Whether a .json file holds JSON lines, as C4's do: its first line is a whole object."""
    try:
        with _open(path) as file:
            return isinstance(parse_json(file.readline()), dict)
    except (ValueError, OSError, EOFError, zlib.error):  # whatever it is, reading the file will say so
        return False


def _json_rows(path: Path) -> Iterator[Row]:
    """The elements of one JSON array, or one object; read whole, parsed element by element."""
    try:
        with _open(path) as file:
            data = file.read()
        text = data.decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}; fetch it again") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: invalid UTF-8 at byte {error.start + 1} of the file") from error
    if data.startswith(BYTE_ORDER_MARK):
        raise UserError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        value, end, fault = _element(path, text, start)
        if _skip(text, end) < len(text):
            raise UserError(f"{path}, line {text.count(chr(10), 0, end) + 1}: text after the JSON value")
        yield Row(1, value, data, fault)
        return
    if text[start := _skip(text, start + 1)] == "]":
        raise UserError(f"{path} holds an empty array")
    line, counted, comma = 1, 0, ","
    while comma == ",":
        line, counted = line + text.count("\n", counted, start), start
        value, end, fault = _element(path, text, start)
        yield Row(line, value, text[start:end].encode(), fault)
        end = _skip(text, end)
        comma, start = text[end : end + 1], _skip(text, end + 1)
    if comma != "]" or start < len(text):
        line = text.count("\n", 0, end) + 1
        found = f"text after the array: {text[start : start + 20]!r}" if comma == "]" else repr(text[end : end + 20])
        found = found if comma else "the end of the file"
        raise UserError(f"{path}, line {line}: expected ',' or ']' and nothing after it, found {found}")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _element(path: Path, text: str, start: int) -> tuple[Any, int, Fault | None]:
    """One value, where it ends and its fault; a broken one stops everything: nobody can say where the next begins."""
    try:
        try:
            return *_DECODER.raw_decode(text, start), None
        except (_NotFinite, _Repeated) as error:
            return None, json.JSONDecoder().raw_decode(text, start)[1], _fault_of(error)
    except (ValueError, RecursionError) as error:
        where = error.pos if isinstance(error, json.JSONDecodeError) else start
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(
            f"{path}, line {text.count(chr(10), 0, where) + 1}: {what}; the rest of the file, {len(text) - start} "
            "characters, cannot be read. Mend it, or convert it to JSON lines, where one row cannot hide others"
        ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow; pip install 'r1jax[parquet]'") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=READ_AT_ONCE):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, value, None)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}, after row {number}: not a whole parquet file: {error}") from error


def _array_record_rows(path: Path) -> Iterator[Row]:
    from array_record.python.array_record_module import ArrayRecordReader

    number = 0
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()  # 0 for a broken file, which only close() complains of
        for start in range(0, count, READ_AT_ONCE):
            for raw in reader.read(start, min(start + READ_AT_ONCE, count)):
                number += 1
                try:
                    yield Row(number, parse_json(raw), raw)
                except ValueError as error:
                    yield Row(number, None, raw, _fault_of(error))
        reader.close()
    except RuntimeError as error:
        raise UserError(f"{path}, after record {number}: not a whole ArrayRecord file: {error}") from error
