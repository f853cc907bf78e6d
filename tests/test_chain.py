"""The chain: its plan, what is done, what is run again, and, slow, a whole small one that is killed."""

import json
import os
import signal
import time

import pytest

from experiments import r1
from r1jax.chain import Stage, chosen, fingerprints, run_stages, stage_states
from r1jax.config import UserError
from r1jax.report import chain, chain_table, seeds_table, write_chain_report


def config(tmp_path, **options):
    return r1.Config(workdir=str(tmp_path / "chain"), **options)


def states(config):
    return stage_states(r1.Path(config.workdir), r1.plan(config), r1.EXPERIMENTS)


def finish(config, *names):
    """Write down that these stages have run with these options."""
    root, prints = r1.Path(config.workdir), fingerprints(r1.plan(config), r1.EXPERIMENTS)
    root.mkdir(exist_ok=True)
    done = {name: {"fingerprint": prints[name], "finished": True, "seconds": 1.0} for name in names}
    (root / "chain.json").write_text(json.dumps(done))


def test_every_stage_comes_after_what_it_needs(tmp_path):
    seen = set()
    for stage in r1.plan(config(tmp_path)):
        assert set(stage.needs) <= seen and stage.name not in seen
        assert (r1.EXPERIMENTS / f"{stage.experiment}.py").is_file()
        folders = {
            need
            for need in seen
            if any(
                option.startswith(f"{tmp_path}/chain/{need}")
                and option.removeprefix(f"{tmp_path}/chain/{need}")[:1] in ("", "/")
                for option in stage.options
            )
        }
        assert folders <= set(stage.needs), "it reads the workdir of a stage it does not name"
        seen.add(stage.name)
    assert {"r1_zero", "cold_start", "reasoning_rl", "rejection_sampling", "sft", "general_rl", "distill"} <= seen


def test_the_second_fine_tuning_starts_from_the_base(tmp_path):
    stages = {stage.name: stage for stage in r1.plan(config(tmp_path))}
    assert "--init" not in stages["sft"].options and "--init" not in stages["cold_start"].options


def test_what_is_done_is_kept_and_what_changed_is_run_again(tmp_path):
    first = config(tmp_path)
    assert set(states(first).values()) == {"new"}
    finish(first, "r1_zero", "cold_start", "reasoning_rl", "student_rl")
    found = states(first)
    assert found["r1_zero"] == found["cold_start"] == found["student_rl"] == "done" and found["sft"] == "new"
    assert set(states(config(tmp_path, seed=1)).values()) == {"changed", "new"}


def test_a_change_reaches_what_depends_on_it_and_nothing_else(tmp_path):
    base = config(tmp_path)
    stages = r1.plan(base)
    changed = [
        s._replace(options=(*s.options, "--language-weight", "0")) if s.name == "reasoning_rl" else s for s in stages
    ]
    before, after = (fingerprints(plan, r1.EXPERIMENTS) for plan in (stages, changed))
    differ = {name for name in before if before[name] != after[name]}
    assert {"reasoning_rl", "rejection_sampling", "sft", "general_rl", "distill", "evaluate_general_rl"} <= differ
    assert not differ & {"r1_zero", "cold_start", "student_rl", "evaluate_base", "evaluate_r1_zero"}


def test_only_takes_what_a_stage_depends_on_along(tmp_path):
    names = [stage.name for stage in chosen(r1.plan(config(tmp_path)), ("sft",))]
    assert names == ["r1_zero", "cold_start", "reasoning_rl", "rejection_sampling", "sft"]
    with pytest.raises(UserError, match="nonsense"):
        chosen(r1.plan(config(tmp_path)), ("nonsense",))


def test_a_dry_run_prints_the_plan_and_touches_nothing(tmp_path, capsys):
    r1.main(config(tmp_path, dry_run=True))
    printed = capsys.readouterr().out
    assert (
        "reasoning_rl" in printed and "experiments/general_rl.py --workdir" in printed and not list(tmp_path.iterdir())
    )


def test_the_report_is_written_from_whatever_is_there(tmp_path):
    (tmp_path / "evaluate_base").mkdir()
    entry = {"problems": 2, "accuracy": 0.25, "interval95": {"accuracy": [0.1, 0.4]}}
    result = {
        "breakdown": {"chains": entry | {"levels": {"1": entry}}},
        "format_share": 0.5,
        "interval95": {"format_share": [0.4, 0.6]},
    }
    (tmp_path / "evaluate_base" / "evaluation.json").write_text(json.dumps({"result": result}))
    line = {"step": 0, "id": "chains:1:0", "prompt": "... User: <b>2</b> + 3 Assistant:", "responses": [
        {"text": "<think> <script>alert(1)</script> </think>", "tokens": 3, "finished": True, "judgements": {"accuracy": ["wrong", 0.0, ""]}}
    ]}  # fmt: skip
    (tmp_path / "evaluate_base" / "responses.jsonl").write_text(json.dumps(line) + "\n")
    page = write_chain_report(tmp_path).read_text()
    assert "25.0" in page and "10–40" in page and "50.0" in page and "<script>" not in page and "&lt;b&gt;2" in page
    assert "No stage of reinforcement learning has run yet" in page
    table = chain_table(tmp_path)
    assert table.splitlines()[0] == "| | Base |" and "| chains | 25.0 (10–40) |" in table
    assert "| responses in the format | 50.0 (40.0–60.0) |" in table


@pytest.mark.slow
def test_a_small_chain_survives_being_killed(experiment, tmp_path):
    """The whole chain with a few iterations of everything, killed at three points, ends as the one that was not."""

    def run(root, kill_after=()):
        for seconds in (*kill_after, None):
            process = experiment("r1", "--workdir", root, "--fast", "--problems", 32, "--only", "evaluate_general_rl")
            try:
                output, errors = process.communicate(timeout=seconds or 2400)
                assert process.returncode == 0, output + errors
            except Exception:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                time.sleep(1)

    run(tmp_path / "whole")
    run(tmp_path / "killed", kill_after=(20, 45, 70))
    for name in ("r1_zero", "reasoning_rl", "general_rl"):
        lines = [(tmp_path / which / name / "metrics.jsonl").read_text().splitlines() for which in ("whole", "killed")]
        strip = lambda line: {k: v for k, v in json.loads(line).items() if k != "seconds"}
        assert list(map(strip, lines[0])) == list(map(strip, lines[1]))
    whole, killed = (
        json.loads((tmp_path / which / "evaluate_general_rl" / "evaluation.json").read_text())["result"]
        for which in ("whole", "killed")
    )
    assert whole == killed


def test_the_table_over_seeds_has_means_and_the_interval_of_student(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        folder = tmp_path / str(seed) / "evaluate_base"
        folder.mkdir(parents=True)
        families = {name: {"accuracy": accuracy} for names in chain.ROWS.values() for name in names}
        result = {"breakdown": families} | {name: accuracy for name in chain.BEHAVIOUR}
        (folder / "evaluation.json").write_text(json.dumps({"result": result}))
    table = seeds_table([tmp_path / str(seed) for seed in range(3)])
    half = 4.302653 * 10 / 3**0.5  # t with two degrees of freedom, 97.5%; standard deviation 10
    assert f"| chains | 60.0 ± {half:.1f} |" in table and f"| **general, mean** | 60.0 ± {half:.1f} |" in table
    assert table.splitlines()[0] == "| | Base |"


MEETING = """
import json, os, signal, sys, time
from pathlib import Path
workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
options = sys.argv[1:]
assert not workdir.exists() or (workdir / "started").exists(), "somebody else's folder"
workdir.mkdir(parents=True, exist_ok=True)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
(workdir / "started").touch()
(workdir / "processors.json").write_text(json.dumps(sorted(os.sched_getaffinity(0))))
print("the stage", workdir.name, "speaks")
if "--meets" in options:  # ends only if the other runs at the same time
    other = workdir.parent / options[options.index("--meets") + 1]
    deadline = time.monotonic() + 60
    while not (other / "started").exists() and time.monotonic() < deadline and not stopped:
        time.sleep(0.01)
    assert stopped or (other / "started").exists(), "nobody came"
if "--fails" in options and not (workdir.parent / "mended").exists():
    sys.exit("this one breaks")
if not stopped:
    (workdir / "summary.json").write_text("{}")
"""


def meeting(tmp_path, **stages):
    """Stages of an experiment that only writes files, by name: options and needs."""
    (tmp_path / "meeting.py").write_text(MEETING)
    return [Stage(name, "meeting", tuple(options.split()), needs) for name, (options, needs) in stages.items()]


def test_several_stages_run_at_a_time_each_with_its_share_of_the_processors(tmp_path):
    stages = meeting(tmp_path, a=("--meets b", ()), b=("--meets a", ()), c=("", ("a", "b")))
    root = tmp_path / "runs"
    done = run_stages(root, stages, stages, tmp_path, jobs=2)
    assert all(stage["finished"] for stage in done.values()) and set(done) == {"a", "b", "c"}
    shares = [set(json.loads((root / name / "processors.json").read_text())) for name in "ab"]
    mine = os.sched_getaffinity(0)
    assert shares[0] | shares[1] <= mine and (len(mine) == 1 or not shares[0] & shares[1])
    assert "the stage c speaks" in (root / "c.txt").read_text()


def test_a_stage_that_fails_stops_those_beside_it_and_the_next_run_goes_on(tmp_path):
    stages = meeting(tmp_path, a=("", ()), b=("--fails", ()), c=("--meets nobody", ()), d=("", ("b",)))
    root = tmp_path / "runs"
    with pytest.raises(UserError, match="stage b failed with exit code 1; .*b.txt says why"):
        run_stages(root, stages, stages, tmp_path, jobs=3)
    record = json.loads((root / "chain.json").read_text())
    assert record["a"]["finished"] and not record["b"]["finished"] and not record["c"]["finished"]
    assert "d" not in record and "this one breaks" in (root / "b.txt").read_text()
    (root / "mended").touch()
    (root / "nobody").mkdir()
    (root / "nobody" / "started").touch()
    done = run_stages(root, stages, stages, tmp_path, jobs=3)
    assert all(done[name]["finished"] for name in "abcd")
