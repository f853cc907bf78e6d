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
    moments: Literal["float32", "bfloat16"] = "float32"
    """What both moments are kept in between updates; DeepSeek-V3 keeps them in bfloat16 (section 3.3.3)."""


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


def make_optimizer(
    config: OptimizerConfig, total_updates: int, *, train_mtp: bool = False
) -> optax.GradientTransformation:
    """The optax transformation for `config`; weight decay touches only what is not a norm scale.

    Only pre-training trains the multi-token prediction module of a model, params["mtp"]. Elsewhere no loss reads it,
    and here it is left as it is, without weight decay and without moments.
    """
    is_scale = lambda path: any(getattr(key, "key", None) == "scale" for key in path)
    is_matrix = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: not is_scale(path), params)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.chain(  # AdamW
            _keep_moments_in(config.moments, optax.scale_by_adam(config.beta1, config.beta2, config.eps)),
            optax.add_decayed_weights(config.weight_decay, is_matrix),
            optax.scale_by_learning_rate(learning_rate_schedule(config, total_updates)),
        ),
    )
    return optimizer if train_mtp else _leave_alone(optimizer, "mtp")


def _keep_moments_in(dtype: str, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """`adam` with moments that are `dtype` between updates, and float32 within one."""
    if dtype == "float32":
        return adam

    def in_dtype(state, dtype):
        cast = lambda moments: jax.tree.map(lambda moment: moment.astype(dtype), moments)
        return state._replace(mu=cast(state.mu), nu=cast(state.nu))

    def update(gradients, state, params=None):
        updates, state = adam.update(gradients, in_dtype(state, jax.numpy.float32), params)
        return updates, in_dtype(state, dtype)

    return optax.GradientTransformation(lambda params: in_dtype(adam.init(params), dtype), update)


def _leave_alone(optimizer: optax.GradientTransformation, name: str) -> optax.GradientTransformation:
    """`optimizer` for all parameters but params[name], where there is one: its updates are zero, its state empty."""
    others = lambda tree: tree if tree is None else {key: value for key, value in tree.items() if key != name}

    def update(gradients, state, params=None):
        updates, state = optimizer.update(others(gradients), state, others(params))
        untouched = {
            key: jax.tree.map(jax.numpy.zeros_like, gradients[key]) for key in gradients.keys() - updates.keys()
        }
        return updates | untouched, state

    return optax.GradientTransformation(lambda params: optimizer.init(others(params)), update)
