"""Rows of prompts and completions packed into rows of fixed length, so that the trainer's passes meet little padding.

Packing concerns the passes through the model alone: log-probabilities come back as [B, T], one completion a row, so
that no objective knows of it. Shapes are fixed: there are as many packed rows as could ever be needed, the filled ones
come first, and only the micro-batches that hold any of them are run.
"""

import bisect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward_with_routing, target_logprobs
from r1jax.rl import GrpoRows, Rows, by_layer, count_routing_differences

BLOCK = 128
"""Places that the kernels of attention work on at least."""
_TRIED = 64  # open rows that are looked at for one prompt: it bounds the search where many lack only predictions


class PackedRows(NamedTuple):
    """R packed rows of L places and A predictions each, in which B completions of at most T tokens lie."""

    tokens: jax.Array
    """[R, L] int32."""
    positions: jax.Array
    """[R, L] int32, from 0 in each prompt and on through its completions."""
    segments: jax.Array
    """[R, L] int32, which sequence of its row a token belongs to, from 1; 0 for padding."""
    parents: jax.Array | None
    """[R, L] int32, the segment of its prompt; None where a prompt and its completion are one segment."""
    sources: jax.Array
    """[R, A] int32, the place in its row that each prediction is made from."""
    targets: jax.Array
    """[R, A] int32, the token predicted."""
    row: jax.Array
    """[B] int32, where the predictions of each completion lie; -1 for one without tokens."""
    start: jax.Array
    """[B] int32, the first of them; they follow each other."""
    mask: jax.Array
    """[B, T] bool, as in Rows."""
    replay: jax.Array | None = None
    """[R, L, layers, K] int16, as in Rows, -1 where no token lies; None where Rows has None."""
    recorded: jax.Array | None = None
    """[R, L, layers, K] int16, as in Rows."""


def pack_rows(rows: Rows, *, sharing: int = 1) -> PackedRows:
    """Lay prompts with their completions into rows by best fit, the largest first; on the host, in numpy.

    With `sharing` above 1, a prompt is laid once for so many completions, each of which sees the prompt and itself. A
    packed row has room for the largest prompt with its completions: S + sharing * (T - 1) places, as a last token is
    only a target, and sharing * T predictions. So B / sharing packed rows always suffice.

    Args:
      rows: of numpy arrays. Completions without tokens are left out.
      sharing: completions next to each other that have the same prompt.

    Raises:
      ValueError: a prompt or completion does not fit its slots, or `sharing` is wrong.
    """
    (batch, slots), width = rows.prompts.shape, rows.mask.shape[1]
    lengths = np.count_nonzero(rows.mask, axis=-1)
    _check(rows, lengths, sharing)
    count, length = batch // sharing, slots + sharing * (width - 1)
    prompt_lengths = rows.prompt_lengths[::sharing]
    plan = _plan(prompt_lengths, lengths.reshape(count, sharing), length, sharing * width)

    # All zeros at first: the system hands out such memory without touching it, and most of it may stay empty.
    grid = lambda width: np.zeros((count, width), np.int32)
    routed = lambda x: None if x is None else np.full((count, length, *x.shape[2:]), -1, x.dtype)
    packed = PackedRows(
        tokens=grid(length), positions=grid(length), segments=grid(length),
        parents=grid(length) if sharing > 1 else None,
        sources=grid(sharing * width), targets=grid(sharing * width),
        row=np.where(lengths > 0, plan.row.repeat(sharing), -1).astype(np.int32),
        start=plan.start.astype(np.int32), mask=rows.mask, replay=routed(rows.replay), recorded=routed(rows.recorded),
    )  # fmt: skip
    steps = np.arange(length, dtype=np.int32)
    _lay_prompts(packed, rows, plan, steps)
    _lay_completions(packed, rows, lengths, plan, steps)
    return packed


def packed_logprobs(model: ModelConfig, params, router_bias, packed: PackedRows, *, temperature=1.0):
    """What `routed_logprobs` gives for the same rows; where the mask is zero, values are others.

    The Routing is of the packed rows; it counts a prompt once for all completions that share it.
    """
    length = packed.tokens.shape[1]
    if model.attention == "splash":
        packed = _fill_blocks(packed)
    positions = jnp.where(packed.segments > 0, packed.positions, -1)
    replay = None if packed.replay is None else by_layer(packed.replay)
    hidden, _, routing = forward_with_routing(
        model, params, router_bias, packed.tokens, positions,
        segments=packed.segments, parents=packed.parents, replay=replay,
    )  # fmt: skip
    hidden = jnp.take_along_axis(hidden, packed.sources[..., None], axis=1)
    values = target_logprobs(model, params, hidden, packed.targets, temperature=temperature)
    return *(_unpack(x, packed) for x in values), routing._replace(experts=routing.experts[:, :, :length])


def _fill_blocks(packed: PackedRows) -> PackedRows:
    """Rows with padding up to whole blocks, on which kernels work: without it every layer would pad and cut anew."""
    spare = -packed.tokens.shape[1] % BLOCK
    pad = lambda x, value=0: jnp.pad(x, [(0, 0), (0, spare)] + [(0, 0)] * (x.ndim - 2), constant_values=value)
    return packed._replace(
        tokens=pad(packed.tokens), positions=pad(packed.positions), segments=pad(packed.segments),
        replay=None if packed.replay is None else pad(packed.replay, -1),
    )  # fmt: skip


def make_packed_score(model: ModelConfig, *, rows_at_a_time: int):
    """Compile score(params, router_bias, packed, temperature) -> [B, T] log-probabilities of the trainer.

    Of rows with `recorded` experts also counts of routing decisions, as `make_score`, but [rows_at_a_time, 2].
    """

    @jax.jit
    def score(params, router_bias, packed: PackedRows, temperature):
        def add(index, total):
            part = _micro_batch(packed, index, rows_at_a_time)
            logprobs, _, routing = packed_logprobs(model, params, router_bias, part, temperature=temperature)
            scores, counts = total
            if part.recorded is not None:
                counts += count_routing_differences(routing.experts, part.recorded)
            return jnp.where(part.mask, logprobs, scores), counts

        zeros = jnp.zeros(packed.mask.shape), jnp.zeros((rows_at_a_time, 2))
        scores, counts = jax.lax.fori_loop(0, _filled(packed, rows_at_a_time), add, zeros)
        return scores if packed.recorded is None else (scores, counts)

    return score


def over_filled_rows(sums_fn: Callable, rows_at_a_time: int) -> Callable:
    """Wrap `sums_fn`, as `gradient_sums` makes it of a loss on packed rows, to add up micro-batches of packed rows."""

    def sums(params, router_bias, batch: GrpoRows, scalars):
        def part_sums(index):
            part = batch._replace(rows=_micro_batch(batch.rows, index, rows_at_a_time))
            return sums_fn(params, router_bias, part, scalars)

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part_sums, 0))
        add = lambda index, total: jax.tree.map(jnp.add, total, part_sums(index))
        return jax.lax.fori_loop(0, _filled(batch.rows, rows_at_a_time), add, zeros)

    return sums


def packed_places(packed: PackedRows, rows_at_a_time: int) -> tuple[int, int]:
    """Tokens of packed rows of numpy arrays, and places of the micro-batches that are run, padding included."""
    parts = -(-int((packed.row.max(initial=-1) + 1)) // rows_at_a_time)
    return int(np.count_nonzero(packed.segments)), parts * rows_at_a_time * packed.tokens.shape[1]


def _filled(packed: PackedRows, rows_at_a_time: int):
    """Micro-batches that hold anything."""
    return -(-(packed.row.max() + 1) // rows_at_a_time)


def _micro_batch(packed: PackedRows, index, rows_at_a_time: int) -> PackedRows:
    """So many packed rows, with the mask of the completions that lie in them."""
    cut = lambda x: x.reshape(-1, rows_at_a_time, *x.shape[1:])[index]
    grids = jax.tree.map(cut, packed._replace(row=None, start=None, mask=None))
    row = packed.row - index * rows_at_a_time
    here = (row >= 0) & (row < rows_at_a_time)
    return grids._replace(row=row, start=packed.start, mask=packed.mask & here[:, None])


def _unpack(values, packed: PackedRows):
    """[R, A] values of predictions as [B, T], one completion a row."""
    width = packed.mask.shape[1]
    flat = jnp.pad(values.reshape(-1), (0, width))
    begin = jnp.maximum(packed.row * values.shape[1] + packed.start, 0)
    return jax.vmap(lambda begin: jax.lax.dynamic_slice_in_dim(flat, begin, width))(begin)


class _Plan(NamedTuple):
    """Where P prompts and their B completions lie; numpy arrays."""

    row: np.ndarray
    """[P], -1 for a prompt without completions."""
    place: np.ndarray
    """[P], first place in the row."""
    segment: np.ndarray
    """[P]."""
    completion_place: np.ndarray
    """[B]."""
    completion_segment: np.ndarray
    """[B]."""
    start: np.ndarray
    """[B], first prediction."""


def _plan(prompt_lengths, lengths, row_length: int, row_predictions: int) -> _Plan:
    """Lay prompts of lengths [P] with completions of lengths [P, G] into rows."""
    sharing = lengths.shape[1]
    inputs = np.maximum(lengths - 1, 0)
    numbered = (inputs > 0) & (sharing > 1)  # completions that are a segment of their own
    sizes, predictions = prompt_lengths + inputs.sum(-1), lengths.sum(-1)
    bins = _best_fit(sizes, predictions, row_length, row_predictions)
    members = np.array([prompt for members in bins for prompt in members], int)
    counts = np.array([len(members) for members in bins], int)
    row = np.full(len(sizes), -1)
    row[members] = np.arange(len(bins)).repeat(counts)

    def before(amounts):
        """What the members of a prompt's row that come before it amount to."""
        result, ordered = np.zeros(len(sizes), int), _exclusive_sum(amounts[members])
        result[members] = ordered - ordered[(counts.cumsum() - counts)].repeat(counts)
        return result

    place, segment = before(sizes), before(1 + numbered.sum(-1)) + 1
    completion_place = (place + prompt_lengths)[:, None] + _exclusive_sum(inputs)
    completion_segment = segment[:, None] + np.cumsum(numbered, -1)
    start = before(predictions)[:, None] + _exclusive_sum(lengths)
    return _Plan(row, place, segment, *(x.reshape(-1) for x in (completion_place, completion_segment, start)))


def _lay_prompts(packed: PackedRows, rows: Rows, plan: _Plan, steps) -> None:
    """Write the prompts of a plan into packed arrays; `steps` counts the places of a row."""
    slots, sharing = rows.prompts.shape[1], len(rows.mask) // len(plan.row)
    for prompt in np.flatnonzero(plan.row >= 0):
        size = rows.prompt_lengths[prompt * sharing]
        place = _run(plan.row[prompt], plan.place[prompt], size)
        packed.tokens[place], packed.positions[place] = rows.prompts[prompt * sharing, slots - size :], steps[:size]
        packed.segments[place] = plan.segment[prompt]
        if packed.parents is not None:
            packed.parents[place] = plan.segment[prompt]
        for to, of in ((packed.replay, rows.replay), (packed.recorded, rows.recorded)):
            if to is not None:
                to[place] = of[prompt * sharing, slots - size : slots]


def _lay_completions(packed: PackedRows, rows: Rows, lengths, plan: _Plan, steps) -> None:
    """Write the completions, and what is predicted from where."""
    slots, sharing = rows.prompts.shape[1], len(rows.mask) // len(plan.row)
    for index in np.flatnonzero(lengths):
        row, at, made = packed.row[index], plan.completion_place[index], plan.start[index]
        prompt, size, inputs = index // sharing, rows.prompt_lengths[index], lengths[index] - 1
        place = _run(row, at, inputs)
        packed.tokens[place], packed.positions[place] = rows.tokens[index, :inputs], steps[size : size + inputs]
        packed.segments[place] = plan.completion_segment[index]
        if packed.parents is not None:
            packed.parents[place] = plan.segment[prompt]
        for to, of in ((packed.replay, rows.replay), (packed.recorded, rows.recorded)):
            if to is not None:
                to[place] = of[index, slots : slots + inputs]
        packed.sources[row, made] = plan.place[prompt] + size - 1
        packed.sources[_run(row, made + 1, inputs)] = steps[at : at + inputs]
        packed.targets[_run(row, made, inputs + 1)] = rows.tokens[index, : inputs + 1]


def _best_fit(sizes, predictions, row_length: int, row_predictions: int) -> list[list[int]]:
    """Prompts by row: the largest first, each into the fullest row that has room for it and its predictions."""
    rows, rooms = [], []  # rooms: (places left, predictions left, row), ascending
    sizes, predictions = sizes.tolist(), predictions.tolist()
    for prompt in sorted(range(len(sizes)), key=lambda prompt: -sizes[prompt]):
        size, needed = sizes[prompt], predictions[prompt]
        if not needed:
            continue
        first = bisect.bisect_left(rooms, (size,))
        tried = range(first, min(first + _TRIED, len(rooms)))
        found = next((place for place in tried if rooms[place][1] >= needed), None)
        places, left, row = (row_length, row_predictions, len(rows)) if found is None else rooms.pop(found)
        if row == len(rows):
            rows.append([])
        rows[row].append(prompt)
        if places > size and left > needed:
            bisect.insort(rooms, (places - size, left - needed, row))
    return rows


def _check(rows: Rows, lengths, sharing: int) -> None:
    """Raise ValueError where rows are not what `pack_rows` expects."""
    batch, slots = rows.prompts.shape
    if sharing < 1 or batch % sharing:
        raise ValueError(f"{batch} rows do not divide into prompts shared by {sharing} completions")
    if rows.prompt_lengths.min() < 1 or rows.prompt_lengths.max() > slots:
        found = f"{rows.prompt_lengths.min()} to {rows.prompt_lengths.max()}"
        raise ValueError(f"prompts have {found} tokens; a prompt must have at least 1 and fit into its {slots} slots")
    for index, size in enumerate(lengths):
        if not rows.mask[index, :size].all():
            raise ValueError(f"the mask of row {index} is not a run of tokens from slot 0 on")
    for name in ("prompts", "prompt_lengths"):
        groups = getattr(rows, name).reshape(-1, sharing, *getattr(rows, name).shape[1:])
        if (groups != groups[:, :1]).any():
            raise ValueError(f"rows.{name} differ between completions that are said to share a prompt")


def _exclusive_sum(x):
    """Running sum along the last axis, of the entries before each."""
    return np.cumsum(x, -1) - x


def _run(row: int, start: int, size: int):
    """Index of `size` places of a row."""
    return row, slice(start, start + size)
