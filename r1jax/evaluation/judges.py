"""Which judges an evaluation asks, and where they run."""

import contextlib
from collections.abc import Iterator, Sequence

from r1jax.evaluation.problems import PromptForm
from r1jax.rewards.format import format_reward, think_format_reward
from r1jax.rewards.language import language_reward
from r1jax.rewards.pool import RewardPool
from r1jax.rewards.verdict import Judge, Submit, judge_inline
from r1jax.tasks.families import family_reward

IN_PROCESSES = ("math", "code", "programs", "functions")
"""Families whose judges use sympy or the sandbox: they may hang, crash or take long."""
DEADLINE = 120.0
"""Seconds for one judgement in a worker; the judges' own limits are shorter."""


def judges_of(form: PromptForm, *, language: bool) -> dict[str, Judge]:
    """Accuracy by the family of the record, the format of a form of prompt, and language consistency if asked for."""
    judges = {"accuracy": family_reward, "format": format_reward if form == "r1_zero" else think_format_reward}
    return judges | ({"language": language_reward} if language else {})


def needs_processes(record: dict) -> bool:
    """Whether the judge of a record belongs into a RewardPool."""
    return record["family"] in IN_PROCESSES or "tests" in record


@contextlib.contextmanager
def open_judges(judges: dict[str, Judge], records: Sequence[dict], *, workers: int) -> Iterator[Submit]:
    """A function that begins to judge: in worker processes where some record needs them, in this one otherwise."""
    hard = next(filter(needs_processes, records), None)
    if hard is None:
        yield lambda some, texts: judge_inline(judges, some, texts)
        return
    with RewardPool(judges, workers=workers, timeout=DEADLINE, warm_up=[(hard, "\\boxed{1}")]) as pool:
        yield pool.submit
