"""The curves of a run as inline SVG."""

import html
import io
import itertools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from r1jax.report.run import Run, column, in_order, metric_name

MAX_POINTS = 1000  # of a curve; keeps the page small
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLORS = "#2463a6", "#d9701e", "#3a8f4d", "#c0392b", "#7b5aa6", "#8a8f98"
OUTCOME_COLORS = {
    "correct": GREEN, "wrong": RED, "no_answer": GREY, "gold_unparseable": BLUE, "timeout": PURPLE, "error": ORANGE,
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none", "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e8eaee", "axes.axisbelow": True, "axes.edgecolor": GREY, "legend.frameon": False,
    "legend.fontsize": 10.5,
}  # fmt: skip


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
        "Difference of their log-probabilities on the same tokens, and the KL that follows from it. The mean should stay "
        "flat and far below 1e-3; otherwise the ratio measures numerics, not policy.",
        ("sampler_mismatch", "sampler_mismatch_max", "mismatch_kl"), scale="log",
    ),
    Panel(
        "Expert balance",
        "MaxVio: how far the busiest expert lies above the mean load, 0 being perfect balance. Look for a climb.",
        ("max_violation",),
    ),
)  # fmt: skip
PANELS_OF_SETTINGS = (
    Panel(
        "Routing of sampler and trainer",
        "Share of decisions (token, layer) whose set of experts differs. Replayed routing makes it harmless.",
        ("routing_difference",),
    ),
    Panel(
        "Dynamic sampling",
        "Share of the groups drawn that were all right or all wrong, and of such groups that had to fill the batch up. "
        "Where the second rises, problems have become too easy, too hard, or the bound too low.",
        ("dropped_share", "filled_share"), scale="share",
    ),
)  # fmt: skip
"""Shown for runs with the setting that makes them."""


def figures(run: Run) -> str:
    """The section with every curve, each with what to look for in it."""
    if not run.rows:
        return "<h2>Over the iterations</h2><p>No iteration has been recorded, so there are no curves yet.</p>"
    stride = -(-len(run.rows) // MAX_POINTS)
    rows = run.rows[::-1][::stride][::-1]
    figures = [_main_figure(run, rows), *(_panel_figure(rows, panel) for panel in PANELS)]
    figures += [_panel_figure(rows, panel) for panel in PANELS_OF_SETTINGS if any(panel.left[0] in row for row in rows)]
    figures += [_load_figure(rows), _outcome_figure(rows), _seconds_figure(run, rows), _level_figure(rows)]
    note = f"<p class=note>Curves show one iteration in {stride}.</p>" if stride > 1 else ""
    return f"<h2>Over the iterations</h2>{note}<div class=grid>{''.join(figures)}</div>"


def _main_figure(run: Run, rows: list[dict]) -> str:
    def accuracy(axes):
        _curves(axes, rows, ("accuracy",), scale="share", label="training problems, in rollouts")
        place = -1.0
        for name in in_order(run.before, "pass_at"):
            place = max(run.before[name], place + 0.055)  # labels of close lines are pushed apart
            axes.axhline(run.before[name], color=GREY, linestyle="--", linewidth=0.9)
            axes.text(
                1.02,
                place,
                f"base {metric_name(name)}",
                transform=axes.get_yaxis_transform(),
                va="center",
                color="#5a6270",
            )
        if "accuracy" in run.after:
            error = run.after.get("accuracy_ci95")
            axes.errorbar(
                rows[-1]["step"], run.after["accuracy"], error, fmt="D", color=RED, capsize=4, label="held-out, after"
            )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)

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


def curve_figure(rows: list[dict], panel: Panel) -> str:
    """One figure of metrics over the iterations of any run, a point for each of MAX_POINTS at most."""
    return _panel_figure(rows[:: -(-len(rows) // MAX_POINTS)], panel)


def _panel_figure(rows: list[dict], panel: Panel) -> str:
    def draw(axes):
        _curves(axes, rows, panel.left, scale=panel.scale)
        if panel.right:
            twin = _twin(axes)
            _curves(twin, rows, panel.right, colors=(ORANGE,))

    return _figure(rows, panel.title, panel.caption, {panel.left[0]: draw})


def _level_figure(rows: list[dict]) -> str:
    prefixes = ("accuracy_level_", "mean_response_tokens_level_")
    names = [in_order((name for row in rows for name in row), prefix) for prefix in prefixes]
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
        rates = [{"step": row["step"], "outcomes": row["outcomes"]["accuracy"]} for row in rows if "outcomes" in row]
        came = [name for name in OUTCOME_COLORS if any(row["outcomes"].get(name) for row in rates)]
        _areas(axes, rates, "outcomes", came, [OUTCOME_COLORS[name] for name in came])
        axes.set_ylim(0, 1)
        as_percent(axes)

    caption = "Only correct, wrong and no_answer teach the policy; any other band means that the judge failed."
    return _figure(rows, "What the judge of accuracy decided", caption, {"outcomes": draw})


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
    drawings = "".join(drawing(f"{title} {name}", draws[name]) for name in known)
    drawings = f"<div class=three>{drawings}</div>" if len(draws) > 1 else drawings
    wide = " class=wide" if len(draws) > 1 else ""
    return f"<figure{wide}><h3>{title}</h3>{drawings}{lost}<figcaption>{caption if known else ''}</figcaption></figure>"


def drawing(label: str, draw: Callable) -> str:
    """A drawing as an SVG element without ids or addresses that another on the page could collide with or load."""
    svg = saved_figure(label, lambda figure: draw(figure.add_subplot()), size=(4.0, 2.7))
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| id="[\w.]+_\d+"', "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def saved_figure(label: str, draw: Callable, *, size: tuple[float, float]) -> str:
    """What `draw` puts on a figure of so many inches, as the text of an SVG file; the same for the same label and data."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": label})
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _curves(axes, rows, names, *, colors=COLORS, scale="linear", label=None, alpha=1.0) -> None:
    """Each metric raw and faint, with its running mean over about a fifteenth of the run on top."""
    steps, window = column(rows, "step"), min(len(rows), len(rows) // 15 * 2 + 1 if len(rows) > 15 else 1)
    for name, color in zip(names, itertools.cycle(colors)):
        values = column(rows, name)
        if scale == "log":
            values = np.where(values > 0, values, np.nan)
        known, kernel = np.isfinite(values), np.ones(window)
        counts = np.convolve(known, kernel, "same")
        mean = np.convolve(np.where(known, values, 0.0), kernel, "same") / np.where(counts > 0, counts, np.nan)
        axes.plot(steps, values, color=color, alpha=0.3 * alpha, linewidth=0.9, marker="." if len(rows) < 15 else None)
        axes.plot(steps, mean, color=color, alpha=alpha, linewidth=1.8, label=label or metric_name(name))
    axes.set_xlabel("iteration")
    if scale == "share":
        axes.set_ylim(-0.02, 1.02)
        as_percent(axes)
        if len(names) == 1 and label is None:
            axes.set_ylabel(metric_name(names[0]), color=colors[0])
    elif scale == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylabel(metric_name(names[0]) if len(names) == 1 else "", color=colors[0])
    if len(names) > 1:
        axes.legend(loc="best")


def _areas(axes, rows, group: str, names, colors) -> np.ndarray:
    """Stack the named parts of row[group]; returns their sum in each row."""
    rows = [row for row in rows if group in row]
    parts = np.array([np.nan_to_num(column([row[group] for row in rows], name)) for name in names])
    axes.stackplot(
        column(rows, "step"), parts, labels=[name.replace("_", " ") for name in names], colors=colors, alpha=0.75
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


def as_percent(axes) -> None:
    """Label the vertical axis, whose values are shares, in percent."""
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1))
