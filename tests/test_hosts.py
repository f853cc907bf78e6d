"""Runs of several processes on loopback: the same numbers as on one, whoever is killed or stopped, whoever goes on."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import hosts_child
import jax
import numpy as np
import pytest
from conftest import QUICK_COMPILE, ROOT
from several_hosts import finish, none_outlives_its_test, start_hosts  # noqa: F401
from test_resume import final_arrays, lines, wait_for

from r1jax import checkpoint, launch
from r1jax.config import UserError
from r1jax.hosts import Share, share_of
from r1jax.metrics import read_json_lines
from r1jax.sharding import MeshConfig, make_mesh, mesh_of_one
from r1jax.tasks import WORLD_MODEL


@pytest.fixture(scope="module")
def two_hosts(environment, tmp_path_factory):
    """The folder that two processes saved to, and what each of them saw."""
    folder = tmp_path_factory.mktemp("two")
    finish(start_hosts(2, [ROOT / "tests" / "hosts_child.py", folder], environment | {"PYTHONPATH": str(ROOT)}))
    return folder / "run", [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]


def test_two_hosts_agree(two_hosts):
    """On values, flags, errors, verdicts, and arrays, wherever on them these lie."""
    for index, found in enumerate(two_hosts[1]):
        assert found["processes"] == 2 and found["share"] == [index, 2]
        assert found["fetched"] and found["keys"] == [[0, row] for row in range(hosts_child.BATCH)]
        assert found["gathered"] == ["x", "x" * 6]
        assert found["flags"] == [True, False]
        first_round, all_rounds = found["compiled"]
        assert 0 < first_round == all_rounds, "a second round compiled something"
        assert found["first"] == "of 0" and found["refusal"] == "the first host cannot"


def test_each_host_judges_its_share_and_knows_all_verdicts(two_hosts):
    """Five completions differ; the first host judges every other one of them, and the repeated one is judged once."""
    for found in two_hosts[1]:
        assert found["verdicts"] == [[0.1, "0"], [0.2, "1"], [0.1, "0"], [0.2, "0"], [0.1, "1"], [0.4, "0"]]


def test_the_ledger_of_two_hosts_that_one_goes_on_with(two_hosts):
    """Each record once an epoch, by one host; what two have read when they save, one neither repeats nor drops."""
    folder, (first, second) = two_hosts
    whole = [sorted(batch) for batch in hosts_child.open_stream((0, 1))]
    for one, other, batch in zip(first["seen"], second["seen"], whole, strict=False):
        assert len(one) == len(other) == hosts_child.BATCH // 2 and sorted(one + other) == batch
    stream = hosts_child.open_stream((0, 1))
    stream.restore(checkpoint.restore(checkpoint.open_checkpoints(folder), arrays={}, facts=("data",))["data"])
    rest = [int(record) for batch in stream for record in batch]
    counts = Counter(sum(first["seen"] + second["seen"], rest))
    assert counts == Counter({record: 2 for record in range(hosts_child.RECORDS)})


def test_what_two_hosts_learn_and_save_together_is_what_one_learns(two_hosts):
    """Gradient descent by hand on the global batches; read back on one device, from one folder."""
    weights = np.zeros(8)
    for batch, _ in zip(hosts_child.open_stream((0, 1)), range(hosts_child.UPDATES), strict=False):
        rows = np.stack([hosts_child.row_of(record) for record in batch]).astype(np.float64)
        weights -= 0.1 * 2 * rows.T @ (rows @ (weights - hosts_child.WEIGHTS)) / len(rows)
    folder, _ = two_hosts
    saved = final_arrays(folder, ("params",))
    np.testing.assert_allclose(next(iter(saved.values())), weights, atol=1e-5)
    assert np.abs(weights).max() > 0.1


def test_a_reward_model_and_a_samplers_copy_on_two_hosts(two_hosts):
    """Both hosts get the scores of one device; weights that are laid out anew lie elsewhere, and are the same."""
    alone = hosts_child.score_and_relay(mesh_of_one(jax.devices()[0]))
    assert np.ptp(alone["scores"]) > 0.1
    for found in two_hosts[1]:
        np.testing.assert_allclose(found["weights"]["scores"], alone["scores"], rtol=1e-5)
        assert found["weights"]["moved"] and found["weights"]["same"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_befalls_one_host_ends_all(environment, tmp_path, number):
    """One is killed: the other says that it cannot go on. One is asked to stop: both stop, and the first says how to go on."""
    command = [ROOT / "tests" / "hosts_waiting.py", "--workdir", tmp_path]
    processes = start_hosts(2, command, environment | {"PYTHONPATH": str(ROOT)})
    wait_for((tmp_path / "begun").exists, processes[0])
    processes[1].send_signal(number)
    if number == signal.SIGTERM:
        first, second = finish(processes)
        assert "to resume:\n  python" in first and "resume" not in second
    else:
        first, _ = finish(processes, (1, -signal.SIGABRT, -signal.SIGKILL))
        assert "Start all of them again" in first or "coordination" in first.lower()


@pytest.mark.parametrize("said", [{launch.COUNT: "2"}, dict(zip(launch.HOSTS, ("localhost:1", "two", "0")))])
def test_half_a_description_of_the_hosts_is_an_error(monkeypatch, said):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID.*there is"):
        launch.connect(False)


def test_a_host_of_several_that_joined_none_is_told(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 4)
    with pytest.raises(UserError, match="4 hosts, which must join each other: add --distributed"):
        make_mesh(MeshConfig())


class FakeDevice:
    """A device of a host, for meshes of hosts that are not there."""

    def __init__(self, process_index):
        self.process_index = process_index


class FakeSharding:
    """Rows of a batch by device."""

    def __init__(self, hosts, rows):
        self.devices, self.rows, self.num_devices = [FakeDevice(host) for host in hosts], rows, len(hosts)

    def devices_indices_map(self, shape):
        return {device: (slice(row, row + 1),) for device, row in zip(self.devices, self.rows, strict=True)}


@pytest.mark.parametrize(
    ("hosts", "rows", "share"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], Share(0, 2)),
        ([1, 1, 0, 0], [0, 1, 2, 3], Share(1, 2)),
        ([0, 1, 0, 1], [0, 1, 2, 3], Share(0, 2)),  # devices of hosts in turn, as the shape of a slice may want it
        ([0, 0, 1, 1], [0, 1, 0, 1], Share(0, 1)),  # heads cut across hosts: both read everything
        ([0, 1, 2, 3], [0, 0, 2, 2], Share(0, 2)),
    ],
)
def test_a_host_reads_what_its_devices_hold(hosts, rows, share):
    assert share_of(FakeSharding(hosts, rows)) == share


def test_a_mesh_whose_hosts_overlap_is_refused():
    with pytest.raises(UserError, match=r"\[\[0, 1\], \[1, 2\]\].*change --mesh"):
        share_of(FakeSharding([0, 0, 1, 1], [0, 1, 1, 2]))


PRETRAIN = ["--tokenizer", WORLD_MODEL, "--batch-size", 8, "--sequence-length", 48, "--updates", 6, "--save-every", 1]
MESHES = {
    "fsdp": ["fsdp", 8],
    "data": ["data", 8, "fsdp", 1],
    "data, fsdp, expert": ["data", 2, "fsdp", 2, "expert", 2],
    "expert": ["fsdp", 1, "expert", 8],
    "fsdp, expert, tensor": ["fsdp", 2, "expert", 2, "tensor", 2],
    "data, expert, sequence": ["data", 2, "fsdp", 1, "expert", 2, "sequence", 2],
}


def mesh_options(sizes: list) -> list:
    return [f"--mesh.{word}" if isinstance(word, str) else word for word in sizes]


def pretrain(workdir: Path, *options) -> list:
    return [ROOT / "experiments" / "pretrain.py", "--workdir", workdir, *PRETRAIN, *options]


@pytest.fixture(scope="module")
def one_process(environment, tmp_path_factory):
    """The workdir of a small pre-training of a mixture of experts, on one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    finish(
        [
            subprocess.Popen(
                [sys.executable, *map(str, pretrain(workdir))], env=environment, stdout=-1, stderr=-1, text=True
            )
        ]
    )
    return workdir


def assert_same_training(workdir: Path, reference: Path, tolerance: float = 1e-5) -> None:
    """The same losses, final parameters and router bias."""
    ours, theirs = (final_arrays(folder, ("params", "router_bias")) for folder in (workdir, reference))
    assert ours.keys() == theirs.keys() and any("router_bias" in name for name in theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=tolerance, err_msg=name)
    ours, theirs = (read_json_lines(f"{folder}/metrics.jsonl") for folder in (workdir, reference))
    assert [record["step"] for record in ours] == [record["step"] for record in theirs] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "grad_norm", "param_norm", "entropy", "max_violation"):
        np.testing.assert_allclose([r[name] for r in ours], [r[name] for r in theirs], rtol=tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES.values(), ids=MESHES)
def test_six_meshes_of_eight_devices_train_as_one_device(environment, one_process, tmp_path, sizes):
    flags = {"XLA_FLAGS": f"{QUICK_COMPILE} --xla_force_host_platform_device_count=8"}
    command = [sys.executable, *map(str, pretrain(tmp_path / "run", *mesh_options(sizes)))]
    finish([subprocess.Popen(command, env=environment | flags, stdout=-1, stderr=-1, text=True)])
    assert_same_training(tmp_path / "run", one_process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "sizes"),
    [(2, ["fsdp", 2]), (4, ["data", 2, "fsdp", 1, "expert", 2]), (2, ["fsdp", 1, "sequence", 2])],
)
def test_several_processes_train_as_one_device(environment, one_process, tmp_path, count, sizes):
    outputs = finish(start_hosts(count, pretrain(tmp_path / "run", *mesh_options(sizes)), environment))
    assert "pretrain" in outputs[0] and not any("pretrain" in output for output in outputs[1:]), "the first alone logs"
    assert_same_training(tmp_path / "run", one_process)


@pytest.mark.slow
def test_killed_stopped_and_relaunched_on_fewer_hosts(environment, one_process, tmp_path):
    """kill -9 of one of four at a random point ends the others; SIGTERM to all saves; two go on to the same end."""
    workdir, rng = tmp_path / "run", random.Random(time.time_ns())
    processes = start_hosts(4, pretrain(workdir), environment)
    wait_for(lambda: lines(workdir / "metrics.jsonl") >= 1, processes[0])
    time.sleep(rng.uniform(0, 1))
    victim = rng.randrange(4)
    assert processes[victim].poll() is None
    processes[victim].kill()
    codes = (1, -signal.SIGABRT, -signal.SIGKILL)
    outputs = finish(processes, codes)
    assert all(process.returncode for process in processes)
    assert any("Start all of them again" in output or "coordination" in output.lower() for output in outputs)

    saved = lines(workdir / "metrics.jsonl")
    processes = start_hosts(4, pretrain(workdir), environment)
    wait_for(lambda: lines(workdir / "metrics.jsonl") > saved, processes[0])
    for process in processes:
        process.send_signal(signal.SIGTERM)
    outputs = finish(processes)
    assert "to resume" in outputs[0]
    done = lines(workdir / "metrics.jsonl")
    assert (workdir / "checkpoints" / str(done)).exists()
    finish(start_hosts(2, pretrain(workdir), environment))
    assert_same_training(workdir, one_process)


@pytest.mark.slow
def test_two_hosts_that_share_nothing_but_a_bucket(storage, environment, one_process):
    finish(start_hosts(2, pretrain("gs://bucket/pretrain"), environment | storage))
    assert_same_training("gs://bucket/pretrain", one_process)
