"""How every experiment begins and ends: command line, allocator, signals, progress, one clear message per mistake."""

import ctypes
import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from r1jax.config import UserError

# glibc returns every large buffer to the kernel and faults it in again at the next step; XLA on CPU then runs several
# times slower. These keep freed memory in the process and ask for huge pages.
ALLOCATOR = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"
)

console = Console(highlight=False)


class Interrupted(Exception):
    """The run was asked to stop and did; the message says what the command to run next will do."""

    def __init__(self, message: str = "stopped and saved; to resume:"):
        super().__init__(message)


class StopRequest:
    """Set by SIGINT or SIGTERM; loops look at it between steps. A second signal ends the process at once."""

    def __init__(self):
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self):
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self:
            os._exit(128 + number)
        self.signal = number
        console.print("\n[yellow]stopping at the end of this step; once more to stop at once")


def tune_allocator() -> None:
    """Restart this process with glibc's allocator set for XLA on CPU; where glibc or a CPU run is absent, do nothing.

    Call before anything is allocated. A setting that is already in GLIBC_TUNABLES stays.
    """
    wanted = sys.platform == "linux" and os.environ.get("JAX_PLATFORMS", "cpu") == "cpu"
    if wanted and "GLIBC_TUNABLES" not in os.environ and sys.orig_argv:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": ALLOCATOR})


PARENT = "R1JAX_PARENT"
"""Environment variable: the process id of a parent without which a stage is not to go on."""


def end_with_parent() -> None:
    """Be killed when the parent named by `R1JAX_PARENT` dies, however it dies; elsewhere than on Linux, do nothing."""
    if sys.platform == "linux" and (parent := os.environ.get(PARENT)):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; it outlives execve
        if os.getppid() != int(parent):  # it was already dead
            sys.exit(1)


ADDRESS, COUNT, INDEX = HOSTS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that make this process one of several: host:port of the first, how many, and which it is."""
HEARTBEAT_SECONDS = 60
"""How long a host may be silent before all others end."""


def connect(asked: bool, *, allowed: bool = True) -> None:
    """Join the other processes of this run, where `--distributed` or the environment says that there are some.

    With the variables of `HOSTS` it is as they say; without, as jax finds out on TPU pods and under Slurm, Open MPI or
    Kubernetes. Call before any device is asked for. From then on only the first host prints.

    Raises:
      UserError: it is not `allowed`; some of the variables are missing, or are no numbers; or the others cannot be found.
    """
    said = {name: os.environ[name] for name in HOSTS if os.environ.get(name)}
    if not asked and not said:
        return
    if not allowed:
        raise UserError(f"this command runs on one host; leave out --distributed, and unset {', '.join(HOSTS)}")
    if said and (len(said) < len(HOSTS) or not (said[COUNT] + said[INDEX]).isdigit()):
        raise UserError(
            f"several hosts need {', '.join(HOSTS)}, the last two whole numbers; there is {said or 'nothing'}"
        )
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    where = (said[ADDRESS], int(said[COUNT]), int(said[INDEX])) if said else ()
    try:
        jax.distributed.initialize(
            *where, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the hosts of this run do not find each other: {error}; see docs/tpu.md") from error
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("connected")  # gloo gives those that are late half a minute, the first time
    console.quiet, sys.excepthook = jax.process_index() > 0, _end_at_once


def _end_at_once(kind, error, trace) -> None:
    """What one of several hosts does of an exception that is its last."""
    traceback.print_exception(kind, error, trace)
    _fail(
        "this host cannot go on. Where the error is about connections or collectives, another one has ended, and its "
        f"output says why. Start all of them again; what is saved stays:\n  {resume_command()}"
    )


def run(
    main: Callable[[Any], None],
    config_class: type,
    presets: Mapping[str, Any] | None = None,
    *,
    on_several_hosts: bool = False,
) -> None:
    """Parse the command line into `config_class` and run `main`.

    Args:
      main: the experiment.
      config_class: a frozen dataclass, every field of which is an option.
      presets: name -> configuration whose values are the defaults where `--preset NAME` is given; the first is taken
        where it is not.
      on_several_hosts: whether `main` can be one of several processes, which `--distributed` or the environment makes
        it; see `connect`.

    Exits with 0 where it is done or was stopped on request, 1 for a user's mistake, 2 for an unknown option.
    """
    end_with_parent()
    tune_allocator()
    import tyro

    description, arguments = sys.modules[main.__module__].__doc__, sys.argv[1:]
    default = config_class() if presets is None else next(iter(presets.values()))
    if presets:
        description += f"\n\n--preset {{{','.join(presets)}}} chooses the defaults of all options."
        default, arguments = _preset(presets, arguments)
    if on_several_hosts:
        description += "\n\n--distributed makes this one of several processes, one on each host (docs/tpu.md)."
    distributed, arguments = "--distributed" in arguments, [a for a in arguments if a != "--distributed"]
    config = tyro.cli(config_class, description=description, args=arguments, default=default)
    if getattr(config, "seed", 0) < 0:  # not every command draws numbers
        _fail(f"--seed must be 0 or more, not {config.seed}")
    try:
        connect(distributed, allowed=on_several_hosts)
        main(config)
    except UserError as error:
        _fail(str(error))
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        _fail(f"{error.filename}: {error.strerror}; choose another path")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        place = error.filename or config.workdir
        _fail(f"no space left on the disk ({place}); free some and run the same command again")
    except Interrupted as stop:
        console.print(f"{stop}\n  {resume_command()}", soft_wrap=True, markup=False)
    except KeyboardInterrupt:
        sys.exit(130)


def _preset(presets: Mapping[str, Any], arguments: list[str]) -> tuple[Any, list[str]]:
    """The preset that `--preset NAME` or `--preset=NAME` names, else the first, and the other arguments."""
    names = [argument for place, argument in enumerate(arguments) if place and arguments[place - 1] == "--preset"]
    names += [argument.partition("=")[2] for argument in arguments if argument.startswith("--preset=")]
    if not names and "--preset" not in arguments:
        return next(iter(presets.values())), arguments
    if len(names) != 1 or names[0] not in presets:
        _fail(f"--preset takes one of {', '.join(presets)}, not {' '.join(names) or 'nothing'}")
    left = [argument for argument in arguments if not argument.startswith("--preset=")]
    if "--preset" in left:
        place = left.index("--preset")
        left = left[:place] + left[place + 2 :]
    return presets[names[0]], left


def several_hosts() -> bool:
    """Whether this process has joined others."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _fail(message: str) -> None:
    Console(stderr=True, highlight=False, markup=False).print(f"error: {message}", style="red", soft_wrap=True)
    if several_hosts():  # at once: a host that waits for the others, to end with them, keeps them waiting
        sys.stdout.flush()
        os._exit(1)
    sys.exit(1)


def resume_command() -> str:
    """This process's command line, as one would type it."""
    return shlex.join([os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:]])


def progress_bar() -> Progress:
    """A rich progress bar with elapsed and remaining time and a column for live figures (field `figures`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        speed_estimate_period=120,
    )
