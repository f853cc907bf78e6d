"""A run that is killed or stopped ends with the very bits of one that was not."""

import signal
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import SMALL

from r1jax.config import as_path
from r1jax.metrics import read_json, read_json_lines
from r1jax.tasks import BASE_MODEL

ITEMS = ("params", "router_bias", "opt_state", "reference", "update")


def final_arrays(workdir: Path, names=ITEMS, step: int | None = None) -> dict[str, np.ndarray]:
    """Every array of a checkpoint's items, by item and path, whatever devices wrote it; of the last one by default."""
    options = ocp.CheckpointManagerOptions(read_only=True)
    checkpoints = (as_path(workdir) if "://" in str(workdir) else Path(workdir).absolute()) / "checkpoints"
    step = ocp.CheckpointManager(checkpoints, options=options).latest_step() if step is None else step
    here, items = jax.sharding.SingleDeviceSharding(jax.devices()[0]), {}
    with ocp.StandardCheckpointer() as reader:
        for name in names:
            folder = checkpoints / str(step) / name
            wanted = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
                reader.metadata(folder).item_metadata.tree,
            )
            items[name] = reader.restore(folder, wanted)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(items)}


def assert_same_run(workdir: Path, reference: Path) -> None:
    ours, theirs = final_arrays(workdir), final_arrays(reference)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    timeless = lambda record: {k: v for k, v in record.items() if k != "seconds"}
    ours, theirs = (list(map(timeless, read_json_lines(w / "metrics.jsonl"))) for w in (workdir, reference))
    assert ours == theirs
    assert read_json_lines(workdir / "samples.jsonl") == read_json_lines(reference / "samples.jsonl")
    for phase in ("before", "after", "training"):
        assert read_json(workdir / "summary.json")[phase] == read_json(reference / "summary.json")[phase]


def wait_for(condition, process, seconds: float = 400) -> None:
    """Return as soon as the condition holds or the process has ended."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.002)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


KILL_POINTS = {
    "at the start": lambda w: (w / "config.json").exists(),
    "before the first checkpoint": lambda w: (w / "before.json").exists(),
    "while saving": lambda w: any(p.name.startswith("2.") for p in (w / "checkpoints").glob("*tmp*")),
    "after three iterations": lambda w: lines(w / "metrics.jsonl") >= 3,
    "in the last evaluation": lambda w: (w / "checkpoints" / "4").exists(),
}


def kill(experiment, workdir: Path, name: str) -> None:
    """Start or go on with the run, and kill it at a point of `KILL_POINTS`."""
    process = experiment("r1_zero", "--workdir", workdir, *SMALL)
    wait_for(lambda: KILL_POINTS[name](workdir), process)
    assert process.poll() is None, f"ended before it could be killed {name}: {process.communicate()}"
    process.kill()
    process.wait()


def stop(experiment, workdir: Path, number: int, *options) -> None:
    """Start a run, and ask it to stop after its first iteration."""
    process = experiment("r1_zero", "--workdir", workdir, *SMALL, *options)
    wait_for(lambda: lines(workdir / "metrics.jsonl") >= 1, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    assert "to resume" in output and f"--workdir {workdir}" in output and "r1_zero.py" in output
    assert (workdir / "report.html").exists()
    done = lines(workdir / "metrics.jsonl")
    assert 1 <= done < 4 and (workdir / "checkpoints" / str(done)).exists()


def finish(experiment, workdir: Path, *options) -> None:
    assert not (workdir / "summary.json").exists()
    process = experiment("r1_zero", "--workdir", workdir, *SMALL, *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors


def test_stopped_on_request_and_then_killed(experiment, finished_run, tmp_path):
    stop(experiment, tmp_path / "run", signal.SIGTERM)
    kill(experiment, tmp_path / "run", "after three iterations")
    finish(experiment, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished_run)


@pytest.mark.slow
def test_killed_at_many_points(experiment, finished_run, tmp_path):
    for name in KILL_POINTS:
        kill(experiment, tmp_path / "run", name)
    finish(experiment, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished_run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_on_request(experiment, finished_run, tmp_path, number):
    """A stop saves, however seldom the run does otherwise."""
    rarely = "--save-every", 100
    stop(experiment, tmp_path / "run", number, *rarely)
    finish(experiment, tmp_path / "run", *rarely)
    ours, theirs = final_arrays(tmp_path / "run"), final_arrays(finished_run)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.slow
def test_killed_pretraining(experiment, tmp_path):
    """Killed after a checkpoint and started again, pre-training ends with the same weights; its loss falls."""
    small = ["--tokenizer", BASE_MODEL, "--updates", 24, "--batch-size", 8, "--save-every", 6]
    for name in ("whole", "killed"):
        workdir = tmp_path / name
        process = experiment("pretrain", "--workdir", workdir, *small)
        if name == "killed":
            wait_for(lambda: (workdir / "checkpoints" / "6").exists(), process)
            process.kill()
            process.wait()
            assert not (workdir / "checkpoints" / "24").exists()
            process = experiment("pretrain", "--workdir", workdir, *small, "--publish", tmp_path / "base")
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
    names = ("params", "router_bias", "opt_state", "update")
    ours, theirs = (final_arrays(tmp_path / name, names) for name in ("killed", "whole"))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    records = read_json_lines(tmp_path / "whole" / "metrics.jsonl")
    assert records[-1]["loss"] < records[0]["loss"] - 0.2
    assert any(np.any(value != 0) for name, value in theirs.items() if "router_bias" in name)
    published = final_arrays(tmp_path / "base", names[:2])
    assert published.keys() == {name for name in theirs if "params" in name[:11] or "router_bias" in name}
    for name, value in published.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


def test_a_finished_run_is_shown_again(experiment, finished_run):
    stamp = (finished_run / "summary.json").read_bytes()
    output, errors = experiment("r1_zero", "--workdir", finished_run, *SMALL).communicate(timeout=120)
    assert "accuracy (pass@1)" in output and "report.html" in output, output + errors
    assert (finished_run / "summary.json").read_bytes() == stamp


def test_what_a_run_leaves(finished_run):
    summary = read_json(finished_run / "summary.json")
    wanted = {
        "accuracy",
        "accuracy_ci95",
        "pass_at_1",
        "pass_at_4",
        "mean_response_tokens",
        "verify_share",
        "format_share",
    }
    for phase in ("before", "after", "training"):
        assert wanted <= summary[phase].keys()
    assert {"startup", "before", "rollout", "reward", "scoring", "update", "after", "total"} == summary[
        "seconds"
    ].keys()
    records = read_json_lines(finished_run / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert [record["update"] for record in records] == [2, 4, 6, 8]
    assert all(record["sampler_mismatch_max"] < 1e-5 for record in records[:1])
    assert isinstance(records[0]["doctor"], list) and "doctor" not in records[1]
    assert (finished_run / "report.html").stat().st_size > 10_000
