"""Dynamic sampling: which groups are kept, what fills the batch, and that a step can be repeated."""

import dataclasses
import functools
import re
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.dynamic_sampling import Batch, draw_informative, outcome_differs
from r1jax.evaluation import Response
from r1jax.generation.rollout import Rollout
from r1jax.models.transformer import init_params
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import judge_inline
from r1jax.rl import GrpoRows, Rows, grpo_batch_loss, routed_logprobs
from r1jax.rl_loop import Asked
from r1jax.rl_stage import RlStageConfig, ask_training
from r1jax.sharding import MeshConfig, make_mesh

RIGHT, WRONG, LOST = Judgement("correct", 1.0), Judgement("wrong", 0.0), Judgement("timeout", 0.0)


def group(*accuracies, tokens=3):
    return [Response("", tokens, True, {"accuracy": a, "format": RIGHT}) for a in accuracies]


def test_groups_are_kept_by_raw_accuracy_compared_exactly():
    almost = RIGHT._replace(score=1.0 - 2**-20)
    longer = [response._replace(tokens=tokens) for tokens, response in enumerate(group(RIGHT, RIGHT, RIGHT), 1)]
    groups = [group(RIGHT, WRONG, WRONG), group(RIGHT, RIGHT, RIGHT), group(WRONG, WRONG, WRONG), longer]
    groups += [
        group(RIGHT, almost, RIGHT),
        group(WRONG, LOST, WRONG),
        group(LOST, LOST, LOST),
        group(RIGHT, LOST, WRONG),
    ]
    assert outcome_differs(groups).tolist() == [True, False, False, False, True, False, False, True]


def batches_of(kinds):
    """draw(extra) over batches of groups that are informative or not; every problem knows where it comes from."""
    drawn = []

    def draw(extra):
        drawn.append(extra)
        names = [f"{extra}.{place}" for place in range(len(kinds[extra]))]
        numbers = np.arange(len(names)) + 100 * extra
        one = lambda *shape: np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (len(names), *shape))
        rollout = Rollout(one(2, 4), one(2, 4) >= 0, one(2, 4) * -0.5, one(2) >= 0)
        groups = [group(RIGHT, WRONG if kind else RIGHT) for kind in kinds[extra]]
        return Batch([{"id": n} for n in names], names, one(5), numbers, rollout), groups

    return draw, drawn


@given(
    st.integers(1, 4).flatmap(
        lambda p: st.lists(st.lists(st.booleans(), min_size=p, max_size=p), min_size=1, max_size=5)
    )
)
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_and_what_is_kept(kinds):
    """By a loop over everything that could be drawn, in order."""
    draw, drawn = batches_of(kinds)
    batch, groups, informative, metrics = draw_informative(draw, len(kinds) - 1)
    wanted, kept, others, used = len(kinds[0]), [], [], 0
    for extra, kinds_of_batch in enumerate(kinds):
        if len(kept) >= wanted:
            break
        used += 1
        for place, kind in enumerate(kinds_of_batch):
            (kept if kind else others).append(f"{extra}.{place}")
    assert drawn == list(range(used))
    assert list(batch.texts) == (kept[:wanted] + others)[:wanted] == [record["id"] for record in batch.records]
    assert informative.tolist() == [name in kept for name in batch.texts]
    numbers = [100 * int(name.split(".")[0]) + int(name.split(".")[1]) for name in batch.texts]
    assert batch.lengths.tolist() == numbers == batch.rollout.tokens[:, 1, 2].tolist() == batch.prompts[:, 0].tolist()
    assert batch.rollout.experts is None and batch.rollout.tokens.shape == (wanted, 2, 4)
    assert [outcome_differs([g])[0] for g in groups] == informative.tolist()
    total = used * wanted
    share_right = np.mean([0.5 if kind else 1.0 for kinds_of_batch in kinds[:used] for kind in kinds_of_batch])
    assert metrics == {
        "extra_batches": used - 1, "drawn_groups": total, "dropped_share": pytest.approx(len(others) / total),
        "filled_share": pytest.approx(max(0, wanted - len(kept)) / wanted), "drawn_accuracy": pytest.approx(share_right),
    }  # fmt: skip


def test_extra_problems_are_other_ones_and_follow_from_the_step():
    asked = []

    def ask(step, split, count, rng):
        asked.append((step, split, count, rng.integers(0, 2**40)))
        return Asked([], [])

    config = RlStageConfig(tiny_policy.CONFIG, "unused", seed=3)
    for step, extra in ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (1, 1)):
        ask_training(config, ask, step, extra)
    assert [call[:3] for call in asked] == [(s, "train", 2) for s in (1, 1, 1, 2, 2, 1)]
    draws = [call[3] for call in asked]
    assert draws[5] == draws[1] and len(set(draws)) == 5
    assert draws[0] == np.random.default_rng((3, 1)).integers(0, 2**40), "the first batch is what it always was"


# In the loop


def by_format(step, asked, groups, rng):
    """A reward that differs within every group, whatever the accuracy."""
    rewards = np.tile(np.arange(len(groups[0]), dtype=np.float32), (len(groups), 1))
    return GroupRewards(rewards, np.ones(rewards.shape, bool), {})


def verdict(record, text):
    """Decided by the record alone: groups are all right, unless the problem says that their lengths decide."""
    return RIGHT if record.get("easy") or len(text) % 2 else WRONG


traced, submitted = [], []


def spying_loss(model, params, router_bias, batch, scalars, *, logprobs_of):
    traced.append((sorted(scalars), batch.sampler_logprobs is not None))
    return grpo_batch_loss(model, params, router_bias, batch, scalars, logprobs_of=logprobs_of)


def spying_submit(records, texts):
    submitted.append(list(texts))
    return judge_inline({"accuracy": verdict, "format": tiny_policy.kept}, records, texts)


@pytest.fixture(scope="module")
def loop():
    """A compiled iteration with dynamic sampling; returns (fresh state, iteration)."""
    mesh = make_mesh(MeshConfig())
    sampling = dataclasses.replace(tiny_policy.CONFIG.sampling, record_routing=True)
    config = dataclasses.replace(
        tiny_policy.CONFIG, sampling=sampling, max_extra_batches=2, kl_coef=0.0, clip_epsilon_high=0.28,
        importance_cap=2.0,
    )  # fmt: skip
    options = {"submit": spying_submit, "reward": by_format, "loss": spying_loss}
    with jax.set_mesh(mesh):
        state, iteration = tiny_policy.start(tiny_policy.tiny_policy(), mesh, config, **options)
        yield jax.tree.map(np.asarray, state), iteration


def copied(state):
    """The policy, as a reference that outlives the state."""
    return jax.tree.map(jax.numpy.copy, (state.params, state.router_bias))


def asked(step, extra, *, easy):
    problems = tiny_policy.ask(step, extra)
    return problems._replace(records=[record | {"easy": easy, "extra": extra} for record in problems.records])


def run(loop, easy):
    """One iteration in which the batches of these numbers are easy; metrics, experience, parameters, numbers drawn."""
    state, iteration = loop
    state, drawn = jax.tree.map(jax.numpy.array, state), []

    def more(extra):
        drawn.append(extra)
        return asked(1, extra, easy=extra in easy)

    state, metrics, experience = iteration(state, copied(state), 1, asked(1, 0, easy=0 in easy), more)
    return metrics, experience, jax.tree.map(np.asarray, state.params), drawn


def test_where_all_are_dropped_the_batch_is_full_and_teaches_nothing(loop):
    """Though the shaped reward differs within every group."""
    metrics, experience, params, drawn = run(loop, {0, 1, 2})
    assert drawn == [1, 2] and metrics["extra_batches"] == 2 and metrics["filled_share"] == 1
    assert metrics["grad_norm"] == 0 and metrics["zero_variance_groups"] == 1
    assert [record["extra"] for record in experience.asked.records] == [0, 0], "the first that were drawn"
    jax.tree.map(np.testing.assert_array_equal, params, loop[0].params)


def test_extra_batches_take_the_place_of_dropped_groups(loop):
    metrics, experience, params, drawn = run(loop, {0})
    assert drawn[0] == 1 and metrics["grad_norm"] > 0
    kept = [record["extra"] for record in experience.asked.records]
    fresh = asked(1, kept[0], easy=False)
    assert kept[0] > 0 and experience.asked.prompts[0] in fresh.prompts
    differs = outcome_differs(experience.groups)
    assert differs[0] and metrics["filled_share"] == np.mean(~differs)
    assert metrics["routing_difference"] < 0.1 and metrics["sampler_mismatch_max"] < 1e-4
    again = run(loop, {0})
    jax.tree.map(np.testing.assert_array_equal, again[2], params)
    assert again[1] == experience and again[3] == drawn


def test_extra_batches_have_noise_of_their_own(loop):
    """The same problems, asked again, get other completions."""
    state, iteration = loop
    problems = asked(1, 0, easy=True)
    submitted.clear()
    state = jax.tree.map(jax.numpy.array, state)
    iteration(state, copied(state), 1, problems, lambda extra: problems)
    assert len(submitted) == 3 and len({tuple(texts) for texts in submitted}) == 3


def test_options_of_the_objective_reach_the_loss_and_nothing_recompiles(loop):
    run(loop, {0, 1})
    before = len(traced)
    run(loop, {0, 1, 2})
    assert 0 < before == len(traced), "traced again"
    names = ["clip_epsilon", "clip_epsilon_high", "importance_cap", "kl_coef", "temperature"]
    assert all(seen == (names, True) for seen in traced)


def test_the_loss_on_the_page_is_one():
    """It takes what the loop gives it, replayed experts included, and returns sums of the right shapes."""
    page = (Path(__file__).parent.parent / "docs" / "rl_core.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(block, names)
    model = tiny_policy.tiny_policy().model
    params, bias = nn.meta.unbox(jax.eval_shape(functools.partial(init_params, model), jax.random.key(0)))
    array = lambda *shape, dtype=np.float32: jax.ShapeDtypeStruct(shape, dtype)
    whole = functools.partial(array, dtype=np.int32)
    experts = array(4, 20, model.num_moe_layers, model.num_experts_per_token, dtype=np.int16)
    rows = Rows(whole(4, 12), whole(4), whole(4, 8), array(4, 8, dtype=bool), replay=experts)
    batch = GrpoRows(rows, array(4, 8), array(4, 8), array(4), array(4, 8))
    output = jax.eval_shape(
        functools.partial(names["gspo"], model, logprobs_of=routed_logprobs), params, bias, batch, {"temperature": 1.0}
    )
    assert output.loss_sum.shape == output.count.shape == () and output.load.shape == bias.shape
