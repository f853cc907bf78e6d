"""Completions stored by somebody else, and the responses of an evaluation that can go on."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from r1jax.config import UserError
from r1jax.evaluation.measures import response_line
from r1jax.evaluation.responses import Response, submit_groups
from r1jax.metrics import JsonLines, read_json_lines
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import Submit


class Stored(NamedTuple):
    """A completion from a file; how long it is and whether it ended by itself where the file says so."""

    text: str
    tokens: int | None = None
    finished: bool | None = None


def read_completions(path: str | Path, records: Sequence[dict]) -> list[list[Stored]]:
    """Completions of every problem, in the order of the problems.

    A line is {"id" or "index", "completion" or "completions", "tokens", "finished"}: `id` is the record's (file name
    and line, or the published id), `index` its place from 0. `tokens` and `finished` may be left out, and are lists
    where `completions` is one. A problem may have several lines.

    Args:
      path: JSON lines.
      records: P problems.

    Returns:
      P lists of n completions.

    Raises:
      UserError: a line is malformed or of no problem, a problem has none, or not all have as many.
    """
    places = {record["id"]: place for place, record in enumerate(records)}
    found: list[list[Stored]] = [[] for _ in records]
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        found[_place(where, line, places)] += _completions(where, line)
    counts = [len(group) for group in found]
    if 0 in counts:
        first = records[counts.index(0)]["id"]
        raise UserError(
            f"{path}: {counts.count(0)} of {len(records)} problems have no completion, the first of them {first}; "
            "give completions of all, or the first ones alone and --problems N"
        )
    if len(set(counts)) > 1:
        odd = next(place for place, count in enumerate(counts) if count != counts[0])
        raise UserError(
            f"{path}: {records[0]['id']} has {counts[0]} completions and {records[odd]['id']} {counts[odd]}; "
            "every problem needs as many"
        )
    return found


def stored_batches(
    submit: Submit, records: Sequence[dict], stored: Sequence[Sequence[Stored]], *, size: int, start: int = 0
) -> Iterator[list[list[Response]]]:
    """Judge stored completions, `size` problems at a time from problem `start`; yields their groups."""
    for place in range(start, len(records), size):
        some = stored[place : place + size]
        texts = [[completion.text for completion in group] for group in some]
        verdicts = iter(submit_groups(submit, records[place : place + size], texts).result())
        yield [[Response(*completion, next(verdicts)) for completion in group] for group in some]


class ResponseLog:
    """responses.jsonl: a line a problem with all of its responses and their judgements."""

    def __init__(self, path: str | Path, records: Sequence[dict], prompts: Sequence[str], samples: int, batch: int):
        """Read the whole batches that are there, and open the file to go on behind them.

        Args:
          path: of the file.
          records, prompts: P problems.
          samples: responses a problem.
          batch: problems that are sampled together.

        Raises:
          UserError: a line is damaged, or holds another problem, prompt or number of responses.
        """
        self.records, self.prompts, self.groups = records, prompts, []
        try:
            lines = read_json_lines(path)
        except ValueError as error:
            raise UserError(f"{error}; move the file away to start over") from error
        for place, line in enumerate(lines[: len(records)]):
            expected = (place, records[place].get("id"), prompts[place], samples)
            there = (*(line.get(key) for key in ("step", "id", "prompt")), len(line.get("responses", ())))
            if there != expected:
                raise UserError(
                    f"{path}, line {place + 1} is of another evaluation: it has {there}, and {expected} is due; "
                    "move the file away to start over"
                )
            self.groups.append([_response(response) for response in line["responses"]])
        if len(self.groups) < len(records):
            del self.groups[len(self.groups) // batch * batch :]
        self._file = JsonLines(path, resume_step=len(self.groups) - 1)

    def write(self, groups: Sequence[Sequence[Response]]) -> None:
        """Append the groups of the next problems."""
        for group in groups:
            place = len(self.groups)
            record = self.records[place]
            line = {"step": place, "id": record.get("id"), "prompt": self.prompts[place]}
            self._file.write(line | {"responses": [response_line(record, response) for response in group]})
            self.groups.append(group)


def _response(line: dict) -> Response:
    judgements = {name: Judgement(*judgement) for name, judgement in line["judgements"].items()}
    return Response(line["text"], line["tokens"], line["finished"], judgements)


def _lines(path: str | Path) -> Iterator[tuple[int, dict]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not a JSON object ({error}): {raw[:80]!r}") from error
        if not isinstance(line, dict):
            raise UserError(f"{path}, line {number}: not a JSON object: {raw[:80]!r}")
        yield number, line


def _place(where: str, line: dict, places: dict[str, int]) -> int:
    if ("id" in line) == ("index" in line):
        raise UserError(f"{where}: it needs either 'id' or 'index'; it has {', '.join(line)}")
    if "id" in line:
        if line["id"] not in places:
            raise UserError(f"{where}: no problem has the id {line['id']!r}; the first has {next(iter(places))!r}")
        return places[line["id"]]
    index = line["index"]
    if type(index) is not int or not 0 <= index < len(places):
        raise UserError(f"{where}: index is {index!r}; the problems are 0 to {len(places) - 1}")
    return index


def _completions(where: str, line: dict) -> list[Stored]:
    if ("completion" in line) == ("completions" in line):
        raise UserError(f"{where}: it needs either 'completion' or 'completions'; it has {', '.join(line)}")
    many = "completions" in line
    texts = line["completions"] if many else [line["completion"]]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: 'completion' must be text, and 'completions' a list of texts")
    columns = [texts]
    for name, kind in (("tokens", int), ("finished", bool)):
        values = line.get(name)
        values = [None] * len(texts) if values is None else values if many else [values]
        fits = isinstance(values, list) and len(values) == len(texts)
        if not fits or any(value is not None and type(value) is not kind for value in values):
            raise UserError(f"{where}: {name!r} must be {kind.__name__}, one for every completion")
        columns.append(values)
    return [Stored(*row) for row in zip(*columns, strict=True)]
