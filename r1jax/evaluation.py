"""Sampling responses to problems, judging them, and what is measured on them."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.data.prompts import pad_prompts
from r1jax.data.tokenizer import Tokenizer
from r1jax.generation.rollout import Rollout
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.behaviour import count_reflection_words, read_checks


class Response(NamedTuple):
    """One sampled completion with its judgements."""

    text: str
    tokens: int
    """Length, end-of-sequence token included."""
    finished: bool
    """Ended by itself, not cut at the limit."""
    judgements: dict[str, Judgement]
    """By the name of the reward: accuracy, format."""

    @property
    def correct(self) -> bool:
        return self.judgements["accuracy"].outcome == "correct"


def respond(
    sample: Callable[[np.ndarray, np.ndarray], Rollout], tokenizer: Tokenizer, prompts: Sequence[str], slots: int
) -> tuple[Rollout, list[list[str]]]:
    """Sample completions of text prompts.

    Args:
      sample: (prompts [P, slots] int32, lengths [P]) -> Rollout.
      tokenizer: encodes prompts and decodes completions.
      prompts: P texts.
      slots: width to which prompts are padded.

    Returns:
      The rollout as numpy arrays, and P lists of G texts.
    """
    rollout = sample(*pad_prompts([tokenizer.encode(prompt) for prompt in prompts], slots))
    rollout = Rollout(*(np.asarray(x) for x in rollout))
    texts = [
        [tokenizer.decode(tokens[mask]) for tokens, mask in zip(group_tokens, group_mask)]
        for group_tokens, group_mask in zip(rollout.tokens, rollout.mask)
    ]
    return rollout, texts


def judge_responses(judges: dict[str, Callable], records: Sequence[dict], rollout: Rollout, texts) -> list[list[Response]]:
    """Judge G completions of each of P records by every judge."""
    lengths = rollout.mask.sum(-1)
    return [
        [
            Response(
                text, int(lengths[p, g]), bool(rollout.finished[p, g]), {n: judge(record, text) for n, judge in judges.items()}
            )
            for g, text in enumerate(group)
        ]
        for p, (record, group) in enumerate(zip(records, texts, strict=True))
    ]


def describe_responses(records: Sequence[dict], groups: Sequence[Sequence[Response]]) -> dict[str, float]:
    """Shares and means over all responses to countdown problems.

    `verdict_fidelity` is the share of checks whose value and mark are both right; `repeat_share` that of checks that
    try an expression again. Both are 0 where nothing was checked.
    """
    flat = [(record, response) for record, group in zip(records, groups, strict=True) for response in group]
    checks = [read_checks(response.text, record["target"]) for record, response in flat]
    share = lambda values: float(np.mean([float(v) for v in values])) if values else 0.0
    result = {
        "accuracy": share([r.correct for _, r in flat]),
        "format_share": share([r.judgements["format"].outcome == "correct" for _, r in flat]),
        "mean_response_tokens": share([r.tokens for _, r in flat]),
        "truncated_share": share([not r.finished for _, r in flat]),
        "verify_share": share([len(c) >= 1 for c in checks]),
        "retry_share": share([len(c) >= 2 for c in checks]),
        "reflect_share": share([count_reflection_words(r.text) > 0 for _, r in flat]),
        "verdict_fidelity": share([check.right for c in checks for check in c]),
        "repeat_share": share([check.repeated for c in checks for check in c]),
    }
    for level in sorted({record["level"] for record in records}):
        chosen = [r for record, r in flat if record["level"] == level]
        result[f"accuracy_level_{level}"] = share([r.correct for r in chosen])
        result[f"mean_response_tokens_level_{level}"] = share([r.tokens for r in chosen])
    return result


def outcome_rates(groups: Sequence[Sequence[Response]]) -> dict[str, float]:
    """Share of every outcome of the accuracy judge."""
    outcomes = Counter(response.judgements["accuracy"].outcome for group in groups for response in group)
    total = sum(outcomes.values())
    return {outcome: count / total for outcome, count in sorted(outcomes.items())}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Responses to problems, n a problem."""

    records: list[dict]
    prompts: list[str]
    groups: list[list[Response]]

    def summary(self, answer_of: Callable[[str], str | None]) -> dict[str, float]:
        """Accuracy (pass@1 averaged over the samples) with its 95% interval, pass@k, majority vote, behaviour."""
        correct = np.array([[response.correct for response in group] for group in self.groups])
        samples = correct.shape[1]
        answers = [[answer_of(response.text) for response in group] for group in self.groups]
        result = describe_responses(self.records, self.groups)
        result |= {"accuracy_ci95": accuracy_ci95(correct), "problems": len(correct), "samples_per_problem": samples}
        result |= {f"pass_at_{k}": pass_at_k(correct, k) for k in (1, 4, 8, 16, 64) if k <= samples}
        return result | {f"majority_at_{samples}": majority_vote(answers, correct)}


def pass_at_k(correct, k: int) -> float:
    """Probability that at least one of k samples is right, estimated without bias from n >= k (arXiv 2107.03374, eq. 1).

    Args:
      correct: [P, n] 0 or 1.
      k: samples allowed.

    Raises:
      ValueError: k is larger than n.
    """
    correct = np.asarray(correct)
    n = correct.shape[1]
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, and there are {n}")
    wrong = n - correct.sum(axis=1)
    return float(np.mean([1.0 - math.comb(int(w), k) / math.comb(n, k) for w in wrong]))


def accuracy_ci95(correct) -> float:
    """Half-width of the 95% confidence interval of the mean of `correct` [P, n], problems taken as the independent unit."""
    means = np.asarray(correct, float).mean(axis=1)
    return float(1.96 * means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan


def majority_vote(answers, correct) -> float:
    """Accuracy of each problem's most frequent answer (cons@n); ties are shared evenly.

    Args:
      answers: P lists of n answers in a canonical form; None for no answer, which never wins.
      correct: [P, n] 0 or 1.
    """
    scores = []
    for row, right in zip(answers, np.asarray(correct), strict=True):
        counts = Counter(answer for answer in row if answer is not None)
        best = max(counts.values(), default=0)
        winners = [answer for answer, count in counts.items() if count == best]
        scores.append(np.mean([right[row.index(answer)] for answer in winners]) if winners else 0.0)
    return float(np.mean(scores))
