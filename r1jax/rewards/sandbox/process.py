"""A sandboxed process seen from the host: launched, fed, read, watched, and ended together with all it has started."""

import marshal
import math
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from r1jax.rewards.sandbox.limits import Limits, Run, Status
from r1jax.rewards.sandbox.tree import Seen, usage_below

CHUNK = 1 << 16
LOOK_SECONDS = 0.05  # between looks at what the tree uses; most runs are over before the first
LAUNCH_SECONDS = 30.0  # for a busy host to start a program; its own time begins then
CLOSING_SECONDS = 2.0  # for the pipes to close after the program's end
KILL_SECONDS = 5.0  # for the inside to take everything down, before it is taken down from outside


class Process:
    """One sandbox from its launch to its end; for one thread at a time.

    The host and the first process inside hold the two ends of a socket. The order goes down and the report comes up;
    where either end closes, by intent or because its process was killed, everything inside ends.
    """

    def __init__(self, command: Callable[[int], list[str]], order: dict, depth: int, limits: Limits):
        """Launch; where that fails, `end` says so.

        Args:
          command: what to run, given the descriptor of the socket's other end.
          order: for the inside.
          depth: generations from the launched process to the untrusted program.
          limits: the kernel enforces some of them inside; this enforces the others, and those of the whole tree.
        """
        self.output, self._errors, self._report = bytearray(), bytearray(), bytearray()
        self._input, self._input_ends = bytearray(), False
        self._limits, self._depth, self._began = limits, depth, time.monotonic()
        self._deadline, self._next_look = self._began + LAUNCH_SECONDS, self._began + LOOK_SECONDS
        self._seen: Seen = {}
        self._stopped: tuple[Status, str] | None = None
        self._run: Run | None = None
        self._process: subprocess.Popen | None = None
        self._selector = selectors.PollSelector()
        self._control, inside = socket.socketpair()
        try:
            with inside:
                self._launch(command(inside.fileno()), inside.fileno())
            self._control.settimeout(LAUNCH_SECONDS)
            self._control.sendall(marshal.dumps(order))
        except TimeoutError:
            self._stop_late()
        except OSError as error:
            if self._process is None:
                self._stop("launch_failed", str(error))
        except BaseException:
            self.end()
            raise
        self._control.setblocking(False)

    def _launch(self, command: list[str], control: int) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env={}, cwd="/", pass_fds=(control,),
            start_new_session=True,
        )  # fmt: skip
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            os.set_blocking(stream.fileno(), False)
        self._selector.register(self._process.stdout, selectors.EVENT_READ, self.output)
        self._selector.register(self._process.stderr, selectors.EVENT_READ, self._errors)
        self._selector.register(self._control, selectors.EVENT_READ, self._report)

    @property
    def speaks(self) -> bool:
        """Whether more output may come."""
        return self._process is not None and not self._process.stdout.closed and not self._stopped

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Append to the program's standard input, and close it after the last; lost where the program does not read."""
        if self._process is None or self._process.stdin.closed:
            return
        self._input += data
        self._input_ends = self._input_ends or last
        if (self._input or last) and self._process.stdin not in self._selector.get_map():
            self._selector.register(self._process.stdin, selectors.EVENT_WRITE, self._input)

    def pump(self, done: Callable[[], bool], until: float) -> None:
        """Move bytes until something is done, a time of the monotonic clock, a limit, or the end of all pipes."""
        while not done() and not self._stopped and self._selector.get_map():
            now = time.monotonic()
            if now >= self._deadline:
                self._stop_late()
            elif now >= until:
                return
            elif now >= self._next_look:
                self._look(now)
            else:
                for key, _ in self._selector.select(min(self._deadline, self._next_look, until) - now):
                    self._write() if key.data is self._input else self._read(key.fileobj, key.data)

    def _write(self) -> None:
        stdin = self._process.stdin
        try:
            del self._input[: os.write(stdin.fileno(), self._input[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self._input.clear()
            self._input_ends = True
        if not self._input:
            self._selector.unregister(stdin)
            if self._input_ends:
                stdin.close()

    def _read(self, source, inbox: bytearray) -> None:
        try:
            data = os.read(source.fileno(), CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(source)
            source.close()
        if inbox is self._report and not inbox:
            self._deadline = time.monotonic() + self._limits.wall_seconds
        inbox += data
        if inbox is not self._report and len(inbox) > self._limits.output_bytes:
            del inbox[self._limits.output_bytes :]
            self._stop("output", f"printed more than {self._limits.output_bytes} bytes")

    def _look(self, now: float) -> None:
        """Stop a tree that uses too much; the kernel's own limits are for single processes."""
        used, limits = usage_below(self._process.pid, self._depth, self._seen), self._limits
        if used.resident_bytes > limits.memory_bytes:
            self._stop("memory", f"used {used.resident_bytes >> 20} MiB, {limits.memory_bytes >> 20} are allowed")
        elif used.cpu_seconds > limits.cpu_seconds:
            self._stop("cpu", f"used {used.cpu_seconds:.1f} s of processor time, {limits.cpu_seconds:g} are allowed")
        elif used.tasks > limits.processes:
            self._stop("signal", f"ran {used.tasks} processes and threads at a time, {limits.processes} are allowed")
        self._next_look = max(now + LOOK_SECONDS, time.monotonic() + LOOK_SECONDS / 2)

    def _stop_late(self) -> None:
        if self._report:
            self._stop("timeout", f"ran for more than {self._limits.wall_seconds:g} s")
        else:
            self._stop("launch_failed", f"the sandbox did not start within {LAUNCH_SECONDS:g} s")

    def _stop(self, status: Status, detail: str) -> None:
        self._stopped = self._stopped or (status, detail)

    @property
    def _told(self) -> str:
        """The last word of the inside, "" before it."""
        lines = [line for line in self._report.decode(errors="replace").splitlines() if line != "started"]
        return next((line for line in lines if line.startswith("failed")), lines[0] if lines else "")

    def _is_over(self) -> bool:
        return self._control.fileno() < 0 or bool(self._told)

    def finish(self) -> Run:
        """Wait for the end of the program, within the limits."""
        self.pump(self._is_over, math.inf)
        self.pump(lambda: False, time.monotonic() + CLOSING_SECONDS)
        return self.end()

    def end(self) -> Run:
        """Kill what still runs, wait until it is gone, and say how it went; the same again whenever it is called."""
        if self._run is None:
            if self._process and not self._is_over():
                self._stop("signal", "ended by the caller")
            self._hang_up()
            self._selector.close()
            if self._process:
                self._bury(self._process)
            self._run = self._judge(time.monotonic() - self._began)
        return self._run

    def _hang_up(self) -> None:
        try:
            self._control.shutdown(socket.SHUT_RDWR)  # for a copy in a child that the caller has forked, too
        except OSError:  # already gone
            pass
        self._control.close()

    @staticmethod
    def _bury(process: subprocess.Popen) -> None:
        try:
            process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()

    def _judge(self, seconds: float) -> Run:
        """How it went, from what stopped it or what the inside has reported."""
        stdout, stderr = bytes(self.output), bytes(self._errors)
        result = lambda status, code, detail="": Run(status, code, stdout, stderr, seconds, detail)
        word, _, rest = self._told.partition(" ")
        if word == "failed":
            return result("launch_failed", None, rest)
        if self._stopped:
            return result(self._stopped[0], None, self._stopped[1])
        if not self._report.startswith(b"started\n"):
            return result("launch_failed", None, stderr.decode(errors="replace").strip()[-500:] or "it did not start")
        if word != "ended":
            return (
                result("timeout", None, "ended by the inside")
                if word
                else result("signal", -signal.SIGKILL, "all was killed")
            )
        code, cpu_seconds = int(rest.split()[0]), float(rest.split()[1])
        exhausted = cpu_seconds > self._limits.cpu_seconds - 0.1
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and exhausted):
            return result("cpu", None, f"used {cpu_seconds:.1f} s of processor time")
        if code < 0:
            return result("signal", code, f"killed by signal {-code}")
        if code and stderr.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
            return result("memory", code, "ran out of memory")
        return result("nonzero" if code else "ok", code)
