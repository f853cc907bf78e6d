"""How rows are laid out for the trainer's passes over them: padded, or packed. Either gives the same losses."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from r1jax.config import UserError
from r1jax.grpo_config import GrpoConfig
from r1jax.models.config import ModelConfig
from r1jax.rl import Rows, completion_lengths, make_score, padded_places, routed_logprobs, sorted_by_length
from r1jax.rl_packing import make_packed_score, over_filled_rows, pack_rows, packed_logprobs, packed_places
from r1jax.train import LossOutput, gradient_sums

Loss = Callable[..., LossOutput]
"""(model, params, router_bias, GrpoRows, scalars, *, logprobs_of) -> sums, as `grpo_batch_loss`; logprobs_of(model,
params, router_bias, rows, temperature=...) gives log-probabilities and entropies [B, T] and the Routing of rows in this
layout."""


class Layout(NamedTuple):
    """What an iteration needs of a layout."""

    arrange: Callable
    """Rows of numpy arrays -> (the arrays that the passes take, on the host; (tokens, places processed))."""
    score: Callable
    """(params, router_bias, arranged, temperature) -> [B, T] log-probabilities; see `make_score` on recorded experts."""
    sums: Callable
    """(params, router_bias, GrpoRows of arranged rows, scalars) -> (gradient sums, LossOutput)."""


def padded_layout(model: ModelConfig, loss: Loss, *, width: int, rows_at_a_time: int) -> Layout:
    """A row for each completion of at most `width` tokens, padded; rows of like length go together."""
    lengths = completion_lengths(width)
    arrange = lambda rows: (rows, padded_places(rows, rows_at_a_time, lengths))
    sums = sorted_by_length(gradient_sums(partial(loss, model, logprobs_of=routed_logprobs)), rows_at_a_time, lengths)
    return Layout(arrange, make_score(model, rows_at_a_time=rows_at_a_time, lengths=lengths), sums)


def packed_layout(model: ModelConfig, loss: Loss, *, sharing: int, rows_at_a_time: int) -> Layout:
    """See `r1jax.rl_packing.pack_rows`; `rows_at_a_time` are packed rows."""

    def arrange(rows: Rows):
        packed = pack_rows(rows, sharing=sharing)
        return packed, packed_places(packed, rows_at_a_time)

    sums = over_filled_rows(gradient_sums(partial(loss, model, logprobs_of=packed_logprobs)), rows_at_a_time)
    return Layout(arrange, make_packed_score(model, rows_at_a_time=rows_at_a_time), sums)


def choose_layout(model: ModelConfig, config: GrpoConfig, loss: Loss) -> Layout:
    """The layout that `config.packing` names.

    Raises:
      UserError: this model's attention cannot make its masks.
    """
    if config.packing == "none":
        return padded_layout(model, loss, width=config.sampling.max_new_tokens, rows_at_a_time=config.rows_at_a_time)
    sharing = config.completions_a_prompt
    if sharing > 1 and model.attention == "splash":
        raise UserError(
            "--grpo.packing shared_prompts needs masks that this model's attention 'splash' cannot make; take rows or none"
        )
    return packed_layout(model, loss, sharing=sharing, rows_at_a_time=config.rows_at_a_time // sharing)
