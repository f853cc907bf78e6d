"""The host as a target: it sets up what attacks aim at, runs them, and looks at itself afterwards."""

import ast
import contextlib
import inspect
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attacks import ATTACKS, program
from attacks.aims import SECRET
from r1jax.rewards.sandbox import Isolation, Limits, Run, run_python

LIMITS = Limits(wall_seconds=15.0, cpu_seconds=0.7, memory_bytes=256 << 20, output_bytes=1 << 16)
LIMITS_OF_SLEEPERS = Limits(wall_seconds=1.0, cpu_seconds=0.7, memory_bytes=256 << 20, output_bytes=1 << 16)
VARIABLE = "R1JAX_TEST_SECRET"
TESTS = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def aims(folder: Path) -> Iterator[dict]:
    """What attacks aim at, in an empty folder; raises AssertionError at the end where one of it was reached."""
    folder.chmod(0o777)
    canary = folder / "canary"
    canary.write_text(SECRET)
    canary.chmod(0o666)
    before = canary.stat()
    os.environ[VARIABLE] = SECRET
    with contextlib.ExitStack() as stack:
        kinds = [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)]
        kinds += [(socket.AF_UNIX, socket.SOCK_STREAM)] * 2 + [(socket.AF_UNIX, socket.SOCK_DGRAM)]
        stack.callback(os.environ.pop, VARIABLE)
        sockets = [stack.enter_context(socket.socket(*kind)) for kind in kinds]
        abstract, stream, datagrams = f"r1jax-test-{os.getpid()}", str(folder / "stream"), str(folder / "datagrams")
        sockets[0].bind(("127.0.0.1", 0))
        port = sockets[0].getsockname()[1]
        for listener, address in zip(
            sockets[1:], (("127.0.0.1", port), f"\0{abstract}", stream, datagrams), strict=True
        ):
            listener.bind(address)
        for path in (stream, datagrams):
            os.chmod(path, 0o777)
        for listener in sockets:
            listener.setblocking(False)
            if listener.type == socket.SOCK_STREAM:
                listener.listen()
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        stack.callback(lambda: (victim.kill(), victim.wait()))
        state = os.getpriority(os.PRIO_PROCESS, victim.pid), os.sched_getaffinity(victim.pid)
        yield {
            "CANARY": str(canary), "SECRET": SECRET, "PORT": port, "ABSTRACT": abstract, "SOCKET_PATH": stream,
            "DATAGRAM_PATH": datagrams, "VICTIM": victim.pid, "TESTS": str(TESTS), "VARIABLE": VARIABLE,
        }  # fmt: skip
        for listener in sockets:
            with contextlib.suppress(BlockingIOError):
                listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(1)
                raise AssertionError(f"{listener} was reached")
        assert victim.poll() is None
        assert state == (os.getpriority(os.PRIO_PROCESS, victim.pid), os.sched_getaffinity(victim.pid))
    after = canary.stat()
    assert canary.read_text() == SECRET
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)
    assert sorted(path.name for path in folder.iterdir()) == ["canary", "datagrams", "stream"]


def allowed_ends(name: str) -> tuple[str, ...]:
    """How the run of an attack may end, from its decorator."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(ATTACKS[name]))).body[0]
    marks = [[argument.value for argument in mark.args] for mark in definition.decorator_list]
    return tuple(marks[0]) if marks else ("ok", "nonzero", "signal", "timeout", "cpu", "memory", "output")


def attack(name: str, aimed_at: dict, isolation: Isolation, *, allow_unsafe: bool = False) -> Run:
    """Run one of the attacks."""
    limits = LIMITS_OF_SLEEPERS if allowed_ends(name) == ("timeout",) else LIMITS
    source = program(ATTACKS[name], aimed_at)
    return run_python(source, isolation=isolation, limits=limits, allow_unsafe=allow_unsafe)


def find_escapes(names: list[str], folder: Path, isolation: Isolation) -> dict[str, Run]:
    """Run attacks, four at a time; those that got through, or did not end as they should."""
    with aims(folder) as aimed_at, ThreadPoolExecutor(4) as threads:
        runs = dict(zip(names, threads.map(lambda name: attack(name, aimed_at, isolation), names), strict=True))
    secret = SECRET.encode()
    contained = lambda run: not any(b"ESCAPED" in text or secret in text for text in (run.stdout, run.stderr))
    return {name: run for name, run in runs.items() if not contained(run) or run.status not in allowed_ends(name)}
