"""Grouped rollouts: one prefill a prompt, shared by its group, then continuous batching until all have ended."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.config import UserError
from r1jax.generation import speculative as speculation
from r1jax.generation.decode import State, advance, shrink
from r1jax.generation.prefill import prefill, shift_rows
from r1jax.generation.slots import Decoding, Output, Requests, empty_slots, lay_entries
from r1jax.models.cache import CacheDtype
from r1jax.models.config import ModelConfig
from r1jax.sharding import constrain, count_ways, cut_axes


class Rollout(NamedTuple):
    """Completions of P prompts, G each, of at most T tokens."""

    tokens: jax.Array
    """[P, G, T] int32; what the mask leaves out is 0."""
    mask: jax.Array
    """[P, G, T] bool: the completion, its end-of-sequence token included."""
    sampler_logprobs: jax.Array
    """[P, G, T] float32 under the distribution sampled from."""
    finished: jax.Array
    """[P, G] bool: ended by itself; False means cut, at T tokens or, in a partial rollout, before; see `unfinished`."""
    prompt_experts: jax.Array | None = None
    """[P, S, L, K] int16, where routing is recorded: the experts that each token of a prompt was sent to, in the L
    layers that have experts; -1 for padding."""
    experts: jax.Array | None = None
    """[P, G, T, L, K] int16, the same for completions; -1 where a token was never fed to the model, as the last is."""
    drafts: jax.Array | None = None
    """[P, G] int32, with speculative decoding: tokens that the model's own draft module proposed."""
    accepted: jax.Array | None = None
    """[P, G] int32, how many of them were accepted."""


class Progress(NamedTuple):
    """How far a rollout has come. Its arrays are given up when `decode` goes on."""

    steps: int
    """Decode steps so far."""
    live: int
    """Rows that are being decoded."""
    waiting: int
    """Requests that no slot has taken yet."""
    requests: Requests
    output: Output


def unfinished(rollout: Rollout):
    """[P, G] bool: completions that another call can go on with; those cut at T tokens are not among them."""
    return ~rollout.finished & ~rollout.mask[..., -1]


_STATIC = (
    "config", "decoding", "group_size", "max_new_tokens", "slots", "prefill_rows", "cache_dtype", "record_routing",
    "speculative",
)  # fmt: skip


@partial(jax.jit, static_argnames=_STATIC)
def start(
    config, decoding, params, router_bias, prompts, prompt_lengths, prompt_keys, resume: Rollout | None,
    *, group_size, max_new_tokens, slots, prefill_rows, cache_dtype, record_routing, speculative,
) -> tuple[Requests, State]:  # fmt: skip
    """Prefill the prompts, and queue all completions that have not ended."""
    prefixes = prefill(
        config, params, router_bias, prompts, prompt_lengths,
        rows=prefill_rows, chunk=decoding.chunk, cache_dtype=cache_dtype, record_routing=record_routing,
        drafts=speculative,
    )  # fmt: skip
    if cut_axes("batch", len(prompts)) is not None:
        dense, moe = lay_entries(config, (prefixes.dense, prefixes.moe))
        prefixes = prefixes._replace(dense=dense, moe=moe)
    total = len(prompts) * group_size
    if resume is None:
        experts = (config.num_moe_layers, config.num_experts_per_token) if record_routing else None
        output = _nothing(total, max_new_tokens, experts)
    else:
        flat = lambda x: x.reshape(total, *x.shape[2:])
        experts = flat(resume.experts) if record_routing else None
        lengths = flat(resume.mask).sum(-1, dtype=jnp.int32)
        output = Output(flat(resume.tokens), flat(resume.sampler_logprobs), lengths, flat(resume.finished), experts)
    output = jax.tree.map(lambda x: constrain(x, ("batch",)), output)
    over = output.finished | (output.lengths >= max_new_tokens)
    left = shift_rows(prompts, prompts.shape[1] - prompt_lengths)
    queue = jnp.argsort(over, stable=True).astype(jnp.int32)
    requests = Requests(left, prompt_lengths, prompt_keys, prefixes, queue, jnp.sum(~over))
    state = State(empty_slots(config, decoding, requests, slots, cache_dtype), output, jnp.int32(0), jnp.int32(0))
    return requests, speculation.begin(config, decoding, state, cache_dtype) if speculative else state


def _nothing(total: int, length: int, experts: tuple[int, int] | None) -> Output:
    """An Output in which no request has a token."""
    empty = lambda value, dtype, *shape: jnp.full((total, *shape), value, dtype)
    return Output(
        empty(0, jnp.int32, length),
        empty(0, jnp.float32, length),
        empty(0, jnp.int32),
        empty(False, bool),
        None if experts is None else empty(-1, jnp.int16, length, *experts),
    )


def _check(shape: tuple[int, int, int], stop, record_routing: bool, resume: Rollout | None) -> None:
    """Raise UserError for stop sequences that would end everything, and for rollouts that cannot be gone on with."""
    if not all(stop):
        raise UserError("stop holds an empty sequence, which every completion ends with; leave it out")
    if resume is not None and resume.tokens.shape != shape:
        raise UserError(f"resume holds tokens [P, G, T] of shape {resume.tokens.shape}, and {shape} are asked for")
    if resume is not None and record_routing and resume.experts is None:
        raise UserError("resume holds no experts: record the routing from the first call on, or not at all")


@jax.jit
def _to_rollout(requests: Requests, output: Output) -> Rollout:
    grouped = lambda x: x.reshape(len(requests.prompts), -1, *x.shape[1:])
    tokens, logprobs, lengths, finished, experts, drafts, accepted = jax.tree.map(grouped, output)
    mask = jnp.arange(tokens.shape[-1]) < lengths[..., None]
    prompt_experts = requests.prefixes.experts
    if prompt_experts is not None:
        prompt_experts = shift_rows(prompt_experts, requests.prompt_lengths - requests.prompts.shape[1])
    return Rollout(tokens, mask, logprobs, finished, prompt_experts, experts, drafts, accepted)


def partial_rollout(progress: Progress) -> Rollout:
    """What has been sampled so far."""
    return _to_rollout(progress.requests, progress.output)


def _halved(slots: int, halvings: int) -> list[int]:
    """Numbers of slots, descending, each dividing over the devices that the batch is cut over."""
    parts = count_ways("batch")
    return sorted({-(-(slots >> shift) // parts) * parts for shift in range(halvings + 1)} - {0}, reverse=True)


def plan_decoding(
    width: int, slots: int, *, eos_ids, stop=(), temperature, top_k, top_p, min_p, widths, prefill_rows, prefill_chunk,
    resumes: bool = False,
) -> Decoding:  # fmt: skip
    """What a rollout's first program is compiled for: `slots` rows of `width` tokens; the rest as `decode`."""
    return Decoding(
        ends=tuple((token,) for token in eos_ids) + tuple(map(tuple, stop)),
        widths=tuple(sorted({-(-width * part // widths) for part in range(1, widths + 1)})),
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        greedy=temperature == 0,
        rows=min(prefill_rows, slots),
        chunk=prefill_chunk,
        refills=True,
        resumes=resumes,
    )


def decode(
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
    stop: tuple[tuple[int, ...], ...] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    slots: int = 0,
    halvings: int = 0,
    widths: int = 1,
    steps: int = 512,
    budget: int | None = None,
    prefill_rows: int = 32,
    prefill_chunk: int = 512,
    cache_dtype: CacheDtype = "dtype",
    record_routing: bool = False,
    resume: Rollout | None = None,
    speculative: bool = False,
) -> Iterator[Progress]:
    """Sample `group_size` completions of every prompt, and say after each dispatch how far that has come.

    Each token's noise is folded from its prompt's key, its index in the group and its place in the completion, so a
    completion is the same whatever else is in the batch, however many slots there are and in whatever order they are
    taken. Who stops iterating has a partial rollout.

    Args:
      params, router_bias: of the model.
      prompts: [P, S] int32, padded on the left.
      prompt_lengths: [P] int32, in tokens.
      prompt_keys: [P] PRNG keys.
      group_size: completions a prompt.
      max_new_tokens: a completion is cut after this many tokens, end-of-sequence included.
      eos_ids: any of them ends a completion.
      stop: token sequences; a completion whose last tokens are one of them has ended. They are part of it.
      temperature: divides the logits; 0 takes the likeliest token.
      top_k, top_p, min_p: leave out unlikely tokens; see `sample_tokens`.
      slots: rows decoded at a time, refilled from the queue of completions as they finish; 0 for all at once.
      halvings: how often slots are halved, when the queue is empty and half of the slots too; saves work where
        lengths differ, and costs one compiled program each.
      widths: into how many parts the cache is cut; a step reads only those that hold something. Each is compiled.
      steps: decode steps a dispatch.
      budget: stop after so many decode steps, with what there is.
      prefill_rows, prefill_chunk: prompts, and tokens of each, that are prefilled at a time.
      cache_dtype: how the cache is kept; see `CacheDtype`.
      record_routing: also return the experts of every token.
      resume: go on with this partial rollout of the same prompts, keys and sizes. What its completions have is kept,
        log-probabilities included, and run through the model anew.
      speculative: draft tokens by the model's MTP module, and verify two tokens a step; see
        `r1jax.generation.speculative`. Not with `resume` or `record_routing`.

    Raises:
      UserError: a stop sequence is empty, `resume` does not fit, or speculation is not possible.
    """
    _check((len(prompts), group_size, max_new_tokens), stop, record_routing, resume)
    if speculative:
        speculation.check(config, record_routing=record_routing, resumes=resume is not None)
    total = len(prompts) * group_size
    sizes = _halved(min(slots or total, total), halvings)
    decoding = plan_decoding(
        prompts.shape[1] + max_new_tokens, sizes[0], eos_ids=eos_ids, stop=stop, temperature=temperature, top_k=top_k,
        top_p=top_p, min_p=min_p, widths=widths, prefill_rows=prefill_rows, prefill_chunk=prefill_chunk,
        resumes=resume is not None,
    )  # fmt: skip
    requests, state = start(
        config, decoding, params, router_bias, prompts, prompt_lengths, prompt_keys, resume,
        group_size=group_size, max_new_tokens=max_new_tokens, slots=sizes[0], prefill_rows=prefill_rows,
        cache_dtype=cache_dtype, record_routing=record_routing, speculative=speculative,
    )  # fmt: skip
    run, narrow = (speculation.advance, speculation.shrink) if speculative else (advance, shrink)
    done, most = 0, float("inf") if budget is None else budget
    for size, smaller in zip(sizes, [*sizes[1:], 0]):
        if size < sizes[0]:  # by now the queue is empty
            state = narrow(state, size)
            decoding = dataclasses.replace(decoding, refills=False)
        # Each program runs at least once, if only to find that nothing is left: so the first call compiles them all.
        live = waiting = size
        while waiting or live > smaller:
            state, told = run(
                config, decoding, params, router_bias, requests, state,
                temperature=jnp.float32(temperature), until=jnp.int32(min(done + steps, most)), stop_at=smaller,
            )  # fmt: skip
            done, live, waiting = map(int, jax.device_get(told))
            yield Progress(done, live, waiting, requests, state.output)
            if done >= most:
                return


def generate(*arguments, **settings) -> Rollout:
    """Sample completions; the arguments are those of `decode`."""
    for progress in decode(*arguments, **settings):
        pass
    return partial_rollout(progress)
