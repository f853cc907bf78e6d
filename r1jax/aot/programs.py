"""The programs that stages run, with abstract arguments laid out on a mesh; nothing is allocated.

Each is made by the function that the stage itself calls, with the settings that the stage takes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from r1jax.config import UserError
from r1jax.data.packing import TrainingRows
from r1jax.generation import decode as engine
from r1jax.generation import rollout
from r1jax.generation.relayout import make_relayout
from r1jax.generation.sampler import rollout_settings
from r1jax.generation.slots import Decoding, entry_axes
from r1jax.grpo_config import GrpoConfig, loss_scalars
from r1jax.models.config import ModelConfig
from r1jax.models.layers import cast_shapes
from r1jax.models.transformer import init_params
from r1jax.optimizer import make_optimizer
from r1jax.rl import GrpoRows, Rows, grpo_batch_loss
from r1jax.rl_layout import Layout, choose_layout
from r1jax.sft_stage import SftConfig, sft_loss
from r1jax.sharding import abstract_arrays, batch_sharding, check_divides, partition_spec, replicated
from r1jax.train import TrainState, gradient_sums, make_train_step

EOS = (1,)
"""Which token ends a completion makes no difference to the programs."""


class Case(NamedTuple):
    """A function that is yet to be compiled, what it is called with, and what is known of its work."""

    function: Callable
    """With `lower`."""
    arguments: tuple
    keywords: dict
    mesh: Any
    """In force where it runs."""
    resident: tuple
    """Pytrees of arrays that lie on the chips while it runs, besides its arguments."""
    tokens: int
    """That the model reads in one call."""
    predictions: int
    """Tokens of which it tells probabilities."""
    passes: int
    """Forward passes that its matrix products cost: 0 where there are none, 1 forward, 3 with the backward pass."""
    context: float
    """Keys that a query sees, on average."""
    open_loops: int = 0
    """Loops whose end depends on the data."""
    turns: int = 1
    """How often the innermost of them is counted."""
    moves_weights: bool = False
    """It is its purpose."""


def abstract_state(model: ModelConfig, optimizer, mesh) -> TrainState:
    """The training state as shapes with their shardings."""

    def init(key):
        params, bias = init_params(model, key)
        return TrainState(jnp.zeros((), jnp.int32), params, bias, optimizer.init(params))

    return abstract_arrays(jax.eval_shape(init, jax.random.key(0)), mesh)


def rl_state(model: ModelConfig, config: GrpoConfig, mesh) -> TrainState:
    """That of a stage of reinforcement learning."""
    return abstract_state(model, make_optimizer(config.optimizer, 1), mesh)


def policy_of(state: TrainState) -> tuple:
    """Parameters and router bias."""
    return state.params, state.router_bias


def reference_of(model: ModelConfig, state: TrainState) -> tuple:
    """Those of the reference policy, which is kept in the compute dtype."""
    return cast_shapes(model, state.params), state.router_bias


def kept_reference(model: ModelConfig, config: GrpoConfig, state: TrainState) -> tuple:
    """What of it is on the devices while it does not score."""
    return () if config.offload_reference else reference_of(model, state)


def placed(x, sharding) -> jax.ShapeDtypeStruct:
    """The shape of an array, laid out."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def by_batch(mesh, tree, count: int | None = None):
    """Arrays whose leading axis is the batch, made `count` long where that is given; numbers are on every device.

    Raises:
      UserError: an axis does not divide over the mesh.
    """

    def place(x):
        x = jax.ShapeDtypeStruct(x.shape if count is None else (count, *x.shape[1:]), x.dtype)
        if not x.ndim:
            return placed(x, replicated(mesh))
        check_divides(mesh, x.shape[0], "batch", "the batch")
        return placed(x, batch_sharding(mesh))

    return jax.tree.map(place, tree)


def sft_case(model: ModelConfig, mesh, config: SftConfig) -> Case:
    """One update of supervised fine-tuning."""
    optimizer = make_optimizer(config.optimizer, 1)
    state = abstract_state(model, optimizer, mesh)
    grid = lambda dtype: jax.ShapeDtypeStruct((config.batch_size, config.sequence_length), dtype)
    rows = by_batch(mesh, TrainingRows(*[grid(jnp.int32)] * 4, grid(jnp.float32)))
    step = make_train_step(
        gradient_sums(partial(sft_loss, model)), optimizer, jax.tree.map(lambda x: x.sharding, state),
        num_micro_batches=config.micro_batches, router_bias_rate=config.router_bias_rate,
    )  # fmt: skip
    tokens = config.batch_size * config.sequence_length
    return Case(step, (state, rows, {}), {}, mesh, (), tokens, tokens, 3, config.sequence_length / 2)


def _arranged(layout: Layout, mesh, config: GrpoConfig, micro_batches: int):
    """Rows as the layout arranges them, so many micro-batches of them, laid out."""
    rows, sampling = config.rows_at_a_time, config.sampling
    zeros = lambda width, dtype: np.zeros((rows, width), dtype)
    given = Rows(
        zeros(sampling.prompt_slots, np.int32), np.ones(rows, np.int32), zeros(sampling.max_new_tokens, np.int32),
        zeros(sampling.max_new_tokens, bool),
    )  # fmt: skip
    one, _ = layout.arrange(given)
    grow = lambda x: jax.ShapeDtypeStruct((len(x) * micro_batches, *x.shape[1:]), x.dtype)
    return by_batch(mesh, jax.tree.map(grow, one))


def _trained(config: GrpoConfig, micro_batches: int) -> dict:
    """What the passes over so many micro-batches of completions of full length amount to."""
    sampling, rows = config.sampling, config.rows_at_a_time * micro_batches
    length = sampling.prompt_slots + sampling.max_new_tokens - 1
    sizes = {"tokens": rows * length, "predictions": rows * sampling.max_new_tokens, "context": length / 2}
    if config.packing == "none":
        return sizes
    # Counted at one sequence a row: packed rows have room for it, and are fewer where completions are shorter.
    return sizes | {"open_loops": 1, "turns": micro_batches}


def grpo_case(model: ModelConfig, mesh, config: GrpoConfig) -> Case:
    """One update of GRPO: a mini-batch."""
    state, layout = rl_state(model, config, mesh), choose_layout(model, config, grpo_batch_loss)
    arranged = _arranged(layout, mesh, config, config.micro_batches)
    count = config.rows_at_a_time * config.micro_batches
    values = lambda *shape: by_batch(mesh, jax.ShapeDtypeStruct((count, *shape), jnp.float32))
    wide = config.sampling.max_new_tokens
    old = values(wide) if config.watch_mismatch else None
    batch = GrpoRows(arranged, old, values(wide), values(), values(wide))
    step = make_train_step(
        layout.sums, make_optimizer(config.optimizer, 1), jax.tree.map(lambda x: x.sharding, state),
        router_bias_rate=config.router_bias_rate,
    )  # fmt: skip
    scalars = loss_scalars(config, np.ones(count), np.ones((count, wide), bool))
    arguments = state, batch, scalars
    kept = kept_reference(model, config, state)
    return Case(step, arguments, {}, mesh, kept, passes=3, **_trained(config, config.micro_batches))


def score_case(model: ModelConfig, mesh, config: GrpoConfig) -> Case:
    """Log-probabilities of all completions of an iteration under the policy or the reference."""
    state, layout = rl_state(model, config, mesh), choose_layout(model, config, grpo_batch_loss)
    parts = config.micro_batches * config.mini_batches
    rows, others = _arranged(layout, mesh, config, parts), (state.opt_state, reference_of(model, state))
    arguments = *policy_of(state), rows, config.sampling.temperature
    return Case(layout.score, arguments, {}, mesh, others, passes=1, **_trained(config, parts))


def relayout_case(model: ModelConfig, mesh, config: GrpoConfig) -> Case:
    """The copy of the policy that the sampler has for itself.

    Raises:
      UserError: it has none.
    """
    if not config.sampling.relayout:
        raise UserError("--programs relayout: with --grpo.sampling.no-relayout the sampler takes the trainer's weights")
    state = rl_state(model, config, mesh)
    relayout = make_relayout(model, config.sampling.mesh_of(mesh))
    others = state.opt_state, kept_reference(model, config, state)
    return Case(relayout, policy_of(state), {}, mesh, others, 0, 0, 0, 0.0, moves_weights=True)


class _Sampling(NamedTuple):
    """What prefill and decoding share."""

    mesh: Any
    policy: tuple
    resident: tuple
    decoding: Decoding
    start: tuple
    """Arguments and keywords of `rollout.start`."""
    slots: int


def _sampling(model: ModelConfig, mesh, config: GrpoConfig) -> _Sampling:
    sampling, state = config.sampling, rl_state(model, config, mesh)
    kept = kept_reference(model, config, state)
    own, policy, resident = sampling.mesh_of(mesh), policy_of(state), (state.opt_state, kept)
    if sampling.relayout:
        relayout = make_relayout(model, own)
        shapes = jax.eval_shape(relayout, *policy)
        shardings = abstract_arrays(jax.eval_shape(partial(init_params, model), jax.random.key(0)), own)
        policy = jax.tree.map(lambda x, laid: placed(x, laid.sharding), shapes, shardings)
        resident = (state, kept)
    settings = rollout_settings(sampling)
    total = sampling.prompts * sampling.group_size
    slots = min(sampling.slots or total, total)
    check_divides(own, slots, "batch", "sampling.slots")
    names = ("temperature", "top_k", "top_p", "min_p", "widths", "prefill_rows", "prefill_chunk")
    plan = {name: settings[name] for name in names}
    decoding = rollout.plan_decoding(sampling.prompt_slots + sampling.max_new_tokens, slots, eos_ids=EOS, **plan)
    prompts, keys = np.zeros((sampling.prompts, sampling.prompt_slots), np.int32), jax.random.key(0)
    given = by_batch(own, (prompts, prompts[:, 0], jax.ShapeDtypeStruct((sampling.prompts,), keys.dtype)))
    names = ("group_size", "max_new_tokens", "prefill_rows", "cache_dtype", "record_routing", "speculative")
    keywords = {name: settings[name] for name in names} | {"slots": slots}
    return _Sampling(own, policy, resident, decoding, ((model, decoding, *policy, *given, None), keywords), slots)


def prefill_case(model: ModelConfig, mesh, config: GrpoConfig) -> Case:
    """All prompts of an iteration, and the empty slots of the decoder."""
    shared, sampling = _sampling(model, mesh, config), config.sampling
    chunks = -(-sampling.prompt_slots // sampling.prefill_chunk)
    loops = {"open_loops": 1, "turns": chunks} if chunks > 1 else {}
    return Case(
        rollout.start, *shared.start, shared.mesh, shared.resident,
        sampling.prompts * sampling.prompt_slots, 0, 1, sampling.prompt_slots / 2, **loops,
    )  # fmt: skip


def _lay_entries(model: ModelConfig, mesh, entries):
    """As the engine does."""
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, partition_spec(entry_axes(model)))
    return jax.tree.map(lambda x: placed(x, sharding), entries)


def decode_case(model: ModelConfig, mesh, config: GrpoConfig) -> Case:
    """Continuous batching: one dispatch, whose steps are counted with full caches, and one refilling of slots."""
    shared, sampling = _sampling(model, mesh, config), config.sampling
    if sampling.speculative:
        raise UserError("--programs decode knows the plain engine only; leave off --grpo.sampling.speculative")
    arguments, keywords = shared.start
    requests, state = jax.eval_shape(partial(rollout.start, *arguments[:2], **keywords), *arguments[2:])
    stack = lambda tree: _lay_entries(model, shared.mesh, tree)
    of = partial(by_batch, shared.mesh)
    whole = partial(jax.tree.map, lambda x: placed(x, replicated(shared.mesh)))
    prefixes = of(requests.prefixes._replace(dense=None, moe=None))
    prefixes = prefixes._replace(dense=stack(requests.prefixes.dense), moe=stack(requests.prefixes.moe))
    requests = whole(requests._replace(prefixes=None))._replace(prefixes=prefixes)
    slots = of(state.slots._replace(entries=None, fresh=None))
    slots = slots._replace(entries=stack(state.slots.entries), fresh=stack(state.slots.fresh))
    state = whole(state._replace(slots=None, output=None))._replace(slots=slots, output=of(state.output))
    numbers = {"temperature": jnp.float32(1), "until": jnp.int32(1), "stop_at": 0}
    arguments = model, shared.decoding, *shared.policy, requests, state
    return Case(
        engine.advance, arguments, numbers, shared.mesh, shared.resident,
        shared.slots * sampling.steps, shared.slots * sampling.steps, 1, shared.decoding.widths[-1], open_loops=3,
        turns=sampling.steps,
    )  # fmt: skip
