"""Self-speculative decoding: the model's multi-token prediction module drafts, the model verifies, two tokens a step.

Speculative sampling (Leviathan et al., arXiv 2211.17192, algorithm 1; Chen et al., arXiv 2302.01318) with one draft a
step, by the module that DeepSeek-V3 trains beside the model (section 2.2, D = 1). Completions follow the model's
distribution whatever the module proposes. A step feeds the last token and the draft of the next. An accepted draft
makes the second hidden state valid, and one more token is drawn from it; else the draft is replaced. So a row advances
by one or two tokens; what a rejected draft left in the cache lies beyond what the row has filled, and is overwritten.

Temperature, top_k, top_p and min_p shape the model's and the module's distribution alike. Not supported: record_routing,
and going on with a partial rollout (which the plain engine can do).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.config import UserError
from r1jax.generation import decode
from r1jax.generation.sampling import draw, probabilities
from r1jax.generation.slots import Decoding, Output, Requests, Slots, cache_layers, emit, first_slots, keep, lay_entries
from r1jax.models.cache import CacheDtype, Entries, along_slots, encode_like, slice_slots, write_token, zero_entries
from r1jax.models.config import ModelConfig
from r1jax.models.mtp import mtp_with_cache
from r1jax.models.stacking import separate_params
from r1jax.models.transformer import output_head
from r1jax.sharding import constrain

DRAFT, ACCEPTANCE, REPLACEMENT = range(3)
"""Folded into a token's key: noise for each purpose. A token without a draft is drawn as a replacement."""


class Drafting(NamedTuple):
    """What speculation keeps for B slots besides `Slots`, whose last token in `tail` has not been fed yet.

    The module makes its entry of position i from the model's hidden state there and the token at i + 1. Two are new in
    a step that follows an accepted draft: of the token before it, too.
    """

    accepted: jax.Array
    """[B] bool, of the draft of the step before."""
    draft: jax.Array
    """[B] int32, where it was accepted."""
    before: jax.Array
    """[B, D], the model's hidden state from which it was verified; that of the draft itself is `Slots.hidden`."""
    entries: Entries
    """[1, B, W, ...] of the module."""
    fresh: Entries
    """[1, B, 2, ...], which the next step begins by writing at `columns`."""
    columns: jax.Array
    """[B, 2] int32; W where there is nothing to write."""


class State(NamedTuple):
    """As `r1jax.generation.decode.State`; its slots have two fresh tokens, at `column` and after."""

    slots: Slots
    output: Output
    taken: jax.Array
    steps: jax.Array
    drafting: Drafting


def check(config: ModelConfig, *, record_routing: bool, resumes: bool) -> None:
    """Raise UserError where speculation is not possible."""
    if not config.num_mtp_layers:
        raise UserError(
            "speculative decoding needs a model with an MTP module, and this one has num_mtp_layers 0: pre-train it "
            "with --mtp-weight above 0, or leave speculative off"
        )
    if record_routing:
        raise UserError("speculative decoding does not record the routing: leave off speculative or record_routing")
    if resumes:
        raise UserError("speculative decoding cannot go on with a partial rollout: leave off speculative or resume")


def accept_draft(uniform, draft, target, proposal):
    """Which drafts stay, and what to draw from in place of the others (arXiv 2211.17192, algorithm 1).

    Args:
      uniform: [B] float32 in [0, 1).
      draft: [B] int32, drawn from `proposal`.
      target: [B, V] float32, the model's distribution p.
      proposal: [B, V] float32, the draft module's distribution q.

    Returns:
      accepted [B] bool, with probability min(1, p / q) of the draft; and weights [B, V] of the replacement, (p - q)+.
    """
    chosen = lambda x: jnp.take_along_axis(x, draft[:, None], axis=1)[:, 0]
    accepted = uniform * chosen(proposal) < chosen(target)
    weights = jnp.maximum(target - proposal, 0.0)
    # Where p and q are equal nothing is ever rejected but by rounding, and nothing may be left.
    return accepted, jnp.where(weights.any(-1, keepdims=True), weights, target)


def begin(config: ModelConfig, decoding: Decoding, state: decode.State, cache_dtype: CacheDtype) -> State:
    """The state of a rollout that speculates, from that of one that does not."""
    count = len(state.slots.request)
    twice = lambda axis, x: jnp.concatenate([x, x], axis=axis)
    entries = lambda slots: lay_entries(config, zero_entries(config, 1, count, slots, cache_dtype))
    rows = lambda value, *shape, dtype: constrain(jnp.full((count, *shape), value, dtype), ("batch",))
    drafting = Drafting(
        accepted=rows(False, dtype=bool),
        draft=rows(0, dtype=jnp.int32),
        before=rows(0, config.embed_dim, dtype=config.dtype),
        entries=entries(decoding.widths[-1]),
        fresh=entries(2),
        columns=rows(decoding.widths[-1], 2, dtype=jnp.int32),
    )
    nothing = constrain(jnp.zeros(len(state.output.tokens), jnp.int32), ("batch",))
    output = state.output._replace(drafts=nothing, accepted=nothing)
    slots = state.slots._replace(fresh=lay_entries(config, along_slots(twice, state.slots.fresh)))
    return State(slots, output, state.taken, state.steps, drafting)


def _noise(slots: Slots, purpose: int):
    """[B] keys of the next token of every slot."""
    return jax.vmap(lambda key, count: jax.random.fold_in(jax.random.fold_in(key, count), purpose))(
        slots.keys, slots.count
    )


def _distribution(config, decoding: Decoding, params, temperature, hidden):
    """[..., V] float32, what is drawn from after a hidden state [..., D] of the model or of the module."""
    logits = jnp.dot(hidden, output_head(config, params), preferred_element_type=jnp.float32)
    temperature = 0 if decoding.greedy else temperature
    return probabilities(
        logits, temperature=temperature, top_k=decoding.top_k, top_p=decoding.top_p, min_p=decoding.min_p
    )


def _logprob(target, token):
    return jnp.log(jnp.take_along_axis(target, token[:, None], axis=1)[:, 0])


def _write_two(stored, new, columns):
    """Write two new tokens a row, at columns [B, 2]."""
    for place in range(2):
        stored = write_token(stored, slice_slots(new, place, place + 1), columns[:, place])
    return stored


def _refill(config, decoding, params, router_bias, temperature, requests: Requests, state: State) -> State:
    """As the plain engine, and draw the first token of the completions, for which there is no draft."""
    total, size = len(requests.queue), len(state.slots.request)
    empty = state.slots.request == total
    state = decode.refill(config, decoding, params, router_bias, requests, state)
    slots, drafting = state.slots, state.drafting
    taken = empty & (slots.request < total)
    slot = jnp.nonzero(taken, size=min(decoding.rows, size), fill_value=size)[0]
    row = jnp.minimum(slot, size - 1)
    target = _distribution(config, decoding, params, temperature, slots.hidden[row])
    token = draw(_noise(slots, REPLACEMENT)[row], target)
    put = lambda values: jnp.zeros(size, values.dtype).at[slot].set(values, mode="drop")
    prompt = slots.request[row] // (total // len(requests.prompts))
    drafting = drafting._replace(
        accepted=drafting.accepted & ~taken,
        entries=decode.put_in_slots(drafting.entries, requests.prefixes.mtp, slot, prompt),
        columns=jnp.where(taken[:, None], decoding.widths[-1], drafting.columns),
    )
    slots, output = emit(decoding, slots, state.output, put(token), put(_logprob(target, token)), taken)
    return state._replace(slots=slots, output=output, drafting=drafting)


def _draft(config, decoding: Decoding, params, router_bias, slots: Slots, drafting: Drafting, live):
    """Run the module on what is new to it: the hidden state [B, D] from which to draft, and the Drafting."""
    entries = _write_two(drafting.entries, drafting.fresh, drafting.columns)
    positions = slots.filled[:, None] - jnp.array([2, 1])
    known = live[:, None] & jnp.stack([drafting.accepted, live], axis=1)
    hidden = jnp.stack([drafting.before, slots.hidden], axis=1)
    tokens = jnp.stack([drafting.draft, slots.tail[:, -1]], axis=1)

    def run(entries, places):
        return mtp_with_cache(
            config, params, router_bias, hidden, tokens, jnp.where(known, positions, -1),
            cache=entries, cache_positions=places,
        )  # fmt: skip

    filled = jnp.where(live, slots.filled - 1 - drafting.accepted, 0)
    hidden, new = decode.read_cache(decoding, run, entries, filled)
    columns = jnp.where(known, positions, decoding.widths[-1])
    return hidden[:, 1], drafting._replace(entries=entries, fresh=encode_like(new, entries), columns=columns)


def _step(config, decoding: Decoding, params, router_bias, temperature, total: int, state: State) -> State:
    """Draft a token in every slot that is taken, run the model on it and the one before, and take one or two."""
    slots, output = state.slots, state.output
    live, width = slots.request < total, decoding.widths[-1]
    distribution = partial(_distribution, config, decoding, params, temperature)
    hidden, drafting = _draft(config, decoding, params, router_bias, slots, state.drafting, live)
    proposal = distribution(hidden)
    draft = draw(_noise(slots, DRAFT), proposal)

    columns = jnp.where(slots.column[:, None] < width, slots.column[:, None] + jnp.arange(2), width)
    slots = slots._replace(entries=_write_two(slots.entries, slots.fresh, columns))
    tokens = jnp.stack([slots.tail[:, -1], draft], axis=1)
    hidden, new, _ = decode.run_model(config, decoding, params, router_bias, slots, tokens, live)
    target, after = jnp.moveaxis(distribution(hidden), 1, 0)
    uniform = jax.vmap(jax.random.uniform)(_noise(slots, ACCEPTANCE))
    accepted, weights = accept_draft(uniform, draft, target, proposal)
    accepted &= live

    count = lambda old, new: old.at[slots.request].add(new.astype(jnp.int32), mode="drop")
    output = output._replace(drafts=count(output.drafts, live), accepted=count(output.accepted, accepted))
    fed, filled = slots.entries, slots.filled
    slots, output = emit(decoding, slots, output, draft, _logprob(target, draft), accepted)
    either = lambda yes, no: jnp.where(accepted[:, None], yes, no)
    token = draw(_noise(slots, REPLACEMENT), either(after, weights))
    slots, output = emit(decoding, slots, output, token, _logprob(either(after, target), token), slots.request < total)
    slots = slots._replace(
        filled=filled + 1 + accepted,
        hidden=either(hidden[:, 1], hidden[:, 0]),
        fresh=jax.tree.map(encode_like, cache_layers(config, new), fed, is_leaf=lambda x: isinstance(x, Entries)),
        column=jnp.where(slots.request < total, filled, width),
    )
    drafting = drafting._replace(accepted=accepted, draft=draft, before=hidden[:, 0])
    return state._replace(slots=slots, output=output, steps=state.steps + 1, drafting=drafting)


@partial(jax.jit, static_argnames=("config", "decoding"), donate_argnames="state")
def advance(
    config: ModelConfig, decoding: Decoding, params, router_bias, requests: Requests, state: State,
    *, temperature, until, stop_at,
):  # fmt: skip
    """As `r1jax.generation.decode.advance`, with speculation."""
    params = separate_params(config, params)
    step = partial(_step, config, decoding, params, router_bias, temperature, len(requests.queue))
    refill = partial(_refill, config, decoding, params, router_bias, temperature, requests)
    return decode.drive(decoding, requests, state, step, refill, until=until, stop_at=stop_at)


@partial(jax.jit, static_argnames="count")
def shrink(state: State, count: int) -> State:
    """Keep `count` slots, those that are taken before those that are empty."""
    order = first_slots(state.slots, count)
    return state._replace(slots=keep(state.slots, order), drafting=keep(state.drafting, order))
