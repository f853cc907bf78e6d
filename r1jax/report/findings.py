"""The paper's findings as rows: what is claimed, what the runs show, whether it holds by a criterion set beforehand."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.metrics import read_json, read_json_lines
from r1jax.report.chain import mean_interval
from r1jax.report.figures import BLUE, GREY, STYLE
from r1jax.report.run import column

Runs = Mapping[str, Sequence[Path]]
"""The workdirs of each arm that a finding needs, one a seed, in the order of seeds."""


class Verdict(NamedTuple):
    """What the runs of a finding show."""

    values: dict[str, list[float]]
    """By what is measured, a number a seed: shares as they are, lengths in tokens."""
    statement: str
    """What stands in the table."""
    holds: bool


@dataclasses.dataclass(frozen=True)
class Finding:
    """One claim of the paper, and how it is put to the test here."""

    number: int
    claim: str
    paper: str
    """The paper's figure, and where it stands."""
    arms: tuple[str, ...]
    """The runs that it is judged by."""
    criterion: str
    """What must be so for it to hold; written before the runs."""
    judge: Callable[[Runs], Verdict]
    """A pure function of what the runs have written."""
    limits: str = ""
    """What the miniature cannot show, and why."""
    seeds: int = 3
    """How many of them it is judged by."""


def read_summary(workdir: Path, part: str = "after") -> dict:
    """The part of summary.json: before, after, training."""
    return read_json(workdir / "summary.json")[part]


def gains(workdirs: Sequence[Path], name: str) -> list[float]:
    """After training less before, of a number of the held-out evaluation, a seed each."""
    return [read_summary(workdir)[name] - read_summary(workdir, "before")[name] for workdir in workdirs]


def ends(workdirs: Sequence[Path], name: str, part: str = "after") -> list[float]:
    """A number of the held-out evaluation, a seed each."""
    return [read_summary(workdir, part)[name] for workdir in workdirs]


def over_iterations(workdir: Path, name: str, first: int, last: int) -> float:
    """The mean of a metric from one iteration to another, both included; NaN where none of them has it."""
    rows = [row for row in read_json_lines(workdir / "metrics.jsonl") if first <= row["step"] <= last]
    values = column([row | row.get("reward_parts", {}) for row in rows], name)
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else math.nan


def last_iteration(workdir: Path) -> int:
    """The number of the last iteration of a run."""
    return read_json_lines(workdir / "metrics.jsonl")[-1]["step"]


def less(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Differences, seed by seed."""
    return [value - other for value, other in zip(values, others, strict=True)]


def low(values: Sequence[float]) -> float:
    """Lower end of the 95% interval of a mean over seeds (Student's t); it cannot be told from less than two."""
    mean, half = mean_interval(values)
    return mean - half


def high(values: Sequence[float]) -> float:
    """Its upper end."""
    mean, half = mean_interval(values)
    return mean + half


def points(values: Sequence[float], sign: str = "") -> str:
    """Shares in percent, or their differences in points, as mean ± half of the 95% interval."""
    mean, half = mean_interval(values)
    return f"{100 * mean:{sign}.1f} ± {100 * half:.1f}"


def number(values: Sequence[float], digits: int = 1, sign: str = "") -> str:
    """Numbers as mean ± half of the 95% interval."""
    mean, half = mean_interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def findings_page(
    findings: Sequence[Finding], verdicts: Mapping[int, Verdict], commands: Mapping[int, Sequence[str]], intro: str
) -> str:
    """docs/findings.md: the table, then every finding with criterion, seeds, commands and limits.

    Args:
      findings: all of them; one without a verdict has not been run.
      verdicts: by number.
      commands: by number, how to run it.
      intro: what stands above the table.
    """
    lines = [intro.strip(), "", "| | claim | paper | here | holds? |", "|---|---|---|---|---|"]
    for finding in findings:
        verdict = verdicts.get(finding.number)
        here, holds = (verdict.statement, "yes" if verdict.holds else "**no**") if verdict else ("not run", "not run")
        lines.append(f"| {finding.number} | {finding.claim} | {finding.paper} | {here} | {holds} |")
    for finding in findings:
        lines += ["", f"## {finding.number}. {finding.claim}", "", f"Holds if {finding.criterion}"]
        verdict = verdicts.get(finding.number)
        if verdict is None:
            lines += ["", "Not run."]
        else:
            lines += ["", "| measured | each seed | mean, 95% interval |", "|---|---|---|"]
            for name, values in verdict.values.items():
                shown = ", ".join(f"{value:.3g}" for value in values)
                lines.append(f"| {name} | {shown} | {number(values, 3)} |")
            if not verdict.holds:
                lines += ["", f"![the seeds of finding {finding.number}](findings/{finding.number}.svg)"]
        if finding.limits:
            lines += ["", finding.limits]
        lines += ["", "```bash", *commands[finding.number], "```"]
    return "\n".join(lines) + "\n"


def draw_seeds(path: Path, verdict: Verdict) -> None:
    """An SVG file with a panel for everything measured: a dot a seed, and the mean with its 95% interval."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": path.name})
        figure = Figure(figsize=(1.9 * len(verdict.values) + 0.4, 2.8), layout="constrained")
        for axes, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(verdict.values))), verdict.values.items()):
            mean, half = mean_interval(values)
            axes.errorbar([0], [mean], [half], fmt="_", color=BLUE, capsize=5)
            axes.plot(np.linspace(-0.2, 0.2, len(values)), values, "o", color=GREY, markersize=4)
            axes.set(xlim=(-1, 1), xticks=[])
            axes.set_title(name.replace(", ", ",\n"), fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
