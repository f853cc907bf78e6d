"""What a process and all below it use at this moment, from the host's /proc."""

import os
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Sums over processes."""

    tasks: int = 0
    """Processes and threads."""
    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    """Memory that several share counts for each."""


Seen = dict[tuple[int, int], float]
"""Processor time of single processes, by id and time of start."""


def usage_below(process: int, depth: int, seen: Seen) -> Usage:
    """What the processes `depth` generations below a process, and all below those, use.

    The time of those that have ended is counted too. The kernel forgets it where a parent ignores SIGCHLD; so there is
    a second count, of what each process had used when it was last seen, and the larger one holds. Zero where the
    kernel does not tell (it lacks PROC_CHILDREN).

    Args:
      process: where to begin.
      depth: generations.
      seen: the second count; empty at the first look at a tree.
    """
    level = [process]
    for generation in range(depth):
        ended = sum(_read(above)[3] for above in level) if generation == depth - 1 else 0.0
        level = [child for above in level for child in _children(above)]
    tasks, cpu_seconds, resident = 0, ended, 0
    while level:
        current = level.pop()
        more = _read(current)
        seen[current, more[4]] = more[1]
        tasks, cpu_seconds, resident = tasks + more[0], cpu_seconds + more[1] + more[3], resident + more[2]
        level += _children(current)
    return Usage(tasks, max(cpu_seconds, sum(seen.values())), resident)


def _children(process: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:  # it has ended
        pass
    return found


def _read(process: int) -> tuple[int, float, int, float, int]:
    """Threads, seconds of processor time, resident bytes, seconds of its children that have ended, time of start."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0.0, 0, 0.0, 0
    user, system, children_user, children_system = map(int, fields[11:15])
    own, ended = (user + system) / TICKS, (children_user + children_system) / TICKS
    return int(fields[17]), own, int(fields[21]) * PAGE, ended, int(fields[19])
