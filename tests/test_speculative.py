"""Speculative decoding: the distribution is the model's own, whatever the module proposes, and nothing else changes."""

import dataclasses
import functools
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_policy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from r1jax.config import UserError
from r1jax.generation import rollout as rollout_module
from r1jax.generation import speculative
from r1jax.generation.rollout import generate, unfinished
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.generation.sampling import draw
from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.policy import freeze
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.verdict import judge_inline
from r1jax.rl import Rows, routed_logprobs
from r1jax.sharding import mesh_of_one

EOS, SLOTS, LENGTH, GROUP, VOCABULARY = 2, 5, 12, 8, 6
CONFIG = dataclasses.replace(
    miniature(VOCABULARY), embed_dim=16, mlp_dim=16, num_heads=2, num_layers=2, q_lora_rank=8, num_mtp_layers=1
)
PROMPT_LENGTHS = np.array([1, 5, 3], np.int32)
PROMPTS = np.array([[0, 0, 0, 0, 3], [4, 5, 0, 1, 3], [0, 0, 5, 1, 4]], np.int32)
CHUNKED = dict(slots=4, prefill_rows=2, prefill_chunk=2, widths=2)
HALVED = dict(slots=2, halvings=1, prefill_rows=1)
LEVEL = 1e-3
"""Of the chi-square tests: a right sampler fails with this probability, were the seed not fixed."""


@functools.lru_cache
def weights():
    params, bias = nn.meta.unbox(jax.eval_shape(functools.partial(init_params, CONFIG), jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), (params, bias))


def keys(count=3):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(7)))(jnp.arange(count))


def run(order=(0, 1, 2), lengths=PROMPT_LENGTHS, **options):
    order = np.array(order)
    settings = dict(
        group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), stop=((4, 3),), speculative=True, **CHUNKED
    )
    out = generate(CONFIG, *weights(), PROMPTS[order], lengths[order], keys()[order], **(settings | options))
    return jax.tree.map(np.asarray, out)


@functools.lru_cache
def sampled():
    return run()


def assert_same(ours, theirs):
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-5)


def test_greedy_decoding_is_the_plain_engine_s_token_by_token():
    plain, ours = run(temperature=0, speculative=False), run(temperature=0)
    assert_same(ours, plain)
    assert plain.drafts is plain.accepted is None
    assert 0 < ours.accepted.sum() < ours.drafts.sum(), "drafts should meet both fates"


def test_completions_end_where_they_should_and_drafts_are_counted():
    """Also where an accepted draft is the end: then what was to follow it is dropped."""
    out = sampled()
    lengths, by_draft = out.mask.sum(-1), 1 + out.drafts + out.accepted - out.mask.sum(-1)
    # The first token needs no draft; a step gives its draft, if accepted, and one more, if that was not the end.
    assert set(by_draft.flat) == {0, 1} and (out.accepted <= out.drafts).all()
    assert out.finished.any() and not out.finished.all() and not unfinished(out).any()
    for place in np.ndindex(lengths.shape):
        tokens = out.tokens[place][: lengths[place]].tolist()
        ends = [i for i, token in enumerate(tokens) if token == EOS or tokens[max(i - 1, 0) : i + 1] == [4, 3]]
        assert ends == ([len(tokens) - 1] if out.finished[place] else [])
        assert out.finished[place] or len(tokens) == LENGTH
        assert not out.tokens[place][lengths[place] :].any() and not out.sampler_logprobs[place][lengths[place] :].any()


def test_sampler_and_trainer_agree_on_the_log_probabilities():
    out = sampled()
    flat = lambda x: x.reshape(-1, LENGTH)
    repeated = np.repeat(PROMPTS, GROUP, 0), np.repeat(PROMPT_LENGTHS, GROUP)
    rows = Rows(*repeated, flat(out.tokens), flat(out.mask))
    logprobs, _, _ = jax.jit(functools.partial(routed_logprobs, CONFIG))(*weights(), rows)
    np.testing.assert_allclose(np.asarray(logprobs)[rows.mask], flat(out.sampler_logprobs)[rows.mask], atol=1e-5)


def test_slots_neighbours_and_order_change_nothing():
    assert_same(run([2, 0, 1], **(CHUNKED | HALVED | dict(prefill_chunk=64, widths=1))), pick(sampled(), [2, 0, 1]))
    assert_same(run([1, 1, 1]), pick(sampled(), [1, 1, 1]))


def pick(out, order):
    return jax.tree.map(lambda x: x[order], out)


def test_nothing_recompiles():
    sampled()
    programs = speculative.advance, rollout_module.start, rollout_module._to_rollout
    before = [program._cache_size() for program in programs]
    out = run([1, 2, 0], lengths=np.array([5, 2, 1], np.int32), steps=3, temperature=0.9)
    assert out.mask.any(-1).all()
    assert [program._cache_size() for program in programs] == before


def test_the_decoding_loop_never_copies_its_caches(monkeypatch):
    """Neither the model's nor the module's; the entry computation runs once a dispatch and may."""
    compiled, advance = [], speculative.advance

    def spy(*arguments, **scalars):
        if not compiled:
            compiled.append(advance.lower(*arguments, **scalars).compile().as_text())
        return advance(*arguments, **scalars)

    monkeypatch.setattr(speculative, "advance", spy)
    run()
    (key, value), width = CONFIG.cache_widths, SLOTS + LENGTH
    cache = rf"f32\[1,4,1,({key},{width}|{width},{value})\]"
    computations = compiled[0].split("\n\n")
    assert any(re.search(cache, text) and "scatter" in text for text in computations)
    copying = [
        text for text in computations
        if re.search(rf"{cache}\S* copy\(", text) and not text.lstrip().startswith("ENTRY")
    ]  # fmt: skip
    assert not copying, copying[0][:2000]


# The distribution.


def always(uniform, draft, target, proposal):
    return jnp.ones(len(draft), bool), target


def never_subtracting(uniform, draft, target, proposal):
    return speculative.accept_draft(uniform, draft, target, proposal)[0], target


def fits(counts, expected) -> float:
    """The chi-square test's p-value; cells that expect fewer than 5 are taken together."""
    assert not counts[expected == 0].any()
    small = expected < 5
    merge = lambda x: np.append(x[~small], x[small].sum()) if expected[small].sum() >= 5 else x[~small]
    counts, expected = merge(counts), merge(expected)
    return chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize(
    ("rule", "right"), [(speculative.accept_draft, True), (always, False), (never_subtracting, False)]
)
def test_a_draft_or_its_replacement_has_the_distribution_of_the_model(rule, right):
    """For one p and q; the two rules that are wrong show that the test would notice."""
    rng, count = np.random.default_rng(1), 20_000
    target, proposal = rng.dirichlet(np.full(8, 0.7), 2).astype(np.float32)
    spread = lambda x: jnp.tile(x, (count, 1))
    first, second = jax.random.split(jax.random.key(3), (2, count))
    draft = draw(first, spread(proposal))
    accepted, left = rule(jax.random.uniform(jax.random.key(4), (count,)), draft, spread(target), spread(proposal))
    tokens = np.where(accepted, draft, draw(second, left))
    pvalue = fits(np.bincount(tokens, minlength=8), count * target.astype(np.float64))
    assert pvalue > LEVEL if right else pvalue < 1e-9


def exact_distribution(prompt, temperature, min_p):
    """Probability of every completion of three tokens, [V, V, V], by the whole forward without a cache."""
    completions = np.array(list(itertools.product(range(VOCABULARY), repeat=3)), np.int32)
    tokens = np.concatenate([np.tile(prompt, (len(completions), 1)), completions], axis=1)
    positions = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
    params, bias = weights()
    hidden = jax.jit(functools.partial(forward, CONFIG))(params, bias, tokens, positions)[0]
    logits = np.asarray(hidden[:, -4:-1] @ output_head(CONFIG, params), np.float64) / temperature
    each = np.exp(logits - logits.max(-1, keepdims=True))
    each = np.where(each >= min_p, each, 0.0)
    each /= each.sum(-1, keepdims=True)
    return np.take_along_axis(each, completions[..., None], axis=-1)[..., 0].prod(-1)


@pytest.mark.parametrize(("rule", "right"), [(speculative.accept_draft, True), (always, False)])
def test_completions_have_the_distribution_of_the_model(rule, right, monkeypatch):
    """All three-token completions of a prompt, after temperature and a filter, against their exact probabilities."""
    if not right:
        monkeypatch.setattr(speculative, "accept_draft", rule)
        advance = speculative.advance.__wrapped__
        anew = lambda *arguments, **scalars: advance(*arguments, **scalars)  # another function, so that it is traced
        monkeypatch.setattr(speculative, "advance", jax.jit(anew, static_argnums=(0, 1)))
    count = 16_384
    out = generate(
        CONFIG, *weights(), PROMPTS[1:2], PROMPT_LENGTHS[1:2], keys()[1:2], group_size=count, max_new_tokens=3,
        eos_ids=(), temperature=0.8, min_p=0.05, prefill_rows=count, speculative=True,
    )  # fmt: skip
    tokens = np.asarray(out.tokens)[0]
    cells = tokens @ np.array([VOCABULARY**2, VOCABULARY, 1])
    expected = count * exact_distribution(PROMPTS[1], 0.8, 0.05)
    counts = np.bincount(cells, minlength=VOCABULARY**3)
    if right:
        assert 0.1 < out.accepted.sum() / out.drafts.sum() < 0.9
        assert fits(counts, expected) > LEVEL
    else:
        kept = expected > 0
        assert counts[~kept].any() or fits(counts, expected) < 1e-9


def by_loop(uniform, draft, target, proposal):
    """Algorithm 1 of arXiv 2211.17192 for one draft: whether it stays, and the distribution p' of what replaces it."""
    accepted, replaced = [], []
    for r, x, p, q in zip(uniform, draft, target, proposal, strict=True):
        accepted.append(not r > p[x] / q[x])
        left = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
        replaced.append([a / sum(left) for a in left] if sum(left) else list(p))
    return np.array(accepted), np.array(replaced)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 5.0]))
def test_the_rule_is_algorithm_1(seed, concentration):
    rng = np.random.default_rng(seed)
    target, proposal = rng.dirichlet(np.full(5, concentration), (2, 16)).astype(np.float32)
    target[0] = proposal[0]  # nothing to subtract
    draft = np.array([rng.choice(5, p=q.astype(np.float64) / q.astype(np.float64).sum()) for q in proposal])
    uniform = rng.uniform(size=16).astype(np.float32)
    accepted, left = map(np.asarray, speculative.accept_draft(uniform, draft, target, proposal))
    expected, replaced = by_loop(uniform, draft, target.astype(np.float64), proposal.astype(np.float64))
    np.testing.assert_array_equal(accepted, expected)
    np.testing.assert_allclose(left / left.sum(-1, keepdims=True), replaced, rtol=1e-5)


def test_what_cannot_be_done_is_refused():
    plain = dataclasses.replace(CONFIG, num_mtp_layers=0)
    with pytest.raises(UserError, match="num_mtp_layers 0.*--mtp-weight"):
        make_sampler(plain, SamplingConfig(speculative=True), mesh_of_one(jax.devices()[0]), eos_ids=(EOS,))
    with pytest.raises(UserError, match="does not record the routing"):
        run(record_routing=True)
    with pytest.raises(UserError, match="cannot go on with a partial rollout"):
        run(resume=sampled())


@pytest.mark.slow
def test_grpo_trains_on_speculative_rollouts_and_logs_the_acceptance():
    submit = functools.partial(judge_inline, {"accuracy": tiny_policy.kept, "format": tiny_policy.kept})
    sampling = dataclasses.replace(tiny_policy.CONFIG.sampling, speculative=True)
    lengths = lambda step, asked, groups, rng: GroupRewards(
        np.array([[response.tokens for response in group] for group in groups], np.float32), np.ones((2, 4), bool), {}
    )
    mesh = mesh_of_one(jax.devices()[0])
    with jax.set_mesh(mesh):
        policy = tiny_policy.tiny_policy(num_mtp_layers=1)
        config = dataclasses.replace(tiny_policy.CONFIG, sampling=sampling)
        state, iteration = tiny_policy.start(policy, mesh, config, submit=submit, reward=lengths)
        _, metrics, _ = iteration(state, freeze(policy.model, state), 1, tiny_policy.ask(1))
    assert 0 <= metrics["draft_acceptance"] < 1 and metrics["sampler_mismatch_max"] < 1e-4
