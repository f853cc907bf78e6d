"""The watch over sampler and trainer: its figures, its alarm, and the tokens it shows."""

import math
import statistics

import numpy as np
import pytest
import tiny_policy
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_report import figure, workdir, write_lines  # noqa: F401 (a fixture)

from r1jax.metrics import JsonLines, read_json_lines
from r1jax.mismatch import CONTEXT, compare, correlation, describe_tokens, is_alarming, warning, worst_tokens
from r1jax.objectives import k1, k3
from r1jax.report import write_report
from r1jax.rl_stage import RlStageConfig, sound_alarm


def some(seed=0, shape=(2, 3, 5)):
    """Log-probabilities of sampler and trainer, and a mask; what it leaves out is no number at all."""
    rng = np.random.default_rng(seed)
    sampler = -rng.exponential(1.0, shape).astype(np.float32)
    old = sampler + rng.normal(0, 0.1, shape).astype(np.float32)
    mask = np.arange(shape[-1]) < rng.integers(1, shape[-1] + 1, shape[:-1])[..., None]
    sampler[~mask], old[~mask] = np.nan, np.inf
    return sampler, old, mask


def test_figures_are_those_of_a_loop():
    sampler, old, mask = some()
    gaps, sums, pairs = [], [], []
    for p, g in np.ndindex(mask.shape[:2]):
        tokens = [(float(sampler[p, g, t]), float(old[p, g, t])) for t in range(5) if mask[p, g, t]]
        gaps += [b - a for a, b in tokens]
        sums.append(abs(sum(b - a for a, b in tokens)))
        pairs += [(math.exp(a), math.exp(b)) for a, b in tokens]
    expected = {
        "sampler_mismatch": statistics.fmean(map(abs, gaps)),
        "sampler_mismatch_max": max(map(abs, gaps)),
        "mismatch_kl_k1": -statistics.fmean(gaps),
        "mismatch_kl": statistics.fmean(math.exp(gap) - 1 - gap for gap in gaps),
        "mismatch_factor": statistics.fmean(math.exp(abs(gap)) for gap in gaps),
        "mismatch_factor_max": max(math.exp(abs(gap)) for gap in gaps),
        "mismatch_sequence": statistics.fmean(sums),
        "mismatch_sequence_max": max(sums),
        "mismatch_correlation": statistics.correlation(*zip(*pairs, strict=True)),
    }
    figures = compare(sampler, old, mask)
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-9), name


def test_estimators_are_those_of_the_objectives():
    """KL(sampler || trainer): the sampler drew the tokens."""
    sampler, old, mask = some(1)
    log_ratio = (sampler - old)[mask]
    figures = compare(sampler, old, mask)
    np.testing.assert_allclose(figures["mismatch_kl_k1"], np.mean(k1(log_ratio)), rtol=1e-5)
    np.testing.assert_allclose(figures["mismatch_kl"], np.mean(k3(log_ratio)), rtol=1e-3)


def test_the_estimates_are_the_kl_of_two_known_distributions():
    """Every token as often as the sampler draws it: both estimates are the KL itself."""
    counts, q = np.array([50, 30, 15, 5]), np.array([0.2, 0.3, 0.4, 0.1])
    tokens, p = np.repeat(np.arange(4), counts)[None], counts / counts.sum()
    figures = compare(np.log(p)[tokens], np.log(q)[tokens], np.ones_like(tokens, bool))
    kl = np.sum(p * np.log(p / q))
    assert kl > 0.2
    assert figures["mismatch_kl"] == pytest.approx(kl) and figures["mismatch_kl_k1"] == pytest.approx(kl)


def test_equal_or_absent_tokens():
    sampler, _, mask = some()
    same = compare(sampler, sampler, mask)
    assert same["mismatch_kl"] == same["sampler_mismatch_max"] == 0 and same["mismatch_factor_max"] == 1
    assert same["mismatch_correlation"] == pytest.approx(1)
    assert set(compare(sampler, sampler, np.zeros_like(mask)).values()) == {0.0}
    assert correlation(np.ones(4), np.arange(4.0)) == 0.0


def test_tiny_gaps_are_not_rounded_away():
    """1e-6 nats apart, as float32 leaves it: the KL is half its square."""
    sampler = np.full((4, 8), -1.0)
    figures = compare(sampler, sampler + 1e-6, np.ones((4, 8), bool))
    assert figures["mismatch_kl"] == pytest.approx(5e-13, rel=1e-3)


@given(st.integers(0, 10_000), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_the_worst_tokens_are_the_first_of_a_sorted_list(seed, count):
    sampler, old, mask = some(seed)
    listed = [(-abs(float(old[i]) - float(sampler[i])), i) for i in np.ndindex(mask.shape) if mask[i]]
    expected = [place for _, place in sorted(listed)][:count]
    assert list(map(tuple, worst_tokens(sampler, old, mask, count).tolist())) == expected


def test_no_number_is_the_worst_of_all_and_alarming():
    sampler, old, mask = np.zeros((1, 1, 4)), np.array([[[0.0, 3.0, np.nan, 1.0]]]), np.ones((1, 1, 4), bool)
    assert worst_tokens(sampler, old, mask, 2).tolist() == [[0, 0, 2], [0, 0, 1]]
    assert is_alarming(compare(sampler, old, mask), 1e9)


def test_tokens_are_described_with_what_stands_before_them():
    tokens = np.arange(2 * 1 * 60).reshape(2, 1, 60)
    sampler, old = np.full((2, 1, 60), -1.0), np.full((2, 1, 60), -1.5)
    decode = lambda ids: " ".join(map(str, ids))
    first, later = describe_tokens(np.array([[0, 0, 0], [1, 0, 50]]), tokens, sampler, old, decode)
    assert first == {
        "prompt": 0, "sample": 0, "position": 0, "token": 0, "text": "0", "sampler_logprob": -1.0,
        "old_logprob": -1.5, "context": "",
    }  # fmt: skip
    assert later["text"] == "110" and later["context"] == decode(range(110 - CONTEXT, 110))


FIGURES = {"mismatch_kl": 2e-3, "mismatch_factor_max": 1.7}


@pytest.mark.parametrize(
    "more, dtype, replaying, advised, not_advised",
    [
        ({"routing_difference": 0.02}, "bfloat16", False, ["replay-routing", "importance-cap", "float32", "2%"], []),
        ({"routing_difference": 0.02}, "bfloat16", True, ["importance-cap", "float32"], ["replay-routing"]),
        ({}, "float32", False, ["importance-cap"], ["replay-routing", "float32", "routing"]),
    ],
)
def test_the_warning_is_one_line_that_says_what_can_be_tried(more, dtype, replaying, advised, not_advised):
    line = warning(FIGURES | more, 1e-3, dtype=dtype, replaying=replaying)
    assert "\n" not in line and "0.002" in line and "0.001" in line and "1.7" in line
    assert all(word in line for word in advised) and not any(word in line for word in not_advised)


def test_alarm_is_for_what_lies_above():
    assert is_alarming(FIGURES, 1e-3) and not is_alarming(FIGURES, 2e-3)


def test_a_stage_warns_once_a_crossing_and_keeps_the_worst_tokens_of_every_alarming_step(tmp_path):
    config, policy = RlStageConfig(tiny_policy.CONFIG, "unused"), tiny_policy.tiny_policy()
    console, samples = (
        Console(record=True, width=1000, quiet=False),
        JsonLines(tmp_path / "samples.jsonl", resume_step=0),
    )
    alarmed, states = False, []
    for step, kl in enumerate((1e-4, 2e-3, 3e-3, 1e-4, 5e-3), 1):
        metrics = FIGURES | {"mismatch_kl": kl}
        alarmed = sound_alarm(config, policy, samples, console, alarmed, step, metrics, [{"position": step}])
        states.append(alarmed)
    assert states == [False, True, True, False, True]
    text = console.export_text().splitlines()
    assert len(text) == 2 and "0.002" in text[0] and "0.005" in text[1]
    assert read_json_lines(tmp_path / "samples.jsonl") == [
        {"step": step, "phase": "mismatch", "tokens": [{"position": step}]} for step in (2, 3, 5)
    ]


@pytest.mark.slow
def test_a_run_with_everything_on(experiment, tmp_path):
    """Replay, dynamic sampling, corrections and the alarm, on the base model: it ends, reports, and can be resumed."""
    options = ["--grpo.replay-routing", "--grpo.max-extra-batches", 1, "--grpo.mismatch-alarm", 1e-30]
    options += ["--grpo.importance-cap", 2, "--grpo.balance-weight", 1e-4, "--dtype", "bfloat16"]
    process = experiment("r1_zero", "--workdir", tmp_path / "run", *SMALL, *options)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors
    assert output.count("mismatch:") == 1
    records = read_json_lines(tmp_path / "run" / "samples.jsonl")
    shown = [record for record in records if record["phase"] == "mismatch"]
    assert [record["step"] for record in shown] == [1, 2, 3, 4] and all(len(r["tokens"]) == 8 for r in shown)
    rows = read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(row["routing_difference"] < 0.1 and row["extra_batches"] in (0, 1) for row in rows)
    assert "Where sampler and trainer differ most" in (tmp_path / "run" / "report.html").read_text()


def test_the_report_shows_the_worst_tokens_escaped(workdir):  # noqa: F811
    assert "Where sampler and trainer differ most" not in write_report(workdir).read_text()
    token = {"prompt": 3, "sample": 1, "position": 17, "token": 5, "text": "<b>", "context": "so & so"}
    tokens = [token | {"sampler_logprob": -1.0, "old_logprob": old} for old in (-1.25, -3.5)]
    samples = read_json_lines(workdir / "samples.jsonl")
    write_lines(workdir / "samples.jsonl", [*samples, {"step": 4, "phase": "mismatch", "tokens": tokens}])
    rows = read_json_lines(workdir / "metrics.jsonl")
    more = {"routing_difference": 0.01, "mismatch_kl": 1e-3, "dropped_share": 0.5, "filled_share": 0.25}
    write_lines(workdir / "metrics.jsonl", [row | more for row in rows])
    page = write_report(workdir).read_text()
    section = page[page.index("Where sampler and trainer differ most") :]
    assert section.index("-3.5000") < section.index("-1.2500") and "&lt;b&gt;" in section and "so &amp; so" in section
    assert "attempt in 17<" in page and "guess 0" in page, "responses are still shown"
    assert ">KL, nats a token<" in figure(page, "Sampler against trainer")
    assert "<svg" in figure(page, "Routing of sampler and trainer") and "<svg" in figure(page, "Dynamic sampling")
