"""The sampler's experts in the trainer: equal log-probabilities where routers are undecided, and what it costs not to."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_policy
from test_models import compile_fast, tiny, weights

from r1jax.config import UserError
from r1jax.generation.rollout import generate
from r1jax.mismatch import compare
from r1jax.models.moe import MoE
from r1jax.models.transformer import forward_with_routing
from r1jax.ops.moe import route
from r1jax.policy import freeze
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import judge_inline
from r1jax.rl import (
    count_routing_differences,
    cut_to_length,
    experts_of,
    make_score,
    routed_logprobs,
    rows_of,
)
from r1jax.rl_loop import make_grpo_iteration
from r1jax.sharding import MeshConfig, make_mesh

CONFIG = tiny(num_layers=3, num_dense_layers=1)
SLOTS, LENGTH, GROUP, EOS = 6, 12, 4, 3


@functools.lru_cache
def undecided():
    """Parameters whose router weights differ in the last bits alone: rounding chooses the experts."""
    params, bias = weights(CONFIG)
    rng = np.random.default_rng(2)
    router = params["moe_layers"]["moe"]["router"]
    column = router[..., :1] * (1 + 1e-7 * rng.normal(size=router.shape))
    moe = params["moe_layers"]["moe"] | {"router": column.astype(np.float32)}
    return params | {"moe_layers": params["moe_layers"] | {"moe": moe}}, np.zeros_like(bias)


@functools.lru_cache
def sampled(dtype: str):
    """Rows of a rollout, the experts its sampler took, and its log-probabilities."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    rng = np.random.default_rng(0)
    lengths = np.array([6, 3, 5, 4], np.int32)
    prompts = np.where(np.arange(SLOTS) >= SLOTS - lengths[:, None], rng.integers(4, 29, (4, SLOTS)), 0)
    prompts = prompts.astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 4)
    out = generate(
        config, *undecided(), prompts, lengths, keys,
        group_size=GROUP, max_new_tokens=LENGTH, eos_ids=(EOS,), record_routing=True,
    )  # fmt: skip
    out = jax.tree.map(np.asarray, out)
    rows = rows_of(prompts, lengths, out)
    return rows, experts_of(out), out.sampler_logprobs.reshape(rows.mask.shape)


@functools.lru_cache
def trained(dtype: str, *, replay: bool):
    """The trainer's log-probabilities of the same rows, and how many routing decisions differ, of how many."""
    rows, experts, _ = sampled(dtype)
    score = make_score(dataclasses.replace(CONFIG, dtype=dtype), rows_at_a_time=8, lengths=(LENGTH,))
    logprobs, counts = score(*undecided(), rows._replace(replay=experts if replay else None, recorded=experts), 1.0)
    return np.asarray(logprobs), np.asarray(counts)


def test_with_replay_they_agree_at_router_ties():
    """float32, absorbed latent attention against expanded: the same experts, the same log-probabilities."""
    rows, _, sampler = sampled("float32")
    logprobs, _ = trained("float32", replay=True)
    np.testing.assert_allclose(logprobs[rows.mask], sampler[rows.mask], rtol=1e-5, atol=1e-5)
    chosen_alone, _ = trained("float32", replay=False)
    assert np.abs(chosen_alone - sampler)[rows.mask].max() > 1e-3, "routers were not undecided: nothing was shown"


def test_in_bfloat16_the_mismatch_falls():
    rows, _, sampler = sampled("bfloat16")
    kl = {replay: compare(sampler, trained("bfloat16", replay=replay)[0], rows.mask) for replay in (False, True)}
    assert kl[True]["mismatch_kl"] < 0.2 * kl[False]["mismatch_kl"]
    assert kl[True]["mismatch_correlation"] > kl[False]["mismatch_correlation"]


routed = compile_fast(functools.partial(forward_with_routing, CONFIG))


@pytest.mark.parametrize("replay", [False, True])
def test_differences_are_those_of_a_loop(replay):
    """Against the experts that a pass of its own tells, replayed or not; the trainer's own choice in both."""
    rows, experts, _ = sampled("float32")
    tokens = np.concatenate([rows.prompts, rows.tokens], 1)[:, :-1]
    positions = np.maximum(np.arange(tokens.shape[1]) - (SLOTS - rows.prompt_lengths[:, None]), -1)
    positions[:, SLOTS:] = np.where(rows.mask[:, :-1], positions[:, SLOTS:], -1)
    given = np.moveaxis(experts[:, :-1], 2, 0).astype(np.int32) if replay else None
    routing = routed(*undecided(), tokens, positions, replay=given)[2]
    differing, known = np.zeros(len(tokens)), np.zeros(len(tokens))
    for layer, row, place in np.ndindex(CONFIG.num_moe_layers, *tokens.shape):
        recorded = experts[row, place, layer]
        if recorded[0] >= 0:
            known[row] += 1
            differing[row] += set(recorded.tolist()) != set(np.asarray(routing.experts)[layer, row, place].tolist())
    fed = rows.prompt_lengths + rows.mask.sum(1) - 1
    np.testing.assert_array_equal(known, CONFIG.num_moe_layers * fed)
    counts = count_routing_differences(routing.experts, jnp.asarray(experts[:, :-1]))
    np.testing.assert_array_equal(counts, np.stack([differing, known], 1))
    np.testing.assert_array_equal(trained("float32", replay=replay)[1][:, 1], known)
    assert 0 < differing.sum() < known.sum()


def test_the_order_of_experts_is_no_difference():
    recorded = np.array([[[[1, 4]], [[2, 3]], [[-1, -1]]]], np.int16)
    chosen = np.array([[[[4, 1], [2, 5], [0, 7]]]], np.int32)
    np.testing.assert_array_equal(count_routing_differences(jnp.asarray(chosen), jnp.asarray(recorded)), [[1.0, 2.0]])


def test_cut_rows_keep_the_experts_of_their_tokens():
    rows, experts, _ = sampled("float32")
    cut = cut_to_length(rows._replace(replay=experts, recorded=experts), 5)
    np.testing.assert_array_equal(cut.replay, experts[:, : SLOTS + 5])
    np.testing.assert_array_equal(cut.recorded, cut.replay)


def test_weights_and_gradient_are_the_trainers_own():
    """w_e = 2.5 s_e / sum of s over the recorded experts, and its derivative, by numpy."""
    rng = np.random.default_rng(0)
    scores, replay = (
        rng.uniform(0.1, 0.9, (5, 6)).astype(np.float32),
        np.array([[0, 5], [3, 1], [2, 4], [-1, -1], [5, 2]]),
    )
    settings = {"num_selected": 2, "scaling": 2.5, "replay": jnp.asarray(replay, jnp.int32)}
    indices, given = route(jnp.asarray(scores), jnp.zeros(6), **settings)
    target = rng.normal(size=(5, 2)).astype(np.float32)
    objective = lambda s: jnp.sum(route(s, jnp.zeros(6), **settings)[1] * target)
    gradient = np.asarray(jax.grad(objective)(jnp.asarray(scores)))
    expected = np.zeros((5, 6))
    for row in range(5):
        chosen = replay[row] if replay[row, 0] >= 0 else np.argsort(-scores[row])[:2]
        np.testing.assert_array_equal(indices[row], chosen)
        total = scores[row, chosen].sum()
        np.testing.assert_allclose(given[row], 2.5 * scores[row, chosen] / total, rtol=1e-6)
        for place, expert in enumerate(chosen):
            expected[row, expert] = 2.5 / total * (target[row, place] - target[row] @ scores[row, chosen] / total)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_replaying_ones_own_choice_changes_nothing():
    rows, _, _ = sampled("float32")
    run = compile_fast(functools.partial(routed_logprobs, CONFIG))
    full = rows._replace(prompt_lengths=np.full(len(rows.tokens), SLOTS, np.int32), mask=np.ones_like(rows.mask))
    tokens = np.concatenate([full.prompts, full.tokens], 1)[:, :-1]
    positions = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
    own = np.moveaxis(np.asarray(routed(*undecided(), tokens, positions)[2].experts), 0, 2).astype(np.int16)
    own = np.pad(own, ((0, 0), (0, 1), (0, 0), (0, 0)), constant_values=-1)  # the last token is never fed
    plain, replayed = run(*undecided(), full), run(*undecided(), full._replace(replay=own))
    np.testing.assert_allclose(replayed[0], plain[0], atol=2e-6)
    np.testing.assert_array_equal(replayed[2].load, plain[2].load)


def test_the_router_is_float32_in_a_bfloat16_model():
    """Router weights that bfloat16 cannot tell apart still decide: the choice is that of float64."""
    config, rng = tiny(dtype="bfloat16", num_expert_groups=1, num_limited_groups=1), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 40, config.embed_dim)), jnp.bfloat16)
    apply = lambda params: MoE(config).apply({"params": params}, x, jnp.zeros(8), jnp.ones((2, 40), jnp.int32))
    init = lambda key: MoE(config).init(key, x, jnp.zeros(8), jnp.ones((2, 40), jnp.int32))["params"]
    params = dict(nn.meta.unbox(compile_fast(init)(jax.random.key(0))))
    assert params["router"].dtype == jnp.float32
    near = rng.normal(size=(config.embed_dim, 1)) * (1 + 1e-3 * rng.normal(size=(config.embed_dim, 8)))
    params["router"] = jnp.asarray(near, jnp.float32)
    _, routing = compile_fast(apply)(params)
    choice = lambda logits: np.sort(np.argsort(-np.asarray(logits, np.float64), -1)[..., :2], -1)
    exact = choice(np.asarray(x, np.float64) @ np.asarray(params["router"], np.float64))
    np.testing.assert_array_equal(np.sort(routing.experts, -1), exact)
    assert (choice(x @ params["router"].astype(jnp.bfloat16)) != exact).mean() > 0.1, "bfloat16 would do as well"


# In the loop

SUBMIT = functools.partial(
    judge_inline, {"accuracy": lambda record, text: Judgement("wrong", 0.0), "format": tiny_policy.kept}
)


def by_length(step, asked, groups, rng):
    rewards = np.array([[response.tokens for response in group] for group in groups], np.float32)
    return GroupRewards(rewards, np.ones(rewards.shape, bool), {})


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


@pytest.mark.slow
def test_the_loop_replays_and_counts(mesh):
    config = dataclasses.replace(tiny_policy.CONFIG, replay_routing=True, balance_weight=1e-3, mismatch_alarm=1e-12)
    with jax.set_mesh(mesh):
        policy = tiny_policy.tiny_policy(dtype="bfloat16")
        state, iteration = tiny_policy.start(policy, mesh, config, submit=SUBMIT, reward=by_length)
        _, metrics, experience = iteration(state, freeze(policy.model, state), 1, tiny_policy.ask(1))
    assert 0 <= metrics["routing_difference"] < 0.5 and metrics["balance_loss"] > 0 and metrics["grad_norm"] > 0
    assert 0 < metrics["mismatch_kl"] < 1e-2 and metrics["mismatch_correlation"] > 0.99
    gaps = [abs(token["old_logprob"] - token["sampler_logprob"]) for token in experience.worst_tokens]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] == pytest.approx(metrics["sampler_mismatch_max"])


def test_settings_for_experts_need_experts(mesh):
    none = dict.fromkeys(("num_experts", "num_experts_per_token", "num_shared_experts", "expert_mlp_dim"), 0)
    dense = tiny_policy.tiny_policy(num_dense_layers=2, num_expert_groups=1, num_limited_groups=1, **none)
    for change in ({"replay_routing": True}, {"balance_weight": 1e-4}, {"router_bias_rate": 1e-3}):
        config = dataclasses.replace(tiny_policy.CONFIG, **change)
        with pytest.raises(UserError, match="has no experts"):
            make_grpo_iteration(dense, None, None, mesh, config, seed=0, submit=SUBMIT, reward=by_length)


@pytest.mark.parametrize(
    "change", [{"max_extra_batches": -1}, {"importance_cap": 0.0}, {"mismatch_alarm": 0.0}, {"balance_weight": -1.0}]
)
def test_impossible_settings_are_refused(mesh, change):
    with pytest.raises(UserError, match=next(iter(change)).replace("_", "-")):
        dataclasses.replace(tiny_policy.CONFIG, **change).check(mesh)
