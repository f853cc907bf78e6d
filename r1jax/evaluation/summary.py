"""One dictionary of everything measured on the responses to a set of problems."""

from collections.abc import Callable, Sequence

import numpy as np

from r1jax.evaluation.measures import (
    Groups,
    judge_outcomes,
    length_statistics,
    measure_responses,
    reflection_statistics,
    response_line,
    selections,
    within,
)
from r1jax.evaluation.responses import Response
from r1jax.evaluation.statistics import (
    Ratio,
    accuracy_ci95,
    bootstrap_intervals,
    each,
    pass_scores,
    resampled_vote_scores,
    vote_scores,
)

PASSES = (1, 4, 8, 16, 32, 64)
"""The k of pass@k, as far as there are samples."""


def summarize(records: Sequence[dict], groups: Groups, answer_of: Callable) -> dict:
    """`summarize_answers` with the answers that one function reads from every text.

    Args:
      answer_of: text -> answer in a canonical form, or None; for the majority vote.
    """
    return summarize_answers(records, groups, [[answer_of(response.text) for response in group] for group in groups])


def summarize_answers(
    records: Sequence[dict], groups: Groups, answers: Sequence[Sequence | None], *, votes: Sequence[int] = (), seed=0
) -> dict:
    """Accuracy (pass@1 averaged over n samples a problem) with intervals, pass@k, majority vote, behaviour.

    A response on which the accuracy judge failed counts as not right; "outcomes" says how many there are.

    Args:
      records: P problems.
      groups: P groups of n judged responses.
      answers: P lists of n answers in a canonical form (`r1jax.evaluation.votes.ballots`), None for no answer; None
        in place of a list takes a problem out of the vote.
      votes: k for which the vote of k of the n samples is estimated too, besides that of all.
      seed: of bootstrap and subsets.

    Returns:
      Flat means (accuracy, pass_at_k, majority_at_k, and those of `describe_responses`), "accuracy_ci95" (half-width,
      normal), "interval95" (bootstrap over problems, by name of the mean), "breakdown" by family and level, "lengths",
      "reflection", "outcomes", and the counts.
    """
    correct = np.array([[response.correct for response in group] for group in groups])
    samples = correct.shape[1]
    means = {"accuracy": each(correct.mean(axis=1))}
    means |= {f"pass_at_{k}": each(pass_scores(correct, k)) for k in PASSES if k <= samples}
    means |= _votes(answers, correct, sorted({k for k in votes if k < samples}), seed)
    means |= {name: ratio for name, ratio in measure_responses(records, groups).items() if name != "accuracy"}
    chosen = selections(records)
    parts = {key: _part_means(means, rows, samples) for key, rows in chosen.items()}
    flat = means | {(key, name): ratio for key, part in parts.items() for name, ratio in part.items()}
    intervals = bootstrap_intervals(flat, seed=seed)
    result = {name: ratio.value for name, ratio in means.items()} | {"accuracy_ci95": accuracy_ci95(correct)}
    voters = sum(row is not None for row in answers)
    result |= {"problems": len(correct), "samples_per_problem": samples, "problems_with_a_vote": voters}
    breakdown = _breakdown(parts, chosen, intervals)
    result |= {"interval95": {name: intervals[name] for name in means}, "breakdown": breakdown}
    result |= {"lengths": length_statistics(groups), "reflection": reflection_statistics(groups)}
    return result | {"outcomes": judge_outcomes(groups)}


def sample_record(step: int, phase: str, index: int, prompt: str, record: dict, response: Response) -> dict:
    """One response as a line of samples.jsonl, its checks marked where it answers a countdown problem."""
    about = {"step": step, "phase": phase, "problem": index, "prompt": prompt, "record": record}
    return about | response_line(record, response)


def _votes(answers: Sequence, correct: np.ndarray, fewer: Sequence[int], seed: int) -> dict[str, Ratio]:
    voting = np.array([row is not None for row in answers])
    if not voting.any():
        return {}
    rows = [row for row in answers if row is not None]

    def over_all(scores: np.ndarray) -> Ratio:
        parts = np.zeros(len(voting))
        parts[voting] = scores
        return Ratio(parts, voting.astype(float))

    result = {
        f"majority_at_{k}": over_all(resampled_vote_scores(rows, correct[voting], k, seed=seed)) for k in fewer
    }
    return result | {f"majority_at_{correct.shape[1]}": over_all(vote_scores(rows, correct[voting]))}


def _part_means(means: dict[str, Ratio], rows: np.ndarray, samples: int) -> dict[str, Ratio]:
    names = ("accuracy", f"pass_at_{samples}", f"majority_at_{samples}", "mean_response_tokens")
    found = {name: within(means[name], rows) for name in names if name in means}
    return {name: ratio for name, ratio in found.items() if ratio.wholes.any()}


def _breakdown(parts: dict, chosen: dict, intervals: dict) -> dict:
    result: dict = {}
    for (family, level), means in parts.items():
        entry: dict = {"problems": int(chosen[family, level].sum())}
        entry |= {name: ratio.value for name, ratio in means.items()}
        entry["interval95"] = {name: intervals[(family, level), name] for name in means}
        if level is None:
            result[family] = entry | {"levels": {}}
        else:
            result[family]["levels"][level] = entry
    return result
