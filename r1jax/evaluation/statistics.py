"""pass@k, votes and intervals: numbers from arrays of right and wrong. numpy alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
"""Resamplings of a bootstrap interval."""
VOTES = 100
"""Subsets of the samples over which a vote of fewer than all of them is averaged."""
BLOCK = 64  # resamplings in memory at a time


class Ratio(NamedTuple):
    """A mean over responses by problem: its value is parts.sum() / wholes.sum()."""

    parts: np.ndarray
    """[P] float64: the sum over each problem's responses that count."""
    wholes: np.ndarray
    """[P] float64: how many of them count."""

    @property
    def value(self) -> float:
        """The mean; 0 where no response counts."""
        total = self.wholes.sum()
        return float(self.parts.sum() / total) if total else 0.0


def each(values) -> Ratio:
    """The mean of one value a problem, [P]."""
    return Ratio(np.asarray(values, float), np.ones(len(values)))


def pass_at_k(correct, k: int) -> float:
    """Probability that at least one of k samples is right, without bias from n >= k (arXiv 2107.03374, eq. 1).

    Args:
      correct: [P, n] 0 or 1.
      k: samples allowed.

    Raises:
      ValueError: k is larger than n.
    """
    return float(np.mean(pass_scores(correct, k)))


def pass_scores(correct, k: int) -> np.ndarray:
    """pass@k of each problem, [P]; see `pass_at_k`."""
    correct = np.asarray(correct)
    n = correct.shape[1]
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, and there are {n}")
    wrong = n - correct.sum(axis=1)
    return np.array([1.0 - math.comb(int(w), k) / math.comb(n, k) for w in wrong])


def accuracy_ci95(correct) -> float:
    """Half-width of the 95% interval of the mean of `correct` [P, n], with problems as the independent unit."""
    means = np.asarray(correct, float).mean(axis=1)
    return float(1.96 * means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan


def majority_vote(answers, correct) -> float:
    """Accuracy of each problem's most frequent answer (cons@n); ties are shared evenly.

    Args:
      answers: P lists of n answers in a canonical form; None for no answer, which never wins.
      correct: [P, n] 0 or 1.
    """
    return float(np.mean(vote_scores(answers, correct)))


def vote_scores(answers, correct) -> np.ndarray:
    """cons@n of each problem, [P]; see `majority_vote`.

    Where equal answers were judged differently, the winner is right to the share of them that were judged right.
    """
    scores = []
    for row, right in zip(answers, np.asarray(correct, float), strict=True):
        counts = Counter(answer for answer in row if answer is not None)
        best = max(counts.values(), default=0)
        winners = {answer for answer, count in counts.items() if count == best}
        votes = [r for answer, r in zip(row, right, strict=True) if answer in winners]
        scores.append(np.mean(votes) if votes else 0.0)  # every winner has as many votes
    return np.array(scores)


def resampled_vote_scores(answers, correct, k: int, *, seed: int, resamples: int = VOTES) -> np.ndarray:
    """cons@k of each problem for k < n, [P]: the mean vote of `resamples` random subsets of k of the n samples.

    The paper's cons@16 curve is such a mean: its values are multiples of 1/150, of 30 problems and 5 resamplings.

    Args:
      answers, correct: as for `majority_vote`.
      k: voters.
      seed: the subsets follow from it.

    Raises:
      ValueError: k is larger than n.
    """
    rng, correct = np.random.default_rng(seed), np.asarray(correct, float)
    samples = correct.shape[1]
    if k > samples:
        raise ValueError(f"a vote of {k} needs at least {k} samples a problem, and there are {samples}")
    scores = []
    for row, right in zip(answers, correct, strict=True):
        names = {answer: column for column, answer in enumerate(dict.fromkeys(a for a in row if a is not None))}
        chosen = rng.permuted(np.tile(np.arange(samples), (resamples, 1)), axis=1)[:, :k]
        ballots = np.array([[answer == name for name in names] for answer in row], float).reshape(samples, -1)
        counts = ballots[chosen].sum(axis=1)  # [resamples, answers]
        hits = (ballots * right[:, None])[chosen].sum(axis=1)
        won = (counts == counts.max(axis=1, initial=0, keepdims=True)) & (counts > 0)
        scores.append(np.mean((hits * won).sum(axis=1) / np.maximum(1, (counts * won).sum(axis=1))))
    return np.array(scores)


def bootstrap_intervals(
    ratios: Mapping[str, Ratio], *, seed: int, resamples: int = RESAMPLES
) -> dict[str, list[float] | None]:
    """95% percentile intervals of means, problems being drawn anew with replacement; the same draws for every mean.

    Args:
      ratios: means by problem, of the same P problems.
      seed: the draws follow from it.
      resamples: how many times P problems are drawn.

    Returns:
      [low, high] by name; None where fewer than two problems count, of which nothing can be said.
    """
    names: Sequence[str] = [name for name, ratio in ratios.items() if np.count_nonzero(ratio.wholes) > 1]
    result: dict[str, list[float] | None] = dict.fromkeys(ratios)
    if not names:
        return result
    parts, wholes = (np.stack([getattr(ratios[name], kind) for name in names], axis=1) for kind in Ratio._fields)
    rng, count, values = np.random.default_rng(seed), len(parts), []
    for start in range(0, resamples, BLOCK):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=min(BLOCK, resamples - start)).astype(float)
        totals = weights @ wholes
        values.append(np.divide(weights @ parts, totals, out=np.full(totals.shape, np.nan), where=totals > 0))
    lows, highs = np.nanpercentile(np.concatenate(values), [2.5, 97.5], axis=0)
    return result | {name: [float(low), float(high)] for name, low, high in zip(names, lows, highs, strict=True)}
