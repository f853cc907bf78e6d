"""Advantages relative to the group of completions of one prompt."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames="scale")
def group_advantages(rewards, mask=None, *, scale: Literal["std", "none"] = "std", eps: float = 1e-6):
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Args:
      rewards: [P, G], one a completion.
      mask: [P, G], 0 for completions whose reward is unknown (a judge's outage): they get advantage 0 and do not
        enter the group's statistics. None for all ones.
      scale: "std" divides by the group's standard deviation (ddof 0); "none" only subtracts the mean
        (Dr. GRPO, arXiv 2503.20783).
      eps: added to the standard deviation.

    Returns:
      [P, G] float32; all zeros in a group whose rewards are all equal.
    """
    centred, count = _centred(rewards, mask)
    if scale == "none":
        return centred
    if scale != "std":
        raise ValueError(f"scale must be 'std' or 'none', not {scale!r}")
    return centred / (jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / count) + eps)


@jax.jit
def rloo_advantages(rewards, mask=None):
    """A_i = r_i - mean of the other rewards of the group: REINFORCE leave-one-out (arXiv 2402.14740, section 2.4).

    It is n / (n - 1) times Dr. GRPO's advantage, n being the known rewards of the group.

    Args:
      rewards: [P, G].
      mask: [P, G], as `group_advantages` takes it.

    Returns:
      [P, G] float32; all zeros in a group whose rewards are all equal.
    """
    centred, count = _centred(rewards, mask)
    return centred * count / jnp.maximum(count - 1, 1)


@partial(jax.jit, static_argnames="length")
def process_advantages(step_rewards, step_ends, step_mask, *, length: int, eps: float = 1e-6):
    """Advantages of tokens from rewards of reasoning steps (DeepSeekMath, arXiv 2402.03300, section 4.1.3).

    A_it = sum over the steps j of completion i that end at or after token t of (r_ij - mean) / (std + eps), with mean
    and standard deviation (ddof 0) over all steps of all completions of the group.

    Args:
      step_rewards: [P, G, J], one a step.
      step_ends: [P, G, J] int32, index of each step's last token within its completion.
      step_mask: [P, G, J], non-zero where there is such a step. Masked rewards may hold anything.
      length: T, tokens of the result.
      eps: added to the standard deviation.

    Returns:
      [P, G, T] float32; after the last step of a completion 0.
    """
    flat = lambda x: jnp.reshape(x, (x.shape[0], -1))
    step_mask = jnp.asarray(step_mask) > 0
    centred, count = _centred(flat(jnp.asarray(step_rewards)), flat(step_mask))
    normed = centred / (jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / count) + eps)
    still = step_mask[..., None] & (jnp.asarray(step_ends)[..., None] >= jnp.arange(length))
    return jnp.einsum("pgj,pgjt->pgt", normed.reshape(step_mask.shape), still.astype(jnp.float32))


@jax.jit
def informative_groups(accuracy, mask=None):
    """Whether the completions of a prompt differ in accuracy: the filter of dynamic sampling (DAPO, eq. 11).

    Give it the raw accuracy and never a shaped reward: a length penalty makes all-right groups look informative. Values
    are compared exactly.

    Args:
      accuracy: [P, G].
      mask: [P, G], 0 where the accuracy is unknown.

    Returns:
      [P] bool.
    """
    low, high = _range(*_known(accuracy, mask))
    return (high > low)[:, 0]


def _known(rewards, mask):
    rewards = jnp.asarray(rewards, jnp.float32)
    return rewards, jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask) > 0


def _range(rewards, valid):
    low = jnp.min(jnp.where(valid, rewards, jnp.inf), -1, keepdims=True)
    return low, jnp.max(jnp.where(valid, rewards, -jnp.inf), -1, keepdims=True)


def _centred(rewards, mask):
    """Rewards minus their group's mean, 0 where unknown or all equal, and how many are known, at least 1."""
    rewards, valid = _known(rewards, mask)
    count = jnp.maximum(valid.sum(-1, keepdims=True), 1)
    known = jnp.where(valid, rewards, 0.0)
    # Compared exactly: rounding in the mean must not make a signal out of equal rewards.
    low, high = _range(rewards, valid)
    return jnp.where(valid & (high > low), known - known.sum(-1, keepdims=True) / count, 0.0), count
