"""How an experiment's process begins, and what it holds until it ends."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1jax import config
from r1jax.config import UserError

SCRIPT = """
import json, os, sys
from r1jax import launch
if __name__ == "__main__":
    launch.tune_allocator()
    print(json.dumps([os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], os.getpid()]))
"""


def run(tmp_path, **variables):
    (tmp_path / "script.py").write_text(SCRIPT)
    clean = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "JAX_PLATFORMS")}
    command = [sys.executable, "script.py", "--text", "two words", "it's"]
    process = subprocess.Popen(command, cwd=tmp_path, env=clean | variables, stdout=subprocess.PIPE, text=True)
    output = json.loads(process.communicate()[0])
    return output, process.pid


def test_the_allocator_is_set_and_the_command_line_survives(tmp_path):
    (tunables, arguments, pid), started = run(tmp_path)
    assert "glibc.malloc.mmap_max=0" in tunables and "trim_threshold" in tunables
    assert arguments == ["--text", "two words", "it's"]
    assert pid == started, "signals sent to the process must reach it"


def test_a_setting_of_the_user_stays(tmp_path):
    assert run(tmp_path, GLIBC_TUNABLES="glibc.malloc.check=0")[0][0] == "glibc.malloc.check=0"


def test_only_cpu_runs_are_touched(tmp_path):
    assert run(tmp_path, JAX_PLATFORMS="tpu")[0][0] is None


def test_a_workdir_belongs_to_one_process_until_that_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "RELEASE_SECONDS", 0.3)
    code = (
        "import dataclasses, sys; from r1jax.config import claim_workdir\n"
        "claim_workdir(sys.argv[1], 'a', dataclasses.make_dataclass('C', [])()); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdin=-1, stdout=-1, text=True)
    empty = dataclasses.make_dataclass("C", [])()
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another process"):
            config.claim_workdir(tmp_path / "run", "a", empty)
        holder.kill()
    monkeypatch.setattr(config, "RELEASE_SECONDS", 20)
    config.claim_workdir(tmp_path / "run", "a", empty)
    config.claim_workdir(tmp_path / "run", "a", empty)


def test_a_stage_dies_with_the_chain_that_started_it():
    stage = (
        "import os, time; from r1jax import launch; launch.end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    chain = (
        "import os, subprocess, sys; from r1jax import launch\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], env=os.environ | {launch.PARENT: str(os.getpid())})"
    )
    process = subprocess.Popen([sys.executable, "-c", chain, stage], stdout=-1, text=True)
    number = int(process.stdout.readline())
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while running(number):
        assert time.monotonic() < until
        time.sleep(0.05)


def running(number: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
