"""FP8: tiles and blocks against loops and torch, the three products against float64, models that train in it."""

import dataclasses
import functools
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from r1jax.models.cache import init_cache, write_cache
from r1jax.models.presets import miniature, student
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.ops.fp8 import Recipe, fp8_linear, fp8_ragged
from r1jax.ops.quant import dequantize_blocks, quantize_blocks, quantize_runs, quantize_tiles
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.train import LossOutput, gradient_sums, init_train_state, make_train_step

RECIPES = [Recipe(), Recipe(power_of_two=True), Recipe(native=True), Recipe(power_of_two=True, native=True)]


def draw(seed, *shape):
    """Normal numbers whose size changes by four orders of magnitude over rows and columns."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.exp(rng.uniform(-2.3, 2.3, (*shape[:-2], size))) for size in shape[-2:])
    return (rng.standard_normal(shape) * rows[..., None] * columns[..., None, :]).astype(np.float32)


# A second implementation: numpy loops, and torch for the rounding


def e4m3(x):
    return torch.tensor(np.asarray(x, np.float32)).to(torch.float8_e4m3fn).float().numpy()


def loop_scale(part, floor, power_of_two):
    largest = np.float32(max(np.abs(part).max(), floor))
    if largest == 0:
        return np.float32(1)
    scale = largest / np.float32(448)
    return np.float32(2.0 ** np.ceil(np.log2(float(scale)))) if power_of_two else scale


def loop_quantize(x, spans, *, floor=0.0, power_of_two=False):
    """Values and dequantised values of a matrix [M, N]; `spans` yields the slices of its blocks."""
    values, wide = np.full(x.shape, np.nan, np.float32), np.full(x.shape, np.nan)
    for span in spans:
        scale = loop_scale(x[span], floor, power_of_two)
        values[span] = e4m3(x[span] / scale)
        wide[span] = values[span].astype(np.float64) * scale
    return values, wide


def blocks(shape):
    return [np.s_[i : i + 128, j : j + 128] for i in range(0, shape[0], 128) for j in range(0, shape[1], 128)]


def row_tiles(shape):
    return [np.s_[i, j : j + 128] for i in range(shape[0]) for j in range(0, shape[1], 128)]


def column_tiles(shape, bounds=None):
    """128 rows of one column; never across one of `bounds`."""
    bounds = [0, shape[0]] if bounds is None else bounds
    starts = [(i, min(i + 128, stop)) for start, stop in zip(bounds, bounds[1:]) for i in range(start, stop, 128)]
    return [np.s_[i:stop, j] for i, stop in starts for j in range(shape[1])]


def loop_products(x, w, dy, power_of_two, bounds=None):
    """y, dx and dw in float64 of operands quantised by loops."""
    rounded = lambda a, spans, floor=0.0: loop_quantize(a, spans, floor=floor, power_of_two=power_of_two)[1]
    wide_w = rounded(w, blocks(w.shape))
    y = rounded(x, row_tiles(x.shape), 1e-4) @ wide_w
    dx = rounded(dy, row_tiles(dy.shape)) @ wide_w.T
    return y, dx, rounded(x, column_tiles(x.shape), 1e-4).T @ rounded(dy, column_tiles(dy.shape))


@pytest.mark.parametrize("power_of_two", [False, True])
def test_tiles_and_blocks_are_a_loop_with_the_rounding_of_torch(power_of_two):
    x = draw(0, 260, 300)
    x[:128, 128:256] = 0
    x[3, :128] = 1e-6  # below the floor
    x[5, :128] = 448 * 2.0**-3  # a scale that is a power of two already
    values, scale = jax.jit(functools.partial(quantize_tiles, floor=1e-4, power_of_two=power_of_two))(x)
    assert values.dtype == jnp.float8_e4m3fn and scale.shape == (260, 3)
    expected, wide = loop_quantize(x, row_tiles(x.shape), floor=1e-4, power_of_two=power_of_two)
    np.testing.assert_array_equal(values.astype(np.float32), expected)
    np.testing.assert_array_equal(np.float64(values) * np.float64(scale).repeat(128, 1)[:, :300], wide)
    assert scale[5, 0] == 2.0**-3

    values, scale = jax.jit(functools.partial(quantize_blocks, power_of_two=power_of_two))(x)
    expected, wide = loop_quantize(x, blocks(x.shape), power_of_two=power_of_two)
    np.testing.assert_array_equal(values.astype(np.float32), expected)
    np.testing.assert_array_equal(dequantize_blocks(values, scale), wide.astype(np.float32))
    assert scale.shape == (3, 3) and scale[0, 1] == 1
    if power_of_two:
        assert (np.frexp(np.asarray(scale))[0] == 0.5).all()
        assert (np.abs(np.float32(values)[128:, :128]).max() > 224) and np.isfinite(np.float32(values)).all()


def test_runs_of_rows_have_scales_of_their_own():
    x, run = draw(1, 200, 7), np.repeat([0, 2, 3], [60, 128, 12]).astype(np.int32)
    values, scale = jax.jit(quantize_runs, static_argnums=2)(x, run, 5)
    spans = column_tiles(x.shape, [0, 60, 188, 200])
    expected, wide = loop_quantize(x, spans)
    np.testing.assert_array_equal(values.astype(np.float32), expected)
    np.testing.assert_array_equal(np.float64(values) * np.float64(scale)[run], wide)


def test_all_zero_and_tiny_operands_have_finite_products():
    zero, x = np.zeros((3, 130), np.float32), draw(2, 3, 130)
    for recipe in RECIPES:
        for scale in (0, 1e-41, 1e-38, 1e-30):
            y, pull = jax.vjp(lambda x, w: fp8_linear(x, w, recipe), zero, scale * np.ones((130, 5), np.float32))
            assert not y.any() and all(np.isfinite(g).all() for g in pull(np.float32(scale) * jnp.ones((3, 5))))
    values, scale = quantize_tiles(1e-20 * x)
    np.testing.assert_array_equal(values, quantize_tiles(x)[0])  # without a floor no gradient is too small


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_what_is_not_finite_stays_so(recipe, bad):
    x, w, dy = draw(3, 130, 140), draw(4, 140, 9), draw(5, 130, 9)

    def products(x, w, dy):
        y, pull = jax.vjp(lambda x, w: fp8_linear(x, w, recipe), x, w)
        return y, *pull(dy)

    spoiled = x.copy()
    spoiled[7, 2] = bad
    y, dx, dw = products(spoiled, w, dy)
    np.testing.assert_array_equal(np.isfinite(y).all(1), np.arange(130) != 7)
    assert np.isfinite(dx).all() and not np.isfinite(dw[2]).any() and np.isfinite(np.delete(dw, 2, 0)).all()
    spoiled = w.copy()
    spoiled[2, 3] = bad
    y, dx, dw = products(x, spoiled, dy)
    assert not np.isfinite(y[:, 3]).any() and not np.isfinite(dx[:, 2]).any() and np.isfinite(dw).all()
    spoiled = dy.copy()
    spoiled[7, 3] = bad
    y, dx, dw = products(x, w, spoiled)
    assert np.isfinite(y).all() and not np.isfinite(dx[7]).any() and not np.isfinite(dw[:, 3]).any()


SHAPES = [(256, 128, 384), (150, 300, 140), (3, 5, 2)]
"""Tokens, inputs, outputs."""


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_three_products_are_those_of_operands_quantised_by_loops(shape, recipe):
    tokens, inputs, outputs = shape
    x, w, dy = draw(0, tokens, inputs), draw(1, inputs, outputs), draw(2, tokens, outputs)

    @jax.jit
    def products(x, w, dy):
        y, pull = jax.vjp(lambda x, w: fp8_linear(x, w, recipe), x, w)
        return y, *pull(dy)

    exact = x.astype(float) @ w, dy.astype(float) @ w.T, x.T.astype(float) @ dy
    sizes = abs(x) @ abs(w), abs(dy) @ abs(w.T), abs(x.T) @ abs(dy)
    for ours, loop, exact, size in zip(
        products(x, w, dy), loop_products(x, w, dy, recipe.power_of_two), exact, sizes, strict=True
    ):
        np.testing.assert_array_less(abs(ours - loop), 3e-6 * size)  # float32 sums
        error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
        # Three bits of mantissa: a relative error uniform within 1/16 to 1/32 in each factor.
        assert 0.005 < error < 0.05 or tokens == 3


def test_bfloat16_operands_give_bfloat16_results():
    x, w, dy = (draw(seed, 64, 64).astype(jnp.bfloat16) for seed in range(3))
    y, pull = jax.vjp(fp8_linear, x, w)
    wide, wide_pull = jax.vjp(fp8_linear, x.astype(jnp.float32), w.astype(jnp.float32))
    for ours, full in zip((y, *pull(dy)), (wide, *wide_pull(dy.astype(jnp.float32))), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, full.astype(jnp.bfloat16))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_grouped_products_are_one_product_for_each_expert(recipe):
    """Experts of more and fewer than 128 tokens, and one of none."""
    sizes = np.array([140, 0, 3, 257], np.int32)
    x, w, dy = draw(0, 400, 150), draw(1, 4, 150, 130), draw(2, 400, 130)

    @jax.jit
    def products(x, w, dy):
        y, pull = jax.vjp(lambda x, w: fp8_ragged(x, w, sizes, recipe), x, w)
        return y, *pull(dy)

    y, dx, dw = products(x, w, dy)
    start = 0
    for expert, size in enumerate(sizes):
        rows = slice(start, start := start + size)
        if not size:
            assert not dw[expert].any()
            continue
        expected = loop_products(x[rows], w[expert], dy[rows], recipe.power_of_two)
        scales = (abs(x[rows]) @ abs(w[expert]), abs(dy[rows]) @ abs(w[expert].T), abs(x[rows].T) @ abs(dy[rows]))
        for ours, loop, scale in zip((y[rows], dx[rows], dw[expert]), expected, scales, strict=True):
            np.testing.assert_array_less(abs(ours - loop), 3e-6 * scale)


# Models


def small(**changes):
    """A V3 of one dense and two expert layers whose sums are longer than 128 and mostly no multiples of it."""
    shape = dict(
        embed_dim=136, mlp_dim=144, num_heads=4, q_lora_rank=48, kv_lora_rank=40, qk_nope_head_dim=16,
        qk_rope_head_dim=8, v_head_dim=36, num_experts=4, num_expert_groups=2, num_limited_groups=2,
        expert_mlp_dim=132, precision="fp8",
    )  # fmt: skip
    return dataclasses.replace(miniature(64), **(shape | changes))


TOKENS = np.random.default_rng(0).integers(0, 64, (8, 24)).astype(np.int32)
POSITIONS = np.tile(np.arange(24, dtype=np.int32), (8, 1))


def next_token_loss(config, params, bias, batch, scalars):
    hidden, _, load = forward(config, params, bias, batch, POSITIONS)
    logprobs = jax.nn.log_softmax((hidden @ output_head(config, params)).astype(jnp.float32))[:, :-1]
    chosen = jnp.take_along_axis(logprobs, batch[:, 1:, None], axis=-1)
    return LossOutput(-chosen.sum(), jnp.float32(chosen.size), {}, load)


def losses_of(config, updates=5):
    optimizer, mesh = optax.adam(3e-3), make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        init = functools.partial(init_params, config)
        state, shardings = init_train_state(jax.random.key(0), init, optimizer, mesh)
        sums = gradient_sums(functools.partial(next_token_loss, config))
        step, losses = make_train_step(sums, optimizer, shardings, router_bias_rate=0.001), []
        for _ in range(updates):
            state, metrics = step(state, TOKENS, {})
            losses.append(float(metrics["loss"]))
    return losses


@functools.cache
def plain_losses():
    return losses_of(small(precision="dtype"))


SCANNED = {"unroll_layers": False, "remat": True, "expert_dispatch": "ragged"}


@pytest.mark.parametrize("changes", [{}, {**SCANNED, "fp8_scales": "power_of_two"}, {**SCANNED, "dtype": "bfloat16"}])
def test_a_model_trains_in_fp8_with_nearly_the_same_losses(changes):
    ours = losses_of(small(**changes))
    assert ours[-1] < ours[0] - 0.3
    np.testing.assert_allclose(ours, plain_losses(), rtol=0.01)
    assert ours != plain_losses()


def reached(config, part):
    """Which float32 or float8 shapes a program multiplies: dot_generals of its jaxpr, as (operand dtypes)."""


def test_dense_and_ragged_experts_agree_in_fp8_and_native_is_simulated():
    """Tiles of channels do not depend on the dispatch, so that hidden states are equal to rounding."""
    params, bias = nn.meta.unbox(init_params(small(), jax.random.key(0)))
    run = jax.jit(lambda config, params: forward(config, params, bias, TOKENS, POSITIONS)[0], static_argnums=0)
    dense = run(small(), params)
    scale = 2e-5 * float(abs(dense).max())
    np.testing.assert_allclose(run(small(expert_dispatch="ragged"), params), dense, atol=scale)
    np.testing.assert_allclose(run(small(fp8_products="native"), params), dense, atol=scale)
    native = small(expert_dispatch="ragged", fp8_products="native")
    np.testing.assert_allclose(run(native, params), dense, atol=scale)
    plain = run(small(precision="dtype"), params)
    assert 1e-3 < np.linalg.norm(dense - plain) / np.linalg.norm(plain) < 0.1


@pytest.mark.parametrize("config", [small(), dataclasses.replace(student(64), precision="fp8")], ids=["mla", "gqa"])
def test_every_linear_weight_is_rounded_and_no_other(config):
    """A change of a weight that its block rounds away changes nothing; one of an exempt parameter does."""
    params, bias = nn.meta.unbox(init_params(config, jax.random.key(1)))
    run = jax.jit(lambda params: forward(config, params, bias, TOKENS, POSITIONS)[0] @ output_head(config, params))
    logits, exempt = run(params), ("embedding", "head", "router", "scale", "bias")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        changed = jax.tree_util.tree_map_with_path(
            lambda at, leaf: _nudge(leaf) if at == path else leaf, params
        )
        same = bool((run(changed) == logits).all())
        assert same != any(part in name for part in exempt), name


def _nudge(leaf):
    """Every number a little off what it was, but the largest magnitudes, which are the scales, and rounding borders."""
    leaf = np.asarray(leaf)
    if leaf.ndim < 2 or leaf.shape[-1] < 1:
        return leaf * np.float32(1.003) + np.float32(1e-3)
    return leaf * np.float32(1.003)


def test_cached_decoding_is_the_uncached_model_but_for_the_rounding_of_kv_up():
    config = small()
    params, bias = nn.meta.unbox(init_params(config, jax.random.key(0)))

    @functools.partial(jax.jit, static_argnums=0)
    def run(config, params):
        whole, entries, _ = forward(config, params, bias, TOKENS, POSITIONS)
        cut = jax.tree.map(lambda x: x[:, :, :20], entries._replace(positions=entries.positions[:, None]))
        cache = write_cache(init_cache(config, 8, 24), cut._replace(positions=POSITIONS[:, :20]), 0)
        last, _, _ = forward(config, params, bias, TOKENS[:, 20:], POSITIONS[:, 20:], cache=cache)
        return whole[:, 20:], last

    whole, last = run(config, params)
    assert np.linalg.norm(whole - last) / np.linalg.norm(whole) < 0.05


ON_EIGHT_DEVICES = """
import sys, jax, numpy as np, flax.linen as nn
sys.path.insert(0, sys.argv[1])
import test_fp8
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings

config = test_fp8.small(expert_dispatch=sys.argv[2])
boxed, bias = init_params(config, jax.random.key(0))
params = nn.meta.unbox(boxed)
step = jax.jit(jax.value_and_grad(lambda p: test_fp8.next_token_loss(config, p, bias, test_fp8.TOKENS, {}).loss_sum))
whole, mesh = step(params), make_mesh(MeshConfig(fsdp=2, expert=2, tensor=2))
with jax.set_mesh(mesh):
    cut = step(jax.device_put(params, tree_shardings(boxed, mesh)))
np.testing.assert_allclose(cut[0], whole[0], rtol=1e-4)
# Sums in another order move a few numbers over a border of rounding.
close = lambda a, b: np.testing.assert_array_less(np.linalg.norm(a - b), 0.02 * np.linalg.norm(b) + 1e-6)
jax.tree.map(close, cut[1], whole[1])
"""


@pytest.mark.parametrize("dispatch", ["dense", "ragged"])
def test_fp8_on_eight_devices_computes_what_it_does_on_one(environment, dispatch):
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", ON_EIGHT_DEVICES, str(__import__("pathlib").Path(__file__).parent), dispatch]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
