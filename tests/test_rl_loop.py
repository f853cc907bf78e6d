"""One iteration of GRPO as a whole: compilation, micro-batches, outages of a judge, many devices."""

import dataclasses
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK_COMPILE, SMALL

from r1jax.checkpoint import open_checkpoints, save
from r1jax.config import UserError
from r1jax.data.prompts import r1_zero_prompt
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.metrics import read_json_lines
from r1jax.models.transformer import init_params
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import freeze, load_policy, start_reference
from r1jax.rewards.combine import GroupRewards, Term, combine_groups
from r1jax.rewards.format import format_reward
from r1jax.rewards.judgement import OUTCOMES, Judgement
from r1jax.rewards.pool import RewardPool
from r1jax.rewards.verdict import judge_inline
from r1jax.rl import GrpoRows, Rows, completion_lengths, grpo_batch_loss, make_score, sorted_by_length
from r1jax.rl_loop import Asked, make_grpo_iteration
from r1jax.sharding import MeshConfig, in_memory, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import countdown_reward, draw_problems
from r1jax.train import gradient_sums, init_train_state, make_train_step

CONFIG = GrpoConfig(
    optimizer=OptimizerConfig(learning_rate=1e-3),
    iterations=5,
    sampling=SamplingConfig(prompts=4, group_size=4, prompt_slots=12, max_new_tokens=16, halvings=1),
    mini_batches=2,
    micro_batches=2,
    reference_every=4,
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


@pytest.fixture(scope="module")
def policy(mesh):
    return load_policy(BASE_MODEL, mesh)


def coin(step, asked, groups, rng):
    """Random rewards, known where both judges have decided."""
    judgements = [[response.judgements for response in group] for group in groups]
    known = combine_groups(judgements, {"accuracy": Term(), "format": Term()}).known
    return GroupRewards(rng.integers(0, 2, known.shape).astype(np.float32), known, {})


def start(policy, mesh, submit, reward=coin, config=CONFIG):
    """A state with the policy's weights, and an iteration that trains it."""
    optimizer = make_optimizer(config.optimizer, 10)
    state, shardings = init_train_state(jax.random.key(0), partial(init_params, policy.model), optimizer, mesh)
    params, bias = jax.tree.map(jnp.copy, (policy.params, policy.router_bias))
    state = state._replace(params=params, router_bias=bias)
    iteration = make_grpo_iteration(policy, optimizer, shardings, mesh, config, seed=0, submit=submit, reward=reward)
    return state, iteration


def asked(step):
    drawn = draw_problems((1, 2), "train", CONFIG.sampling.prompts, np.random.default_rng(step))
    return Asked([p.record for p in drawn], [r1_zero_prompt(p.question) for p in drawn])


def always(record, text):
    return Judgement("correct", 1.0)


SUBMIT = partial(judge_inline, {"accuracy": countdown_reward, "format": always})


@pytest.fixture
def no_cache():
    """Every compilation is one, and is heard."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.parametrize("packing", ["none", pytest.param("shared_prompts", marks=pytest.mark.slow)])
def test_nothing_compiles_after_the_first_iteration(policy, mesh, no_cache, packing):
    """Over 50 iterations with completions of other lengths in each, packed into more or fewer rows."""
    compiled = []
    listen = lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    with jax.set_mesh(mesh):
        slow = OptimizerConfig(learning_rate=1e-6)  # a policy that random rewards have ruined ends no completion
        state, iteration = start(
            policy, mesh, SUBMIT, config=dataclasses.replace(CONFIG, optimizer=slow, packing=packing)
        )
        reference = freeze(policy.model, state)
        state, *_ = iteration(state, reference, 1, asked(1))
        first = len(compiled)
        lengths, padding = [], []
        for step in range(2, 51):
            state, metrics, experience = iteration(state, reference, step, asked(step))
            reference = freeze(policy.model, state)
            lengths.append(tuple(r.tokens for group in experience.groups for r in group))
            padding.append(metrics["padding"])
    assert first >= 3, "the listener heard nothing"
    assert len(set(lengths)) > 24, "completions of different lengths are what could cause a recompilation"
    assert len(compiled) == first, compiled[first:]
    assert all(0 < share < 1 for shares in padding for share in shares.values())


def two_iterations(policy, mesh, config):
    with jax.set_mesh(mesh):
        state, iteration = start(policy, mesh, SUBMIT, config=config)
        reference = freeze(policy.model, state)
        state, first, _ = iteration(state, reference, 1, asked(1))
        return first, iteration(state, reference, 2, asked(2))[1]


WHOLE = dataclasses.replace(CONFIG, mini_batches=1, micro_batches=1)


@pytest.fixture(scope="module")
def padded_iterations(policy, mesh):
    return two_iterations(policy, mesh, WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["rows", "shared_prompts"])
def test_packing_changes_no_iteration(policy, mesh, padded_iterations, packing):
    """With one mini-batch of all rows, the update is the same however they are laid out."""
    packed = two_iterations(policy, mesh, dataclasses.replace(WHOLE, packing=packing, micro_batches=4))
    for ours, theirs in zip(packed, padded_iterations, strict=True):
        assert ours["reward"] == theirs["reward"]
        for name in ("loss", "kl", "grad_norm", "entropy", "param_norm"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
        if packing == "rows":
            assert ours["expert_load"] == theirs["expert_load"]
        else:
            assert ours["expert_load"] != theirs["expert_load"], "a shared prompt counts once"


@pytest.mark.slow
def test_an_update_that_takes_its_own_logprobs_as_the_old_ones_is_the_same(policy, mesh, padded_iterations):
    alone = two_iterations(policy, mesh, dataclasses.replace(WHOLE, watch_mismatch=False))
    for ours, theirs in zip(alone, padded_iterations, strict=True):
        assert ours["reward"] == theirs["reward"] and "mismatch_kl" in theirs and "mismatch_kl" not in ours
        for name in ("loss", "kl", "grad_norm", "entropy", "param_norm"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_reference_on_the_hosts_is_saved_and_scores_as_one_on_the_devices(policy, mesh, padded_iterations, tmp_path):
    where = lambda tree: {x.sharding.memory_kind for x in jax.tree.leaves(tree)}
    with jax.set_mesh(mesh):
        state, iteration = start(policy, mesh, SUBMIT, config=WHOLE)
        reference = in_memory("pinned_host", freeze(policy.model, state))
        assert where(reference) == {"pinned_host"} and where(in_memory("device", reference)) == {"device"}
        manager = open_checkpoints(tmp_path)
        save(manager, 0, arrays={"reference": reference}, facts={}, wait=True)
        for ours, saved in zip(*map(jax.tree.leaves, (reference, start_reference(policy.model, state, manager)))):
            np.testing.assert_array_equal(ours, saved)
        _, ours, _ = iteration(state, reference, 1, asked(1))
    theirs = padded_iterations[0]
    assert {k: v for k, v in ours.items() if k != "seconds"} == {k: v for k, v in theirs.items() if k != "seconds"}
    assert where(reference) == {"pinned_host"}


def test_rows_without_old_logprobs_are_those_of_the_policy_itself(policy):
    batch = rows_of(np.random.default_rng(0), policy, 4, 12, 8)
    score = make_score(policy.model, rows_at_a_time=4, lengths=(8,))
    known = batch._replace(old_logprobs=score(policy.params, policy.router_bias, batch.rows, 1.0))
    scalars = {"temperature": 1.0, "clip_epsilon": 0.2, "kl_coef": 0.1}
    sums = jax.jit(gradient_sums(partial(grpo_batch_loss, policy.model)))
    own, given = (
        sums(policy.params, policy.router_bias, rows, scalars) for rows in (batch._replace(old_logprobs=None), known)
    )
    np.testing.assert_allclose(own[1].loss_sum, given[1].loss_sum, rtol=1e-5)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(given[0]))
    for ours, theirs in zip(jax.tree.leaves(own[0]), jax.tree.leaves(given[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


def test_old_logprobs_must_be_computed_before_several_updates(mesh):
    with pytest.raises(UserError, match="no-watch-mismatch needs --grpo.mini-batches 1, not 2"):
        dataclasses.replace(CONFIG, watch_mismatch=False).check(mesh)


def test_micro_batches_that_cut_groups_cannot_share_prompts(mesh):
    config = dataclasses.replace(CONFIG, packing="shared_prompts", micro_batches=4)
    with pytest.raises(UserError, match="micro-batch of 2 rows.*groups of 4"):
        config.check(mesh)
    dataclasses.replace(CONFIG, packing="shared_prompts").check(mesh)


def test_kernels_that_show_no_shared_prompts_are_refused_before_anything_runs(policy, mesh):
    policy = policy._replace(model=dataclasses.replace(policy.model, attention="splash"))
    config = dataclasses.replace(CONFIG, packing="shared_prompts")
    with pytest.raises(UserError, match="shared_prompts.*'splash' cannot make; take rows or none"):
        make_grpo_iteration(policy, None, None, mesh, config, seed=0, submit=SUBMIT, reward=coin)


def test_first_updates_are_on_policy_and_sampler_agrees_with_trainer(policy, mesh):
    with jax.set_mesh(mesh):
        state, iteration = start(policy, mesh, SUBMIT)
        _, metrics, _ = iteration(state, freeze(policy.model, state), 1, asked(1))
    assert metrics["sampler_mismatch_max"] < 1e-5
    assert 0 < metrics["entropy"] < np.log(policy.model.vocab_size)
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("failing", ["accuracy", "format"])
def test_an_outage_of_a_judge_teaches_nothing(policy, mesh, failing):
    """With every verdict of two prompts lost, the update is that of the other two prompts alone."""

    def flaky(record, text):
        return Judgement("timeout", 0.0) if record["lost"] else countdown_reward(record, text)

    judges = {"accuracy": always, "format": always, failing: flaky}

    questions = asked(1)
    for index, record in enumerate(questions.records):
        record["lost"] = index < 2
    with jax.set_mesh(mesh):
        state, iteration = start(policy, mesh, partial(judge_inline, judges))
        reference = freeze(policy.model, state)
        everything_lost = questions._replace(records=[r | {"lost": True} for r in questions.records])
        before = jax.tree.map(np.asarray, state.params)
        state, metrics, _ = iteration(state, reference, 1, everything_lost)
        assert metrics["outcomes"][failing] == dict.fromkeys(OUTCOMES, 0.0) | {"timeout": 1.0}
        assert metrics["grad_norm"] == 0.0 == metrics["reward"] and metrics["masked_share"] == 1.0
        decayed = jax.tree.map(
            lambda x: x * (1 - CONFIG.optimizer.learning_rate * CONFIG.optimizer.weight_decay) ** 2, before
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            expected = before if path[-1].key == "scale" else decayed
            for key in path:
                expected = expected[key.key]
            np.testing.assert_allclose(leaf, expected, rtol=1e-6)
        _, metrics, _ = iteration(state, reference, 1, questions)
    assert metrics["outcomes"][failing]["timeout"] == 0.5 == metrics["masked_share"] and metrics["grad_norm"] > 0


def test_a_pool_judges_as_this_process_does(policy, mesh):
    """The same update, whether the judges are called in this process or in workers."""
    results = []
    with RewardPool({"accuracy": countdown_reward, "format": format_reward}, workers=2, timeout=60) as pool:
        inline = partial(judge_inline, {"accuracy": countdown_reward, "format": format_reward})
        for submit in (inline, pool.submit):
            with jax.set_mesh(mesh):
                state, iteration = start(policy, mesh, submit)
                state, metrics, experience = iteration(state, freeze(policy.model, state), 1, asked(1))
            del metrics["seconds"]
            results.append((metrics, experience, jax.tree.map(np.asarray, state.params)))
    (metrics, experience, params), (theirs, their_experience, their_params) = results
    assert metrics == theirs and experience == their_experience
    jax.tree.map(np.testing.assert_array_equal, params, their_params)


def rows_of(rng, policy, batch, slots, length):
    """Random rows, with an old and a reference policy that differ from this one by half a nat a token."""
    vocab, lengths = policy.model.vocab_size, rng.integers(1, length + 1, batch)
    rows = Rows(
        jnp.asarray(rng.integers(4, vocab, (batch, slots)), jnp.int32),
        jnp.asarray(rng.integers(3, slots + 1, batch), jnp.int32),
        jnp.asarray(rng.integers(4, vocab, (batch, length)), jnp.int32),
        jnp.asarray(np.arange(length)[None] < lengths[:, None]),
    )
    score = make_score(policy.model, rows_at_a_time=batch, lengths=(length,))
    logprobs = score(policy.params, policy.router_bias, rows, 1.0)
    differing = lambda: logprobs + jnp.asarray(rng.normal(0.0, 0.5, (batch, length)), jnp.float32)
    return GrpoRows(rows, differing(), differing(), jnp.asarray(rng.normal(size=batch), jnp.float32))


def test_micro_batches_and_widths_change_nothing(policy, mesh):
    """Summed over length-sorted micro-batches, each at its own width, the gradient is that of one full batch."""
    batch = rows_of(np.random.default_rng(0), policy, 8, 12, 16)
    jax.config.update("jax_enable_x64", True)
    try:
        model = dataclasses.replace(policy.model, dtype="float64")
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), policy.params)
        scalars = {"temperature": 1.0, "clip_epsilon": 0.2, "kl_coef": 0.1}
        sums = gradient_sums(partial(grpo_batch_loss, model))
        whole = jax.jit(sums)(params, policy.router_bias, batch, scalars)
        parts = jax.jit(sorted_by_length(sums, 2, completion_lengths(16)))(params, policy.router_bias, batch, scalars)
        whole, parts = jax.tree.map(np.asarray, (whole, parts))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert float(whole[1].count) == float(parts[1].count) == 8
    np.testing.assert_allclose(parts[1].loss_sum, whole[1].loss_sum, rtol=1e-6)
    np.testing.assert_array_equal(parts[1].load, whole[1].load)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole[0]))
    for ours, theirs in zip(jax.tree.leaves(parts[0]), jax.tree.leaves(whole[0])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.slow
def test_router_bias_moves_by_the_load_of_all_micro_batches(policy, mesh):
    model = policy.model
    batch = rows_of(np.random.default_rng(1), policy, 8, 12, 16)
    scalars = {"temperature": 1.0, "clip_epsilon": 0.2, "kl_coef": 0.0}
    sums = gradient_sums(partial(grpo_batch_loss, model))
    optimizer = make_optimizer(CONFIG.optimizer, 10)
    with jax.set_mesh(mesh):
        state, shardings = init_train_state(jax.random.key(0), partial(init_params, model), optimizer, mesh)
        load = np.asarray(sums(state.params, state.router_bias, batch, scalars)[1].load)
        step = make_train_step(sums, optimizer, shardings, num_micro_batches=4, router_bias_rate=0.01)
        before = np.asarray(state.router_bias)
        state, metrics = step(state, batch, scalars)
    expected = before + 0.01 * np.sign(load.mean(-1, keepdims=True) - load)
    np.testing.assert_allclose(state.router_bias, expected, atol=1e-7)
    np.testing.assert_allclose(metrics["expert_load"], load / load.sum(-1, keepdims=True), rtol=1e-6)


MESHES = {  # the second has every axis of the first
    "parameters cut": pytest.param(["--mesh.fsdp", 8], marks=pytest.mark.slow),
    "experts spread": ["--mesh.data", 2, "--mesh.expert", 2, "--mesh.fsdp", 2],
}
FOR_EIGHT = [*SMALL, "--grpo.iterations", 2, "--grpo.sampling.prompts", 8, "--grpo.micro-batches", 1]


def finish(process):
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors


TENSOR_PARALLEL = """
import dataclasses, jax, numpy as np
from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, init_params
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings
import flax.linen as nn

config = dataclasses.replace(miniature(272), num_layers=2)
boxed, bias = init_params(config, jax.random.key(0))
params, tokens = nn.meta.unbox(boxed), np.arange(24).reshape(2, 12)
run = jax.jit(lambda params: forward(config, params, bias, tokens, np.tile(np.arange(12), (2, 1)))[0] @ params["head"])
whole, mesh = run(params), make_mesh(MeshConfig(fsdp=1, tensor=4, expert=2))
with jax.set_mesh(mesh):
    cut = jax.device_put(params, tree_shardings(boxed, mesh))
    assert cut["head"].addressable_shards[0].data.shape == (128, 272 // 4)
    assert cut["moe_layers"]["moe"]["gate"].addressable_shards[0].data.shape == (1, 4, 128, 8)
    np.testing.assert_allclose(run(cut), whole, atol=1e-5)
"""


def test_tensor_and_expert_parallel_forward(environment):
    """Heads, hidden widths, vocabulary and experts cut over eight devices: the logits stay the same."""
    flags = f"{QUICK_COMPILE} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", TENSOR_PARALLEL]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def on_one_device(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    finish(experiment("r1_zero", "--workdir", workdir, *FOR_EIGHT))
    return read_json_lines(workdir / "metrics.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("options", MESHES.values(), ids=MESHES)
def test_eight_devices_compute_what_one_does(experiment, on_one_device, tmp_path, options):
    """A whole small run on eight host devices samples the same responses and takes the same steps as on one."""
    eight = {"XLA_FLAGS": f"{QUICK_COMPILE} --xla_force_host_platform_device_count=8"}
    finish(experiment("r1_zero", "--workdir", tmp_path / "run", *FOR_EIGHT, *options, **eight))
    for ours, theirs in zip(read_json_lines(tmp_path / "run" / "metrics.jsonl"), on_one_device, strict=True):
        for name in ("reward", "mean_response_tokens", "zero_variance_groups"):
            assert ours[name] == theirs[name], name
        for name in ("grad_norm", "entropy", "param_norm", "kl"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-3, atol=1e-6, err_msg=name)
