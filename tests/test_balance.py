"""Balance of the experts: the sequence-wise loss, the bias that every device and micro-batch moves, the idle router."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r1jax.objectives import targets_after_next
from r1jax.ops.moe import route, sequence_balance
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.sharding import MeshConfig, make_mesh, replicated
from r1jax.train import LossOutput, TrainState, gradient_sums, make_train_step

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


def balance_by_loop(scores, segments, selected, shares=None):
    """Equations 17-20 sequence by sequence, times the tokens of each; `shares` are the scores that f_i is taken from."""
    shares, total, experts = scores if shares is None else shares, 0.0, scores.shape[-1]
    for row in range(len(segments)):
        for segment in sorted(set(segments[row]) - {0}):
            tokens = [t for t in range(segments.shape[1]) if segments[row][t] == segment]
            f, p = np.zeros(experts), np.zeros(experts)
            for t in tokens:
                f[np.argsort(-shares[row, t])[:selected]] += experts / (selected * len(tokens))
                p += scores[row, t] / scores[row, t].sum() / len(tokens)
            total += len(tokens) * (f @ p)
    return total


def random_scores():
    return np.random.default_rng(0).uniform(0.05, 1, (2, 6, 8)).astype(np.float32)


def test_the_sequence_wise_balance_is_that_of_the_paper():
    scores = random_scores()
    ours = sequence_balance(scores, SEGMENTS, num_selected=3)
    assert float(ours) == pytest.approx(balance_by_loop(scores.astype(float), SEGMENTS, 3), rel=1e-6)


def test_the_gradient_of_the_balance_flows_through_the_mean_scores_alone():
    scores = random_scores()
    gradient = jax.grad(lambda x: sequence_balance(x, SEGMENTS, num_selected=3))(scores)
    wide, step = scores.astype(float), 1e-6
    for place in [(0, 0, 1), (0, 4, 7), (1, 3, 2), (1, 5, 5)]:
        more, less = wide.copy(), wide.copy()
        more[place] += step
        less[place] -= step
        slope = balance_by_loop(more, SEGMENTS, 3, wide) - balance_by_loop(less, SEGMENTS, 3, wide)
        assert float(gradient[place]) == pytest.approx(slope / (2 * step), rel=1e-4, abs=1e-6)
    assert not gradient[0, 5].any()  # padding


def test_equal_use_of_all_experts_counts_one_a_token_and_one_expert_alone_counts_all():
    even = np.eye(4, dtype=np.float32)[None] + 1e-4  # each token prefers another expert
    assert float(sequence_balance(even, np.ones((1, 4), int), num_selected=1)) == pytest.approx(4, rel=1e-3)
    alone = np.tile(even[:, :1], (1, 4, 1))
    assert float(sequence_balance(alone, np.ones((1, 4), int), num_selected=1)) == pytest.approx(4 * 4, rel=1e-3)


def test_the_router_of_v2_takes_the_best_of_each_group_and_does_not_renormalise():
    scores = np.array([[0.30, 0.02, 0.17, 0.16, 0.20, 0.15]], np.float32)  # groups of two; sums would drop the first
    indices, weights = route(scores, np.zeros(6), num_selected=2, num_groups=3, num_limited_groups=2, group_top=1,
                             normalize=False, scaling=16.0)  # fmt: skip
    assert indices.tolist() == [[0, 4]]
    np.testing.assert_allclose(weights, [[0.30 * 16, 0.20 * 16]], rtol=1e-6)


def test_targets_after_next_stay_within_their_document():
    targets = np.array([[1, 2, 3, 4, 5, 6]])
    shifted, mask = targets_after_next(targets, SEGMENTS[:1])
    assert mask.tolist() == [[True, True, False, True, False, False]]
    assert shifted[mask].tolist() == [2, 3, 5]
    full, mask = targets_after_next(targets, np.ones((1, 6), int))
    assert mask.tolist() == [[True] * 5 + [False]] and full[mask].tolist() == [2, 3, 4, 5, 6]


def test_the_bias_of_a_router_that_did_not_run_stays_and_does_not_dilute_the_metrics():
    mesh, optimizer = make_mesh(MeshConfig(), jax.devices()[:1]), optax.sgd(0.1)
    load = jnp.array([[4.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    params = {"w": jnp.ones(2)}
    loss = lambda params, bias, batch, scalars: LossOutput(params["w"].sum() * batch.sum(), jnp.float32(1), {}, load)
    state = TrainState(jnp.int32(0), params, jnp.zeros((3, 4)), optimizer.init(params))
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    step = make_train_step(gradient_sums(loss), optimizer, shardings, router_bias_rate=0.5)
    state, metrics = step(state, np.ones(2), {})
    assert state.router_bias.tolist() == [[-0.5, 0.5, 0.5, 0.5], [0] * 4, [0] * 4]
    assert float(metrics["max_violation"]) == pytest.approx((3 + 0) / 2)
    assert metrics["expert_load"].tolist() == [[1, 0, 0, 0], [0.25] * 4, [0] * 4]


def test_outside_pre_training_the_mtp_module_is_left_alone():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    rng = np.random.default_rng(0)
    params = {"head": {"w": rng.normal(size=(3, 2))}, "mtp": {"w": rng.normal(size=4), "block": {"scale": np.ones(2)}}}
    params = jax.tree.map(jnp.float32, params)
    gradients = {"head": {"w": jnp.ones((3, 2))}, "mtp": jax.tree.map(jnp.zeros_like, params["mtp"])}

    def trained(**options):
        optimizer = make_optimizer(config, 10, **options)
        updates, state = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, updates), state

    after, state = trained()
    assert jax.tree.structure(after) == jax.tree.structure(params)
    for before, now in zip(jax.tree.leaves(params["mtp"]), jax.tree.leaves(after["mtp"]), strict=True):
        np.testing.assert_array_equal(before, now)
    assert "mtp" not in str(jax.tree_util.tree_leaves_with_path(state))  # and no moments are kept for it
    pretrained, _ = trained(train_mtp=True)
    np.testing.assert_array_equal(after["head"]["w"], pretrained["head"]["w"])
    np.testing.assert_allclose(pretrained["mtp"]["w"], 0.95 * params["mtp"]["w"], rtol=1e-5)  # by weight decay alone


ON_EIGHT_DEVICES = """
import dataclasses, functools
import jax, numpy as np, optax
from experiments.pretrain import pretraining_loss
from r1jax.data.packing import PackedBatch
from r1jax.models.presets import miniature
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, batch_sharding, make_mesh
from r1jax.train import gradient_sums, init_train_state, make_train_step

config = dataclasses.replace(
    miniature(32), num_layers=1, num_dense_layers=0, embed_dim=16, mlp_dim=16, num_heads=2, q_lora_rank=0, kv_lora_rank=8, expert_mlp_dim=8,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, num_mtp_layers=1, init_stddev=0.5,
)
rng = np.random.default_rng(0)
tokens, targets = rng.integers(32, size=(2, 16, 6)).astype(np.int32)
lengths = rng.integers(2, 7, size=16)  # devices and micro-batches hold unequal numbers of tokens
inside = np.arange(6) < lengths[:, None]
batch = PackedBatch(tokens, targets, np.where(inside, np.arange(6), -1).astype(np.int32), inside.astype(np.int32))
results = []
for shape, parts in [({}, 1), (dict(data=2, expert=2, sequence=2), 2), (dict(fsdp=4, tensor=2), 4)]:
    mesh = make_mesh(MeshConfig(**({"fsdp": 1} | shape)), jax.devices()[: 8 if shape else 1])
    optimizer = optax.sgd(0.01)
    with jax.set_mesh(mesh):
        state, shardings = init_train_state(jax.random.key(0), functools.partial(init_params, config), optimizer, mesh)
        sums = gradient_sums(functools.partial(pretraining_loss, config))
        step = make_train_step(sums, optimizer, shardings, num_micro_batches=parts, router_bias_rate=0.001)
        scalars = {"mtp_weight": 0.3, "balance_weight": 0.01}
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)), scalars)
    results.append((np.asarray(state.router_bias), np.asarray(metrics["expert_load"]), float(metrics["balance"])))
bias, load, balance = results[0]
assert bias.shape == (2, 8) and (bias != 0).all(axis=1).any() and (bias > 0).any() and (bias < 0).any(), bias
for other, other_load, other_balance in results[1:]:
    np.testing.assert_array_equal(other, bias)
    np.testing.assert_allclose(other_load, load, rtol=1e-6)
    np.testing.assert_allclose(other_balance, balance, rtol=1e-5)
"""


@pytest.mark.slow
def test_the_bias_moves_alike_on_one_device_on_eight_and_in_micro_batches(environment):
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", ON_EIGHT_DEVICES]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
