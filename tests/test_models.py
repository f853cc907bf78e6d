"""The decoder against a naive float64 implementation written from the DeepSeek-V3 report (arXiv 2412.19437)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.models.cache import init_cache, write_cache
from r1jax.models.config import deepseek_v3, miniature
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.sharding import RULES

VOCAB = 29
TOKENS = np.random.default_rng(0).permutation(VOCAB)[:24].reshape(3, 8).astype(np.int32)  # all different
POSITIONS = np.tile(np.arange(8, dtype=np.int32), (3, 1))


def tiny(**changes):
    shape = dict(
        embed_dim=12, num_layers=3, num_dense_layers=1, mlp_dim=10, num_heads=2, q_lora_rank=7, kv_lora_rank=6,
        qk_nope_head_dim=4, qk_rope_head_dim=6, v_head_dim=5, num_experts=8, num_experts_per_token=2,
        num_shared_experts=1, expert_mlp_dim=9, num_expert_groups=4, num_limited_groups=2, routed_scaling_factor=1.7,
        init_stddev=0.4, norm_eps=1e-3,
    )  # fmt: skip
    return dataclasses.replace(miniature(VOCAB), **(shape | changes))


def abstract_params(config):
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


@functools.lru_cache
def weights(config):
    """Random parameters, norm scales included, and a router bias large enough to change choices."""
    params, bias = nn.meta.unbox(abstract_params(config))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        is_scale = "scale" in jax.tree_util.keystr(path)
        values = rng.uniform(0.5, 1.5, leaf.shape) if is_scale else 0.4 * rng.normal(size=leaf.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params), (0.3 * rng.normal(size=bias.shape)).astype(np.float32)


# These programs run once or twice, so that compiling them is what costs time.
compile_fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
run = compile_fast(forward, static_argnums=0)


# A second implementation


def silu(x):
    return x / (1 + np.exp(-x))


def norm(x, scale, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * scale


def rotate(x, position, theta):
    """Rotary embedding as multiplication of (x0, x1), (x2, x3), ... by complex phases."""
    turned = (x[::2] + 1j * x[1::2]) * np.exp(1j * position * theta ** (-np.arange(0, len(x), 2) / len(x)))
    return np.stack([turned.real, turned.imag], -1).reshape(-1)


def feed_forward(x, layer):
    return (silu(x @ layer["gate"]) * (x @ layer["up"])) @ layer["down"]


def experts(x, layer, bias, config):
    """Equations 12-16: group-limited top-k by biased scores, weighted by renormalised unbiased scores."""
    score = 1 / (1 + np.exp(-x @ layer["router"]))
    choice = score + bias
    groups = np.split(np.arange(config.num_experts), config.num_expert_groups)
    strength = [np.sort(choice[group])[-2:].sum() for group in groups]
    allowed = np.concatenate([groups[g] for g in np.argsort(strength)[::-1][: config.num_limited_groups]])
    chosen = sorted(allowed, key=lambda i: -choice[i])[: config.num_experts_per_token]
    total = sum(score[i] for i in chosen)
    one = lambda i: feed_forward(x, {name: layer[name][i] for name in ("gate", "up", "down")})
    out = sum(config.routed_scaling_factor * score[i] / total * one(i) for i in chosen)
    return out + (feed_forward(x, layer["shared"]) if config.num_shared_experts else 0), chosen


def decode_by_loop(config, params, router_bias, tokens):
    """Final hidden states [T, D] of one sequence, and the experts chosen in each MoE layer, one token at a time."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    nope, eps = config.qk_nope_head_dim, config.norm_eps
    layers = [
        jax.tree.map(lambda x, i=i: x[i], params[stack])
        for stack, count in (("dense_layers", config.num_dense_layers), ("moe_layers", config.num_moe_layers))
        for i in range(count)
    ]
    memory, hidden, load = [[] for _ in layers], [], np.zeros(router_bias.shape)
    for position, token in enumerate(tokens):
        x = params["embedding"][token]
        for number, layer in enumerate(layers):
            mla, h = layer["attention"], norm(x, layer["attention_norm"]["scale"], eps)
            query = norm(h @ mla["q_down"], mla["q_norm"]["scale"], eps) if config.q_lora_rank else h
            compressed = h @ mla["kv_down"]
            latent = norm(compressed[: config.kv_lora_rank], mla["kv_norm"]["scale"], eps)
            shared_key = rotate(compressed[config.kv_lora_rank :], position, config.rope_theta)
            memory[number].append((latent, shared_key))
            for head in range(config.num_heads):
                q = query @ mla["q_up"][:, head]
                q = np.concatenate([q[:nope], rotate(q[nope:], position, config.rope_theta)])
                up = mla["kv_up"][:, head]
                keys = [np.concatenate([c @ up[:, :nope], k]) for c, k in memory[number]]
                powers = np.exp([q @ k / np.sqrt(len(q)) for k in keys])
                mixed = sum(p * (c @ up[:, nope:]) for p, (c, _) in zip(powers, memory[number])) / powers.sum()
                x = x + mixed @ mla["out"][head]
            h = norm(x, layer["mlp_norm"]["scale"], eps)
            if number < config.num_dense_layers:
                x = x + feed_forward(h, layer["mlp"])
            else:
                routed = number - config.num_dense_layers
                out, chosen = experts(h, layer["moe"], router_bias[routed], config)
                load[routed][chosen] += 1
                x = x + out
        hidden.append(norm(x, params["final_norm"]["scale"], eps))
    return np.array(hidden), load


VARIANTS = {
    "all parts": {},
    "no query compression": {"q_lora_rank": 0, "num_layers": 2},
    "experts from the first layer": {"num_dense_layers": 0, "num_layers": 2},
    "no experts": {"num_dense_layers": 2, "num_layers": 2},
    "no groups, no shared expert": {
        "num_layers": 2,
        "num_expert_groups": 1,
        "num_limited_groups": 1,
        "num_shared_experts": 0,
    },
    "scanned, ragged, recomputed": {"unroll_layers": False, "expert_dispatch": "ragged", "remat": True},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_forward_is_the_paper_token_by_token(changes):
    config = tiny(**changes)
    params, bias = weights(config)
    hidden, _, load = run(config, params, bias, TOKENS, POSITIONS)
    expected, loads = zip(*(decode_by_loop(config, params, bias, row) for row in TOKENS))
    np.testing.assert_allclose(hidden, expected, atol=2e-5)
    np.testing.assert_array_equal(load, sum(loads))


@pytest.mark.parametrize("changes", [{}, VARIANTS["experts from the first layer"], VARIANTS["no experts"]])
def test_decoding_with_the_cache_equals_the_full_forward(changes):
    config = tiny(**changes)
    params, bias = weights(config)
    whole, entries, _ = run(config, params, bias, TOKENS, POSITIONS)
    cache = init_cache(config, 3, 10)
    for t in range(8):
        hidden, new, _ = run(config, params, bias, TOKENS[:, t : t + 1], POSITIONS[:, t : t + 1], cache=cache)
        cache = write_cache(cache, new, t)
        np.testing.assert_allclose(hidden[:, 0], whole[:, t], atol=2e-5)
    for kept, expected in zip(jax.tree.leaves(cache), jax.tree.leaves(entries), strict=True):
        axis = kept.ndim - 2 if kept.ndim == 4 else 1
        np.testing.assert_allclose(jax.lax.slice_in_dim(kept, 0, 8, axis=axis), expected, atol=2e-5)


def test_decoding_several_tokens_at_once_equals_the_full_forward():
    config = tiny()
    params, bias = weights(config)
    whole, entries, _ = run(config, params, bias, TOKENS, POSITIONS)
    first = jax.tree.map(lambda x: x[:, :, :5] if x.ndim == 4 else x[:, :5], entries)
    cache = write_cache(init_cache(config, 3, 9), first, 0)
    hidden, _, _ = run(config, params, bias, TOKENS[:, 5:], POSITIONS[:, 5:], cache=cache)
    np.testing.assert_allclose(hidden, whole[:, 5:], atol=2e-5)


def test_left_padding_changes_nothing_and_is_not_counted():
    config = tiny()
    params, bias = weights(config)
    lengths = (2, 8, 5)
    tokens, positions = np.full((3, 8), 7, np.int32), np.full((3, 8), -1, np.int32)
    for row, length in enumerate(lengths):
        tokens[row, 8 - length :], positions[row, 8 - length :] = TOKENS[row, :length], np.arange(length)
    hidden, entries, load = run(config, params, bias, tokens, positions)
    total = 0
    for row, length in enumerate(lengths):
        expected, row_load = decode_by_loop(config, params, bias, TOKENS[row, :length])
        np.testing.assert_allclose(hidden[row, 8 - length :], expected, atol=2e-5)
        total = total + row_load
    np.testing.assert_array_equal(load, total)
    assert np.isfinite(hidden).all()

    cache = write_cache(init_cache(config, 3, 10), entries, 0)
    token, position = np.full((3, 1), 3, np.int32), np.array(lengths, np.int32)[:, None]
    hidden, _, _ = run(config, params, bias, token, position, cache=cache)
    for row, length in enumerate(lengths):
        expected, _ = decode_by_loop(config, params, bias, [*TOKENS[row, :length], 3])
        np.testing.assert_allclose(hidden[row, 0], expected[-1], atol=2e-5)


def test_a_packed_row_equals_separate_rows():
    config = tiny()
    params, bias = weights(config)
    segments = np.array([[1, 1, 1, 2, 2, 3, 0, 0]] * 3, np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0, -1, -1]] * 3, np.int32)
    hidden, _, load = run(config, params, bias, TOKENS, positions, segments=segments)
    for row, part in ((r, p) for r in range(3) for p in (slice(0, 3), slice(3, 5), slice(5, 6))):
        np.testing.assert_allclose(
            hidden[row, part], decode_by_loop(config, params, bias, TOKENS[row, part])[0], atol=2e-5
        )
    np.testing.assert_array_equal(load.sum(-1), 3 * 6 * config.num_experts_per_token)


@compile_fast
@jax.jacrev
def sensitivity(embedding, params, bias, document, positions):
    """Gradient of one projection of each output in the whole embedding table, [T, V, D]."""
    hidden, _, _ = forward(tiny(), params | {"embedding": embedding}, bias, TOKENS[:1], positions, segments=document)
    return hidden[0] @ np.random.default_rng(0).normal(size=tiny().embed_dim)


@pytest.mark.parametrize("lengths", [(8,), (3, 5)])
def test_gradients_reach_earlier_tokens_of_the_same_document_only(lengths):
    params, bias = weights(tiny())
    document = np.concatenate([np.full(length, number) for number, length in enumerate(lengths, start=1)])
    positions = np.concatenate([np.arange(length) for length in lengths])
    table = sensitivity(params["embedding"], params, bias, document[None], positions[None])
    reach = np.abs(table).max(-1)[:, TOKENS[0]]  # [output, input]
    for t, s in np.ndindex(8, 8):
        if s <= t and document[s] == document[t]:
            assert reach[t, s] > 1e-6
        else:
            assert reach[t, s] == 0


@functools.lru_cache
def value_and_gradient(config):
    """A value that depends on every output, and its gradients in the parameters and in the router bias."""
    direction = np.random.default_rng(0).normal(size=(3, 8, config.embed_dim)).astype(np.float32)
    objective = lambda params, bias: jnp.sum(direction * forward(config, params, bias, TOKENS, POSITIONS)[0])
    return compile_fast(jax.value_and_grad(objective, argnums=(0, 1)))(*weights(tiny()))


@pytest.mark.parametrize(
    "changes", [{"unroll_layers": False}, {"unroll_layers": False, "remat": True, "expert_dispatch": "ragged"}]
)
def test_execution_options_change_neither_parameters_nor_gradients(changes):
    base, other = tiny(), tiny(**changes)
    assert abstract_params(base) == abstract_params(other)
    value, gradients = value_and_gradient(base)
    other_value, other_gradients = value_and_gradient(other)
    assert float(other_value) == pytest.approx(float(value), rel=1e-5)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * largest)


def test_every_parameter_but_the_head_receives_a_gradient():
    gradient = value_and_gradient(tiny())[1][0]
    silent = {jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(gradient) if not jnp.any(x)}
    assert silent == {"['head']"}


def test_router_bias_is_state_without_gradient():
    params, bias = weights(tiny())
    assert bias.shape == (2, 8)
    assert not any("bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    np.testing.assert_array_equal(value_and_gradient(tiny())[1][1], 0)


@pytest.mark.parametrize("config, per_token", [(tiny(), 3 * 12), (deepseek_v3(), 35136)])
def test_the_cache_holds_the_latent_and_one_rotary_key(config, per_token):
    cache = jax.eval_shape(lambda: init_cache(config, 2, 5))
    arrays = jax.tree.leaves((cache.dense, cache.moe))
    assert sum(x.size for x in arrays) == 2 * 5 * per_token
    assert config.cache_elements_per_token == per_token
    assert cache.positions.shape == (2, 5)


def test_write_cache_leaves_other_slots_alone():
    config = tiny()
    params, bias = weights(config)
    _, new, _ = run(config, params, bias, TOKENS[:, :1], POSITIONS[:, :1])
    cache = write_cache(init_cache(config, 3, 4), new, 2)
    assert cache.positions.tolist() == [[-1, -1, 0, -1]] * 3
    np.testing.assert_array_equal(cache.moe.latent[:, :, 2], new.moe.latent[:, :, 0])
    assert not jnp.any(cache.moe.latent[:, :, [0, 1, 3]])


def test_deepseek_v3_has_its_published_number_of_parameters():
    params, bias = abstract_params(deepseek_v3())
    assert bias.shape == (58, 256)
    assert sum(x.size for x in jax.tree.leaves((params, bias))) == 671_026_419_200  # the router bias is counted
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


@pytest.mark.parametrize("config", [tiny(), tiny(q_lora_rank=0, num_shared_experts=0), deepseek_v3()])
def test_every_parameter_has_known_logical_axes(config):
    params, _ = abstract_params(config)
    boxes = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert len(box.names) == len(box.value.shape)
        assert set(box.names) <= RULES.keys()
    assert len(boxes) > 20


def test_initial_weights_have_the_configured_spread():
    config = tiny(embed_dim=64, init_stddev=0.006, num_layers=2, num_dense_layers=0, unroll_layers=False)
    params, bias = compile_fast(lambda key: nn.meta.unbox(init_params(config, key)))(jax.random.key(0))
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if "scale" in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(x, 1)
        else:
            assert abs(float(x.std()) / 0.006 - 1) < 5 / x.size**0.5
    first, second = params["moe_layers"]["moe"]["router"]
    assert jnp.any(first != second)
    np.testing.assert_array_equal(bias, 0)


def test_compute_dtype_reaches_activations_and_cache_but_not_parameters():
    config = dataclasses.replace(tiny(), dtype="bfloat16")
    params, bias = weights(tiny())
    hidden, entries, load = jax.eval_shape(lambda: forward(config, params, bias, TOKENS, POSITIONS))
    assert {x.dtype for x in (hidden, entries.dense.latent, entries.moe.rope_key)} == {jnp.dtype(jnp.bfloat16)}
    assert load.dtype == params["head"].dtype == jnp.float32
    assert output_head(config, params).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "changes",
    [
        {"num_dense_layers": 4},
        {"num_dense_layers": -1},
        {"num_experts": 9},
        {"num_expert_groups": 3},
        {"num_expert_groups": 0},
        {"num_limited_groups": 0},
        {"num_limited_groups": 5},
        {"num_experts_per_token": 5},
        {"num_experts_per_token": 0},
        {"qk_rope_head_dim": 5},
        {"vocab_size": 0},
        {"embed_dim": 0},
        {"num_heads": -2},
        {"kv_lora_rank": 0},
        {"q_lora_rank": -1},
        {"num_shared_experts": -1},
        {"dtype": "float23"},
        {"expert_dispatch": "sparse"},
    ],
    ids=str,
)
def test_impossible_shapes_are_refused(changes):
    with pytest.raises(ValueError):
        tiny(**changes)
