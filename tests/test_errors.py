"""A user's mistake gets one clear message and a non-zero exit, never a traceback, and costs nothing already done."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess

import pytest
from conftest import SMALL

from r1jax import checkpoint
from r1jax.config import UserError, claim_workdir
from r1jax.grpo_config import GrpoConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.rl_stage import RlStageConfig
from r1jax.sharding import MeshConfig


def run_to_failure(experiment, *options, name="r1_zero"):
    process = experiment(name, *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode not in (0, None), output
    assert "Traceback" not in output + errors, output + errors
    return process.returncode, " ".join((output + errors).split())


def test_unknown_option(experiment, tmp_path):
    code, message = run_to_failure(experiment, "--workdir", tmp_path / "w", "--learning-rat", 1)
    assert code == 2 and "--learning-rat" in message and not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--seed", -1, "--seed must be 0 or more"),
        ("--levels", 9, "invalid choice"),
        ("--grpo.sampling.temperature", 0, "temperature must be above 0"),
        ("--evaluation-problems", 0, "must be 2 or more"),
    ],
)
def test_impossible_values(experiment, tmp_path, option, value, says):
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", option, value)
    assert says in message and not (tmp_path / "w").exists()


def test_missing_init(experiment, tmp_path):
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", "--init", tmp_path / "nowhere")
    assert "nowhere" in message and "no such folder" in message and not (tmp_path / "w").exists()


def test_foreign_init(experiment, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.bin").write_bytes(b"weights")
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", "--init", tmp_path / "foreign")
    assert "not the workdir of a stage" in message


def test_damaged_init(tmp_path):
    from r1jax.tasks import BASE_MODEL

    shutil.copytree(BASE_MODEL, tmp_path / "base")
    (model,) = (tmp_path / "base").glob("checkpoints/*/model/metadata")
    fields = json.loads(model.read_text())
    model.write_text(json.dumps(fields | {"embed_dim": 64}))
    from r1jax.policy import load_policy
    from r1jax.sharding import MeshConfig, make_mesh

    with pytest.raises(UserError, match="do not fit the model"):
        load_policy(tmp_path / "base", make_mesh(MeshConfig()))


def test_workdir_of_another_configuration(experiment, finished_run):
    before = sorted(p.name for p in finished_run.iterdir())
    _, message = run_to_failure(experiment, "--workdir", finished_run, *SMALL, "--seed", 7)
    assert "seed: 0 -> 7" in message and "--workdir" in message
    assert sorted(p.name for p in finished_run.iterdir()) == before


def test_workdir_of_another_experiment(experiment, finished_run):
    _, message = run_to_failure(experiment, "--workdir", finished_run, *SMALL, name="ablations/random_reward")
    assert '"r1_zero" -> "random_reward"' in message


def test_folder_that_is_no_workdir(experiment, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    _, message = run_to_failure(experiment, "--workdir", tmp_path, *SMALL)
    assert "choose another --workdir" in message and (tmp_path / "thesis.tex").read_text() == "precious"


def test_workdir_below_a_file(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "file" / "run", *SMALL)
    assert "Not a directory" in message and "choose another path" in message


def test_mesh_that_does_not_divide(experiment, tmp_path):
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", "--mesh.tensor", 3)
    assert "tensor=3" in message and "there are 1" in message


def test_parameter_that_does_not_divide(experiment, tmp_path):
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    sizes = ["--grpo.sampling.prompts", 6, "--grpo.micro-batches", 1]
    process = experiment("r1_zero", "--workdir", tmp_path / "w", *SMALL, *sizes, "--mesh.tensor", 3, **devices)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert "does not divide over the 3 devices of mesh axes tensor" in " ".join(errors.split())


def test_batch_that_does_not_divide(experiment, tmp_path):
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", *SMALL, "--grpo.mini-batches", 3)
    assert "do not divide into 3 mini-batches" in message


def test_prompt_that_does_not_fit(experiment, tmp_path):
    _, message = run_to_failure(experiment, "--workdir", tmp_path / "w", *SMALL, "--grpo.sampling.prompt-slots", 5)
    assert "tokens" in message and "--sampling.prompt-slots" in message


def test_diverged_run_keeps_the_last_good_checkpoint(experiment, tmp_path):
    workdir = tmp_path / "w"
    _, message = run_to_failure(
        experiment,
        "--workdir",
        workdir,
        *SMALL,
        "--grpo.optimizer.learning-rate",
        1e30,
        "--grpo.optimizer.warmup-updates",
        2,
    )
    assert "diverged" in message and "param_norm" in message
    kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert kept == [0]


@pytest.mark.slow
def test_full_disk(experiment, finished_run, tmp_path):
    """On a real file system with no room left, mounted for the purpose where the machine allows it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=14m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    try:
        _, message = run_to_failure(experiment, "--workdir", disk / "w", *SMALL)
        assert "no space left" in message and "run the same command again" in message
        kept = [int(p.name) for p in (disk / "w" / "checkpoints").iterdir() if p.name.isdigit()]
        assert kept
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        process = experiment("r1_zero", "--workdir", disk / "w", *SMALL)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
        from test_resume import assert_same_run

        assert_same_run(disk / "w", finished_run)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_while_saving_is_recognised(tmp_path, monkeypatch):
    manager = checkpoint.open_checkpoints(tmp_path)

    def fail(*args, **kwargs):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeError("commit failed") from error

    monkeypatch.setattr(manager, "save", fail)
    with pytest.raises(UserError, match="no space left on the disk.*step 3.*earlier checkpoints are kept"):
        checkpoint.save(manager, 3, arrays={}, facts={}, wait=True)


def test_a_workdir_takes_another_mesh_and_no_other_change(tmp_path):
    """Also where an older version wrote the mesh down."""
    first = RlStageConfig(GrpoConfig(OptimizerConfig(1e-3), iterations=2), str(tmp_path / "run"))
    path = claim_workdir(first.workdir, "r1_zero", first) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mesh": {"fsdp": 4}}))
    moved = dataclasses.replace(first, mesh=MeshConfig(tensor=2))
    assert claim_workdir(moved.workdir, "r1_zero", moved) == path.parent
    with pytest.raises(UserError, match=r'dtype: null -> "bfloat16"\nRepeat'):
        claim_workdir(first.workdir, "r1_zero", dataclasses.replace(moved, dtype="bfloat16"))
