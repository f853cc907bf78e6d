"""How often a policy solved each problem, from a file of rates or of judged samples."""

from collections import Counter
from pathlib import Path
from typing import Any

from r1jax.config import UserError
from r1jax.data.rows import read_rows
from r1jax.rewards.judgement import OUTCOMES, TEACHING_OUTCOMES


def read_pass_rates(path: str | Path) -> dict[str, float]:
    """The pass rate of every record that a JSON lines file names.

    A row is {"id", "pass_rate"}, or one sample {"id", "outcome"}, or several {"id", "outcomes"}; outcomes are those of
    r1jax.rewards.judgement. The rate is correct over those that teach: a judge that failed says nothing of the policy.
    An id whose samples all failed to be judged has no rate.

    Raises:
      UserError: the file is missing, or a row is none of these; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing")
    rates: dict[str, float] = {}
    correct: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for row in read_rows(path):
        where = f"{path}, line {row.line}"
        if row.fault:
            raise UserError(f"{where}: {row.fault.kind}: {row.fault.detail}")
        key, rate, outcomes = _parts(row.value, where)
        if key in rates or (rate is not None and key in judged):
            raise UserError(f"{where}: the pass rate of {key!r} was given before")
        if rate is not None:
            rates[key] = rate
            continue
        judged[key] += sum(outcome in TEACHING_OUTCOMES for outcome in outcomes)
        correct[key] += outcomes.count("correct")
    return rates | {key: correct[key] / count for key, count in judged.items() if count}


def _parts(row: Any, where: str) -> tuple[str, float | None, list[str]]:
    """Id, rate if given, and outcomes of a row."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise UserError(f"{where}: expected an object with a text 'id' and 'pass_rate', 'outcome' or 'outcomes'")
    if "pass_rate" in row:
        rate = row["pass_rate"]
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise UserError(f"{where}: 'pass_rate' is {rate!r}; expected a number from 0 to 1")
        return row["id"], float(rate), []
    outcomes = row["outcomes"] if "outcomes" in row else [row.get("outcome")]
    if not isinstance(outcomes, list) or not all(outcome in OUTCOMES for outcome in outcomes):
        raise UserError(f"{where}: outcome {str(outcomes)[:80]} is not one of {', '.join(OUTCOMES)}")
    return row["id"], None, outcomes
