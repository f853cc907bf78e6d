"""Prepare training data: convert, judge answers, decontaminate, filter by pass rate, deduplicate, write a data card.

The workdir gets records/ with one file of uniform records a source, removed.jsonl with every removed row and its
reason, card.md and card.json. The same inputs give the same bytes.
"""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from r1jax import launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.card import DataFile, card_markdown, data_card, describe_files
from r1jax.data.decontaminate import BenchmarkIndex, Item
from r1jax.data.deduplicate import Deduplicator
from r1jax.data.pass_rates import read_pass_rates
from r1jax.data.sifting import Filters, Ledger, sift
from r1jax.data.sources import read_records, write_array_record, write_json_lines
from r1jax.data.texts import asked_text
from r1jax.metrics import read_json, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """Preparation of training data."""

    inputs: tuple[str, ...] = ()
    """Sources as name=path: JSON lines, JSON, parquet or ArrayRecord files, or folders of them. Of duplicates, the one
    in the earlier source is kept."""
    benchmarks: tuple[str, ...] = ()
    """Evaluation sets as name=path; what resembles one of their items is removed."""
    licences: tuple[str, ...] = ()
    """Licences of the sources as name=licence, for the card."""
    workdir: str = "runs/data"
    """The prepared data; appears when all is done."""
    seed: int = 0
    """The hash functions of near-duplicate search follow from it."""
    form: Literal["jsonl", "array_record"] = "jsonl"
    """Of the prepared records."""
    quarantine: bool = False
    """Let malformed rows go to removed.jsonl; without it they stop the run."""
    check_answers: bool = True
    """Remove problems whose reference answer cannot be judged."""
    run: int = 10
    """A row that has this many words in a row in common with a benchmark item is removed."""
    common: int = 3
    """Words in a row that more items of one benchmark than this have in common are a phrase and count for nothing."""
    least_share: float = 0.0
    """Share of an item's runs of four words below which such a row is kept after all; 0.25 spares turns of phrase."""
    solutions: bool = True
    """Compare with the reference solutions of the benchmarks too, not only with their questions."""
    near_copy: float = 0.4
    """Share of a benchmark item's runs of four words from which a row is a near-copy; above 1: not looked for."""
    pass_rates: str | None = None
    """JSON lines with id and pass_rate, or id and outcome a sample; records it does not name are kept."""
    pass_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest pass rate of the rows to keep."""
    deduplicate: bool = True
    """Keep the first of equal texts and of near-duplicates."""
    near_duplicate: float = 0.8
    """Share of runs of five words in common from which two texts are near-duplicates; above 1: not looked for."""


def main(config: Config) -> None:
    inputs, benchmarks = named(config.inputs, "inputs"), named(config.benchmarks, "benchmarks")
    if not inputs:
        raise UserError("nothing to prepare; name a source: --inputs gsm8k=train.jsonl")
    licences = named(config.licences, "licences")
    if licences.keys() - inputs.keys():
        raise UserError(f"--licences {', '.join(licences.keys() - inputs.keys())}: no source has this name")
    low, high = config.pass_range
    if not 0 <= low <= high <= 1 or config.run < 4 or config.common < 1:
        raise UserError("expected 0 <= lowest <= highest <= 1 in --pass-range, --run 4 or more, --common 1 or more")
    workdir, partial = Path(config.workdir), Path(config.workdir.rstrip("/") + ".partial")
    files = [file for name, path in inputs.items() for file in describe_files("input", name, path)]
    files += [file for name, path in benchmarks.items() for file in describe_files("benchmark", name, path)]
    files += describe_files("pass rates", "", config.pass_rates) if config.pass_rates else []
    if workdir.is_dir() and any(workdir.iterdir()) or workdir.is_file():
        return confirm(claim_workdir(workdir, "prepare_data", config), files)
    if partial.exists():
        remove_leftover(partial)
    claim_workdir(partial, "prepare_data", config)
    try:
        card = prepare(config, inputs, benchmarks, licences, files, partial)
    except BaseException:
        shutil.rmtree(partial)
        raise
    if workdir.exists():
        workdir.rmdir()
    partial.rename(workdir)
    launch.console.print(f"{card['total']['kept']} of {card['total']['rows']} rows kept; see {workdir / 'card.md'}")


def named(options: tuple[str, ...], option: str) -> dict[str, str]:
    """Values by name, from name=value.

    Raises:
      UserError: an option is not of this form, or a name comes twice.
    """
    found = {}
    for text in options:
        name, sign, value = text.partition("=")
        if not sign or not value or not re.fullmatch(r"[\w.-]+", name) or name in found:
            raise UserError(
                f"--{option} {text}: expected name=value; the name of letters, digits, '_', '-' and '.', each only once"
            )
        found[name] = value
    return found


def confirm(workdir: Path, files: list[DataFile]) -> None:
    """Say that the data are there already.

    Raises:
      UserError: they were made from files with other contents.
    """
    old = {file["file"]: file["sha256"] for file in read_json(workdir / "card.json")["files"]}
    changed = [file.file for file in files if old.get(file.file) != file.sha256]
    if changed:
        raise UserError(f"{workdir} was made from other contents of {', '.join(changed)}; use another --workdir")
    launch.console.print(f"{workdir} is up to date")


def remove_leftover(partial: Path) -> None:
    """Remove what a killed run of this experiment left behind.

    Raises:
      UserError: it is something else.
    """
    marker = partial / "config.json"
    if not marker.is_file() or read_json(marker).get("experiment") != "prepare_data":
        raise UserError(f"{partial} is in the way, and not made by prepare_data; move it, or use another --workdir")
    shutil.rmtree(partial)


def prepare(
    config: Config, inputs: dict, benchmarks: dict, licences: dict, files: list[DataFile], folder: Path
) -> dict:
    """Write the prepared data into a folder; returns the card."""
    items = (item for name, path in benchmarks.items() for item in benchmark_items(name, path, config.solutions))
    limits = {"run": config.run, "common": config.common, "near": config.near_copy, "least_share": config.least_share}
    index = BenchmarkIndex(items, **limits) if benchmarks else None
    filters = Filters(
        config.check_answers,
        index,
        read_pass_rates(config.pass_rates) if config.pass_rates else None,
        config.pass_range,
        Deduplicator(near=config.near_duplicate, seed=config.seed) if config.deduplicate else None,
    )
    write = write_json_lines if config.form == "jsonl" else write_array_record
    (folder / "records").mkdir()
    with (folder / "removed.jsonl").open("w", encoding="utf-8") as removed:
        ledger = Ledger(removed)
        with launch.StopRequest() as stop, launch.progress_bar() as progress:
            for name, path in inputs.items():
                quarantine = folder / "quarantine.jsonl" if config.quarantine else None
                records = watched(read_records(path, name=name, quarantine=quarantine), name, ledger, progress, stop)
                write(sift(records, name, filters, ledger), folder / "records" / f"{name}.{config.form}")
                if quarantine:
                    ledger.remove_malformed(name, quarantine)
    settings = {name: value for name, value in to_dict(config).items() if name != "workdir"}
    card = data_card(ledger, files, licences, command=launch.resume_command(), config=settings)
    write_json(folder / "card.json", card)
    (folder / "card.md").write_text(card_markdown(card), encoding="utf-8")
    return card


def benchmark_items(name: str, path: str, solutions: bool) -> Iterator[Item]:
    """The texts of a benchmark."""
    for record in read_records(path, name=name):
        yield Item(name, record["id"], "question", asked_text(record))
        if solutions and isinstance(record.get("solution"), str):
            yield Item(name, record["id"], "solution", record["solution"])


def watched(reader, name: str, ledger: Ledger, progress, stop) -> Iterator[dict]:
    """The records of a reader, with progress; ends the run where it was asked to stop."""
    task = progress.add_task(name, total=None, figures="")
    for record in reader:
        if stop:
            raise launch.Interrupted("stopped; nothing was written. To start over:")
        yield record
        if reader.rows % 256 == 0:
            kept = sum(tally.kept for (source, _), tally in ledger.tallies.items() if source == name)
            progress.update(task, completed=reader.rows, figures=f"{kept} kept")
    progress.update(task, completed=reader.rows, total=reader.rows)


if __name__ == "__main__":
    launch.run(main, Config)
