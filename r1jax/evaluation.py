"""Sampling responses to problems, judging them, and what is measured on them."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from rich.table import Table

from r1jax.config import UserError
from r1jax.data.prompts import pad_prompts
from r1jax.data.tokenizer import Tokenizer
from r1jax.generation.rollout import Rollout
from r1jax.generation.sampler import SamplingConfig
from r1jax.rewards.judgement import Judgement, outcome_rates
from r1jax.rewards.verdict import Judging, Submit
from r1jax.tasks.behaviour import count_reflection_words, read_checks

EVALUATION_STREAM = 1  # folded into the seed; training folds in another number

SUMMARY_ROWS = {
    "accuracy": "accuracy (pass@1)",
    "pass_at_4": "pass@4",
    "pass_at_8": "pass@8",
    "pass_at_16": "pass@16",
    "majority_at_16": "majority vote of 16",
    "mean_response_tokens": "response length, tokens",
    "verify_share": "responses that check their work",
    "retry_share": "responses that try again",
    "reflect_share": "responses with a reflection word",
    "verdict_fidelity": "checks that are right",
    "repeat_share": "checks of an expression tried before",
    "format_share": "responses in the format",
    "truncated_share": "responses cut off",
}


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


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str], slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of the prompts, [P, slots] padded on the left, and their lengths [P].

    Raises:
      UserError: a prompt does not fit.
    """
    try:
        return pad_prompts([tokenizer.encode(prompt) for prompt in prompts], slots)
    except ValueError as error:
        raise UserError(f"{error}; raise --sampling.prompt-slots") from error


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
    rollout = sample(*encode_prompts(tokenizer, prompts, slots))
    rollout = Rollout(*(np.asarray(x) for x in rollout))
    texts = [
        [tokenizer.decode(tokens[mask]) for tokens, mask in zip(group_tokens, group_mask)]
        for group_tokens, group_mask in zip(rollout.tokens, rollout.mask)
    ]
    return rollout, texts


def submit_groups(submit: Submit, records: Sequence[dict], texts: Sequence[Sequence[str]]) -> Judging:
    """Begin to judge G completions of each of P records."""
    pairs = [(record, text) for record, group in zip(records, texts, strict=True) for text in group]
    return submit([record for record, _ in pairs], [text for _, text in pairs])


def judged_groups(judging: Judging, rollout: Rollout, texts: Sequence[Sequence[str]]) -> list[list[Response]]:
    """Wait for the verdicts on P groups of G completions, and join them to what was sampled."""
    places = [(p, g) for p, group in enumerate(texts) for g in range(len(group))]
    lengths, groups = rollout.mask.sum(-1), [[] for _ in texts]
    for (p, g), judgements in zip(places, judging.result(), strict=True):
        response = Response(texts[p][g], int(lengths[p, g]), bool(rollout.finished[p, g]), judgements)
        groups[p].append(response)
    return groups


def evaluation_batches(
    sample, tokenizer: Tokenizer, config: SamplingConfig, *, seed: int, submit: Submit, records, prompts
) -> Iterator[list[list[Response]]]:
    """Sample config.group_size responses to every problem, and judge them while the next ones are sampled.

    Args:
      sample: (prompts [P, S], lengths [P], key=) -> Rollout of P = config.prompts groups.
      submit: begins to judge; one of the judges is "accuracy", one "format".
      records, prompts: N problems. The last batch is filled up by repetition, and the repeats are dropped.

    Yields:
      The judged groups of the next config.prompts problems.
    """
    root, waiting = jax.random.fold_in(jax.random.key(seed), EVALUATION_STREAM), None
    for batch, start in enumerate(range(0, len(prompts), config.prompts)):
        some = list(prompts[start : start + config.prompts])
        padded = some + [some[0]] * (config.prompts - len(some))
        key = jax.random.fold_in(root, batch)
        rollout, texts = respond(partial(sample, key=key), tokenizer, padded, config.prompt_slots)
        texts = texts[: len(some)]
        judging = submit_groups(submit, records[start : start + len(some)], texts)
        if waiting:
            yield judged_groups(*waiting)
        waiting = judging, rollout, texts
    if waiting:
        yield judged_groups(*waiting)


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


def judge_outcomes(groups: Sequence[Sequence[Response]]) -> dict[str, dict[str, float]]:
    """Share of each of the six outcomes, for every judge."""
    flat = [response.judgements for group in groups for response in group]
    return {name: outcome_rates(judgements[name] for judgements in flat) for name in (flat[0] if flat else ())}


def summarize(records: Sequence[dict], groups: Sequence[Sequence[Response]], answer_of: Callable) -> dict:
    """Accuracy (pass@1 averaged over n samples a problem) with its 95% interval, pass@k, majority vote, behaviour.

    A response on which the accuracy judge failed counts as not right; "outcomes" says how many there are.

    Args:
      records: P problems.
      groups: P groups of n judged responses.
      answer_of: text -> answer in a canonical form, or None; for the majority vote.
    """
    correct = np.array([[response.correct for response in group] for group in groups])
    samples = correct.shape[1]
    answers = [[answer_of(response.text) for response in group] for group in groups]
    result = {"accuracy": float(correct.mean()), "accuracy_ci95": accuracy_ci95(correct)}
    result |= {f"pass_at_{k}": pass_at_k(correct, k) for k in (1, 4, 8, 16, 64) if k <= samples}
    result |= {f"majority_at_{samples}": majority_vote(answers, correct)}
    result |= describe_responses(records, groups)
    counts = {"problems": len(correct), "samples_per_problem": samples}
    return result | counts | {"outcomes": judge_outcomes(groups)}


def sample_record(step: int, phase: str, index: int, prompt: str, record: dict, response: Response) -> dict:
    """One response as a line of samples.jsonl, its checks marked."""
    checks = [check._asdict() for check in read_checks(response.text, record["target"])]
    return {"step": step, "phase": phase, "problem": index, "prompt": prompt, "record": record} | (
        response._asdict() | {"checks": checks}
    )


def comparison_table(columns: dict[str, dict[str, float]]) -> Table:
    """Summaries side by side, a column each, for the terminal."""
    table = Table(title=None, header_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for field, label in SUMMARY_ROWS.items():
        if all(field in summary for summary in columns.values()):
            cells = [f"{s[field]:.1f}" if "tokens" in field else f"{s[field]:.3f}" for s in columns.values()]
            if field == "accuracy":
                cells = [f"{cell} ±{s['accuracy_ci95']:.3f}" for cell, s in zip(cells, columns.values())]
            table.add_row(label, *cells)
    return table


def pass_at_k(correct, k: int) -> float:
    """Probability that at least one of k samples is right, without bias from n >= k (arXiv 2107.03374, eq. 1).

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
    """Half-width of the 95% interval of the mean of `correct` [P, n], with problems as the independent unit."""
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
