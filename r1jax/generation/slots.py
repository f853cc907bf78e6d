"""The rows of a rollout that are decoded together, what is asked of them, and what comes out."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.generation.prefill import Prefixes
from r1jax.models.cache import CacheDtype, Entries, init_cache
from r1jax.models.config import ModelConfig
from r1jax.models.stacking import separate
from r1jax.sharding import constrain, cut_axes


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
        entries=lay_entries(config, layers(decoding.widths[-1])),
        fresh=lay_entries(config, layers(1)),
        column=rows(decoding.widths[-1]),
    )


def cache_layers(config, cache) -> Layers:
    """The entries of a Cache, or of Prefixes, as a decoding loop carries them."""
    return separate(config, cache.dense), separate(config, cache.moe)


def entry_axes(config: ModelConfig) -> tuple:
    """Logical axes of Entries, [L, B, K, ...], on the mesh in force: rows and heads; a latent belongs to all heads."""
    return "layers", "batch", "heads" if config.num_kv_heads and cut_axes("heads", config.num_kv_heads) else None


def lay_entries(config: ModelConfig, entries):
    """Entries laid over the mesh."""
    return jax.tree.map(lambda x: constrain(x, entry_axes(config)), entries)


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


def first_slots(slots: Slots, count: int):
    """[count] int32: slots that are taken before those that are empty."""
    return jnp.argsort(slots.request, stable=True)[:count]


def keep(slots, order):
    """These slots alone: of a NamedTuple of arrays by rows, but for `entries` and `fresh`, which are by layers first."""
    rows = {name: value[order] for name, value in slots._asdict().items() if name not in ("entries", "fresh")}
    lay = lambda x: constrain(x[:, order], ("layers", "batch", "as_it_lies"))
    layers = jax.tree.map(lay, {"entries": slots.entries, "fresh": slots.fresh})
    return slots._replace(**rows, **layers)
