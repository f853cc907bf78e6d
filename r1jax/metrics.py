"""Records of a run as JSON lines, exact across interruptions."""

import json
from pathlib import Path

from r1jax.config import as_path, write_whole


class JsonLines:
    """A file of JSON records, each with a `step`; appended one whole line at a time."""

    def __init__(self, path: str | Path | None, *, resume_step: int):
        """Open for appending; records later than `resume_step` are dropped, for those steps will be run again.

        With None for a path, nothing is written. In a bucket, whose files cannot grow, every record writes the file
        anew.
        """
        self._file = self._text = None
        if path is None:
            return
        self.path = as_path(path)
        kept = [record for record in read_json_lines(self.path) if record["step"] <= resume_step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if not isinstance(self.path, Path):
            self._text = text
            self.path.write_text(text)
            return
        partial = self.path.with_suffix(".partial")
        partial.write_text(text)
        partial.rename(self.path)
        self._file = self.path.open("a")

    def write(self, record: dict) -> None:
        line = json.dumps(record) + "\n"
        if self._file:
            self._file.write(line)
            self._file.flush()
        elif self._text is not None:
            self._text += line
            self.path.write_text(self._text)


def read_json_lines(path: str | Path) -> list[dict]:
    """All complete records of a file; none where it is missing. A last line cut off by a crash is left out."""
    path = as_path(path)
    if not path.is_file():
        return []
    records = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line)) if line else None
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a JSON record ({error}): {line[:80]!r}") from error
    return records


def write_json(path: str | Path, value) -> None:
    """Write a JSON file in one move, so that a reader or a crash never sees half of it."""
    path = as_path(path)
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path):
    """The value of a JSON file."""
    return json.loads(as_path(path).read_text())
