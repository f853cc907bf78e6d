"""Untrusted Python programs: one that runs to its end, or one to talk with, line by line."""

import math
import os
import resource
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence

from r1jax.rewards.sandbox import isolation as levels
from r1jax.rewards.sandbox.isolation import Isolation, SandboxUnavailable
from r1jax.rewards.sandbox.limits import Limits, Run
from r1jax.rewards.sandbox.process import Process
from r1jax.rewards.sandbox.runtime import DEVICES, interpreter, runtime_paths
from r1jax.rewards.sandbox.seccomp import filter_program

PROGRAM = "main.py"
ENVIRONMENT = {"PATH": "", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
ENVIRONMENT |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
MAX_FILES = 1024  # that a program may make
CPU_SLACK_SECONDS = 1  # by which the kernel's limit on a process, in whole seconds, may be reached before our own
INSIDE_SLACK_SECONDS = 2.0  # after which a sandbox ends itself if the host has not done it
PENDING_SIGNALS = 256

# The module `site` is skipped, because what it finds would depend on the host; only exit and quit are missed.
START = f"""
import builtins, sys, _sitebuiltins
builtins.exit, builtins.quit = (_sitebuiltins.Quitter(name, "Ctrl-D") for name in ("exit", "quit"))
sys.argv[:], __file__ = ["{PROGRAM}"], "{PROGRAM}"
del builtins, sys, _sitebuiltins
exec(compile(open(__file__, "rb").read(), __file__, "exec", dont_inherit=True))
"""


def run_python(
    source: str,
    *,
    stdin: bytes = b"",
    files: Mapping[str, bytes] = {},
    limits: Limits = Limits(),
    isolation: Isolation | None = None,
    allow_unsafe: bool = False,
    packages: Sequence[str | os.PathLike] = (),
) -> Run:
    """Run a Python program that may be hostile, and wait for its end, at the latest that of its time.

    It sees the standard library of this interpreter, a folder of its own and four devices, and nothing else of the
    host; when this returns, nothing of it is left. May be called by several threads and processes at a time.

    Args:
      source: the program; it runs as main.py in its own folder.
      stdin: what it can read.
      files: relative path -> content, in its folder.
      limits: what it may use.
      isolation: the best of this host, if None.
      allow_unsafe: run it with all rights of this process where the host cannot isolate it.
      packages: folders of the host to import from, such as a site-packages; it can read all that is in them.

    Raises:
      SandboxUnavailable: the host cannot isolate programs, and `allow_unsafe` is false.
      ValueError: the path of a file leads out of the folder.
    """
    process = launch(source, files, limits, isolation, allow_unsafe, packages)
    try:
        process.feed(stdin, last=True)
        return process.finish()
    finally:
        process.end()


def open_python(
    source: str,
    *,
    files: Mapping[str, bytes] = {},
    limits: Limits = Limits(),
    isolation: Isolation | None = None,
    allow_unsafe: bool = False,
    packages: Sequence[str | os.PathLike] = (),
) -> "Conversation":
    """Start a program as `run_python` does, to talk with it; arguments and exceptions are the same.

    The limits are for the whole conversation.
    """
    return Conversation(launch(source, files, limits, isolation, allow_unsafe, packages))


class Conversation:
    """Lines of bytes exchanged with a program that runs in a sandbox; a context manager, whose end is the program's."""

    def __init__(self, process: Process):
        """Talk with a process; `open_python` makes one."""
        self._process, self._read = process, 0

    def send(self, line: bytes) -> None:
        """Send a line, given without its end; lost where the program has ended."""
        self._process.feed(line + b"\n")

    def receive(self, seconds: float) -> bytes | None:
        """The program's next line, without its end.

        Args:
          seconds: how long to wait for it.

        Returns:
          The line; None where the time is up; b"" where no further line can come (an empty line looks the same).

        Raises:
          SandboxUnavailable: the program was never started, which says nothing about it.
        """
        output, until = self._process.output, time.monotonic() + seconds
        searched = self._read

        def found() -> bool:
            nonlocal searched
            searched, since = len(output), searched
            return output.find(b"\n", since) >= 0

        self._process.pump(lambda: found() or not self._process.speaks, until)
        end = output.find(b"\n", self._read)
        if end >= 0:
            line, self._read = bytes(output[self._read : end]), end + 1
            return line
        if self._process.speaks:
            return None
        if (run := self._process.finish()).status == "launch_failed":
            raise SandboxUnavailable(f"the sandbox did not start: {run.detail}")
        return b""

    def finish(self) -> Run:
        """Close the program's standard input, wait for its end, and say how it went."""
        self._process.feed(b"", last=True)
        return self._process.finish()

    def close(self) -> Run:
        """End the program with all it has started, if it runs, and say how it went."""
        return self._process.end()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def launch(source: str, files, limits: Limits, isolation: Isolation | None, allow_unsafe: bool, packages) -> Process:
    """Start a program; see `run_python`."""
    isolation = isolation or levels.require_isolation(allow_unsafe=allow_unsafe)
    if isolation.level == "none" and not allow_unsafe:
        raise SandboxUnavailable("no isolation was asked for; this needs allow_unsafe=True")
    content = {_relative(name): bytes(data) for name, data in files.items()}
    content[PROGRAM] = source.encode("utf-8", "surrogatepass")
    packages = tuple(map(os.path.abspath, packages))
    readable = runtime_paths(packages)
    order = make_order(content, readable, limits, isolation)
    order["environment"] = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(packages)}
    return Process(lambda control: levels.command(isolation, readable, control), order, isolation.depth, limits)


def _relative(name: str) -> str:
    path = os.path.normpath(name)
    if path == PROGRAM or os.path.isabs(path) or path.split(os.sep)[0] in ("..", ".") or "\0" in name:
        raise ValueError(f"files: {name!r} must be a relative path inside the folder, and not {PROGRAM}, the program")
    return path


def make_order(files: dict[str, bytes], readable: list[tuple[str, str]], limits: Limits, isolation: Isolation) -> dict:
    """What `inside.main` is told."""
    given = sum(len(content) + 4096 for content in files.values())
    scratch = os.path.join(tempfile.gettempdir(), f"r1jax-sandbox-{secrets.token_hex(8)}")
    return {
        "code": levels.inside_code(),
        "level": isolation.level,
        "identity": levels.pick_user(isolation),
        "readable": readable,
        "devices": DEVICES,
        "links": levels.links_to_folder(readable),
        "folder": scratch,
        "tmpfs_bytes": limits.file_bytes + given,
        "tmpfs_files": MAX_FILES + 2 * len(files),
        "files": files,
        "limits": resource_limits(limits, isolation, given),
        "filter": filter_program(processes=isolation.in_namespaces, metadata=isolation.in_namespaces),
        "wall_seconds": limits.wall_seconds + INSIDE_SLACK_SECONDS,
        "program": [interpreter(), "-s", "-S", "-c", START],
    }


def resource_limits(limits: Limits, isolation: Isolation, given: int) -> list[tuple[int, int]]:
    """What the kernel enforces on each process: (resource, value) pairs."""
    values = [
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(limits.cpu_seconds) + CPU_SLACK_SECONDS),
        (resource.RLIMIT_FSIZE, max(limits.file_bytes, given)),
        (resource.RLIMIT_NOFILE, limits.open_files),
        # With 0 the kernel would still start the host's handler of core dumps; 1 stops that too (core(5)).
        (resource.RLIMIT_CORE, 1),
    ]
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        values += [(resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_MSGQUEUE, 0), (resource.RLIMIT_NICE, 0)]
        values += [(resource.RLIMIT_RTPRIO, 0), (resource.RLIMIT_SIGPENDING, PENDING_SIGNALS)]
    if isolation.in_namespaces:  # elsewhere all processes of the user would count
        values.append((resource.RLIMIT_NPROC, limits.processes + (not isolation.as_root)))
    return values
