"""Losses and gradients against TRL's, on the same random arrays; skipped where TRL is not installed.

The formulas have float64 loops of their own in test_objectives and test_variants. TRL brings many packages and is not
among those of the tests: `pip install trl` to run this.
"""

from collections import defaultdict
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from test_objectives import case

from r1jax import objectives as ob

trl = pytest.importorskip("trl", reason="TRL is not installed; pip install trl")

LOGPROBS, OLD, REF, ADVANTAGES, MASK = case()
WEIGHTS = np.random.default_rng(4).uniform(0.2, 2.0, MASK.shape).astype(np.float32)


def by_trl(
    loss_type="grpo",
    level="token",
    low=0.2,
    high=0.2,
    beta=0.0,
    delta=None,
    unbiased=False,
    threshold=None,
    weights=None,
):
    """Loss and its slope in the log-probabilities by TRL's own method, everything else in its place."""
    tensor = lambda x: torch.tensor(x, dtype=torch.float64)
    logprobs, mask = tensor(LOGPROBS).requires_grad_(), torch.tensor(MASK).long()
    trainer = SimpleNamespace(
        args=SimpleNamespace(use_bias_correction_kl=unbiased, delta=delta, steps_per_generation=1),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1, sync_gradients=True),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        get_off_policy_mask=trl.GRPOTrainer.get_off_policy_mask,
        _metrics={"train": defaultdict(list)}, current_gradient_accumulation_steps=1, aux_loss_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=threshold, importance_sampling_level=level, beta=beta,
        loss_type=loss_type, epsilon_low=low, epsilon_high=high, use_vllm=weights is not None,
        vllm_importance_sampling_correction=True, max_completion_length=MASK.shape[1], _entropy_bonus_enabled=False,
    )  # fmt: skip
    inputs = {
        "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
        "advantages": tensor(ADVANTAGES), "old_per_token_logps": tensor(OLD), "ref_per_token_logps": tensor(REF),
        "num_items_in_batch": mask.sum(), "sampling_per_token_logps": tensor(OLD),
    }  # fmt: skip
    if weights is not None:
        inputs["importance_sampling_ratio"] = tensor(weights)
    loss = trl.GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return loss.item(), logprobs.grad.numpy()


def composed(logprobs, gains, aggregate, kl=0.0, kept=1.0):
    total, count = aggregate(kept * gains - kl, MASK)
    return -total / count


def ratio_of(logprobs):
    return ob.token_ratio(ob.log_ratio(logprobs, OLD, MASK))


def dual(x):
    gains = ob.dual_clipped_surrogate(ratio_of(x), ob.per_token(ADVANTAGES), low=0.2, high=0.2, bound=1.5)
    return composed(x, gains, ob.completion_mean_sums)


def unbiased(x):
    gains = ob.clipped_surrogate(ratio_of(x), ob.per_token(ADVANTAGES), low=0.2, high=0.2)
    kl = 0.3 * ob.unbiased_kl(ob.log_ratio(x, REF, MASK), ratio_of(x))
    return composed(x, gains, ob.completion_mean_sums, kl)


def kept(x):
    gains = ob.clipped_surrogate(ratio_of(x), ob.per_token(ADVANTAGES), low=0.2, high=0.2)
    weight = ob.off_policy_mask(ob.log_ratio(x, OLD, MASK), ADVANTAGES, MASK, threshold=-0.2)
    return composed(x, gains, ob.completion_mean_sums, kept=weight)


CASES = {
    "grpo": (
        lambda x: ob.grpo_loss(x, OLD, REF, ADVANTAGES, MASK, clip_epsilon=0.2, kl_coef=0.04)[0],
        {"beta": 0.04},
    ),
    "clip_10": (
        lambda x: ob.grpo_loss(x, OLD, REF, ADVANTAGES, MASK, clip_epsilon=10.0, kl_coef=0.0)[0],
        {"low": 10.0, "high": 10.0},
    ),
    "dapo": (lambda x: ob.dapo_loss(x, OLD, ADVANTAGES, MASK)[0], {"loss_type": "dapo", "high": 0.28}),
    "dr_grpo": (lambda x: ob.dr_grpo_loss(x, OLD, ADVANTAGES, MASK, length=9.0)[0], {"loss_type": "dr_grpo"}),
    "cispo": (
        lambda x: ob.cispo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.3)[0],
        {"loss_type": "cispo", "high": 1.3},
    ),
    "gspo": (
        lambda x: ob.gspo_loss(x, OLD, ADVANTAGES, MASK, clip_low=0.1, clip_high=0.2)[0],
        {"level": "sequence", "low": 0.1, "high": 0.2},
    ),
    "dual_clip": (dual, {"delta": 1.5}),
    "unbiased_kl": (unbiased, {"beta": 0.3, "unbiased": True}),
    "off_policy_mask": (kept, {"threshold": -0.2}),
    "importance_weights": (
        lambda x: ob.dapo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.2, weights=WEIGHTS)[0],
        {"loss_type": "dapo", "weights": WEIGHTS},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name):
    ours, options = CASES[name]
    loss, slope = jax.jit(jax.value_and_grad(ours))(LOGPROBS)
    expected, expected_slope = by_trl(**options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-6)
    assert np.abs(expected_slope).max() > 0.01
