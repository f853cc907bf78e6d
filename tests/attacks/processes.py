"""Multiplying, staying behind, and reaching into other processes."""

from attacks.aims import LIBC, VICTIM, ends, escaped, escaped_unless_failed, escaped_unless_refused, system_call


def fork_without_end():
    """The fork bomb: many more than allowed would be an escape."""
    import os
    import time

    started = 0
    try:
        while started < 200:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            started += 1
        escaped(started)
    except OSError:
        pass


def fork_in_every_child():
    """The same, growing exponentially and never stopping; it is stopped."""
    import os

    while True:
        try:
            os.fork()
        except OSError:
            pass


def fork_behind_the_back_of_the_c_library():
    """clone, clone3, fork and vfork themselves."""
    import time

    started = 0
    for _ in range(100):
        for numbers in ((56, 220, 17, 0, 0, 0, 0), (57, None), (435, 435, bytes(32) + b"\x11" + bytes(55), 88)):
            found = system_call(*numbers)
            if found == 0:
                time.sleep(30)
                system_call(231, 94, 0)
            started += found > 0
    if started > 64:
        escaped(started)


def start_threads_without_end():
    """The thread bomb."""
    import threading
    import time

    started = 0
    try:
        while started < 5000:
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
            started += 1
        escaped(started)
    except RuntimeError:
        pass


def start_tiny_threads_without_end():
    """The same with stacks so small that memory does not end it."""
    import _thread
    import time

    _thread.stack_size(32768)
    started = 0
    try:
        while started < 5000:
            _thread.start_new_thread(time.sleep, (30,))
            started += 1
        escaped(started)
    except RuntimeError:
        pass


def leave_zombies():
    """Children that nobody waits for use up numbers."""
    import os

    try:
        for count in range(200):
            if os.fork() == 0:
                os._exit(0)
        escaped(count)
    except OSError:
        pass


def exec_without_end():
    """A new program image every few milliseconds."""
    import os
    import sys

    os.execv(sys.executable, [sys.executable, "-S", "main.py"])


def leave_a_daemon():
    """Double fork and a session of its own, holding the output open; the test looks for survivors."""
    import os
    import time

    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
    except OSError:
        pass


def leave_a_daemon_that_cannot_be_seen():
    """Without descriptors, deaf to signals, under another name."""
    import os
    import signal
    import time

    try:
        if os.fork() == 0:
            os.setsid()
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            if os.fork() == 0:
                LIBC.prctl(15, b"kworker/0:1")
                os.closerange(0, 64)
                time.sleep(600)
            os._exit(0)
    except OSError:
        pass


def leave_daemons_that_restart_each_other():
    """Two that watch each other."""
    import os
    import time

    def guard():
        while True:
            if os.fork() == 0:
                os.setsid()
                time.sleep(0.01)
                os._exit(0)
            os.wait()

    try:
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                guard()
    except OSError:
        pass


def outlive_the_parent():
    """Take back the wish to die with it, then lose it."""
    import os
    import time

    if LIBC.prctl(1, 0, 0, 0, 0) == 0:
        escaped("PR_SET_PDEATHSIG")
    LIBC.prctl(36, 1, 0, 0, 0)
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.kill(os.getppid(), 9)
    except OSError:
        pass


def trace_a_process_of_the_host():
    """ptrace: attach and seize."""
    for process in (VICTIM, 1, 2):
        for request in (16, 0x4206):
            escaped_unless_failed(101, 117, request, process, 0, 0)


def trace_the_parent():
    """The process that judges us is close."""
    import os

    escaped_unless_failed(101, 117, 16, os.getppid(), 0, 0)


def be_traced():
    """A tracer may change system calls after a filter has looked at them."""
    escaped_unless_failed(101, 117, 0, 0, 0, 0)


def read_the_memory_of_others():
    """process_vm_readv, and /proc/<pid>/mem."""
    import ctypes
    import os

    piece = (ctypes.c_ulong * 2)(ctypes.addressof(ctypes.create_string_buffer(64)), 64)
    for process in (VICTIM, os.getppid(), 1):
        escaped_unless_failed(310, 270, process, piece, 1, piece, 1, 0)
        escaped_unless_failed(311, 271, process, piece, 1, piece, 1, 0)
        escaped_unless_refused(lambda: open(f"/proc/{process}/mem", "rb"))


def take_descriptors_of_others():
    """pidfd_open and pidfd_getfd."""
    import os

    for process in (VICTIM, os.getppid(), 1, os.getpid()):
        escaped_unless_failed(434, 434, process, 0)
    escaped_unless_failed(438, 438, 0, 0, 0)


def slow_a_process_of_the_host():
    """Its priority, its processors, its scheduler, its limits."""
    import ctypes
    import os
    import resource

    escaped_unless_refused(lambda: os.setpriority(os.PRIO_PROCESS, VICTIM, 19))
    escaped_unless_refused(lambda: os.sched_setaffinity(VICTIM, {0}))
    escaped_unless_refused(lambda: os.sched_setscheduler(VICTIM, os.SCHED_IDLE, os.sched_param(0)))
    escaped_unless_failed(251, 30, 1, VICTIM, 3 << 13)
    escaped_unless_refused(lambda: os.setpriority(os.PRIO_USER, 0, 19))  # all processes of the user
    escaped_unless_failed(251, 30, 3, 0, 3 << 13)
    limit = ctypes.create_string_buffer(bytes(16))
    for process in (VICTIM, os.getppid()):
        escaped_unless_failed(302, 261, process, resource.RLIMIT_NOFILE, limit, None)


def see_the_processes_of_the_host():
    """/proc, if it is the host's."""
    import os

    for name in ("status", "cmdline", "stat", "maps", "environ", "fd", "task"):
        for process in (VICTIM, os.getppid(), 1):
            escaped_unless_refused(lambda: os.listdir(f"/proc/{process}") or open(f"/proc/{process}/{name}"))


def run_a_shell():
    """/bin/sh, and what it could do."""
    import os
    import subprocess

    escaped_unless_refused(lambda: subprocess.run(["/bin/sh", "-c", "echo ESCAPED"], check=True, timeout=5))
    escaped_unless_refused(lambda: subprocess.run(["/usr/bin/env"], check=True, timeout=5))
    try:
        os.system("echo ESCAPED")
    except OSError:
        pass


def run_a_program_of_its_own():
    """Machine code from a file it has written, or from memory."""
    import os
    import subprocess

    code = b"#!/proc/self/exe -c\nprint('ESCAPED')\n"
    try:
        with open("program", "wb") as file:
            file.write(code)
        os.chmod("program", 0o755)
        subprocess.run(["./program"], timeout=5)
    except OSError:
        pass
    memory = system_call(319, 279, b"program", 0)
    if memory >= 0:
        escaped("memfd_create")


def start_another_interpreter():
    """A child is as confined as its parent."""
    import subprocess
    import sys

    attempt = "import socket, os\ntry: socket.socket()\nexcept OSError: raise SystemExit(7)"
    try:
        if subprocess.run([sys.executable, "-S", "-c", attempt], timeout=10).returncode == 0:
            escaped()
    except OSError:
        pass


@ends("cpu", "timeout", "signal")
def compute_in_many_processes():
    """Each below its own limit of processor time; their sum is what counts."""
    import os

    try:
        for _ in range(7):
            if os.fork() == 0:
                break
    except OSError:
        pass
    while True:
        pass


def raise_the_limits():
    """What it was given, it may not widen."""
    import resource

    for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK", "MSGQUEUE"):
        limit = getattr(resource, f"RLIMIT_{name}")
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            escaped(name)
        except (OSError, ValueError):
            pass
