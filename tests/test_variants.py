"""Each published relative of GRPO against a float64 loop of its formula, its gradient against the loop's slope."""

import functools
import itertools
from math import exp

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_objectives import case, close

from r1jax import objectives as ob


def clip(x, low, high):
    return min(max(x, low), high)


def rows_of(mask):
    return [(i, np.flatnonzero(row)) for i, row in enumerate(mask) if any(row)]


def at(advantages, i, t):
    return advantages[i] if np.ndim(advantages) == 1 else advantages[i, t]


def gain(ratio, advantage, low, high):
    return min(ratio * advantage, clip(ratio, 1 - low, 1 + high) * advantage)


# The formulas. `fixed` holds the log-probabilities of sg[pi], of the same value as `lp`.


def dapo(lp, fixed, old, adv, mask, clip_low, clip_high):
    gains = [gain(exp(lp[i, t] - old[i, t]), at(adv, i, t), clip_low, clip_high) for i, ts in rows_of(mask) for t in ts]
    return -sum(gains) / len(gains)


def dr_grpo(lp, fixed, old, adv, mask, length, clip_epsilon):
    rows = rows_of(mask)
    gains = (gain(exp(lp[i, t] - old[i, t]), at(adv, i, t), clip_epsilon, clip_epsilon) for i, ts in rows for t in ts)
    return -sum(gains) / length / len(rows)


def gspo(lp, fixed, old, adv, mask, clip_low, clip_high):
    rows, total = rows_of(mask), 0.0
    for i, ts in rows:
        s = np.prod([exp(lp[i, t] - old[i, t]) for t in ts]) ** (1 / len(ts))
        total -= gain(s, adv[i], clip_low, clip_high)
    return total / len(rows)


def gspo_token(lp, fixed, old, adv, mask, clip_low, clip_high):
    rows, total = rows_of(mask), 0.0
    for i, ts in rows:
        s = np.prod([exp(fixed[i, t] - old[i, t]) for t in ts]) ** (1 / len(ts))
        gains = [gain(s * exp(lp[i, t]) / exp(fixed[i, t]), at(adv, i, t), clip_low, clip_high) for t in ts]
        total -= sum(gains) / len(ts)
    return total / len(rows)


def cispo(lp, fixed, old, adv, mask, clip_high, clip_low=1.0):
    terms = [
        clip(exp(fixed[i, t] - old[i, t]), 1 - clip_low, 1 + clip_high) * at(adv, i, t) * lp[i, t]
        for i, ts in rows_of(mask)
        for t in ts
    ]
    return -sum(terms) / len(terms)


def sequence_grpo(lp, fixed, old, adv, mask, ref, clip_epsilon, kl_coef):
    rows, total = rows_of(mask), 0.0
    for i, ts in rows:
        ratio = np.prod([exp(lp[i, t]) for t in ts]) / np.prod([exp(old[i, t]) for t in ts])
        other = np.prod([exp(ref[i, t] - lp[i, t]) for t in ts])
        total -= gain(ratio, adv[i], clip_epsilon, clip_epsilon) - kl_coef * (other - np.log(other) - 1)
    return total / len(rows)


def r1_loss(lp, old, adv, mask, *, ref, **scalars):
    return ob.sequence_grpo_loss(lp, old, ref, adv, mask, **scalars)


LOGPROBS, OLD, REF, ADVANTAGES, MASK = case()
TOKEN_ADVANTAGES = np.random.default_rng(1).normal(size=MASK.shape).astype(np.float32)
VARIANTS = [
    (ob.dapo_loss, dapo, {"clip_low": 0.2, "clip_high": 0.28}, True),
    (ob.dapo_loss, dapo, {"clip_low": 10.0, "clip_high": 10.0}, True),
    (ob.dr_grpo_loss, dr_grpo, {"length": 20.0, "clip_epsilon": 0.2}, True),
    (ob.gspo_loss, gspo, {"clip_low": 0.05, "clip_high": 0.1}, False),
    (ob.gspo_token_loss, gspo_token, {"clip_low": 0.05, "clip_high": 0.1}, True),
    (ob.cispo_loss, cispo, {"clip_high": 0.5}, True),
    (ob.cispo_loss, cispo, {"clip_high": 0.28, "clip_low": 0.2}, True),
    (r1_loss, sequence_grpo, {"ref": REF, "clip_epsilon": 0.2, "kl_coef": 0.1}, False),
]
NAMED = [(loss, twin, scalars, adv) for loss, twin, scalars, per in VARIANTS for adv in (False, True)[: 1 + per]]


@pytest.mark.parametrize("loss, twin, scalars, per_token", NAMED, ids=lambda x: getattr(x, "__name__", ""))
def test_loss_and_gradient_by_loop(loss, twin, scalars, per_token):
    advantages = TOKEN_ADVANTAGES if per_token else ADVANTAGES
    arrays = OLD, advantages, MASK
    (value, metrics), slope = jax.value_and_grad(lambda x: loss(x, *arrays, **scalars), has_aux=True)(LOGPROBS)
    wide = [np.asarray(x, np.float64) for x in (LOGPROBS, OLD, advantages)]
    by_loop = lambda lp: twin(lp, wide[0], wide[1], wide[2], MASK, **scalars)
    np.testing.assert_allclose(value, by_loop(wide[0]), rtol=1e-6, atol=2e-7)  # gains of both signs nearly cancel
    expected, step = np.zeros(MASK.shape), 1e-6
    for i, t in zip(*np.nonzero(MASK), strict=True):
        nudge = np.zeros(MASK.shape)
        nudge[i, t] = step
        expected[i, t] = (by_loop(wide[0] + nudge) - by_loop(wide[0] - nudge)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert scalars.get("clip_low") == 10 or 0.05 < float(metrics["clip_fraction"]) < 0.95


def all_sums(logprobs, old, ref, advantages, mask):
    """(loss_sum, count) of every variant."""
    arrays = logprobs, old, advantages, mask
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    named = ob.dapo_sums(*arrays, **clips), ob.gspo_sums(*arrays, **clips), ob.gspo_token_sums(*arrays, **clips)
    named += (
        ob.cispo_sums(*arrays, clip_high=0.28),
        ob.dr_grpo_sums(*arrays, length=9.0, clip_epsilon=0.2),
        ob.sequence_grpo_sums(logprobs, old, ref, advantages, mask, clip_epsilon=0.2, kl_coef=0.1),
        ob.grpo_sums(logprobs, old, ref, advantages, mask, clip_epsilon=0.2, kl_coef=0.1),
    )
    return jnp.stack([jnp.stack(sums[:2]) for sums in named])


all_sums_jitted = jax.jit(all_sums)
all_slopes = jax.jit(lambda *arrays: jax.jacrev(lambda x: all_sums(x, *arrays[1:])[:, 0])(arrays[0]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), garbage=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]), data=st.data())
def test_order_padding_and_micro_batches_change_nothing(seed, garbage, data):
    """Batches of 6 rows: shuffled, behind empty rows and garbage, and as two halves."""
    *arrays, mask = case(seed)
    whole, slopes = all_sums_jitted(*arrays, mask), all_slopes(*arrays, mask)
    order = np.array(data.draw(st.permutations(range(6))))
    dirty = [np.where(mask, x, np.float32(garbage)) if x.ndim == 2 else x for x in arrays]
    shuffled = [x[order] for x in (*dirty, mask)]
    close(all_sums_jitted(*shuffled), whole)
    close(all_slopes(*shuffled), np.asarray(slopes)[:, order])
    no_rows = [np.full((6, *x.shape[1:]), garbage, np.float32) for x in arrays]
    halves = []
    for half in (np.arange(6) < 3, np.arange(6) >= 3):  # each filled up with rows that do not count
        pick = lambda x, empty, half=half: np.concatenate([x[half], empty[:3]])
        halves.append(all_sums_jitted(*map(pick, dirty, no_rows), pick(mask, np.zeros_like(mask))))
    close(sum(halves), whole)


def test_grpo_is_a_composition_of_the_pieces():
    log_ratio = ob.log_ratio(LOGPROBS, OLD, MASK)
    gains = ob.clipped_surrogate(ob.token_ratio(log_ratio), ob.per_token(ADVANTAGES), low=0.2, high=0.2)
    kl = ob.k3(ob.log_ratio(LOGPROBS, REF, MASK))
    loss, count = ob.completion_mean_sums(gains - 0.04 * kl, MASK)
    expected, _ = ob.grpo_loss(LOGPROBS, OLD, REF, ADVANTAGES, MASK, clip_epsilon=0.2, kl_coef=0.04)
    close(-loss / count, expected)


def test_gspo_token_with_one_advantage_a_completion_is_gspo():
    clips = {"clip_low": 0.05, "clip_high": 0.1}
    both = [
        jax.value_and_grad(lambda x, f=f: f(x, OLD, ADVANTAGES, MASK, **clips)[0])(LOGPROBS)
        for f in (ob.gspo_loss, ob.gspo_token_loss)
    ]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("ratio, advantage", itertools.product([0.1, 0.9, 1.25, 2.9, 3.1, 50.0], [2.0, -2.0, 0.0]))
def test_dual_clip_bounds_negative_advantages(ratio, advantage):
    found, slope = jax.value_and_grad(
        lambda r: ob.dual_clipped_surrogate(r, jnp.float32(advantage), low=0.2, high=0.28, bound=3.0)
    )(ratio)
    expected = gain(ratio, advantage, 0.2, 0.28)
    expected = max(expected, 3.0 * advantage) if advantage < 0 else expected
    assert float(found) == pytest.approx(expected, rel=1e-6)
    inside = ratio < 1.28 if advantage > 0 else 0.8 < ratio < 3.0
    assert float(slope) == (pytest.approx(advantage, rel=1e-6) if inside and advantage else 0)


def test_importance_corrections_and_the_off_policy_mask_by_loop():
    log_ratio = ob.log_ratio(OLD, REF, MASK)
    ratio, whole = np.exp((OLD - REF).astype(np.float64)), ob.sequence_ratio(log_ratio, MASK)
    found = ob.truncated_importance(ob.token_ratio(log_ratio), cap=1.3)
    kept = ob.masked_importance(ob.token_ratio(log_ratio), low=0.7, high=1.3)
    for i, ts in rows_of(MASK):
        for t in ts:
            assert float(found[i, t]) == pytest.approx(min(ratio[i, t], 1.3), rel=1e-6)
            assert float(kept[i, t]) == pytest.approx(ratio[i, t] if 0.7 <= ratio[i, t] <= 1.3 else 0, rel=1e-6)
        assert float(whole[i, 0]) == pytest.approx(np.prod([ratio[i, t] for t in ts]), rel=1e-5)
    left = ob.off_policy_mask(log_ratio, ADVANTAGES, MASK, threshold=-0.5)
    expected = [
        not (ADVANTAGES[i] < 0 and np.mean([REF[i, t] - OLD[i, t] for t in ts]) > -0.5) for i, ts in rows_of(MASK)
    ]
    assert left[:, 0].tolist() == [float(x) for x in expected] and 0 < sum(expected) < len(expected)
    for weight in (
        lambda x: ob.truncated_importance(x, cap=1.3),
        lambda x: ob.masked_importance(x, low=0.7, high=1.3),
        lambda x: ob.off_policy_mask(x, ADVANTAGES, MASK, threshold=-0.5),
    ):
        np.testing.assert_array_equal(jax.grad(lambda x, weight=weight: weight(x).sum())(np.asarray(log_ratio)), 0)


def test_weights_multiply_the_gains_of_tokens():
    weights = np.random.default_rng(3).uniform(0, 2, MASK.shape).astype(np.float32)
    loss, _ = ob.dapo_loss(LOGPROBS, OLD, ADVANTAGES, MASK, weights=weights)
    gains = [
        weights[i, t] * gain(exp(float(LOGPROBS[i, t]) - float(OLD[i, t])), ADVANTAGES[i], 0.2, 0.28)
        for i, ts in rows_of(MASK)
        for t in ts
    ]
    close(loss, -sum(gains) / len(gains))


# Which estimators of the KL have which gradient: exact expectations over a policy of seven tokens


def softmax_policy(logits):
    return jax.nn.log_softmax(jnp.asarray(logits))


POLICY, REFERENCE, SAMPLER = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)


def expected_slope(estimate, sampler=POLICY):
    """Gradient in the policy's logits of the loss's expectation, its tokens drawn from a sampler that is fixed."""
    chances = jnp.exp(softmax_policy(sampler))

    def loss(logits):
        ours = softmax_policy(logits)
        return jnp.sum(chances * estimate(ours - softmax_policy(REFERENCE), jnp.exp(ours - softmax_policy(sampler))))

    return jax.grad(loss)(POLICY)


def kl(ours, theirs):
    ours, theirs = softmax_policy(ours), softmax_policy(theirs)
    return jnp.sum(jnp.exp(ours) * (ours - theirs))


@pytest.mark.parametrize(
    "estimate, expected",
    [
        (lambda x, ratio: ob.k1(x), lambda logits: 0 * logits.sum()),
        (lambda x, ratio: ob.k2(x), lambda logits: kl(logits, REFERENCE)),
        (lambda x, ratio: ob.k3(x), lambda logits: kl(REFERENCE, logits)),
        (ob.unbiased_kl, lambda logits: kl(logits, REFERENCE)),
        (lambda x, ratio: ratio * ob.k1(x), lambda logits: kl(logits, REFERENCE)),
    ],
    ids=["k1_none", "k2_reverse", "k3_forward", "unbiased_reverse", "weighted_k1_reverse"],
)
def test_expected_gradients_of_the_estimators_on_policy(estimate, expected):
    np.testing.assert_allclose(expected_slope(estimate), jax.grad(expected)(POLICY), atol=3e-7)
    assert (
        np.abs(jax.grad(lambda x: kl(x, REFERENCE))(POLICY) - jax.grad(lambda x: kl(REFERENCE, x))(POLICY)).max() > 0.1
    )


def test_off_policy_only_the_unbiased_estimator_keeps_its_gradient():
    right = jax.grad(lambda logits: kl(logits, REFERENCE))(POLICY)
    np.testing.assert_allclose(expected_slope(ob.unbiased_kl, SAMPLER), right, atol=3e-7)
    for wrong in (ob.k1, ob.k2, ob.k3):
        assert np.abs(expected_slope(lambda x, _, wrong=wrong: wrong(x), SAMPLER) - right).max() > 0.1


def test_expected_values_of_the_estimators():
    x, chances = softmax_policy(POLICY) - softmax_policy(REFERENCE), jnp.exp(softmax_policy(POLICY))
    truth = float(kl(POLICY, REFERENCE))
    assert float(jnp.sum(chances * ob.k1(x))) == pytest.approx(truth, rel=1e-6)
    assert float(jnp.sum(chances * ob.k3(x))) == pytest.approx(truth, rel=1e-6)
    assert abs(float(jnp.sum(chances * ob.k2(x))) - truth) > 0.1
    assert np.all(np.asarray(ob.k3(x)) >= 0) and np.any(np.asarray(ob.k1(x)) < 0)


# Advantages


@given(
    st.integers(1, 6).flatmap(
        lambda size: st.lists(
            st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1 / 3, 1.0, -2.0]), st.booleans()), min_size=size, max_size=size),
            min_size=1, max_size=1,
        )
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_rloo_and_the_filter_by_loop(groups):
    rewards = np.array([[r for r, _ in group] for group in groups], np.float32)
    mask = np.array([[k for _, k in group] for group in groups])
    dirty = np.where(mask, rewards, np.nan)
    found, keeps = ob.rloo_advantages(dirty, mask), ob.informative_groups(dirty, mask)
    for p, group in enumerate(rewards):
        known = [i for i in range(len(group)) if mask[p, i]]
        assert bool(keeps[p]) == (len({float(group[i]) for i in known}) > 1)
        for i in range(len(group)):
            others = [float(group[j]) for j in known if j != i]
            expected = float(group[i]) - sum(others) / len(others) if i in known and others else 0.0
            assert float(found[p, i]) == pytest.approx(expected, abs=2e-6)
        assert bool(keeps[p]) or np.all(np.asarray(found[p]) == 0)


def test_process_advantages_by_loop():
    rng = np.random.default_rng(0)
    rewards, mask = rng.normal(size=(3, 4, 3)).astype(np.float32), rng.random((3, 4, 3)) < 0.8
    ends = np.sort(rng.integers(0, 10, (3, 4, 3)), axis=-1)
    rewards[1] = 0.3
    found = ob.process_advantages(np.where(mask, rewards, np.nan), ends, mask, length=12)
    expected = np.zeros((3, 4, 12))
    for p in range(3):
        known = [float(r) for r in rewards[p][mask[p]]]
        mean = sum(known) / len(known)
        std = (sum((r - mean) ** 2 for r in known) / len(known)) ** 0.5
        for g, t, j in np.ndindex(4, 12, 3):
            if mask[p, g, j] and ends[p, g, j] >= t and p != 1:
                expected[p, g, t] += (float(rewards[p, g, j]) - mean) / (std + 1e-6)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    np.testing.assert_array_equal(found[1], 0)


def test_no_scalar_of_a_loss_retraces():
    arrays = LOGPROBS, OLD, ADVANTAGES, MASK
    for loss, options in (
        (ob.dapo_loss, ("clip_low", "clip_high")),
        (ob.dr_grpo_loss, ("length", "clip_epsilon")),
        (ob.gspo_loss, ("clip_low", "clip_high")),
        (ob.cispo_loss, ("clip_high", "clip_low")),
    ):
        call = functools.partial(loss, *arrays)
        call(**dict.fromkeys(options, 0.1))
        before = loss._cache_size()
        call(**dict.fromkeys(options, 0.3))
        assert loss._cache_size() == before
