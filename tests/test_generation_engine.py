"""Continuous batching: what a completion is does not depend on how it is scheduled, cut, or laid over devices."""

import dataclasses
import functools
import itertools
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK_COMPILE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import CONFIG, DENSE, EOS, GROUP, LENGTH, PROMPT_LENGTHS, PROMPTS, SLOTS, keys, rollout, weights

from r1jax.config import UserError
from r1jax.generation import rollout as rollout_module
from r1jax.generation.decode import advance
from r1jax.generation.relayout import make_relayout
from r1jax.generation.rollout import decode, generate, partial_rollout, unfinished
from r1jax.generation.sampling import sample_tokens
from r1jax.models.cache import Entries, cache_bytes_per_token, decode_entries, encode_entries
from r1jax.models.transformer import forward, output_head
from r1jax.policy import freeze
from r1jax.sharding import mesh_of_one
from r1jax.train import TrainState

PLANS = {
    "four slots, prompts in chunks, two widths": dict(slots=4, prefill_rows=2, prefill_chunk=2, widths=2),
    "two slots, halved": dict(slots=2, halvings=1, prefill_rows=1, prefill_chunk=64),
}
PARTIAL = dict(slots=4, prefill_rows=2, prefill_chunk=4, record_routing=True)


def run(order=None, function=generate, **options):
    order = np.arange(3) if order is None else np.asarray(order)
    options = dict(group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,)) | options
    prompts = PROMPTS[order].astype(np.int32)
    out = function(CONFIG, *weights(), prompts, PROMPT_LENGTHS[order], keys()[order], **options)
    return jax.tree.map(np.asarray, out) if function is generate else out


def assert_same(ours, theirs):
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-5)


@jax.jit
def whole_forward(params, bias, tokens, length):
    positions = jnp.where(jnp.arange(len(tokens)) < length, jnp.arange(len(tokens)), -1)
    hidden, _, _ = forward(CONFIG, params, bias, tokens[None], positions[None])
    return hidden[0, length - 1] @ output_head(CONFIG, params)


def next_logits(tokens):
    """Logits [V] after these tokens, by the whole forward."""
    padded = np.pad(np.array(tokens, np.int32), (0, SLOTS + LENGTH - len(tokens)))
    return np.asarray(whole_forward(*weights(), padded, len(tokens)))


def sample_by_loop(prompt, key, sample, stop=()):
    """One completion, one token at a time: tokens, log-probabilities, and whether it ended by itself."""
    tokens, logprobs, key = list(prompt), [], jax.random.fold_in(key, sample)
    for step in range(LENGTH):
        logits = next_logits(tokens)
        token = int(sample_tokens(jax.random.fold_in(key, step)[None], logits[None])[0][0])
        logprobs.append(float(logits[token] - np.log(np.exp(logits.astype(np.float64)).sum())))
        tokens.append(token)
        drawn = tokens[len(prompt) :]
        if token == EOS or any(drawn[-len(s) :] == list(s) for s in stop if len(drawn) >= len(s)):
            return drawn, logprobs, True
    return tokens[len(prompt) :], logprobs, False


@pytest.mark.parametrize("stop", [(), ((4, 3), (10,), (6, 6, 6))])
def test_completions_are_those_of_a_loop_without_a_cache(stop):
    """Requests one by one, each token from the whole forward; stop sequences compared as lists."""
    out = run(stop=stop, **PLANS["four slots, prompts in chunks, two widths"])
    endings = set()
    for p, g in np.ndindex(3, GROUP):
        prompt = PROMPTS[p, SLOTS - PROMPT_LENGTHS[p] :]
        tokens, logprobs, ended = sample_by_loop(prompt, keys()[p], g, stop)
        assert out.tokens[p, g][out.mask[p, g]].tolist() == tokens
        np.testing.assert_allclose(out.sampler_logprobs[p, g][out.mask[p, g]], logprobs, atol=1e-5)
        assert out.finished[p, g] == ended
        endings.add(tokens[-1] if ended else None)
    assert len(endings) > (2 if stop else 1), "the completions should end in different ways"


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(PLANS)), st.permutations(range(3)), st.integers(1, 2 * LENGTH))
def test_scheduling_changes_no_token(plan, order, steps):
    """Slots, refills, halvings, chunks of prefill, widths of the cache, order of the prompts, steps of a dispatch."""
    out, whole = run(order, steps=steps, **PLANS[plan]), rollout()
    assert_same(out, jax.tree.map(lambda x: x[list(order)], whole))


@functools.lru_cache
def recorded():
    return run(record_routing=True, slots=4, prefill_rows=2)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_partial_rollouts_add_up_to_the_whole(budgets):
    """Cut after any numbers of steps and gone on with, nothing is lost and nothing changes, the experts included."""
    out, steps = run(**PARTIAL, budget=budgets[0]), budgets[0]
    for budget in itertools.cycle([*budgets[1:], 7]):
        kept = out.mask.copy(), out.tokens.copy(), out.sampler_logprobs.copy()
        if not unfinished(out).any():
            break
        out = run(**PARTIAL, budget=budget, resume=out)
        steps += budget
        assert out.mask[kept[0]].all()
        np.testing.assert_array_equal(out.tokens[kept[0]], kept[1][kept[0]])
        np.testing.assert_array_equal(out.sampler_logprobs[kept[0]], kept[2][kept[0]])
    assert_same(out, rollout())
    np.testing.assert_array_equal(out.prompt_experts, recorded().prompt_experts)
    np.testing.assert_array_equal(out.experts, recorded().experts)


def test_a_rollout_reports_progress_and_can_be_interrupted():
    seen, before = [], None
    for progress in run(function=decode, steps=5, **PARTIAL):
        seen.append((progress.steps, progress.live, progress.waiting))
        if len(seen) == 2:
            before = jax.tree.map(np.asarray, partial_rollout(progress))
            break
    assert [steps for steps, *_ in seen] == [5, 10] and 0 < seen[0][1] <= 4
    assert seen[0][2] >= seen[1][2] and unfinished(before).any()
    lengths = before.mask.sum(-1)
    np.testing.assert_array_equal(before.tokens, np.where(before.mask, rollout().tokens, 0))
    assert lengths.sum() <= 4 * 10 and (lengths == 0).sum() >= seen[1][2]
    assert_same(run(resume=before, **PARTIAL), rollout())


def test_a_resumed_completion_is_continued_by_the_parameters_of_now():
    """What was sampled stays, with its log-probabilities; what follows is sampled by the new parameters alone."""
    (progress,) = run(function=decode, budget=4, **PARTIAL)
    part = jax.tree.map(np.asarray, partial_rollout(progress))
    params, bias = weights()
    changed = params | {"head": np.roll(params["head"], 1, axis=1)}
    arguments = PROMPTS.astype(np.int32), PROMPT_LENGTHS, keys()
    options = dict(group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,))
    out = generate(CONFIG, changed, bias, *arguments, resume=part, **options, **PARTIAL)
    out = jax.tree.map(np.asarray, out)
    np.testing.assert_array_equal(out.sampler_logprobs[part.mask], part.sampler_logprobs[part.mask])
    for p, g in np.ndindex(3, GROUP):
        known = part.mask[p, g].sum()
        if part.finished[p, g] or known == 0:
            continue
        prefix = np.concatenate([PROMPTS[p, SLOTS - PROMPT_LENGTHS[p] :], part.tokens[p, g, :known]])
        logits = np.roll(next_logits(prefix), 1)
        expected = logits[out.tokens[p, g, known]] - np.log(np.exp(logits.astype(np.float64)).sum())
        np.testing.assert_allclose(out.sampler_logprobs[p, g, known], expected, atol=1e-5)


def test_nothing_recompiles():
    """Other lengths, budgets and orders run the programs that the first call compiled."""
    plan = PLANS["two slots, halved"]
    run(**plan)
    programs = advance, rollout_module.start, rollout_module.shrink, rollout_module._to_rollout
    before = [program._cache_size() for program in programs]
    for order, lengths, steps in (([2, 0, 1], [1, 1, 1], 3), ([0, 1, 2], [5, 4, 2], 100)):
        out = generate(
            CONFIG, *weights(), PROMPTS[order].astype(np.int32), np.array(lengths, np.int32), keys(),
            group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), steps=steps, temperature=0.9, **plan,
        )  # fmt: skip
        assert out.mask.any(-1).all()
    assert [program._cache_size() for program in programs] == before


@pytest.mark.parametrize("unrolled", [True, False])
def test_the_decoding_loop_never_copies_its_cache(unrolled, monkeypatch):
    """In the compiled program only the entry computation, which runs once a dispatch, may copy an array of its size."""
    config = dataclasses.replace(DENSE, unroll_layers=unrolled)
    compiled = []

    def spy(*arguments, **scalars):
        compiled.append(advance.lower(*arguments, **scalars).compile().as_text())
        return advance(*arguments, **scalars)

    monkeypatch.setattr(rollout_module, "advance", spy)
    generate(
        config, *weights(DENSE), PROMPTS.astype(np.int32), PROMPT_LENGTHS, keys(),
        group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), slots=4,
    )  # fmt: skip
    heads, width, channels = config.num_kv_heads, SLOTS + LENGTH, config.head_dim
    shape = rf"f32\[\d+,4,{heads},({width},{channels}|{channels},{width})\]"
    cache = re.compile(rf"{shape}\S* copy\(")
    computations = compiled[0].split("\n\n")
    assert any(re.search(shape, text) and "scatter" in text for text in computations)
    copying = [text for text in computations if cache.search(text) and not text.lstrip().startswith("ENTRY")]
    assert not copying, copying[0][:2000]


@pytest.mark.parametrize(("cache_dtype", "bytes_of_one"), [("bfloat16", 2), ("int8", 1), ("float8_e4m3", 1)])
def test_rounding_of_the_cache_is_bounded_and_its_bytes_are_counted(cache_dtype, bytes_of_one):
    rng = np.random.default_rng(0)
    entries = Entries(*(rng.normal(size=(2, 3, 2, *size)).astype(np.float32) * 10 for size in ((6, 5), (5, 8))))
    entries.key[0, 0, 0, :, 0] = 0.0
    kept = encode_entries(Entries(*map(jnp.asarray, entries)), cache_dtype)
    for exact, read, channels in zip(entries, decode_entries(kept, jnp.float32), (-2, -1), strict=True):
        peak, error = np.abs(exact).max(channels, keepdims=True), np.abs(np.asarray(read) - exact)
        bound = {
            "bfloat16": np.abs(exact) * 2.0**-8,  # 8 bits of significand
            "int8": peak / 254,  # half of a step, of which the peak is 127
            # 4 bits of significand; below 2^-6 of the scale, half of the smallest subnormal number
            "float8_e4m3": np.maximum(np.abs(exact) * 2.0**-4, peak / 448 * 2.0**-10),
        }[cache_dtype]
        assert (error <= bound * (1 + 1e-5)).all() and error.max() > 0
    scales = 0 if cache_dtype == "bfloat16" else 2 * 4 * DENSE.num_kv_heads
    assert cache_bytes_per_token(DENSE) == 4 * DENSE.cache_elements_per_token
    expected = bytes_of_one * DENSE.cache_elements_per_token + scales * DENSE.num_layers
    assert cache_bytes_per_token(DENSE, cache_dtype) == expected


@pytest.mark.parametrize("cache_dtype", ["int8", "float8_e4m3"])
def test_rollouts_from_a_cache_of_eight_bits(cache_dtype):
    """The first token, for which nothing is read back, is the same; the rest is sampled under close distributions."""
    out, exact = run(cache_dtype=cache_dtype), rollout()
    np.testing.assert_array_equal(out.tokens[..., 0], exact.tokens[..., 0])
    same = np.cumprod(out.tokens == exact.tokens, axis=-1).astype(bool) & out.mask
    gaps = np.abs(out.sampler_logprobs - exact.sampler_logprobs)[same]
    assert same.sum() > 20 and 1e-6 < gaps.max() < {"int8": 0.05, "float8_e4m3": 0.5}[cache_dtype]


def test_what_cannot_be_done_is_refused():
    with pytest.raises(UserError, match="stop holds an empty sequence"):
        run(stop=((3,), ()))
    with pytest.raises(UserError, match=r"resume holds tokens .* \(3, 3, 12\), and \(3, 3, 13\) are asked for"):
        run(resume=rollout(), max_new_tokens=13)
    with pytest.raises(UserError, match="resume holds no experts"):
        run(resume=rollout(), record_routing=True)


def test_a_relaid_policy_is_what_the_model_would_have_cast():
    """In bfloat16, where casting what must stay float32, router and norm scales, would show."""
    model, tokens = dataclasses.replace(CONFIG, dtype="bfloat16"), np.arange(8)[None] % 5
    policy = weights(CONFIG)
    relaid = make_relayout(model, mesh_of_one(jax.devices()[0]))(*policy)
    kept = {
        path[-1].key for path, x in jax.tree_util.tree_leaves_with_path(relaid[0]) if x.dtype == np.dtype("float32")
    }
    assert kept == {"router", "scale"}
    run_model = jax.jit(lambda policy: forward(model, *policy, tokens, tokens)[0])
    np.testing.assert_array_equal(run_model(policy), run_model(relaid))
    reference = freeze(model, TrainState(jax.numpy.zeros((), int), *policy, ()))
    jax.tree.map(np.testing.assert_array_equal, reference, relaid)


ON_A_MESH = """
import sys
from dataclasses import replace
from functools import partial
import jax, numpy as np
from test_generation import CONFIG, EOS, PROMPTS, PROMPT_LENGTHS, weights
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, make_mesh, mesh_of_one, tree_shardings

model = replace(CONFIG, vocab_size=12)
prompts, lengths = np.tile(PROMPTS, (3, 1))[:8].astype(np.int32), np.tile(PROMPT_LENGTHS, 3)[:8]
config = SamplingConfig(
    prompts=8, group_size=2, prompt_slots=5, max_new_tokens=8,
    slots=8, halvings=len(sys.argv) - 1, prefill_rows=4, prefill_chunk=4, record_routing=True,
)
on_the_mesh = replace(config, relayout=len(sys.argv) == 1, mesh=MeshConfig(data=2, fsdp=2, tensor=2))

def sampled(config, mesh, policy):
    # Of two calls, if asked to: one that is cut short, and one that goes on.
    config.check(mesh)
    with jax.set_mesh(mesh):
        sample = make_sampler(model, config, mesh, eos_ids=(EOS,))
        call = lambda **more: jax.tree.map(np.asarray, sample(policy, prompts, lengths, jax.random.key(7), **more))
        if len(sys.argv) == 1:
            return [call()]
        part = call(budget=9)
        return [part, call(resume=part)]

alone = sampled(config, mesh_of_one(jax.devices()[0]), weights(model))
mesh = make_mesh(MeshConfig(fsdp=4, tensor=2) if on_the_mesh.relayout else on_the_mesh.mesh)
boxed = jax.eval_shape(partial(init_params, model), jax.random.key(0))
policy = jax.device_put(weights(model), tree_shardings(boxed, mesh))
assert policy[0]["head"].addressable_shards[0].data.size * 2 * mesh.shape["fsdp"] == policy[0]["head"].size
for ours, theirs in zip(sampled(on_the_mesh, mesh, policy), alone):
    for name in ("tokens", "mask", "finished", "experts", "prompt_experts"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_allclose(ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-5)
print("same")
"""


@pytest.mark.parametrize("more", [[], pytest.param(["halved, cut and resumed"], marks=pytest.mark.slow)])
def test_a_mesh_changes_nothing(environment, more):
    """Rows over four devices, heads and vocabulary over two: prefill, refills, halving and going on as on one; from
    weights that lie there, or are brought there from the trainer's mesh."""
    flags = f"{QUICK_COMPILE} --xla_force_host_platform_device_count=8"
    path = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, *more], env=environment | {"XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("same")
