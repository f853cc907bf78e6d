"""The pool's side of one worker: start it, send it calls, hear its verdicts, end it."""

import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

from r1jax.rewards.ticket import Call

GRACE_SECONDS = 5.0  # a keeper ends everything below it within milliseconds

START = "import sys; sys.path[:] = {path!r}; from r1jax.rewards.worker import keep; keep({fd})"

# Many small processes: no pool of BLAS threads each, and not the allocator that r1jax.launch sets for XLA.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
FOREIGN = ("GLIBC_TUNABLES",)


class WorkerHandle:
    """A worker under its keeper, the calls it has been sent, and when it must next have spoken."""

    def __init__(self, duty: bytes, *, deadline: float):
        self.calls: deque[Call] = deque()
        self.ready, self.deaf, self.deadline = False, False, deadline
        self.since, self.pace = 0.0, 0.0  # when it last spoke or began, and seconds a verdict before that
        self._heard, self._unsent, self._dismissed = b"", memoryview(b""), float("inf")
        self.channel, theirs = socket.socketpair()
        with theirs:
            code = START.format(path=[str(place) for place in sys.path], fd=theirs.fileno())
            environment = {k: v for k, v in os.environ.items() if k not in FOREIGN} | ENVIRONMENT
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                pass_fds=[theirs.fileno()], start_new_session=True, env=environment,
            )  # fmt: skip
        self.channel.setblocking(False)  # a worker that is stopped or stuck must not hold up the pool
        self._unsent = memoryview(duty)

    @property
    def events(self) -> int:
        """What to wait for on the channel."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def assign(self, calls: Sequence[Call]) -> None:
        """Add calls to those of the worker; they are sent by `flush`.

        Raises:
          Exception: whatever pickling a record raises; nothing is assigned then.
        """
        orders = pickle.dumps([(call.name, call.record, call.completion) for call in calls])
        self.calls.extend(calls)
        self._unsent = memoryview(bytes(self._unsent) + orders)

    def flush(self) -> None:
        """Send as much as the worker takes."""
        try:
            self._unsent = self._unsent[self.channel.send(self._unsent) :] if self._unsent else self._unsent
        except BlockingIOError:
            pass
        except OSError:  # it has ended, and its keeper will say so
            self._unsent = memoryview(b"")

    def hear(self, *, rest: bool) -> list:
        """What the worker has said since, a JSON value a line; None for a line that is not JSON.

        Args:
          rest: the worker is gone; take all that is left, without waiting.
        """
        try:
            while data := self.channel.recv(1 << 16):
                self._heard += data
                if not rest:
                    break
            self.deaf = not data
        except BlockingIOError:
            pass
        except OSError:
            self.deaf = True
        *lines, self._heard = self._heard.split(b"\n")
        return [_parse(line) for line in lines]

    def last_words(self) -> tuple[int, str]:
        """Exit code and description of a worker that has ended; negative is a signal."""
        code = self.process.wait()
        if code >= 0:
            return code, f"exited with code {code}"
        return code, f"was killed by {signal.Signals(-code).name}"

    def dismiss(self) -> None:
        """Tell the keeper to end everything below it, without waiting for that."""
        self._dismissed = time.monotonic()
        self.process.stdin.close()
        self.channel.close()

    def gone(self) -> bool:
        """Whether everything has ended after `dismiss`; a keeper that does not answer is killed."""
        if self.process.poll() is None and time.monotonic() - self._dismissed > GRACE_SECONDS:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.poll() is not None:
            self.process.stdout.close()
        return self.process.poll() is not None

    def bury(self) -> None:
        """Wait until everything has ended after `dismiss`; not for ever, where the kernel cannot end a process."""
        while not self.gone() and time.monotonic() - self._dismissed < 2 * GRACE_SECONDS:
            time.sleep(0.002)


def _parse(line: bytes):
    try:
        return json.loads(line)
    except ValueError:
        return None
