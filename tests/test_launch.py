"""How an experiment's process begins."""

import json
import os
import subprocess
import sys

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
