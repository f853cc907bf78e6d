"""Filters against transformers, and draws by inversion against a loop in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.generation.sampling import draw, nucleus, sample_tokens

ROWS, VOCAB = 64, 301  # three blocks, the last one padded


def logits_of(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(ROWS, VOCAB)) * rng.uniform(0.2, 6, (ROWS, 1))).astype(np.float32)


def keys_of(count, seed=3):
    return jax.random.split(jax.random.key(seed), count)


def filtered(logits, temperature, top_k, top_p, min_p):
    """Log-probabilities that transformers samples from."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    scores = torch.tensor(logits)
    steps = [transformers.TemperatureLogitsWarper(temperature)]
    steps += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    steps += [transformers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    steps += [transformers.MinPLogitsWarper(min_p)] if min_p else []
    for step in steps:
        scores = step(None, scores)
    return torch.log_softmax(scores.double(), -1).numpy()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0), (0.7, 5, 1.0, 0.0), (1.3, 0, 0.9, 0.0), (1.0, 0, 1.0, 0.1), (0.8, 50, 0.7, 0.0),
        (1.2, 40, 0.95, 0.02), (1.0, 1, 1.0, 0.0), (1.0, 1000, 0.3, 0.5),
    ],
)  # fmt: skip
def test_filters_compose_as_in_transformers(temperature, top_k, top_p, min_p):
    logits = logits_of()
    expected = filtered(logits, temperature, min(top_k, VOCAB), top_p, min_p)
    seen = np.zeros((ROWS, VOCAB), bool)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    for seed in range(8):
        tokens, logprobs = map(np.asarray, sample_tokens(keys_of(ROWS, seed), logits, **options))
        places = np.arange(ROWS), tokens
        assert np.isfinite(expected[places]).all(), "a token that transformers would not draw"
        np.testing.assert_allclose(logprobs, expected[places], atol=2e-5)
        seen[places] = True
    kept = np.isfinite(expected).sum(-1)
    assert (seen.sum(-1) <= kept).all() and (seen.sum(-1) > 1).any() == (kept > 1).any()


def test_greedy_takes_the_first_of_the_likeliest():
    logits = logits_of()
    logits[:, 200] = logits[:, 100] = 50.0
    tokens, logprobs = sample_tokens(keys_of(ROWS), logits, temperature=0)
    assert (np.asarray(tokens) == 100).all() and (np.asarray(logprobs) == 0).all()


def invert(uniform, weights):
    """The first index whose cumulative weight exceeds the share `uniform` of the whole."""
    target, total = uniform * weights.sum(), 0.0
    for index, weight in enumerate(weights):
        total += weight
        if weight > 0 and total > target:
            return index
    raise AssertionError


def test_a_draw_is_that_of_a_loop():
    weights = np.exp(logits_of().astype(np.float64)) * (np.random.default_rng(1).random((ROWS, VOCAB)) < 0.5)
    for seed in range(4):
        uniforms = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_of(ROWS, seed)), np.float64)
        drawn = np.asarray(draw(keys_of(ROWS, seed), jnp.asarray(weights, jnp.float32)))
        for row, uniform, token in zip(weights, uniforms, drawn, strict=True):
            blocks = np.split(row, [128, 256])
            block = invert(uniform[0], np.array([part.sum() for part in blocks]))
            assert token == 128 * block + invert(uniform[1], blocks[block])


def test_only_what_has_weight_is_drawn():
    """Also where it is tiny, alone in its block, first, or last."""
    for place in (0, 127, 128, 255, 300):
        weights = np.zeros((ROWS, VOCAB), np.float32)
        weights[:, place] = 1e-30
        assert (np.asarray(draw(keys_of(ROWS), weights)) == place).all()
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((4096, VOCAB)) < 0.02, rng.random((4096, VOCAB)) ** 8, 0.0).astype(np.float32)
    weights[:, 7] += 1e-6
    drawn = np.asarray(draw(keys_of(4096), weights))
    assert (weights[np.arange(4096), drawn] > 0).all()


def test_frequencies_over_blocks_are_those_of_the_weights():
    """Chi-square over 301 tokens in three blocks, those that expect fewer than ten draws taken together."""
    count, logits = 60_000, np.random.default_rng(5).normal(size=VOCAB).astype(np.float32) * 1.5
    sampled = jax.jit(lambda keys: sample_tokens(keys, jnp.tile(logits, (count, 1))))(keys_of(count))
    probabilities = np.exp(logits.astype(np.float64))
    expected = count * probabilities / probabilities.sum()
    observed = np.bincount(np.asarray(sampled[0]), minlength=VOCAB)
    rare = expected < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    degrees = len(expected) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert abs(statistic - degrees) < 3.3 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("top_p", [1e-3, 0.5, 0.99])
def test_the_nucleus_by_bisection_is_that_by_sorting(top_p):
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits_of(2)), axis=-1))
    descending = np.sort(probabilities, axis=-1)[:, ::-1]
    before = np.pad(np.cumsum(descending.astype(np.float64), axis=-1)[:, :-1], ((0, 0), (1, 0)))
    smallest = np.where(before < top_p, descending, np.inf).min(-1, keepdims=True)
    np.testing.assert_array_equal(nucleus(probabilities, top_p), probabilities >= smallest)
