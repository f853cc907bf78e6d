"""The texts of uniform records: what is asked, and all that a model would read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1jax.config import UserError
from r1jax.data.sources import read_records


def asked_text(record: dict) -> str:
    """What makes a record the problem or document it is: its question; its messages and answers; its text."""
    if "question" in record:
        return record["question"]
    return all_text(record)


def all_text(record: dict) -> str:
    """Everything a model would read of a record: question and solution; messages and answers; text."""
    if "messages" in record:
        answers = [record[name] for name in ("chosen", "rejected") if name in record]
        return "\n".join(filter(None, map(_message_text, [*record["messages"], *answers])))
    parts = [record[name] for name in ("question", "text", "solution") if isinstance(record.get(name), str)]
    return "\n".join(parts)


def expected(record: dict) -> Any:
    """What a right answer to a record must be: its answer, its tests, its solution; None where nothing is judged."""
    for name in ("answer", "tests", "solution"):
        if name in record:
            return record[name]
    return None


def _message_text(message: dict) -> str:
    calls = message.get("tool_calls")
    parts = (message.get("reasoning"), message["content"], json.dumps(calls, ensure_ascii=False) if calls else None)
    return "\n".join(filter(None, parts))


def read_texts(path: str | Path) -> Iterator[str]:
    """The texts of a corpus: the lines of a .txt file that are not empty, or the records of any published form.

    Raises:
      UserError: see `read_records`; a text file that is missing, empty or not UTF-8.
    """
    path = Path(path)
    if path.suffix.lower() != ".txt":
        return map(all_text, read_records(path))
    if not path.is_file():
        raise UserError(f"{path} is missing")
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: invalid UTF-8 at byte {error.start + 1} of the line"
                ) from error
            if text.strip():
                yield text
    if not number:
        raise UserError(f"{path} is empty")
