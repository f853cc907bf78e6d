"""Dynamic sampling: more problems are sampled until enough groups have something to teach (DAPO, section 3.2)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.evaluation import Response
from r1jax.generation.rollout import Rollout
from r1jax.objectives import informative_groups


class Batch(NamedTuple):
    """P problems with a group of completions each."""

    records: Sequence[dict]
    texts: Sequence[str]
    """The prompts as text."""
    prompts: np.ndarray
    """[P, S] int32, padded on the left."""
    lengths: np.ndarray
    """[P]."""
    rollout: Rollout
    """As numpy arrays."""


class Drawn(NamedTuple):
    """What dynamic sampling came to."""

    batch: Batch
    groups: list[list[Response]]
    informative: np.ndarray
    """[P] bool; False for groups that only fill the batch up."""
    metrics: dict[str, float]


def outcome_differs(groups: Sequence[Sequence[Response]]) -> np.ndarray:
    """[P] bool: whether the raw accuracies of a group differ, compared exactly; a failed verdict does not count.

    Accuracy and never the shaped reward: a penalty on length would make a group that is all right look informative.
    """
    accuracies = [[response.judgements["accuracy"] for response in group] for group in groups]
    scores = [[judgement.score for judgement in group] for group in accuracies]
    return np.asarray(informative_groups(scores, [[judgement.teaches for judgement in group] for group in accuracies]))


def draw_informative(draw: Callable[[int], tuple[Batch, list[list[Response]]]], max_extra_batches: int) -> Drawn:
    """Sample batches of P problems until P informative groups are there, and take the first P of them, in order.

    Where `max_extra_batches` do not suffice, the first of the other groups fill the batch up: its shape stays, nothing
    recompiles. They are to get no advantage, whatever their reward.

    Args:
      draw: number of the batch, from 0 -> its problems, sampled, and the judged responses. It must depend on nothing
        but that number and the step.
      max_extra_batches: how many besides the first.

    Returns:
      The batch; metrics are extra_batches, drawn_groups, dropped_share (share of the groups drawn whose outcomes do
      not differ), filled_share (share of such groups in the batch) and drawn_accuracy, over everything drawn. With
      groups selected by outcome, that alone says how good the policy is.
    """
    batches, groups, differs = [], [], np.zeros(0, bool)
    for extra in range(max_extra_batches + 1):
        batch, judged = draw(extra)
        batches.append(batch)
        groups += judged
        differs = np.concatenate([differs, outcome_differs(judged)])
        wanted = len(judged)
        if differs.sum() >= wanted:
            break
    places = np.argsort(~differs, kind="stable")[:wanted]
    metrics = {
        "extra_batches": float(len(batches) - 1),
        "drawn_groups": float(len(groups)),
        "dropped_share": float(np.mean(~differs)),
        "filled_share": float(np.mean(~differs[places])),
        "drawn_accuracy": float(np.mean([response.correct for group in groups for response in group])),
    }
    return Drawn(_take(batches, places), [groups[place] for place in places], differs[places], metrics)


def _take(batches: Sequence[Batch], places: np.ndarray) -> Batch:
    """The problems at `places` of batches that follow one another."""
    chosen = lambda arrays: None if arrays[0] is None else np.concatenate(arrays)[places]
    listed = lambda parts: [[x for part in parts for x in part][place] for place in places]
    records, texts, prompts, lengths, rollouts = zip(*batches, strict=True)
    rollout = Rollout(*map(chosen, zip(*rollouts, strict=True)))
    return Batch(listed(records), listed(texts), chosen(prompts), chosen(lengths), rollout)
