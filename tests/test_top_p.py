"""Nucleus sampling against a loop in numpy, and its frequencies and log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_generation import CONFIG, EOS, PROMPT_LENGTHS, PROMPTS, sample, weights

from r1jax.config import UserError
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.generation.sampling import nucleus, sample_tokens
from r1jax.sharding import MeshConfig, make_mesh


def nucleus_by_loop(probabilities, top_p):
    """The ids that stay, by going down from the likeliest; ties of the last one stay."""
    kept, total, last = set(), 0.0, None
    for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if total >= top_p and probabilities[token] != last:
            break
        kept.add(token)
        total, last = total + float(probabilities[token]), probabilities[token]
    return kept


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.95, 0.999])
def test_nucleus_is_that_of_a_loop(top_p):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 40)) * rng.uniform(0.1, 5, (200, 1))
    probabilities = np.asarray(jax.nn.softmax(logits.astype(np.float32), axis=-1))
    kept = np.asarray(nucleus(probabilities, top_p))
    for row, mask in zip(probabilities, kept, strict=True):
        assert set(np.flatnonzero(mask)) == nucleus_by_loop(row, top_p)
        assert row[mask].sum() >= top_p - 1e-6 and mask[row.argmax()]


def test_ties_stay_whatever_their_order():
    probabilities = np.array([[0.2, 0.2, 0.4, 0.2], [0.2, 0.4, 0.2, 0.2]], np.float32)
    assert np.asarray(nucleus(probabilities, 0.5)).all()
    assert np.asarray(nucleus(probabilities, 0.4)).tolist() == (probabilities == np.float32(0.4)).tolist()
    assert np.asarray(nucleus(np.full((1, 8), 0.125, np.float32), 0.01)).all()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.8), (0.6, 0.95)])
def test_frequencies_and_logprobs_are_those_of_the_renormalised_nucleus(temperature, top_p):
    count, logits = 20_000, np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5], np.float32)
    draw = jax.jit(lambda k: sample_tokens(k, jnp.tile(logits, (count, 1)), temperature=temperature, top_p=top_p))
    tokens, logprobs = map(np.asarray, draw(jax.random.split(jax.random.key(3), count)))
    whole = np.exp(logits.astype(np.float64) / temperature)
    whole /= whole.sum()
    kept = sorted(nucleus_by_loop(whole, top_p))
    probabilities = np.zeros(7)
    probabilities[kept] = whole[kept] / whole[kept].sum()
    observed, expected = np.bincount(tokens, minlength=7), count * probabilities
    assert 2 <= len(kept) < 7 and set(np.flatnonzero(observed)) == set(kept)
    statistic = ((observed[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    assert statistic < {2: 10.83, 3: 13.82, 4: 16.27, 5: 18.47}[len(kept)]  # chi-square, p = 0.001
    np.testing.assert_allclose(logprobs, np.log(probabilities[tokens]), atol=1e-5)


def test_rows_do_not_know_each_other():
    row_keys = jax.random.split(jax.random.key(3), 6)
    logits = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    options = {"temperature": 1.0, "top_p": 0.7}
    tokens, logprobs = sample_tokens(row_keys, logits, **options)
    for row in range(6):
        alone = sample_tokens(row_keys[row : row + 1], logits[row : row + 1], **options)
        assert (int(alone[0][0]), float(alone[1][0])) == (int(tokens[row]), float(logprobs[row]))


def test_rollouts_draw_from_the_nucleus():
    """A tiny nucleus is greedy, with probability one; the sampler's configuration reaches the rollout."""
    greedy = sample(top_p=1e-6)
    assert (greedy.tokens == greedy.tokens[:, :1]).all() and (greedy.sampler_logprobs[greedy.mask] == 0).all()
    config = SamplingConfig(prompts=3, group_size=3, prompt_slots=5, max_new_tokens=12, top_p=1e-6)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        sampler = make_sampler(CONFIG, config, mesh, eos_ids=(EOS,))
        out = sampler(weights(), PROMPTS.astype(np.int32), PROMPT_LENGTHS, jax.random.key(7))
    np.testing.assert_array_equal(out.tokens, greedy.tokens)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1])
def test_impossible_values_are_refused(top_p):
    with pytest.raises(UserError, match="top-p must be above 0 and at most 1"):
        SamplingConfig(prompts=1, top_p=top_p).check(make_mesh(MeshConfig()))
