"""Orbax checkpoints: what a stage saves, resumes from, and hands to the next. The only importer of orbax."""

import dataclasses
import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from r1jax.config import UserError, as_path
from r1jax.hosts import place

FOLDER = "checkpoints"


def open_checkpoints(workdir: str | Path, *, keep: int = 2) -> ocp.CheckpointManager:
    """The checkpoints of a workdir, the last `keep` of which are kept. Saves that were cut off are not among them."""
    return _manager(workdir, max_to_keep=keep, cleanup_tmp_directories=True)


def _manager(workdir: str | Path, **options) -> ocp.CheckpointManager:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is raised, and said once by r1jax
    folder = as_path(workdir) / FOLDER
    folder = folder.absolute() if isinstance(folder, Path) else folder
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options))


def save(
    manager: ocp.CheckpointManager, step: int, *, arrays: dict[str, Any], facts: dict[str, dict], wait: bool
) -> None:
    """Write one checkpoint; it becomes visible all at once, when it is complete.

    Args:
      manager: from `open_checkpoints`.
      step: its number. A step that is already there is left as it is.
      arrays: item name -> pytree of arrays.
      facts: item name -> JSON dictionary.
      wait: return only when the checkpoint is on disk; otherwise it is written while training goes on.

    Raises:
      UserError: the disk is full. Earlier checkpoints stay.
    """
    try:
        manager.wait_until_finished()  # a save during another one would be skipped
        if manager.latest_step() != step:
            _check_room(manager, arrays)
            items = {
                name: ocp.args.StandardSave({name: jax.tree.map(_storable, tree)}) for name, tree in arrays.items()
            }
            items |= {name: ocp.args.JsonSave(fact) for name, fact in facts.items()}
            manager.save(step, args=ocp.args.Composite(**items))
        if wait:
            manager.wait_until_finished()
    except Exception as error:  # orbax and tensorstore wrap the operating system's error in many types
        if not disk_is_full(error):
            raise
        detail = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise UserError(
            f"no space left on the disk of {manager.directory} while saving step {step}{detail}; "
            "earlier checkpoints are kept. Free some space and run the same command again."
        ) from error


def _check_room(manager: ocp.CheckpointManager, arrays) -> None:
    """Raise ENOSPC before anything is written where the local disk cannot hold the arrays of this process."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) // jax.process_count()
    folder = os.fspath(manager.directory)
    if os.path.isdir(folder) and (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free", folder)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what caused it, says that there is no space left."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def restore(manager: ocp.CheckpointManager, *, arrays: dict[str, Any], facts: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read the latest checkpoint's named items.

    Args:
      manager: from `open_checkpoints`; must hold a checkpoint.
      arrays: item name -> pytree of arrays or jax.ShapeDtypeStruct with the shapes, dtypes and shardings wanted, which
        may differ from those saved in dtype and sharding.
      facts: names of JSON items.

    Returns:
      item name -> value.
    """
    items = {name: ocp.args.StandardRestore({name: jax.tree.map(_abstract, tree)}) for name, tree in arrays.items()}
    items |= {name: ocp.args.JsonRestore() for name in facts}
    found = manager.restore(manager.latest_step(), args=ocp.args.Composite(**items))
    shaped = {name: jax.tree.map(_reshaped, tree, found[name][name]) for name, tree in arrays.items()}
    return shaped | {name: found[name] for name in facts}


def _storable(leaf):
    """Orbax refuses arrays of size 0, such as the router bias of a model without experts: one zero stands for them."""
    return leaf if leaf.size else place(np.zeros(1, leaf.dtype), leaf.sharding)


def _abstract(leaf):
    return jax.ShapeDtypeStruct(leaf.shape if leaf.size else (1,), leaf.dtype, sharding=leaf.sharding)


def _reshaped(wanted, stored):
    return stored if wanted.size else place(np.zeros(wanted.shape, wanted.dtype), wanted.sharding)


@dataclasses.dataclass(frozen=True)
class Parent:
    """A finished stage to start from."""

    folder: Path
    manager: ocp.CheckpointManager | None
    """None where the weights are not in a checkpoint of r1jax."""
    step: int
    model: dict
    """Fields of its ModelConfig."""
    provenance: dict
    """Where it is and which run made it."""


def open_parent(folder: str | Path) -> Parent:
    """Open the checkpoint that a stage starts from (`--init`).

    Raises:
      UserError: no such folder, no finished checkpoint in it, or one that r1jax did not write; says which.
    """
    folder = as_path(folder)
    if not folder.is_dir():
        raise UserError(f"--init={folder}: no such folder; give the workdir of an earlier stage")
    if not (folder / FOLDER).is_dir():
        raise UserError(
            f"--init={folder} has no {FOLDER}/ folder: it is not the workdir of a stage of r1jax, and no Hugging Face "
            "model either, which has a config.json with a model_type, and *.safetensors"
        )
    manager = _manager(folder, read_only=True)
    step = manager.latest_step()
    if step is None:
        raise UserError(f"--init={folder}: no finished checkpoint in {folder / FOLDER}; has that stage saved one yet?")
    try:
        facts = manager.restore(step, args=ocp.args.Composite(model=ocp.args.JsonRestore(), run=ocp.args.JsonRestore()))
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise UserError(
            f"--init={folder}: checkpoint {step} holds no model description, so r1jax did not write it"
        ) from error
    provenance = {"folder": folder.name, "step": step, "run": dict(facts["run"])}
    return Parent(folder, manager, step, dict(facts["model"]), provenance)


def load_parent(parent: Parent, params, router_bias):
    """Read the weights of a parent into the shapes, dtypes and shardings of the given arrays.

    Raises:
      UserError: the parent's weights have another structure or other shapes.
    """
    try:
        items = restore(parent.manager, arrays={"params": params, "router_bias": router_bias})
    except (ValueError, KeyError) as error:
        raise UserError(f"--init={parent.folder}: the weights do not fit the model: {error}") from error
    return items["params"], items["router_bias"]


def publish(workdir: str | Path, target: str | Path) -> None:
    """Copy a workdir's latest weights, without the optimizer, to a folder that --init accepts beside a tokenizer."""
    workdir, target = Path(workdir), Path(target)
    steps = _manager(workdir, read_only=True)
    source = workdir / FOLDER / str(steps.latest_step())
    if target.exists():
        shutil.rmtree(target)
    destination = target / FOLDER / source.name
    destination.mkdir(parents=True)
    for name in ("params", "router_bias", "model", "run"):
        shutil.copytree(source / name, destination / name, ignore=shutil.ignore_patterns("commit_success.txt"))
    shutil.copy(source / "_CHECKPOINT_METADATA", destination)
