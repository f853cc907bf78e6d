"""The report of the whole chain: the stage table, curves of the stages of RL, distillation, one problem by stage."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from r1jax.metrics import read_json, read_json_lines
from r1jax.report.figures import Panel, curve_figure
from r1jax.report.page import CSS, PAGE
from r1jax.report.run import read_evaluation
from r1jax.report.samples import response_article

STAGES = {
    "base": "Base", "r1_zero": "R1-Zero", "cold_start": "Dev1", "reasoning_rl": "Dev2", "sft": "Dev3", "general_rl": "R1",
}  # fmt: skip
"""Folders of the chain, and what the paper calls their checkpoints."""
STUDENTS = {"student": "student base", "student_rl": "student, RL", "distill": "student, distilled"}
ROWS = {
    "Reasoning": ("countdown", "chains", "functions"),
    "General": ("requests", "safety"),
}
BEHAVIOUR = {
    "format_share": "responses in the format", "language_score": "language consistency",
    "mean_response_tokens": "response length, tokens", "verify_share": "countdown: checks its work",
    "retry_share": "countdown: tries again", "reflection_words": "reflection words a response",
}  # fmt: skip
CURVES = (
    Panel(
        "{}: accuracy and response length",
        "Accuracy in the rollouts and the mean length of a response (figure 1 of the paper). Length is worth something "
        "only where accuracy rises with it.",
        ("accuracy",), ("mean_response_tokens",), "share",
    ),
    Panel(
        "{}: format and language",
        "Shares of responses in the format, and mean share of the reasoning's words in the language of the question.",
        ("format_share", "language_score"), scale="share",
    ),
    Panel(
        "{}: reflection",
        "Responses to countdown that check a value, check a second one, or use a word of reflection.",
        ("verify_share", "retry_share", "reflect_share"), scale="share",
    ),
)  # fmt: skip
REWARDS = Panel(
    "R1: preference reward against accuracy",
    "Mean scores of the reward models, from the iteration on in which they count, and accuracy over all prompts. A "
    "preference reward that climbs while accuracy falls is being gamed.",
    ("helpful", "safety", "accuracy"), scale="share",
)  # fmt: skip
MAX_PROBLEMS = 6


def write_chain_report(root: str | Path) -> Path:
    """Write `root/report.html` from whatever the stages of a chain have written so far; returns its path."""
    root = Path(root)
    evaluations = {name: _evaluation(root, name) for name in (*STAGES, *STUDENTS)}
    body = [
        "<p class=headline>Every column is one checkpoint on the same held-out problems, with 95% intervals (bootstrap "
        "over problems). The columns are those of the paper's table 3.</p>",
        "<h2>The stages</h2>", _stage_table(evaluations, STAGES),
        "<h2>Over the iterations</h2>", f"<div class=grid>{_curves(root)}</div>",
        "<h2>Distillation</h2>", _stage_table(evaluations, STUDENTS),
        "<h2>One problem across the stages</h2>", _samples(root), _times(root),
    ]  # fmt: skip
    path = root / "report.html"
    page = PAGE.format(title="DeepSeek-R1 in miniature", css=CSS, body="\n".join(body))
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def chain_table(root: str | Path) -> str:
    """The stage table and the students as Markdown: accuracy by family and behaviour, in percent, with 95% intervals."""
    columns = STAGES | STUDENTS
    evaluations = {name: _evaluation(Path(root), name) for name in columns}
    names = [name for name in columns if evaluations[name]]
    lines = ["| | " + " | ".join(columns[name] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for family in (family for families in ROWS.values() for family in families):
        cells = [_plain(_cell(evaluations[name].get("breakdown", {}).get(family))) for name in names]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    for metric, label in BEHAVIOUR.items():
        lines.append(f"| {label} | " + " | ".join(_plain(_mean(evaluations[name], metric)) for name in names) + " |")
    return "\n".join(lines)


def seeds_table(roots: Sequence[str | Path]) -> str:
    """The same table over two or more chains that differ in their seed: means, with 95% intervals by Student's t."""
    columns = STAGES | STUDENTS
    chains = [{name: _evaluation(Path(root), name) for name in columns} for root in roots]
    names = [name for name in columns if all(chain[name] for chain in chains)]
    lines = ["| | " + " | ".join(columns[name] for name in names) + " |", "|---" * (len(names) + 1) + "|"]

    def line(label: str, value: Callable[[dict], float]) -> None:
        figures = (mean_interval([value(chain[name]) for chain in chains]) for name in names)
        cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in figures]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")

    for title, families in ROWS.items():
        for family in families:
            line(family, lambda result, family=family: 100 * result["breakdown"][family]["accuracy"])
        mean = lambda result, families=families: np.mean([100 * result["breakdown"][f]["accuracy"] for f in families])
        line(f"**{title.lower()}, mean**", mean)
    for metric, label in BEHAVIOUR.items():
        line(label, lambda result, metric=metric: _scale(metric) * result[metric])
    return "\n".join(lines)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of two or more independent runs, and the half-width of its 95% interval by Student's t."""
    runs = len(values)
    return float(np.mean(values)), float(stdtrit(runs - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(runs))


def _scale(metric: str) -> int:
    return 100 if metric.endswith(("share", "score")) else 1


def _plain(cell: str) -> str:
    return cell.replace("<span class=note>", "(").replace("</span>", ")")


def _evaluation(root: Path, name: str) -> dict:
    workdir = root / f"evaluate_{name}"
    return read_evaluation(workdir) if (workdir / "evaluation.json").is_file() else {}


def _stage_table(evaluations: dict[str, dict], columns: dict[str, str]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in columns.values())
    rows = []
    for title, families in ROWS.items():
        rows.append(f"<tr><th>{title}</th>{'<td></td>' * len(columns)}</tr>")
        for family in families:
            rows.append(_row(family, [_cell(evaluations[name].get("breakdown", {}).get(family)) for name in columns]))
            levels = sorted({level for name in columns for level in _levels(evaluations[name], family)})
            for level in levels:
                cells = [_cell(_levels(evaluations[name], family).get(level)) for name in columns]
                rows.append(_row(f"&emsp;level {html.escape(level)}", cells))
    rows.append(f"<tr><th>Behaviour</th>{'<td></td>' * len(columns)}</tr>")
    for metric, label in BEHAVIOUR.items():
        rows.append(_row(label, [_mean(evaluations[name], metric) for name in columns]))
    return f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def _levels(evaluation: dict, family: str) -> dict:
    return evaluation.get("breakdown", {}).get(family, {}).get("levels", {})


def _row(label: str, cells: Sequence[str]) -> str:
    return f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _cell(entry: dict | None) -> str:
    if not entry:
        return "–"
    return _with_interval(entry["accuracy"], entry["interval95"]["accuracy"], 100, 0)


def _mean(evaluation: dict, name: str) -> str:
    if evaluation.get(name) is None:
        return "–"
    return _with_interval(evaluation[name], evaluation["interval95"][name], _scale(name), 1)


def _with_interval(value: float, interval: Sequence[float] | None, scale: int, digits: int) -> str:
    """A number with its 95% interval, which a single problem does not have."""
    bounds = "–".join(f"{scale * bound:.{digits}f}" for bound in interval) if interval else ""
    return f"{scale * value:.1f}" + (f" <span class=note>{bounds}</span>" if bounds else "")


def _curves(root: Path) -> str:
    parts = []
    for name in ("r1_zero", "reasoning_rl", "general_rl"):
        rows = read_json_lines(root / name / "metrics.jsonl")
        parts += [
            curve_figure(rows, panel._replace(title=panel.title.format(STAGES[name]))) for panel in CURVES if rows
        ]
        if name == "general_rl" and rows:
            rows = [row | row.get("reward_parts", {}) for row in rows]
            parts.append(curve_figure(rows, REWARDS))
    return "".join(parts) or "<p>No stage of reinforcement learning has run yet.</p>"


def _samples(root: Path) -> str:
    lines = {name: read_json_lines(root / f"evaluate_{name}" / "responses.jsonl") for name in STAGES}
    count = max(map(len, lines.values()), default=0)
    if not count:
        return "<p>No checkpoint has been evaluated yet.</p>"
    parts = [
        "<p class=note>The first problems in order and the first response of each checkpoint, not selected. "
        "Checks are marked: right, wrong in value or mark (\u2717), underlined where tried before.</p>"
    ]
    for place in range(min(MAX_PROBLEMS, count)):
        shown = {name: some[place] for name, some in lines.items() if place < len(some)}
        first = next(iter(shown.values()))
        question = first["prompt"].rpartition("User:")[2].removesuffix("Assistant:").strip()
        parts.append(f"<h3 class=problem>{html.escape(question)}</h3><p class=note>{html.escape(first['id'])}</p>")
        parts.append("<div class=three>")
        parts += [response_article(STAGES[name], line["responses"][0]) for name, line in shown.items()]
        parts.append("</div>")
    return "".join(parts)


def _times(root: Path) -> str:
    if not (root / "chain.json").is_file():
        return ""
    done = read_json(root / "chain.json")
    rows = "".join(f"<tr><td>{html.escape(n)}</td><td>{d['seconds']:.0f}</td></tr>" for n, d in done.items())
    total = sum(d["seconds"] for d in done.values())
    table = f"<table><tr><th>stage</th><th>seconds</th></tr>{rows}<tr><th>total</th><th>{total:.0f}</th></tr></table>"
    return f"<h2>Time</h2><div class=scroll>{table}</div>"
