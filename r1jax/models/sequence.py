"""Sequences that are cut over devices, and the order in which their tokens lie there."""

from functools import partial

import jax

from r1jax.models.cache import along_slots
from r1jax.ops.sequence_parallel import zigzag
from r1jax.sharding import count_ways, cut_axes


def lies_in_zigzag(length: int) -> bool:
    """Whether layers have the tokens of rows of `length` in the order of `zigzag_order`, cut over devices.

    Where the devices do not divide a row into two chunks each, its order stays, and XLA places attention. With a cache
    it stays too: the tokens that are new are few.
    """
    ways = count_ways("length")
    return ways > 1 and length % (2 * ways) == 0


def to_layers(tree, *, rows: int = 0):
    """Arrays with rows at axis `rows` and tokens at the next, from the order of the text to the order of the layers."""
    return jax.tree.map(partial(_move, rows, rows + 1, back=False), tree)


def from_layers(tree, *, rows: int = 0):
    """The reverse of `to_layers`."""
    return jax.tree.map(partial(_move, rows, rows + 1, back=True), tree)


def entries_from_layers(entries, *, rows: int):
    """As `from_layers` for trees of Entries."""
    return along_slots(lambda axis, x: _move(rows, axis, x, back=True), entries)


def _move(rows: int, axis: int, x, *, back: bool):
    if not lies_in_zigzag(x.shape[axis]) or not x.size:
        return x
    mesh_axes = {"batch": cut_axes("batch", x.shape[rows]), "length": cut_axes("length", x.shape[axis])}
    return zigzag(x, rows=rows, axis=axis, **mesh_axes, back=back)
