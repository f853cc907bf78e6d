"""One side of a comparison as a process that stays alive and does one timed repeat on request, so that sides take turns.

Nothing but the standard library: this runs in the environments of others. Requests and answers are lines of JSON.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

Run = Callable[[], dict]
"""One repeat; returns figures of its own, such as the tokens it made."""


def serve(workloads: dict[str, Callable[[dict], tuple[Run, dict]]]) -> None:
    """Answer a parent until it closes our standard input.

    The first line is the settings, of which "workload" names one of `workloads`; the answer is what the workload says
    of itself. Every further line asks for a repeat; the answer is its figures with the "seconds" of the clock, and
    "work", seconds of all processors together, which other programs on the machine hardly change.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print what they like
    settings = json.loads(sys.stdin.readline())
    run, facts = workloads[settings["workload"]](settings)
    print(json.dumps(facts), file=answers)
    for _ in sys.stdin:
        clock, work = time.perf_counter(), time.process_time()
        figures = run()
        figures |= {"seconds": time.perf_counter() - clock, "work": time.process_time() - work}
        print(json.dumps(figures), file=answers)
    answers.flush()
    os._exit(0)  # a training loop may still be waiting for its next turn


def in_turns(loop: Callable[[Callable[[], None]], None]) -> Callable[[], None]:
    """Make repeats of a training loop that cannot be called step by step.

    Args:
      loop: runs for ever, in a thread of its own, and calls its argument between two steps; there it waits.

    Returns:
      a function that lets the loop make one step.
    """
    go, done, failures = threading.Semaphore(0), threading.Semaphore(0), []

    def wait() -> None:
        done.release()
        go.acquire()

    def guarded() -> None:
        try:
            loop(wait)
            raise RuntimeError("the training loop ended by itself")
        except BaseException as error:  # handed to the main thread, which would wait for ever
            failures.append(error)
            done.release()

    def turn() -> None:
        done.acquire()
        if failures:
            raise failures[0]

    threading.Thread(target=guarded, daemon=True).start()
    turn()
    return lambda: (go.release(), turn())[1]


class FirstToken:
    """A reward that costs nothing: 1 where the first token of a completion is odd, else 0. It counts what it is given.

    Texts are numbers with spaces between them, one for each token, without the token that ended them.
    """

    __name__ = "first_token"

    def __init__(self, settings: dict):
        self._longest, self._tokens = settings["new_tokens"], 0

    def __call__(self, prompts, completions, **_) -> list[float]:
        words = [text.split() for text in completions]
        self._tokens += sum(min(len(some) + 1, self._longest) for some in words)
        return [float(int(some[0]) % 2) if some else 0.0 for some in words]

    def take_count(self) -> int:
        """Tokens of completions since the last call."""
        count, self._tokens = self._tokens, 0
        return count


def resident(name: str) -> int:
    """VmRSS of this process in bytes, or VmHWM, its peak since the last `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def reset_peak() -> None:
    """Let VmHWM begin again at what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
