"""One run as several processes, one on each host: who writes, who reads what, and how they agree.

All hosts run the same program on the same devices, so what they decide on the host must be the same everywhere: it
follows from the seed, from arrays that are fetched whole, or from values that are gathered here. On one host every
function here is what one would write without it.
"""

import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from r1jax.config import UserError, as_path


def is_first() -> bool:
    """Whether this host writes what one host alone writes: metrics, samples, reports."""
    return jax.process_index() == 0


def gather(value: Any) -> list:
    """The JSON values of all hosts, by host, on every host. All must call it, at the same point."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    room = 1 << int(lengths.max() - 1).bit_length()  # few sizes, for each is compiled once
    rows = multihost_utils.process_allgather(np.pad(text, (0, room - len(text))))
    return [json.loads(bytes(row[:length])) for row, length in zip(rows, lengths)]


def any_host(flag: bool) -> bool:
    """Whether a flag is set on any host, known on all of them."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.uint8(flag)).any())


def on_first(function: Callable, *arguments, **options) -> Any:
    """Call a function on the first host alone; all hosts get its JSON result, or the UserError that it raised.

    A path comes back as a path.
    """
    if jax.process_count() == 1:
        return function(*arguments, **options)
    result = error = None
    if is_first():
        try:
            result = function(*arguments, **options)
        except UserError as raised:
            error = str(raised)
    is_path = isinstance(result, PurePath)
    result, is_path, error = gather([str(result) if is_path else result, is_path, error])[0]
    if error is not None:
        raise UserError(error)
    return as_path(result) if is_path else result


def fetch(tree: Any) -> Any:
    """Arrays, wherever on the hosts they lie, as numpy arrays that are whole on every host."""

    def whole(x):
        spread = isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)
        return multihost_utils.process_allgather(x, tiled=True) if spread else np.asarray(x)

    return jax.tree.map(whole, tree)


def place(tree: Any, sharding) -> Any:
    """Lay numpy arrays that every host has whole, or arrays of all hosts, out on the devices of all hosts."""

    def lay(x):
        if sharding.is_fully_addressable:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array):
            return jax.jit(_same, out_shardings=sharding)(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(lay, tree)


def _same(x):
    return x


class Share(NamedTuple):
    """Which of the equal parts of a global batch a host reads."""

    index: int
    count: int


def share_of(sharding) -> Share:
    """The part of the rows of a global batch that lies on this host's devices.

    Hosts whose devices hold the same rows, as where a mesh cuts heads across hosts, read the same part. Where devices
    are numbered so that a host's rows do not follow one another, its part is laid on them in order all the same: a
    global batch is a set of rows.

    Args:
      sharding: of batches.

    Raises:
      UserError: the mesh cuts the batch so that hosts need overlapping parts of it, or parts of different sizes.
    """
    held: dict[int, set[int]] = {}
    for device, (rows,) in sharding.devices_indices_map((sharding.num_devices,)).items():
        held.setdefault(device.process_index, set()).add(rows.start or 0)
    ways = len(set().union(*held.values()))
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if len({len(part) for part in parts}) > 1 or sum(map(len, parts)) != ways:
        raise UserError(
            f"this mesh cuts a batch into {ways} parts, of which the hosts need {[list(part) for part in parts]}: they "
            "can share their reading only where these are equal or apart; change --mesh"
        )
    return Share(parts.index(tuple(sorted(held[jax.process_index()]))), len(parts))


def place_share(tree: Any, sharding) -> Any:
    """Lay a global batch out on the devices of all hosts, of which each has the rows of its own `share_of` it."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)
