"""The kernel of latent attention to a cache, as ordinary operations, against numpy, and compiled for TPU."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_generation as rollouts
from jax.sharding import PartitionSpec, SingleDeviceSharding

from r1jax.aot.measure import topology_devices
from r1jax.generation.rollout import generate
from r1jax.models.cache import init_cache, write_cache
from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, init_params
from r1jax.ops.attention import attention_mask, latent_attend
from r1jax.ops.kernels.mla_decode import latent_decode, mla_decode
from r1jax.ops.splash import splash_attend
from r1jax.sharding import MeshConfig, make_mesh


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def turn(rope_key):
    """[..., S, Hr] as a cache keeps it, [..., Hr, S]."""
    return rope_key.swapaxes(-1, -2)


def by_loop(latent_query, rope_query, latent, rope_key, visible, scale):
    """Means and logarithms of sums, one row and query at a time, in float64."""
    arrays = [np.asarray(x, np.float64) for x in (latent_query, rope_query, latent, rope_key)]
    means, logs = np.zeros(arrays[0].shape), np.full((*arrays[0].shape[:2], 1), -1e30)
    for row, (queries, rotated, latents, keys) in enumerate(zip(*arrays)):
        seen = np.flatnonzero(visible[row])
        for place, (query, rope) in enumerate(zip(queries, rotated)):
            if len(seen):
                scores = (latents[seen] @ query + keys[seen] @ rope) * scale
                peak = scores.max()
                weights = np.exp(scores - peak)
                means[row, place] = weights @ latents[seen] / weights.sum()
                logs[row, place] = peak + np.log(weights.sum())
    return means, logs


def odd_rows(keys: int):
    """[5, S] bool: an odd length, a hole and padding on the left, the end of the last block, nothing, everything."""
    places = np.arange(keys)
    tail = places >= keys - 7
    return np.stack([places < 37, (places > 140) & (places % 3 > 0), tail, places < 0, places >= 0])


@pytest.mark.parametrize(
    ("keys", "queries", "dtype"), [(300, 5, jnp.float32), (128, 40, jnp.bfloat16)], ids=["float32", "bfloat16"]
)
def test_the_kernel_is_a_loop_over_rows_with_odd_lengths_holes_and_nothing(monkeypatch, keys, queries, dtype):
    monkeypatch.setattr("r1jax.ops.kernels.mla_decode.BLOCK_BYTES", 128 * jnp.dtype(dtype).itemsize)
    monkeypatch.setattr("r1jax.ops.kernels.mla_decode.BLOCK_QUERIES", 16)
    shapes = (5, queries, 32), (5, queries, 16), (5, keys, 32), (5, keys, 16)
    arrays = [draw(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes)]
    visible = odd_rows(keys)
    # Other layers, and blocks of which a row sees nothing, must not be touched.
    blocks = np.pad(visible, ((0, 0), (0, -keys % 128))).reshape(5, -1, 128).any(-1)
    touched = np.repeat(np.maximum.accumulate(blocks, 1) & np.maximum.accumulate(blocks[:, ::-1], 1)[:, ::-1], 128, 1)
    poisoned = [jnp.where(touched[:, :keys, None], x, jnp.nan) for x in arrays[2:]]
    stacks = [jnp.stack([jnp.full_like(x, jnp.nan), x, x + 1]) for x in poisoned]
    got = mla_decode(*arrays[:2], stacks[0], turn(stacks[1]), jnp.asarray(visible), 1, scale=0.2, interpret=True)
    want = by_loop(*arrays, visible, 0.2)
    # In bfloat16 the weights are rounded before they meet the latents, to 8 bits.
    np.testing.assert_allclose(got.mean, want[0], atol=2e-5 if dtype == jnp.float32 else 2e-2)
    np.testing.assert_allclose(got.log_total, want[1], rtol=1e-5, atol=1e-5)


def test_cache_and_new_tokens_together_are_the_reference_placed_by_rows_and_heads():
    length = 3
    queries, rotated = draw(0, 4, length, 3, 32), draw(1, 4, length, 3, 16)
    positions = jnp.array([[5], [130], [0], [199]]) + jnp.arange(length)
    places = jnp.arange(200)[None]
    held = jnp.where(places < positions[:, :1], places, -1)
    latent, keys, mask = draw(2, 4, 200, 32), draw(3, 4, 16, 200), attention_mask(positions, held)
    new = draw(4, 4, length, 32), draw(5, 4, 16, length), attention_mask(positions, positions)
    spec = PartitionSpec(("data", "fsdp"), None, "tensor")
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        decode = jax.jit(functools.partial(latent_decode, scale=0.2, spec=spec, interpret=True))
        got = decode(queries, rotated, (latent[None], keys[None], mask), new)
    want = latent_attend(queries, rotated, [(latent, keys, mask), new], scale=0.2)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_samples_that_share_a_prefix_are_further_queries_of_its_row():
    queries, rotated, latent, keys = draw(0, 6, 4, 32), draw(1, 6, 4, 16), draw(2, 1, 1, 90, 32), draw(3, 1, 1, 90, 16)
    visible = np.arange(90)[None] < 77
    pool = jax.jit(functools.partial(mla_decode, scale=0.2, interpret=True))
    shared = pool(queries.reshape(1, 24, 32), rotated.reshape(1, 24, 16), latent, turn(keys), visible)
    want, _ = by_loop(queries, rotated, *(np.repeat(x[0], 6, 0) for x in (latent, keys)), np.repeat(visible, 6, 0), 0.2)
    np.testing.assert_allclose(shared.mean.reshape(6, 4, 32), want, atol=2e-5)


SCANNED = dataclasses.replace(
    miniature(32), num_layers=3, num_dense_layers=2, num_mtp_layers=0, init_stddev=0.2, unroll_layers=False
)


def decode_by(attention: str, params, bias):
    """Hidden states of a token that follows four in a cache of six slots, one row padded on the left."""
    tokens, positions = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]), jnp.array([[0, 1, 2, 3, 4], [-1, -1, 0, 1, 2]])
    _, entries, _ = forward(SCANNED, params, bias, tokens[:, :4], positions[:, :4])
    cache = write_cache(init_cache(SCANNED, 2, 6), entries, 1)
    cache = cache._replace(positions=cache.positions.at[:, 1:5].set(positions[:, :4]))
    model = dataclasses.replace(SCANNED, attention=attention)
    return forward(model, params, bias, tokens[:, 4:], positions[:, 4:], cache=cache)[0]


@pytest.fixture
def stacks(monkeypatch) -> list:
    """Caches that the kernel is given; it runs as ordinary operations."""
    given = []

    def decode(latent_query, rope_query, cached, new, layer, **options):
        given.append(cached[0].shape)
        return latent_decode(latent_query, rope_query, cached, new, layer, interpret=True, **options)

    monkeypatch.setattr("r1jax.models.attention.latent_decode", decode)
    return given


def test_a_model_with_kernels_gives_them_the_whole_cache(stacks):
    params, bias = jax.eval_shape(lambda: nn.meta.unbox(init_params(SCANNED, jax.random.key(0))))
    jax.eval_shape(functools.partial(decode_by, "einsum"), params, bias)
    assert not stacks
    jax.eval_shape(functools.partial(decode_by, "splash"), params, bias)
    assert set(stacks) == {(2, 2, 6, 32), (1, 2, 6, 32)}


@pytest.mark.slow
def test_a_model_decodes_by_the_kernel_as_by_einsum(stacks):
    params, bias = jax.jit(lambda: nn.meta.unbox(init_params(SCANNED, jax.random.key(0))))()
    got, want = (jax.jit(functools.partial(decode_by, kind))(params, bias) for kind in ("splash", "einsum"))
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["unrolled", "scanned"])
def test_rollouts_by_kernels_are_those_by_einsum(stacks, monkeypatch, layers):
    monkeypatch.setattr("r1jax.models.attention.splash_attend", functools.partial(splash_attend, interpret=True))
    model = dataclasses.replace(rollouts.CONFIG, attention="splash", unroll_layers=layers == "unrolled")
    prompts, lengths = rollouts.PROMPTS.astype(np.int32), rollouts.PROMPT_LENGTHS
    sample = lambda model: generate(
        model, *rollouts.weights(), prompts, lengths, rollouts.keys(), group_size=rollouts.GROUP, slots=4,
        max_new_tokens=rollouts.LENGTH, eos_ids=(rollouts.EOS,), prefill_rows=2, prefill_chunk=2,
    )  # fmt: skip
    got, want = sample(model), sample(rollouts.CONFIG)
    assert stacks
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_allclose(got.sampler_logprobs, want.sampler_logprobs, atol=1e-4)


TPU = {
    "a share of the heads, 32K": (8, 16, 32768, 512, 64),
    "all heads, an odd length": (2, 128, 3000, 512, 64),
    "a chunk of a prompt": (1, 128 * 64, 8192, 512, 64),
    "a small model": (2, 4, 70, 32, 16),
}


def compile_for(topology: str, size: str, dtype):
    batch, queries, keys, rank, rope = TPU[size]
    device = SingleDeviceSharding(topology_devices(topology)[0])
    abstract = lambda *shape, dtype=dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=device)
    arrays = [abstract(batch, queries, rank), abstract(batch, queries, rope)]
    arrays += [abstract(1, batch, keys, rank), abstract(1, batch, rope, keys)]
    kernel = jax.jit(functools.partial(mla_decode, scale=0.1))
    compiled = kernel.lower(*arrays, abstract(batch, keys, dtype=jnp.bool_)).compile()
    assert 'custom_call_target="tpu_custom_call"' in compiled.as_text()


def test_mosaic_compiles_the_kernel():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install -e '.[tpu]'")
    compile_for("v5e:2x2", "a share of the heads, 32K", jnp.bfloat16)
    compile_for("v5p:2x2x1", "all heads, an odd length", jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("size", TPU)
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
def test_mosaic_compiles_the_kernel_at_every_size(topology, size):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install -e '.[tpu]'")
    for dtype in (jnp.bfloat16, jnp.float32):
        compile_for(topology, size, dtype)
