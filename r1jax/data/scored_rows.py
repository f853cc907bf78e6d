"""What reward models score, as rows of token ids: a prompt and its response, in batches of one shape.

A helpful reward model reads the prompt and the final summary of a response; a safety reward model reads the whole
response, its reasoning included (Nature 645:633, Methods).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from r1jax.data.chat import EOS
from r1jax.data.preferences import Example
from r1jax.data.tokenizer import Tokenizer
from r1jax.rewards.answer import conclusion

Kind = Literal["helpful", "safety"]


class ScoredRow(NamedTuple):
    """A prompt and a response as ids, and how many tokens did not fit."""

    ids: list[int]
    prompt_cut: int
    response_cut: int


class Encoded(NamedTuple):
    """An example as ids: two rows and True, or one row and whether it is safe."""

    rows: tuple[np.ndarray, ...]
    label: bool
    characters: tuple[int, ...]
    """Length of each response as text."""


class RewardRows(NamedTuple):
    """A batch of B examples of R responses each."""

    tokens: np.ndarray
    """[B, R, T] int32."""
    positions: np.ndarray
    """[B, R, T] int32, -1 for padding."""
    labels: np.ndarray
    """[B] float32."""
    mask: np.ndarray
    """[B] bool; False fills up the last batch of an epoch."""


def scored_texts(kind: Kind, prompt: str, completion: str) -> tuple[str, str]:
    """The parts of a prompt and of a policy's completion that a reward model of this kind reads.

    A safety reward model reads all. A helpful one reads the conclusion only, what follows the last </think>; it is
    empty where the reasoning never ended. A <think> with which a template ended the prompt goes with the reasoning.
    """
    if kind == "safety":
        return prompt, completion
    opened = prompt.rstrip().endswith("<think>")
    summary = conclusion(completion, "<think>" if opened else "")
    return prompt.rstrip().removesuffix("<think>") if opened else prompt, (summary or "").strip()


def scored_row(tokenizer: Tokenizer, prompt: str, response: str, length: int) -> ScoredRow:
    """Token ids of a prompt, a response and the end token, at most `length`.

    Prompt and response are tokenised apart, so that the prompt has the ids it has when a response is sampled. An end
    token spelled in the prompt, where `plain_template` ends an earlier turn, becomes the token; in the response, which
    a policy wrote, it is text. What does not fit is cut: first the beginning of the prompt, then the end of the
    response, never the end token.
    """
    asked = list(tokenizer.begin_ids)
    for number, piece in enumerate(prompt.split(EOS)):
        asked += [tokenizer.eos_id] * (number > 0) + (tokenizer.encode(piece) if piece else [])
    answered = tokenizer.encode(response)
    kept = answered[: length - 1]
    room = length - 1 - len(kept)
    fits = asked[max(len(asked) - room, 0) :]
    return ScoredRow([*fits, *kept, tokenizer.eos_id], len(asked) - len(fits), len(answered) - len(kept))


def pad_rows(rows: Sequence[Sequence[int]], batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as tokens and positions, both [batch, length] int32, padded on the right with 0 and -1.

    Rows that are lacking are all padding.
    """
    tokens, positions = np.zeros((batch, length), np.int32), np.full((batch, length), -1, np.int32)
    for number, ids in enumerate(rows):
        tokens[number, : len(ids)] = ids
        positions[number, : len(ids)] = np.arange(len(ids))
    return tokens, positions


def encode_examples(
    examples: Sequence[Example], tokenizer: Tokenizer, length: int
) -> tuple[list[Encoded], dict[str, int]]:
    """Examples as ids, without those of which a response does not fit: a judgement on a whole is not one on a piece.

    Returns:
      The examples, and counts: "examples" that are left, "too_long" that are left out, "prompts_cut" of those left.
    """
    encoded, too_long, cut = [], 0, 0
    for example in examples:
        rows = [scored_row(tokenizer, example.prompt, response, length) for response in example.responses]
        if any(row.response_cut for row in rows):
            too_long += 1
            continue
        cut += any(row.prompt_cut for row in rows)
        ids = tuple(np.array(row.ids, np.int32) for row in rows)
        encoded.append(Encoded(ids, example.label, tuple(map(len, example.responses))))
    return encoded, {"examples": len(encoded), "too_long": too_long, "prompts_cut": cut}


def updates_per_epoch(examples: int, batch: int) -> int:
    """Batches in which every example comes once; the last may have fewer."""
    return -(-examples // batch)


def example_batch(examples: Sequence[Encoded], update: int, *, seed: int, batch: int, length: int) -> RewardRows:
    """The batch of an update, counted from 1: every epoch has its own order of all examples, from the seed alone."""
    epoch, number = divmod(update - 1, updates_per_epoch(len(examples), batch))
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))
    chosen = [examples[i] for i in order[number * batch :][:batch]]
    responses = len(chosen[0].rows)
    padded = pad_rows([row for example in chosen for row in example.rows], batch * responses, length)
    tokens, positions = (x.reshape(batch, responses, length) for x in padded)
    labels = np.zeros(batch, np.float32)
    labels[: len(chosen)] = [example.label for example in chosen]
    return RewardRows(tokens, positions, labels, np.arange(batch) < len(chosen))
