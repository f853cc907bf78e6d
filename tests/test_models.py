"""The decoders against naive float64 implementations: DeepSeek-V3 (arXiv 2412.19437), Llama and Qwen."""

import dataclasses
import functools
import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r1jax.config import to_dict
from r1jax.models.cache import Cache, init_cache, slice_slots, write_cache
from r1jax.models.config import Llama3Rope, Yarn, read_model_config
from r1jax.models.presets import deepseek_v3, miniature, student
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.sharding import RULES, MeshConfig, make_mesh
from r1jax.train import LossOutput, gradient_sums, init_train_state, make_train_step

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


def tiny_dense(**changes):
    """A Qwen2 by default: grouped-query attention with biases, no experts."""
    shape = dict(
        embed_dim=12, num_layers=2, num_dense_layers=2, mlp_dim=10, num_heads=4, num_kv_heads=2, head_dim=6,
        init_stddev=0.4, norm_eps=1e-3,
    )  # fmt: skip
    return dataclasses.replace(student(VOCAB), **(shape | changes))


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


def rotate_halves(x, position, theta):
    """Rotary embedding as multiplication of (x[0], x[H/2]), (x[1], x[H/2 + 1]), ... by complex phases."""
    first, second = np.split(x, 2)
    turned = (first + 1j * second) * np.exp(1j * position * theta ** (-np.arange(0, len(x), 2) / len(x)))
    return np.concatenate([turned.real, turned.imag])


def latent_attention(h, mla, position, memory, config):
    """DeepSeek-V3, eq. 1-11, for one token, which is added to `memory`."""
    nope = config.qk_nope_head_dim
    query = norm(h @ mla["q_down"], mla["q_norm"]["scale"], config.norm_eps) if config.q_lora_rank else h
    compressed, out = h @ mla["kv_down"], 0
    latent = norm(compressed[: config.kv_lora_rank], mla["kv_norm"]["scale"], config.norm_eps)
    memory.append((latent, rotate(compressed[config.kv_lora_rank :], position, config.rope_theta)))
    for head in range(config.num_heads):
        q = query @ mla["q_up"][:, head]
        q = np.concatenate([q[:nope], rotate(q[nope:], position, config.rope_theta)])
        up = mla["kv_up"][:, head]
        keys = [np.concatenate([c @ up[:, :nope], k]) for c, k in memory]
        powers = np.exp([q @ k / np.sqrt(len(q)) for k in keys])
        out += sum(p * (c @ up[:, nope:]) for p, (c, _) in zip(powers, memory)) / powers.sum() @ mla["out"][head]
    return out


def grouped_query_attention(h, layer, position, memory, config):
    """Llama, Qwen2 (biases) and Qwen3 (norms), for one token, which is added to `memory`."""

    def project(name, head):
        x = h @ layer[name][:, head] + (layer[f"{name}_bias"][head] if config.qkv_bias else 0)
        if name == "value":
            return x
        x = norm(x, layer[f"{name}_norm"]["scale"], config.norm_eps) if config.qk_norm else x
        return rotate_halves(x, position, config.rope_theta)

    out = 0
    memory.append([(project("key", head), project("value", head)) for head in range(config.num_kv_heads)])
    for head in range(config.num_heads):
        shared = [heads[head // (config.num_heads // config.num_kv_heads)] for heads in memory]
        powers = np.exp([project("query", head) @ key / np.sqrt(config.head_dim) for key, _ in shared])
        out += sum(p * value for p, (_, value) in zip(powers, shared)) / powers.sum() @ layer["out"][head]
    return out


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
    eps, attention = config.norm_eps, grouped_query_attention if config.num_kv_heads else latent_attention
    layers = [
        jax.tree.map(lambda x, i=i: x[i], params[stack])
        for stack, count in (("dense_layers", config.num_dense_layers), ("moe_layers", config.num_moe_layers))
        for i in range(count)
    ]
    memory, hidden, load = [[] for _ in layers], [], np.zeros(router_bias.shape)
    for position, token in enumerate(tokens):
        x = params["embedding"][token]
        for number, layer in enumerate(layers):
            h = norm(x, layer["attention_norm"]["scale"], eps)
            x = x + attention(h, layer["attention"], position, memory[number], config)
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


DENSE_VARIANTS = {
    "Qwen2": {},
    "Llama, one key-value head, tied": {"qkv_bias": False, "num_kv_heads": 1, "tied_embeddings": True},
    "Qwen3, as many key-value heads": {"qkv_bias": False, "qk_norm": True, "num_kv_heads": 4},
    "bias, norm and experts, scanned, recomputed": {
        "qk_norm": True, "num_dense_layers": 1, "num_experts": 4, "num_experts_per_token": 2, "expert_mlp_dim": 9,
        "unroll_layers": False, "remat": True,
    },
}  # fmt: skip
CONFIGS = {name: tiny(**changes) for name, changes in VARIANTS.items()}
CONFIGS |= {name: tiny_dense(**changes) for name, changes in DENSE_VARIANTS.items()}
KINDS = pytest.mark.parametrize("config", [tiny(), tiny_dense()], ids=["latent", "grouped"])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_is_the_paper_token_by_token(config):
    params, bias = weights(config)
    hidden, _, load = run(config, params, bias, TOKENS, POSITIONS)
    expected, loads = zip(*(decode_by_loop(config, params, bias, row) for row in TOKENS))
    np.testing.assert_allclose(hidden, expected, atol=2e-5)
    head = params["embedding"].T if config.tied_embeddings else params["head"]
    np.testing.assert_allclose(hidden @ output_head(config, params), expected @ head.astype(float), atol=5e-5)
    np.testing.assert_array_equal(load, sum(loads))


@pytest.mark.parametrize(
    "name", ["all parts", "experts from the first layer", "no experts", "Qwen2", [*DENSE_VARIANTS][-1]]
)
def test_decoding_with_the_cache_equals_the_full_forward(name):
    config = CONFIGS[name]
    params, bias = weights(config)
    whole, entries, _ = run(config, params, bias, TOKENS, POSITIONS)
    cache = init_cache(config, 3, 10)
    for t in range(8):
        hidden, new, _ = run(config, params, bias, TOKENS[:, t : t + 1], POSITIONS[:, t : t + 1], cache=cache)
        cache = write_cache(cache, new, t)
        np.testing.assert_allclose(hidden[:, 0], whole[:, t], atol=1e-5)
    for kept, expected in zip((cache.dense, cache.moe), (entries.dense, entries.moe), strict=True):
        np.testing.assert_allclose(kept.key[..., :8], expected.key, atol=2e-5)
        np.testing.assert_allclose(kept.value[..., :8, :], expected.value, atol=2e-5)
    np.testing.assert_array_equal(cache.positions[:, :8], entries.positions)


@KINDS
def test_decoding_several_tokens_at_once_equals_the_full_forward(config):
    params, bias = weights(config)
    whole, entries, _ = run(config, params, bias, TOKENS, POSITIONS)
    first = Cache(*slice_slots((entries.dense, entries.moe), 0, 5), entries.positions[:, :5])
    cache = write_cache(init_cache(config, 3, 9), first, 0)
    hidden, _, _ = run(config, params, bias, TOKENS[:, 5:], POSITIONS[:, 5:], cache=cache)
    np.testing.assert_allclose(hidden, whole[:, 5:], atol=1e-5)


@KINDS
def test_left_padding_changes_nothing_and_is_not_counted(config):
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


@KINDS
def test_a_packed_row_equals_separate_rows(config):
    params, bias = weights(config)
    segments = np.array([[1, 1, 1, 2, 2, 3, 0, 0]] * 3, np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0, -1, -1]] * 3, np.int32)
    hidden, _, load = run(config, params, bias, TOKENS, positions, segments=segments)
    for row, part in ((r, p) for r in range(3) for p in (slice(0, 3), slice(3, 5), slice(5, 6))):
        np.testing.assert_allclose(
            hidden[row, part], decode_by_loop(config, params, bias, TOKENS[row, part])[0], atol=2e-5
        )
    np.testing.assert_array_equal(load.sum(-1), 3 * 6 * config.num_experts_per_token)


@functools.partial(compile_fast, static_argnums=0)
@functools.partial(jax.jacrev, argnums=1)
def sensitivity(config, embedding, params, bias, document, positions):
    """Gradient of one projection of each output in the whole embedding table, [T, V, D]."""
    hidden, _, _ = forward(config, params | {"embedding": embedding}, bias, TOKENS[:1], positions, segments=document)
    return hidden[0] @ np.random.default_rng(0).normal(size=config.embed_dim)


@KINDS
@pytest.mark.parametrize("lengths", [(8,), (3, 5)])
def test_gradients_reach_earlier_tokens_of_the_same_document_only(config, lengths):
    params, bias = weights(config)
    document = np.concatenate([np.full(length, number) for number, length in enumerate(lengths, start=1)])
    positions = np.concatenate([np.arange(length) for length in lengths])
    table = sensitivity(config, params["embedding"], params, bias, document[None], positions[None])
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
    return compile_fast(jax.value_and_grad(objective, argnums=(0, 1)))(*weights(config))


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


@KINDS
def test_every_parameter_but_the_head_receives_a_gradient(config):
    gradient = value_and_gradient(config)[1][0]
    silent = {jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(gradient) if not jnp.any(x)}
    assert silent == {"['head']"}


def test_router_bias_is_state_without_gradient():
    params, bias = weights(tiny())
    assert bias.shape == (2, 8)
    assert not any("bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    np.testing.assert_array_equal(value_and_gradient(tiny())[1][1], 0)


def test_a_model_without_experts_is_trained_like_any_other():
    config, optimizer, mesh = tiny_dense(), optax.sgd(0.01), make_mesh(MeshConfig())

    def loss(params, bias, batch, scalars):
        hidden, _, load = forward(config, params, bias, batch, POSITIONS)
        logprobs = jax.nn.log_softmax(hidden @ output_head(config, params))[:, :-1]
        chosen = jnp.take_along_axis(logprobs, batch[:, 1:, None], axis=-1)
        return LossOutput(-chosen.sum(), jnp.float32(chosen.size), {}, load)

    with jax.set_mesh(mesh):
        state, shardings = init_train_state(jax.random.key(0), functools.partial(init_params, config), optimizer, mesh)
        step = make_train_step(gradient_sums(loss), optimizer, shardings, router_bias_rate=0.001)
        losses = []
        for _ in range(3):
            state, metrics = step(state, TOKENS, {})
            losses.append(float(metrics["loss"]))
    assert losses[0] > losses[1] > losses[2]
    assert metrics.keys() == {"loss", "grad_norm", "param_norm"} and state.router_bias.shape == (0, 0)


@pytest.mark.parametrize(
    "config, per_token", [(tiny(), 3 * (6 + 6)), (deepseek_v3(), 35136), (tiny_dense(), 2 * 2 * (6 + 6))]
)
def test_the_cache_holds_a_latent_and_one_rotary_key_or_the_grouped_keys_and_values(config, per_token):
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
    np.testing.assert_array_equal(cache.moe.value[..., 2, :], new.moe.value[..., 0, :])
    np.testing.assert_array_equal(cache.moe.key[..., 2], new.moe.key[..., 0])
    assert not jnp.any(cache.moe.value[..., [0, 1, 3], :]) and not jnp.any(cache.moe.key[..., [0, 1, 3]])


def test_deepseek_v3_has_its_published_number_of_parameters():
    params, bias = abstract_params(deepseek_v3())
    assert bias.shape == (58 + 1, 256)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    del params["mtp"]
    assert sum(x.size for x in jax.tree.leaves(params)) + 58 * 256 == 671_026_419_200  # the router bias is counted


def test_a_student_has_a_quarter_of_a_million_parameters_and_no_router_bias():
    params, bias = abstract_params(student(272))
    attention = 96 * 24 * (4 + 2 + 2 + 4) + 24 * (4 + 2 + 2)
    layer = attention + 3 * 96 * 128 + 2 * 96
    assert sum(x.size for x in jax.tree.leaves(params)) == 3 * layer + 2 * 272 * 96 + 96 == 247_008
    assert bias.shape == (0, 0)
    tied, _ = abstract_params(dataclasses.replace(student(272), tied_embeddings=True))
    assert sum(x.size for x in jax.tree.leaves(tied)) == 247_008 - 272 * 96


def test_a_model_description_without_the_fields_of_dense_models_still_loads():
    fields = dataclasses.asdict(tiny())
    later = ["num_kv_heads", "head_dim", "qkv_bias", "qk_norm", "tied_embeddings", "yarn", "llama3_rope"]
    later += ["num_mtp_layers", "router_score", "normalize_top_k", "max_positions"]
    assert [*fields][-11:] == later  # after the older fields, so that positions keep their meaning
    old = json.dumps({name: value for name, value in fields.items() if name not in later})
    assert read_model_config(json.loads(old)) == tiny()


@pytest.mark.parametrize(
    "config", [tiny(yarn=Yarn(40.0, 4096), num_mtp_layers=1), tiny_dense(llama3_rope=Llama3Rope(8.0, 1.0, 4.0, 8192))]
)
def test_a_model_description_survives_json(config):
    record = json.loads(json.dumps(to_dict(config)))
    assert read_model_config(record) == config
    with pytest.raises(TypeError, match="speed"):
        read_model_config(record | {"speed": 3})


@pytest.mark.parametrize(
    "config",
    [tiny(), tiny(q_lora_rank=0, num_shared_experts=0), deepseek_v3(), tiny_dense(qk_norm=True)],
    ids=["all parts", "fewer parts", "deepseek_v3", "dense"],
)
def test_every_parameter_has_known_logical_axes(config):
    params, _ = abstract_params(config)
    boxes = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert len(box.names) == len(box.value.shape)
        assert set(box.names) <= RULES.keys()
    assert len(boxes) > 16


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
    assert {x.dtype for x in (hidden, entries.dense.value, entries.moe.key)} == {jnp.dtype(jnp.bfloat16)}
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
        {"num_experts": 0},
        {"num_kv_heads": 2, "head_dim": 6},
        {"head_dim": 6},
        {"qkv_bias": True},
        {"qk_norm": True},
        {"llama3_rope": Llama3Rope(8.0, 1.0, 4.0, 8192)},
        {"num_mtp_layers": 2},
        {"router_score": "relu"},
        {"max_positions": -1},
    ],
    ids=str,
)
def test_impossible_shapes_are_refused(changes):
    with pytest.raises(ValueError):
        tiny(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_kv_heads": 3}, "num_heads must be a multiple of num_kv_heads"),
        ({"num_kv_heads": -1}, "num_kv_heads must be positive, not -1"),
        ({"num_kv_heads": 0}, "kv_lora_rank must be positive, not 0"),
        ({"head_dim": 0}, "head_dim must be positive, not 0"),
        ({"head_dim": 5}, "head_dim must be even"),
        ({"q_lora_rank": 4}, "q_lora_rank must be left out of a model with grouped-query attention, not 4"),
        ({"yarn": Yarn(40.0, 4096)}, "yarn must be left out of a model with grouped-query attention"),
        ({"num_mtp_layers": 1}, "num_mtp_layers must be left out of a model without num_experts"),
        ({"v_head_dim": 6}, "v_head_dim must be left out of a model with grouped-query attention, not 6"),
        ({"expert_mlp_dim": 9}, "expert_mlp_dim must be left out of a model without num_experts, not 9"),
        ({"num_experts": 4}, "num_experts_per_token must be positive, not 0"),
        ({"num_dense_layers": 1}, "num_dense_layers must be num_layers in a model without experts"),
    ],
    ids=str,
)
def test_impossible_dense_shapes_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_dense(**changes)


STUDENT_ON_EIGHT_DEVICES = """
import flax.linen as nn, jax, numpy as np
from r1jax.models.cache import Cache, init_cache, slice_slots, write_cache
from r1jax.models.presets import student
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings

config = student(272)
boxed, bias = init_params(config, jax.random.key(0))
params, tokens, positions = nn.meta.unbox(boxed), np.arange(48).reshape(4, 12), np.tile(np.arange(12), (4, 1))

@jax.jit
def run(params):
    first, entries, _ = forward(config, params, bias, tokens[:, :8], positions[:, :8])
    cache = write_cache(init_cache(config, 4, 12), entries, 0)
    rest, _, _ = forward(config, params, bias, tokens[:, 8:], positions[:, 8:], cache=cache)
    return jax.numpy.concatenate([first, rest], axis=1) @ output_head(config, params)

whole, mesh = run(params), make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
with jax.set_mesh(mesh):
    cut = jax.device_put(params, tree_shardings(boxed, mesh))
    assert cut["dense_layers"]["attention"]["key"].addressable_shards[0].data.shape == (3, 96 // 2, 2 // 2, 24)
    np.testing.assert_allclose(run(cut), whole, atol=1e-5)
"""


@pytest.mark.slow
def test_a_student_on_eight_devices_computes_what_it_does_on_one(environment):
    """Parameters, heads, hidden widths and vocabulary cut: prompt and cached decoding give the same logits."""
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", STUDENT_ON_EIGHT_DEVICES]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
