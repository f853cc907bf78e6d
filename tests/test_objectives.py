"""GRPO and advantages against the formulas of DeepSeekMath (arXiv 2402.03300), written as float64 loops."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.objectives import group_advantages, grpo_loss, grpo_sums, next_token_sums

gradient = jax.jit(jax.grad(lambda *arrays, **scalars: grpo_loss(*arrays, **scalars)[0]))
sums = jax.jit(grpo_sums)
sums_gradient = jax.jit(jax.grad(lambda *arrays, **scalars: grpo_sums(*arrays, **scalars)[0]))


def close(actual, expected):
    """Equal to one part in a million of the largest entry."""
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def case(seed=0, batch=6, length=9, spread=0.5):
    """logprobs, old_logprobs, ref_logprobs, advantages, mask; ratios lie on both sides of the clip range."""
    rng = np.random.default_rng(seed)
    old = rng.uniform(-4, -0.1, (batch, length))
    logprobs, ref = old + spread * rng.normal(size=old.shape), old + spread * rng.normal(size=old.shape)
    mask = np.arange(length) < rng.integers(1, length + 1, batch)[:, None]
    return *(x.astype(np.float32) for x in (logprobs, old, ref, rng.normal(size=batch))), mask


def grpo_by_loop(
    logprobs, old, ref, advantages, mask, clip_epsilon, kl_coef, clip_epsilon_high=None, weights=None
):  # fmt: skip
    """Loss, its gradient in logprobs, and the metrics, token by token from the formula."""
    logprobs, old, ref, advantages = (np.asarray(x, np.float64) for x in (logprobs, old, ref, advantages))
    rows = [i for i in range(len(mask)) if any(mask[i])]
    loss, slope = 0.0, np.zeros(logprobs.shape)
    metrics = dict.fromkeys(("kl", "clip_fraction", "ratio_deviation"), 0.0)
    for i in rows:
        tokens = np.flatnonzero(mask[i])
        share = 1 / len(rows) / len(tokens)
        for t in tokens:
            advantage = advantages[i] if advantages.ndim == 1 else advantages[i, t]
            ratio = np.exp(logprobs[i, t] - old[i, t])
            clipped = min(max(ratio, 1 - clip_epsilon), 1 + (clip_epsilon_high or clip_epsilon))
            weight = 1.0 if weights is None else float(weights[i, t])
            other = np.exp(ref[i, t]) / np.exp(logprobs[i, t])
            k3 = other - np.log(other) - 1
            is_clipped = ratio * advantage > clipped * advantage
            loss -= share * (weight * min(ratio * advantage, clipped * advantage) - kl_coef * k3)
            slope[i, t] = -share * ((0.0 if is_clipped else weight * ratio * advantage) - kl_coef * (1 - other))
            for name, value in zip(metrics, (k3, is_clipped, abs(ratio - 1)), strict=True):
                metrics[name] += share * value
    return loss, slope, metrics


@pytest.mark.parametrize("clip_epsilon, kl_coef", [(0.2, 0.001), (0.2, 0.0), (10.0, 0.5), (0.05, 0.04)])
@pytest.mark.parametrize("per_token", [False, True])
def test_grpo_loss_and_gradient_by_loop(clip_epsilon, kl_coef, per_token):
    logprobs, old, ref, advantages, mask = case()
    if per_token:
        advantages = np.random.default_rng(1).normal(size=logprobs.shape).astype(np.float32)
    arrays, scalars = (logprobs, old, ref, advantages, mask), {"clip_epsilon": clip_epsilon, "kl_coef": kl_coef}
    loss, metrics = grpo_loss(*arrays, **scalars)
    expected_loss, expected_gradient, expected_metrics = grpo_by_loop(*arrays, **scalars)
    assert float(loss) == pytest.approx(expected_loss, rel=1e-6)
    close(gradient(*arrays, **scalars), expected_gradient)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected_metrics, rel=2e-6)
    assert clip_epsilon > 1 or expected_metrics["clip_fraction"] > 0.1


def test_clip_higher_and_weights_of_tokens_by_loop():
    arrays, scalars = case(), {"clip_epsilon": 0.1, "kl_coef": 0.04, "clip_epsilon_high": 0.4}
    weights = np.random.default_rng(2).uniform(0.5, 2.0, arrays[0].shape).astype(np.float32)
    loss, slope, metrics = grpo_by_loop(*arrays, **scalars)
    assert float(grpo_loss(*arrays, **scalars)[0]) == pytest.approx(loss, rel=1e-6)
    loss, slope, metrics = grpo_by_loop(*arrays, **scalars, weights=weights)
    total, count, metric_sums = sums(*arrays, **scalars, weights=weights)
    assert float(total / count) == pytest.approx(loss, rel=1e-6)
    close(sums_gradient(*arrays, **scalars, weights=weights) / count, slope)
    means = {name: float(value / count) for name, value in metric_sums.items()}
    assert means == pytest.approx(metrics, rel=2e-6) and means["clip_fraction"] > 0.1
    assert means["clip_fraction"] != pytest.approx(grpo_by_loop(*arrays, 0.1, 0.04)[2]["clip_fraction"], rel=1e-3)


def test_the_loops_gradient_is_the_slope_of_its_loss():
    arrays, scalars = case(), {"clip_epsilon": 0.2, "kl_coef": 0.04}
    slope, step = grpo_by_loop(*arrays, **scalars)[1], 1e-6
    for i, t in np.ndindex(3, 9):
        nudge = np.zeros(arrays[0].shape)
        nudge[i, t] = step
        high, low = (grpo_by_loop(arrays[0] + sign * nudge, *arrays[1:], **scalars)[0] for sign in (1, -1))
        assert (high - low) / (2 * step) == pytest.approx(slope[i, t], abs=1e-8)


def test_on_policy_gradient_is_reinforce_with_a_baseline():
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(4, 5, 7)).astype(np.float32), rng.integers(0, 7, (4, 5))
    advantages, mask = np.array([1, -1, 0.5, -0.25], np.float32), np.arange(5) < np.array([5, 3, 1, 4])[:, None]

    @jax.jit
    @jax.grad
    def policy_gradient(logits):
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
        fixed = jax.lax.stop_gradient(logprobs)
        return grpo_loss(logprobs, fixed, fixed, advantages, mask, clip_epsilon=0.2, kl_coef=0.0)[0]

    wide = logits.astype(np.float64)
    score = np.eye(7)[tokens] - np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)  # d log pi / d logits
    expected = -score * (advantages[:, None] * mask / mask.sum(1, keepdims=True) / 4)[..., None]
    close(policy_gradient(logits), expected)


def test_micro_batches_add_up_to_the_whole_batch():
    arrays, scalars = case(), {"clip_epsilon": 0.2, "kl_coef": 0.04}
    arrays[-1][3] = False
    parts = [[x[start : start + 2] for x in arrays] for start in (0, 2, 4)]
    totals = [sums(*part, **scalars) for part in parts]
    count = sum(count for _, count, _ in totals)
    loss, metrics = grpo_loss(*arrays, **scalars)
    assert count == 5
    assert float(sum(part_loss for part_loss, _, _ in totals) / count) == pytest.approx(float(loss), rel=1e-6)
    for name, value in metrics.items():
        assert float(sum(part[2][name] for part in totals) / count) == pytest.approx(float(value), rel=1e-6)
    pieces = np.concatenate([sums_gradient(*part, **scalars) for part in parts]) / count
    close(pieces, gradient(*arrays, **scalars))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e30, 1e30])
def test_padding_may_hold_anything(garbage):
    *arrays, mask = case()
    arrays[3] = np.repeat(arrays[3][:, None], mask.shape[1], 1)
    scalars = {"clip_epsilon": 0.2, "kl_coef": 0.04}
    loss, slope = grpo_loss(*arrays, mask, **scalars)[0], gradient(*arrays, mask, **scalars)
    wide = [np.pad(np.where(mask, x, garbage), ((0, 0), (0, 3)), constant_values=garbage) for x in arrays]
    wide = [x.astype(np.float32) for x in wide] + [np.pad(mask, ((0, 0), (0, 3)))]
    assert float(grpo_loss(*wide, **scalars)[0]) == pytest.approx(float(loss), rel=1e-6)
    padded_slope = np.asarray(gradient(*wide, **scalars))
    close(padded_slope[:, :9], slope)
    np.testing.assert_array_equal(padded_slope[~wide[-1]], 0)


def test_completions_with_an_empty_mask_do_not_count():
    arrays, scalars = case(), {"clip_epsilon": 0.2, "kl_coef": 0.04}
    loss, metrics = grpo_loss(*arrays, **scalars)
    longer = [np.concatenate([x, np.full((2, *x.shape[1:]), np.nan, x.dtype)]) for x in arrays[:4]]
    longer.append(np.concatenate([arrays[-1], np.zeros((2, 9), bool)]))
    longer_loss, longer_metrics = grpo_loss(*longer, **scalars)
    assert float(longer_loss) == pytest.approx(float(loss), rel=1e-6)
    assert {k: float(v) for k, v in longer_metrics.items()} == pytest.approx({k: float(v) for k, v in metrics.items()})
    nothing = (*arrays[:4], np.zeros((6, 9), bool))
    assert float(grpo_loss(*nothing, **scalars)[0]) == 0
    np.testing.assert_array_equal(gradient(*nothing, **scalars), 0)


@pytest.mark.parametrize(
    "ratio, advantage, clipped",
    [
        (0.001, 2.0, False), (5.0, 2.0, False), (10.9, 2.0, False), (11.1, 2.0, True), (1000.0, 2.0, True),
        (0.001, -2.0, False), (5.0, -2.0, False), (11.1, -2.0, False), (1000.0, -2.0, False),
    ],
)  # fmt: skip
def test_clip_epsilon_of_ten_only_bounds_ratios_above_eleven_of_positive_advantages(ratio, advantage, clipped):
    old = np.full((1, 1), -3.0, np.float32)
    logprobs = (old + np.log(ratio)).astype(np.float32)
    arrays = (logprobs, old, logprobs, np.array([advantage], np.float32), np.ones((1, 1), bool))
    slope = float(gradient(*arrays, clip_epsilon=10.0, kl_coef=0.0)[0, 0])
    assert slope == (0.0 if clipped else pytest.approx(-ratio * advantage, rel=1e-5))
    assert float(grpo_loss(*arrays, clip_epsilon=10.0, kl_coef=0.0)[1]["clip_fraction"]) == clipped


def test_kl_gradient_is_one_minus_the_reference_ratio():
    logprobs, old, ref, advantages, mask = case(spread=1.0)
    slope = gradient(logprobs, old, ref, 0 * advantages, mask, clip_epsilon=0.2, kl_coef=1.0)
    expected = (1 - np.exp(ref.astype(np.float64) - logprobs)) * mask / mask.sum(1, keepdims=True) / len(mask)
    close(slope, expected)
    close(gradient(logprobs, old, logprobs, 0 * advantages, mask, clip_epsilon=0.2, kl_coef=1.0), np.zeros(mask.shape))


def test_changing_the_scalars_does_not_retrace():
    arrays = case(batch=3, length=5)
    before = grpo_loss._cache_size()
    losses = {
        float(grpo_loss(*arrays, clip_epsilon=c, kl_coef=k)[0]) for c, k in ((0.2, 0.001), (10.0, 0.0), (0.3, 1.0))
    }
    assert grpo_loss._cache_size() == before + 1
    assert len(losses) == 3


def advantages_by_loop(rewards, mask, scale, eps=1e-6):
    result = np.zeros(np.shape(rewards))
    for row, (group, valid) in enumerate(zip(rewards, mask, strict=True)):
        known = [float(r) for r, v in zip(group, valid, strict=True) if v]
        if len(set(known)) < 2:
            continue
        mean = sum(known) / len(known)
        std = (sum((r - mean) ** 2 for r in known) / len(known)) ** 0.5
        for column in np.flatnonzero(valid):
            centred = float(group[column]) - mean
            result[row, column] = centred if scale == "none" else centred / (std + eps)
    return result


@pytest.mark.parametrize("scale", ["std", "none"])
def test_group_advantages_by_loop(scale):
    rewards = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    rewards[1] = rewards[1] > 0
    mask = np.random.default_rng(1).random((5, 8)) < 0.7
    close(group_advantages(rewards, scale=scale), advantages_by_loop(rewards, np.ones((5, 8)), scale))
    unknown = np.where(mask, rewards, np.nan)
    close(group_advantages(unknown, mask, scale=scale), advantages_by_loop(unknown, mask, scale))


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3, 1.1, 1e6 + 0.1])
def test_equal_rewards_give_exactly_no_advantage(value, scale):
    np.testing.assert_array_equal(group_advantages(np.full((2, 7), value, np.float32), scale=scale), 0)


def test_groups_without_two_known_rewards_give_no_advantage():
    rewards = np.array([[1.0, 5.0, np.nan], [2.0, np.nan, np.inf], [0.1, 0.1, 7.0]], np.float32)
    mask = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(group_advantages(rewards, mask), 0)


def test_an_unknown_scale_raises():
    with pytest.raises(ValueError, match="scale"):
        group_advantages(np.ones((1, 2)), scale="variance")


def test_next_token_sums_are_a_sum_and_a_count():
    logprobs, mask = np.array([[-1.0, -2.0, np.nan], [-4.0, np.nan, np.nan]]), np.array([[1, 3, 0], [1, 0, 0]])
    assert [float(x) for x in next_token_sums(logprobs, mask)] == [7.0, 3.0]


def test_importing_the_loss_pulls_in_no_framework():
    heavy = "flax optax orbax grain sympy tyro rich sentencepiece matplotlib".split()
    code = f"import sys; from r1jax.objectives import grpo_loss; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
