"""A self-contained HTML report of an R1-Zero run: what changed from before to after, and the curves between."""

import html
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.metrics import read_json_lines

MAX_POINTS, MAX_PAIRS, MAX_TRAINING_SAMPLES, MAX_CHARACTERS = 1000, 12, 6, 6000  # these keep the page below 2 MB
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLORS = "#2463a6", "#d9701e", "#3a8f4d", "#c0392b", "#7b5aa6", "#8a8f98"
OUTCOME_COLORS = {"correct": GREEN, "wrong": RED, "no_answer": GREY, "timeout": PURPLE, "error": ORANGE}
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e8eaee", "axes.axisbelow": True, "axes.edgecolor": GREY, "legend.frameon": False,
    "legend.fontsize": 8,
}  # fmt: skip
NAMES = {  # by the name of a metric without the number at its end; also the order of the table
    "accuracy": "accuracy", "pass_at": "pass@{}", "majority_at": "majority of {}",
    "accuracy_level": "accuracy, level {}", "mean_response_tokens": "mean response, tokens",
    "mean_response_tokens_level": "mean response, level {}, tokens",
    "format_share": "format kept", "truncated_share": "truncated", "verify_share": "verify", "retry_share": "retry",
    "reflect_share": "reflect", "verdict_fidelity": "verdict fidelity", "repeat_share": "repeated checks",
    "problems": "problems", "samples_per_problem": "samples a problem", "zero_variance_groups": "zero-variance groups",
    "reward": "mean reward", "entropy": "entropy, nats a token", "kl": "KL, nats a token", "grad_norm": "gradient norm",
    "clip_fraction": "clip fraction", "max_violation": "MaxVio", "sampler_mismatch": "mean, nats",
    "sampler_mismatch_max": "largest, nats",
}  # fmt: skip
CSS = """
:root { color-scheme: light } * { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; background: #fff; max-width: 1120px }
body { margin: 0 auto; padding: 1.5rem }
h1 { margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #e2e5ea }
h3 { margin: 0 0 .3rem; font-size: 1rem } .headline { font-size: 1.2rem; margin: .4rem 0 }
.note, figcaption, .prompt { color: #5a6270; font-size: .9rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
td, th { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e8eaee }
td:first-child, th:first-child { text-align: left; padding-left: 0 } figure { margin: 0 } .wide { grid-column: 1 / -1 }
.grid, .two { display: grid; gap: 1.75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
.two { gap: .75rem; align-items: start } svg { width: 100%; height: auto; display: block }
article { background: #f7f8fa; border: 1px solid #e2e5ea; border-radius: 8px; padding: .6rem .8rem; font-size: .9rem }
.text, pre { font: .82rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.text { margin: .4rem 0 0; max-height: 22rem; overflow-y: auto }
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


PANELS = (
    Panel(
        "Behaviour",
        "Shares of responses that check a value (verify), check a second one (retry), or use a word of reflection. "
        "Look for accuracy rising with them: behaviour that grows while accuracy stays is habit, not reasoning.",
        ("accuracy", "verify_share", "retry_share", "reflect_share"), scale="share",
    ),
    Panel(
        "Are the checks true?",
        "Share of checks whose value and verdict are both right, and of checks that repeat an expression tried before. "
        "Falling fidelity or climbing repetition means length is padding. Both are 0 where nothing was checked.",
        ("verdict_fidelity", "repeat_share"), scale="share",
    ),
    Panel(
        "Format, truncation, groups without signal",
        "The format should be learnt early. Truncated responses cannot score, and groups of one reward give no "
        "gradient: where either nears 100%, learning stops.",
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
    Panel(
        "Expert balance",
        "MaxVio: how far the busiest expert lies above the mean load, 0 being perfect balance. Look for a climb.",
        ("max_violation",),
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
    path.write_text(
        PAGE.format(title=title, css=CSS, body="\n".join(body)), encoding="utf-8", errors="backslashreplace"
    )
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
        raise ValueError(f"nothing to report in {workdir}: it has no metrics, samples, summary or config of a run")
    parts = (summary.get(name) or {} for name in ("after", "training", "seconds"))
    return Run(*lines.values(), before, *parts, config, missing)


def _headline(run: Run) -> str:
    before, after, rows = run.before, run.after, run.rows
    sentences = []
    if before and after:
        sentences += [
            f"Accuracy on held-out problems: <b>{_accuracy(before)} before, {_accuracy(after)} after</b> (95% "
            f"intervals), while the mean response went from {_show(before, 'mean_response_tokens')} to "
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
            {
                name: float(np.nanmean(_column(part, name)))
                for name in ("accuracy", "mean_response_tokens")
                if name in part[-1]
            }
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
    tries = [name for name in _sorted(before, "pass_at") if name != "pass_at_1"]
    beaten = [name for name in tries if before[name] < after["accuracy"]]
    parts = [f"{'above' if name in beaten else 'below'} base {_name(name)} ({_show(before, name)})" for name in tries]
    return f"One answer after training is {', '.join(parts)}." if parts else ""


def _table(run: Run) -> str:
    if not run.before:
        return "<h2>Before and after</h2><p>There is no evaluation of held-out problems to compare.</p>"
    columns = (run.before, run.after, run.training)
    rows = []
    for name in _sorted(name for column in columns for name in column):
        shown = [_accuracy(column) if name == "accuracy" else _show(column, name) for column in columns]
        cells = [*shown[:2], "" if name in ("problems", "samples_per_problem") else _difference(run, name), shown[2]]
        rows.append(f"<tr><td>{html.escape(_name(name))}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
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
    figures += [_load_figure(rows), _outcome_figure(rows), _seconds_figure(run, rows), _level_figure(rows)]
    note = f"<p class=note>Curves show one iteration in {stride}.</p>" if stride > 1 else ""
    return f"<h2>Over the iterations</h2>{note}<div class=grid>{''.join(figures)}</div>"


def _main_figure(run: Run, rows: list[dict]) -> str:
    def accuracy(axes):
        _curves(axes, rows, ("accuracy",), scale="share", label="training problems, in rollouts")
        place = -1.0
        for name in _sorted(run.before, "pass_at"):
            place = max(run.before[name], place + 0.055)  # labels of close lines are pushed apart
            axes.axhline(run.before[name], color=GREY, linestyle="--", linewidth=0.9)
            axes.text(
                1.02, place, f"base {_name(name)}", transform=axes.get_yaxis_transform(), va="center", color="#5a6270"
            )
        if "accuracy" in run.after:
            error = run.after.get("accuracy_ci95")
            axes.errorbar(
                rows[-1]["step"], run.after["accuracy"], error, fmt="D", color=RED, capsize=4, label="held-out, after"
            )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    def length(axes):
        _curves(axes, rows, ("mean_response_tokens",), colors=(ORANGE,))
        twin = _twin(axes)
        _curves(twin, rows, ("accuracy",), scale="share", alpha=0.35)
        twin.set_ylabel("accuracy", color=BLUE)

    caption = (
        "Left: accuracy, with what k tries of the base model reach on held-out problems as dashed lines; look for "
        "where the curve crosses them, and whether the held-out marker agrees with it. Right: response length, with "
        "accuracy faintly behind; length is worth something only where accuracy rises with it."
    )
    return _figure(
        rows, "Accuracy and response length", caption, {"accuracy": accuracy, "mean_response_tokens": length}
    )


def _panel_figure(rows: list[dict], panel: Panel) -> str:
    def draw(axes):
        _curves(axes, rows, panel.left, scale=panel.scale)
        if panel.right:
            twin = _twin(axes)
            _curves(twin, rows, panel.right, colors=(ORANGE,))

    return _figure(rows, panel.title, panel.caption, {panel.left[0]: draw})


def _level_figure(rows: list[dict]) -> str:
    prefixes = ("accuracy_level_", "mean_response_tokens_level_")
    names = [_sorted((name for row in rows for name in row), prefix) for prefix in prefixes]
    draws = {
        (found or (prefix,))[0]: lambda axes, found=found, scale=scale: _curves(axes, rows, found, scale=scale)
        for prefix, found, scale in zip(prefixes, names, ("share", "linear"), strict=True)
    }
    caption = "Harder levels should take longer responses, and length should grow most where accuracy still does."
    return _figure(rows, "Accuracy and response length by level", caption, draws)


def _load_figure(rows: list[dict]) -> str:
    def draw(axes):
        loads = np.array(next(row["expert_load"] for row in rows[::-1] if "expert_load" in row), float)
        image = axes.imshow(loads, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0)
        axes.set(xlabel="expert", ylabel="mixture-of-experts layer")
        axes.grid(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.figure.colorbar(image, label=f"share of load (even: {1 / loads.shape[1]:.3g})")

    caption = (
        "Share of the load an expert takes in the last iteration. Look for dark columns, experts that are never used."
    )
    return _figure(rows, "Expert load", caption, {"expert_load": draw})


def _outcome_figure(rows: list[dict]) -> str:
    def draw(axes):
        names = sorted({name for row in rows for name in row.get("outcomes", ())})
        _areas(axes, rows, "outcomes", names, [OUTCOME_COLORS.get(name, ORANGE) for name in names])
        axes.set_ylim(0, 1)
        _as_percent(axes)

    caption = "Only correct, wrong and no_answer teach the policy; any other band means that the judge failed."
    return _figure(rows, "What the judge decided", caption, {"outcomes": draw})


def _seconds_figure(run: Run, rows: list[dict]) -> str:
    phases = ("rollout", "reward", "scoring", "update")

    def draw(axes):
        total = _areas(axes, rows, "seconds", phases, (BLUE, GREEN, PURPLE, ORANGE))
        axes.set(ylim=(0, max(1e-9, min(total.max(), 2.5 * np.median(total)))), ylabel="seconds an iteration")

    later = [row["seconds"] for row in run.rows[len(run.rows) > 1 :] if "seconds" in row]
    spent = {phase: sum(seconds.get(phase, 0.0) for seconds in later) for phase in phases}
    total = sum(spent.values()) or math.nan
    shares = ", ".join(f"{phase} {100 * value / total:.0f}%" for phase, value in spent.items())
    first = "After the first iteration, which compiles, time" if len(run.rows) > 1 else "Time, compilation included,"
    caption = f"{first} goes to {shares}. The axis ends at 2.5 times the median; look for the phase worth speeding up."
    if run.seconds:
        caption += " Whole run: " + ", ".join(f"{name} {value:.0f} s" for name, value in run.seconds.items()) + "."
    return _figure(rows, "Time of a step", html.escape(caption), {"seconds": draw})


def _figure(rows: list[dict], title: str, caption: str, draws: dict[str, Callable]) -> str:
    """One figure with a drawing for each metric that some row has, and a sentence for each that none has."""
    known = [name for name in draws if any(row.get(name) is not None for row in rows)]
    lost = "".join(
        f"<p class=note>Nothing to draw: the metrics have no {name}.</p>" for name in draws if name not in known
    )
    drawings = "".join(_svg(f"{title} {name}", draws[name]) for name in known)
    drawings = f"<div class=two>{drawings}</div>" if len(draws) > 1 else drawings
    wide = " class=wide" if len(draws) > 1 else ""
    return f"<figure{wide}><h3>{title}</h3>{drawings}{lost}<figcaption>{caption if known else ''}</figcaption></figure>"


def _svg(label: str, draw: Callable) -> str:
    """A drawing as an SVG element without ids or addresses that another on the page could collide with or load."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": label})
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| id="[\w.]+_\d+"', "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _curves(axes, rows, names, *, colors=COLORS, scale="linear", label=None, alpha=1.0) -> None:
    """Each metric raw and faint, with its running mean over about a fifteenth of the run on top."""
    steps, window = _column(rows, "step"), min(len(rows), len(rows) // 15 * 2 + 1 if len(rows) > 15 else 1)
    for name, color in zip(names, itertools.cycle(colors)):
        values = _column(rows, name)
        if scale == "log":
            values = np.where(values > 0, values, np.nan)
        known, kernel = np.isfinite(values), np.ones(window)
        counts = np.convolve(known, kernel, "same")
        mean = np.convolve(np.where(known, values, 0.0), kernel, "same") / np.where(counts > 0, counts, np.nan)
        axes.plot(steps, values, color=color, alpha=0.3 * alpha, linewidth=0.9, marker="." if len(rows) < 15 else None)
        axes.plot(steps, mean, color=color, alpha=alpha, linewidth=1.8, label=label or _name(name))
    axes.set_xlabel("iteration")
    if scale == "share":
        axes.set_ylim(-0.02, 1.02)
        _as_percent(axes)
    elif scale == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylabel(_name(names[0]) if len(names) == 1 else "", color=colors[0])
    if len(names) > 1:
        axes.legend(loc="best")


def _areas(axes, rows, group: str, names, colors) -> np.ndarray:
    """Stack the named parts of row[group]; returns their sum in each row."""
    rows = [row for row in rows if group in row]
    parts = np.array([np.nan_to_num(_column([row[group] for row in rows], name)) for name in names])
    axes.stackplot(
        _column(rows, "step"), parts, labels=[name.replace("_", " ") for name in names], colors=colors, alpha=0.75
    )
    axes.set_xlabel("iteration")
    axes.margins(x=0)
    axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
    return parts.sum(axis=0)


def _twin(axes):
    twin = axes.twinx()
    twin.spines["right"].set_visible(True)
    twin.grid(False)
    return twin


def _as_percent(axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _column(rows: list[dict], name: str) -> np.ndarray:
    """A metric of every row as floats, NaN where it is missing."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)


def _stem(name: str) -> tuple[str, int]:
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return stem, int(number or 0)


def _name(name: str) -> str:
    stem, number = _stem(name)
    return NAMES[stem].format(number)


def _sorted(names, prefix: str = "") -> list[str]:
    """The named metrics among `names` that begin with `prefix`, in the order of NAMES and of their numbers."""
    known = {name for name in names if name.startswith(prefix) and _stem(name)[0] in NAMES}
    order = list(NAMES)
    return sorted(known, key=lambda name: (order.index(_stem(name)[0]), _stem(name)[1]))


def _show(summary: dict, name: str) -> str:
    value = summary.get(name)
    if value is None or not math.isfinite(value):
        return "–"
    if name in ("problems", "samples_per_problem"):
        return str(value)
    return f"{value:.1f}" if "tokens" in name else f"{100 * value:.1f}%"


def _accuracy(summary: dict) -> str:
    interval = summary.get("accuracy_ci95", math.nan)
    return _show(summary, "accuracy") + (f" ± {100 * interval:.1f}" if math.isfinite(interval) else "")


def _sample_pairs(run: Run) -> str:
    before, after = (
        {r["problem"]: r for r in run.samples[::-1] if r.get("phase") == phase} for phase in ("before", "after")
    )
    title = "<h2>The same problems before and after</h2>"
    if not before and not after:
        return title + "<p>There are no samples from before or after training.</p>"
    legend = (
        "<mark class=right>a check whose value and verdict are right</mark> <mark class=wrong>a wrong one</mark> "
        "<mark class='right repeated'>one that repeats an earlier check</mark>"
    )
    text = [f"{title}<p class=note>The first problems in order, not selected, one response each. {legend}</p>"]
    for problem in sorted(before | after)[:MAX_PAIRS]:
        text.append(_prompt(before.get(problem) or after[problem]))
        pair = (_response(side, records.get(problem)) for side, records in (("before", before), ("after", after)))
        text.append(f"<div class=two>{''.join(pair)}</div>")
    return "".join(text)


def _training_samples(run: Run) -> str:
    first = {r["step"]: r for r in run.samples[::-1] if r.get("phase") == "train"}
    steps = sorted(first)
    if not steps:
        return "<h2>Responses during training</h2><p>There are no samples from training.</p>"
    places = np.linspace(0, len(steps) - 1, min(MAX_TRAINING_SAMPLES, len(steps))).round().astype(int)
    chosen = (first[steps[place]] for place in places)
    shown = (f"{_prompt(r)}{_response('iteration {}'.format(r['step']), r)}" for r in chosen)
    note = "<p class=note>One response of an iteration, iterations evenly spread, not selected.</p>"
    return f"<h2>Responses during training</h2>{note}{''.join(shown)}"


def _prompt(sample: dict) -> str:
    facts = " · ".join(f"{name} {value}" for name, value in sample.get("record", {}).items())
    return f"<p class=prompt><b>{html.escape(facts)}</b>\n{html.escape(sample.get('prompt', ''))}</p>"


def _response(side: str, sample: dict | None) -> str:
    if sample is None:
        return f"<article><b>{side}</b> is missing</article>"
    outcomes = {name: judgement[0] for name, judgement in sample.get("judgements", {}).items()}
    verdict = html.escape(outcomes.pop("accuracy", "not judged"))
    extras = "".join(f" · {html.escape(name)} {html.escape(outcome)}" for name, outcome in outcomes.items())
    cut = "" if sample.get("finished", True) else " · cut at the limit"
    badge = f"<span class='badge {verdict}'>{verdict.replace('_', ' ')}</span>"
    head = f"<b>{side}</b> {badge} {sample.get('tokens', '?')} tokens{extras}{cut}"
    return f"<article>{head}<div class=text>{_marked(sample.get('text', ''), sample.get('checks', ()))}</div></article>"


def _marked(text: str, checks) -> str:
    """Escaped text with its checks marked; they come in the order of the text."""
    parts, end = [], 0
    for check in checks:
        start = text.find(check["text"], end)
        if start < 0 or start + len(check["text"]) > MAX_CHARACTERS:
            continue
        kinds = ("right" if check["right"] else "wrong") + (" repeated" if check["repeated"] else "")
        parts.append(html.escape(text[end:start]))
        parts.append(f"<mark class='{kinds}' title='{kinds}'>{html.escape(check['text'])}</mark>")
        end = start + len(check["text"])
    rest = len(text) - MAX_CHARACTERS
    return (
        "".join(parts)
        + html.escape(text[end:MAX_CHARACTERS])
        + (f" … <i>{rest} more characters</i>" if rest > 0 else "")
    )


def _main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m r1jax.report WORKDIR")
    try:
        print(write_report(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"report: {error}")


if __name__ == "__main__":
    _main()
