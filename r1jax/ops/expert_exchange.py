"""Experts spread over devices: a token travels to the devices of the experts that it chose, and to no other."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from r1jax.ops.expert_parallel import ExpertAxes, gather_matrices, place_experts
from r1jax.ops.wide import wide

LONGEST_SIDE = 8
"""Devices of an expert axis that lie along one side of a slice; a longer axis is taken to fill a square."""


def exchange_is_shorter(ways: int, visited: int) -> bool:
    """Whether `experts_exchange` keeps the links of a slice busy for less time than `experts_ring`.

    Per token of a device and direction, the ring brings ways - 1 rows to each device, every one over one link; the
    exchange sends `visited` * (ways - 1) / ways, which are never more, but a row crosses as many links as lie between
    source and target: a quarter of a closed side of k devices on average, in each of d sides. A device has 2 d links:

        ring       (ways - 1) / (2 d)            rows a link
        exchange   visited * d * (k / 4) / (2 d) rows a link,     ways = k^d

    so the exchange is shorter where visited < 4 (ways - 1) / (k d). (On a side that does not close both wait for the
    busiest link, (k - 1) and visited * k / 4 rows: the same bound.) It is derived and not measured. DeepSeek-V3 visits
    up to 8 devices: the ring where experts lie on 8 or 16 devices, the exchange from 32.

    Args:
      ways: devices that share the experts.
      visited: of them, how many one token visits at most.
    """
    sides = 1 if ways <= LONGEST_SIDE else 2
    return visited < 4 * (ways - 1) / (sides * ways ** (1 / sides))


def experts_exchange(
    x, indices, weights, gate, up, down, *, run: Callable, axes: ExpertAxes, move: Callable = jax.lax.ragged_all_to_all
):
    """Run experts that lie on different devices: each token is sent once to each device that has some of its experts.

    A device sorts its tokens by target, sends them (a ragged all-to-all) with their choices and weights, runs its own
    experts on what it received, and sends one row for each back, already summed over the experts it has; the source
    adds up. A token moves min(K, devices) rows of D numbers at most, there and back, and as often again backward.
    Dropless: the buffer holds the worst case, every token of the devices along the axis of the experts, which is what
    the ring gathers in any case; with 4096 tokens of width 7168 a device and 8 devices, 0.47 GB in bfloat16.

    Args:
      x, indices, weights, gate, up, down, run: as for `experts_ring`.
      axes: of the mesh in force; the axis of the experts must be among those of the batch.
      move: what moves rows, with the arguments of `jax.lax.ragged_all_to_all`, which XLA for CPU does not have.

    Returns:
      [B, T, D].
    """

    def local(x, indices, weights, gate, up, down):
        gate, up, down = gather_matrices(gate, up, down, axes)
        rows, indices, weights = (array.reshape(-1, array.shape[-1]) for array in (x, indices, weights))
        count, held, ways = len(rows), gate.shape[0], jax.lax.axis_size(axes.experts)
        visits = (indices // held == jnp.arange(ways)[:, None, None]).any(-1)  # [ways, tokens]
        size = count * min(indices.shape[1], ways)
        (flat,) = jnp.nonzero(visits.reshape(-1), size=size, fill_value=ways * count)
        token = jnp.where(flat < ways * count, flat % count, count)  # by target; out of range: nothing
        sizes = jax.lax.all_gather(visits.sum(1, dtype=jnp.int32), axes.experts)  # [source, target]
        send = lambda array, length: _exchange(array, sizes, length, axes.experts, move)
        take = lambda array: array.at[token].get(mode="fill", fill_value=0)
        # Numbered from 1, so that rows of the buffer that nobody fills choose expert -1.
        chosen = _moved(take(indices + 1), sizes, ways * count, axes.experts, move) - 1
        chosen = jnp.where(chosen >= 0, chosen - jax.lax.axis_index(axes.experts) * held, -1)
        out = run(send(take(rows), ways * count), chosen, send(take(weights), ways * count), gate, up, down)
        back = _exchange(out, sizes.T, size, axes.experts, move)
        total = jnp.zeros(rows.shape, wide(rows)).at[token].add(back, mode="drop")
        return jax.lax.psum(total.astype(x.dtype), axes.hidden).reshape(x.shape)

    return place_experts(local, axes)(x, indices, weights, gate, up, down)


def _moved(rows, sizes, length: int, axis: str, move: Callable):
    """Rows [N, ...], those for device 0 first, moved to their targets: [length, ...], those of device 0 first, 0 last."""
    before = lambda counts, along: jnp.cumsum(counts, along) - counts
    here = jax.lax.axis_index(axis)
    return move(
        rows, jnp.zeros((length, *rows.shape[1:]), rows.dtype), before(sizes[here], 0), sizes[here],
        before(sizes, 0)[here], sizes[:, here], axis_name=axis,
    )  # fmt: skip


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _exchange(rows, sizes, length: int, axis: str, move: Callable):
    """`_moved`, whose slope takes the way back."""
    return _moved(rows, sizes, length, axis, move)


def _forward(rows, sizes, length, axis, move):
    return _moved(rows, sizes, length, axis, move), (sizes, len(rows))


def _backward(length, axis, move, saved, slope):
    sizes, count = saved
    return _moved(slope, sizes.T, count, axis, move), None


_exchange.defvjp(_forward, _backward)
