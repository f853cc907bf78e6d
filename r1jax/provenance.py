"""Where a result comes from: code, configuration, data and parent."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1jax.config import to_dict


def provenance(experiment: str, config: Any, parent: dict | None = None, data: Iterable[str | Path] = ()) -> dict:
    """What made a checkpoint, as JSON: kept in it, and carried on by the stages that start from it.

    Args:
      experiment: name of the experiment file.
      config: its configuration.
      parent: provenance of the checkpoint it starts from.
      data: files it reads.
    """
    return {
        "experiment": experiment,
        "config": to_dict(config),
        "revision": git_revision(),
        "parent": parent,
        "data": {Path(path).name: file_hash(path) for path in data},
    }


def git_revision() -> str | None:
    """The commit of the checkout this package runs from, with "+" behind it where files differ; None outside of one."""
    folder = Path(__file__).parent
    try:
        ask = lambda *words: subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20)
        commit = ask("rev-parse", "HEAD")
        if commit.returncode or ask("ls-files", "--error-unmatch", __file__).returncode:
            return None
        changed = ask("status", "--porcelain", "--untracked-files=no").stdout.strip()
        return commit.stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return None


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
