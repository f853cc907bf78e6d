"""Runs of several processes on loopback: the same numbers as on one, whoever is killed or stopped, whoever goes on."""

import json
import socket
import subprocess
import sys
from collections import Counter

import hosts_child
import numpy as np
import pytest
from conftest import ROOT
from test_resume import final_arrays

from r1jax import checkpoint, launch
from r1jax.config import UserError
from r1jax.hosts import Share, share_of


def start_hosts(count: int, command: list, environment: dict) -> list[subprocess.Popen]:
    """A command as `count` processes that find each other at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    where = {launch.ADDRESS: address, launch.COUNT: str(count)}
    pipe, command = subprocess.PIPE, [sys.executable, *map(str, command)]
    start = lambda more: subprocess.Popen(command, env=environment | where | more, stdout=pipe, stderr=pipe, text=True)
    return [start({launch.INDEX: str(index)}) for index in range(count)]


def finish(processes, codes=(0,)) -> list[str]:
    """Wait for all; what each wrote."""
    outputs = ["\n".join(process.communicate(timeout=550)) for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode in codes, output
    return outputs


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


@pytest.mark.parametrize("said", [{launch.COUNT: "2"}, dict(zip(launch.HOSTS, ("localhost:1", "two", "0")))])
def test_half_a_description_of_the_hosts_is_an_error(monkeypatch, said):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID.*there is"):
        launch.connect(False)


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
