"""The page: headline, table, findings, and the parts made elsewhere."""

import html
import json
import math
from pathlib import Path

import numpy as np

from r1jax.config import as_path
from r1jax.report.figures import figures
from r1jax.report.run import Run, column, in_order, metric_name, read_run, shown, shown_accuracy
from r1jax.report.samples import mismatched_tokens, sample_pairs, training_samples

CSS = """
:root { color-scheme: light } * { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; background: #fff; max-width: 1120px }
body { margin: 0 auto; padding: 1.5rem }
h1 { margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #e2e5ea }
h3 { margin: 0 0 .3rem; font-size: 1rem } .headline { font-size: 1.2rem; margin: .4rem 0 }
.note, figcaption, .prompt { color: #5a6270; font-size: .9rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
td, th { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #e8eaee; white-space: nowrap }
td:first-child, th:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 7rem }
td .note { font-size: .8rem }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: #fff }
figure { margin: 0 } .wide { grid-column: 1 / -1 } .grid, .two, .three { display: grid; gap: 1.75rem }
.grid, .three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 325px), 1fr)) }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
.two, .three { gap: .75rem; align-items: start } svg { width: 100%; height: auto; display: block }
.problem { margin: 1.75rem 0 .5rem }
article { background: #f7f8fa; border: 1px solid #e2e5ea; border-radius: 8px; padding: .6rem .8rem; font-size: .9rem }
.text, pre { font: .82rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.text { margin: .4rem 0 0; max-height: 22rem; overflow-y: auto }
.prompt { white-space: pre-wrap; margin: 1.2rem 0 .4rem }
.badge { border-radius: 4px; padding: .05rem .45rem; color: #fff; background: #b03a2e; font-size: .8rem }
.badge.correct { background: #2c7a3f } mark { border-radius: 3px; padding: 0 2px }
mark.right { background: #d3efd9; color: #1c5b2c } mark.wrong { background: #fbd5d0; color: #8c1d13 }
mark.wrong::after { content: " \\2717" } mark.repeated { text-decoration: underline 2px }
@media (max-width: 600px) { body { padding: 1rem } h1 { font-size: 1.6rem } .headline { font-size: 1.05rem } }
"""
# The policy makes a browser refuse whatever is not in the file itself, scripts in samples included.
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>{css}</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def write_report(workdir: str | Path) -> Path:
    """Write `workdir/report.html` from whatever of metrics, samples, summary and config the run has written so far.

    Returns:
      The path of the page.

    Raises:
      ValueError: the workdir is missing or holds none of these, or a file is damaged other than at its end.
    """
    run = read_run(as_path(workdir))
    title = html.escape(f"{run.config.get('experiment', 'R1-Zero')}: what reinforcement learning changed")
    body = [_headline(run), _table(run), _doctor(run), figures(run), sample_pairs(run), training_samples(run)]
    body.append(mismatched_tokens(run))
    config = html.escape(json.dumps(run.config, indent=2))
    body.append(f"<h2>Configuration</h2><details><summary>config.json</summary><pre>{config}</pre></details>")
    path = as_path(workdir) / "report.html"
    path.write_text(
        PAGE.format(title=title, css=CSS, body="\n".join(body)), encoding="utf-8", errors="backslashreplace"
    )
    return path


def _headline(run: Run) -> str:
    before, after, rows = run.before, run.after, run.rows
    sentences = []
    if before and after:
        sentences += [
            f"Accuracy on held-out problems: <b>{shown_accuracy(before)} before, {shown_accuracy(after)} after</b> "
            f"(95% intervals), while the mean response went from {shown(before, 'mean_response_tokens')} to "
            f"{shown(after, 'mean_response_tokens')} tokens.",
            _verdict(before, after),
        ]
    elif before:
        sentences.append(
            f"Accuracy on held-out problems before training is <b>{shown_accuracy(before)}</b> (95% interval) "
            f"with a mean response of {shown(before, 'mean_response_tokens')} tokens; "
            "there is no evaluation after training yet."
        )
    if rows and not after:
        width = max(1, len(rows) // 10)
        ends = [
            {
                name: float(np.nanmean(column(part, name)))
                for name in ("accuracy", "mean_response_tokens")
                if name in part[-1]
            }
            for part in (rows[:width], rows[-width:])
        ]
        sentences.append(
            f"Over {len(rows)} iterations, accuracy on the training problems of the rollouts went from "
            f"<b>{shown(ends[0], 'accuracy')} to {shown(ends[1], 'accuracy')}</b>, while the mean response went from "
            f"{shown(ends[0], 'mean_response_tokens')} to {shown(ends[1], 'mean_response_tokens')} tokens "
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
    tries = [name for name in in_order(before, "pass_at") if name != "pass_at_1"]
    beaten = [name for name in tries if before[name] < after["accuracy"]]
    parts = [
        f"{'above' if name in beaten else 'below'} base {metric_name(name)} ({shown(before, name)})" for name in tries
    ]
    return f"One answer after training is {', '.join(parts)}." if parts else ""


def _table(run: Run) -> str:
    if not run.before:
        return "<h2>Before and after</h2><p>There is no evaluation of held-out problems to compare.</p>"
    columns = (run.before, run.after, run.training)
    rows = []
    for name in in_order(name for summary in columns for name in summary):
        values = [shown_accuracy(summary) if name == "accuracy" else shown(summary, name) for summary in columns]
        cells = [*values[:2], "" if name in ("problems", "samples_per_problem") else _difference(run, name), values[2]]
        rows.append(
            f"<tr><td>{html.escape(metric_name(name))}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    heads = ("", "before, held-out", "after, held-out", "difference", "after, training problems")
    note = (
        "Set the two columns after training side by side: what is won on training problems only was memorised. Base "
        "pass@k, in the first column, is what k tries reached before training. Differences of shares are in points."
    )
    head = "".join(f"<th>{text}</th>" for text in heads)
    table = f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"
    return f"<h2>Before and after</h2>{table}<p class=note>{note}</p>"


def _difference(run: Run, name: str) -> str:
    if name not in run.before or name not in run.after:
        return "–"
    change = run.after[name] - run.before[name]
    if not math.isfinite(change):
        return "–"
    return f"{change:+.1f}" if "tokens" in name or "words" in name else f"{100 * change:+.1f}"


def _doctor(run: Run) -> str:
    findings = next((row["doctor"] for row in run.rows if "doctor" in row), None)
    if findings is None:
        text = "<p>The metrics hold no diagnosis of the first iteration.</p>"
    elif findings:
        text = f"<ul>{''.join(f'<li>{html.escape(finding)}</li>' for finding in findings)}</ul>"
    else:
        text = "<p>Nothing found in the first iteration that would keep the reward flat.</p>"
    return f"<h2>The doctor's findings</h2>{text}"
