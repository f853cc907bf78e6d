"""A self-contained HTML report of an R1-Zero run: what changed from before to after, and the curves between."""

import html
import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.metrics import read_json_lines

MAX_POINTS, MAX_PAIRS, MAX_TRAINING_SAMPLES, MAX_CHARACTERS = 1000, 8, 6, 6000  # these keep the page below 2 MB
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLORS = "#2463a6", "#d9701e", "#3a8f4d", "#c0392b", "#7b5aa6", "#8a8f98"
OUTCOME_COLORS = {"correct": GREEN, "wrong": RED, "no_answer": GREY, "timeout": PURPLE, "error": ORANGE}
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.grid": True, "grid.color": "#e8eaee",
    "axes.axisbelow": True, "axes.edgecolor": GREY, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
NAMES = {
    "accuracy": "accuracy", "mean_response_tokens": "mean response, tokens", "format_share": "format kept",
    "truncated_share": "truncated", "verify_share": "verify", "retry_share": "retry", "reflect_share": "reflect",
    "verdict_fidelity": "verdict fidelity", "repeat_share": "repeated checks", "problems": "problems",
    "samples_per_problem": "samples a problem", "zero_variance_groups": "zero-variance groups", "reward": "mean reward",
    "entropy": "entropy, nats a token", "kl": "KL, nats a token", "clip_fraction": "clip fraction",
    "grad_norm": "gradient norm", "max_violation": "MaxVio", "sampler_mismatch": "mean, nats",
    "sampler_mismatch_max": "largest, nats",
}  # fmt: skip
CSS = """
:root { color-scheme: light } * { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; background: #fff; max-width: 1120px; margin: 0 auto; padding: 1.5rem }
h1 { margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #e2e5ea }
h3 { margin: 0 0 .3rem; font-size: 1rem } .headline { font-size: 1.2rem; margin: .4rem 0 }
.note, figcaption, .prompt { color: #5a6270; font-size: .9rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
td, th { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e8eaee }
td:first-child, th:first-child { text-align: left; padding-left: 0 } figure { margin: 0 } .wide { grid-column: 1 / -1 }
.grid, .two { display: grid; gap: 1.75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
.two { gap: .75rem; align-items: start } svg { width: 100%; height: auto; display: block }
article { background: #f7f8fa; border: 1px solid #e2e5ea; border-radius: 8px; padding: .6rem .8rem; font-size: .9rem }
.text, pre { font: .82rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 0 }
.text { max-height: 22rem; overflow-y: auto }
.prompt { max-height: 6rem; overflow-y: auto; white-space: pre-wrap; margin: 1.2rem 0 .4rem }
.badge { border-radius: 4px; padding: .05rem .45rem; color: #fff; background: #b03a2e; font-size: .8rem }
.badge.correct { background: #2c7a3f } mark { border-radius: 3px; padding: 0 2px }
mark.right { background: #d3efd9; color: #1c5b2c } mark.wrong { background: #fbd5d0; color: #8c1d13 }
mark.wrong::after { content: " \\2717" } mark.repeated { text-decoration: underline 2px }
"""
# The policy makes a browser refuse whatever is not in the file itself, scripts in samples included.
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>{css}</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


class Run(NamedTuple):
    """What a workdir holds; empty where a file is missing."""

    rows: list[dict]
    samples: list[dict]
    before: dict
    after: dict
    training: dict
    seconds: dict
    config: dict
    missing: list[str]


class Panel(NamedTuple):
    """Metrics over iterations, those of `right` on an axis of their own."""

    title: str
    caption: str
    left: tuple[str, ...]
    right: tuple[str, ...] = ()
    scale: str = "linear"
    """linear, log, or share: percent from 0 to 100."""


BEHAVIOUR = Panel(
    "Behaviour",
    "Shares of responses that check a value (verify), check a second one (retry), or use a word of reflection. Look for "
    "accuracy rising with them: behaviour that grows while accuracy stays is habit, not reasoning.",
    ("verify_share", "retry_share", "reflect_share", "accuracy"), scale="share",
)  # fmt: skip
PANELS = (
    BEHAVIOUR,
    Panel(
        "Are the checks true?",
        "Share of checks whose value and verdict are both right, and of checks that repeat an expression already tried. "
        "Falling fidelity or climbing repetition means length is padding. Both are 0 where nothing was checked.",
        ("verdict_fidelity", "repeat_share"), scale="share",
    ),
    Panel(
        "Format, truncation, groups without signal",
        "The format should be learnt early. Truncated responses cannot score, and groups of one reward give no gradient: "
        "where either nears 100%, learning stops.",
        ("format_share", "truncated_share", "zero_variance_groups"), scale="share",
    ),
    Panel("Reward", "What is maximised. A rise while accuracy stays comes from the format alone.", ("reward",)),
    Panel("Entropy", "A quick fall to 0 ends exploration; a rise without end is divergence.", ("entropy",)),
    Panel("KL to the reference", "It falls back where the reference is replaced; look for jumps elsewhere.", ("kl",)),
    Panel(
        "Clip fraction and gradient norm",
        "Share of tokens whose ratio was clipped, and the norm before clipping. Spikes in both mark unstable updates.",
        ("clip_fraction",), ("grad_norm",),
    ),
    Panel(
        "Sampler against trainer",
        "Difference of their log-probabilities on the same tokens. The mean should stay flat and far below 1e-3; "
        "otherwise the ratio measures numerics, not policy.",
        ("sampler_mismatch", "sampler_mismatch_max"), scale="log",
    ),
)  # fmt: skip


def write_report(workdir: str | Path) -> Path:
    """Write `workdir/report.html` from whatever of metrics, samples, summary and config the run has written so far.

    Returns:
      The path of the page.

    Raises:
      ValueError: the workdir is missing or holds none of these, or a file is damaged other than at its end.
    """
    run = _read_run(Path(workdir))
    title = html.escape(f"{run.config.get('experiment', 'R1-Zero')}: what reinforcement learning changed")
    body = [_headline(run), _table(run), _doctor(run), _figures(run), _sample_pairs(run), _training_samples(run)]
    config = html.escape(json.dumps(run.config, indent=2))
    body.append(f"<h2>Configuration</h2><details><summary>config.json</summary><pre>{config}</pre></details>")
    path = Path(workdir) / "report.html"
    path.write_text(PAGE.format(title=title, css=CSS, body="\n".join(body)), encoding="utf-8")
    return path


def _read_run(workdir: Path) -> Run:
    missing = []

    def read(name):
        try:
            return json.loads((workdir / name).read_text())
        except FileNotFoundError:
            missing.append(f"{name} is missing")
        except json.JSONDecodeError:
            missing.append(f"{name} is not whole")
        return {}

    lines = {name: read_json_lines(workdir / name) for name in ("metrics.jsonl", "samples.jsonl")}
    missing += [f"{name} holds no record" for name, records in lines.items() if not records]
    summary, config = read("summary.json"), read("config.json")
    before = summary.get("before") or ((workdir / "before.json").is_file() and read("before.json")) or {}
    if not any((*lines.values(), before, summary, config)):
        raise ValueError(f"nothing to report in {workdir}: no metrics.jsonl, samples.jsonl, summary.json or config.json there")
    parts = (summary.get(name) or {} for name in ("after", "training", "seconds"))
    return Run(*lines.values(), before, *parts, config, missing)


def _headline(run: Run) -> str:
    before, after, rows = run.before, run.after, run.rows
    sentences = []
    if before and after:
        sentences += [
            f"Accuracy on held-out problems: <b>{_accuracy(before)} before, {_accuracy(after)} after</b> (95% intervals), "
            f"while the mean response went from {_show(before, 'mean_response_tokens')} to "
            f"{_show(after, 'mean_response_tokens')} tokens.",
            _verdict(before, after),
        ]
    elif before:
        sentences.append(
            f"Accuracy on held-out problems before training is <b>{_accuracy(before)}</b> (95% interval) with a mean "
            f"response of {_show(before, 'mean_response_tokens')} tokens; there is no evaluation after training yet."
        )
    if rows and not after:
        width = max(1, len(rows) // 10)
        ends = [
            {name: float(np.nanmean(_column(part, name))) for name in ("accuracy", "mean_response_tokens") if name in part[-1]}
            for part in (rows[:width], rows[-width:])
        ]
        sentences.append(
            f"Over {len(rows)} iterations, accuracy on the training problems of the rollouts went from "
            f"<b>{_show(ends[0], 'accuracy')} to {_show(ends[1], 'accuracy')}</b>, while the mean response went from "
            f"{_show(ends[0], 'mean_response_tokens')} to {_show(ends[1], 'mean_response_tokens')} tokens "
            f"(means of the first and last {width}); nothing here is held out."
        )
    notes = f"<p class=note>Incomplete: {html.escape('; '.join(run.missing))}.</p>" if run.missing else ""
    return "".join(f"<p class=headline>{sentence}</p>" for sentence in sentences if sentence) + notes


def _verdict(before: dict, after: dict) -> str:
    """Whether accuracy moved beyond its intervals, and how one answer now compares with k answers before."""
    gain = after.get("accuracy", math.nan) - before.get("accuracy", math.nan)
    noise = math.hypot(before.get("accuracy_ci95", math.nan), after.get("accuracy_ci95", math.nan))
    if not math.isfinite(gain + noise):
        return ""
    if gain < noise:
        change = "fell" if gain < -noise else "did not change beyond its intervals"
        return f"Accuracy {change}, so whatever responses gained in length shows nothing about reasoning."
    tries = [name for name in _sorted(before) if name.startswith("pass_at_") and name != "pass_at_1"]
    beaten = [name for name in tries if before[name] < after["accuracy"]]
    parts = [f"{'above' if name in beaten else 'below'} base {_name(name)} ({_show(before, name)})" for name in tries]
    return f"One answer after training is {', '.join(parts)}." if parts else ""


def _table(run: Run) -> str:
    if not run.before:
        return "<h2>Before and after</h2><p>There is no evaluation of held-out problems to compare.</p>"
    columns = (run.before, run.after, run.training)
    rows = []
    for name in _sorted({name for column in columns for name in column} - {"accuracy_ci95"}):
        shown = [(_accuracy if name == "accuracy" else lambda s: _show(s, name))(column) for column in columns]
        cells = [*shown[:2], "" if name in ("problems", "samples_per_problem") else _difference(run, name), shown[2]]
        rows.append(f"<tr><td>{html.escape(_name(name))}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ("", "before, held-out", "after, held-out", "difference", "after, training problems")
    note = (
        "Set the two columns after training side by side: what is won on training problems only was memorised. Base "
        "pass@k, in the first column, is what k tries reached before training. Differences of shares are percentage points."
    )
    head = "".join(f"<th>{text}</th>" for text in heads)
    table = f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"
    return f"<h2>Before and after</h2>{table}<p class=note>{note}</p>"


def _difference(run: Run, name: str) -> str:
    if name not in run.before or name not in run.after:
        return "–"
    change = run.after[name] - run.before[name]
    return f"{change:+.1f}" if "tokens" in name else f"{100 * change:+.1f}"


def _doctor(run: Run) -> str:
    findings = next((row["doctor"] for row in run.rows if "doctor" in row), None)
    if findings is None:
        text = "<p>The metrics hold no diagnosis of the first iteration.</p>"
    elif findings:
        text = f"<ul>{''.join(f'<li>{html.escape(finding)}</li>' for finding in findings)}</ul>"
    else:
        text = "<p>Nothing found in the first iteration that would keep the reward flat.</p>"
    return f"<h2>The doctor's findings</h2>{text}"


def _figures(run: Run) -> str:
    if not run.rows:
        return "<h2>Over the iterations</h2><p>No iteration has been recorded, so there are no curves yet.</p>"
    stride = -(-len(run.rows) // MAX_POINTS)
    rows = run.rows[::-1][::stride][::-1]
    figures = [_main_figure(run, rows), *(_panel_figure(rows, panel) for panel in PANELS)]
    figures += [_level_figure(rows), _panel_figure(rows, MAX_VIOLATION), _load_figure(rows), _outcome_figure(rows)]
    figures.append(_seconds_figure(run, rows))
    note = f"<p class=note>Curves show every {stride}th iteration.</p>" if stride > 1 else ""
    return f"<h2>Over the iterations</h2>{note}<div class=grid>{''.join(figures)}</div>"


def _main_figure(run: Run, rows: list[dict]) -> str:
    def accuracy(axes):
        _curves(axes, rows, Panel("", "", ("accuracy",), scale="share"))
        tries = [name for name in _sorted(run.before) if name.startswith("pass_at_")]
        place = -1.0
        for name in tries:
            place = max(run.before[name], place + 0.055)  # labels of close lines are pushed apart
            axes.axhline(run.before[name], color=GREY, linestyle="--", linewidth=0.9)
            axes.text(1.01, place, f"base {_name(name)}", transform=axes.get_yaxis_transform(), va="center", color="#5a6270")
        if "accuracy" in run.after:
            error = run.after.get("accuracy_ci95")
            axes.errorbar(rows[-1]["step"], run.after["accuracy"], error, fmt="D", color=RED, capsize=4, label="held-out, after")
        axes.lines[1].set_label("training problems, in rollouts") if len(axes.lines) > 1 else None
        axes.legend(loc="lower right")
