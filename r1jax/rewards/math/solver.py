"""The process of the symbolic tier: answers questions from standard input until it closes. Run as a script.

Every question is worked on by a fork of this process, which has sympy loaded already, so that killing the work on one
question costs nothing for the next.
"""

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

MEMORY = 2 << 30
CPU_SECONDS = 0.5  # an answer that needs more is over its budget
DIGITS, AGREEING = 60, 45
GOLD_READ = b"gold read\n"


def read(text: str):
    """The sympy expression that LaTeX text says; None where it is no expression of numbers."""
    import sympy
    from math_verify import LatexExtractionConfig, parse

    found = parse(f"${text}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    expression = found[0] if found else None
    return expression if isinstance(expression, sympy.Expr) else None


def value(expression, point: dict):
    """The number an expression is at a point; None where it is none."""
    import sympy

    number = sympy.N(expression.subs(point).doit(), DIGITS)
    return number if number.is_number and number.is_finite else None


def verdict(gold: str, answer: str, gold_is_read: Callable[[], None]) -> str:
    """Whether two expressions have the same value, at points where they have symbols."""
    import sympy

    try:
        left = read(gold)
        symbols = sorted(left.free_symbols, key=str)
        # Whole numbers, since the symbols of sums are mostly counts.
        signs = (1, -1, 1) if left.has(sympy.Max, sympy.Min) else (1, 1, 1)
        points = [
            {s: sympy.Integer(signs[place] * (5 + 3 * place + 7 * i)) for i, s in enumerate(symbols)}
            for place in range(3)
        ]
        points = points if symbols else points[:1]
        golds = [value(left, point) for point in points]
    except Exception:  # whatever the parser or sympy stumbles over
        return "gold unreadable"
    gold_is_read()
    right = read(answer)
    if right is None or right.free_symbols - left.free_symbols:
        return "answer unreadable" if right is None else "different"
    for point, known in zip(points, golds, strict=True):
        found = value(right, point)
        if (known is None) != (found is None):
            return "different"
        if known is not None and abs(known - found) > sympy.Float(10) ** -AGREEING * max(abs(known), abs(found)):
            return "different"
    return "same" if None not in golds or sympy.simplify((left - right).doit()) == 0 else "different"


def work(question: dict, pipe: int) -> None:
    """Answer one question on a pipe, and end."""
    # The default action of these signals ends the process even inside a loop written in C.
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)

    def gold_is_read() -> None:
        os.write(pipe, GOLD_READ)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)

    signal.setitimer(signal.ITIMER_REAL, question["seconds"] + 1.0)  # should this process's parent have died
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        found = verdict(question["gold"], question["answer"], gold_is_read)
    except Exception:  # whatever the parser or sympy stumbles over
        found = "answer unreadable"
    os.write(pipe, found.encode())


def answer(question: dict) -> str:
    """The verdict of a fork on one question, waited for no longer than the question says."""
    received, sent = os.pipe()
    worker = os.fork()
    if not worker:
        try:
            work(question, sent)
        finally:
            os._exit(0)
    os.close(sent)
    found, deadline = b"", time.monotonic() + question["seconds"]
    while (left := deadline - time.monotonic()) > 0:
        ready = select.select([received, 0], [], [], left)[0]
        if 0 in ready:  # closed: nobody waits for this any more
            break
        if ready:
            part = os.read(received, 4096)
            if not part:
                break
            found += part
    os.close(received)
    if left <= 0 or 0 in ready:
        os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    gold_read, said = found.startswith(GOLD_READ), found.removeprefix(GOLD_READ).decode()
    return said or ("answer over budget" if gold_read and left > 0 else "timeout")


def main() -> None:
    """Answer requests on standard input until the parent is gone."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what sympy prints must not look like a verdict
    verdict(r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}", lambda: None)  # loads everything before the first deadline
    os.write(output, b'"ready"\n')
    while os.getppid() == parent:
        if not select.select([0], [], [], 5.0)[0]:
            continue
        line = b""
        while not line.endswith(b"\n"):
            received = os.read(0, 65536)
            if not received:
                return
            line += received
        os.write(output, json.dumps(answer(json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    sys.setrecursionlimit(3000)
    main()
