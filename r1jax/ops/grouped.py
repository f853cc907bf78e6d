"""Products of sorted rows with one matrix a group, by the Megablox kernels (arXiv 2211.15841) for TPU."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

TILE = (512, 1024, 1024)
"""Rows, inputs and outputs that are worked on at a time."""
LANES = 128
"""Rows are padded to a multiple of this, or of a tile."""


def grouped_dot(rows, matrices, sizes, interpret: bool = False):
    """`jax.lax.ragged_dot` by kernels, backward too; rows beyond the last group give zeros.

    XLA for TPU runs the slope of `ragged_dot` in the matrices as a dense product of every row with every group, which
    costs as many times the arithmetic as there are groups. The kernels visit each row once.

    Args:
      rows: [N, D], those of group 0 first.
      matrices: [G, D, F].
      sizes: [G] int32, rows of each group; together at most N.
      interpret: run the kernels as ordinary operations, for tests without a TPU.

    Returns:
      [N, F], dtype of `rows`.
    """
    total = len(rows)
    rows = jnp.pad(rows, ((0, -total % min(TILE[0], -(-total // LANES) * LANES)), (0, 0)))
    return _grouped_dot(rows, matrices, sizes, interpret)[:total]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _grouped_dot(rows, matrices, sizes, interpret: bool):
    return _product(rows, matrices, sizes, interpret, transposed=False)


def _product(rows, matrices, sizes, interpret, *, transposed: bool):
    outputs = matrices.shape[1 if transposed else 2]
    return gmm(
        rows, matrices, _with_rest(sizes, len(rows)), rows.dtype, _tile(len(rows), rows.shape[1], outputs),
        jnp.int32(0), transpose_rhs=transposed, interpret=interpret,
    )  # fmt: skip


def _with_rest(sizes, total: int):
    """Group sizes with one group more, of all rows that are left; the kernels fill it with zeros."""
    return jnp.append(sizes, total - sizes.sum()).astype(jnp.int32)


def _tile(rows: int, inputs: int, outputs: int) -> tuple[int, int, int]:
    """A tile must not be larger than the array."""
    return min(TILE[0], rows), min(TILE[1], inputs), min(TILE[2], outputs)


def _forward(rows, matrices, sizes, interpret):
    return _grouped_dot(rows, matrices, sizes, interpret), (rows, matrices, sizes)


def _backward(interpret, saved, slope):
    rows, matrices, sizes = saved
    by_rows = _product(slope, matrices, sizes, interpret, transposed=True)
    by_matrices = tgmm(
        rows.swapaxes(0, 1), slope, _with_rest(sizes, len(rows)), matrices.dtype,
        _tile(len(rows), rows.shape[1], slope.shape[1]), jnp.int32(0), len(matrices), interpret=interpret,
    )  # fmt: skip
    return by_rows.astype(rows.dtype), by_matrices, None


_grouped_dot.defvjp(_forward, _backward)
