"""FP8 as DeepSeek-V3 has it (section 3.3.2): E4M3 numbers, and a float32 scale for each block of weights (128 x 128)
and each tile of activations (128 along the axis that a product sums over).

An infinity or NaN makes its block or tile NaN, in part or all of it: what is not finite stays so.
"""

import jax
import jax.numpy as jnp

BLOCK = 128
E4M3_MAX = 448.0


def quantize_blocks(x: jax.Array, *, block: int = BLOCK, power_of_two: bool = False) -> tuple[jax.Array, jax.Array]:
    """Cut a matrix into blocks and store each as E4M3 with its largest magnitude at 448, the largest of E4M3.

    What `dequantize_blocks` gave in float32 comes back as the same bytes, if its scales were made here.

    Args:
      x: [M, N]; blocks at the edges may be smaller.
      power_of_two: scales are rounded up to powers of two ("ue8m0", DeepSeek-V3.1), the largest magnitude then lies
        in (224, 448].

    Returns:
      values [M, N] float8_e4m3fn, and scales [ceil(M / block), ceil(N / block)] float32, by which they are multiplied
      to get `x` back; 1 where a block is all zero.
    """
    rows, columns = x.shape
    padded = jnp.pad(x.astype(jnp.float32), ((0, -rows % block), (0, -columns % block)))
    blocks = padded.reshape(padded.shape[0] // block, block, -1, block)
    scale = _scale(jnp.abs(blocks).max((1, 3)), power_of_two)
    values = (blocks / scale[:, None, :, None]).astype(jnp.float8_e4m3fn).reshape(padded.shape)
    return values[:rows, :columns], scale


def dequantize_blocks(values: jax.Array, scale: jax.Array, *, block: int = BLOCK) -> jax.Array:
    """The matrix that `quantize_blocks` stored, [M, N] float32, from values [M, N] and scales [M / block, N / block]."""
    return dequantize_at(values, scale, jnp.arange(values.shape[0]) // block, jnp.arange(values.shape[1]) // block)


def dequantize_at(values: jax.Array, scale: jax.Array, row_blocks: jax.Array, column_blocks: jax.Array) -> jax.Array:
    """Any rows and columns of such a matrix, [M, N] float32: values [M, N], of blocks row_blocks [M], column_blocks [N]."""
    return values.astype(jnp.float32) * scale[row_blocks][:, column_blocks]


def quantize_tiles(
    x: jax.Array, *, tile: int = BLOCK, floor: float = 0.0, power_of_two: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Cut each row into tiles and store each as E4M3 with its largest magnitude at 448.

    Args:
      x: [M, K]; the last tile of a row may be smaller.
      floor: a tile counts as having at least this magnitude; 1e-4 in the released code.
      power_of_two: as in `quantize_blocks`.

    Returns:
      values [M, K] float8_e4m3fn, and scales [M, ceil(K / tile)] float32; 1 where a tile is all zero and `floor` is 0.
    """
    rows, width = x.shape
    tiles = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, -width % tile))).reshape(rows, -1, tile)
    scale = _scale(jnp.maximum(jnp.abs(tiles).max(-1), floor), power_of_two)
    values = (tiles / scale[..., None]).astype(jnp.float8_e4m3fn).reshape(rows, -1)
    return values[:, :width], scale


def quantize_runs(x: jax.Array, run: jax.Array, num_runs: int, *, floor: float = 0.0, power_of_two: bool = False):
    """The same for runs of rows in each column, where runs differ in length.

    Args:
      x: [M, K].
      run: [M] int32, ascending: which run a row belongs to.
      num_runs: runs there may be.

    Returns:
      values [M, K] float8_e4m3fn, and scales [num_runs, K] float32, of no meaning for a run without rows.
    """
    wide = x.astype(jnp.float32)
    largest = jax.ops.segment_max(jnp.abs(wide), run, num_segments=num_runs, indices_are_sorted=True)
    scale = _scale(jnp.maximum(largest, floor), power_of_two)
    return (wide / scale[run]).astype(jnp.float8_e4m3fn), scale


def _scale(largest: jax.Array, power_of_two: bool) -> jax.Array:
    """What brings a magnitude to 448, or the next power of two above it; 1 for one too small to divide by.

    The quotient is found in integers, because compilers multiply by a reciprocal in place of dividing by a constant.
    Then 448 x scale / 448 would not always be the scale again, nor the scales be those of the released code.
    """
    mantissa, exponent = jnp.frexp(largest)  # mantissa in [0.5, 1); 448 is 0.875 x 2^9
    above = mantissa > 0.875
    if power_of_two:
        digits = jnp.where(above, 2.0, 1.0)
    else:
        whole = (mantissa * 2.0**24).astype(jnp.int32)
        digits = ((jnp.where(above, 4, 8) * whole + 3) // 7).astype(jnp.float32) * jnp.where(above, 2.0**-23, 2.0**-24)
    scale = jnp.where(jnp.isfinite(largest), jnp.ldexp(digits, exponent - 9), largest)
    return jnp.where(largest < E4M3_MAX * jnp.finfo(jnp.float32).tiny, 1.0, scale)
