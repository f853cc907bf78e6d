"""What the tests of whole experiments share."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SMALL = (
    "--grpo.iterations 4 --grpo.sampling.prompts 4 --grpo.sampling.group-size 4 --grpo.sampling.max-new-tokens 16 "
    "--grpo.sampling.halvings 1 --grpo.micro-batches 2 --grpo.reference-every 4 --evaluation-problems 8 "
    "--training-problems 4 --save-every 1"
).split()
"""Options that make R1-Zero a matter of seconds."""

QUICK_COMPILE = "--xla_backend_optimization_level=0"
"""Of XLA; the same for the tests and every child, so that their bits can be compared."""
os.environ.setdefault("XLA_FLAGS", QUICK_COMPILE)  # read when the first test asks for a device


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Path:
    """A folder of this run of the tests, whichever of its workers asks."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session", autouse=True)
def compiled(shared) -> Path:
    """Where programs that took long to compile are kept, for all tests of a run and the processes they start."""
    import jax

    cache = shared / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return cache


@pytest.fixture(scope="session")
def environment(shared) -> dict:
    """Environment of a child process; compiled programs are shared between the children."""
    options = {"JAX_COMPILATION_CACHE_DIR": str(shared / "children"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | options | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK_COMPILE, "COLUMNS": "200"}


@pytest.fixture(scope="session")
def experiment(environment):
    """Start an experiment file with options; returns the process."""

    def start(name: str, *options, **more) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *map(str, options)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment | more, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture(scope="session")
def finished_run(experiment, shared) -> Path:
    """The workdir of an uninterrupted small run of R1-Zero, seed 0; made by the worker that needs it first."""
    workdir = shared / "finished_run"
    with open(shared / "finished_run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not workdir.exists():
            process = experiment("r1_zero", "--workdir", workdir, *SMALL)
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, output + errors
    return workdir


@pytest.fixture(scope="session")
def conversations(tmp_path_factory) -> Path:
    """A file of sixty requests and chains, answered by careful authors."""
    import numpy as np

    from r1jax.collect import conversation
    from r1jax.data.sources import write_json_lines
    from r1jax.tasks.families import draw_records, read_parts
    from r1jax.tasks.solutions import SOLVERS, Author

    rng = np.random.default_rng(0)
    records = draw_records(read_parts(["requests:2", "chains:2"]), "train", 60, rng)
    author = Author(rng, careful=True, mixes=False, slip=0.0)
    answered = [conversation(r, f"{n}", *SOLVERS[r["family"]](author, r)) for n, r in enumerate(records)]
    path = tmp_path_factory.mktemp("data") / "sft.jsonl"
    write_json_lines(answered, path)
    return path


@pytest.fixture(scope="session")
def storage():
    """Environment variables by which orbax, tensorstore and gcsfs find a bucket of the name "bucket" on loopback."""
    pytest.importorskip("gcp_storage_emulator")
    pytest.importorskip("gcsfs")
    from bucket import serve

    with serve("bucket") as variables:
        yield variables
