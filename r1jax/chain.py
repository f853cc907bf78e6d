"""Experiments as processes, each with a workdir, that read the workdirs of others.

What is done is kept, what was stopped goes on, and what changed is run again, with all that depends on it. `chain.json`
in the root keeps what a run was made by and whether it has finished; the code of r1jax itself is not in that.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import read_json, write_json

RECORD = "chain.json"
RESULTS = {"evaluate": "evaluation.json", "r1": "table.md", "rejection_sampling": "card.json"}
"""What the workdir of a finished experiment has, where that is not summary.json."""
NEEDED = r"\{(first )?(\w+)\}"
"""In the line of an arm: the workdir of an earlier one."""


class Stage(NamedTuple):
    """One process: an experiment with options, and the stages whose workdirs it reads."""

    name: str
    """Its workdir, below the root."""
    experiment: str
    """A file below the folder of experiments, without .py."""
    options: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """What its workdir has once it is finished."""
        return RESULTS.get(self.experiment, "summary.json")


def seeded_stages(root: str | Path, arms: Mapping[str, str], seeds: Sequence[int]) -> list[Stage]:
    """A stage NAME/SEED for every arm and seed.

    Args:
      root: of the workdirs.
      arms: by name, an experiment with options as on a command line; {NAME} in it is the workdir of an earlier arm
        with the same seed, {first NAME} with the first of the seeds, for all of them.
      seeds: given to the experiments as --seed.

    Raises:
      UserError: an arm names another that does not come before it.
    """
    stages = []
    for place, (name, line) in enumerate(arms.items()):
        earlier, needs = list(arms)[:place], re.findall(NEEDED, line)
        if unknown := [need for _, need in needs if need not in earlier]:
            raise UserError(f"{name}={line}: no arm before it is called {unknown[0]}; there are {', '.join(earlier)}")
        for seed in seeds:
            of = lambda first, need, seed=seed: f"{need}/{seeds[0] if first else seed}"
            filled = re.sub(NEEDED, lambda need, of=of: str(Path(root) / of(*need.groups())), line)
            experiment, *options = shlex.split(filled)
            options, others = (*options, "--seed", str(seed)), tuple(dict.fromkeys(of(*need) for need in needs))
            stages.append(Stage(f"{name}/{seed}", experiment.removesuffix(".py"), options, others))
    return stages


def chosen(stages: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    """The named stages and all that they depend on; all stages where none is named.

    Raises:
      UserError: a name is of no stage.
    """
    names = {stage.name for stage in stages}
    if unknown := set(only) - names:
        raise UserError(f"--only {' '.join(sorted(unknown))}: the stages are {', '.join(s.name for s in stages)}")
    wanted = set(only) or names
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(stage.needs)
    return [stage for stage in stages if stage.name in wanted]


def fingerprints(stages: Sequence[Stage], experiments: Path) -> dict[str, str]:
    """What a stage depends on, hashed: its experiment's file and the one that it varies, options, stages it needs."""
    found: dict[str, str] = {}
    for stage in stages:
        facts = [stage.experiment, _sources(stage, experiments), stage.options, [found[name] for name in stage.needs]]
        found[stage.name] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return found


def _sources(stage: Stage, experiments: Path) -> list[str]:
    path = experiments / f"{stage.experiment}.py"
    if not path.is_file():
        raise UserError(f"{stage.name}: there is no experiment {path}")
    source = path.read_text()
    varied = re.findall(r"^from experiments import (\w+)", source, re.MULTILINE)
    return [source, *((experiments / f"{name}.py").read_text() for name in varied)]


def stage_state(name: str, prints: dict[str, str], done: dict) -> str:
    """done, stopped (goes on), changed (starts over) or new."""
    known = done.get(name)
    if known is None:
        return "new"
    if known["fingerprint"] != prints[name]:
        return "changed"
    return "done" if known["finished"] else "stopped"


def read_record(root: Path) -> dict:
    """What `chain.json` says of the stages below a root: fingerprint, finished, seconds."""
    return read_json(root / RECORD) if (root / RECORD).is_file() else {}


def stage_states(root: Path, stages: Sequence[Stage], experiments: Path) -> dict[str, str]:
    """The state of every stage; see `stage_state`."""
    prints, done = fingerprints(stages, experiments), read_record(root)
    return {stage.name: stage_state(stage.name, prints, done) for stage in stages}


def run_stages(root: Path, stages: Sequence[Stage], wanted: Sequence[Stage], experiments: Path, jobs: int = 1) -> dict:
    """Run what is wanted and not done, in order, each stage once those it needs are done; returns the record of all.

    Args:
      root: of the workdirs, made where it is missing.
      stages: all there are; fingerprints follow from them.
      wanted: some of them, with all that they need.
      experiments: the folder of experiments.
      jobs: how many stages run at a time. One prints to the terminal; of several, each has a share of the processors
        and prints to a file beside its workdir, NAME.txt.

    Raises:
      UserError: a stage failed; others that were running were stopped, and go on in the next run.
      Interrupted: a stop was requested.
    """
    prints, done = fingerprints(stages, experiments), read_record(root)
    waiting = [stage for stage in wanted if stage_state(stage.name, prints, done) != "done"]
    root.mkdir(parents=True, exist_ok=True)
    shares, running, failed, told = _shares(jobs), [], None, False
    with launch.StopRequest() as stop:
        while running or (waiting and not stop):
            for stage in [] if stop else _ready(waiting, running, jobs):
                waiting.remove(stage)
                launch.console.rule(f"{wanted.index(stage) + 1} of {len(wanted)}: {stage.name}", align="left")
                _open_record(root, stage, prints, done)
                running.append(_start(root, stage, experiments, shares.pop()))
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                shares.append(run.share)
                _close_record(root, run, done)
                failed = failed or (run if run.process.returncode else None)
                waiting = waiting if done[run.stage.name]["finished"] else []
            if (failed or stop.signal == signal.SIGTERM) and not told:  # SIGINT reaches the stages from the terminal
                for run in running:
                    run.process.terminate()
                waiting, told = [], True
            time.sleep(0.2)
    if failed:
        where = f"; {_output(root, failed.stage)}" if failed.share is not None else "; what it printed"
        raise UserError(f"stage {failed.stage.name} failed with exit code {failed.process.returncode}{where} says why")
    if not all(done.get(stage.name, {}).get("finished") for stage in wanted):
        raise launch.Interrupted
    return done


class _Running(NamedTuple):
    stage: Stage
    process: subprocess.Popen
    share: frozenset[int] | None
    began: float


def _shares(jobs: int) -> list[frozenset[int] | None]:
    """The processors of each of several stages at a time, none where they cannot be set; None: it runs alone."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [None] if jobs == 1 else [frozenset(mine[job::jobs] or mine) for job in range(jobs)]


def _ready(waiting: Sequence[Stage], running: Sequence[_Running], jobs: int) -> list[Stage]:
    """What may start now: it needs nothing that waits or runs, and a place is free."""
    busy = {stage.name for stage in waiting} | {run.stage.name for run in running}
    return [stage for stage in waiting if not busy & set(stage.needs)][: jobs - len(running)]


def command(root: Path, stage: Stage, experiments: Path) -> list[str]:
    """The command line of a stage."""
    file = str(experiments / f"{stage.experiment}.py")
    return [sys.executable, file, "--workdir", str(root / stage.name), *stage.options]


def shown_command(root: Path, stage: Stage) -> str:
    """The command line of a stage as one would type it."""
    return shlex.join(
        ["python", f"experiments/{stage.experiment}.py", "--workdir", str(root / stage.name), *stage.options]
    )


def _output(root: Path, stage: Stage) -> Path:
    return root / f"{stage.name}.txt"


def _open_record(root: Path, stage: Stage, prints: dict[str, str], done: dict) -> None:
    """Write down that a stage runs; what it left before it changed is deleted."""
    state = stage_state(stage.name, prints, done)
    if state == "changed":
        shutil.rmtree(root / stage.name, ignore_errors=True)
    before = done[stage.name].get("seconds", 0.0) if state == "stopped" else 0.0
    done[stage.name] = {"fingerprint": prints[stage.name], "finished": False, "seconds": before}
    write_json(root / RECORD, done)


def _close_record(root: Path, run: _Running, done: dict) -> None:
    """Write down how a process ended."""
    result = root / run.stage.name / run.stage.result
    done[run.stage.name]["finished"] = run.process.returncode == 0 and result.exists()
    done[run.stage.name]["seconds"] += time.monotonic() - run.began
    write_json(root / RECORD, done)


def _start(root: Path, stage: Stage, experiments: Path, share: frozenset[int] | None) -> _Running:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(root / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1"}
    start = partial(
        subprocess.Popen,
        command(root, stage, experiments),
        env=cache | os.environ | {launch.PARENT: str(os.getpid())},
    )
    if share is None:
        return _Running(stage, start(), share, time.monotonic())
    _output(root, stage).parent.mkdir(parents=True, exist_ok=True)
    with open(_output(root, stage), "a") as output, _confined(share):
        process = start(stdout=output, stderr=subprocess.STDOUT)
    return _Running(stage, process, share, time.monotonic())


@contextlib.contextmanager
def _confined(share: frozenset[int]):
    """What is started inside has these processors from its first instruction; all, where there are none given."""
    if not share:
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, share)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def show_plan(root: Path, stages: Sequence[Stage], states: dict[str, str]) -> None:
    """Print the stages, what is done of them, what they need, and their commands."""
    for place, stage in enumerate(stages, start=1):
        needs = f", after {', '.join(stage.needs)}" if stage.needs else ""
        line = f"{place:2d} [bold]{stage.name}[/]: {states[stage.name]}{needs}\n   {shown_command(root, stage)}"
        launch.console.print(line, soft_wrap=True)
