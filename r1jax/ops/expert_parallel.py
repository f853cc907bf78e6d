"""Experts spread over devices: tokens travel to them, and their weights do not."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec


class ExpertAxes(NamedTuple):
    """Mesh axes, by name, along which the arrays of an expert layer are cut."""

    batch: tuple[str, ...]
    """Of the tokens' first axis; () where every device has all of them."""
    length: str | None
    """Of the tokens' second axis."""
    experts: str
    embed: tuple[str, ...]
    """Of the weights' model width; they are gathered along it for the time of their use."""
    hidden: str
    """Of the experts' hidden width."""


def experts_ring(x, indices, weights, gate, up, down, *, run: Callable, axes: ExpertAxes):
    """Run experts that lie on different devices: each device runs its own on all tokens of its ring.

    A ring is the devices along the axis of the experts. Its tokens are gathered, each device adds up what its experts
    make of them, and the sums go back to where the tokens came from (a reduce-scatter). A token moves twice its width
    through the ring, forward, whatever the number of experts it chose; expert weights move along `axes.embed` only.

    Args:
      x: [B, T, D] tokens.
      indices: [B, T, K] int32 and weights [B, T, K], from `route`.
      gate, up: [E, D, F]; down: [E, F, D].
      run: (x [N, D], indices [N, K], weights [N, K], gate, up, down) -> [N, D], for instance `experts_ragged`; indices
        outside of the experts it is given count nothing.
      axes: of the mesh in force.

    Returns:
      [B, T, D].
    """
    spread = axes.experts in axes.batch

    def local(x, indices, weights, gate, up, down):
        gate, up, down = gather_matrices(gate, up, down, axes)
        tokens = [array.reshape(-1, array.shape[-1]) for array in (x, indices, weights)]
        if spread:
            tokens = [jax.lax.all_gather(array, axes.experts, axis=0, tiled=True) for array in tokens]
        tokens[1] -= jax.lax.axis_index(axes.experts) * gate.shape[0]
        out = run(*tokens, gate, up, down)
        if spread:
            out = jax.lax.psum_scatter(out, axes.experts, scatter_dimension=0, tiled=True)
        else:
            out = jax.lax.psum(out, axes.experts)
        # Over the hidden width last, when a device is left with its own tokens alone.
        return jax.lax.psum(out, axes.hidden).reshape(x.shape)

    return place_experts(local, axes)(x, indices, weights, gate, up, down)


def gather_matrices(gate, up, down, axes: ExpertAxes):
    """A device's experts with their whole model width, for the time of their use; inside of `place_experts`."""
    gate, up = (jax.lax.all_gather(w, axes.embed, axis=1, tiled=True) for w in (gate, up))
    return gate, up, jax.lax.all_gather(down, axes.embed, axis=2, tiled=True)


def place_experts(local: Callable, axes: ExpertAxes) -> Callable:
    """`local`(x, indices, weights, gate, up, down) on each device of the mesh in force, with its own part of each."""
    tokens = PartitionSpec(axes.batch or None, axes.length)
    wide = PartitionSpec(axes.experts, axes.embed, axes.hidden)
    narrow = PartitionSpec(axes.experts, axes.hidden, axes.embed)
    # Kernels do not say along which axes their results vary, so that it cannot be checked.
    return jax.shard_map(local, in_specs=(*[tokens] * 3, wide, wide, narrow), out_specs=tokens, check_vma=False)
