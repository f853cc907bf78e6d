"""One iteration of GRPO as pure functions: rows from rollouts, log-probabilities by the trainer, and the loss."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.generation.rollout import prompt_positions
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, target_logprobs
from r1jax.objectives import grpo_sums
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
    """[B, T] bool: the completion, its end-of-sequence token included."""


class GrpoRows(NamedTuple):
    """Rows with all that the objective needs."""

    rows: Rows
    old_logprobs: jax.Array
    """[B, T] float32."""
    ref_logprobs: jax.Array
    """[B, T] float32."""
    advantages: jax.Array
    """[B] float32."""


def completion_logprobs(model: ModelConfig, params, router_bias, rows: Rows, *, temperature=1.0):
    """Log-probabilities and entropies of the completions' tokens, [B, T] each, and expert load [num_moe_layers, E]."""
    slots, length = rows.prompts.shape[1], rows.tokens.shape[1]
    tokens = jnp.concatenate([rows.prompts, rows.tokens], axis=1)
    inside = prompt_positions(rows.prompt_lengths, slots)
    after = jnp.where(rows.mask, rows.prompt_lengths[:, None] + jnp.arange(length), -1)
    # The last token predicts nothing. It stays, as padding: lengths as they are chosen suit tiles, one less does not.
    positions = jnp.concatenate([inside, after], axis=1).at[:, -1].set(-1)
    hidden, _, load = forward(model, params, router_bias, tokens, positions)
    hidden = hidden[:, slots - 1 : -1]
    return *target_logprobs(model, params, hidden, rows.tokens, temperature=temperature), load


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


def make_score(model: ModelConfig, *, num_micro_batches: int, lengths: tuple[int, ...]):
    """Compile score(params, router_bias, rows, temperature) -> [B, T] log-probabilities of the trainer."""

    @jax.jit
    def score(params, router_bias, rows: Rows, temperature):
        width = rows.tokens.shape[1]

        def logprobs(part):
            values, _, _ = completion_logprobs(model, params, router_bias, part, temperature=temperature)
            return jnp.pad(values, ((0, 0), (0, width - values.shape[1])))

        order = jnp.argsort(rows.mask.sum(-1))
        by_length = jax.tree.map(lambda x: x[order], rows)
        scores = over_micro_batches(at_shortest_length(logprobs, lengths), num_micro_batches, collect=True)(by_length)
        return scores[jnp.argsort(order)]

    return score


def grpo_batch_loss(model: ModelConfig, params, router_bias, batch: GrpoRows, scalars) -> LossOutput:
    """The GRPO objective of a model on rows; `scalars` holds temperature, clip_epsilon and kl_coef."""
    logprobs, entropy, load = completion_logprobs(
        model, params, router_bias, batch.rows, temperature=scalars["temperature"]
    )
    loss, count, metrics = grpo_sums(
        logprobs, batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.rows.mask,
        clip_epsilon=scalars["clip_epsilon"], kl_coef=scalars["kl_coef"],
    )  # fmt: skip
    metrics["entropy"] = masked_mean(entropy, batch.rows.mask, axis=-1).sum()
    return LossOutput(loss, count, metrics, load)


def sorted_by_length(sums_fn, num_micro_batches: int, lengths: tuple[int, ...]):
    """Wrap `sums_fn` so that a batch of GrpoRows is cut into micro-batches of like length, each at its own width."""

    def sums(params, router_bias, batch: GrpoRows, scalars):
        order = jnp.argsort(batch.rows.mask.sum(-1))
        batch = jax.tree.map(lambda x: x[order], batch)
        part_sums = at_shortest_length(lambda part: sums_fn(params, router_bias, part, scalars), lengths)
        return over_micro_batches(part_sums, num_micro_batches)(batch)

    return sums
