"""The report of a comparison: arms that differ in one thing, several seeds each, in one table and overlaid curves."""

import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from r1jax.metrics import read_json, read_json_lines
from r1jax.report.chain import mean_interval
from r1jax.report.figures import COLORS, as_percent, drawing
from r1jax.report.page import CSS, PAGE
from r1jax.report.run import column, in_order, metric_name, read_evaluation

Arms = Mapping[str, Sequence[Path]]
"""The workdirs of each arm, a seed each, in the same order of seeds; the first arm is the baseline."""

CURVES = (
    "accuracy", "mean_response_tokens", "reward", "format_share", "language_score", "retry_share", "reflection_words",
    "entropy", "kl", "clip_fraction", "grad_norm", "zero_variance_groups", "max_violation", "loss",
)  # fmt: skip
LESS = ("accuracy", "mean_response_tokens", "loss", "max_violation")
"""Metrics whose difference from the baseline, seed by seed, has a row of its own."""


def read_figures(workdir: Path) -> dict[str, float]:
    """The numbers a finished run ends with: of its held-out evaluation after training, or of an evaluation."""
    if (workdir / "evaluation.json").is_file():
        found = read_evaluation(workdir)
    elif (workdir / "summary.json").is_file():
        found = read_json(workdir / "summary.json")
        found = found.get("after", found)
    else:
        raise ValueError(f"{workdir} has neither evaluation.json nor summary.json: its run has not finished")
    return {name: value for name, value in found.items() if type(value) in (int, float) and math.isfinite(value)}


def comparison_rows(arms: Arms) -> list[tuple[str, list[str]]]:
    """Lines of a table: what is measured, and for every arm its mean with a 95% interval over the seeds (Student's t)."""
    figures = {name: [read_figures(workdir) for workdir in workdirs] for name, workdirs in arms.items()}
    names = in_order(name for runs in figures.values() for run in runs for name in run)
    names = [name for name in names if name not in ("problems", "samples_per_problem")]
    first, lines = next(iter(figures.values())), []
    for name in names:
        cells = [_cell(name, [run.get(name) for run in runs]) for runs in figures.values()]
        lines.append((metric_name(name), cells))
        if name in LESS:
            less = lambda runs, name=name: [_less(run.get(name), base.get(name)) for run, base in zip(runs, first)]
            differences = [_cell(name, less(runs), "+") for runs in itertools.islice(figures.values(), 1, None)]
            lines.append((f"{metric_name(name)}, less {next(iter(arms))}'s", ["", *differences]))
    return lines


def comparison_table(arms: Arms) -> str:
    """`comparison_rows` as Markdown."""
    lines = ["| | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    return "\n".join([*lines, *(f"| {label} | {' | '.join(cells)} |" for label, cells in comparison_rows(arms))])


def write_comparison(root: str | Path, title: str, arms: Arms) -> Path:
    """Write `root/report.html`: the table, and each metric over the iterations, all arms in one figure."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *arms))
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for label, cells in comparison_rows(arms)
    )
    counts = ", ".join(f"{name} {len(workdirs)}" for name, workdirs in arms.items())
    note = (
        f"Seeds of each arm: {counts}. Means with 95% intervals over seeds by Student's t; a difference is taken seed by "
        "seed. Shares are in percent."
    )
    curves = {name: [read_json_lines(workdir / "metrics.jsonl") for workdir in some] for name, some in arms.items()}
    figures = "".join(overlay_figure(curves, name) for name in CURVES)
    nothing = "<p>These runs have no metrics over iterations.</p>"
    body = [
        f"<h2>After training</h2><div class=scroll><table><tr>{head}</tr>{rows}</table></div><p class=note>{html.escape(note)}</p>",
        "<h2>Over the iterations</h2><p class=note>The mean over seeds, each seed faint behind it.</p>",
        f"<div class=grid>{figures}</div>" if figures else nothing,
    ]  # fmt: skip
    path = Path(root) / "report.html"
    path.write_text(PAGE.format(title=html.escape(title), css=CSS, body="\n".join(body)), encoding="utf-8")
    return path


def overlay_figure(curves: Mapping[str, Sequence[list[dict]]], name: str) -> str:
    """One metric of all arms over the iterations; empty where no run has it."""
    known = {arm: [rows for rows in runs if any(name in row for row in rows)] for arm, runs in curves.items()}
    if not any(known.values()):
        return ""
    title = metric_name(name)
    return f"<figure><h3>{html.escape(title)}</h3>{drawing(title, _overlay(known, name))}</figure>"


def _overlay(known: Mapping[str, Sequence[list[dict]]], name: str) -> Callable:
    def draw(axes):
        for (arm, runs), color in zip(known.items(), itertools.cycle(COLORS)):
            lines = [_smooth(column(rows, "step"), column(rows, name)) for rows in runs]
            for steps, values in lines:
                axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            if lines:
                shared = sorted(set.intersection(*(set(steps) for steps, _ in lines)))
                means = np.mean([np.interp(shared, *line) for line in lines], axis=0)
                axes.plot(shared, means, color=color, linewidth=1.9, label=arm)
        axes.set_xlabel("iteration")
        if _is_share(name):
            as_percent(axes)
        axes.legend(loc="best")

    return draw


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean over about a fifteenth of a run, where the metric is known."""
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    window = np.ones(max(1, len(values) // 15))
    return steps, np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _cell(name: str, values: Sequence[float | None], sign: str = "") -> str:
    """Mean and interval of known values; a dash where some seed has none."""
    if any(value is None for value in values) or not values:
        return "–"
    scale, digits = (100, 1) if _is_share(name) else (1, 1 if "tokens" in name or "words" in name else 3)
    if len(values) == 1:
        return f"{scale * values[0]:{sign}.{digits}f}"
    mean, half = mean_interval(values)
    return f"{scale * mean:{sign}.{digits}f} ± {scale * half:.{digits}f}"


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _is_share(name: str) -> bool:
    share = ("accuracy", "pass_at", "majority_at")
    return name.startswith(share) or name.endswith(("share", "score", "fidelity")) or name == "zero_variance_groups"
