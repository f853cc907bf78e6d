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

MAX_POINTS, MAX_PAIRS, MAX_TRAINING_SAMPLES, MAX_CHARACTERS = 1000, 8, 6, 6000  # keep the page below 2 MB
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2463a6", "#d9701e", "#3a8f4d", "#c0392b", "#7b5aa6", "#8a8f98"
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.grid": True, "grid.color": "#e8eaee",
    "axes.axisbelow": True, "axes.edgecolor": GREY, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
CSS = """
:root { color-scheme: light } * { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; background: #fff; max-width: 1120px; margin: 0 auto; padding: 1.5rem }
h1 { margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #e2e5ea }
.headline { font-size: 1.2rem; margin: .4rem 0 } .note, figcaption, .prompt { color: #5a6270; font-size: .9rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e8eaee; font-size: .95rem }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
.grid, .two { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)) }
.two { gap: .75rem; align-items: start } figure { margin: 0 } .wide { grid-column: 1 / -1 }
figure h3 { margin: 0 0 .3rem; font-size: 1rem } svg { width: 100%; height: auto; display: block } svg text { white-space: pre }
article { background: #f7f8fa; border: 1px solid #e2e5ea; border-radius: 8px; padding: .6rem .8rem; margin: .4rem 0; font-size: .9rem }
.text, pre { font: .82rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 0 }
.text { max-height: 22rem; overflow-y: auto } .prompt { max-height: 5rem; overflow-y: auto; white-space: pre-wrap; margin: 1rem 0 0 }
.badge { border-radius: 4px; padding: .05rem .45rem; color: #fff; background: #c0392b; font-size: .8rem } .badge.good { background: #2c7a3f }
mark { border-radius: 3px; padding: 0 2px; background: #fbd5d0; color: #8c1d13 } mark.right { background: #d3efd9; color: #1c5b2c }
mark.wrong::after { content: " \\2717" } mark.repeated { text-decoration: underline 2px }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>{css}</style></head><body>
<h1>{title}</h1>
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
    notes: list[str]


class Panel(NamedTuple):
    """Curves of metrics over iterations: (metric, label, colour) on the left axis and, in grey or colour, on the right one."""

    title: str
    caption: str
    left: tuple[tuple[str, str, str], ...]
    right: tuple[tuple[str, str, str], ...] = ()
    label: str = ""
    right_label: str = ""
    scale: str = "linear"


ACCURACY = (("accuracy", "accuracy", GREY),)
LENGTH = Panel(
    "Mean response length over iterations", "", (("mean_response_tokens", "mean response", ORANGE),), ACCURACY, "tokens", "accuracy",
)  # fmt: skip
PANELS = (
    Panel(
        "Behaviour",
        "Shares of responses that check a value (verify), check a second one (retry), or use a word of reflection. Look at "
        "whether accuracy rises together with them: behaviour that grows while accuracy stays is habit, not reasoning.",
        (("verify_share", "verify", BLUE), ("retry_share", "retry", ORANGE), ("reflect_share", "reflect", PURPLE), *ACCURACY),
    ),
    Panel(
        "Are the checks true?",
        "Share of checks whose value and verdict are both right, and share that repeat an expression already tried. Look for "
        "fidelity that falls or repetition that climbs: then length is padding. Both are 0 where nothing was checked.",
        (("verdict_fidelity", "verdict fidelity", GREEN), ("repeat_share", "repeated checks", RED)),
    ),
    Panel(
        "Format, truncation, groups without signal",
        "The format should be learnt early. Truncated responses cannot score, and groups of one reward give no gradient: "
        "as either nears 100%, learning stops.",
        (("format_share", "format kept", BLUE), ("truncated_share", "truncated", RED), ("zero_variance_groups", "zero-variance groups", GREY)),
    ),
    Panel("Reward", "What is maximised. A rise without a rise of accuracy comes from the format alone.", (("reward", "mean reward", BLUE),)),
    Panel(
        "Entropy",
        "Uncertainty of the policy a token. A quick fall towards 0 ends exploration; a rise without end is divergence.",
        (("entropy", "entropy", PURPLE),), label="nats a token",
    ),
    Panel(
        "KL to the reference",
        "Distance from the reference policy. It falls back wherever the reference is replaced; look for jumps elsewhere.",
        (("kl", "KL", BLUE),), label="nats a token",
    ),
    Panel(
        "Clip fraction and gradient norm",
        "Share of tokens whose ratio was clipped, and the norm before clipping. Spikes in both mark unstable updates.",
        (("clip_fraction", "clip fraction", BLUE),), (("grad_norm", "gradient norm", ORANGE),), "clip fraction", "gradient norm",
    ),
    Panel(
        "Sampler against trainer",
        "Difference of log-probabilities between sampler and trainer on the same tokens. It should stay flat and below 1e-3; "
        "otherwise the ratio corrects for numerics, not for policy.",
        (("sampler_mismatch", "mean", BLUE), ("sampler_mismatch_max", "largest", RED)), label="nats", scale="log",
    ),
    Panel(
        "Expert balance (MaxVio)",
        "How far the busiest expert lies above the mean load, 0 being perfect balance. Look for a climb: experts collapsing.",
        (("max_violation", "MaxVio", BLUE),),
    ),
)  # fmt: skip
NAMES = {
    "accuracy": "accuracy", "mean_response_tokens": "mean response, tokens", "format_share": "format kept",
    "truncated_share": "truncated", "verify_share": "verify", "retry_share": "retry", "reflect_share": "reflect",
    "verdict_fidelity": "verdict fidelity", "repeat_share": "repeated checks",
    "problems": "problems", "samples_per_problem": "samples a problem",
}  # fmt: skip
