"""What a sandboxed program may use, and how its run ended."""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

Status = Literal["ok", "nonzero", "signal", "timeout", "cpu", "memory", "output", "launch_failed"]


@dataclass(frozen=True)
class Limits:
    """What one run may use; all of it is for the whole tree of processes, unless said otherwise."""

    wall_seconds: float = 10.0
    """By the clock, from the program's start."""
    cpu_seconds: float = 10.0
    """Of processor time."""
    memory_bytes: int = 512 << 20
    """Address space of each process, and resident memory of all together."""
    output_bytes: int = 1 << 20
    """Of standard output, and as much of standard error."""
    file_bytes: int = 16 << 20
    """In files, besides those the run was given; they live in memory."""
    processes: int = 16
    """Processes and threads at a time."""
    open_files: int = 64
    """Of each process."""

    def __post_init__(self):
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"Limits.{field.name} is {getattr(self, field.name)}; it must be above 0")


class Run(NamedTuple):
    """How a run ended, and what it printed."""

    status: Status
    """ok: exit status 0. nonzero: another exit status. signal: killed by a signal of its own making. timeout, cpu,
    memory, output: stopped at that limit. launch_failed: the program did not run; this says nothing about it."""
    returncode: int | None
    """Exit status, or minus the signal; None where the host stopped it or nothing is known."""
    stdout: bytes
    stderr: bytes
    """Both cut at `Limits.output_bytes`."""
    seconds: float
    """By the clock, launch included."""
    detail: str = ""
    """For people: why the run was stopped."""
