"""Whether a response is right: judges of whole batches, rules first, a generative judge where the rules cannot tell."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from r1jax.judging.prompts import CORRECTNESS, Wording
from r1jax.judging.reading import read_correctness
from r1jax.rewards.answer import conclusion
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import Judge, Judged, Submit, error, verdict

BatchJudge = Callable[[Sequence[dict], Sequence[str]], list[Judgement]]
"""(records, completions) -> a judgement each; batched, because a model judges many at the price of one."""


def one_by_one(judge: Judge) -> BatchJudge:
    """A judge of single completions, called in this process."""
    return lambda records, completions: [verdict(judge, r, text) for r, text in zip(records, completions, strict=True)]


def submitted(submit: Submit, name: str) -> BatchJudge:
    """The judge called `name` of a pool or another `Submit`, waited for."""
    return lambda records, completions: [said[name] for said in submit(records, completions).result()]


def judge_batches(judges: Mapping[str, BatchJudge], records: Sequence[dict], completions: Sequence[str]) -> Judged:
    """Judge completions at once; `partial(judge_batches, judges)` is a `Submit`, as sampling and evaluation take it."""
    said = {name: judge(records, completions) for name, judge in judges.items()}
    return Judged([{name: judgements[i] for name, judgements in said.items()} for i in range(len(completions))])


def first_known(*judges: BatchJudge) -> BatchJudge:
    """Ask each judge only for what all before it called "gold_unparseable"; never over a verdict, nor over an outage.

    With a rule first and a model behind it, the model judges the problems that have no rule: rejection sampling in
    arXiv 2501.12948 v2, appendix B.
    """

    def judge(records, completions):
        known = [Judgement("gold_unparseable", 0.0, "no judge")] * len(completions)
        for ask in judges:
            pending = [i for i, judgement in enumerate(known) if judgement.outcome == "gold_unparseable"]
            if not pending:
                break
            said = ask([records[i] for i in pending], [completions[i] for i in pending])
            for i, judgement in zip(pending, said, strict=True):
                known[i] = judgement
        return known

    return judge


def generative_correctness(
    score: Callable[[Sequence[str]], np.ndarray], wording: Wording = CORRECTNESS, *, threshold: float = 0.5
) -> BatchJudge:
    """Judge by a model that is constrained to its verdicts: 1 where it finds "correct" likely enough, else 0.

    Only what follows the reasoning is shown to it. The reason of a judgement gives the probability. A record needs
    "question" and "answer"; without them, or where the prompt is too long, the outcome is "error": it never teaches.

    Args:
      score: from `make_verdict_scorer` with the verdicts of `wording`.
      wording: how the question is put; its values are probabilities of being correct.
      threshold: least probability of "correct" that is believed, in (0, 1]. The paper keeps correct samples only, so a
        high threshold costs samples, a low one lets wrong ones in.

    Raises:
      ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")

    def decide(probability: float) -> Judgement:
        if np.isnan(probability):
            return error("the judge's prompt does not fit, or its scores are not numbers")
        right = probability >= threshold
        return Judgement("correct" if right else "wrong", float(right), f"p(correct) = {probability:.4f}")

    def judge(cases):
        prompts = [wording.constrained(*case) for case in cases]
        return [decide(p) for p in np.exp(np.asarray(score(prompts), np.float64)) @ np.array(wording.values)]

    return _of_conclusions(judge)


def written_correctness(ask: Callable[[Sequence[str]], Sequence[str]], wording: Wording = CORRECTNESS) -> BatchJudge:
    """Judge by a model that writes the JSON object of Listing 4; what cannot be read is "error", which never teaches.

    Args:
      ask: prompts -> texts, of any model.
      wording: how the question is put.
    """

    def decide(text: str) -> Judgement:
        said = read_correctness(text)
        if said is None:
            return error(f"no verdict in: {text[-200:]!r}")
        return Judgement("correct" if said.correct else "wrong", float(said.correct), said.analysis[:500])

    return _of_conclusions(lambda cases: [decide(text) for text in ask([wording.prompt(*case) for case in cases])])


def _of_conclusions(judge: Callable[[list[tuple[str, str, str]]], list[Judgement]]) -> BatchJudge:
    """Apply `judge` to (question, reference, conclusion) of the completions that have one."""

    def judge_all(records, completions):
        said, places, cases = [], [], []
        for record, completion in zip(records, completions, strict=True):
            text = conclusion(completion, record.get("prefill") or "")
            if record.get("question") is None or record.get("answer") is None:
                said.append(error('the record has no "question" or no "answer"'))
            elif not (text or "").strip():
                said.append(Judgement("no_answer", 0.0, "nothing follows the reasoning"))
            else:
                places.append(len(said))
                cases.append((record["question"], str(record["answer"]), text.strip()))
                said.append(None)
        for place, judgement in zip(places, judge(cases) if cases else [], strict=True):
            said[place] = judgement
        return said

    return judge_all
