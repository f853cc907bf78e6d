"""Configurations as frozen dataclasses: to and from JSON, and how two of them differ."""

import dataclasses
import json
from pathlib import Path
from typing import Any


class UserError(Exception):
    """A mistake the user can mend; shown as its message alone, without a traceback."""


def to_dict(config: Any) -> dict:
    """A dataclass as nested dictionaries of JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """One line `field: old -> new` for every leaf in which two nested dictionaries differ."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {json.dumps(a)} -> {json.dumps(b)}")
    return lines


def claim_workdir(workdir: str | Path, experiment: str, config: Any, *, ignore: tuple[str, ...] = ("workdir",)) -> Path:
    """Make a workdir for this experiment and configuration, or recognise it as theirs.

    The configuration is written to `config.json` at the first call; later calls must bring the same one, so that a
    resumed run is the run that was started.

    Args:
      workdir: made where it is missing.
      experiment: the name of the experiment file.
      config: a dataclass.
      ignore: top-level fields that may change between a run and its resumption.

    Raises:
      UserError: the folder belongs to another experiment or configuration, or is in use by something else.
    """
    workdir = Path(workdir)
    record = {"experiment": experiment} | {k: v for k, v in to_dict(config).items() if k not in ignore}
    path = workdir / "config.json"
    if path.exists():
        try:
            changed = differences(json.loads(path.read_text()), record)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON ({error}); move it away, or use another --workdir") from error
        if changed:
            raise UserError(
                f"{workdir} belongs to a run with another configuration:\n  "
                + "\n  ".join(changed)
                + "\nRepeat the old options to resume that run, or start a new one with another --workdir."
            )
        return workdir
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir} exists and is not a workdir of r1jax (it has no config.json); choose another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.rename(path)
    return workdir
