"""The report's page: what it says, what it may not load, and what it does with runs that are not whole."""

import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from r1jax.report import write_report

TEXT = "<think> 3 + 9 = 12 no 9 - 3 = 7 no 3 + 9 = 12 no </think> <answer> 5 * 9 </answer> <script>alert(1)</script>"
CHECKS = [
    {"text": "3 + 9 = 12 no", "right": True, "repeated": False},
    {"text": "9 - 3 = 7 no", "right": False, "repeated": False},
    {"text": "3 + 9 = 12 no", "right": True, "repeated": True},
]


def summary(accuracy: float, tokens: float) -> dict:
    return {
        "accuracy": accuracy, "accuracy_ci95": 0.021, "mean_response_tokens": tokens, "pass_at_1": accuracy,
        "pass_at_4": min(1.0, accuracy + 0.2), "pass_at_8": min(1.0, accuracy + 0.3), "majority_at_16": accuracy,
        "verify_share": 0.5, "accuracy_level_1": accuracy, "problems": 64, "samples_per_problem": 16,
    }  # fmt: skip


def metric(step: int) -> dict:
    rising = step / 20
    shares = ("format_share", "truncated_share", "verify_share", "retry_share", "reflect_share", "verdict_fidelity")
    numbers = ("entropy", "kl", "clip_fraction", "grad_norm", "max_violation", "sampler_mismatch_max")
    return dict.fromkeys(shares, 0.5) | dict.fromkeys(numbers, 0.1) | {
        "step": step, "update": 2 * step, "reward": 1 + rising, "accuracy": rising, "mean_response_tokens": 10 + step,
        "repeat_share": 0.0, "accuracy_level_1": rising, "mean_response_tokens_level_1": 10 + step,
        "zero_variance_groups": 0.1, "sampler_mismatch": 0.0, "expert_load": [[0.25] * 4, [0.1, 0.2, 0.3, 0.4]],
        "outcomes": {"accuracy": {"correct": rising, "wrong": 1 - rising, "timeout": 0.0}},
        "seconds": {"rollout": 3.0, "reward": 0.0, "scoring": 2.0, "update": 5.0},
    }  # fmt: skip


def sample(step: int, phase: str, problem: int, text: str = TEXT, outcome: str = "wrong") -> dict:
    return {
        "step": step, "phase": phase, "problem": problem, "prompt": f"question {problem}",
        "record": {"numbers": [3, 9, 5], "target": 45, "level": 1}, "text": text, "tokens": 31, "finished": True,
        "judgements": {"accuracy": [outcome, 0.0], "format": ["correct", 1.0]},
        "checks": CHECKS if text == TEXT else [],
    }  # fmt: skip


def write_lines(path, records) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def figure(page: str, title: str) -> str:
    return next(part for part in re.findall(r"<figure.*?</figure>", page, re.DOTALL) if f"<h3>{title}</h3>" in part)


@pytest.fixture
def workdir(tmp_path):
    rows = [metric(step) for step in range(1, 18)]
    rows[0] |= {"doctor": ["31% were cut & <b>cannot</b> score"], "seconds": {"rollout": 90.0, "update": 90.0}}
    write_lines(tmp_path / "metrics.jsonl", rows)
    samples = [sample(0, "before", p, f"guess {p}") for p in range(3)]
    samples += [sample(step, "train", 0, f"attempt in {step}") for step in range(1, 18)]
    write_lines(tmp_path / "samples.jsonl", samples + [sample(18, "after", p, outcome="correct") for p in (2, 0)])
    summaries = {"before": summary(0.141, 13.2), "after": summary(0.623, 47.9), "training": summary(0.688, 48.8)}
    (tmp_path / "summary.json").write_text(json.dumps(summaries | {"seconds": {"before": 20.0, "total": 321.0}}))
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "r1_zero & friends", "grpo": {"note": "<i>"}}))
    return tmp_path


def page_of(workdir) -> str:
    return write_report(workdir).read_text()


def test_headline_and_table(workdir):
    page = page_of(workdir)
    assert "r1_zero &amp; friends" in page
    assert "14.1% ± 2.1 before, 62.3% ± 2.1 after" in page and "from 13.2 to 47.9 tokens" in page
    assert "above base pass@4 (34.1%), above base pass@8 (44.1%)" in page
    assert "<td>accuracy</td><td>14.1% ± 2.1</td><td>62.3% ± 2.1</td><td>+48.2</td><td>68.8% ± 2.1</td>" in page
    assert "<td>mean response, tokens</td><td>13.2</td><td>47.9</td><td>+34.7</td><td>48.8</td>" in page
    assert "31% were cut &amp; &lt;b&gt;cannot" in page and "Incomplete" not in page and "Nothing to draw" not in page


@pytest.mark.parametrize("after, words", [(0.150, "did not change beyond its intervals"), (0.05, "Accuracy fell")])
def test_longer_responses_without_accuracy_are_no_success(workdir, after, words):
    summaries = {"before": summary(0.141, 13.2), "after": summary(after, 90.0), "training": None, "seconds": {}}
    (workdir / "summary.json").write_text(json.dumps(summaries))
    page = page_of(workdir)
    assert words in page and "One answer after training is" not in page


def test_nothing_is_loaded_from_elsewhere(workdir):
    page = page_of(workdir)
    assert not re.findall(r"https?://", page)
    assert all(address.startswith(("#", "data:")) for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert not re.findall(r"url\((?!#)|@import|<link|<script|<iframe", page)
    assert "default-src 'none'" in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert ids and set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)
    assert len(page) < 2_000_000


def test_samples_are_escaped_paired_and_marked(workdir):
    page = page_of(workdir)
    assert "&lt;think&gt;" in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    pairs = re.findall(r"<div class=two><article>.*?</article><article>.*?</article></div>", page, re.DOTALL)
    assert ["guess 0" in pairs[0], "guess 1" in pairs[1], "guess 2" in pairs[2], len(pairs)] == [True, True, True, 3]
    assert "<b>after</b> is missing" in pairs[1] and "badge correct" in pairs[0] and "badge wrong" in pairs[0]
    marks = re.findall(r"<mark class='([^']*)' title[^>]*>(.*?)</mark>", pairs[0])
    assert marks == [("right", "3 + 9 = 12 no"), ("wrong", "9 - 3 = 7 no"), ("right repeated", "3 + 9 = 12 no")]
    shown = re.search(r"<div class=text>(&lt;think.*?)</div>", pairs[0], re.DOTALL)[1]
    assert html.unescape(re.sub(r"</?mark[^>]*>", "", shown)) == TEXT
    assert "attempt in 1<" in page and "attempt in 17<" in page


def test_figures_hold_their_curves(workdir):
    page = page_of(workdir)
    main = figure(page, "Accuracy and response length")
    assert main.count("<svg") == 2 and all(f"base pass@{k}<" in main for k in (1, 4, 8)) and "held-out, after" in main
    behaviour = figure(page, "Behaviour")
    assert all(f">{name}<" in behaviour for name in ("accuracy", "verify", "retry", "reflect"))
    assert "rollout 30%, reward 0%, scoring 20%, update 50%" in figure(page, "Time of a step")
    assert "data:image/png" in figure(page, "Expert load")


def test_the_page_is_deterministic(workdir):
    assert page_of(workdir) == page_of(workdir)


def test_metrics_alone(tmp_path):
    rows = [{"step": step, "accuracy": step / 10, "mean_response_tokens": 10.0 + step} for step in (1, 2, 3)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "accur')
    page = page_of(tmp_path)
    assert "10.0% to 30.0%" in page and "from 11.0 to 13.0 tokens" in page and "nothing here is held out" in page
    assert "summary.json is missing" in page and "samples.jsonl holds no record" in page
    assert "the metrics have no entropy" in page and "the metrics have no expert_load" in page
    assert figure(page, "Accuracy and response length").count("<svg") == 2


def test_evaluation_before_alone(tmp_path):
    before = summary(0.141, 13.2) | {"accuracy_ci95": float("nan"), "seconds": {"before": 20.0}}
    (tmp_path / "before.json").write_text(json.dumps(before))
    page = page_of(tmp_path)
    assert "before training is <b>14.1%</b>" in page and "No iteration has been recorded" in page


def test_values_that_are_missing_or_not_numbers(workdir):
    rows = [metric(step) | {"kl": None, "entropy": float("nan")} for step in (1, 2, 3)]
    del rows[1]["accuracy"], rows[2]["seconds"], rows[0]["outcomes"]
    write_lines(workdir / "metrics.jsonl", rows)
    assert "the metrics have no kl" in page_of(workdir)


def test_long_runs_and_texts_stay_small(workdir):
    rng = np.random.default_rng(0)
    rows = [metric(step % 20) | {"step": step, "accuracy": rng.random(), "kl": rng.random()} for step in range(1, 4001)]
    write_lines(workdir / "metrics.jsonl", rows)
    texts = [sample(0, phase, p, "wait " * 20_000) for phase in ("before", "after") for p in range(20)]
    write_lines(workdir / "samples.jsonl", texts)
    page = page_of(workdir)
    assert len(page) < 2_000_000 and "one iteration in 4" in page and "94000 more characters" in page


@pytest.mark.parametrize("name", [".", "not_there"])
def test_nothing_to_report(tmp_path, name):
    with pytest.raises(ValueError, match="nothing to report in"):
        write_report(tmp_path / name)
    assert not (tmp_path / name / "report.html").exists()


def test_command_line(workdir, tmp_path_factory):
    run = lambda *words: subprocess.run([sys.executable, "-m", "r1jax.report", *words], capture_output=True, text=True)
    good, bad = run(str(workdir)), run(str(tmp_path_factory.mktemp("empty")))
    assert good.returncode == 0 and good.stdout.strip() == str(workdir / "report.html"), good.stderr
    assert bad.returncode == 1 and "nothing to report" in bad.stderr and "Traceback" not in bad.stderr


def test_import_is_cheap():
    code = "import sys, r1jax.report; print([m for m in ('matplotlib', 'jax', 'flax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
