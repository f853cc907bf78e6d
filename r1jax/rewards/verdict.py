"""One call of a judge, whatever it does, and batches of calls in this process."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import NamedTuple, Protocol

from r1jax.rewards.judgement import OUTCOMES, Judgement

Judge = Callable[[dict, str], Judgement]
"""(record, completion) -> Judgement; a top-level function of a module, so that workers can import it."""

MAX_REASON = 500  # characters; reasons are logged for every sample


class Judging(Protocol):
    """Completions that are being judged: a pool's ticket, or `Judged`."""

    def result(self) -> list[dict[str, Judgement]]:
        """Wait for the verdicts by the names of the judges, one dictionary a completion, in order."""


Submit = Callable[[Sequence[dict], Sequence[str]], Judging]
"""(records, completions) -> Judging: `RewardPool.submit`, or `partial(judge_inline, judges)`."""


class Judged(NamedTuple):
    """Verdicts that are there already, in the form of a pool's ticket."""

    verdicts: list[dict[str, Judgement]]

    def result(self) -> list[dict[str, Judgement]]:
        return self.verdicts


def verdict(judge: Judge, record: dict, completion: str, *, catch: type[BaseException] = Exception) -> Judgement:
    """What a judge says of a completion; "error" with a reason where it raises or returns something else.

    Args:
      judge: called once.
      record, completion: passed on.
      catch: exceptions that become "error". Only a process that does nothing but judge should catch BaseException.

    Returns:
      A judgement with a known outcome, a score in [0, 1] and a reason of at most MAX_REASON characters.
    """
    try:
        said = judge(record, completion)
        if not isinstance(said, Judgement):
            return error(f"the judge returned {said!r:.100}, not a Judgement")
        outcome, score, reason = said
        if outcome not in OUTCOMES:
            return error(f"the judge returned the outcome {outcome!r:.100}, not one of {', '.join(OUTCOMES)}")
        if not isinstance(score, Real) or not 0 <= score <= 1:
            return error(f"the judge returned the score {score!r:.100}, not a number from 0 to 1")
        return Judgement(outcome, float(score), str(reason)[:MAX_REASON])
    except catch as raised:
        return error(describe_exception(raised))


def error(reason: str) -> Judgement:
    """The judgement of a judge that failed."""
    return Judgement("error", 0.0, reason[:MAX_REASON])


def describe_exception(raised: BaseException) -> str:
    """Type and message of an exception, also of one that cannot be printed."""
    try:
        return f"{type(raised).__name__}: {raised}"
    except Exception:
        return type(raised).__name__


def judge_inline(judges: Mapping[str, Judge], records: Sequence[dict], completions: Sequence[str]) -> Judged:
    """Judge completions in this process, at once: for judges that are quick and cannot hang or crash.

    `partial(judge_inline, judges)` is called as `RewardPool.submit` is, and answers in the same form.

    Raises:
      ValueError: not one completion a record.
    """
    pairs = list(zip(records, completions, strict=True))
    return Judged([{n: verdict(judge, record, text) for n, judge in judges.items()} for record, text in pairs])
