"""Commands as several processes on loopback that find each other, for the tests of them."""

import socket
import subprocess
import sys

import pytest

from r1jax import launch

PATIENCE = 550
"""Seconds until a process is taken for stuck."""


def start_hosts(count: int, command: list, environment: dict) -> list[subprocess.Popen]:
    """A command as `count` processes that find each other at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    where = {launch.ADDRESS: address, launch.COUNT: str(count)}
    pipe, command = subprocess.PIPE, [sys.executable, *map(str, command)]
    start = lambda more: subprocess.Popen(command, env=environment | where | more, stdout=pipe, stderr=pipe, text=True)
    processes = [start({launch.INDEX: str(index)}) for index in range(count)]
    started.extend(processes)
    return processes


started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def none_outlives_its_test():
    yield
    while started:
        started.pop().kill()


def finish(processes, codes=(0,)) -> list[str]:
    """Wait for all; what each wrote."""
    outputs = ["\n".join(process.communicate(timeout=PATIENCE)) for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode in codes, output
    return outputs
