"""Sequences that are cut over devices, and the order in which their tokens lie there."""

from functools import partial

import jax

from r1jax.ops.sequence_parallel import zigzag
from r1jax.sharding import count_ways, cut_axes


def lies_in_zigzag(length: int) -> bool:
    """Whether layers have the tokens of rows of `length` in the order of `zigzag_order`, cut over devices.

    Where the devices do not divide a row into two chunks each, its order stays, and XLA places attention. With a cache
    it stays too: the tokens that are new are few.
    """
    ways = count_ways("length")
    return ways > 1 and length % (2 * ways) == 0


def to_layers(tree, *, axis: int = 1):
    """Arrays with rows and tokens at `axis` - 1 and `axis`, from the order of the text to the order of the layers."""
    return jax.tree.map(partial(_move, axis=axis, back=False), tree)


def from_layers(tree, *, axis: int = 1):
    """The reverse of `to_layers`."""
    return jax.tree.map(partial(_move, axis=axis, back=True), tree)


def _move(x, *, axis: int, back: bool):
    if not lies_in_zigzag(x.shape[axis]) or not x.size:
        return x
    return zigzag(
        x, axis=axis, batch=cut_axes("batch", x.shape[axis - 1]), length=cut_axes("length", x.shape[axis]), back=back
    )
