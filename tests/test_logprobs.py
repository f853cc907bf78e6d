"""The tiled log-probabilities: values and slopes in float64, bfloat16, memory, and layouts over devices."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import largest_vocabulary_array, normal

from r1jax.objectives import dapo_loss, grpo_loss, token_logprobs
from r1jax.ops.tiles import cut_tokens, join_tokens, plan_tiles


def example(batch=3, length=7, vocab=24, width=5):
    targets = np.random.default_rng(2).integers(0, vocab, (batch, length)).astype(np.int32)
    return normal(0, batch, length, width), normal(1, width, vocab), targets


def by_torch(hidden, head, targets, temperature, weights):
    """Log-probabilities, entropies, and the slopes of their weighted sum, in float64."""
    h, w, t = (torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in (hidden, head, temperature))
    table = torch.log_softmax(h @ w / t, -1)
    chosen = table.gather(-1, torch.tensor(targets).long()[..., None])[..., 0]
    entropy = torch.distributions.Categorical(logits=table).entropy()
    sum((torch.tensor(np.asarray(c, np.float64)) * x).sum() for c, x in zip(weights, (chosen, entropy))).backward()
    return [x.detach().numpy() for x in (chosen, entropy, h.grad, w.grad, t.grad)]


@functools.cache
def tiled(**options):
    """The compiled program of `by_tiles`, one for all its arrays of a shape."""

    def loss(hidden, head, temperature, targets, weights):
        results = token_logprobs(hidden, head, targets, temperature=temperature, **options)
        return sum(jnp.sum(c * x) for c, x in zip(weights, results)), results

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))


def by_tiles(hidden, head, targets, temperature, weights, **options):
    dtype = jnp.promote_types(jnp.float32, hidden.dtype)
    slopes, results = tiled(**options)(hidden, head, jnp.asarray(temperature, dtype), targets, weights)
    return [*results, *slopes]


TILES = [
    {},
    {"chunk_size": 4, "vocab_chunk": 5},
    {"chunk_size": 21, "vocab_chunk": 7, "vocab_shards": 2},
    {"chunk_size": 7, "vocab_chunk": 8, "vocab_shards": 4},
    {"chunk_size": 1, "vocab_chunk": 1},
    {"chunk_size": 2, "vocab_chunk": 24, "vocab_shards": 24},
]


@pytest.mark.parametrize("options", TILES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_values_and_slopes_are_those_of_torch(options, scale):
    """With logits up to some hundreds too, whose own rounding is 3e-5; the last tile of some cases is ragged."""
    tolerance = 2e-6 if scale == 1 else 5e-5
    hidden, head, targets = example()
    weights = normal(3, 3, 7), normal(4, 3, 7)
    expected = by_torch(scale * hidden, head, targets, 0.6, weights)
    for found, right in zip(by_tiles(scale * hidden, head, targets, 0.6, weights, **options), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=tolerance * np.abs(right).max())


@pytest.mark.parametrize("options", TILES[1:3], ids=str)
def test_in_float64_the_slopes_agree_to_twelve_digits(options):
    with jax.enable_x64(True):
        hidden, head, targets = example()
        weights = normal(3, 3, 7), normal(4, 3, 7)
        wide = [x.astype(np.float64) for x in (hidden, head)]
        found = by_tiles(*wide, targets, 0.6, weights, **options)
        for one, other in zip(found, by_torch(hidden, head, targets, 0.6, weights), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@settings(max_examples=5, deadline=None)
@given(
    batch=st.integers(1, 4), length=st.integers(1, 5), chunk=st.integers(1, 20), columns=st.integers(1, 14),
    shards=st.sampled_from([1, 2, 3, 12]),
)  # fmt: skip
def test_no_choice_of_tiles_changes_a_result(batch, length, chunk, columns, shards):
    hidden, head, targets = example(batch, length, vocab=12)
    weights = normal(3, batch, length), normal(4, batch, length)
    options = {"chunk_size": chunk, "vocab_chunk": columns, "vocab_shards": shards}
    found = by_tiles(hidden, head, targets, 0.8, weights, **options)
    for one, other in zip(found, by_torch(hidden, head, targets, 0.8, weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=3e-6 * max(np.abs(other).max(), 1))


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 9), length=st.integers(1, 11), chunk=st.integers(1, 120), vocab=st.integers(1, 3000))
def test_tiles_are_within_their_bounds_and_cover_everything(batch, length, chunk, vocab):
    tiling = plan_tiles((batch, length), vocab, chunk_size=chunk, vocab_chunk=300, vocab_shards=1, tile_bytes=4096)
    assert tiling.rows * tiling.times <= chunk and tiling.width <= 300
    assert tiling.width <= vocab and vocab <= tiling.steps * tiling.width < vocab + tiling.width
    x = np.arange(batch * length * 2).reshape(batch, length, 2)
    (cut,) = cut_tokens((x,), tiling)
    assert cut.shape[1:3] == (tiling.rows, tiling.times)
    np.testing.assert_array_equal(join_tokens(cut, (batch, length)), x)
    chosen = plan_tiles((batch, length), vocab, chunk_size=None, vocab_chunk=None, vocab_shards=None, tile_bytes=4096)
    assert 4 * chosen.rows * chosen.times * chosen.width <= max(4096, 4 * 512)


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"vocab_chunk": 0}, {"vocab_shards": 5}, {"tile_bytes": 0}])
def test_tiles_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        token_logprobs(*example(), **options)


def test_bfloat16_is_summed_in_float32_and_sloped_in_bfloat16():
    """The head's slope, a sum over 512 tokens, is right to one rounding; in bfloat16 sums it would drift by percents."""
    hidden, head, targets = example(batch=8, length=64, vocab=96, width=16)
    hidden, head = (jnp.asarray(x, jnp.bfloat16) for x in (hidden, head))
    weights = np.ones((8, 64), np.float32), np.zeros((8, 64), np.float32)
    found = by_tiles(hidden, head, targets, 1.0, weights, chunk_size=8, vocab_chunk=32)
    expected = by_torch(hidden.astype(np.float32), head.astype(np.float32), targets, 1.0, weights)
    assert [x.dtype for x in found[:4]] == [jnp.float32, jnp.float32, jnp.bfloat16, jnp.bfloat16]
    for one, other, tolerance in zip(found[:4], expected, (2e-6, 2e-6, 0.01, 0.004), strict=False):
        off = np.abs(np.asarray(one, np.float64) - other).max()
        assert off <= tolerance * np.abs(other).max()


def naive_logprobs(hidden, head, targets):
    table = jax.nn.log_softmax(hidden @ head)
    return jnp.take_along_axis(table, targets[..., None], -1)[..., 0], -jnp.sum(jnp.exp(table) * table, -1)


def grpo_update(logprobs_of, batch, length, vocab, width, **options):
    """`value_and_grad` of the GRPO loss with the entropy as a metric, lowered and compiled for abstract arrays."""

    def loss(hidden, head, targets, old, ref, advantages, mask):
        logprobs, entropy = logprobs_of(hidden, head, targets, **options)
        return grpo_loss(logprobs, old, ref, advantages, mask)[0], jnp.sum(entropy * mask)

    shape = lambda *dims, dtype=jnp.float32: jax.ShapeDtypeStruct(dims, dtype)
    tokens = batch, length
    arrays = shape(*tokens, width), shape(width, vocab), shape(*tokens, dtype=jnp.int32)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(
        *arrays, shape(*tokens), shape(*tokens), shape(batch), shape(*tokens)
    )


@pytest.mark.parametrize("batch, length, vocab, most", [(8, 512, 32768, 0.15), (1, 8192, 129280, 0.02)])
def test_memory_of_the_grpo_update_is_a_small_part_of_the_logits(batch, length, vocab, most):
    compiled = grpo_update(token_logprobs, batch, length, vocab, 256).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= most * 4 * batch * length * vocab


def test_the_naive_update_would_hold_four_times_the_logits():
    """So that the test above can fail."""
    compiled = grpo_update(naive_logprobs, 2, 64, 4096, 16).compile()
    assert compiled.memory_analysis().temp_size_in_bytes >= 2 * 4 * 2 * 64 * 4096


def test_no_array_with_a_vocabulary_axis_is_larger_than_the_head():
    hidden, head, targets = example(vocab=101)
    sums = lambda **options: lambda h, w: sum(x.sum() for x in token_logprobs(h, w, targets, **options))
    largest = lambda **options: largest_vocabulary_array(jax.grad(sums(**options), argnums=(0, 1)), 101, hidden, head)
    assert largest(chunk_size=9, vocab_chunk=40) == head.size
    assert largest(chunk_size=9, vocab_chunk=101) == 9 * 101


def test_an_entropy_bonus_is_one_more_term_of_the_objective():
    hidden, head, targets = example()
    mask, advantages = np.arange(7) < np.array([[7], [3], [5]]), np.array([1.0, -1.0, 0.5], np.float32)

    def loss(hidden):
        logprobs, entropy = token_logprobs(hidden, head, targets)
        gains, _ = dapo_loss(logprobs, jax.lax.stop_gradient(logprobs), advantages, mask)
        return gains - 0.3 * jnp.sum(entropy * mask) / mask.sum()

    h = torch.tensor(hidden, dtype=torch.float64, requires_grad=True)
    table = torch.log_softmax(h @ torch.tensor(head, dtype=torch.float64), -1)
    chosen = table.gather(-1, torch.tensor(targets).long()[..., None])[..., 0]
    gain = (chosen - chosen.detach()).exp() * torch.tensor(advantages)[:, None]
    per_token = gain + 0.3 * torch.distributions.Categorical(logits=table).entropy()
    (-(per_token * torch.tensor(mask)).sum() / int(mask.sum())).backward()
    np.testing.assert_allclose(jax.grad(loss)(hidden), h.grad, rtol=1e-5, atol=1e-6)


ON_EIGHT_DEVICES = """
import re, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding
from r1jax.ops.logprobs import token_logprobs
from r1jax.ops.placed_logprobs import TokenAxes, placed_token_logprobs
from r1jax.sharding import MeshConfig, cut_axes, make_mesh, partition_spec

B, T, D, V = 4, 16, 8, 4096
rng = np.random.default_rng(0)
arrays = rng.normal(size=(B, T, D)).astype(np.float32), rng.normal(size=(D, V)).astype(np.float32)
targets = rng.integers(0, V, (B, T)).astype(np.int32)
axes = ("batch", "length", None), ("embed", "vocab"), ("batch", "length")
loss = lambda h, w, y, **o: sum(x.sum() * c for c, x in zip((1.0, 0.3), token_logprobs(h, w, y, **o)))
alone = jax.value_and_grad(loss, (0, 1))(*arrays, targets)
for mesh_config, options in (
    (MeshConfig(fsdp=1, tensor=8), {}),
    (MeshConfig(fsdp=1, data=2, tensor=4), {"vocab_chunk": 1024}),
    (MeshConfig(fsdp=1, data=2, tensor=4), {"vocab_chunk": 1024, "chunk_size": 16}),
    (MeshConfig(fsdp=2, tensor=2, sequence=2), {"vocab_chunk": 1024}),
):
    mesh = make_mesh(mesh_config)
    with jax.set_mesh(mesh):
        places = [NamedSharding(mesh, partition_spec(a)) for a in axes]
        placed = jax.device_put((*arrays, targets), tuple(places))
        step = jax.jit(
            jax.value_and_grad(lambda *a: loss(*a, **options), (0, 1)), out_shardings=(None, tuple(places[:2]))
        )
        text, found = step.lower(*placed).compile().as_text(), step(*placed)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-6 * np.abs(b).max())
    moved = re.findall(r"= \\w+\\[([\\d,]*)\\]\\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\\(", text)
    print(max((int(np.prod([int(n) for n in dims.split(",")])) for dims in moved), default=0))

grad = lambda f: jax.jit(jax.value_and_grad(f, (0, 1, 3)))
total = lambda results: sum((c * x).sum() for c, x in zip((np.arange(T), 0.3), results))
alone = grad(lambda h, w, y, t: total(token_logprobs(h, w, y, temperature=t)))(*arrays, targets, 0.7)
for mesh_config, batch in (
    (MeshConfig(fsdp=2, tensor=2, sequence=2), ("data", "fsdp", "expert")),
    (MeshConfig(fsdp=2, tensor=2, sequence=2), ()),
    (MeshConfig(fsdp=1, tensor=8), ("fsdp",)),
    (MeshConfig(fsdp=2, expert=2, data=2), ("fsdp",)),
):
    mesh = make_mesh(mesh_config)
    with jax.set_mesh(mesh):
        axes = TokenAxes(batch, ("sequence",), cut_axes("embed", D), cut_axes("vocab", V))
        found = grad(lambda h, w, y, t: total(placed_token_logprobs(h, w, y, axes=axes, temperature=t)))(
            *arrays, targets, 0.7
        )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-6 * np.abs(b).max())
"""


def test_on_a_mesh_neither_head_nor_logits_are_gathered():
    """Over `tensor` nothing moves but sums of tokens; over `fsdp` the part of the head that a tile needs, 8 x 1024."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tensor, both, chunked, fsdp = map(int, done.stdout.split())
    assert tensor == both == chunked == 0 and 0 < fsdp <= 8 * 1024 // 2
