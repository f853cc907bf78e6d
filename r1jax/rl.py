"""One iteration of GRPO as pure functions: rows from rollouts, log-probabilities by the trainer, and the loss.

Rows are padded here; `r1jax.rl_packing` packs them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.generation.rollout import prompt_positions
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, output_head
from r1jax.objectives import grpo_sums, token_logprobs
from r1jax.ops.masked import masked_mean
from r1jax.train import LossOutput, over_micro_batches


class Rows(NamedTuple):
    """Prompts with one completion each: S prompt slots, padded on the left, then T completion slots."""

    prompts: jax.Array
    """[B, S] int32."""
    prompt_lengths: jax.Array
    """[B] int32."""
    tokens: jax.Array
    """[B, T] int32."""
    mask: jax.Array
    """[B, T] bool: the completion, its end-of-sequence token included. A row without any is skipped."""


class GrpoRows(NamedTuple):
    """Rows with all that the objective needs."""

    rows: Rows
    """Or anything else that has a mask and whose log-probabilities can be told, such as packed rows."""
    old_logprobs: jax.Array
    """[B, T] float32."""
    ref_logprobs: jax.Array
    """[B, T] float32."""
    advantages: jax.Array
    """[B] float32."""


def completion_logprobs(model: ModelConfig, params, router_bias, rows: Rows, *, temperature=1.0):
    """Log-probabilities and entropies of the completions' tokens, [B, T] each, and expert load [num_routers, E].

    A completion's last token is not run through the model, for nothing is predicted from it.
    """
    slots, length = rows.prompts.shape[1], rows.tokens.shape[1]
    tokens = jnp.concatenate([rows.prompts, rows.tokens], axis=1)[:, :-1]
    inside = jnp.where(rows.mask.any(-1, keepdims=True), prompt_positions(rows.prompt_lengths, slots), -1)
    after = jnp.where(rows.mask[:, 1:], rows.prompt_lengths[:, None] + jnp.arange(length - 1), -1)
    positions = jnp.concatenate([inside, after], axis=1)
    hidden, _, load = forward(model, params, router_bias, tokens, positions)
    hidden, head = hidden[:, slots - 1 :], output_head(model, params)
    return *token_logprobs(hidden, head, rows.tokens, temperature=temperature), load


def cut_to_length(rows, length: int):
    """Keep the first `length` completion slots of Rows or GrpoRows."""
    if isinstance(rows, GrpoRows):
        return rows._replace(
            rows=cut_to_length(rows.rows, length),
            old_logprobs=rows.old_logprobs[:, :length],
            ref_logprobs=rows.ref_logprobs[:, :length],
        )
    return rows._replace(tokens=rows.tokens[:, :length], mask=rows.mask[:, :length])


def at_shortest_length(function: Callable, lengths: tuple[int, ...]) -> Callable:
    """Run `function(rows)` on the fewest completion slots that hold every row, chosen from `lengths` at run time.

    All choices are compiled once, as branches of one program, so short batches cost less and nothing recompiles. The
    last of `lengths` must be the full width.
    """

    def apply(rows):
        mask = rows.rows.mask if isinstance(rows, GrpoRows) else rows.mask
        needed = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]) + 1, 0))
        choice = jnp.searchsorted(jnp.array(lengths), needed)
        return jax.lax.switch(choice, [lambda r, n=n: function(cut_to_length(r, n)) for n in lengths], rows)

    return apply


def completion_lengths(total: int) -> tuple[int, ...]:
    """Widths at which completions of at most `total` tokens are processed: the full width and its halvings.

    None is below 16: each is a program of its own to compile, and so short a completion costs less than its prompt.
    """
    return tuple(sorted({max(total >> shift, min(total, 16)) for shift in (3, 2, 1, 0)}))


def make_score(model: ModelConfig, *, rows_at_a_time: int, lengths: tuple[int, ...]):
    """Compile score(params, router_bias, rows, temperature) -> [B, T] log-probabilities of the trainer."""

    @jax.jit
    def score(params, router_bias, rows: Rows, temperature):
        width = rows.tokens.shape[1]

        def logprobs(part):
            values, _, _ = completion_logprobs(model, params, router_bias, part, temperature=temperature)
            return jnp.pad(values, ((0, 0), (0, width - values.shape[1])))

        order = jnp.argsort(rows.mask.sum(-1))
        by_length = jax.tree.map(lambda x: x[order], rows)
        parts = len(order) // rows_at_a_time
        scores = over_micro_batches(at_shortest_length(logprobs, lengths), parts, collect=True)(by_length)
        return scores[jnp.argsort(order)]

    return score


def grpo_batch_loss(
    model: ModelConfig, params, router_bias, batch: GrpoRows, scalars, *, logprobs_of=completion_logprobs
) -> LossOutput:
    """The GRPO objective of a model on rows; `scalars` holds temperature, clip_epsilon and kl_coef."""
    temperature = scalars["temperature"]
    logprobs, entropy, load = logprobs_of(model, params, router_bias, batch.rows, temperature=temperature)
    loss, count, metrics = grpo_sums(
        logprobs, batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.rows.mask,
        clip_epsilon=scalars["clip_epsilon"], kl_coef=scalars["kl_coef"],
    )  # fmt: skip
    metrics["entropy"] = masked_mean(entropy, batch.rows.mask, axis=-1).sum()
    return LossOutput(loss, count, metrics, load)


def sorted_by_length(sums_fn, rows_at_a_time: int, lengths: tuple[int, ...]):
    """Wrap `sums_fn` so that a batch of GrpoRows is cut into micro-batches of like length, each at its own width."""

    def sums(params, router_bias, batch: GrpoRows, scalars):
        order = jnp.argsort(batch.rows.mask.sum(-1))
        batch = jax.tree.map(lambda x: x[order], batch)
        part_sums = at_shortest_length(lambda part: sums_fn(params, router_bias, part, scalars), lengths)
        return over_micro_batches(part_sums, len(order) // rows_at_a_time)(batch)

    return sums


def padded_places(rows: Rows, rows_at_a_time: int, lengths: tuple[int, ...]) -> tuple[int, int]:
    """Tokens of rows of numpy arrays, and places that length-sorted micro-batches of them take, padding included."""
    completions = np.sort(rows.mask.sum(-1))
    longest = completions.reshape(-1, rows_at_a_time).max(-1)
    widths = np.array(lengths)[np.searchsorted(lengths, longest)] + rows.prompts.shape[1] - 1
    kept = rows.mask.any(-1)
    tokens = rows.prompt_lengths[kept].sum() + completions.sum() - kept.sum()
    return int(tokens), int(widths.sum() * rows_at_a_time)
