"""The processes in which a pool judges: a keeper, which ends everything below it, and the worker under it.

The keeper is started from scratch (never forked from a process that holds JAX's threads, and without importing the
caller's `__main__`), forks the worker while it is still single-threaded, and then only waits. It adopts what the
worker leaves behind, so that when the worker or the pool is gone, all that the judges have started goes too: servers,
sandboxes, daemons in sessions of their own. It never runs a judge, so it answers while the worker is stuck in C.

The pool holds the keeper's standard input (closed, or closed by the pool's death: end everything) and its standard
output (closed: everything has ended). Work goes down a socket to the worker as pickles and comes up as lines of JSON:
the pool never unpickles what a worker says. Linux; elsewhere nothing is adopted, and only the process group is ended.
"""

import ctypes
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import Judge, describe_exception, verdict

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KEEPER_POLL = 1.0  # seconds; only to notice the pool's death where a stray process holds our standard input open

Key = Callable[[dict, str], Hashable]


class Duty(NamedTuple):
    """What a worker is told first."""

    judges: Mapping[str, Judge]
    keys: Mapping[str, Key]
    warm_up: tuple[tuple[dict, str], ...]
    cache_size: int


def keep(channel_fd: int) -> None:
    """Run a worker on the socket `channel_fd` until it or the pool ends; end everything below; die as it died."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of a judge is no reason to fill the disk
    for number in (signal.SIGINT, signal.SIGTERM):  # the pool decides; a handler, because SIG_IGN outlives exec
        signal.signal(number, _ignore)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    pool, keeper = os.getppid(), os.getpid()
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    worker = os.fork()
    if not worker:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.close(hear), os.close(tell)
        _work(channel_fd, keeper)
    os.close(channel_fd)
    _die_as(_watch(worker, pool, hear))


def _watch(worker: int, pool: int, hear: int) -> int:
    """Wait for the end of the worker or of the pool, end everything below; the worker's wait status."""
    status = 0
    while os.getppid() == pool:
        ready, _, _ = select.select([0, hear], [], [], KEEPER_POLL)
        if 0 in ready:
            break
        if hear in ready:
            os.read(hear, 4096)
        ended = _reap()
        if worker in ended:
            status = ended[worker]
            break
    _end_everything_below()
    return status


def _reap() -> dict[int, int]:
    """Collect the children that have ended, adopted ones too: process id -> wait status."""
    ended = {}
    try:
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    except ChildProcessError:
        pass
    return ended


def _end_everything_below() -> None:
    """Kill every descendant; the children of the killed become ours and are killed in the next round."""
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)
    while True:
        for process in descendants(os.getpid()):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def descendants(ancestor: int) -> set[int]:
    """Process ids below `ancestor`, from /proc."""
    children: dict[int, list[int]] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it has ended
        children.setdefault(parent, []).append(int(process))
    found, open_ = set(), [ancestor]
    while open_:
        below = [child for child in children.get(open_.pop(), ()) if child not in found]
        found.update(below)
        open_ += below
    return found


def _die_as(status: int) -> None:
    """End this process with a wait status, so that the pool sees how the worker ended."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _work(channel_fd: int, keeper: int) -> None:
    """The worker: judge what comes down the socket until it is closed; never returns."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # judges that print must neither fill a pipe nor keep one open
        os.dup2(nowhere, standard)
    with socket.socket(fileno=channel_fd) as channel, channel.makefile("rb") as orders:
        say = lambda value: channel.sendall(json.dumps(value).encode() + b"\n")
        try:
            call = _prepare(pickle.load(orders))
        except BaseException as raised:
            say({"failed": describe_exception(raised)})
            os._exit(0)
        say({"ready": os.getpid()})
        try:
            while True:
                for name, record, completion in pickle.load(orders):
                    say(call(name, record, completion))
        except (EOFError, OSError):
            os._exit(0)


def _prepare(duty: Duty) -> Callable[[str, dict, str], Judgement]:
    """Judge by name, remembering verdicts by key; the failures "timeout" and "error" are never remembered."""
    remembered: dict[Hashable, Judgement] = {}

    def recall(name: str, record: dict, completion: str) -> Judgement:
        judge, key_of = duty.judges[name], duty.keys.get(name)
        key = key_of and key_of(record, completion)
        if key is None:
            return judge(record, completion)
        if (name, key) in remembered:
            remembered[name, key] = found = remembered.pop((name, key))  # the least recently used comes first
            return found
        found = verdict(judge, record, completion, catch=BaseException)
        if found.outcome not in ("timeout", "error"):
            remembered[name, key] = found
            if len(remembered) > duty.cache_size:
                del remembered[next(iter(remembered))]
        return found

    def call(name: str, record: dict, completion: str) -> Judgement:
        return verdict(lambda *item: recall(name, *item), record, completion, catch=BaseException)

    for record, completion in duty.warm_up:
        for name in duty.judges:
            call(name, record, completion)
    return call


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _ignore(*_) -> None:
    pass
