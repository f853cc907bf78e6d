"""Linear products in FP8, forward and backward (DeepSeek-V3, section 3.3).

All three products of a linear layer (the output, the gradient of its input, that of its weight) multiply E4M3 by E4M3
and add up in float32. A scale belongs to 128 terms of a sum: weights are quantised in blocks of 128 x 128; activations
and their gradients in tiles of 128 along the axis that is summed over, which are channels of one token in the first two
products, and 128 tokens of one channel in the third.

Each product has two forms. Simulated, operands are dequantised to float32 and multiplied there: right everywhere.
Native, 128 terms at a time are multiplied in float8 and their sum is scaled: for hardware that has such products. They
differ by the rounding of float32 sums.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.ops.quant import BLOCK, quantize_blocks, quantize_runs, quantize_tiles

ACTIVATION_FLOOR = 1e-4
"""Least magnitude of a tile of activations, as in the released act_quant. Gradients, which may be small everywhere (the
loss may be a mean over many tokens), have no such floor."""


class Recipe(NamedTuple):
    """How operands are scaled and multiplied."""

    power_of_two: bool = False
    """Scales are powers of two ("ue8m0", DeepSeek-V3.1), for weights too."""
    native: bool = False
    """Products of float8 operands, for hardware that has them."""


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fp8_linear(x, w, recipe: Recipe = Recipe()):
    """x [M, K] times w [K, N] in FP8, with both gradients in FP8: [M, N], dtype of `x`."""
    return _forward(x, w, recipe)[0]


def _forward(x, w, recipe: Recipe):
    values, scale = quantize_blocks(w, power_of_two=recipe.power_of_two)
    tiles = quantize_tiles(x, floor=ACTIVATION_FLOOR, power_of_two=recipe.power_of_two)
    y = _multiply(*tiles, values, _spread(scale, w.shape[1]), recipe)
    return y.astype(x.dtype), (x, values, scale, jnp.zeros(0, w.dtype))


def _backward(recipe: Recipe, saved, dy):
    x, values, scale, like = saved
    quantize = partial(quantize_tiles, power_of_two=recipe.power_of_two)
    dx = _multiply(*quantize(dy), values.T, _spread(scale.T, x.shape[1]), recipe)
    tokens, tokens_scale = quantize(dy.T)
    dw = _multiply(*quantize(x.T, floor=ACTIVATION_FLOOR), tokens.T, tokens_scale.T, recipe)
    return dx.astype(x.dtype), dw.astype(like.dtype)


fp8_linear.defvjp(_forward, _backward)


def _spread(scale, width: int):
    """Scales of blocks, [..., G], for each of `width` columns: [..., width]."""
    return jnp.repeat(scale, BLOCK, axis=-1)[..., :width]


def _multiply(a, a_scale, b, b_scale, recipe: Recipe):
    """a [M, K] times b [K, N] in float32; scales [M, K / 128] and [K / 128, N] belong to 128 terms of a sum each."""
    if recipe.native:
        return _add_groups(jnp.matmul, a, a_scale, b, b_scale)
    wide_a = a.astype(jnp.float32) * _spread(a_scale, a.shape[1])
    wide_b = b.astype(jnp.float32) * _spread(b_scale.T, b.shape[0]).T
    return jnp.matmul(wide_a, wide_b, precision="highest")


def _add_groups(multiply, a, a_scale, b, b_scale):
    """Sum over groups of 128 terms: a [M, K], a_scale [M, G], b [..., K, N], b_scale [G, N] or [G, M, N] -> [M, N]."""
    width = -a.shape[1] % BLOCK
    a = jnp.pad(a, ((0, 0), (0, width))).reshape(a.shape[0], -1, BLOCK).swapaxes(0, 1)
    b = jnp.pad(b, [(0, 0)] * (b.ndim - 2) + [(0, width), (0, 0)])
    b = jnp.moveaxis(b.reshape(*b.shape[:-2], -1, BLOCK, b.shape[-1]), -3, 0)

    def add(total, group):
        a, a_scale, b, b_scale = group
        return total + multiply(a, b, preferred_element_type=jnp.float32) * a_scale[:, None] * b_scale, None

    total = jnp.zeros((a.shape[1], b.shape[-1]), jnp.float32)
    return jax.lax.scan(add, total, (a, a_scale.T, b, b_scale))[0]


# Experts: rows sorted by expert, one weight an expert.


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fp8_ragged(x, w, sizes, recipe: Recipe = Recipe()):
    """`jax.lax.ragged_dot` in FP8, with both gradients in FP8.

    The gradient of the weights is simulated in any case: there is no grouped product whose scales change along the sum.

    Args:
      x: [M, K], rows sorted by expert.
      w: [E, K, N].
      sizes: [E] int32, rows of each expert; they add up to M.

    Returns:
      [M, N], dtype of `x`.
    """
    return _ragged_forward(x, w, sizes, recipe)[0]


def _ragged_forward(x, w, sizes, recipe: Recipe):
    values, scale = jax.vmap(partial(quantize_blocks, power_of_two=recipe.power_of_two))(w)
    tiles = quantize_tiles(x, floor=ACTIVATION_FLOOR, power_of_two=recipe.power_of_two)
    y = _multiply_ragged(*tiles, values, scale, sizes, recipe)
    return y.astype(x.dtype), (x, values, scale, sizes, jnp.zeros(0, w.dtype))


def _ragged_backward(recipe: Recipe, saved, dy):
    x, values, scale, sizes, like = saved
    tiles = quantize_tiles(dy, power_of_two=recipe.power_of_two)
    dx = _multiply_ragged(*tiles, values.swapaxes(1, 2), scale.swapaxes(1, 2), sizes, recipe)
    run, num_runs = _token_runs(sizes, x.shape[0])

    def round_tokens(rows, floor):
        rounded, scale = quantize_runs(rows, run, num_runs, floor=floor, power_of_two=recipe.power_of_two)
        return rounded.astype(jnp.float32) * scale[run]

    tokens, wide_dy = round_tokens(x, ACTIVATION_FLOOR), round_tokens(dy, 0.0)
    product = lambda w: jax.lax.ragged_dot(tokens, w, sizes, precision=jax.lax.Precision.HIGHEST)
    (dw,) = jax.linear_transpose(product, jax.ShapeDtypeStruct(values.shape, jnp.float32))(wide_dy)
    return dx.astype(x.dtype), dw.astype(like.dtype), None


fp8_ragged.defvjp(_ragged_forward, _ragged_backward)


def _multiply_ragged(a, a_scale, b, b_scale, sizes, recipe: Recipe):
    """Rows a [M, K] times their expert's b [E, K, N] in float32; scales [M, K / 128] and [E, K / 128, N / 128]."""
    if recipe.native:
        by_row = _spread(b_scale[_row_experts(sizes, a.shape[0])], b.shape[2])
        return _add_groups(partial(jax.lax.ragged_dot, group_sizes=sizes), a, a_scale, b, by_row.swapaxes(0, 1))
    wide_a = a.astype(jnp.float32) * _spread(a_scale, a.shape[1])
    by_row = _spread(b_scale.swapaxes(1, 2), b.shape[1]).swapaxes(1, 2)
    wide_b = b.astype(jnp.float32) * _spread(by_row, b.shape[2])
    return jax.lax.ragged_dot(wide_a, wide_b, sizes, precision=jax.lax.Precision.HIGHEST)


def _row_experts(sizes, rows: int):
    """The expert of each row, [rows] int32."""
    return jnp.repeat(jnp.arange(sizes.shape[0]), sizes, total_repeat_length=rows)


def _token_runs(sizes, rows: int):
    """Runs of at most 128 tokens of one expert: each row's, [rows] int32 ascending, and how many there may be."""
    runs = -(-sizes // BLOCK)
    expert = _row_experts(sizes, rows)
    within = jnp.arange(rows) - (jnp.cumsum(sizes) - sizes)[expert]
    return (jnp.cumsum(runs) - runs)[expert] + within // BLOCK, rows // BLOCK + sizes.shape[0]
