"""Running the model on tokens that are known: prompts, and completions that go on where they were cut."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.models.cache import (
    Cache,
    CacheDtype,
    Entries,
    along_slots,
    encode_entries,
    encode_like,
    init_cache,
    slice_slots,
    zero_entries,
)
from r1jax.models.config import ModelConfig
from r1jax.models.mtp import mtp_with_cache
from r1jax.models.transformer import forward_with_routing
from r1jax.sharding import count_ways


class Prefixes(NamedTuple):
    """What the model made of R sequences of known tokens; token t of a sequence is at slot t."""

    dense: Entries
    moe: Entries
    hidden: jax.Array
    """[R, D] of each sequence's last token, from which the next is drawn."""
    experts: jax.Array | None
    """[R, W, L, K] int16, -1 for what was not fed; None where routing is not recorded."""
    mtp: Entries | None = None
    """[1, R, W, ...] of the module that predicts the token after the next, which has run on all tokens but the last of
    each sequence, for it needs the next one; None where nothing is to be drafted."""


def prompt_positions(prompt_lengths, slots: int):
    """[P, slots] int32: -1 for the padding on the left, then 0, 1, ... for each prompt's tokens."""
    return jnp.maximum(jnp.arange(slots)[None] - (slots - prompt_lengths[:, None]), -1)


def shift_rows(rows, by):
    """Element i of row r [R, W, ...] becomes its element i + by[r], modulo W: moves padding from one side to the other."""
    source = (jnp.arange(rows.shape[1])[None] + by[:, None]) % rows.shape[1]
    return jnp.take_along_axis(rows, source.reshape(*source.shape, *[1] * (rows.ndim - 2)), axis=1)


def token_experts(config: ModelConfig, experts, fed):
    """[B, T, L, K] int16 from the experts [R, B, T, K] of a Routing: those of routers that ran, -1 where not `fed`."""
    experts = jnp.moveaxis(experts[: config.num_moe_layers], 0, 2).astype(jnp.int16)
    return jnp.where(fed[..., None, None], experts, -1)


def prefill(
    config: ModelConfig, params, router_bias, prompts, prompt_lengths,
    *, rows: int, chunk: int, cache_dtype: CacheDtype, record_routing: bool, drafts: bool,
) -> Prefixes:  # fmt: skip
    """Run the model on every prompt once.

    Args:
      params, router_bias: of the model.
      prompts: [P, S] int32, padded on the left.
      prompt_lengths: [P] int32.
      rows: prompts at a time, at most.
      chunk: tokens of a prompt at a time; with `rows` this bounds the memory of activations.
      cache_dtype: how entries are kept.
      record_routing: keep the experts of every token.
      drafts: run the module that predicts the token after the next, too.
    """
    slots = prompts.shape[1]
    tokens = shift_rows(prompts, slots - prompt_lengths)

    def one_group(group):
        tokens, lengths = group
        if slots <= chunk:
            return _whole(config, params, router_bias, tokens, lengths, cache_dtype, record_routing, drafts)
        tokens = jnp.pad(tokens, ((0, 0), (0, -slots % chunk)))
        empty = _empty(config, *tokens.shape, cache_dtype, record_routing, drafts)
        fed = feed(config, params, router_bias, tokens, jnp.zeros_like(lengths), lengths, empty, chunk=chunk)
        dense, moe, mtp = slice_slots((fed.dense, fed.moe, fed.mtp), 0, slots)
        experts = None if fed.experts is None else fed.experts[:, :slots]
        return Prefixes(dense, moe, fed.hidden, experts, mtp)

    count, parts = len(prompts), count_ways("batch")
    groups = -(-count // max(rows, parts))
    rows = -(-count // (groups * parts)) * parts
    split = lambda x: jnp.pad(x, [(0, groups * rows - count)] + [(0, 0)] * (x.ndim - 1)).reshape(
        groups, rows, *x.shape[1:]
    )
    filled = jax.lax.map(one_group, jax.tree.map(split, (tokens, prompt_lengths)))
    stack = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], groups * rows, *x.shape[3:])[
        :, :count
    ]  # of [groups, L, rows, ...]
    dense, moe, mtp = jax.tree.map(stack, (filled.dense, filled.moe, filled.mtp))
    join = lambda x: x.reshape(-1, *x.shape[2:])[:count]
    return Prefixes(dense, moe, *jax.tree.map(join, (filled.hidden, filled.experts)), mtp)


def _empty(config, rows, slots, cache_dtype, record_routing, drafts) -> Prefixes:
    cache = init_cache(config, rows, slots, cache_dtype)
    shape = (rows, slots, config.num_moe_layers, config.num_experts_per_token)
    experts = jnp.full(shape, -1, jnp.int16) if record_routing else None
    mtp = zero_entries(config, 1, rows, slots, cache_dtype) if drafts else None
    return Prefixes(cache.dense, cache.moe, jnp.zeros((rows, config.embed_dim), config.dtype), experts, mtp)


def _whole(config, params, router_bias, tokens, lengths, cache_dtype, record_routing, drafts) -> Prefixes:
    """Whole prompts at once, which needs no cache."""
    slots = jnp.arange(tokens.shape[1])[None]
    fed = slots < lengths[:, None]
    hidden, new, routing = forward_with_routing(config, params, router_bias, tokens, jnp.where(fed, slots, -1))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    mtp = None
    if drafts:
        positions = jnp.where(slots < lengths[:, None] - 1, slots, -1)
        _, mtp = mtp_with_cache(config, params, router_bias, hidden, jnp.roll(tokens, -1, axis=1), positions)
        mtp = encode_entries(mtp, cache_dtype)
    dense, moe = encode_entries(new.dense, cache_dtype), encode_entries(new.moe, cache_dtype)
    return Prefixes(dense, moe, last, token_experts(config, routing.experts, fed) if record_routing else None, mtp)


def feed(config: ModelConfig, params, router_bias, tokens, start, stop, prefixes: Prefixes, *, chunk: int) -> Prefixes:
    """Run the model on tokens [start, stop) of each row, `chunk` of them at a time, so that memory is bounded.

    Args:
      params, router_bias: of the model.
      tokens: [R, W] int32, W a multiple of `chunk`; every row begins at slot 0.
      start, stop: [R] int32; what comes before `start` has been fed already, where they are equal nothing happens.
      prefixes: of W slots, what has been fed.
    """
    slots, following = jnp.arange(tokens.shape[1])[None], jnp.roll(tokens, -1, axis=1)

    def body(state):
        index, prefixes = state
        first = index * chunk
        here = first + jnp.arange(chunk)[None]
        fed = (start[:, None] <= here) & (here < stop[:, None])
        seen = slots < jnp.minimum(jnp.maximum(first, start), stop)[:, None]
        cache = Cache(prefixes.dense, prefixes.moe, jnp.where(seen, slots, -1))
        part = jax.lax.dynamic_slice_in_dim(tokens, first, chunk, 1)
        positions = jnp.where(fed, here, -1)
        hidden, new, routing = forward_with_routing(config, params, router_bias, part, positions, cache=cache)
        mtp = None
        if prefixes.mtp is not None:
            part, known = jax.lax.dynamic_slice_in_dim(following, first, chunk, 1), fed & (here < stop[:, None] - 1)
            _, mtp = mtp_with_cache(
                config, params, router_bias, hidden, part, jnp.where(known, here, -1),
                cache=prefixes.mtp, cache_positions=cache.positions,
            )  # fmt: skip
        return index + 1, _add_chunk(config, prefixes, (hidden, new, routing, mtp), first, here, fed, stop)

    going = lambda state: state[0] * chunk < jnp.max(jnp.where(start < stop, stop, 0))
    first = jnp.min(jnp.where(start < stop, start, tokens.shape[1])) // chunk
    return jax.lax.while_loop(going, body, (first, prefixes))[1]


def _add_chunk(config, prefixes: Prefixes, outputs, first, here, fed, stop) -> Prefixes:
    """Store what the model returned for slots `here`; what was not `fed` keeps what it holds."""
    hidden, new, routing, mtp = outputs

    def place(axis, old, new, rows=1):
        mask = jnp.expand_dims(fed, [i for i in range(old.ndim) if i not in (rows, axis)])
        before = jax.lax.dynamic_slice_in_dim(old, first, here.shape[1], axis)
        return jax.lax.dynamic_update_slice_in_dim(old, jnp.where(mask, new, before), first, axis)

    stack = lambda old, new: along_slots(place, old, encode_like(new, old))
    last = fed & (here == stop[:, None] - 1)
    chosen = jnp.take_along_axis(hidden, jnp.argmax(last, axis=1)[:, None, None], axis=1)[:, 0]
    experts = prefixes.experts
    if experts is not None:
        experts = place(1, experts, token_experts(config, routing.experts, fed), rows=0)
    return Prefixes(
        stack(prefixes.dense, new.dense),
        stack(prefixes.moe, new.moe),
        jnp.where(last.any(1)[:, None], chosen, prefixes.hidden),
        experts,
        None if mtp is None else stack(prefixes.mtp, mtp),
    )
