"""Which of two responses is better: comparisons by rule and by model, and preference labels made from them."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.judging.prompts import PAIRWISE, PAIRWISE_VALUES, Wording
from r1jax.judging.reading import read_pairwise_verdict
from r1jax.rewards.verdict import Judge, verdict

Compare = Callable[[Sequence[dict], Sequence[str], Sequence[str]], np.ndarray]
"""(records, responses in place A, responses in place B) -> [N] float: from +2, A is significantly better, to -2; NaN
where the judge could not tell. Records have a "question"."""

KEEP_ABOVE = 1.0  # of |delta|; Nature 645, 633 (2025), Methods, helpful reward model


class PairLabel(NamedTuple):
    """Two responses to a problem and what the judge thinks of them."""

    record: dict
    first: str
    second: str
    delta: float
    """Mean verdict in the frame of `first`, from -2 to +2; NaN where the pair is unusable."""
    flipped: bool
    """The verdict changes with the order: another response is preferred, or a tie becomes none."""

    @property
    def kept(self) -> bool:
        """Whether the judge is sure enough to teach a reward model."""
        return abs(self.delta) > KEEP_ABOVE

    @property
    def chosen(self) -> str:
        return self.first if self.delta > 0 else self.second

    @property
    def rejected(self) -> str:
        return self.second if self.delta > 0 else self.first


def label_pairs(
    records: Sequence[dict],
    first: Sequence[str],
    second: Sequence[str],
    compare: Compare,
    *,
    queries: int = 4,
    seed: int,
) -> list[PairLabel]:
    """Label pairs of responses as the helpful reward model's data were (Nature 645, 633 (2025), Methods).

    Every pair is judged `queries` times with the responses in random order, and the verdicts are averaged. Random is
    which query comes in which order: as many come in one as in the other (the paper does not say so), else one pair in
    eight would be seen in one order only. The delta is the mean of the means of both orders, so a judge that favours a
    place favours no response, even where some queries fail; without an answer in each order the pair is unusable.

    Args:
      records, first, second: N problems and two responses to each.
      compare: judges all N * queries comparisons in one call.
      queries: 2 or more and even.
      seed: the orders of a pair follow from it and the pair's place.

    Returns:
      N labels, those to train on with `kept`; see `describe_labels`.

    Raises:
      ValueError: an odd number of queries, or lengths that differ.
    """
    if queries < 2 or queries % 2:
        raise ValueError(f"queries must be even and at least 2, to judge both orders alike, not {queries}")
    pairs = list(zip(records, first, second, strict=True))
    swapped = np.array([_orders(queries, f"{seed} {place}") for place in range(len(pairs))], bool)
    asked = [(r, b, a) if swap else (r, a, b) for (r, a, b), row in zip(pairs, swapped) for swap in row]
    verdicts = np.asarray(compare(*map(list, zip(*asked))) if asked else [], np.float64)
    if verdicts.shape != (len(asked),):
        raise ValueError(f"the comparison returned shape {verdicts.shape} for {len(asked)} pairs")
    verdicts = verdicts.reshape(len(pairs), queries)
    return [_label(*pair, row, order) for pair, row, order in zip(pairs, verdicts, swapped)]


def _orders(queries: int, seed: str) -> list[bool]:
    orders = [False, True] * (queries // 2)
    random.Random(seed).shuffle(orders)
    return orders


def _label(record: dict, first: str, second: str, verdicts: np.ndarray, swapped: np.ndarray) -> PairLabel:
    """Average verdicts [queries] given in the frame of place A, where `swapped` says that `second` was there."""
    means = []
    for values in (verdicts[~swapped], -verdicts[swapped]):
        values = values[~np.isnan(values)]
        means.append(float(values.mean()) if len(values) else float("nan"))
    flipped = bool(np.sign(means[0]) != np.sign(means[1])) and not np.isnan(means).any()
    return PairLabel(record, first, second, sum(means) / 2, flipped)


def describe_labels(labels: Sequence[PairLabel]) -> dict[str, float]:
    """Counts of pairs, of kept and unusable ones, and `flip_share`, the share of the usable whose verdict flips."""
    usable = [label for label in labels if not np.isnan(label.delta)]
    return {
        "pairs": len(labels),
        "kept": sum(label.kept for label in usable),
        "unusable": len(labels) - len(usable),
        "flip_share": sum(label.flipped for label in usable) / max(1, len(usable)),
    }


def rule_comparison(judge: Judge) -> Compare:
    """Compare by a judge of single completions: right beats wrong by 2, others by twice the difference of their scores.

    Where either outcome says that the judge failed, there is no verdict. Equal completions are judged once.
    """

    def compare(records, first, second):
        scores = {}

        def score(record, text):
            key = id(record), text
            if key not in scores:
                judgement = verdict(judge, record, text)
                known = judgement.score if judgement.teaches else np.nan
                scores[key] = judgement.outcome == "correct", known
            return scores[key]

        def delta(record, a, b):
            (a_right, a_score), (b_right, b_score) = score(record, a), score(record, b)
            difference = 2 * (a_score - b_score)  # NaN where either is not known
            return difference if a_right == b_right else np.copysign(2.0, a_right - b_right) + 0 * difference

        return np.array([delta(*triple) for triple in zip(records, first, second, strict=True)])

    return compare


def generative_comparison(score: Callable[[Sequence[str]], np.ndarray], wording: Wording = PAIRWISE) -> Compare:
    """Compare by a model that is constrained to verdicts: the mean of their values under its probabilities.

    The mean is what the average over ever more sampled verdicts tends to, without their noise.

    Args:
      score: from `make_verdict_scorer` with the verdicts of `wording`.
      wording: how the question is put.
    """

    def compare(records, first, second):
        triples = zip(records, first, second, strict=True)
        prompts = [wording.constrained(record["question"], a, b) for record, a, b in triples]
        return np.exp(np.asarray(score(prompts), np.float64)) @ np.array(wording.values)

    return compare


def written_comparison(ask: Callable[[Sequence[str]], Sequence[str]], wording: Wording = PAIRWISE) -> Compare:
    """Compare by a model that writes freely and ends with an Arena-Hard label; no label, no verdict.

    Args:
      ask: prompts -> texts, of any model; sampling makes the queries of a pair differ.
      wording: how the question is put.
    """

    def compare(records, first, second):
        triples = zip(records, first, second, strict=True)
        texts = ask([wording.prompt(record["question"], a, b) for record, a, b in triples])
        return np.array([PAIRWISE_VALUES.get(read_pairwise_verdict(text), np.nan) for text in texts])

    return compare
