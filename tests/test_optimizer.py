"""AdamW as optax has it, and with moments kept in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from r1jax.optimizer import OptimizerConfig, make_optimizer

PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "norm": {"scale": jnp.ones(4)}}


def run(optimizer, updates: int = 6):
    """Parameters and state after updates with gradients that are drawn from one seed."""
    params, state, rng = PARAMS, optimizer.init(PARAMS), np.random.default_rng(0)
    for _ in range(updates):
        gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        steps, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, steps)
    return params, state


def test_it_is_optax_adamw_with_decay_on_matrices_only():
    config = OptimizerConfig(learning_rate=0.01, warmup_updates=2, max_grad_norm=0.5)
    ours, state = run(make_optimizer(config, 10))
    schedule = optax.join_schedules([optax.linear_schedule(0.0, 0.01, 2), optax.constant_schedule(0.01)], [2])
    mask = {"w": True, "norm": {"scale": False}}
    adamw = optax.adamw(schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, mask=mask)
    theirs, expected = run(optax.chain(optax.clip_by_global_norm(0.5), adamw))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(state), jax.tree.leaves(expected))


def test_moments_in_bfloat16_take_half_the_room_and_rounding_alone():
    config = OptimizerConfig(learning_rate=0.01, weight_decay=0.0)
    exact, _ = run(make_optimizer(config, 10))
    half = OptimizerConfig(learning_rate=0.01, weight_decay=0.0, moments="bfloat16")
    rounded, state = run(make_optimizer(half, 10))
    kinds = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert set(kinds) == {jnp.dtype(jnp.bfloat16)} and len(kinds) == 2 * len(jax.tree.leaves(PARAMS))
    moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), exact, PARAMS)
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), exact, rounded)
    assert all(0 < a < 0.01 * m for a, m in zip(jax.tree.leaves(apart), jax.tree.leaves(moved)))
