"""The programs of training and sampling with abstract arguments, laid out on a mesh; nothing is allocated."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from r1jax.data.packing import TrainingRows
from r1jax.generation.prefill import prompt_positions
from r1jax.generation.sampling import sample_tokens
from r1jax.models.cache import Cache, init_cache, write_cache
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.rl import GrpoRows, Rows, grpo_batch_loss, make_score
from r1jax.sft_stage import sft_loss
from r1jax.sharding import abstract_arrays, batch_sharding, check_divides, partition_spec, replicated
from r1jax.train import TrainState, gradient_sums, make_train_step


class Case(NamedTuple):
    """A compiled function that is yet to be compiled, and what it is called with."""

    function: Callable
    """With `lower`."""
    arguments: tuple
    tokens: int
    """That the model reads in one call."""
    passes: int
    """Forward passes that its matrix products cost: 1 forward, 3 with the backward pass."""


def abstract_state(model: ModelConfig, optimizer, mesh) -> TrainState:
    """The training state as shapes with their shardings."""

    def init(key):
        params, bias = init_params(model, key)
        return TrainState(jnp.zeros((), jnp.int32), params, bias, optimizer.init(params))

    return abstract_arrays(jax.eval_shape(init, jax.random.key(0)), mesh)


def abstract_policy(model: ModelConfig, mesh, dtype) -> tuple:
    """Parameters in `dtype` and router bias, as shapes with their shardings."""
    params, bias = jax.eval_shape(partial(init_params, model), jax.random.key(0))
    params, bias = abstract_arrays((params, bias), mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), params), bias


def batch_of(mesh, shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    """An array whose leading axis is the batch.

    Raises:
      UserError: it does not divide over the mesh.
    """
    check_divides(mesh, shape[0], "batch", "the batch")
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def scalar(mesh, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    """A number, the same on every device."""
    return jax.ShapeDtypeStruct((), dtype, sharding=replicated(mesh))


def _train_step(loss, optimizer, state: TrainState, micro_batches: int):
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return make_train_step(gradient_sums(loss), optimizer, shardings, num_micro_batches=micro_batches)


def sft_case(model: ModelConfig, mesh, optimizer, *, sequences: int, length: int, micro_batches: int) -> Case:
    """One update of supervised fine-tuning on packed rows of `length` tokens."""
    state = abstract_state(model, optimizer, mesh)
    of = partial(batch_of, mesh, (sequences, length))
    rows = TrainingRows(*[of(jnp.int32)] * 4, of(jnp.float32))
    step = _train_step(partial(sft_loss, model), optimizer, state, micro_batches)
    return Case(step, (state, rows, {}), sequences * length, 3)


def _rows(mesh, sequences: int, prompt_slots: int, length: int) -> Rows:
    of, completion = partial(batch_of, mesh), length - prompt_slots
    return Rows(
        of((sequences, prompt_slots), jnp.int32), of((sequences,), jnp.int32), of((sequences, completion), jnp.int32),
        of((sequences, completion), jnp.bool_),
    )  # fmt: skip


def grpo_case(
    model: ModelConfig, mesh, optimizer, *, sequences: int, prompt_slots: int, length: int, micro_batches: int
) -> Case:
    """One update of GRPO on rows of `length` tokens, of which the first `prompt_slots` are the prompt."""
    state, rows = abstract_state(model, optimizer, mesh), _rows(mesh, sequences, prompt_slots, length)
    values = batch_of(mesh, rows.tokens.shape, jnp.float32)
    batch = GrpoRows(rows, values, values, batch_of(mesh, (sequences,), jnp.float32))
    scalars = {name: scalar(mesh) for name in ("temperature", "clip_epsilon", "kl_coef")}
    step = _train_step(partial(grpo_batch_loss, model), optimizer, state, micro_batches)
    return Case(step, (state, batch, scalars), sequences * length, 3)


def score_case(
    model: ModelConfig, mesh, *, sequences: int, prompt_slots: int, length: int, micro_batches: int, dtype
) -> Case:
    """Log-probabilities of completions under a policy kept in `dtype`."""
    rows = _rows(mesh, sequences, prompt_slots, length)
    score = make_score(model, rows_at_a_time=sequences // micro_batches, lengths=(length - prompt_slots,))
    return Case(score, (*abstract_policy(model, mesh, dtype), rows, scalar(mesh)), sequences * length, 1)


def prefill(model: ModelConfig, params, router_bias, prompts, prompt_lengths):
    """Cache entries of [P, S] prompts, padded on the left, and the logits [P, V] of the next token."""
    positions = prompt_positions(prompt_lengths, prompts.shape[1])
    hidden, entries, _ = forward(model, params, router_bias, prompts, positions)
    return entries, next_logits(model, params, hidden[:, -1])


def next_logits(model: ModelConfig, params, hidden):
    """[B, D] -> [B, V] float32."""
    return jnp.dot(hidden, output_head(model, params), preferred_element_type=jnp.float32)


def decode(model: ModelConfig, params, router_bias, cache: Cache, logits, positions, keys, slot, temperature):
    """Sample one token a row from its logits and run the model on it: cache, logits, tokens, log-probabilities."""
    tokens, logprobs = sample_tokens(jax.vmap(jax.random.wrap_key_data)(keys), logits, temperature=temperature)
    hidden, new, _ = forward(model, params, router_bias, tokens[:, None], positions[:, None], cache=cache)
    return write_cache(cache, new, slot), next_logits(model, params, hidden[:, 0]), tokens, logprobs


def _cache_shardings(model: ModelConfig, mesh, cache: Cache):
    """Rows are cut as the batch, keys and values by heads; the latent has none."""
    axes = ("layers", "batch", None, "heads") if model.num_kv_heads else ("layers", "batch")
    stack = NamedSharding(mesh, partition_spec(axes))
    return Cache(*(jax.tree.map(lambda _: stack, part) for part in cache[:2]), batch_sharding(mesh))


def prefill_case(model: ModelConfig, mesh, *, prompts: int, prompt_slots: int, dtype) -> Case:
    """Prefill of a batch of prompts."""
    given = batch_of(mesh, (prompts, prompt_slots), jnp.int32), batch_of(mesh, (prompts,), jnp.int32)
    cache = jax.eval_shape(partial(init_cache, model, prompts, prompt_slots))
    function = jax.jit(partial(prefill, model), out_shardings=(_cache_shardings(model, mesh, cache), None))
    return Case(function, (*abstract_policy(model, mesh, dtype), *given), prompts * prompt_slots, 1)


def decode_case(model: ModelConfig, mesh, *, slots: int, cache_length: int, dtype) -> Case:
    """One token for each of `slots` rows whose caches hold `cache_length` tokens."""
    of, cache = partial(batch_of, mesh), jax.eval_shape(partial(init_cache, model, slots, cache_length))
    shardings = _cache_shardings(model, mesh, cache)
    cache = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), cache, shardings
    )
    logits = jax.ShapeDtypeStruct(
        (slots, model.vocab_size), jnp.float32, sharding=NamedSharding(mesh, partition_spec(("batch", "vocab")))
    )
    numbers = of((slots,), jnp.int32), of((slots, 2), jnp.uint32), scalar(mesh, jnp.int32), scalar(mesh)
    function = jax.jit(
        partial(decode, model), donate_argnums=(2, 3), out_shardings=(shardings, logits.sharding, None, None)
    )
    return Case(function, (*abstract_policy(model, mesh, dtype), cache, logits, *numbers), slots, 1)
