"""Continuous batching inside jit: slots that decode, and a queue from which finished slots are refilled."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.generation.prefill import Prefixes, feed, token_experts
from r1jax.generation.sampling import sample_tokens
from r1jax.generation.slots import Decoding, Output, Requests, Slots, cache_layers, emit, first_slots, keep
from r1jax.models.cache import Cache, Entries, along_slots, encode_like, slice_slots, write_token
from r1jax.models.config import ModelConfig
from r1jax.models.stacking import join_params, separate_params, together
from r1jax.models.transformer import forward_with_routing, output_head


class State(NamedTuple):
    """Where a rollout stands; donated from one dispatch to the next."""

    slots: Slots
    output: Output
    taken: jax.Array
    """int32, how many of the queue have been taken."""
    steps: jax.Array
    """int32, decode steps so far."""


def refill(config, decoding: Decoding, params, router_bias, requests: Requests, state: State) -> State:
    """Put the next requests of the queue into empty slots, at most `rows` of them."""
    slots, output, total = state.slots, state.output, len(requests.queue)
    num_slots, rows = len(slots.request), min(decoding.rows, len(slots.request))
    free = slots.request == total
    order = jnp.argsort(~free, stable=True)[:rows]
    turn = state.taken + jnp.arange(rows)
    taken = free[order] & (turn < requests.pending)
    request = requests.queue[jnp.minimum(turn, total - 1)]
    slot = jnp.where(taken, order, num_slots)  # out of range: dropped

    group = total // len(requests.prompts)
    prompt, known = request // group, output.lengths[request]
    keys = jax.vmap(jax.random.fold_in)(requests.prompt_keys[prompt], request % group)
    prefixes, lengths = requests.prefixes, requests.prompt_lengths[prompt]
    back = known[:, None] - jnp.arange(slots.tail.shape[1], 0, -1)
    tail = jnp.where(back >= 0, output.tokens[request[:, None], jnp.maximum(back, 0)], -1)
    put = lambda old, new: old.at[slot].set(new, mode="drop")
    slots = slots._replace(
        request=put(slots.request, request),
        keys=put(slots.keys, keys),
        filled=put(slots.filled, lengths + known),
        count=put(slots.count, known),
        tail=put(slots.tail, tail),
        hidden=put(slots.hidden, prefixes.hidden[prompt]),
        entries=put_in_slots(slots.entries, cache_layers(config, prefixes), slot, prompt),
        column=put(slots.column, decoding.widths[-1]),
    )
    if decoding.resumes:
        slots = _feed_known(config, decoding, params, router_bias, requests, output, slots, slot, request)
    return state._replace(slots=slots, taken=state.taken + jnp.sum(taken))


def put_in_slots(entries, new, slot, rows):
    """Entries whose rows `slot` begin with what the `rows` of `new` hold; slots out of range are left out."""

    def put(axis, old, new):
        at = old.at[:, slot, :, :, : new.shape[axis]] if axis == 4 else old.at[:, slot, :, : new.shape[axis]]
        return at.set(new[:, rows], mode="drop")

    return along_slots(put, entries, new)


def _feed_known(config, decoding, params, router_bias, requests, output, slots: Slots, slot, request) -> Slots:
    """Run the model on what the completions of these slots have already; slots out of range are left out."""
    row = jnp.minimum(slot, len(slots.request) - 1)
    width = decoding.widths[-1]
    start = requests.prompt_lengths[request // (len(output.tokens) // len(requests.prompts))]
    stop = jnp.where(slot < len(slots.request), start + output.lengths[request], start)
    places = jnp.arange(width + -width % decoding.chunk)[None] - start[:, None]
    tokens = jnp.take_along_axis(output.tokens[request], jnp.clip(places, 0, output.tokens.shape[1] - 1), axis=1)
    pad = lambda axis, x: jnp.pad(x[:, row], [(0, -width % decoding.chunk * (i == axis)) for i in range(x.ndim)])
    prefixes = Prefixes(*map(together, along_slots(pad, slots.entries)), slots.hidden[row], None)
    fed = feed(config, join_params(params), router_bias, tokens, start, stop, prefixes, chunk=decoding.chunk)
    known = slice_slots(cache_layers(config, fed), 0, width)
    entries = put_in_slots(slots.entries, known, slot, jnp.arange(len(slot)))
    return slots._replace(entries=entries, hidden=slots.hidden.at[slot].set(fed.hidden, mode="drop"))


def _step(config, decoding: Decoding, params, router_bias, temperature, total: int, state: State) -> State:
    """Sample a token in every slot that is taken, and run the model on it."""
    slots, output = state.slots, state.output
    live = slots.request < total
    logits = jnp.dot(slots.hidden, output_head(config, params), preferred_element_type=jnp.float32)
    keys = jax.vmap(jax.random.fold_in)(slots.keys, slots.count)
    token, logprob = sample_tokens(
        keys, logits, temperature=0 if decoding.greedy else temperature,
        top_k=decoding.top_k, top_p=decoding.top_p, min_p=decoding.min_p,
    )  # fmt: skip
    entries = write_token(slots.entries, slots.fresh, slots.column)
    fed = slots._replace(entries=entries)
    hidden, new, routing = run_model(config, decoding, params, router_bias, fed, token[:, None], live)
    slots, output = emit(decoding, slots, output, token, logprob, live)
    over = slots.request == total
    if output.experts is not None:
        experts = token_experts(config, routing.experts, ~over[:, None])[:, 0]
        experts = output.experts.at[fed.request, fed.count].set(experts, mode="drop")
        output = output._replace(experts=experts)
    slots = slots._replace(
        filled=slots.filled + 1,
        hidden=hidden[:, 0],
        entries=entries,
        fresh=jax.tree.map(encode_like, cache_layers(config, new), entries, is_leaf=lambda x: isinstance(x, Entries)),
        column=jnp.where(over, decoding.widths[-1], slots.filled),
    )
    return state._replace(slots=slots, output=output, steps=state.steps + 1)


def run_model(config, decoding: Decoding, params, router_bias, slots: Slots, tokens, live):
    """The model on the next tokens [B, T] of every slot: hidden [B, T, D], their Cache, their Routing.

    As everywhere inside the loop, `params` are those of `separate_params`.
    """
    positions = jnp.where(live[:, None], slots.filled[:, None] + jnp.arange(tokens.shape[1]), -1)

    def run(entries, places):
        cache = Cache(*map(together, entries), places)
        return forward_with_routing(config, join_params(params), router_bias, tokens, positions, cache=cache)

    return read_cache(decoding, run, slots.entries, jnp.where(live, slots.filled, 0))


def read_cache(decoding: Decoding, run, entries, filled):
    """run(entries, their positions [B, S]) on no more of the cache than the longest row fills; filled [B] tokens."""

    def at_width(width, entries):
        places = jnp.arange(width)[None]
        return run(slice_slots(entries, 0, width), jnp.where(places < filled[:, None], places, -1))

    choice = jnp.searchsorted(jnp.array(decoding.widths), jnp.max(filled))
    return jax.lax.switch(choice, [partial(at_width, w) for w in decoding.widths], entries)


@partial(jax.jit, static_argnames=("config", "decoding"), donate_argnames="state")
def advance(
    config: ModelConfig, decoding: Decoding, params, router_bias, requests: Requests, state: State,
    *, temperature, until, stop_at,
):  # fmt: skip
    """Decode until `state.steps` is `until`, or the queue is empty and at most `stop_at` rows are left.

    One program for many steps: the refilling of slots is part of it. Returns the State and its (steps, rows that are
    decoded, requests that wait), for the host.
    """
    params = separate_params(config, params)
    step = partial(_step, config, decoding, params, router_bias, temperature, len(requests.queue))
    put_in = partial(refill, config, decoding, params, router_bias, requests)
    return drive(decoding, requests, state, step, put_in, until=until, stop_at=stop_at)


def drive(decoding: Decoding, requests: Requests, state, step, refill, *, until, stop_at):
    """The loop of `advance` over a `step` and a `refill`, each from one state to the next."""
    total = len(requests.queue)
    live = lambda state: jnp.sum(state.slots.request < total)
    waiting = lambda state: requests.pending - state.taken
    going = lambda state: (state.steps < until) & ((waiting(state) > 0) | (live(state) > stop_at))
    refillable = lambda state: (waiting(state) > 0) & (live(state) < len(state.slots.request))

    def refill_and_decode(state):
        state = jax.lax.while_loop(refillable, refill, state)
        return jax.lax.while_loop(lambda state: going(state) & ~refillable(state), step, state)

    # Loops, not conditionals, for a loop updates what it carries in place and a conditional copies it.
    state = jax.lax.while_loop(going, refill_and_decode if decoding.refills else step, state)
    return state, (state.steps, live(state), waiting(state))


@partial(jax.jit, static_argnames="count")
def shrink(state: State, count: int) -> State:
    """Keep `count` slots, those that are taken before those that are empty."""
    return state._replace(slots=keep(state.slots, first_slots(state.slots, count)))
