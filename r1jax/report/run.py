"""What a workdir holds, and how its metrics are named and shown."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.metrics import read_json, read_json_lines

NAMES = {  # by the name of a metric without the number at its end; also the order of the table
    "accuracy": "accuracy", "pass_at": "pass@{}", "majority_at": "majority of {}",
    "accuracy_level": "accuracy, level {}", "mean_response_tokens": "mean response, tokens",
    "mean_response_tokens_level": "mean response, level {}, tokens",
    "format_share": "format kept", "truncated_share": "truncated", "verify_share": "verify", "retry_share": "retry",
    "reflect_share": "reflect", "verdict_fidelity": "verdict fidelity", "repeat_share": "repeated checks",
    "problems": "problems", "samples_per_problem": "samples a problem", "zero_variance_groups": "zero-variance groups",
    "reward": "mean reward", "entropy": "entropy, nats a token", "kl": "KL, nats a token", "grad_norm": "gradient norm",
    "clip_fraction": "clip fraction", "max_violation": "MaxVio", "sampler_mismatch": "mean, nats",
    "sampler_mismatch_max": "largest, nats", "mismatch_kl": "KL, nats a token",
    "routing_difference": "routing decisions that differ", "dropped_share": "groups without signal, of those drawn",
    "filled_share": "groups without signal, in the batch", "language_score": "language consistency",
    "key_nll": "key, nats a token", "filler_nll": "filler, nats a token",
    "reflection_words": "reflection words a response", "loss": "loss", "helpful": "helpfulness reward", "safety": "safety reward",
}  # fmt: skip


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


def read_run(workdir: Path) -> Run:
    """Read whatever a run has written so far.

    Raises:
      ValueError: the workdir is missing or holds nothing of a run, or a file is damaged other than at its end.
    """
    missing = []

    def read(name):
        try:
            return read_json(workdir / name)
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


def read_evaluation(workdir: Path) -> dict:
    """The result that `experiments/evaluate.py` has written."""
    return read_json(workdir / "evaluation.json")["result"]


def metric_stem(name: str) -> tuple[str, int]:
    """A metric's name without the number at its end, and that number, 0 where there is none."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return stem, int(number or 0)


def metric_name(name: str) -> str:
    """What the report calls a metric."""
    stem, number = metric_stem(name)
    return NAMES[stem].format(number)


def in_order(names, prefix: str = "") -> list[str]:
    """The named metrics among `names` that begin with `prefix`, in the order of NAMES and of their numbers."""
    known = {name for name in names if name.startswith(prefix) and metric_stem(name)[0] in NAMES}
    order = list(NAMES)
    return sorted(known, key=lambda name: (order.index(metric_stem(name)[0]), metric_stem(name)[1]))


def shown(summary: dict, name: str) -> str:
    """A value of a summary as text: tokens and counts as they are, shares in percent, a dash where it is missing."""
    value = summary.get(name)
    if value is None or not math.isfinite(value):
        return "–"
    if name in ("problems", "samples_per_problem"):
        return str(value)
    return f"{value:.1f}" if "tokens" in name or "words" in name else f"{100 * value:.1f}%"


def shown_accuracy(summary: dict) -> str:
    """Accuracy with its 95% interval as text."""
    interval = summary.get("accuracy_ci95", math.nan)
    return shown(summary, "accuracy") + (f" ± {100 * interval:.1f}" if math.isfinite(interval) else "")


def column(rows: list[dict], name: str) -> np.ndarray:
    """A metric of every row as floats, NaN where it is missing."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)
