"""The training state, and one update of it from any loss."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from r1jax.config import UserError
from r1jax.ops.moe import max_violation, update_router_bias
from r1jax.sharding import tree_shardings


class TrainState(NamedTuple):
    """Everything an update reads and replaces."""

    update: jax.Array
    """int32, optimizer updates done."""
    params: dict
    router_bias: jax.Array
    """[num_routers, E] float32; moved by the balancing rule, never by a gradient."""
    opt_state: optax.OptState


class LossOutput(NamedTuple):
    """What a loss function returns: sums, so that micro-batching and padding cannot change a mean."""

    loss_sum: jax.Array
    count: jax.Array
    """What `loss_sum` and `metric_sums` are divided by, once, over the whole batch."""
    metric_sums: dict
    load: jax.Array
    """[num_routers, E] tokens sent to each expert."""


def init_train_state(key, init_params, optimizer, mesh):
    """A fresh state, laid out on the mesh by the logical axes of its parameters; moments follow their parameters.

    Args:
      key: PRNG key.
      init_params: key -> (params boxed with logical axes, router_bias).
      optimizer: optax transformation.
      mesh: from `make_mesh`.

    Returns:
      The state and its tree of shardings.

    Raises:
      UserError: a parameter does not divide over the mesh.
    """

    def init(key):
        boxed, bias = init_params(key)
        return TrainState(jnp.zeros((), jnp.int32), boxed, bias, optimizer.init(boxed))

    shardings = tree_shardings(jax.eval_shape(init, key), mesh)
    return jax.jit(lambda key: nn.meta.unbox(init(key)), out_shardings=shardings)(key), shardings


def gradient_sums(loss_fn):
    """From a loss to the sum of its gradients: (params, router_bias, batch, scalars) -> (grads, LossOutput)."""

    def sums(params, router_bias, batch, scalars):
        def objective(params):
            output = loss_fn(params, router_bias, batch, scalars)
            return output.loss_sum, output

        return jax.grad(objective, has_aux=True)(params)

    return sums


def over_micro_batches(function, num_micro_batches: int, *, collect: bool = False):
    """Apply `function(batch)` to parts of a batch one after the other, so that one part is in memory at a time.

    Args:
      function: pytree of [b, ...] arrays -> pytree.
      num_micro_batches: parts that the leading axis is cut into; must divide it.
      collect: concatenate the results along their leading axis, instead of adding them up.
    """

    def apply(batch):
        if num_micro_batches == 1:
            return function(batch)
        parts = jax.tree.map(lambda x: x.reshape(num_micro_batches, -1, *x.shape[1:]), batch)
        if collect:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(function, parts))
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
        )
        return jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None), zeros, parts)[0]

    return apply


def make_train_step(sums_fn, optimizer, state_shardings, *, num_micro_batches: int = 1, router_bias_rate: float = 0.0):
    """Compile one update: gradients summed over micro-batches, divided once, applied; then the router bias moves.

    Args:
      sums_fn: (params, router_bias, batch, scalars) -> (grads, LossOutput), as `gradient_sums` makes it.
      optimizer: optax transformation.
      state_shardings: of the TrainState, from `init_train_state`.
      num_micro_batches: the batch's leading axis is cut into this many parts, one in memory at a time.
      router_bias_rate: gamma of auxiliary-loss-free balancing; 0 freezes the bias.

    Returns:
      step(state, batch, scalars) -> (state, metrics). `state` is donated. `batch` is a pytree of [B, ...] arrays,
      `scalars` a pytree of traced numbers (a schedule does not recompile). Metrics are means, and `loss`,
      `grad_norm`, `param_norm` (after the update), `max_violation` and `expert_load` ([num_routers, E] shares).
    """

    def step(state: TrainState, batch, scalars):
        part_sums = lambda part: sums_fn(state.params, state.router_bias, part, scalars)
        grads, output = over_micro_batches(part_sums, num_micro_batches)(batch)
        count = jnp.maximum(output.count, 1.0)
        grads = jax.tree.map(lambda g: g / count, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        bias = update_router_bias(state.router_bias, output.load, rate=router_bias_rate)
        metrics = {name: total / count for name, total in output.metric_sums.items()}
        metrics |= {"loss": output.loss_sum / count, "grad_norm": optax.global_norm(grads)}
        metrics["param_norm"] = optax.global_norm(params)
        if output.load.size:
            # Zero for a router that did not run: the MTP module's, outside pre-training.
            total = output.load.sum(-1, keepdims=True)
            metrics["max_violation"] = max_violation(output.load).sum() / jnp.maximum((total > 0).sum(), 1)
            metrics["expert_load"] = output.load / jnp.maximum(total, 1.0)
        return TrainState(state.update + 1, params, bias, opt_state), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, None))


def check_finite(metrics: dict, when: str) -> None:
    """Raise UserError where the loss, the gradient or the updated parameters are not finite, before they are saved."""
    values = {name: float(metrics[name]) for name in ("loss", "grad_norm", "param_norm")}
    if not all(map(math.isfinite, values.values())):
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        raise UserError(
            f"{shown} in {when}: the run has diverged. The last good checkpoint is kept; start from it in a new "
            "--workdir with --init=THIS_WORKDIR, for instance with a smaller learning rate."
        )
