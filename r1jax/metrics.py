"""Records of a run as JSON lines, exact across interruptions."""

import json
from pathlib import Path


class JsonLines:
    """A file of JSON records, each with a `step`; appended one whole line at a time."""

    def __init__(self, path: str | Path | None, *, resume_step: int):
        """Open for appending; records later than `resume_step` are dropped, for those steps will be run again.

        With None for a path, nothing is written.
        """
        self._file = None
        if path is None:
            return
        self.path = Path(path)
        kept = [record for record in read_json_lines(self.path) if record["step"] <= resume_step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        partial.rename(self.path)
        self._file = self.path.open("a")

    def write(self, record: dict) -> None:
        if self._file:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()


def read_json_lines(path: str | Path) -> list[dict]:
    """All complete records of a file; none where it is missing. A last line cut off by a crash is left out."""
    path = Path(path)
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
    path = Path(path)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.rename(path)


def read_json(path: str | Path):
    """The value of a JSON file."""
    return json.loads(Path(path).read_text())
