"""Which judges a stage asks, and where they run."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial

from r1jax.config import UserError
from r1jax.evaluation.problems import PromptForm
from r1jax.rewards.format import format_reward, think_format_reward
from r1jax.rewards.language import language_reward
from r1jax.rewards.pool import RewardPool
from r1jax.rewards.sandbox import SandboxUnavailable, require_isolation
from r1jax.rewards.verdict import Judge, Submit, judge_inline
from r1jax.tasks.families import family_reward

RUN_PROGRAMS = ("code", "programs", "functions")
IN_PROCESSES = ("math", *RUN_PROGRAMS)
"""Families whose judges use sympy or the sandbox: they may hang, crash or take long."""
DEADLINE = 120.0
"""Seconds for one judgement in a worker; the judges' own limits are shorter."""


def judges_of(form: PromptForm, *, language: bool, allow_unsafe: bool = False) -> dict[str, Judge]:
    """Accuracy by the family of the record, the format of a form of prompt, and language consistency if asked for."""
    accuracy = partial(family_reward, allow_unsafe=True) if allow_unsafe else family_reward
    judges = {"accuracy": accuracy, "format": format_reward if form == "r1_zero" else think_format_reward}
    return judges | ({"language": language_reward} if language else {})


def needs_processes(record: dict) -> bool:
    """Whether the judge of a record belongs into a RewardPool."""
    return record["family"] in IN_PROCESSES or "tests" in record


def record_and_text(record: dict, completion: str) -> bytes:
    """A digest of all that a verdict depends on: samples of a group are often the same, and a program need run once."""
    return hashlib.blake2b(json.dumps([record, completion], sort_keys=True).encode()).digest()


@contextlib.contextmanager
def open_judges(
    judges: dict[str, Judge], records: Sequence[dict], *, workers: int, allow_unsafe: bool = False
) -> Iterator[Submit]:
    """A function that begins to judge: in worker processes where some record needs them, in this one otherwise.

    A worker remembers verdicts on accuracy, so that the same completion of a problem is not judged twice.

    Args:
      judges: by name.
      records: all that will be judged, or one of every kind.
      workers: processes.
      allow_unsafe: go on where this host cannot isolate programs.

    Raises:
      UserError: there are programs to judge, and this host cannot isolate them.
    """
    hard = next(filter(needs_processes, records), None)
    if hard is None:
        yield lambda some, texts: judge_inline(judges, some, texts)
        return
    if any(record["family"] in RUN_PROGRAMS for record in records):
        try:
            require_isolation(allow_unsafe=allow_unsafe)  # warns here, and not in the workers alone, of a weak level
        except SandboxUnavailable as error:
            raise UserError(str(error)) from error
    options = {"timeout": DEADLINE, "keys": {"accuracy": record_and_text}, "warm_up": [(hard, "\\boxed{1}")]}
    with RewardPool(judges, workers=workers, **options) as pool:
        yield pool.submit
