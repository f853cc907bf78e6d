"""Configurations as frozen dataclasses: to and from JSON, and how two of them differ."""

import dataclasses
import fcntl
import importlib.util
import json
import os
import time
from pathlib import Path, PurePath
from typing import Any


class UserError(Exception):
    """A mistake the user can mend; shown as its message alone, without a traceback."""


def as_path(path: str | PurePath) -> Path:
    """A path on this machine, or, of a URL such as gs://bucket/run, one that is used alike (`etils.epath`).

    Raises:
      UserError: the URL is of another kind of storage, or what reads it is not installed.
    """
    if "://" not in str(path):
        return Path(path)
    if not str(path).startswith("gs://"):
        raise UserError(f"{path}: of URLs, only gs://BUCKET/PATH can be read and written")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{path}: reading and writing gs:// needs gcsfs; pip install gcsfs")
    from etils import epath

    return epath.Path(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader or a crash never sees half of it; in a bucket every write is such."""
    if not isinstance(path, Path):
        path.write_text(text)
        return
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.rename(path)


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


def claim_workdir(workdir: str | Path, experiment: str, config: Any, *, ignore: tuple[str, ...] = ()) -> Path:
    """Make a workdir for this experiment and configuration, or recognise it as theirs.

    The configuration is written to `config.json` at the first call; later calls must bring the same one, so that a
    resumed run is the run that was started.

    Args:
      workdir: made where it is missing.
      experiment: the name of the experiment file.
      config: a dataclass.
      ignore: top-level fields that may change between a run and its resumption, besides `workdir` and `mesh`: a run
        may go on with more or fewer devices, and then ends with the same numbers but for rounding.

    Until this process ends, no other one can claim the folder.

    Raises:
      UserError: the folder belongs to another experiment or configuration, or is in use by something else.
    """
    workdir = as_path(workdir)
    free = {"workdir", "mesh", *ignore}
    record = {"experiment": experiment} | {k: v for k, v in to_dict(config).items() if k not in free}
    path = workdir / "config.json"
    if path.exists():
        try:
            known = json.loads(path.read_text())
            changed = differences({k: v for k, v in known.items() if k not in free}, record)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON ({error}); move it away, or use another --workdir") from error
        if changed:
            raise UserError(
                f"{workdir} belongs to a run with another configuration:\n  "
                + "\n  ".join(changed)
                + "\nRepeat the old options to resume that run, or start a new one with another --workdir."
            )
        _hold(workdir)
        return workdir
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir} exists and is not a workdir of r1jax (it has no config.json); choose another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    _hold(workdir)
    write_whole(path, json.dumps(record, indent=2) + "\n")
    return workdir


_held: dict[tuple[int, int], int] = {}
"""Folders that this process has claimed, by device and inode, and the descriptors that keep their locks."""
RELEASE_SECONDS = 20
"""How long to wait for a process that is just ending."""


def _hold(workdir: Path) -> None:
    """Lock a folder for the life of this process; where the file system has no locks, do nothing."""
    if not isinstance(workdir, Path):
        return
    known = workdir.stat()
    if (known.st_dev, known.st_ino) in _held:
        return
    descriptor, until = os.open(workdir, os.O_RDONLY), time.monotonic() + RELEASE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                os.close(descriptor)
                raise UserError(
                    f"{workdir} is in use by another process; let it end or stop it, or use another --workdir"
                ) from error
            time.sleep(0.1)
        except OSError:
            break
    _held[known.st_dev, known.st_ino] = descriptor
