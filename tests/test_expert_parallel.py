"""Experts on several devices and the kernels for TPU, against the same sums on one device and the einsum references."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK_COMPILE, ROOT

from r1jax.models.presets import miniature
from r1jax.models.transformer import init_params
from r1jax.ops.attention import attend, attention_mask, grouped_attention
from r1jax.ops.grouped import grouped_dot
from r1jax.ops.moe import experts_dense, experts_each, experts_ragged, experts_windowed
from r1jax.ops.splash import splash_attend
from r1jax.rl import Rows, routed_logprobs
from r1jax.rl_packing import pack_rows, packed_logprobs

CHILD = """
import dataclasses, json
import flax.linen as nn, jax, jax.numpy as jnp
from r1jax.models.presets import v3_1m
from r1jax.models.transformer import forward, init_params
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings

model = dataclasses.replace(v3_1m(64), dtype="float32", num_layers=2, init_stddev=0.1)
params, bias = init_params(model, jax.random.key(0))
params = nn.meta.unbox(params)
tokens = jax.random.randint(jax.random.key(1), (8, 6), 0, 64)
positions = jnp.where(jnp.arange(6) < 5, jnp.arange(6), -1) * jnp.ones((8, 1), jnp.int32)

def loss(params, tokens, positions):
    hidden, _, load = forward(model, params, bias, tokens, positions)
    return jnp.sum(hidden * jnp.sin(jnp.arange(hidden.size).reshape(hidden.shape))), load

slopes = jax.value_and_grad(loss, has_aux=True)
want = jax.device_get(jax.jit(slopes)(params, tokens, positions))
apart = lambda a, b: float(abs(a - b).max() / abs(b).max())
for sizes in MESHES:
    mesh = make_mesh(MeshConfig(*sizes))
    layout = tree_shardings(jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0)), mesh)[0]
    with jax.set_mesh(mesh):
        update = jax.jit(slopes, out_shardings=((None, None), layout))
        compiled = update.lower(jax.device_put(params, layout), tokens, positions).compile()
        got = jax.device_get(compiled(jax.device_put(params, layout), tokens, positions))
    print(json.dumps([sizes, max(jax.tree.leaves(jax.tree.map(apart, got, want)))]))
"""
MESHES = [(1, 2, 4, 1, 1), (2, 1, 2, 2, 1), (1, 1, 2, 2, 2), (1, 8, 1, 1, 1), (8, 1, 1, 1, 1), (1, 1, 8, 1, 1)]


def run_child(code: str) -> list:
    flags = f"{QUICK_COMPILE} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_is_the_same_on_every_mesh():
    meshes = MESHES[:2]
    assert run_child(CHILD.replace("MESHES", repr(meshes))) == [
        [list(sizes), pytest.approx(0, abs=1e-5)] for sizes in meshes
    ]


@pytest.mark.slow
def test_a_model_is_the_same_on_every_mesh_where_rows_do_not_divide():
    code = CHILD.replace("(8, 6)", "(6, 6)").replace("(8, 1)", "(6, 1)").replace("MESHES", repr(MESHES))
    assert all(apart < 1e-5 for _, apart in run_child(code))


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def expert_arguments():
    rng = np.random.default_rng(0)
    indices = jnp.asarray(rng.permuted(np.tile(np.arange(6), (10, 1)), axis=1)[:, :2], jnp.int32)
    return draw(1, 10, 8), indices, jnp.abs(draw(2, 10, 2)), draw(3, 6, 8, 4), draw(4, 6, 8, 4), draw(5, 6, 4, 8)


@pytest.mark.parametrize("run", [experts_ragged, experts_dense, lambda *a: experts_each(*a, dot=jnp.matmul)])
def test_shares_of_the_experts_add_up_to_all(run):
    x, indices, weights, *matrices = expert_arguments()

    def shares(x, weights, matrices):
        halves = [run(x, indices - at, weights, *(m[at : at + 3] for m in matrices)) for at in (0, 3)]
        return jnp.sum(sum(halves) ** 2), sum(halves)

    def whole(x, weights, matrices):
        out = experts_dense(x, indices, weights, *matrices)
        return jnp.sum(out**2), out

    got, want = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(x, weights, matrices)
                 for f in (shares, whole))  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("favoured", [(0, 1, 2, 3, 4, 5), (0, 1), (5,)], ids=["even", "these", "others"])
def test_rows_beyond_the_first_window_are_not_dropped(favoured):
    x, _, weights, *matrices = expert_arguments()
    indices = jnp.asarray(np.random.default_rng(1).choice(favoured, (10, 2)), jnp.int32)
    share = [matrix[:2] for matrix in matrices]
    held = int((indices < 2).sum())  # of 20 rows; a window has 5

    def output(run, x, weights, share):
        out = run(x, indices, weights, *share)
        return jnp.sum(out**2), out

    windowed = functools.partial(experts_windowed, windows=4)
    slopes = lambda run: jax.value_and_grad(functools.partial(output, run), argnums=(0, 1, 2), has_aux=True)
    got, want = (jax.jit(slopes(run))(x, weights, share) for run in (windowed, experts_dense))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)
    assert (held > 5) == (favoured == (0, 1)) or favoured == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("sizes", [(40, 0, 61, 27), (3, 5, 0, 2), (0, 0, 0, 0)], ids=["full", "rest", "none"])
def test_grouped_products_by_kernels_are_a_loop_over_groups(sizes):
    rows, matrices, slope = draw(0, 128, 16), draw(1, 4, 16, 24), draw(2, 128, 24)
    starts = np.cumsum((0, *sizes))

    def loop(rows, matrices):
        parts = [rows[a:b] @ matrices[g] for g, (a, b) in enumerate(zip(starts, starts[1:]))]
        return jnp.concatenate([*parts, jnp.zeros((128 - starts[-1], 24))])

    kernel = lambda rows, matrices: grouped_dot(rows, matrices, jnp.array(sizes, jnp.int32), True)
    want, pull = jax.vjp(loop, rows, matrices)
    got, push = jax.vjp(kernel, rows, matrices)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    for a, b in zip(push(slope), pull(slope)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_splash_attention_is_attention_with_odd_lengths_segments_and_a_narrower_value():
    query, key, value = draw(0, 2, 150, 2, 192), draw(1, 2, 150, 2, 192), draw(2, 2, 150, 2, 128)
    segments = jnp.asarray(np.repeat([[1, 2, 0], [0, 1, 2]], [70, 60, 20], axis=1), jnp.int32)
    places = jnp.tile(jnp.arange(150), (2, 1))
    seen = (segments > 0)[..., None, None]

    def kernel(*arrays):
        return jnp.where(seen, splash_attend(*arrays, segments, scale=0.07, interpret=True), 0)

    def reference(*arrays):
        mask = attention_mask(places, places, segments, segments)
        return jnp.where(seen, attend(*arrays, mask, scale=0.07), 0)

    want, pull = jax.vjp(jax.jit(reference), query, key, value)
    got, push = jax.vjp(jax.jit(kernel), query, key, value)
    np.testing.assert_allclose(got, want, atol=2e-5)
    for a, b in zip(push(want), pull(want)):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_splash_attention_shares_keys_among_heads():
    query, key, value = draw(0, 1, 128, 4, 128), draw(1, 1, 128, 2, 128), draw(2, 1, 128, 2, 128)
    places = jnp.arange(128)[None]
    part = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3), attention_mask(places, places)
    want = grouped_attention(query, [part], scale=0.1)
    got = splash_attend(query, key, value, jnp.ones((1, 128), jnp.int32), scale=0.1, interpret=True)
    np.testing.assert_allclose(got, want, atol=2e-5)


EINSUM = dataclasses.replace(miniature(32), num_layers=2, num_mtp_layers=0, init_stddev=0.2)
SPLASH = dataclasses.replace(EINSUM, attention="splash")


def draw_rows() -> Rows:
    rng = np.random.default_rng(0)
    prompts, lengths = rng.integers(0, 32, (2, 5)).repeat(2, 0), np.repeat([3, 5], 2)
    mask = np.arange(6) < np.array([[6], [2], [4], [0]])
    return Rows(*(x.astype(np.int32) for x in (prompts, lengths, rng.integers(0, 32, (4, 6)))), mask)


@pytest.mark.slow
def test_a_policy_with_splash_attention_scores_rows_padded_and_packed_as_with_einsum(monkeypatch):
    monkeypatch.setattr("r1jax.models.attention.splash_attend", functools.partial(splash_attend, interpret=True))
    rows, (boxed, bias) = draw_rows(), init_params(EINSUM, jax.random.key(0))
    params, packed = nn.meta.unbox(boxed), pack_rows(rows)
    score = lambda model, of, rows: jax.jit(functools.partial(of, model))(params, bias, rows)
    want, _, routing = score(EINSUM, routed_logprobs, rows)
    for of, laid in ((routed_logprobs, rows), (packed_logprobs, packed)):
        got, _, found = score(SPLASH, of, laid)
        np.testing.assert_allclose(got[rows.mask], want[rows.mask], atol=1e-4)
        np.testing.assert_array_equal(found.load, routing.load)
    padded = score(SPLASH, routed_logprobs, rows)[2]
    assert padded.experts.shape == routing.experts.shape


def test_splash_attention_refuses_prompts_that_completions_share():
    shapes = functools.partial(init_params, EINSUM)
    params, bias = jax.eval_shape(lambda: nn.meta.unbox(shapes(jax.random.key(0))))
    with pytest.raises(ValueError, match="'splash' shows a token its own segment only"):
        jax.eval_shape(functools.partial(packed_logprobs, SPLASH), params, bias, pack_rows(draw_rows(), sharing=2))
