"""The findings: every verdict on made-up runs whose answer is known, each way; the page, and what is run for it."""

import json
from pathlib import Path

import pytest

from experiments import findings
from r1jax.chain import chosen, fingerprints, seeded_stages
from r1jax.config import UserError
from r1jax.report import verdicts
from r1jax.report.findings import draw_seeds, low, over_iterations, points

NOISE = (-0.01, 0.0, 0.01)
"""What the seeds differ by; the interval of the mean of three such numbers is ± 0.025."""


def write(
    folder: Path, *, before: dict | None = None, after: dict | None = None, rows: list[dict] | None = None
) -> Path:
    """A workdir with what a verdict reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"before": before or {}, "after": after or {}}))
    rows = [{"step": step} | row for step, row in enumerate(rows or [], start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def seeds(tmp_path):
    """Workdirs of an arm, one a seed, from a function of the seed's noise."""

    def make(name: str, contents) -> list[Path]:
        return [write(tmp_path / name / str(seed), **contents(noise)) for seed, noise in enumerate(NOISE)]

    return make


def rl(accuracy: float, tokens: float = 10.0, **more):
    """A run from 10% and 10 tokens to these."""
    return lambda noise: {
        "before": {"accuracy": 0.1, "mean_response_tokens": 10.0},
        "after": {"accuracy": accuracy + noise, "mean_response_tokens": tokens + noise} | more,
    }


@pytest.mark.parametrize(
    ("accuracy", "tokens", "chance", "holds"),
    [(0.7, 40, 0.1, True), (0.1, 40, 0.1, False), (0.7, 10, 0.1, False), (0.7, 40, 0.3, False), (0.7, 40, 0.0, True)],
)
def test_1_accuracy_and_length_must_rise_under_the_outcome_alone(seeds, accuracy, tokens, chance, holds):
    runs = {"r1_zero": seeds("a", rl(accuracy, tokens)), "random": seeds("b", rl(chance, 90))}
    assert verdicts.outcome_against_random(runs).holds is holds


@pytest.mark.parametrize(("after", "holds"), [(0.9, True), (0.2, False), (0.1, False)])
def test_2_trying_again_must_triple(seeds, after, holds):
    contents = lambda noise: {
        "before": {"retry_share": 0.1, "reflection_words": 0.02},
        "after": {"retry_share": after + noise, "reflection_words": 0.01},
    }
    verdict = verdicts.reflection({"r1_zero": seeds("a", contents)})
    assert verdict.holds is holds and verdict.values["reflection words, ratio"] == pytest.approx([0.5] * 3)


def chain(seeds, **stages):
    """Chains whose stages have these: (language, format, reasoning, general)."""
    folders = seeds("chain", lambda noise: {})
    for noise, folder in zip(NOISE, folders):
        for name, (language, form, reasoning, general) in stages.items():
            parts = dict.fromkeys(verdicts.REASONING, reasoning + noise) | dict.fromkeys(
                verdicts.GENERAL, general + noise
            )
            result = {"language_score": language + noise / 2, "format_share": form + noise / 4}
            result["breakdown"] = {family: {"accuracy": accuracy} for family, accuracy in parts.items()}
            (folder / f"evaluate_{name}").mkdir()
            (folder / f"evaluate_{name}" / "evaluation.json").write_text(json.dumps({"result": result}))
    return {"chain": folders}


@pytest.mark.parametrize(("language", "form", "holds"), [(0.9, 0.99, True), (0.9, 0.8, False), (0.6, 0.99, False)])
def test_3_and_4_language_and_format_must_both_be_mended(seeds, language, form, holds):
    later = (language, form, 0.5, 0.5)
    runs = chain(seeds, r1_zero=(0.6, 0.8, 0.7, 0.5), general_rl=later, cold_start=later)
    assert verdicts.mixing(runs).holds is holds
    verdict = verdicts.cold_start(runs)
    assert verdict.holds is holds and verdict.values["reasoning, Dev1 less R1-Zero"] == pytest.approx([-0.2] * 3)


@pytest.mark.parametrize(("language", "accuracy", "holds"), [(0.8, 0.7, True), (0.95, 0.7, False), (0.8, 0.9, False)])
def test_5_the_language_reward_must_hold_consistency_and_cost_little(seeds, language, accuracy, holds):
    folders = seeds("chain", lambda noise: {})
    for noise, folder in zip(NOISE, folders):
        write(folder / "reasoning_rl", after={"language_score": 0.95 + noise, "accuracy": 0.7})
    without = seeds("without", lambda noise: {"after": {"language_score": language - noise, "accuracy": accuracy}})
    assert verdicts.language_reward({"chain": folders, "no_language": without}).holds is holds


@pytest.mark.parametrize(("general", "reasoning", "holds"), [(0.9, 0.8, True), (0.7, 0.8, False), (0.9, 0.6, False)])
def test_6_the_last_stage_must_gain_and_keep(seeds, general, reasoning, holds):
    same = (0.9, 0.9)
    runs = chain(seeds, sft=(*same, 0.8, 0.7), reasoning_rl=(*same, 0.8, 0.5), general_rl=(*same, reasoning, general))
    assert verdicts.last_stage(runs).holds is holds


@pytest.mark.parametrize(("reward", "rule", "holds"), [(0.9, 0.5, True), (0.9, 0.95, False), (0.5, 0.3, False)])
def test_7_the_reward_must_rise_by_more_than_the_rule(seeds, reward, rule, holds):
    row = lambda helpful, requests: {"reward_parts": {"helpful": helpful}, "accuracy_requests": requests}
    contents = lambda noise: {"rows": [row(0.5, 0.5)] * 10 + [row(reward + noise, rule)] * 10}
    assert verdicts.preference_drift({"preferences": seeds("p", contents)}).holds is holds


@pytest.mark.parametrize(("distilled", "holds"), [(0.6, True), (0.5, False), (0.4, False)])
def test_8_the_distilled_student_must_be_better(seeds, distilled, holds):
    runs = chain(seeds, distill=(0.9, 0.9, distilled, 0.5), student_rl=(0.9, 0.9, 0.5, 0.5))
    runs["chain"][0].joinpath("evaluate_distill/evaluation.json").write_text(
        json.dumps({"result": {"breakdown": dict.fromkeys(verdicts.REASONING, {"accuracy": distilled - 0.03})}})
    )
    assert verdicts.distillation(runs).holds is holds


@pytest.mark.parametrize(("easy", "hard", "holds"), [(0.02, 0.2, True), (0.2, 0.2, False), (-0.3, -0.1, False)])
def test_9_the_vote_must_gain_and_more_on_hard_problems(seeds, easy, hard, holds):
    def contents(noise):
        levels = {"1": {"accuracy": 0.8, "majority_at_16": 0.8 + easy}}
        levels["2"] = {"accuracy": 0.5, "majority_at_16": 0.5 + hard + noise}
        return {"after": {"breakdown": {"countdown": {"levels": levels}}}}

    assert verdicts.majority({"r1_zero": seeds("a", contents)}).holds is holds


@pytest.mark.parametrize(("after", "before", "holds"), [(20, 1, True), (20, 20, False), (0, -5, False)])
def test_10_hard_problems_must_take_longer_than_they_did(seeds, after, before, holds):
    name = "mean_response_tokens_level_"
    contents = lambda noise: {
        "before": {f"{name}1": 10, f"{name}2": 10 + before},
        "after": {f"{name}1": 30, f"{name}2": 30 + after + noise},
    }
    assert verdicts.harder_is_longer({"r1_zero": seeds("a", contents)}).holds is holds


@pytest.mark.parametrize(
    ("grpo", "ppo_1", "ppo_95", "holds"), [(0.6, 0.6, 0.4, True), (0.4, 0.6, 0.4, False), (0.6, 0.6, 0.6, False)]
)
def test_11_grpo_must_keep_up_and_the_short_trace_lag(seeds, grpo, ppo_1, ppo_95, holds):
    rows = lambda accuracy: lambda noise: {"rows": [{"accuracy": accuracy + noise, "critic_bytes": 1e6}] * 30}
    runs = {"r1_zero": seeds("g", rows(grpo)), "ppo_1": seeds("a", rows(ppo_1))}
    for noise, folder in zip(reversed(NOISE), runs["ppo_1"]):  # so that differences have an interval
        write(folder, rows=[{"accuracy": ppo_1 + noise / 2, "critic_bytes": 1e6}] * 30)
    assert verdicts.ppo(runs | {"ppo_95": seeds("b", rows(ppo_95))}).holds is holds


@pytest.mark.parametrize(("violation", "loss", "holds"), [(2.0, 1.0, True), (0.3, 1.0, False), (2.0, 0.9, False)])
def test_12_the_bias_must_even_the_load_and_not_hurt(seeds, violation, loss, holds):
    arm = lambda violation, loss: (
        lambda noise: {"after": {"max_violation": violation + noise, "loss": loss + noise / 10}}
    )
    runs = {"bias": seeds("a", arm(0.3, 1.0)), "aux": seeds("b", arm(0.3, 1.0))}
    assert verdicts.balancing(runs | {"unbalanced": seeds("c", arm(violation, loss))}).holds is holds


@pytest.mark.parametrize(("narrow", "wide", "holds"), [(0.11, 0.6, True), (0.5, 0.6, False), (0.1, 0.1, False)])
def test_13_the_wide_base_must_gain_and_the_narrow_one_not(seeds, narrow, wide, holds):
    runs = {"rl_16": seeds("a", rl(narrow)), "rl_32": seeds("b", rl(0.3)), "rl_15": seeds("c", rl(wide))}
    assert verdicts.base_capacity(runs).holds is holds


@pytest.mark.parametrize(
    ("none", "some", "tries", "holds"),
    [(0.12, 0.6, 0.9, True), (0.5, 0.6, 0.9, False), (0.1, 0.1, 0.9, False), (0.12, 0.6, 0.0, False)],
)
def test_14_without_the_habit_nothing_must_be_gained(seeds, none, some, tries, holds):
    arm = lambda accuracy, tries: lambda noise: {
        "before": {"accuracy": 0.1}, "after": {"accuracy": accuracy + noise, "retry_share": tries + noise / 2}
    }  # fmt: skip
    runs = {
        "rl_0": seeds("a", arm(none, 0.0)),
        "rl_5": seeds("b", arm(0.3, 0.5)),
        "rl_15": seeds("c", arm(some, tries)),
    }
    assert verdicts.what_the_base_brings(runs).holds is holds


@pytest.mark.parametrize(
    ("form", "accuracy", "holds"), [(0.7, 0.8, True), (0.97, 0.5, True), (0.97, 0.8, False), (0.99, 0.9, False)]
)
def test_15_format_or_accuracy_must_fall(seeds, form, accuracy, holds):
    row = lambda form, accuracy: dict(format_share=form, accuracy=accuracy, mean_response_tokens=50.0, entropy=0.2)
    runs = {"r1_zero": seeds("a", lambda noise: {"rows": [row(0.97, 0.8)] * 60})}
    runs["long"] = seeds("b", lambda noise: {"rows": [row(0.0, 0.0)] * 50 + [row(form + noise, accuracy + noise)] * 10})
    assert verdicts.long_training(runs).holds is holds


def test_intervals_are_students_and_iterations_are_counted_from_one(tmp_path):
    assert points([0.5, 0.6, 0.7]) == f"60.0 ± {4.302653 * 10 / 3**0.5:.1f}"
    assert low([0.5, 0.6, 0.7]) == pytest.approx(0.6 - 4.302653 * 0.1 / 3**0.5)
    folder = write(tmp_path / "x", rows=[{"accuracy": value} for value in (0.0, 0.2, 0.4, 0.9)])
    assert over_iterations(folder, "accuracy", 2, 3) == pytest.approx(0.3)


def stages(root):
    return seeded_stages(root, {name: line for name, (line, _) in findings.ARMS.items()}, range(5))


def test_every_finding_has_its_runs_a_criterion_and_three_seeds():
    assert [finding.number for finding in findings.FINDINGS] == list(range(1, 16))
    assert all(finding.seeds >= 3 for finding in findings.FINDINGS)
    used = {arm for finding in findings.FINDINGS for arm in finding.arms}
    assert used <= findings.ARMS.keys() and all(f.criterion and f.paper for f in findings.FINDINGS)
    needed = {stage.name.split("/")[0] for stage in chosen(stages("r"), [f"{arm}/0" for arm in used])}
    assert needed == set(findings.ARMS), "a run that no finding needs"


def test_all_of_it_takes_less_than_three_hours():
    needed = [name for finding in findings.FINDINGS for name in findings.names_of(finding, 0)]
    assert findings.minutes(chosen(stages("r"), needed)) / findings.Config().jobs <= 180


def finish(root: Path, *arms: str) -> None:
    """Write down that these arms have finished."""
    root.mkdir(parents=True, exist_ok=True)
    prints = fingerprints(stages(root), findings.EXPERIMENTS)
    done = {
        name: {"fingerprint": prints[name], "finished": True, "seconds": 60.0}
        for name in prints
        if name.split("/")[0] in arms
    }
    (root / "chain.json").write_text(json.dumps(done))


def test_the_page_says_what_was_run_and_draws_what_does_not_hold(seeds, tmp_path):
    root, page = tmp_path / "runs", tmp_path / "docs/findings.md"
    for arm in ("bias", "aux", "unbalanced"):
        for seed, noise in enumerate((*NOISE, 0.0, 0.0)):
            write(root / arm / str(seed), after={"max_violation": 1.0 + noise, "loss": 1.0})
    finish(root, "bias", "aux", "unbalanced")
    findings.main(findings.Config(workdir=str(root), page=str(page), no_runs=True))
    text = page.read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| 12 |")]
    assert row.endswith("| **no** |") and "MaxVio: bias 1.00 ± 0.01" in row
    assert text.count("| not run | not run |") == 14 and text.count("Not run.") == 14
    assert "0.99, 1, 1.01, 1, 1 |" in text and "python experiments/findings.py --only 12" in text
    assert "<svg" in (tmp_path / "docs/findings/12.svg").read_text() and "](findings/12.svg)" in text
    assert str(Path(__file__).parent.parent) not in text, "a path of this machine"


def test_a_finding_waits_for_all_of_its_seeds(tmp_path):
    root = tmp_path / "runs"
    finish(root, "bias", "aux", "unbalanced")
    done = json.loads((root / "chain.json").read_text())
    done["aux/2"]["finished"] = False
    (root / "chain.json").write_text(json.dumps(done))
    findings.main(findings.Config(workdir=str(root), page=str(tmp_path / "page.md"), no_runs=True))
    assert (tmp_path / "page.md").read_text().count("| not run | not run |") == 15


def test_a_finding_can_be_judged_by_more_seeds_and_not_by_two(tmp_path, capsys):
    asked = {"workdir": str(tmp_path / "runs"), "dry_run": True, "only": (6,)}
    findings.main(findings.Config(**asked, seeds=4))
    printed = capsys.readouterr().out
    assert "chain/3: new" in printed and "chain/4" not in printed
    with pytest.raises(UserError, match="--seeds must be 3 or more, not 2"):
        findings.main(findings.Config(**asked, seeds=2))


def test_a_dry_run_names_every_run_once_and_touches_nothing(tmp_path, capsys):
    findings.main(findings.Config(workdir=str(tmp_path / "runs"), dry_run=True, only=(1, 2, 9)))
    printed = capsys.readouterr().out
    assert printed.count("experiments/r1_zero.py") == 3 and printed.count("random_reward.py") == 3
    assert "minutes on 2 free processors" in printed and "general_rl" not in printed and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="1 to 15"):
        findings.main(findings.Config(only=(16,)))


def test_a_plot_has_a_panel_for_everything_measured(tmp_path):
    verdict = verdicts.Verdict({"first, of two": [0.1, 0.2, 0.3], "second": [1.0, 2.0, 3.0]}, "", False)
    draw_seeds(tmp_path / "plots/1.svg", verdict)
    drawn = (tmp_path / "plots/1.svg").read_text()
    assert "first,</tspan>" in drawn or "first," in drawn
    assert "second" in drawn
