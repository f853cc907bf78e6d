"""The mathematics of the model against literal numpy loops in float64."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from r1jax.models.presets import miniature
from r1jax.models.transformer import init_params
from r1jax.ops.attention import attend, attention_mask, grouped_attention, latent_attend
from r1jax.ops.logprobs import token_logprobs
from r1jax.ops.masked import masked_mean, masked_sum
from r1jax.ops.moe import (
    expert_load,
    experts_blocks,
    experts_dense,
    experts_ragged,
    max_violation,
    route,
    swiglu,
    update_router_bias,
)
from r1jax.ops.norm import rms_norm
from r1jax.ops.rotary import apply_rotary, apply_rotary_halves, rotary_frequencies
from r1jax.rl import GrpoRows, Rows, grpo_batch_loss
from r1jax.train import gradient_sums


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


# Normalisation and rotary embedding


def test_rms_norm_is_division_by_root_mean_square():
    x, scale = normal(0, 3, 5, 8) * 4, normal(1, 8)
    expected = np.empty(x.shape)
    for place in np.ndindex(3, 5):
        row = x[place].astype(np.float64)
        expected[place] = row / np.sqrt(sum(v * v for v in row) / 8 + 0.1) * scale
    np.testing.assert_allclose(rms_norm(x, scale, eps=0.1), expected, rtol=1e-5)


def test_rms_norm_of_bfloat16_rounds_before_the_scale():
    x, scale = normal(0, 16, 64).astype(ml_dtypes.bfloat16), normal(1, 64)
    wide = x.astype(np.float32)
    normed = wide / np.sqrt(np.mean(wide * wide, -1, keepdims=True) + np.float32(1e-6))
    expected = normed.astype(ml_dtypes.bfloat16) * scale.astype(ml_dtypes.bfloat16)
    result = rms_norm(jnp.asarray(x), jnp.asarray(scale))
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_rotary_frequencies_follow_the_formula():
    np.testing.assert_allclose(rotary_frequencies(6, 500.0), [500.0 ** (-2 * i / 6) for i in range(3)], rtol=1e-6)


def test_rotary_multiplies_interleaved_pairs_by_complex_phases():
    x, positions = normal(0, 2, 3, 2, 8), np.array([[0, 1, 2], [7, 40, 41]], np.int32)
    frequencies = np.asarray(rotary_frequencies(8, 10000.0), np.float64)
    expected = np.empty(x.shape)
    for b, t, n, pair in np.ndindex(2, 3, 2, 4):
        number = complex(*x[b, t, n, 2 * pair : 2 * pair + 2]) * np.exp(1j * positions[b, t] * frequencies[pair])
        expected[b, t, n, 2 * pair : 2 * pair + 2] = number.real, number.imag
    np.testing.assert_allclose(apply_rotary(x, positions, frequencies.astype(np.float32)), expected, atol=1e-5)


def test_rotary_in_halves_is_the_interleaved_rotary_of_reordered_channels():
    x, positions, frequencies = normal(0, 2, 3, 2, 8), np.array([[0, 1, 2], [7, 40, 41]]), rotary_frequencies(8, 500.0)
    interleave = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # puts channel i + H/2 beside channel i
    halves = apply_rotary_halves(x, positions, frequencies)
    np.testing.assert_allclose(
        halves[..., interleave], apply_rotary(x[..., interleave], positions, frequencies), atol=1e-6
    )


def test_rotary_scores_depend_on_relative_position_only():
    query, key, frequencies = normal(0, 1, 1, 1, 16), normal(1, 1, 1, 1, 16), rotary_frequencies(16, 10000.0)
    turn = jax.jit(lambda x, position: apply_rotary(x, jnp.full((1, 1), position), frequencies))
    score = lambda m, n: float(jnp.sum(turn(query, m) * turn(key, n)))
    assert score(5, 2) == pytest.approx(score(42, 39), abs=1e-4)
    assert abs(score(5, 2) - score(5, 3)) > 1e-2


# Attention


def softmax_mix(scores, values):
    """Weights exp(score) / sum, applied to the rows of `values`, for one query."""
    powers = [np.exp(s - max(scores)) for s in scores]
    return sum(p * v for p, v in zip(powers, values, strict=True)) / sum(powers)


def test_attention_mask_is_causal_within_segments_and_hides_empty_slots():
    query_positions = np.array([[0, 1, 0, 1, -1]])
    key_positions = np.array([[0, 1, 0, 1, -1, 2]])
    query_segments, key_segments = np.array([[1, 1, 2, 2, 0]]), np.array([[1, 1, 2, 2, 0, 1]])
    plain = attention_mask(query_positions, key_positions)
    packed = attention_mask(query_positions, key_positions, query_segments, key_segments)
    assert plain.shape == packed.shape == (1, 5, 6)
    for t, s in np.ndindex(5, 6):
        visible = 0 <= key_positions[0, s] <= query_positions[0, t]
        assert bool(plain[0, t, s]) == visible
        assert bool(packed[0, t, s]) == (visible and query_segments[0, t] == key_segments[0, s])


def test_attend_is_a_loop_over_heads_and_queries():
    query, key, value = normal(0, 2, 3, 2, 4), normal(1, 2, 5, 2, 4), normal(2, 2, 5, 2, 6)
    mask = np.random.default_rng(3).random((2, 3, 5)) < 0.6
    mask[:, :, 0] = True
    expected = np.empty((2, 3, 2, 6))
    for b, t, n in np.ndindex(2, 3, 2):
        keys = np.flatnonzero(mask[b, t])
        scores = [0.7 * float(query[b, t, n].astype(float) @ key[b, s, n].astype(float)) for s in keys]
        expected[b, t, n] = softmax_mix(scores, [value[b, s, n].astype(float) for s in keys])
    np.testing.assert_allclose(attend(query, key, value, mask, scale=0.7), expected, atol=1e-5)


def test_attend_without_a_visible_key_is_finite():
    out = attend(
        normal(0, 1, 1, 1, 4), normal(1, 1, 3, 1, 4), normal(2, 1, 3, 1, 4), np.zeros((1, 1, 3), bool), scale=1.0
    )
    np.testing.assert_allclose(out[0, 0, 0], normal(2, 1, 3, 1, 4)[0, :, 0].mean(0), atol=1e-6)


def grouped_case():
    """Queries of 4 heads, keys and values of 2, 6 keys, and a mask in which every query sees some key."""
    mask = np.random.default_rng(4).random((2, 3, 6)) < 0.5
    mask[:, :, 4] = True
    return normal(0, 2, 3, 4, 5), normal(1, 2, 2, 5, 6), normal(2, 2, 2, 6, 5), mask


def test_grouped_attention_is_a_loop_over_heads_and_queries():
    query, key, value, mask = grouped_case()
    expected = np.empty(query.shape)
    for b, t, n in np.ndindex(2, 3, 4):
        keys = np.flatnonzero(mask[b, t])
        scores = [0.7 * float(query[b, t, n].astype(float) @ key[b, n // 2, :, s].astype(float)) for s in keys]
        expected[b, t, n] = softmax_mix(scores, [value[b, n // 2, s].astype(float) for s in keys])
    np.testing.assert_allclose(grouped_attention(query, [(key, value, mask)], scale=0.7), expected, atol=1e-5)


def test_grouped_attention_joins_parts_as_one_sequence():
    query, key, value, mask = grouped_case()
    mask[0, 0, :4] = False  # a query that sees nothing of the first part
    parts = [(key[..., s], value[:, :, s], mask[:, :, s]) for s in (slice(0, 3), slice(3, 4), slice(4, 6))]
    whole = grouped_attention(query, [(key, value, mask)], scale=0.4)
    np.testing.assert_allclose(grouped_attention(query, parts, scale=0.4), whole, atol=1e-6)


def latent_case():
    """Queries of 2 heads, 6 keys, and a mask in which every query sees some key of either half."""
    mask = np.random.default_rng(4).random((2, 3, 6)) < 0.5
    mask[:, :, 1] = mask[:, :, 4] = True
    return normal(0, 2, 3, 2, 5), normal(1, 2, 3, 2, 4), normal(2, 2, 6, 5), normal(3, 2, 4, 6), mask


def test_latent_attend_is_a_loop_over_heads_and_queries():
    latent_query, rope_query, latent, rope_key, mask = latent_case()
    expected = np.empty((2, 3, 2, 5))
    for b, t, n in np.ndindex(2, 3, 2):
        keys = np.flatnonzero(mask[b, t])
        score = lambda s: float(
            latent_query[b, t, n].astype(float) @ latent[b, s] + rope_query[b, t, n].astype(float) @ rope_key[b, :, s]
        )
        expected[b, t, n] = softmax_mix([0.4 * score(s) for s in keys], [latent[b, s].astype(float) for s in keys])
    result = latent_attend(latent_query, rope_query, [(latent, rope_key, mask)], scale=0.4)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_latent_attend_joins_parts_as_one_sequence():
    latent_query, rope_query, latent, rope_key, mask = latent_case()
    mask[0, 0, :4] = False  # a query that sees nothing of the first part
    parts = [(latent[:, s], rope_key[..., s], mask[:, :, s]) for s in (slice(0, 3), slice(3, 4), slice(4, 6))]
    whole = latent_attend(latent_query, rope_query, [(latent, rope_key, mask)], scale=0.4)
    np.testing.assert_allclose(latent_attend(latent_query, rope_query, parts, scale=0.4), whole, atol=1e-6)


def test_absorbed_attention_equals_naive_attention():
    nope, rope_query, latent, rope_key, mask = normal(5, 2, 3, 2, 4), *latent_case()[1:]
    key_up, value_up = normal(6, 5, 2, 4), normal(7, 5, 2, 3)
    shared = np.broadcast_to(rope_key.swapaxes(1, 2)[:, :, None], (2, 6, 2, 4))
    key = np.concatenate([np.einsum("bsr,rnh->bsnh", latent, key_up), shared], -1)
    value = np.einsum("bsr,rnh->bsnh", latent, value_up)
    naive = attend(np.concatenate([nope, rope_query], -1), key, value, mask, scale=0.3)
    pooled = latent_attend(np.einsum("btnh,rnh->btnr", nope, key_up), rope_query, [(latent, rope_key, mask)], scale=0.3)
    np.testing.assert_allclose(np.einsum("btnr,rnh->btnh", pooled, value_up), naive, atol=2e-5)


# Mixture of experts


def route_by_loop(scores, bias, selected, groups, limited, scaling, *, dropped=-np.inf):
    """DeepSeek-V3, equations 12-16, one token at a time; `dropped` replaces the choice values of dropped groups."""
    indices, weights = [], []
    for token in np.asarray(scores, np.float64):
        choice = token + np.asarray(bias, np.float64)
        members = np.split(np.arange(len(token)), groups)
        strength = [sum(sorted(choice[group])[-2:]) for group in members]
        kept = sorted(range(groups), key=lambda g: -strength[g])[:limited]
        choice = [choice[i] if any(i in members[g] for g in kept) else dropped for i in range(len(token))]
        chosen = sorted(range(len(token)), key=lambda i: -choice[i])[:selected]
        indices.append(chosen)
        weights.append([scaling * token[i] / sum(token[j] for j in chosen) for i in chosen])
    return np.array(indices), np.array(weights)


@functools.lru_cache
def jitted_route(selected, groups, limited, scaling):
    return jax.jit(
        functools.partial(route, num_selected=selected, num_groups=groups, num_limited_groups=limited, scaling=scaling)
    )


@pytest.mark.parametrize("settings", [(2, 1, 1, 1.0), (3, 4, 2, 2.5), (4, 4, 1, 1.0), (2, 4, 4, 1.0)])
def test_route_is_the_papers_loop(settings):
    scores, bias = sigmoid(normal(0, 40, 16)).astype(np.float32), 0.3 * normal(1, 16)
    indices, weights = jitted_route(*settings)(scores, bias)
    expected_indices, expected_weights = route_by_loop(scores, bias, *settings)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), settings[-1], rtol=1e-5)


def test_route_never_leaves_the_kept_groups_when_biased_scores_are_negative():
    settings = (3, 4, 2, 1.0)
    scores, bias = sigmoid(normal(0, 40, 16)).astype(np.float32), 0.3 * normal(1, 16) - 5
    indices, _ = jitted_route(*settings)(scores, bias)
    np.testing.assert_array_equal(indices, route_by_loop(scores, bias, *settings)[0])
    with_zeros, _ = route_by_loop(scores, bias, *settings, dropped=0.0)
    assert not (np.asarray(indices) == with_zeros).all(-1).any()


def test_bias_changes_the_choice_but_not_the_weight_of_a_choice():
    scores = np.array([[0.2, 0.4, 0.6, 0.8]], np.float32)
    choose = jitted_route(2, 1, 1, 1.0)
    indices, weights = choose(scores, np.zeros(4, np.float32))
    assert indices.tolist() == [[3, 2]]
    np.testing.assert_allclose(weights, [[0.8 / 1.4, 0.6 / 1.4]], rtol=1e-6)
    indices, weights = choose(scores, np.array([3, 0, 0, 0.0], np.float32))
    assert indices.tolist() == [[0, 3]]
    np.testing.assert_allclose(weights, [[0.2, 0.8]], rtol=1e-6)


def test_gradient_reaches_the_chosen_scores_and_never_the_bias():
    scores, bias, weight = sigmoid(normal(0, 10, 16)).astype(np.float32), 0.3 * normal(1, 16), normal(2, 10, 3)
    objective = lambda scores, bias: jnp.sum(weight * jitted_route(3, 4, 2, 2.5)(scores, bias)[1])
    score_gradient, bias_gradient = jax.jit(jax.grad(objective, argnums=(0, 1)))(scores, bias)
    np.testing.assert_array_equal(bias_gradient, np.zeros(16))
    indices, _ = route_by_loop(scores, bias, 3, 4, 2, 2.5)
    expected = np.zeros((10, 16))
    for token, chosen in enumerate(indices):
        s, w = scores[token, chosen].astype(float), weight[token].astype(float)
        expected[token, chosen] = 2.5 * (w / s.sum() - (w @ s) / s.sum() ** 2)  # quotient rule
    np.testing.assert_allclose(score_gradient, expected, atol=1e-5)


def expert_case():
    x, gate, up, down = normal(0, 12, 6), normal(1, 5, 6, 4), normal(2, 5, 6, 4), normal(3, 5, 4, 6)
    scores = sigmoid(normal(4, 12, 5)).astype(np.float32)
    scores[:, 3] = 0  # an expert that nobody chooses
    indices, weights = route_by_loop(scores, np.zeros(5), 2, 1, 1, 1.5)
    return x, indices.astype(np.int32), weights.astype(np.float32), gate, up, down


SMALL_BLOCKS = functools.partial(experts_blocks, block=3)


@pytest.mark.parametrize("run_experts", [experts_dense, experts_ragged, experts_blocks, SMALL_BLOCKS])
def test_experts_are_a_loop_over_tokens_and_choices(run_experts):
    x, indices, weights, gate, up, down = expert_case()
    expected = np.zeros((12, 6))
    for token, slot in np.ndindex(indices.shape):
        g, u, d = (w[indices[token, slot]].astype(float) for w in (gate, up, down))
        wide = x[token].astype(float) @ g
        expected[token] += weights[token, slot] * ((wide * sigmoid(wide) * (x[token].astype(float) @ u)) @ d)
    np.testing.assert_allclose(jax.jit(run_experts)(x, indices, weights, gate, up, down), expected, atol=3e-5)


def test_experts_in_every_form_have_the_same_gradients():
    x, indices, *floats = expert_case()

    def gradients(run_experts):
        objective = lambda x, weights, gate, up, down: jnp.sum(
            jnp.sin(run_experts(x, indices, weights, gate, up, down)))  # fmt: skip
        return jax.jit(jax.grad(objective, argnums=tuple(range(5))))(x, *floats)

    for form in (experts_ragged, SMALL_BLOCKS):
        for dense, other in zip(gradients(experts_dense), gradients(form), strict=True):
            np.testing.assert_allclose(dense, other, atol=2e-5 * np.abs(dense).max())


@pytest.mark.parametrize("form", [experts_ragged, SMALL_BLOCKS])
def test_experts_that_are_elsewhere_count_nothing(form):
    """Some of the choices are of experts that are not among those given, as on a mesh."""
    x, indices, weights, gate, up, down = expert_case()
    here = (indices >= 1) & (indices < 3)
    expected = experts_dense(x, indices, np.where(here, weights, 0), gate, up, down)
    ours = form(x, indices - 1, weights, *(w[1:3] for w in (gate, up, down)))
    assert 0 < here.sum() < here.size
    np.testing.assert_allclose(ours, expected, atol=3e-5)


def test_swiglu_is_one_expert():
    x, gate, up, down = normal(0, 7, 6), normal(1, 6, 4), normal(2, 6, 4), normal(3, 4, 6)
    wide = x.astype(float) @ gate
    np.testing.assert_allclose(swiglu(x, gate, up, down), (wide * sigmoid(wide) * (x @ up)) @ down, atol=2e-5)


def test_expert_load_counts_the_tokens_in_the_mask():
    indices, mask = np.array([[0, 1], [1, 3], [1, 2], [3, 0]]), np.array([True, True, False, True])
    np.testing.assert_array_equal(expert_load(indices, 5, mask), [2, 2, 0, 2, 0])
    np.testing.assert_array_equal(expert_load(indices, 5, np.ones(4)), [2, 3, 1, 2, 0])


def test_router_bias_moves_against_the_load_by_its_sign():
    bias, load = np.array([[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]], np.float32), np.array([[9, 1, 4, 2.0], [3, 3, 3, 3]])
    moved = update_router_bias(bias, load, rate=0.25)
    np.testing.assert_array_equal(moved, [[0.25, 0.75, 0.5, 0.75], [0, 0, 0, 0]])


def test_max_violation_is_the_excess_of_the_largest_load():
    loads = np.array([[8.0, 0, 0, 0], [2, 2, 2, 2], [5, 3, 2, 2]], np.float32)
    np.testing.assert_allclose(max_violation(loads), [3.0, 0.0, 2 / 3], rtol=1e-6)


def test_router_bias_balances_a_skewed_router():
    skew = jnp.linspace(-2.0, 2.0, 16)

    def step(bias, key):
        scores = jax.nn.sigmoid(jax.random.normal(key, (4096, 16)) + skew)
        indices, _ = route(scores, bias, num_selected=2, num_groups=4, num_limited_groups=2)
        load = expert_load(indices, 16, jnp.ones(4096))
        return update_router_bias(bias, load, rate=0.01), max_violation(load)

    keys = jax.random.split(jax.random.key(0), 300)
    bias, violation = jax.jit(lambda: jax.lax.scan(step, jnp.zeros(16), keys))()
    assert violation[0] > 2
    assert violation[-50:].mean() < 0.2
    assert bias[0] > bias[-1]


# Masked reductions


def test_masked_reductions_ignore_whatever_is_masked():
    x, mask = np.array([[1.0, 2.0, np.nan], [np.inf, np.nan, np.nan]], np.float32), np.array([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(masked_sum(x, mask, axis=-1), [3, 0])
    np.testing.assert_array_equal(masked_mean(x, mask, axis=-1), [1.5, 0])
    np.testing.assert_array_equal(jax.grad(lambda x: masked_mean(x, mask))(x), [[0.5, 0.5, 0], [0, 0, 0]])


# Log-probabilities


def dense_logprobs(hidden, head, targets, temperature):
    table = jax.nn.log_softmax(hidden @ head / temperature)
    return jnp.take_along_axis(table, targets[..., None], -1)[..., 0], -jnp.sum(jnp.exp(table) * table, -1)


def logprob_case(vocab=23):
    targets = np.random.default_rng(2).integers(0, vocab, (3, 7)).astype(np.int32)
    return normal(0, 3, 7, 5), normal(1, 5, vocab), targets


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk_size", [1, 4, 4096])
def test_token_logprobs_and_entropy_by_loop(temperature, chunk_size):
    hidden, head, targets = logprob_case()
    logprobs, entropy = token_logprobs(hidden, head, targets, temperature=temperature, chunk_size=chunk_size)
    assert logprobs.dtype == entropy.dtype == jnp.float32
    for b, t in np.ndindex(3, 7):
        logits = hidden[b, t].astype(np.float64) @ head.astype(np.float64) / temperature
        probabilities = np.exp(logits) / np.exp(logits).sum()
        assert logprobs[b, t] == pytest.approx(np.log(probabilities[targets[b, t]]), abs=3e-6)
        assert entropy[b, t] == pytest.approx(-sum(p * np.log(p) for p in probabilities), abs=3e-6)


@pytest.mark.parametrize("chunk_size", [4, 21])
def test_token_logprobs_gradients_are_those_of_log_softmax(chunk_size):
    hidden, head, targets = logprob_case()
    weights = normal(3, 3, 7), normal(4, 3, 7)

    def gradients(function):
        objective = lambda hidden, head: sum(jnp.sum(w * x) for w, x in zip(weights, function(hidden, head)))
        return jax.jit(jax.grad(objective, argnums=(0, 1)))(hidden, head)

    chunked = gradients(lambda h, w: token_logprobs(h, w, targets, temperature=0.6, chunk_size=chunk_size))
    dense = gradients(lambda h, w: dense_logprobs(h, w, targets, 0.6))
    for a, b in zip(chunked, dense, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=1e-5)


def intermediate_shapes(jaxpr):
    """Shapes of all results of all equations, those of sub-programs included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars if hasattr(variable.aval, "shape"))
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from intermediate_shapes(inner)


def largest_vocabulary_array(function, vocab, *arguments) -> int:
    """Elements of the largest intermediate that has a vocabulary axis, alone or folded into another axis."""
    shapes = intermediate_shapes(jax.make_jaxpr(function)(*arguments).jaxpr)
    return max(int(np.prod(shape)) for shape in shapes if any(size and size % vocab == 0 for size in shape))


def test_token_logprobs_gradient_never_holds_all_logits():
    hidden, head, targets = logprob_case(vocab := 101)
    gradient = lambda function: jax.grad(lambda h, w: sum(x.sum() for x in function(h, w)), argnums=(0, 1))
    chunked = gradient(lambda h, w: token_logprobs(h, w, targets, chunk_size=8))
    dense = gradient(lambda h, w: dense_logprobs(h, w, targets, 1.0))
    assert largest_vocabulary_array(dense, vocab, hidden, head) == targets.size * vocab
    assert largest_vocabulary_array(chunked, vocab, hidden, head) == 6 * vocab  # 2 times of all 3 rows


def test_grpo_gradient_of_a_model_never_holds_all_logits():
    vocab, (batch, slots, length) = 10007, (18, 4, 256)
    model = miniature(vocab)
    params, bias = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, init_params(model, jax.random.key(0))))
    params = jax.tree.map(lambda x: x.value, params, is_leaf=lambda x: hasattr(x, "names"))
    shape = lambda *dims, dtype=jnp.float32: jax.ShapeDtypeStruct(dims, dtype)
    integers = functools.partial(shape, dtype=jnp.int32)
    rows = Rows(integers(batch, slots), integers(batch), integers(batch, length), shape(batch, length, dtype=bool))
    rows = GrpoRows(rows, shape(batch, length), shape(batch, length), shape(batch))
    scalars = {name: shape() for name in ("temperature", "clip_epsilon", "kl_coef")}
    sums = gradient_sums(functools.partial(grpo_batch_loss, model))
    head = model.embed_dim * vocab  # the largest there is: parameters, and their slopes
    assert largest_vocabulary_array(sums, vocab, params, bias, rows, scalars) <= head < batch * length * vocab
