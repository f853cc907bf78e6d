"""The symbolic tier: sympy in a child process that is killed when it takes too long."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

SECONDS = 1.2
"""For one comparison, waiting for the child's start included."""
MAX_CHARACTERS = 300
MAX_DIGITS = 12  # in a row
MAX_NESTING = 10
GRACE = 0.3  # seconds the child gets to say that it has run out of time

Verdict = Literal[
    "same", "different", "gold unreadable", "answer unreadable", "answer over budget", "timeout", "not ready"
]


class Solver:
    """The child process: a line of JSON to its standard input is answered by a line on its standard output."""

    def __init__(self):
        script = Path(__file__).with_name("solver.py")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        self.owner, self.ready = os.getpid(), False

    def read_line(self, deadline: float) -> bytes | None:
        """The next line; b"" where the child has ended, None where the deadline passed."""
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            poll = select.poll()  # not select.select, which fails with many open files
            poll.register(self.process.stdout, select.POLLIN)
            if left <= 0 or not poll.poll(left * 1000):
                return None
            received = os.read(self.process.stdout.fileno(), 4096)
            if not received:
                return b""
            line += received
        return line

    def kill(self) -> None:
        """End the child and free its pipes."""
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Free this process's ends of the pipes."""
        self.process.stdin.close()
        self.process.stdout.close()


_LOCK = threading.Lock()
_KEPT: list[Solver] = []  # at most one


def same_expression(gold: str, answer: str, seconds: float = SECONDS) -> Verdict:
    """Whether two LaTeX expressions are equal for sympy.

    Works from any thread and in daemonic processes. The child starts at the first call, is kept for the next ones, dies
    with its parent, and works on every question in a process that it kills at the deadline: no alarm would reach sympy
    inside a loop written in C.

    Returns:
      "answer over budget" where the answer took more processor time than it may, or brought the child down; "timeout"
      where the child missed the deadline otherwise, as on a busy machine; "not ready" where it was still starting or at
      work for another thread.
    """
    if not within_budget(gold):
        return "gold unreadable"
    if not within_budget(answer):
        return "answer over budget"
    return ask({"gold": gold, "answer": answer}, seconds)


def readable(text: str, seconds: float = 10.0) -> bool:
    """Whether sympy reads and evaluates an expression; waits longer, since this is asked once, when data are loaded."""
    return within_budget(text) and ask({"gold": text, "answer": text}, seconds) == "same"


def within_budget(text: str) -> bool:
    """Whether an expression is small enough to be handed to sympy: length, nesting, digits, and no tower of powers."""
    if len(text) > MAX_CHARACTERS or text.count("^") > 8 or text.count("!") > 2:
        return False
    depth = deepest = digits = 0
    exponents = []  # depths at which an exponent is open
    for place, character in enumerate(text):
        digits = digits + 1 if character.isdigit() else 0
        opened, closed = character in "{([", character in "})]"
        if opened:
            depth += 1
            if text[:place].rstrip().endswith("^"):
                exponents.append(depth)
        if character == "^" and (len(exponents) > 1):
            return False
        if closed:
            if exponents and exponents[-1] == depth:
                exponents.pop()
            depth -= 1
        deepest = max(deepest, depth)
        if digits > MAX_DIGITS or deepest > MAX_NESTING or (exponents and digits > 4):
            return False
    return True


def ask(question: dict, seconds: float) -> Verdict:
    """Send a question to the child, started if need be, and wait for its answer.

    Raises:
      RuntimeError: the child cannot start, as where sympy is not installed.
    """
    deadline = time.monotonic() + seconds
    if not _LOCK.acquire(timeout=seconds):
        return "not ready"
    try:
        solver = kept_solver()
        if not solver.ready:
            line = solver.read_line(deadline)
            if line == b"":
                stop()
                raise RuntimeError("the symbolic tier cannot start: are sympy and math-verify installed?")
            if line is None:
                return "not ready"
            solver.ready = True
        left = deadline - time.monotonic()
        if left < seconds / 2:  # the child's start took the time of this question
            return "not ready"
        os.write(solver.process.stdin.fileno(), json.dumps(question | {"seconds": left}).encode() + b"\n")
        line = solver.read_line(deadline + GRACE)
        if line:
            return json.loads(line)
        stop()  # it ends its work by itself in time, unless the machine stands still
        return "timeout"
    except BrokenPipeError:  # it has died since the last question
        stop()
        return "not ready"
    finally:
        _LOCK.release()


def kept_solver() -> Solver:
    """This process's child. One inherited through a fork belongs to the parent and is left alone."""
    if _KEPT and (_KEPT[0].process.poll() is not None or _KEPT[0].owner != os.getpid()):
        _KEPT.pop().close()
    if not _KEPT:
        _KEPT.append(Solver())
    return _KEPT[0]


def stop() -> None:
    """End this process's child, if it has one."""
    while _KEPT:
        solver = _KEPT.pop()
        if solver.owner == os.getpid():
            solver.kill()
        else:
            solver.process.poll()  # marks it as ended for this process, which is no parent of it
            solver.close()


def renew_lock() -> None:
    """A fork may happen while another thread holds the lock; the child process of the fork needs a free one."""
    global _LOCK
    _LOCK = threading.Lock()


atexit.register(stop)
os.register_at_fork(after_in_child=renew_lock)
