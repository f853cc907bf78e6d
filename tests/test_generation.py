"""Rollouts: sampler and trainer compute one policy, and a completion depends on nothing but its prompt and key."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.generation.prefill import prompt_positions
from r1jax.generation.rollout import decode, generate, partial_rollout, unfinished
from r1jax.generation.sampling import sample_tokens
from r1jax.models.presets import miniature, student
from r1jax.models.transformer import forward_with_routing, init_params
from r1jax.rl import Rows, routed_logprobs

EOS, SLOTS, LENGTH, GROUP = 2, 5, 12, 3
CONFIG = dataclasses.replace(miniature(11), embed_dim=16, mlp_dim=16, num_heads=2, num_layers=2, q_lora_rank=8)
DENSE = dataclasses.replace(
    student(11), embed_dim=16, mlp_dim=16, num_layers=2, num_dense_layers=2, tied_embeddings=True
)
PROMPT_LENGTHS = np.array([1, 5, 3], np.int32)
PROMPTS = np.where(
    np.arange(SLOTS) < SLOTS - PROMPT_LENGTHS[:, None], 0, [[3, 4, 5, 6, 7], [8, 9, 10, 3, 4], [5, 5, 6, 7, 8]]
)


@functools.lru_cache
def weights(config=CONFIG):
    params, bias = nn.meta.unbox(jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32)
    return jax.tree.map(draw, params), draw(bias)


def keys(count=3):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(7)))(jnp.arange(count))


def sample(rows=slice(None), params=None, **settings):
    settings = dict(group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), temperature=1.0) | settings
    params, bias = params or weights()[0], weights()[1]
    out = generate(CONFIG, params, bias, PROMPTS[rows].astype(np.int32), PROMPT_LENGTHS[rows], keys()[rows], **settings)
    return jax.tree.map(np.asarray, out)


@functools.lru_cache
def rollout(temperature=1.0):
    return sample(temperature=temperature)


def rigged_head(logit):
    """Parameters under which every next-token distribution is uniform but for one end-of-sequence logit."""
    params = jax.tree.map(np.zeros_like, weights()[0])
    params["embedding"] += 1.0
    params["final_norm"]["scale"] += 1.0
    params["head"][:, EOS] = logit / CONFIG.embed_dim
    return params


trainer = jax.jit(functools.partial(routed_logprobs, CONFIG))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampler_and_trainer_agree_on_the_log_probabilities(temperature):
    out = rollout(temperature)
    flat = lambda x: x.reshape(-1, x.shape[-1])
    rows = Rows(
        np.repeat(PROMPTS, GROUP, 0).astype(np.int32),
        np.repeat(PROMPT_LENGTHS, GROUP),
        flat(out.tokens),
        flat(out.mask),
    )
    logprobs, _, routing = trainer(*weights(), rows, temperature=temperature)
    mask = flat(out.mask)
    np.testing.assert_allclose(np.asarray(logprobs)[mask], flat(out.sampler_logprobs)[mask], atol=1e-5)
    tokens = rows.prompt_lengths.sum() + mask.sum() - len(mask)  # nothing is predicted from a last token
    np.testing.assert_array_equal(routing.load.sum(-1), tokens * CONFIG.num_experts_per_token)
    other, _, _ = trainer(*weights(), rows, temperature=0.8)
    assert np.abs(np.asarray(other) - logprobs)[mask].max() > 0.05


def test_sampler_and_trainer_agree_on_a_dense_student():
    params, bias = weights(DENSE)
    out = generate(
        DENSE, params, bias, PROMPTS.astype(np.int32), PROMPT_LENGTHS, keys(),
        group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), halvings=1,
    )  # fmt: skip
    flat = lambda x: np.asarray(x).reshape(-1, LENGTH)
    mask = flat(out.mask)
    rows = Rows(np.repeat(PROMPTS, GROUP, 0).astype(np.int32), np.repeat(PROMPT_LENGTHS, GROUP), flat(out.tokens), mask)
    logprobs, _, routing = jax.jit(functools.partial(routed_logprobs, DENSE))(params, bias, rows)
    np.testing.assert_allclose(np.asarray(logprobs)[mask], flat(out.sampler_logprobs)[mask], atol=1e-5)
    assert routing.load.shape == bias.shape == (0, 0)


def test_recorded_experts_are_those_of_the_whole_sequence_without_a_cache():
    """Of every token that was fed: not the padding, not the last token of a completion."""
    params, bias = weights()
    out = sample(record_routing=True)
    plain = rollout()
    np.testing.assert_array_equal(out.tokens, plain.tokens)
    assert plain.experts is None and plain.prompt_experts is None
    routed = jax.jit(functools.partial(forward_with_routing, CONFIG))
    layers, chosen = CONFIG.num_moe_layers, CONFIG.num_experts_per_token
    assert out.prompt_experts.shape == (3, SLOTS, layers, chosen) and out.prompt_experts.dtype == np.int16
    assert out.experts.shape == (3, GROUP, LENGTH, layers, chosen) and out.experts.dtype == np.int16
    for p, g in np.ndindex(3, GROUP):
        fed = out.mask[p, g].sum() - 1
        tokens = np.concatenate([PROMPTS[p], out.tokens[p, g]])[None].astype(np.int32)
        positions = np.maximum(np.arange(SLOTS + LENGTH) - (SLOTS - PROMPT_LENGTHS[p]), -1)[None]
        expected = np.moveaxis(np.asarray(routed(params, bias, tokens, positions)[2].experts)[:layers, 0], 0, 1)
        start = SLOTS - PROMPT_LENGTHS[p]
        np.testing.assert_array_equal(out.prompt_experts[p, start:], expected[start:SLOTS])
        np.testing.assert_array_equal(out.experts[p, g, :fed], expected[SLOTS : SLOTS + fed])
        assert (out.prompt_experts[p, :start] == -1).all() and (out.experts[p, g, fed:] == -1).all()


def test_a_completion_holds_end_of_sequence_at_its_end_and_nothing_after():
    out = rollout()
    assert 0 < out.finished.sum() < out.finished.size
    for place in np.ndindex(out.finished.shape):
        tokens, mask = out.tokens[place], out.mask[place]
        length = mask.sum()
        assert mask[:length].all()
        assert (tokens[: length - 1] != EOS).all()
        assert (tokens[length - 1] == EOS) == out.finished[place]
        assert out.finished[place] or length == LENGTH
        assert (tokens[length:] == 0).all() and (out.sampler_logprobs[place][length:] == 0).all()


@pytest.mark.parametrize("row", [0, 1])
def test_a_completion_does_not_depend_on_its_batch(row):
    alone, batch = sample(slice(row, row + 1)), rollout()
    np.testing.assert_array_equal(alone.tokens[0], batch.tokens[row])
    np.testing.assert_array_equal(alone.mask[0], batch.mask[row])
    np.testing.assert_allclose(alone.sampler_logprobs[0], batch.sampler_logprobs[row], atol=1e-5)


def test_a_completion_depends_neither_on_the_size_of_its_group_nor_on_the_padding():
    params, bias = weights()
    wide = np.pad(PROMPTS, ((0, 0), (3, 0)), constant_values=9).astype(np.int32)
    out = generate(
        CONFIG, params, bias, wide, PROMPT_LENGTHS, keys(),
        group_size=GROUP + 1, max_new_tokens=LENGTH, eos_ids=(EOS,), temperature=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal(out.tokens[:, :GROUP], rollout().tokens)


def test_a_completion_ends_at_the_first_of_several_end_tokens():
    out = rollout()
    other = int(out.tokens[0, 0, 0])
    ended = sample(eos_ids=(EOS, other))
    for place in np.ndindex(out.finished.shape):
        whole = out.tokens[place][out.mask[place]]
        ends = np.flatnonzero((whole == EOS) | (whole == other))
        assert ended.tokens[place][ended.mask[place]].tolist() == whole[: ends[0] + 1 if len(ends) else None].tolist()
        assert ended.finished[place] == bool(len(ends))
    assert ended.mask.sum() < out.mask.sum()


def test_halving_the_batch_changes_nothing():
    halved, whole = sample(halvings=2), rollout()
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(halved, name), getattr(whole, name))
    np.testing.assert_allclose(halved.sampler_logprobs, whole.sampler_logprobs, atol=1e-5)


def test_samples_of_a_group_and_prompts_of_a_batch_differ():
    out = rollout()
    for group in out.tokens:
        assert len({tuple(tokens) for tokens in group}) == GROUP
    params, bias = weights()
    same = np.repeat(PROMPTS[1:2], 3, 0).astype(np.int32)
    again = generate(
        CONFIG, params, bias, same, np.full(3, 5, np.int32), keys(),
        group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), temperature=1.0,
    )  # fmt: skip
    assert len({tokens.tobytes() for tokens in np.asarray(again.tokens)}) == 3


def test_a_low_temperature_is_greedy():
    out = sample(temperature=1e-4)
    assert (out.tokens == out.tokens[:, :1]).all()
    assert out.sampler_logprobs.max() <= 0 and out.sampler_logprobs.min() > -1e-2


def test_decoding_stops_when_every_row_has_ended():
    """One step where all end at once, and no step after the longest completion."""
    run = functools.partial(
        decode, CONFIG, prompts=PROMPTS.astype(np.int32), prompt_lengths=PROMPT_LENGTHS, prompt_keys=keys(),
        router_bias=weights()[1], group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,),
    )  # fmt: skip
    (progress,) = run(params=rigged_head(50.0))
    ended = partial_rollout(progress)
    assert ended.finished.all() and (ended.mask.sum(-1) == 1).all() and (ended.tokens[..., 0] == EOS).all()
    assert (progress.steps, progress.live, progress.waiting) == (1, 0, 0)
    (progress,) = run(params=rigged_head(-50.0))
    cut = partial_rollout(progress)
    assert not cut.finished.any() and cut.mask.all() and (cut.tokens != EOS).all() and not unfinished(cut).any()
    assert progress.steps == LENGTH
    np.testing.assert_allclose(cut.sampler_logprobs, -np.log(10), atol=1e-5)


def test_prompt_positions_count_from_the_first_token():
    assert prompt_positions(np.array([1, 3]), 3).tolist() == [[-1, -1, 0], [0, 1, 2]]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_frequencies_follow_the_softmax(temperature):
    count, logits = 20_000, np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5], np.float32)
    draw = jax.jit(lambda keys: sample_tokens(keys, jnp.tile(logits, (count, 1)), temperature=temperature))
    tokens, logprobs = map(np.asarray, draw(jax.random.split(jax.random.key(3), count)))
    probabilities = np.exp(logits.astype(np.float64) / temperature)
    probabilities /= probabilities.sum()
    observed, expected = np.bincount(tokens, minlength=7), count * probabilities
    assert ((observed - expected) ** 2 / expected).sum() < 22.46  # chi-square, 6 degrees of freedom, p = 0.001
    np.testing.assert_allclose(logprobs, np.log(probabilities)[tokens], atol=1e-5)


def test_a_draw_does_not_depend_on_the_other_rows():
    row_keys, logits = (
        jax.random.split(jax.random.key(3), 6),
        np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32),
    )
    tokens, _ = sample_tokens(row_keys, logits, temperature=1.0)
    reversed_tokens, _ = sample_tokens(row_keys[::-1], logits[::-1], temperature=1.0)
    np.testing.assert_array_equal(tokens, reversed_tokens[::-1])
