"""Sampling responses to problems and judging them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import jax
import numpy as np

from r1jax.config import UserError
from r1jax.data.prompts import pad_prompts
from r1jax.generation.rollout import Rollout
from r1jax.generation.sampler import SamplingConfig
from r1jax.hosts import fetch, gather
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import Judging, Submit

EVALUATION_STREAM = 1  # folded into the seed; training folds in another number


class Response(NamedTuple):
    """One completion with its judgements."""

    text: str
    tokens: int | None
    """Length, end-of-sequence token included; None where whoever sampled it does not say."""
    finished: bool | None
    """Ended by itself, not cut at the limit; None where whoever sampled it does not say."""
    judgements: dict[str, Judgement]
    """By the name of the reward: accuracy, format."""

    @property
    def correct(self) -> bool:
        return self.judgements["accuracy"].outcome == "correct"


class Codec(Protocol):
    """Texts to token ids and back: a tokenizer, or `r1jax.evaluation.problems.Asked`."""

    def encode_prompt(self, text: str) -> list[int]: ...

    def decode(self, ids) -> str: ...


def encode_prompts(tokenizer: Codec, prompts: Sequence[str], slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of the prompts, [P, slots] padded on the left, and their lengths [P].

    Raises:
      UserError: a prompt does not fit.
    """
    try:
        return pad_prompts([tokenizer.encode_prompt(prompt) for prompt in prompts], slots)
    except ValueError as error:
        raise UserError(f"{error}; raise --sampling.prompt-slots") from error


def respond(
    sample: Callable[[np.ndarray, np.ndarray], Rollout], tokenizer: Codec, prompts: np.ndarray, lengths: np.ndarray
) -> tuple[Rollout, list[list[str]]]:
    """Sample completions of prompts, as text too.

    Args:
      sample: (prompts [P, slots] int32, lengths [P]) -> Rollout.
      tokenizer: decodes completions.
      prompts, lengths: of `encode_prompts`.

    Returns:
      The rollout as numpy arrays, and P lists of G texts.
    """
    rollout = fetch(sample(prompts, lengths))
    texts = [
        [tokenizer.decode(tokens[mask]) for tokens, mask in zip(group_tokens, group_mask)]
        for group_tokens, group_mask in zip(rollout.tokens, rollout.mask)
    ]
    return rollout, texts


def submit_groups(submit: Submit, records: Sequence[dict], texts: Sequence[Sequence[str]]) -> Judging:
    """Begin to judge G completions of each of P records; those of a group that are the same are judged once.

    Every host has all of them, judges its share, and gets the verdicts of the others.
    """
    keys = [(place, text) for place, (_, group) in enumerate(zip(records, texts, strict=True)) for text in group]
    unique = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    share = list(unique)[jax.process_index() :: jax.process_count()]
    judging = submit([records[place] for place, _ in share], [text for _, text in share])
    return Shared(judging, [unique[key] for key in keys])


class Shared(NamedTuple):
    """Verdicts, given by several hosts in turn, some of which stand for several completions."""

    judging: Judging
    """Of this host's share."""
    places: list[int]
    """For every completion, which of the verdicts is its own."""

    def result(self) -> list[dict[str, Judgement]]:
        """See `Judging`; on several hosts all must ask for it, at the same point."""
        shares = gather(self.judging.result())
        verdicts = [shares[place % len(shares)][place // len(shares)] for place in self.places]
        return [{name: Judgement(*said) for name, said in verdict.items()} for verdict in verdicts]


def judged_groups(judging: Judging, rollout: Rollout, texts: Sequence[Sequence[str]]) -> list[list[Response]]:
    """Wait for the verdicts on P groups of G completions, and join them to what was sampled."""
    places = [(p, g) for p, group in enumerate(texts) for g in range(len(group))]
    lengths, groups = rollout.mask.sum(-1), [[] for _ in texts]
    for (p, g), judgements in zip(places, judging.result(), strict=True):
        response = Response(texts[p][g], int(lengths[p, g]), bool(rollout.finished[p, g]), judgements)
        groups[p].append(response)
    return groups


def evaluation_batches(
    sample, tokenizer: Codec, config: SamplingConfig, *, seed: int, submit: Submit, records, prompts, start: int = 0
) -> Iterator[list[list[Response]]]:
    """Sample config.group_size responses to every problem, and judge them while the next ones are sampled.

    A batch's noise follows from the seed and its number alone, so an evaluation that goes on at `start` gives the
    responses it would have given.

    Args:
      sample: (prompts [P, S], lengths [P], key=) -> Rollout of P = config.prompts groups.
      submit: begins to judge; one of the judges is "accuracy", one "format".
      records, prompts: N problems. The last batch is filled up by repetition, and the repeats are dropped.
      start: problems that are done already, whole batches of them.

    Yields:
      The judged groups of the next config.prompts problems.
    """
    root, waiting = jax.random.fold_in(jax.random.key(seed), EVALUATION_STREAM), None
    for place in range(start, len(prompts), config.prompts):
        some = list(prompts[place : place + config.prompts])
        padded = some + [some[0]] * (config.prompts - len(some))
        key = jax.random.fold_in(root, place // config.prompts)
        encoded = encode_prompts(tokenizer, padded, config.prompt_slots)
        rollout, texts = respond(partial(sample, key=key), tokenizer, *encoded)
        texts = texts[: len(some)]
        judging = submit_groups(submit, records[place : place + len(some)], texts)
        if waiting:
            yield judged_groups(*waiting)
        waiting = judging, rollout, texts
    if waiting:
        yield judged_groups(*waiting)
