"""AdamW with warm-up, a learning-rate schedule and clipping by global norm."""

import dataclasses
from typing import Literal

import jax
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule; the defaults are DeepSeek-V3's where it states them (section 4.2)."""

    learning_rate: float
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After warm-up: stay at the peak, or fall along a cosine to `final_fraction` of it at the last update."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises from 0."""
    final_fraction: float = 0.1
    """Last learning rate as a share of the peak (cosine only)."""
    beta1: float = 0.9
    """Decay of the first moment, per update."""
    beta2: float = 0.95
    """Decay of the second moment, per update."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled; not applied to norm scales."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""


def learning_rate_schedule(config: OptimizerConfig, total_updates: int) -> optax.Schedule:
    """Learning rate as a function of the update, counted from 0."""
    if config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.cosine_decay_schedule(
            config.learning_rate, max(total_updates - config.warmup_updates, 1), alpha=config.final_fraction
        )
    if not config.warmup_updates:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_updates)
    return optax.join_schedules([warmup, after], [config.warmup_updates])


def make_optimizer(config: OptimizerConfig, total_updates: int) -> optax.GradientTransformation:
    """The optax transformation for `config`; weight decay touches only what is not a norm scale."""
    is_scale = lambda path: any(getattr(key, "key", None) == "scale" for key in path)
    is_matrix = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: not is_scale(path), params)
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            learning_rate_schedule(config, total_updates),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=is_matrix,
        ),
    )
