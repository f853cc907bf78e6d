"""Reward models as the stages hand them on: loaded from a workdir, and as a function from texts to scores."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from r1jax.checkpoint import Parent, load_parent, open_parent
from r1jax.config import UserError
from r1jax.data.scored_rows import Encoded, Kind, pad_rows, scored_row, scored_texts
from r1jax.data.tokenizer import Tokenizer, load_tokenizer
from r1jax.hosts import place
from r1jax.models.config import ModelConfig, read_model_config
from r1jax.models.reward_model import init_reward_params, reward_scores
from r1jax.policy import REWARD_MODEL
from r1jax.sharding import abstract_arrays, batch_sharding, check_divides, replicated


class RewardModel(NamedTuple):
    """A model that scores responses."""

    model: ModelConfig
    tokenizer: Tokenizer
    params: dict
    router_bias: jax.Array
    parent: Parent
    """Where it came from."""
    kind: Kind
    """Helpful: the score of a final summary, comparable within a prompt. Safety: the logit that a response is safe."""


class Scorer:
    """Scores prompts and responses; made by `make_scorer`. `cut` counts what did not fit, over all calls."""

    def __init__(self, reward_model: RewardModel, score_rows, length: int):
        self.cut: Counter[str] = Counter()
        """Rows by what they lost: "prompt" (its beginning), "response" (its end)."""
        self._reward_model, self._score_rows, self._length = reward_model, score_rows, length

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Raw scores [N] float32 of N responses, as a policy wrote them, to N prompts, as `prompt_text` writes them."""
        kind, tokenizer = self._reward_model.kind, self._reward_model.tokenizer
        texts = [scored_texts(kind, *pair) for pair in zip(prompts, responses, strict=True)]
        rows = [scored_row(tokenizer, prompt, response, self._length) for prompt, response in texts]
        self.cut["prompt"] += sum(row.prompt_cut > 0 for row in rows)
        self.cut["response"] += sum(row.response_cut > 0 for row in rows)
        return self._score_rows(self._reward_model.params, self._reward_model.router_bias, [row.ids for row in rows])


def load_reward_model(folder: str | Path, mesh) -> RewardModel:
    """Read the latest weights and the tokenizer of a run of experiments/reward_model.py onto the mesh.

    Raises:
      UserError: the folder is not the workdir of a stage, its stage trained a policy, or its model does not divide over
        the mesh.
    """
    parent = open_parent(folder)
    run = parent.provenance["run"]
    if run.get("experiment") != REWARD_MODEL:
        raise UserError(
            f"{folder} holds a policy, made by {run.get('experiment')}, and not a reward model: it has no score head; "
            "train one with experiments/reward_model.py"
        )
    tokenizer = load_tokenizer(folder)
    try:
        model = read_model_config(parent.model)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}: its model description is not one of this version of r1jax: {error}") from error
    shapes = abstract_arrays(jax.eval_shape(partial(init_reward_params, model), jax.random.key(0)), mesh)
    return RewardModel(model, tokenizer, *load_parent(parent, *shapes), parent, run["kind"])


def make_row_scorer(model: ModelConfig, mesh, *, batch: int, length: int):
    """Compile the scoring of rows of ids, in batches of one shape.

    Args:
      batch: rows at a time; must divide over the mesh.
      length: tokens to which rows are padded; none may be longer.

    Returns:
      score(params, router_bias, rows) -> [N] float32 for N lists of ids.
    """
    check_divides(mesh, batch, "batch", "a batch of responses to score")
    compiled = jax.jit(partial(reward_scores, model), out_shardings=replicated(mesh))

    def score(params, router_bias, rows: Sequence[Sequence[int]]) -> np.ndarray:
        scores = [np.zeros(0, np.float32)]
        for start in range(0, len(rows), batch):
            placed = place(pad_rows(rows[start : start + batch], batch, length), batch_sharding(mesh))
            scores.append(np.asarray(compiled(params, router_bias, *placed)))
        return np.concatenate(scores)[: len(rows)]

    return score


def make_scorer(reward_model: RewardModel, mesh, *, batch: int, length: int) -> Scorer:
    """Compile a reward model into score(prompts, responses) -> [N] float32.

    A helpful reward model scores what follows the last </think> of a response, a safety one all of it (see
    `r1jax.data.scored_rows.scored_texts`). What does not fit into `length` is cut and counted in `score.cut`, the
    beginning of the prompt first: no policy can end a run by writing too much.

    Args:
      batch: rows at a time; must divide over the mesh. A last batch is filled up, so that nothing recompiles.
      length: tokens of a prompt, a response and the end token.
    """
    return Scorer(reward_model, make_row_scorer(reward_model.model, mesh, batch=batch, length=length), length)


def agreement(scores, labels):
    """Whether scores agree with judgements, [B] float: 1, 0, or 0.5 for a tie.

    Args:
      scores: [B, 2], of which the first should be higher, or [B, 1], which should be above 0 where the label is 1.
      labels: [B], 0 or 1; not read for pairs.
    """
    margin = scores[:, 0] - scores[:, 1] if scores.shape[1] == 2 else scores[:, 0] * (2 * labels - 1)
    return (margin > 0) + 0.5 * (margin == 0)


def describe_accuracy(right: np.ndarray) -> dict:
    """Accuracy over judged examples, from `agreement` [N], with its 95% interval (Wilson)."""
    accuracy, count = float(right.mean()), len(right)
    return {"judged": count, "accuracy": accuracy, "interval95": wilson_interval(accuracy, count)}


def wilson_interval(accuracy: float, count: int) -> tuple[float, float]:
    """95% interval of an accuracy over independent examples; unlike the normal one it is right near 0 and 1."""
    z = 1.96
    middle, scale = accuracy + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(accuracy * (1 - accuracy) / count + (z / (2 * count)) ** 2)
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def without_a_model(kind: Kind, training: list[Encoded], held_out: list[Encoded]) -> dict:
    """Mean lengths in characters, and the held-out accuracy of a rule that needs no model.

    The rule for pairs is that the longer response wins, for labels the more frequent one of training.
    """
    lengths = np.array([example.characters for example in training + held_out], float)
    if kind == "helpful":
        mean = dict(zip(("chosen", "rejected"), lengths.mean(axis=0).tolist()))
        return {"mean_characters": mean, "longer_wins": float(agreement(lengths[len(training) :], None).mean())}
    safe = np.array([example.label for example in training + held_out])
    mean = {name: float(lengths[which].mean()) for name, which in {"safe": safe, "unsafe": ~safe}.items() if any(which)}
    majority = safe[: len(training)].mean() >= 0.5
    return {"mean_characters": mean, "majority_label": float((safe[len(training) :] == majority).mean())}
