"""A batch of completions on its way through a pool."""

import threading

from r1jax.rewards.judgement import Judgement


class PoolError(RuntimeError):
    """The pool as a whole cannot judge; the message says why."""


class Ticket:
    """A batch that is being judged in the background."""

    def __init__(self, names: tuple[str, ...], size: int):
        self._names = names
        self._verdicts: list[dict[str, Judgement]] = [{} for _ in range(size)]
        self._left = size * len(names)
        self._done = threading.Event()
        self._failure: PoolError | None = None
        if not self._left:
            self._done.set()

    def __len__(self) -> int:
        """Completions in the batch."""
        return len(self._verdicts)

    @property
    def progress(self) -> float:
        """Share of the verdicts that are there, in [0, 1]."""
        return 1.0 - self._left / max(1, len(self) * len(self._names))

    def result(self, timeout: float | None = None) -> list[dict[str, Judgement]]:
        """Wait for all verdicts, by the names of the judges, in the order of the batch.

        Raises:
          TimeoutError: they are not all there after `timeout` seconds; they will still come.
          PoolError: the pool was closed, or broke down.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"{self._left} verdicts are missing after {timeout:g} s")
        if self._failure:
            raise self._failure
        return [{name: verdicts[name] for name in self._names} for verdicts in self._verdicts]

    def settle(self, index: int, name: str, judgement: Judgement) -> bool:
        """Note a verdict, for the pool; whether it was the last."""
        if name in self._verdicts[index]:
            raise PoolError(f"completion {index} was judged twice by {name!r}")
        self._verdicts[index][name] = judgement
        self._left -= 1
        if not self._left:
            self._done.set()
        return not self._left

    def abandon(self, why: PoolError) -> None:
        """Give up, for the pool."""
        self._failure = why
        self._done.set()


class Call:
    """One judge to be called on one completion of a ticket."""

    __slots__ = ("ticket", "index", "name", "record", "completion", "losses")

    def __init__(self, ticket: Ticket, index: int, name: str, record: dict, completion: str):
        self.ticket, self.index, self.name, self.record, self.completion = ticket, index, name, record, completion
        self.losses = 0  # workers that ended over this call

    def settle(self, judgement: Judgement) -> bool:
        return self.ticket.settle(self.index, self.name, judgement)
