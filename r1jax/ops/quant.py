"""Weights in FP8 blocks: E4M3 numbers, and a float32 scale for each block of 128 x 128 (DeepSeek-V3, section 3.3.2)."""

import jax
import jax.numpy as jnp

BLOCK = 128
E4M3_MAX = 448.0


def quantize_blocks(x: jax.Array, *, block: int = BLOCK) -> tuple[jax.Array, jax.Array]:
    """Cut a matrix into blocks and store each as E4M3 with its largest magnitude at 448, the largest of E4M3.

    What `dequantize_blocks` gave in float32 comes back as the same bytes, if its scales were made here.

    Args:
      x: [M, N]; blocks at the edges may be smaller.

    Returns:
      values [M, N] float8_e4m3fn, and scales [ceil(M / block), ceil(N / block)] float32, by which they are multiplied
      to get `x` back; 1 where a block is all zero.
    """
    rows, columns = x.shape
    padded = jnp.pad(x.astype(jnp.float32), ((0, -rows % block), (0, -columns % block)))
    blocks = padded.reshape(padded.shape[0] // block, block, -1, block)
    largest = jnp.abs(blocks).max((1, 3))
    # Behind the barrier XLA cannot turn the division into a product with the rounded 1 / 448, which is another scale.
    divisor = jax.lax.optimization_barrier(jnp.full_like(largest, E4M3_MAX))
    scale = jnp.where(largest == 0, 1.0, largest / divisor)
    values = (blocks / scale[:, None, :, None]).astype(jnp.float8_e4m3fn).reshape(padded.shape)
    return values[:rows, :columns], scale


def dequantize_blocks(values: jax.Array, scale: jax.Array, *, block: int = BLOCK) -> jax.Array:
    """The matrix that `quantize_blocks` stored, [M, N] float32, from values [M, N] scales [M / block, N / block]."""
    return dequantize_at(values, scale, jnp.arange(values.shape[0]) // block, jnp.arange(values.shape[1]) // block)


def dequantize_at(values: jax.Array, scale: jax.Array, row_blocks: jax.Array, column_blocks: jax.Array) -> jax.Array:
    """Rows and columns of such a matrix, [M, N] float32: values [M, N], of blocks row_blocks [M], column_blocks [N]."""
    return values.astype(jnp.float32) * scale[row_blocks][:, column_blocks]
