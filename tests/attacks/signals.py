"""Signals: killing what watches, and not dying oneself."""

from attacks.aims import LIBC, VICTIM, ends, escaped, escaped_unless_failed


def kill_everything():
    """kill(-1) reaches all processes it may."""
    import os

    try:
        os.kill(-1, 9)
    except OSError:
        pass


def kill_a_process_of_the_host():
    """With any signal, by kill, tgkill and rt_sigqueueinfo; 0 only asks."""
    import ctypes
    import os

    for signal in (9, 15, 19, 0):
        try:
            os.kill(VICTIM, signal)
            escaped(signal)
        except OSError:
            pass
    escaped_unless_failed(234, 131, VICTIM, VICTIM, 9)
    escaped_unless_failed(
        129, 138, VICTIM, 9, ctypes.create_string_buffer(b"\x09\0\0\0\0\0\0\0\xff\xff\xff\xff" + bytes(116))
    )


@ends("ok", "signal", "nonzero")
def kill_the_parent():
    """And whatever is above it, so that nobody is left to enforce the limits."""
    import os

    for process in (os.getppid(), 1, 2):
        for signal in (9, 15, 2, 1, 6, 11):
            if process != os.getpid():
                try:
                    os.kill(process, signal)
                except OSError:
                    pass


@ends("timeout")
def stop_the_parent():
    """A watcher that sleeps does not kill."""
    import os
    import time

    for process in (os.getppid(), 1):
        for signal in (19, 20, 21):
            try:
                os.kill(process, signal)
            except OSError:
                pass
    time.sleep(600)


@ends("timeout")
def stop_itself():
    """A stopped process neither computes nor ends."""
    import os

    os.kill(os.getpid(), 19)


@ends("timeout")
def ignore_every_signal():
    """All that can be ignored."""
    import signal
    import time

    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        time.sleep(1)


@ends("cpu")
def ignore_the_limit_of_processor_time():
    """SIGXCPU is a question; the answer is no."""
    import signal

    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


@ends("timeout")
def block_every_signal():
    """And sleep in a system call."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        signal.sigwait([signal.SIGUSR1])


def flood_the_parent_with_child_signals():
    """The first process listens to SIGCHLD: send many."""
    import os

    for _ in range(20000):
        try:
            os.kill(os.getppid(), 17)
        except OSError:
            break


def have_the_kernel_signal_others():
    """F_SETOWN: whom the kernel signals when a pipe becomes readable."""
    import fcntl
    import os

    hear, tell = os.pipe()
    try:
        fcntl.fcntl(hear, 10, 9)
        fcntl.fcntl(hear, 8, VICTIM)
        fcntl.fcntl(hear, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(tell, b"x")
    except OSError:
        pass


def die_of_a_signal_that_dumps_core():
    """A dump is a file, or a program that the host starts as root."""
    import os
    import resource

    for value in (0, 1 << 30):
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (value, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            escaped(value)
        except (OSError, ValueError):
            pass
    os.abort()


def join_the_process_group_of_others():
    """Signals go to groups."""
    import os

    for group in (os.getppid(), VICTIM, 1):
        try:
            os.setpgid(0, group)
            escaped(group)
        except OSError:
            pass
    try:
        os.killpg(VICTIM, 9)
        escaped()
    except OSError:
        pass


@ends("timeout")
def ask_for_death_by_alarm():
    """Timers of all kinds, handled by doing nothing."""
    import signal
    import time

    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    LIBC.alarm(1)
    while True:
        time.sleep(0.5)


def type_into_the_terminal():
    """TIOCSTI and TIOCLINUX put characters into the input of a terminal."""
    import fcntl

    for number in range(3):
        for request in (0x5412, 0x541C):
            try:
                fcntl.ioctl(number, request, b"x")
                escaped(number)
            except OSError:
                pass
