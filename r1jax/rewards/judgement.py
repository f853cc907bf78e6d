"""What every judge returns."""

from typing import Literal, NamedTuple

Outcome = Literal["correct", "wrong", "no_answer", "gold_unparseable", "timeout", "error"]

TEACHING_OUTCOMES = ("correct", "wrong", "no_answer")
"""Only these may become reward; the others say that the judge failed, not the policy."""


class Judgement(NamedTuple):
    """The outcome of judging one completion, and its score in [0, 1]."""

    outcome: Outcome
    score: float
