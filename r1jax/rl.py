"""One iteration of GRPO as pure functions: rows from rollouts, log-probabilities by the trainer, and the loss.

Rows are padded here; `r1jax.rl_packing` packs them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.generation.prefill import prompt_positions
from r1jax.generation.rollout import Rollout
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward_with_routing, target_logprobs
from r1jax.objectives import grpo_sums, log_ratio, token_ratio, truncated_importance
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
    replay: jax.Array | None = None
    """[B, S + T, L, K] int16, experts that the L MoE layers take for each token (-1: the router chooses, as it does
    everywhere where this is None)."""
    recorded: jax.Array | None = None
    """[B, S + T, L, K] int16, experts that the sampler took, only to be compared with the trainer's."""


class GrpoRows(NamedTuple):
    """Rows with all that the objective needs."""

    rows: Rows
    """Or anything else that has a mask and whose log-probabilities can be told, such as packed rows."""
    old_logprobs: jax.Array | None
    """[B, T] float32. None says that the policy itself sampled the rows, as in the first update after a rollout: then its
    own are the old ones, and no pass need compute them before."""
    ref_logprobs: jax.Array
    """[B, T] float32."""
    advantages: jax.Array
    """[B] float32, or [B, T] where they differ within a completion."""
    sampler_logprobs: jax.Array | None = None
    """[B, T] float32, what the sampler says of its own tokens; for corrections of its arithmetic."""


def rows_of(prompts: np.ndarray, lengths: np.ndarray, rollout: Rollout) -> Rows:
    """A row for each completion of a rollout of prompts [P, S], `lengths` [P] long; all of numpy arrays."""
    group = rollout.tokens.shape[1]
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    return Rows(np.repeat(prompts, group, 0), np.repeat(lengths, group), flat(rollout.tokens), flat(rollout.mask))


def experts_of(rollout: Rollout) -> np.ndarray | None:
    """[B, S + T, L, K], the experts of all tokens, in the order of `rows_of`; None where they were not recorded."""
    if rollout.experts is None:
        return None
    group = rollout.tokens.shape[1]
    of_completions = rollout.experts.reshape(-1, *rollout.experts.shape[2:])
    return np.concatenate([np.repeat(rollout.prompt_experts, group, 0), of_completions], axis=1)


def row_inputs(rows: Rows):
    """What the model reads of rows: tokens and their positions, [B, S + T - 1] int32 each.

    A completion's last token is not among them, for nothing is predicted from it.
    """
    slots, length = rows.prompts.shape[1], rows.tokens.shape[1]
    inside = jnp.where(rows.mask.any(-1, keepdims=True), prompt_positions(rows.prompt_lengths, slots), -1)
    after = jnp.where(rows.mask[:, 1:], rows.prompt_lengths[:, None] + jnp.arange(length - 1), -1)
    return jnp.concatenate([rows.prompts, rows.tokens[:, :-1]], axis=1), jnp.concatenate([inside, after], axis=1)


def routed_logprobs(model: ModelConfig, params, router_bias, rows: Rows, *, temperature=1.0):
    """Log-probabilities and entropies of the completions' tokens, [B, T] each, and the Routing of all their tokens.

    Experts are those of `rows.replay` where it has them (routing replay, arXiv 2510.11370, section 4).
    """
    slots = rows.prompts.shape[1]
    tokens, positions = row_inputs(rows)
    inputs = tokens.shape[1]
    # Kernels work on whole blocks, which lengths are chosen to fill: for them a place of padding stands for the last token.
    spare = int(model.attention == "splash")
    tokens = jnp.pad(tokens, ((0, 0), (0, spare)))
    positions = jnp.pad(positions, ((0, 0), (0, spare)), constant_values=-1)
    replay = None if rows.replay is None else by_layer(rows.replay[:, : inputs + spare])
    hidden, _, routing = forward_with_routing(model, params, router_bias, tokens, positions, replay=replay)
    values = target_logprobs(model, params, hidden[:, slots - 1 : inputs], rows.tokens, temperature=temperature)
    return *values, routing._replace(experts=routing.experts[:, :, :inputs])


def by_layer(experts):
    """Recorded experts [B, T, L, K] as the model takes them, [L, B, T, K] int32."""
    return jnp.moveaxis(experts, 2, 0).astype(jnp.int32)


def count_routing_differences(chosen, recorded):
    """Decisions (token, layer) whose set of experts is not the recorded one, and recorded decisions: [B, 2] float32.

    Args:
      chosen: [num_routers, B, T, K] int32, from a Routing.
      recorded: [B, T, L, K], of the same tokens; -1 where there is no record.
    """
    recorded = by_layer(recorded)
    known = recorded[..., 0] >= 0
    differ = jnp.any(jnp.sort(chosen[: len(recorded)], -1) != jnp.sort(recorded, -1), -1) & known
    return jnp.stack([differ.sum((0, 2)), known.sum((0, 2))], -1).astype(jnp.float32)


def cut_to_length(rows, length: int):
    """Keep the first `length` completion slots of Rows or GrpoRows."""
    first = lambda x, slots=0: None if x is None else x[:, : slots + length]
    if isinstance(rows, GrpoRows):
        return rows._replace(
            rows=cut_to_length(rows.rows, length),
            old_logprobs=first(rows.old_logprobs),
            ref_logprobs=first(rows.ref_logprobs),
            advantages=first(rows.advantages) if rows.advantages.ndim == 2 else rows.advantages,
            sampler_logprobs=first(rows.sampler_logprobs),
        )
    slots = rows.prompts.shape[1]
    return rows._replace(
        tokens=first(rows.tokens),
        mask=first(rows.mask),
        replay=first(rows.replay, slots),
        recorded=first(rows.recorded, slots),
    )


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
    """Compile score(params, router_bias, rows, temperature) -> [B, T] log-probabilities of the trainer.

    Of rows with `recorded` experts it also returns what `count_routing_differences` says: (logprobs, counts).
    """

    @jax.jit
    def score(params, router_bias, rows: Rows, temperature):
        width = rows.tokens.shape[1]

        def logprobs(part):
            values, _, routing = routed_logprobs(model, params, router_bias, part, temperature=temperature)
            padded = jnp.pad(values, ((0, 0), (0, width - values.shape[1])))
            if part.recorded is None:
                return padded
            return padded, count_routing_differences(routing.experts, part.recorded[:, :-1])

        order = jnp.argsort(rows.mask.sum(-1))
        by_length = jax.tree.map(lambda x: x[order], rows)
        parts = len(order) // rows_at_a_time
        scores = over_micro_batches(at_shortest_length(logprobs, lengths), parts, collect=True)(by_length)
        return jax.tree.map(lambda x: x[jnp.argsort(order)], scores)

    return score


def grpo_batch_loss(
    model: ModelConfig, params, router_bias, batch: GrpoRows, scalars, *, logprobs_of=routed_logprobs
) -> LossOutput:
    """The GRPO objective of a model on rows.

    `scalars` holds temperature, clip_epsilon and kl_coef, and for what is wanted besides: clip_epsilon_high
    (clip-higher), importance_cap (truncated importance sampling), balance_weight (that of a token, by which the
    sequence-wise balance of experts enters the sum over completions).
    """
    temperature = scalars["temperature"]
    logprobs, entropy, routing = logprobs_of(model, params, router_bias, batch.rows, temperature=temperature)
    mask, weights = batch.rows.mask, None
    old_logprobs = old_logprobs_of(batch, logprobs)
    if "importance_cap" in scalars:
        mismatch = token_ratio(log_ratio(old_logprobs, batch.sampler_logprobs, mask))
        weights = truncated_importance(mismatch, cap=scalars["importance_cap"])
    loss, count, metrics = grpo_sums(
        logprobs, old_logprobs, batch.ref_logprobs, batch.advantages, mask,
        clip_epsilon=scalars["clip_epsilon"], clip_epsilon_high=scalars.get("clip_epsilon_high"),
        kl_coef=scalars["kl_coef"], weights=weights,
    )  # fmt: skip
    metrics["entropy"] = masked_mean(entropy, mask, axis=-1).sum()
    if "balance_weight" in scalars:
        balance = scalars["balance_weight"] * routing.balance.sum()
        loss, metrics["balance_loss"] = loss + balance, balance
    return LossOutput(loss, count, metrics, routing.load)


def old_logprobs_of(batch: GrpoRows, logprobs) -> jax.Array:
    """Old log-probabilities [B, T]: those of the rows, or where they have none the policy's own `logprobs`."""
    return jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs


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
