"""What every judge returns, and how often each outcome came."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Outcome = Literal["correct", "wrong", "no_answer", "gold_unparseable", "timeout", "error"]

OUTCOMES: tuple[str, ...] = get_args(Outcome)

TEACHING_OUTCOMES = ("correct", "wrong", "no_answer")
"""Only these may become reward; the others say that the judge failed, not the policy."""


class Judgement(NamedTuple):
    """The outcome of judging one completion, its score, and why."""

    outcome: Outcome
    score: float
    """In [0, 1], higher is better; 0 for outcomes that teach nothing."""
    reason: str = ""
    """For people: what was compared, or what went wrong. Never read by code."""

    @property
    def teaches(self) -> bool:
        """Whether the score says something about the policy."""
        return self.outcome in TEACHING_OUTCOMES


def outcome_rates(judgements: Iterable[Judgement]) -> dict[str, float]:
    """Share of each of the six outcomes; all 0 where nothing was judged."""
    counts = Counter(judgement.outcome for judgement in judgements)
    return {outcome: counts[outcome] / max(1, counts.total()) for outcome in OUTCOMES}
