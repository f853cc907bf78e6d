"""Continuous batching inside jit: slots that decode, and a queue from which finished slots are refilled."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.generation.prefill import Prefixes, feed, token_experts
from r1jax.generation.sampling import sample_tokens
from r1jax.models.cache import Cache, CacheDtype, Entries, encode_like, init_cache, separate, together, write_token
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward_with_routing, output_head
from r1jax.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What a decoding program is compiled for."""

    ends: tuple[tuple[int, ...], ...]
    """Token sequences, any of which ends a completion."""
    widths: tuple[int, ...]
    """Slots of the cache that attention may read, ascending: a step reads the fewest that hold every row."""
    top_k: int
    top_p: float
    min_p: float
    greedy: bool
    rows: int
    """Slots refilled at a time."""
    chunk: int
    """Tokens fed at a time where a completion goes on."""
    refills: bool
    """The queue may hold requests."""
    resumes: bool
    """Some requests have tokens already."""


class Requests(NamedTuple):
    """N completions that are asked for, N = P * G, and what is known of them; read only."""

    prompts: jax.Array
    """[P, S] int32, padded on the right."""
    prompt_lengths: jax.Array
    prompt_keys: jax.Array
    prefixes: Prefixes
    """Of the prompts."""
    queue: jax.Array
    """[N] int32, request numbers p * G + g in the order in which they are taken."""
    pending: jax.Array
    """int32, how many of the queue there are to take."""


class Output(NamedTuple):
    """What has been sampled for every request."""

    tokens: jax.Array
    """[N, T] int32."""
    logprobs: jax.Array
    """[N, T] float32."""
    lengths: jax.Array
    """[N] int32, tokens so far."""
    finished: jax.Array
    """[N] bool, ended by itself."""
    experts: jax.Array | None
    """[N, T, L, K] int16; None where routing is not recorded."""
    drafts: jax.Array | None = None
    """[N] int32, how many tokens have been drafted; None without speculation."""
    accepted: jax.Array | None = None
    """[N] int32, how many of them were accepted."""


Layers = tuple[tuple[Entries, ...], tuple[Entries, ...]]
"""The layers without experts and those with, each as `separate` gives them."""


class Slots(NamedTuple):
    """B rows that are decoded together, each at a length of its own."""

    request: jax.Array
    """[B] int32; N in an empty slot."""
    keys: jax.Array
    """[B] PRNG keys of the requests."""
    filled: jax.Array
    """[B] int32, tokens in the cache, which is the position of the next."""
    count: jax.Array
    """[B] int32, tokens of the completion."""
    tail: jax.Array
    """[B, E] int32, the last tokens of the completion; -1 where there is none."""
    hidden: jax.Array
    """[B, D], from which the next token is drawn."""
    entries: Layers
    """Of W tokens a row."""
    fresh: Layers
    """Of the newest token, which the next step begins by writing at `column`: a loop that wrote what it has just read
    would copy the cache."""
    column: jax.Array
    """[B] int32; W where there is nothing to write."""


class State(NamedTuple):
    """Where a rollout stands; donated from one dispatch to the next."""

    slots: Slots
    output: Output
    taken: jax.Array
    """int32, how many of the queue have been taken."""
    steps: jax.Array
    """int32, decode steps so far."""


def empty_slots(config: ModelConfig, decoding: Decoding, requests: Requests, count: int, cache_dtype: CacheDtype):
    """`count` empty Slots, laid over the mesh by rows."""
    layers = lambda slots: cache_layers(config, init_cache(config, count, slots, cache_dtype))
    rows = lambda value, *shape, dtype=jnp.int32: constrain(jnp.full((count, *shape), value, dtype), ("batch",))
    return Slots(
        request=rows(len(requests.queue)),
        keys=jnp.broadcast_to(requests.prompt_keys[0], count),
        filled=rows(0),
        count=rows(0),
        tail=rows(-1, max(map(len, decoding.ends), default=1)),
        hidden=rows(0, config.embed_dim, dtype=config.dtype),
        entries=jax.tree.map(by_rows, layers(decoding.widths[-1])),
        fresh=jax.tree.map(by_rows, layers(1)),
        column=rows(decoding.widths[-1]),
    )


def cache_layers(config, cache) -> Layers:
    return separate(config, cache.dense), separate(config, cache.moe)


def by_rows(x):
    return constrain(x, ("layers", "batch", None, None))


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
    width = requests.prompts.shape[1]
    copy = lambda old, new: old.at[:, slot, :width].set(new[:, prompt], mode="drop")
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
        entries=jax.tree.map(copy, slots.entries, cache_layers(config, prefixes)),
        column=put(slots.column, decoding.widths[-1]),
    )
    if decoding.resumes:
        slots = _feed_known(config, decoding, params, router_bias, requests, output, slots, slot, request)
    return state._replace(slots=slots, taken=state.taken + jnp.sum(taken))


def _feed_known(config, decoding, params, router_bias, requests, output, slots: Slots, slot, request) -> Slots:
    """Run the model on what the completions of these slots have already; slots out of range are left out."""
    row = jnp.minimum(slot, len(slots.request) - 1)
    width = decoding.widths[-1]
    start = requests.prompt_lengths[request // (len(output.tokens) // len(requests.prompts))]
    stop = jnp.where(slot < len(slots.request), start + output.lengths[request], start)
    places = jnp.arange(width + -width % decoding.chunk)[None] - start[:, None]
    tokens = jnp.take_along_axis(output.tokens[request], jnp.clip(places, 0, output.tokens.shape[1] - 1), axis=1)
    pad = lambda x: jnp.pad(x[:, row], ((0, 0), (0, 0), (0, -width % decoding.chunk), (0, 0)))
    prefixes = Prefixes(*map(together, jax.tree.map(pad, slots.entries)), slots.hidden[row], None)
    fed = feed(config, params, router_bias, tokens, start, stop, prefixes, chunk=decoding.chunk)
    back = lambda old, new: old.at[:, slot].set(new[:, :, :width], mode="drop")
    entries = jax.tree.map(back, slots.entries, cache_layers(config, fed))
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


def emit(decoding: Decoding, slots: Slots, output: Output, token, logprob, where) -> tuple[Slots, Output]:
    """Append a token to the completions in the slots `where` [B], and empty those whose completion it ends."""
    total, limit = output.tokens.shape
    tail = jnp.concatenate([slots.tail[:, 1:], token[:, None]], axis=1)
    finished = jnp.zeros_like(where)
    for end in decoding.ends:
        finished |= (tail[:, -len(end) :] == jnp.array(end)).all(-1)
    request, count = jnp.where(where, slots.request, total), slots.count + where  # out of range: dropped
    put = lambda old, new: old.at[request, slots.count].set(new, mode="drop")
    per_request = lambda old, new: old.at[request].set(new, mode="drop")
    output = output._replace(
        tokens=put(output.tokens, token),
        logprobs=put(output.logprobs, logprob),
        lengths=per_request(output.lengths, count),
        finished=per_request(output.finished, finished),
    )
    over = where & (finished | (count >= limit))
    tail = jnp.where(where[:, None], tail, slots.tail)
    return slots._replace(request=jnp.where(over, total, slots.request), count=count, tail=tail), output


def run_model(config, decoding: Decoding, params, router_bias, slots: Slots, tokens, live):
    """The model on the next tokens [B, T] of every slot: hidden [B, T, D], their Cache, their Routing."""
    positions = jnp.where(live[:, None], slots.filled[:, None] + jnp.arange(tokens.shape[1]), -1)

    def run(entries, places):
        cache = Cache(*map(together, entries), places)
        return forward_with_routing(config, params, router_bias, tokens, positions, cache=cache)

    return read_cache(decoding, run, slots.entries, jnp.where(live, slots.filled, 0))


def read_cache(decoding: Decoding, run, entries, filled):
    """run(entries, their positions [B, S]) on no more of the cache than the longest row fills; filled [B] tokens."""

    def at_width(width, entries):
        places = jnp.arange(width)[None]
        cut = jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 0, width, axis=2), entries)
        return run(cut, jnp.where(places < filled[:, None], places, -1))

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


def first_slots(slots: Slots, count: int):
    """[count] int32: slots that are taken before those that are empty."""
    return jnp.argsort(slots.request, stable=True)[:count]


def keep(slots, order):
    """These slots alone: of a NamedTuple of arrays by rows, but for `entries` and `fresh`, which are by layers first."""
    rows = {name: value[order] for name, value in slots._asdict().items() if name not in ("entries", "fresh")}
    layers = jax.tree.map(lambda x: by_rows(x[:, order]), {"entries": slots.entries, "fresh": slots.fresh})
    return slots._replace(**rows, **layers)
