"""Judging in worker processes that can be killed: a call that hangs or crashes costs that call and nothing else."""

import pickle
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from r1jax.rewards.handle import WorkerHandle
from r1jax.rewards.judgement import OUTCOMES, Judgement
from r1jax.rewards.ticket import Call, PoolError, Ticket
from r1jax.rewards.verdict import Judge, describe_exception, error
from r1jax.rewards.worker import Duty, Key

MAX_CHUNK = 64  # calls given at a time; the last calls of a queue go out one by one, so that no worker idles
FEW_CALLS, LONGEST_NAP = 4, 0.02  # seconds; no nap while a worker has no more calls than that
MAX_FAILED_STARTS = 20  # in a row; an operator's kill may hit a worker that is starting, more is a fault
RETRIES, RETRIES_AFTER_KILL = 1, 3
KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
NEVER = float("inf")
MODULES_ONLY = (
    "judges must be functions of modules that another process can import, not of a notebook or of the running script"
)


class RewardPool:
    """Judges completions in worker processes, in the background, with a deadline for every call.

    Every call of a judge gets exactly one verdict, whatever happens to workers:
    - a call that takes longer than `timeout` is killed, with all it has started, and is a "timeout";
    - a call that raises, or returns anything but a proper Judgement, is an "error" with the reason;
    - a call whose worker dies is judged again by another worker: once after a crash, three times where the worker was
      killed from outside (SIGKILL, SIGTERM: an operator, or the kernel short of memory); then it is an "error".
    The other calls that were waiting for a lost worker are judged by another one.

    Workers are fresh interpreters that import neither jax nor the caller's `__main__`; judges must be functions of
    modules. They end with the pool, also where the process that holds it is killed. A pool has no name, port or file:
    on several hosts each process makes its own. Use it as a context manager; leaving it ends what is still running.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        *,
        workers: int,
        timeout: float,
        keys: Mapping[str, Key] | None = None,
        cache_size: int = 10_000,
        max_pending: int = 65_536,
        warm_up: Iterable[tuple[dict, str]] = (),
        start_timeout: float = 120.0,
    ):
        """Start the workers and wait until the first is ready.

        Args:
          judges: name -> (record, completion) -> Judgement.
          workers: processes.
          timeout: seconds a call may take, from when the worker can begin it.
          keys: name -> (record, completion) -> what the verdict depends on, such as (gold, final answer). Calls of
            that judge with a key met before get the verdict given then, unless it was "timeout" or "error". Keys are
            computed and remembered by each worker, within the call's deadline; None means: do not remember.
          cache_size: verdicts that a worker remembers; the least recently used is forgotten first.
          max_pending: calls that may be waiting; `submit` blocks where a batch would exceed it and others wait.
          warm_up: (record, completion) pairs that every worker judges before its first call, without a deadline, so
            that what judges import late does not count against the first calls.
          start_timeout: seconds a worker may take to be ready.

        Raises:
          PoolError: a worker cannot start or cannot import the judges.
          ValueError: a number is out of range, or a key has no judge.
        """
        self._judges, self._keys = dict(judges), dict(keys or {})
        if not self._judges or workers < 1 or not timeout > 0 or cache_size < 1 or max_pending < 1:
            raise ValueError("a pool needs a judge, a worker, and timeout, cache_size and max_pending above 0")
        if strange := self._keys.keys() - self._judges.keys():
            raise ValueError(f"keys for {', '.join(sorted(strange))}, but the judges are {', '.join(self._judges)}")
        duty = Duty(self._judges, self._keys, tuple(warm_up), cache_size)
        try:
            self._duty = pickle.dumps(duty)
        except Exception as raised:
            raise PoolError(f"the judges cannot be pickled ({raised}); {MODULES_ONLY}") from raised
        self._count, self._timeout, self._start_timeout = workers, timeout, start_timeout
        self._max_pending, self._pending, self._queue = max_pending, 0, deque[Call]()
        self._tickets: set[Ticket] = set()
        self._lock = threading.Condition()  # guards the queue, the count, the tickets and the way the pool ended
        self._ended: PoolError | None = None
        self._ready = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = socket.socketpair()  # wakes the dispatcher
        self._workers: list[WorkerHandle] = []
        self._leaving: list[WorkerHandle] = []
        self._failed_starts = 0
        self._thread = threading.Thread(target=self._dispatch, name="r1jax-reward-pool", daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            self.close()
            raise
        if self._ended:
            self._thread.join()
            raise self._ended

    def submit(self, records: Sequence[dict], completions: Sequence[str]) -> Ticket:
        """Begin to judge completions, one a record, by every judge; returns at once unless too much is waiting.

        Raises:
          ValueError: not one completion a record.
          PoolError: the pool is closed or broken.
        """
        pairs = list(zip(records, completions, strict=True))
        ticket = Ticket(tuple(self._judges), len(pairs))
        calls = [Call(ticket, i, n, r, c) for i, (r, c) in enumerate(pairs) for n in self._judges]
        with self._lock:
            room = lambda: self._ended or not self._pending or self._pending + len(calls) <= self._max_pending
            self._lock.wait_for(room)
            if self._ended:
                raise self._ended
            if not calls:
                return ticket
            self._pending += len(calls)
            self._queue.extend(calls)
            self._tickets.add(ticket)
        self._wake()
        return ticket

    def judge(self, records: Sequence[dict], completions: Sequence[str]) -> list[dict[str, Judgement]]:
        """The verdicts of every judge on completions, one a record, in order; see `submit` for what it raises."""
        return self.submit(records, completions).result()

    def close(self) -> None:
        """End the workers and everything they have started; tickets that are not finished raise PoolError."""
        self._end(PoolError("the reward pool was closed"))
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _end(self, why: PoolError) -> None:
        with self._lock:
            self._ended = self._ended or why
            for ticket in self._tickets:
                ticket.abandon(self._ended)
            self._tickets.clear()
            self._queue.clear()
            self._lock.notify_all()
        self._ready.set()
        self._wake()

    def _wake(self) -> None:
        try:
            self._ring.send(b"!", socket.MSG_DONTWAIT)
        except OSError:  # the dispatcher has many calls waiting for it, or has ended
            pass

    # What follows runs in the dispatcher's thread, which alone touches workers.

    def _dispatch(self) -> None:
        self._selector.register(self._bell, selectors.EVENT_READ)
        why = PoolError("the reward pool was closed")
        try:
            while not self._ended:
                self._hire()
                self._hand_out()
                self._nap()
                for key, events in self._selector.select(self._patience()):
                    if key.data is None:
                        self._bell.recv(4096)
                    elif key.data in self._workers and events & selectors.EVENT_READ:
                        self._attend(key.data, gone=key.fileobj is key.data.process.stdout)
                self._flush()
                now = time.monotonic()
                for worker in [worker for worker in self._workers if now > worker.deadline]:
                    self._overdue(worker)
                self._leaving = [worker for worker in self._leaving if not worker.gone()]
        except PoolError as broken:
            why = broken
        except BaseException as raised:
            why = PoolError(f"the reward pool broke down: {raised!r}")
        finally:
            self._end(why)
            for worker in list(self._workers):
                self._dismiss(worker)
            for worker in self._leaving:
                worker.bury()
            for resource in (self._selector, self._bell, self._ring):
                resource.close()

    def _nap(self) -> None:
        """While all workers are provided for, let verdicts gather: waking up for each costs more than taking it."""
        if min((len(worker.calls) for worker in self._workers), default=0) > FEW_CALLS:
            provided = min(worker.pace * len(worker.calls) for worker in self._workers)
            time.sleep(min(provided / 4, LONGEST_NAP))

    def _patience(self) -> float | None:
        """Seconds until a deadline, or until those that leave should be looked after; None for ever."""
        until = min((worker.deadline for worker in self._workers), default=NEVER)
        wait = min(until - time.monotonic(), 0.05 if self._leaving else NEVER)
        return max(0.0, wait) if wait < NEVER else None

    def _hire(self) -> None:
        while len(self._workers) < self._count and (self._queue or not self._ready.is_set()):
            worker = WorkerHandle(self._duty, deadline=time.monotonic() + self._start_timeout)
            self._workers.append(worker)
            self._selector.register(worker.channel, worker.events, worker)
            self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def _hand_out(self) -> None:
        """Give calls to workers that are idle; while the queue is long, to those that soon will be."""
        for worker in sorted((w for w in self._workers if w.ready), key=lambda w: len(w.calls)):
            with self._lock:
                size = min(MAX_CHUNK, max(1, len(self._queue) // (4 * self._count)), len(self._queue))
                wanted = not worker.calls or (size > 2 * FEW_CALLS and size > 2 * len(worker.calls))
                calls = [self._queue.popleft() for _ in range(size)] if wanted else []
            if calls:
                self._assign(worker, calls)
        self._flush()

    def _flush(self) -> None:
        for worker in self._workers:
            if worker.events & selectors.EVENT_WRITE:
                worker.flush()
                if worker.channel in self._selector.get_map():
                    self._selector.modify(worker.channel, worker.events, worker)

    def _assign(self, worker: WorkerHandle, calls: list[Call]) -> None:
        """Give calls; one whose record cannot be pickled is an error, and the others wait for the next chance."""
        try:
            worker.assign(calls)
            if worker.deadline == NEVER:
                worker.since = time.monotonic()
                worker.deadline = worker.since + self._timeout
        except Exception as raised:
            for call in calls:
                try:
                    pickle.dumps((call.record, call.completion))
                    self._again([call])
                except Exception:
                    self._settle(call, error(f"the record cannot be sent to a worker: {describe_exception(raised)}"))
            self._wake()

    def _attend(self, worker: WorkerHandle, *, gone: bool) -> None:
        """Take what a worker says; where its keeper has ended, take what is left of it and see to its calls."""
        said = worker.hear(rest=gone)
        worker.pace = (time.monotonic() - worker.since) / max(1, len(said))
        worker.since = time.monotonic()
        for words in said:
            match words:
                case [str(outcome), float(score), str(reason)] if worker.calls and outcome in OUTCOMES:
                    self._settle(worker.calls.popleft(), Judgement(outcome, score, reason))
                    worker.deadline = time.monotonic() + self._timeout if worker.calls else NEVER
                case {"ready": _}:
                    worker.ready, worker.deadline, self._failed_starts = True, NEVER, 0
                    self._ready.set()
                case {"failed": str(why)}:
                    raise PoolError(f"a worker could not load the judges: {why}; {MODULES_ONLY}")
                case _:
                    return self._lost(worker, None, "said what is not a verdict")
        if gone:
            self._lost(worker, *worker.last_words())
        elif worker.deaf:  # its keeper is ending what is left
            self._selector.unregister(worker.channel)

    def _lost(self, worker: WorkerHandle, code: int | None, how: str) -> None:
        """A worker has ended: its first call is suspect and may be tried again, the others are innocent."""
        killed = code in KILLED_FROM_OUTSIDE
        self._failed_starts += not worker.ready
        if not worker.ready and (not killed or self._failed_starts >= MAX_FAILED_STARTS):
            raise PoolError(f"a worker {how} before it was ready; the standard error stream may say why")
        if worker.calls:
            suspect = worker.calls[0]
            suspect.losses += 1
            if suspect.losses > (RETRIES_AFTER_KILL if killed else RETRIES):
                worker.calls.popleft()
                self._settle(suspect, error(f"the worker {how}, as did {suspect.losses - 1} before it over this call"))
        self._dismiss(worker)

    def _overdue(self, worker: WorkerHandle) -> None:
        if not worker.ready:
            raise PoolError(f"a worker was not ready within {self._start_timeout:g} s")
        late = f"no verdict within {self._timeout:g} s; the worker was killed"
        self._settle(worker.calls.popleft(), Judgement("timeout", 0.0, late))
        self._dismiss(worker)

    def _dismiss(self, worker: WorkerHandle) -> None:
        """End a worker; what it has not judged is judged next, by others."""
        self._workers.remove(worker)
        for source in (worker.channel, worker.process.stdout):
            if source in self._selector.get_map():
                self._selector.unregister(source)
        worker.dismiss()
        self._leaving.append(worker)
        self._again(worker.calls)

    def _again(self, calls: Iterable[Call]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(list(calls)))

    def _settle(self, call: Call, judgement: Judgement) -> None:
        finished = call.settle(judgement)
        with self._lock:
            self._pending -= 1
            if finished:
                self._tickets.discard(call.ticket)
            self._lock.notify_all()
