"""Stages as two processes on loopback: the same samples, losses and parameters as on one."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SMALL
from several_hosts import finish, none_outlives_its_test, start_hosts  # noqa: F401
from test_resume import final_arrays, lines, wait_for
from test_reward_model import separable
from test_sft_stage import SMALL as SMALL_SFT

from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import read_json, read_json_lines
from r1jax.tasks import WORLD_MODEL

# Adam makes a learning rate of rounding where slopes are 0: it is small here.
SFT = [*SMALL_SFT, "--sft.optimizer.learning-rate", 1e-4]
REWARD_MODEL = (
    "--batch-size 8 --micro-batches 2 --sequence-length 32 --epochs 4 --held-out-share 0.2 "
    "--optimizer.learning-rate 1e-4 --optimizer.warmup-updates 0 --evaluate-every 8 --save-every 8"
).split()
GENERAL_RL = [*SMALL, "--grpo.iterations", 2, "--grpo.sampling.max-new-tokens", 32, "--preferences-from", 2]
GENERAL_RL += "--scored-length 64 --reasoning-parts chains:1 chains:2 --general-parts requests:1 safety:1".split()
OWN_MESH = "--grpo.sampling.relayout --grpo.sampling.mesh.fsdp 1 --grpo.sampling.mesh.tensor 2".split()


def start_two(environment: dict, name: str, *options) -> list:
    return start_hosts(2, [ROOT / "experiments" / f"{name}.py", *options], environment)


def assert_close(ours: Path, theirs: Path, figures: tuple[str, ...], tolerance: float = 1e-5) -> None:
    """The same figures at every step, and the same final parameters and router bias."""
    metrics = [read_json_lines(folder / "metrics.jsonl") for folder in (ours, theirs)]
    for one, other in zip(*metrics, strict=True):
        for name in figures:
            message = f"{name}, step {other['step']}"
            np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance / 10, err_msg=message)
    ours, theirs = (final_arrays(folder, ("params", "router_bias")) for folder in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_the_page_names_the_stages_that_run_on_several_hosts():
    files = (ROOT / "experiments").rglob("*.py")
    able = {path.stem for path in files if "on_several_hosts=True" in path.read_text()}
    rows = [row for row in (ROOT / "docs" / "tpu.md").read_text().splitlines() if "| yes" in row]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == able


def test_a_command_for_one_host_refuses_to_join_others(monkeypatch):
    with pytest.raises(UserError, match="runs on one host; leave out --distributed"):
        launch.connect(True, allowed=False)
    monkeypatch.setenv(launch.COUNT, "2")
    with pytest.raises(UserError, match="runs on one host"):
        launch.connect(False, allowed=False)


@pytest.mark.slow
def test_a_command_for_one_host_says_so(environment):
    (output,) = finish(start_hosts(1, [ROOT / "experiments" / "evaluate.py"], environment), (1,))
    assert "runs on one host; leave out --distributed" in output


@pytest.mark.slow
def test_two_hosts_fine_tune_on_shares_and_one_goes_on(environment, experiment, conversations, tmp_path):
    """SIGTERM to one of two saves both; what one then makes of it is what one alone makes of all the documents."""
    finish([experiment("sft", "--workdir", tmp_path / "one", "--data", conversations, "--init", WORLD_MODEL, *SFT)])
    options = ["--workdir", tmp_path / "two", "--data", conversations, "--init", WORLD_MODEL, *SFT]
    processes = start_two(environment, "sft", *options)
    wait_for((tmp_path / "two" / "checkpoints" / "2").exists, processes[0], 550)
    processes[1].terminate()
    outputs = finish(processes)
    assert "to resume" in outputs[0] and not (tmp_path / "two" / "summary.json").exists()
    finish([experiment("sft", *options)])
    ours, theirs = (final_arrays(tmp_path / name, ("params", "router_bias")) for name in ("two", "one"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-5, err_msg=name)
    ours, theirs = (read_json_lines(tmp_path / name / "metrics.jsonl")[-1] for name in ("two", "one"))
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


@pytest.mark.slow
def test_two_hosts_distil_as_one(environment, experiment, conversations, tmp_path):
    """From samples and the distributions of a teacher, whose weights are cut over both."""
    options = ["--data", conversations, "--teacher", WORLD_MODEL, *SFT]
    finish([experiment("distill", "--workdir", tmp_path / "one", *options)])
    finish(start_two(environment, "distill", "--workdir", tmp_path / "two", *options))
    assert_close(tmp_path / "two", tmp_path / "one", ("loss", "nll", "teacher_kl", "grad_norm"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict[str, Path]:
    """What reward models of either kind learn from."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("judged")
    pairs = [separable(number, rng) for number in range(40)]
    answers = [(pair["prompt"], pair[side], side == "chosen") for pair in pairs for side in ("chosen", "rejected")]
    labels = [
        {"id": str(number), "prompt": prompt, "response": answer, "safe": safe}
        for number, (prompt, answer, safe) in enumerate(answers[::3])
    ]
    files = {}
    for kind, records in {"helpful": pairs, "safety": labels}.items():
        files[kind] = folder / f"{kind}.jsonl"
        files[kind].write_text("".join(json.dumps(record) + "\n" for record in records))
    return files


def reward_options(kind: str, workdir: Path, judged: dict[str, Path]) -> list:
    return ["--preset", kind, "--pairs", judged[kind], "--workdir", workdir, "--init", WORLD_MODEL, *REWARD_MODEL]


@pytest.fixture(scope="module")
def reward_models(experiment, judged, tmp_path_factory) -> Path:
    """A folder with the workdirs of a helpful and a safety reward model, each trained on one device."""
    folder = tmp_path_factory.mktemp("reward_models")
    for kind in judged:
        finish([experiment("reward_model", *reward_options(kind, folder / kind, judged))])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["helpful", "safety"])
def test_two_hosts_train_a_reward_model_as_one(environment, judged, reward_models, tmp_path, kind):
    finish(start_two(environment, "reward_model", *reward_options(kind, tmp_path / kind, judged)))
    assert_close(tmp_path / kind, reward_models / kind, ("loss", "accuracy", "grad_norm"))
    assert read_json(tmp_path / kind / "summary.json") == read_json(reward_models / kind / "summary.json")


@pytest.fixture(scope="module")
def general_options(reward_models) -> list:
    return [
        "--init",
        WORLD_MODEL,
        "--helpful",
        reward_models / "helpful",
        "--safe",
        reward_models / "safety",
        *GENERAL_RL,
    ]


@pytest.fixture(scope="module")
def general_run(experiment, general_options, tmp_path_factory) -> Path:
    """The workdir of a small general RL on one device."""
    workdir = tmp_path_factory.mktemp("general") / "run"
    finish([experiment("general_rl", "--workdir", workdir, *general_options)])
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], OWN_MESH], ids=["", "a mesh of the sampler's own"])
def test_two_hosts_learn_from_reward_models_as_one(environment, general_options, general_run, tmp_path, more):
    finish(start_two(environment, "general_rl", "--workdir", tmp_path / "run", *general_options, *more))
    assert_same_samples(tmp_path / "run", general_run)
    assert {"helpful", "safety"} <= read_json_lines(general_run / "metrics.jsonl")[-1]["reward_parts"].keys()
    assert_close(tmp_path / "run", general_run, ("reward", "loss", "entropy", "param_norm", "kl"))


def assert_same_samples(ours: Path, theirs: Path) -> None:
    """The same responses, tokens and zeros of variance."""
    assert read_json_lines(ours / "samples.jsonl") == read_json_lines(theirs / "samples.jsonl")
    for one, other in zip(*(read_json_lines(folder / "metrics.jsonl") for folder in (ours, theirs)), strict=True):
        for name in ("mean_response_tokens", "zero_variance_groups"):
            assert one[name] == other[name], name


@pytest.mark.slow
def test_two_processes_learn_by_reinforcement_as_one(environment, finished_run, tmp_path):
    """The same samples, rewards and steps; kill -9 of one in between."""
    workdir = tmp_path / "run"
    options = ["--workdir", workdir, *SMALL]
    processes = start_two(environment, "r1_zero", *options)
    wait_for(lambda: lines(workdir / "metrics.jsonl") >= 2, processes[0])
    processes[1].kill()
    finish(processes, (1, -signal.SIGABRT, -signal.SIGKILL))
    finish(start_two(environment, "r1_zero", *options))
    assert_same_samples(workdir, finished_run)
    for ours, theirs in zip(
        *(read_json_lines(folder / "metrics.jsonl") for folder in (workdir, finished_run)), strict=True
    ):
        assert ours["reward"] == theirs["reward"]
        for name in ("grad_norm", "entropy", "param_norm", "kl"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-3, atol=1e-6, err_msg=name)
