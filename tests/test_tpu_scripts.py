"""The scripts that rent and drive a slice of TPUs: shellcheck, what they would do, and their errors.

No cloud is called: `gcloud` is absent, or a stand-in that writes down its arguments and says what state the slice is in.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = sorted((ROOT / "tpu_scripts").glob("*.sh"))
HERE = ("--name", "pod", "--zone", "us-east5-a")
RECORDER = """#!/bin/bash
printf '%s\\n' "$*" >> "$GCLOUD_CALLS"
[[ $* == *describe* ]] && echo "${GCLOUD_STATE:-ACTIVE}"
exit 0
"""


def run(script: str, *options: str, path: Path | None = None, **more) -> subprocess.CompletedProcess:
    """Run a script with the shell's own commands and, from `path`, others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("R1JAX_TPU")}
    environment["PATH"] = f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin"
    command = [str(ROOT / "tpu_scripts" / script), *options]
    return subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=60)


def dry(script: str, *options: str) -> list[list[str]]:
    """The commands that a script would run, in words."""
    done = run(script, *HERE, "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line.replace("$'", "'")) for line in done.stdout.splitlines()]


@pytest.fixture
def recorder(tmp_path):
    """A folder with a gcloud that writes down its arguments, and the file it writes them to."""
    (tmp_path / "gcloud").write_text(RECORDER)
    (tmp_path / "gcloud").chmod(0o755)
    return tmp_path, tmp_path / "calls"


def test_shellcheck_finds_nothing():
    assert len(SCRIPTS) == 6
    done = subprocess.run(["shellcheck", "-x", "-P", "SCRIPTDIR", *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("slice", "accelerator", "runtime"),
    [
        ("v5e-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-2048", "v5p-2048", "v2-alpha-tpuv5"),
        ("v6e-64", "v6e-64", "v2-alpha-tpuv6e"),
    ],
)
def test_a_slice_is_asked_for_by_the_names_of_the_cloud(slice, accelerator, runtime):
    (command,) = dry("create.sh", "--slice", slice, "--spot", "--project", "p")
    assert command[:6] == "gcloud compute tpus queued-resources create pod".split()
    wanted = {f"--accelerator-type={accelerator}", f"--runtime-version={runtime}", "--spot", "--project=p"}
    assert wanted | {"--node-id=pod", "--zone=us-east5-a"} <= set(command)
    assert "--spot" not in dry("create.sh", "--slice", slice)[0]


def test_a_command_reaches_every_worker_word_for_word():
    done = run("launch.sh", *HERE, "--dry-run", "--", "python", "x.py", "--prompt", "it's $HOME")
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {done.stdout}"], capture_output=True, text=True).stdout
    command = words.split("\0")
    assert command[:6] == "gcloud compute tpus tpu-vm ssh pod".split() and "--worker=all" in command
    script = next(word for word in command if word.startswith("--command=")).split("=", 1)[1]
    line = next(line for line in script.splitlines() if line.startswith("python x.py")).split("2>&1")[0]
    shown = subprocess.run(["bash", "-c", f"printf '%s|' {line}"], capture_output=True, text=True).stdout
    assert shown == "python|x.py|--prompt|it's $HOME|"


def test_what_was_preempted_is_brought_back_in_order():
    commands = dry("watch.sh", "--slice", "v5e-16", "--spot", "--", "python", "x.py")
    assert [Path(command[0]).name for command in commands] == ["delete.sh", "create.sh", "setup.sh", "launch.sh"]
    assert commands[1][-3:] == ["--slice", "v5e-16", "--spot"] and commands[3][-3:] == ["--", "python", "x.py"]


def test_creating_waits_for_the_slice_and_says_where_it_fails(recorder):
    path, calls = recorder
    done = run("create.sh", *HERE, "--slice", "v5e-4", path=path, GCLOUD_CALLS=str(calls))
    assert done.returncode == 0 and "setup.sh next" in done.stdout
    assert [line.split()[3] for line in calls.read_text().splitlines()] == ["create", "describe"]
    done = run("create.sh", *HERE, "--slice", "v5e-4", path=path, GCLOUD_CALLS=str(calls), GCLOUD_STATE="FAILED")
    assert done.returncode == 1 and "the request is FAILED" in done.stderr


@pytest.mark.parametrize(
    ("script", "options", "says"),
    [
        ("create.sh", (*HERE, "--slice", "v5p-3"), "--slice 'v5p-3' is not one of: v5e-4"),
        ("create.sh", HERE, "--slice '' is not one of"),
        ("delete.sh", ("--zone", "z"), "--name is missing"),
        ("delete.sh", ("--name", "Pod", "--zone", "z"), "--name 'Pod': small letters"),
        ("setup.sh", ("--name", "pod"), "--zone is missing"),
        ("setup.sh", ("--name",), "--name needs a value"),
        ("launch.sh", HERE, "no command: put it behind --"),
        ("watch.sh", (*HERE, "--fast"), "unknown option --fast"),
    ],
)
def test_bad_options_are_named_and_nothing_is_run(script, options, says):
    done = run(script, *options, "--dry-run") if options[-1] != "--name" else run(script, *options)
    assert done.returncode == 1 and says in done.stderr and not done.stdout


def test_a_missing_gcloud_is_named(tmp_path):
    for tool in ("bash", "dirname", "basename", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = run("delete.sh", *HERE, PATH=str(tmp_path))
    assert done.returncode == 1 and "gcloud is not installed: https://" in done.stderr


@pytest.mark.parametrize("script", [path.name for path in SCRIPTS if path.name != "common.sh"])
def test_help_says_how(script):
    done = run(script, "--help")
    assert done.returncode == 0 and f"{script} --name NAME" in done.stdout and "--dry-run" in done.stdout
