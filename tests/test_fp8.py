"""FP8: tiles and blocks against loops and torch, the three products against float64, models that train in it."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from r1jax.models.cache import Cache, init_cache, slice_slots, write_cache
from r1jax.models.presets import miniature, student
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.ops.fp8 import Recipe, fp8_linear, fp8_ragged
from r1jax.ops.quant import dequantize_blocks, quantize_blocks, quantize_runs, quantize_tiles
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.train import LossOutput, gradient_sums, init_train_state, make_train_step

RECIPES = [Recipe(), Recipe(power_of_two=True), Recipe(native=True)]


def draw(seed, *shape):
    """Normal numbers whose size changes by four orders of magnitude over rows and columns."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.exp(rng.uniform(-2.3, 2.3, (*shape[:-2], size))) for size in shape[-2:])
    return (rng.standard_normal(shape) * rows[..., None] * columns[..., None, :]).astype(np.float32)


# A second implementation: numpy loops, and torch for the rounding


def loop_quantize(x, spans, *, floor=0.0, power_of_two=False):
    """Values and dequantised values of a matrix [M, N]; `spans` are the slices of its blocks."""
    scale = np.full(x.shape, np.nan, np.float32)
    for span in spans:
        largest = np.float32(max(np.abs(x[span]).max(), floor))
        one = largest / np.float32(448) or 1.0
        scale[span] = 2.0 ** np.ceil(np.log2(float(largest) / 448 or 1.0)) if power_of_two else one
    values = torch.tensor(x / scale).to(torch.float8_e4m3fn).float().numpy()
    return values, values.astype(np.float64) * scale


def blocks(shape):
    return [np.s_[i : i + 128, j : j + 128] for i in range(0, shape[0], 128) for j in range(0, shape[1], 128)]


def row_tiles(shape):
    return [np.s_[i, j : j + 128] for i in range(shape[0]) for j in range(0, shape[1], 128)]


def column_tiles(shape, bounds=None):
    """128 rows of one column; never across one of `bounds`."""
    bounds = [0, shape[0]] if bounds is None else bounds
    starts = [(i, min(i + 128, stop)) for start, stop in zip(bounds, bounds[1:]) for i in range(start, stop, 128)]
    return [np.s_[i:stop, j] for i, stop in starts for j in range(shape[1])]


def loop_products(x, w, dy, power_of_two):
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


@functools.cache
def make_products(recipe):
    """(x, w, dy) -> y, dx, dw."""

    def products(x, w, dy):
        y, pull = jax.vjp(lambda x, w: fp8_linear(x, w, recipe), x, w)
        return y, *pull(dy)

    return jax.jit(products)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_all_zero_and_tiny_operands_have_finite_products(recipe):
    zero, products = np.zeros((130, 140), np.float32), make_products(recipe)
    for size in (0, 1e-41, 1e-38, 1e-30):
        y, dx, dw = products(zero, np.full((140, 9), size, np.float32), np.full((130, 9), size, np.float32))
        assert not y.any() and not dw.any() and np.isfinite(dx).all()


def test_no_gradient_is_too_small_for_a_tile_without_floor():
    x = draw(2, 3, 130)
    np.testing.assert_array_equal(quantize_tiles(x * 2.0**-60)[0], quantize_tiles(x)[0])
    assert not quantize_tiles(x * 2.0**-60, floor=1e-4)[0].astype(np.float32).any()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_what_is_not_finite_stays_so(recipe, bad):
    x, w, dy, products = draw(3, 130, 140), draw(4, 140, 9), draw(5, 130, 9), make_products(recipe)
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


SHAPES = [(256, 128, 130), (150, 300, 140), (3, 5, 2)]
"""Tokens, inputs, outputs."""


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_three_products_are_those_of_operands_quantised_by_loops(shape, recipe):
    tokens, inputs, outputs = shape
    x, w, dy = draw(0, tokens, inputs), draw(1, inputs, outputs), draw(2, tokens, outputs)
    exact = x.astype(float) @ w, dy.astype(float) @ w.T, x.T.astype(float) @ dy
    sizes = abs(x) @ abs(w), abs(dy) @ abs(w.T), abs(x.T) @ abs(dy)
    for ours, loop, exact, size in zip(
        make_products(recipe)(x, w, dy), loop_products(x, w, dy, recipe.power_of_two), exact, sizes, strict=True
    ):
        np.testing.assert_array_less(abs(ours - loop), 3e-6 * size)  # float32 sums
        error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
        # Three bits of mantissa: a relative error uniform within 1/16 to 1/32 in each factor.
        assert 0.005 < error < 0.05 or tokens == 3


def test_bfloat16_operands_give_bfloat16_results():
    x, w, dy = (draw(seed, 64, 64).astype(jnp.bfloat16) for seed in range(3))
    products = make_products(Recipe())
    wide = products(*(a.astype(jnp.float32) for a in (x, w, dy)))
    for ours, full in zip(products(x, w, dy), wide, strict=True):
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
    """A V3 of one dense and one expert layer whose sums are longer than 128 and mostly no multiples of it."""
    shape = dict(
        num_layers=2, embed_dim=136, mlp_dim=144, num_heads=4, q_lora_rank=48, kv_lora_rank=40, qk_nope_head_dim=16,
        qk_rope_head_dim=8, v_head_dim=36, num_experts=4, num_expert_groups=2, num_limited_groups=2,
        expert_mlp_dim=132, precision="fp8",
    )  # fmt: skip
    return dataclasses.replace(miniature(64), **(shape | changes))


TOKENS = np.random.default_rng(0).integers(0, 64, (8, 24)).astype(np.int32)
POSITIONS = np.tile(np.arange(24, dtype=np.int32), (8, 1))


def weights(config):
    """Normal numbers as parameters, norm scales of 1, and no router bias."""
    params, bias = nn.meta.unbox(jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        ones = "scale" in jax.tree_util.keystr(path)
        return (np.ones(leaf.shape) if ones else 0.05 * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params), np.zeros(bias.shape, np.float32)


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


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {**SCANNED, "dtype": "bfloat16", "fp8_scales": "power_of_two"}])
def test_a_model_trains_in_fp8_with_nearly_the_same_losses(changes):
    ours = losses_of(small(**changes))
    assert ours[-1] < ours[0] - 0.3
    np.testing.assert_allclose(ours, plain_losses(), rtol=0.03)  # the loss falls by a quarter an update
    assert ours != plain_losses()


# Programs that run once or twice, so that compiling them is what costs time.
compile_fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.slow
def test_dense_and_ragged_experts_agree_in_fp8_and_native_is_simulated():
    """Tiles of channels do not depend on the dispatch, so that hidden states are equal to rounding."""
    params, bias = weights(small())
    run = compile_fast(lambda config, params: forward(config, params, bias, TOKENS, POSITIONS)[0], static_argnums=0)
    dense = run(small(), params)
    scale = 2e-5 * float(abs(dense).max())
    np.testing.assert_allclose(run(small(expert_dispatch="ragged"), params), dense, atol=scale)
    native = small(expert_dispatch="ragged", fp8_products="native")
    np.testing.assert_allclose(run(native, params), dense, atol=scale)
    plain = run(small(precision="dtype"), params)
    assert 0.03 < np.linalg.norm(dense - plain) / np.linalg.norm(plain) < 0.2  # random weights forgive nothing


def rounded(name, leaf):
    """A stacked weight as its blocks of FP8 hold it: [L, ...] or, of experts, [L, E, ...]."""
    matrices = leaf.reshape(*leaf.shape[: 2 if "moe'" in name and "shared" not in name else 1], -1)
    inputs = np.prod(leaf.shape[1:3]) if "'out'" in name else leaf.shape[matrices.ndim - 1]
    matrices = matrices.reshape(-1, inputs, matrices.shape[-1] // inputs)
    return np.stack([dequantize_blocks(*quantize_blocks(matrix)) for matrix in matrices]).reshape(leaf.shape)


@pytest.mark.parametrize("config", [small(), dataclasses.replace(student(64), precision="fp8")], ids=["mla", "gqa"])
def test_every_linear_weight_is_rounded_and_no_other_parameter(config):
    """So that a weight may be replaced by its rounded self."""
    params, bias = weights(config)
    run = compile_fast(lambda params: forward(config, params, bias, TOKENS, POSITIONS)[0] @ output_head(config, params))
    logits, linear = run(params), 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        exempt = any(part in name for part in ("embedding", "head", "router", "scale", "bias"))
        new = leaf * 1.01 + 0.01 if exempt else rounded(name, leaf)
        assert (new != leaf).any()
        changed = jax.tree_util.tree_map_with_path(lambda at, leaf: new if at == path else leaf, params)
        assert bool((run(changed) == logits).all()) != exempt, name
        linear += not exempt
    assert linear == (5 + 3 + 5 + 3 + 3 if config.num_experts else 4 + 3)


def test_cached_decoding_is_the_uncached_model_but_for_the_rounding_of_kv_up():
    sizes = ("num_experts", "num_experts_per_token", "num_shared_experts", "expert_mlp_dim")
    config = small(num_dense_layers=2, num_expert_groups=1, num_limited_groups=1, **dict.fromkeys(sizes, 0))
    params, bias = weights(config)

    @compile_fast
    def run(params):
        whole, entries, _ = forward(config, params, bias, TOKENS, POSITIONS)
        dense, moe = slice_slots((entries.dense, entries.moe), 0, 20)
        cache = write_cache(init_cache(config, 8, 24), Cache(dense, moe, POSITIONS[:, :20]), 0)
        last, _, _ = forward(config, params, bias, TOKENS[:, 20:], POSITIONS[:, 20:], cache=cache)
        return whole[:, 20:], last

    whole, last = run(params)
    assert 0 < np.linalg.norm(whole - last) / np.linalg.norm(whole) < 0.1


ON_EIGHT_DEVICES = """
import functools, sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
import test_fp8
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings

config = test_fp8.small(expert_dispatch="ragged", expert_mlp_dim=256)  # of which a device has whole blocks
boxed, _ = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
params, bias = test_fp8.weights(config)
step = jax.jit(jax.value_and_grad(lambda p: test_fp8.next_token_loss(config, p, bias, test_fp8.TOKENS, {}).loss_sum))
whole, mesh = step(params), make_mesh(MeshConfig(fsdp=2, expert=2, tensor=2))
with jax.set_mesh(mesh):
    cut = step(jax.device_put(params, tree_shardings(boxed, mesh)))
np.testing.assert_allclose(cut[0], whole[0], rtol=1e-4)
# Sums in another order move a few numbers over a border of rounding. Tiles of tokens are a device's own, so that gradients
# of experts' weights are rounded in other tiles: two roundings, of 1/32 each at most in the mean.
def close(path, a, b):
    name = jax.tree_util.keystr(path)
    own = "'moe'" in name and any(part in name for part in ("gate", "up", "down")) and "shared" not in name
    assert np.linalg.norm(a - b) < (1 / 16 if own else 0.02) * np.linalg.norm(b) + 1e-6, name
jax.tree_util.tree_map_with_path(close, cut[1], whole[1])
"""


@pytest.mark.slow
@pytest.mark.xfail(reason="experts on several devices round tiles of their own: gradients are off by more than the bounds")
def test_fp8_on_eight_devices_computes_what_it_does_on_one(environment):
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", ON_EIGHT_DEVICES, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
