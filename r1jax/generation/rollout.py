"""Grouped rollouts: one prefill a prompt, shared by its group, then decoding until every completion has ended."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.generation.sampling import sample_tokens
from r1jax.models.cache import Cache, init_cache, write_cache
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward_with_routing, output_head


class Rollout(NamedTuple):
    """Completions of P prompts, G each, of at most T tokens."""

    tokens: jax.Array
    """[P, G, T] int32; what the mask leaves out is 0."""
    mask: jax.Array
    """[P, G, T] bool: the completion, its end-of-sequence token included."""
    sampler_logprobs: jax.Array
    """[P, G, T] float32 under the distribution sampled from."""
    finished: jax.Array
    """[P, G] bool: ended by itself; False means cut at T tokens."""
    prompt_experts: jax.Array | None = None
    """[P, S, L, K] int16, where routing is recorded: the experts that each token of a prompt was sent to, in the L
    layers that have experts; -1 for padding."""
    experts: jax.Array | None = None
    """[P, G, T, L, K] int16, the same for completions; -1 where a token was never fed to the model, as the last is."""


class _Rows(NamedTuple):
    """The rows that are being decoded."""

    index: jax.Array
    """[B] int32, place in the whole batch."""
    keys: jax.Array
    lengths: jax.Array
    """[B] int32, tokens of the prompt."""
    cache: Cache
    logits: jax.Array
    done: jax.Array
    tokens: jax.Array
    """[T, B]; time first, so that a step writes one contiguous row."""
    mask: jax.Array
    logprobs: jax.Array
    experts: jax.Array | None
    """[T, B, L, K] int16, or None where routing is not recorded."""


def prompt_positions(prompt_lengths, slots: int):
    """[P, slots] int32: -1 for the padding on the left, then 0, 1, ... for each prompt's tokens."""
    return jnp.maximum(jnp.arange(slots)[None] - (slots - prompt_lengths[:, None]), -1)


def _next_logits(config, params, hidden):
    return jnp.dot(hidden, output_head(config, params), preferred_element_type=jnp.float32)


def _experts_of_tokens(config, experts, positions):
    """[R, B, T, K] of a Routing as [B, T, L, K] int16: routers that ran, -1 for padding."""
    experts = jnp.moveaxis(experts[: config.num_moe_layers], 0, 2).astype(jnp.int16)
    return jnp.where((positions >= 0)[..., None, None], experts, -1)


def _map_cache_rows(function, cache: Cache) -> Cache:
    """Apply `function(array, batch_axis)` to every array of a cache."""
    stack = lambda entries: jax.tree.map(lambda x: function(x, 1), entries)
    return Cache(stack(cache.dense), stack(cache.moe), function(cache.positions, 0))


def _prefill(config, params, router_bias, prompts, prompt_lengths, prompt_keys, *, group_size, max_new_tokens, record):
    """The rows, and the prompts' experts or None."""
    num_prompts, slots = prompts.shape
    rows = num_prompts * group_size
    positions = prompt_positions(prompt_lengths, slots)
    hidden, entries, routing = forward_with_routing(config, params, router_bias, prompts, positions)
    prompt_experts = _experts_of_tokens(config, routing.experts, positions)
    share = lambda x, axis=0: jnp.repeat(x, group_size, axis)
    cache = init_cache(config, rows, slots + max_new_tokens)
    sample = jnp.tile(jnp.arange(group_size), num_prompts)
    started = _Rows(
        index=jnp.arange(rows),
        keys=jax.vmap(jax.random.fold_in)(share(prompt_keys), sample),
        lengths=share(prompt_lengths),
        cache=write_cache(cache, _map_cache_rows(share, entries), 0),
        logits=share(_next_logits(config, params, hidden[:, -1])),
        done=jnp.zeros(rows, bool),
        tokens=jnp.zeros((max_new_tokens, rows), jnp.int32),
        mask=jnp.zeros((max_new_tokens, rows), bool),
        logprobs=jnp.zeros((max_new_tokens, rows), jnp.float32),
        experts=jnp.full((max_new_tokens, rows, *prompt_experts.shape[2:]), -1, jnp.int16) if record else None,
    )
    return started, prompt_experts if record else None


def _decode(config, params, router_bias, slots, eos_ids, temperature, top_p, step, rows: _Rows) -> _Rows:
    """Sample token `step` of every row and run the model on it."""
    length = len(rows.tokens)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(rows.keys)
    token, logprob = sample_tokens(keys, rows.logits, temperature=temperature, top_p=top_p)
    token, logprob = jnp.where(rows.done, 0, token), jnp.where(rows.done, 0.0, logprob)
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new[None], step, 0)
    position = jnp.where(rows.done, -1, rows.lengths + step)[:, None]
    hidden, new, routing = forward_with_routing(config, params, router_bias, token[:, None], position, cache=rows.cache)
    experts = rows.experts
    if experts is not None:
        last = rows.done | jnp.isin(token, jnp.array(eos_ids)) | (step == length - 1)
        fed = jnp.where(last, -1, 0)[:, None]
        experts = put(experts, _experts_of_tokens(config, routing.experts, fed)[:, 0])
    return rows._replace(
        cache=write_cache(rows.cache, new, slots + step),
        logits=_next_logits(config, params, hidden[:, 0]),
        done=rows.done | jnp.isin(token, jnp.array(eos_ids)),
        tokens=put(rows.tokens, token),
        mask=put(rows.mask, ~rows.done),
        logprobs=put(rows.logprobs, logprob),
        experts=experts,
    )


def _keep(rows: _Rows, count: int) -> _Rows:
    """The first `count` rows, those still going before those that are done."""
    order = jnp.argsort(rows.done, stable=True)[:count]
    take = lambda x, axis: jnp.take(x, order, axis=axis)
    first = {name: take(getattr(rows, name), 0) for name in ("index", "keys", "lengths", "logits", "done")}
    last = {name: take(getattr(rows, name), 1) for name in ("tokens", "mask", "logprobs")}
    last["experts"] = jax.tree.map(lambda x: take(x, 1), rows.experts)
    return _Rows(**first, **last, cache=_map_cache_rows(take, rows.cache))


@partial(
    jax.jit,
    static_argnames=("config", "group_size", "max_new_tokens", "eos_ids", "top_p", "halvings", "record_routing"),
)
def generate(
    config: ModelConfig,
    params,
    router_bias,
    prompts,
    prompt_lengths,
    prompt_keys,
    *,
    group_size: int,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    temperature=1.0,
    top_p: float = 1.0,
    halvings: int = 0,
    record_routing: bool = False,
) -> Rollout:
    """Sample `group_size` completions of every prompt.

    Each sample's noise is folded from its prompt's key, its index in the group and the token's index, so a completion
    is the same whatever else is in the batch.

    Args:
      params, router_bias: of the model.
      prompts: [P, S] int32, padded on the left.
      prompt_lengths: [P] int32, in tokens.
      prompt_keys: [P] PRNG keys.
      group_size: completions a prompt.
      max_new_tokens: a completion is cut after this many tokens, end-of-sequence included.
      eos_ids: any of them ends a completion.
      temperature: divides the logits.
      top_p: below 1, tokens are drawn from the nucleus of this probability; see `sample_tokens`.
      halvings: how often the batch is halved, when half of its rows are done; saves work where lengths differ, and
        costs one compiled loop each.
      record_routing: also return the experts of every token.
    """
    num_prompts, slots = prompts.shape
    rows, prompt_experts = _prefill(
        config, params, router_bias, prompts, prompt_lengths, prompt_keys,
        group_size=group_size, max_new_tokens=max_new_tokens, record=record_routing,
    )  # fmt: skip
    total = num_prompts * group_size
    body = partial(_decode, config, params, router_bias, slots, eos_ids, temperature, top_p)
    outputs = (rows.done[None], rows.tokens, rows.mask, rows.logprobs, rows.experts)
    step = jnp.int32(0)
    for halving in range(halvings + 1):
        stop_at = total >> (halving + 1) if halving < halvings else 0
        going = lambda c, stop_at=stop_at: (c[0] < max_new_tokens) & (jnp.sum(~c[1].done) > stop_at)
        step, rows = jax.lax.while_loop(going, lambda c: (c[0] + 1, body(*c)), (step, rows))
        written = (rows.done[None], rows.tokens, rows.mask, rows.logprobs, rows.experts)
        outputs = jax.tree.map(lambda old, new, index=rows.index: old.at[:, index].set(new), outputs, written)
        if stop_at:
            rows = _keep(rows, stop_at)
    grouped = lambda x: jnp.moveaxis(x, 0, 1).reshape(num_prompts, group_size, -1, *x.shape[2:])
    done, tokens, mask, logprobs, experts = jax.tree.map(grouped, outputs)
    return Rollout(tokens, mask, logprobs, done[..., 0], prompt_experts, experts)
