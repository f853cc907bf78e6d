"""Judges that behave in every way a judge must not; a module of its own, because workers import it."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time

from r1jax.rewards.judgement import Judgement


class Strange(BaseException):
    """Not an Exception, as the timeout of math-verify, and without a message."""

    def __str__(self):
        raise ValueError("no message")


def parity(record, completion):
    """A plain judge with a verdict for every text."""
    if not completion:
        return Judgement("no_answer", 0.0, "empty")
    even = len(completion) % 2 == 0
    return Judgement("correct" if even else "wrong", 1.0 / len(completion) if even else 0.0, completion[:5])


def slow_parity(record, completion):
    time.sleep(record["seconds"])
    return parity(record, completion)


def busy_parity(record, completion):
    """Holds the processor for record["seconds"]."""
    until = time.perf_counter() + record["seconds"]
    while time.perf_counter() < until:
        pass
    return parity(record, completion)


def logged(record, completion):
    """Writes down every call; record["say"] is the outcome."""
    with open(record["log"], "a") as file:
        file.write(f"{os.getpid()} {completion}\n")
    if record.get("raises"):
        raise ValueError("as asked")
    return Judgement(record.get("say", "correct"), 0.5)


def gold_and_length(record, completion):
    return record["gold"], len(completion)


def no_key(record, completion):
    return None


def modules(record, completion):
    """Says which packages the process has imported."""
    return Judgement("correct", 1.0, " ".join({name.partition(".")[0] for name in sys.modules} & {*record["ask"]}))


def misbehave(record, completion):
    """Does what record["deed"] says."""
    return DEEDS[record["deed"]](record)


def _loop_in_c(record):
    return 99**98**97


def _backtrack(record):
    return re.match(r"(a+)+$", "a" * 64 + "b")


def _kill_itself(record):
    os.kill(os.getpid(), signal.SIGKILL)


def _flood(record):
    for _ in range(200):
        print("x" * 100_000)
        print("x" * 100_000, file=sys.stderr)
    os.system("head -c 10000000 /dev/zero")
    return Judgement("correct", 1.0, input_is_empty())


def input_is_empty():
    return repr(sys.stdin.read() if sys.stdin else "")


def _leave_daemons(record):
    """Children in the group, in sessions of their own and twice removed, all of them for ever; then hang in C."""
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1001"], start_new_session=True)
    subprocess.run(["sh", "-c", "setsid sh -c 'trap \"\" TERM INT HUP; sleep 1002' >/dev/null 2>&1 &"])
    if record.get("then") == "exit":
        os._exit(0)
    return _loop_in_c(record)


def _raise(exception):
    def deed(record):
        raise exception

    return deed


def _recurse(record):
    return _recurse(record)


DEEDS = {
    "hang in C": _loop_in_c,
    "backtrack": _backtrack,
    "sleep": lambda record: time.sleep(1000),
    "exit": lambda record: os._exit(3),
    "exit 0": lambda record: os._exit(0),
    "segfault": lambda record: ctypes.string_at(0),
    "abort": lambda record: os.abort(),
    "kill itself": _kill_itself,
    "SystemExit": _raise(SystemExit(0)),
    "KeyboardInterrupt": _raise(KeyboardInterrupt()),
    "strange": _raise(Strange()),
    "MemoryError": lambda record: bytes(1 << 60),
    "recurse": _recurse,
    "None": lambda record: None,
    "a tuple": lambda record: ("correct", 1.0, ""),
    "unknown outcome": lambda record: Judgement("splendid", 1.0),
    "unhashable outcome": lambda record: Judgement(["correct"], 1.0),
    "nan": lambda record: Judgement("correct", float("nan")),
    "above 1": lambda record: Judgement("correct", 1.5),
    "below 0": lambda record: Judgement("correct", -0.1),
    "a string": lambda record: Judgement("correct", "1"),
    "a long reason": lambda record: Judgement("correct", 1.0, "é\ud800" * 1_000_000),
    "flood": _flood,
    "daemons": _leave_daemons,
    "fine": lambda record: Judgement("correct", 1.0, "fine"),
}
