"""PPO against float64 loops of its formulas; the value model against the reward model it is made of."""

import jax
import numpy as np
import pytest
from test_objectives import case, close

from r1jax import objectives as ob
from r1jax.models.presets import miniature
from r1jax.models.reward_model import init_reward_params, reward_scores, token_values


def value_case(seed=0):
    """logprobs, old_logprobs, ref_logprobs, scores, mask, values, old_values; a tool's words lie inside one row."""
    logprobs, old, ref, scores, mask = case(seed)
    mask[0, :] = [1, 1, 0, 1, 1, 1, 0, 0, 0]
    rng = np.random.default_rng(seed + 1)
    values, old_values = rng.normal(size=(2, *mask.shape)).astype(np.float32)
    return logprobs, old, ref, scores, mask, values, old_values


def dirty(mask, *arrays):
    return [np.where(mask, x, np.nan).astype(np.float32) for x in arrays]


def test_token_rewards_by_loop():
    logprobs, _, ref, scores, mask, *_ = value_case()
    found = ob.token_rewards(scores, *dirty(mask, logprobs, ref), mask, kl_coef=0.3)
    expected = np.zeros(mask.shape)
    for i, row in enumerate(mask):
        for t in np.flatnonzero(row):
            expected[i, t] = -0.3 * (float(logprobs[i, t]) - float(ref[i, t]))
        expected[i, np.flatnonzero(row)[-1]] += scores[i]
    close(found, expected)
    mask[1] = False
    np.testing.assert_array_equal(ob.token_rewards(scores, logprobs, ref, mask, kl_coef=0.3)[1], 0)


@pytest.mark.parametrize("discount, trace", [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.99, 0.0)])
def test_generalized_advantages_are_the_sum_of_discounted_errors(discount, trace):
    rewards, _, _, _, mask, values, _ = value_case()
    advantages, returns = ob.generalized_advantages(*dirty(mask, rewards, values), mask, discount=discount, trace=trace)
    expected = np.zeros(mask.shape)
    for i, row in enumerate(mask):
        tokens = np.flatnonzero(row)
        r, v = [float(rewards[i, t]) for t in tokens], [float(values[i, t]) for t in tokens] + [0.0]
        errors = [r[k] + discount * v[k + 1] - v[k] for k in range(len(r))]
        for k, t in enumerate(tokens):
            expected[i, t] = sum((discount * trace) ** (j - k) * errors[j] for j in range(k, len(r)))
    close(advantages, expected)
    close(returns, expected + np.where(mask, values, 0))


def test_with_both_factors_one_the_advantage_is_what_is_still_to_come_less_the_value():
    rewards, _, _, _, mask, values, _ = value_case()
    rewards = np.where(mask, rewards, 0)
    _, returns = ob.generalized_advantages(rewards, values, mask, discount=1.0, trace=1.0)
    to_come = np.cumsum(rewards[:, ::-1].astype(np.float64), axis=1)[:, ::-1]
    np.testing.assert_allclose(returns, np.where(mask, to_come, 0), atol=3e-6)


def ppo_by_loop(logprobs, values, old, old_values, advantages, returns, mask, epsilon, clip, coefficient):
    policy, value, count = 0.0, 0.0, 0
    for i, t in zip(*np.nonzero(mask), strict=True):
        ratio, advantage = np.exp(logprobs[i, t] - old[i, t]), advantages[i, t]
        policy -= min(ratio * advantage, min(max(ratio, 1 - epsilon), 1 + epsilon) * advantage)
        near = min(max(values[i, t], old_values[i, t] - clip), old_values[i, t] + clip)
        value += 0.5 * max((values[i, t] - returns[i, t]) ** 2, (near - returns[i, t]) ** 2)
        count += 1
    return policy + coefficient * value, count


def test_ppo_and_its_gradients_by_loop():
    logprobs, old, ref, scores, mask, values, old_values = value_case()
    rewards = ob.token_rewards(scores, old, ref, mask, kl_coef=0.05)
    advantages, returns = (np.asarray(x) for x in ob.generalized_advantages(rewards, old_values, mask, trace=0.95))
    fixed = dirty(mask, old, old_values, advantages, returns)
    scalars = {"clip_epsilon": 0.2, "value_clip": 0.4, "value_coef": 0.5}
    sums = lambda logprobs, values: ob.ppo_sums(logprobs, values, *fixed, mask, **scalars)
    loss, count, metrics = jax.jit(sums)(*dirty(mask, logprobs, values))
    wide = [np.asarray(x, np.float64) for x in (logprobs, values, old, old_values, advantages, returns)]
    by_loop = lambda logprobs, values: ppo_by_loop(logprobs, values, *wide[2:], mask, 0.2, 0.4, 0.5)
    expected, tokens = by_loop(*wide[:2])
    assert float(count) == tokens and float(loss) == pytest.approx(expected, rel=1e-6)
    assert 0 < float(metrics["clip_fraction"]) < tokens and float(metrics["value_loss"]) > 0
    slopes = jax.jit(jax.grad(lambda *x: sums(*x)[0], argnums=(0, 1)))(*dirty(mask, logprobs, values))
    for which, slope in enumerate(slopes):
        by_nudge, step = np.zeros(mask.shape), 1e-6
        for place in zip(*np.nonzero(mask), strict=True):
            sides = []
            for sign in (1, -1):
                pair = [x.copy() for x in wide[:2]]
                pair[which][place] += sign * step
                sides.append(by_loop(*pair)[0])
            by_nudge[place] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(slope, by_nudge, atol=2e-6)


@pytest.mark.slow
def test_values_of_tokens_are_the_scores_of_what_has_been_read():
    model = miniature(40)
    params, bias = init_reward_params(model, jax.random.key(0))
    params = jax.tree.map(lambda x: getattr(x, "value", x), params, is_leaf=lambda x: hasattr(x, "names"))
    params["score"] = jax.random.normal(jax.random.key(1), params["score"].shape)
    tokens = np.random.default_rng(0).integers(0, 40, (2, 6)).astype(np.int32)
    positions = np.array([[0, 1, 2, 3, 4, 5], [-1, -1, 0, 1, 2, 3]], np.int32)
    values, _ = jax.jit(token_values, static_argnums=0)(model, params, bias, tokens, positions)
    score = jax.jit(reward_scores, static_argnums=0)
    for t in range(2, 6):
        cut = np.where(np.arange(6) <= t, positions, -1)
        np.testing.assert_allclose(values[:, t], score(model, params, bias, tokens, cut), rtol=2e-5, atol=2e-6)
