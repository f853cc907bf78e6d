"""Which of the host's files a Python interpreter needs to run: the only ones that a sandboxed program can see."""

import functools
import os
import sys
import sysconfig

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")


def interpreter() -> str:
    """The real path of the interpreter below any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def runtime_paths(extra: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What to show inside: (the real path on the host, the path inside), parents before their children.

    The system's libraries, the interpreter and the folder of its standard library, wherever it was installed (a
    system's package, pyenv, conda, uv); a path with a symbolic link in it is shown under both names.

    Args:
      extra: absolute paths of more files and folders of the host.
    """
    libraries = [os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    wanted = [*SYSTEM_LIBRARIES, *libraries, sysconfig.get_path("stdlib"), interpreter()]
    if sys.base_prefix.startswith("/nix/"):
        wanted.append("/nix/store")
    wanted += extra
    wanted += [os.path.realpath(path) for path in wanted]
    shown: dict[str, str] = {}
    for path in sorted(filter(os.path.exists, wanted)):
        source = os.path.realpath(path)
        if not any(source == os.path.join(shown[above], path[len(above) + 1 :]) for above in _parents(path, shown)):
            shown[path] = source
    return [(source, path) for path, source in shown.items()]


def _parents(path: str, shown: dict[str, str]) -> list[str]:
    return [above for above in shown if path == above or path.startswith(f"{above}/")]


def is_open_to_all(path: str) -> bool:
    """Whether every user may read and execute a file, as far as modes say."""
    while path != "/":
        if os.stat(path).st_mode & 0o005 != 0o005:
            return False
        path = os.path.dirname(path)
    return True
