"""All of DeepSeek-R1 as one chain: R1-Zero, and the four stages to R1, distillation, evaluation, one report.

Every stage is an experiment of its own, run as a process with the options shown by `--dry-run`; stages hand workdirs to
each other. What is done is kept, what was stopped goes on, and what changed is run again, with all that depends on it.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import read_json, write_json
from r1jax.report import chain_table, write_chain_report
from r1jax.tasks import STUDENT_MODEL, WORLD_MODEL

EXPERIMENTS = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Config:
    """The chain in the miniature world."""

    workdir: str = "runs/r1"
    """Every stage has a folder in here; so have its log, and the report."""
    seed: int = 0
    """Of every stage."""
    dry_run: bool = False
    """Print the plan and what is done of it, and run nothing."""
    only: tuple[str, ...] = ()
    """Run these stages and what they depend on; by default all."""
    problems: int = 390
    """Held-out problems that every checkpoint is evaluated on, 8 samples each."""
    fast: bool = False
    """A few iterations of everything, to see that it runs; the figures mean nothing."""


class Stage(NamedTuple):
    """One process: an experiment with options, and the stages whose workdirs it reads."""

    name: str
    experiment: str
    options: tuple[str, ...]
    needs: tuple[str, ...] = ()
    result: str = "summary.json"
    """What its workdir has once it is finished."""


def plan(config: Config) -> list[Stage]:
    """The stages in an order in which they can run."""
    root = Path(config.workdir)
    at = lambda name: str(root / name)
    rl = FAST_RL if config.fast else ()
    few = FAST_DATA if config.fast else ()
    once = ("--epochs", "1") if config.fast else ()
    stages = [
        Stage("r1_zero", "r1_zero", ("--preset", "world", *rl)),
        Stage("cold_start", "cold_start", ("--teacher", at("r1_zero"), *few), ("r1_zero",)),
        Stage("reasoning_rl", "reasoning_rl", ("--init", at("cold_start"), *rl), ("cold_start",)),
        Stage("rejection_sampling", "rejection_sampling", ("--init", at("reasoning_rl"), *few), ("reasoning_rl",), "card.json"),
        Stage("sft", "sft", ("--data", at("rejection_sampling/records")), ("rejection_sampling",)),
        Stage(
            "preference_data", "preference_data",
            ("--init", at("sft"), *(("--prompts", "320") if config.fast else ())), ("sft",),
        ),
        Stage(
            "helpful_rm", "reward_model",
            ("--preset", "helpful", "--init", at("sft"), "--pairs", at("preference_data/pairs.jsonl"), *once),
            ("sft", "preference_data"),
        ),
        Stage(
            "safety_rm", "reward_model",
            ("--preset", "safety", "--init", at("sft"), "--pairs", at("preference_data/safety.jsonl"), *once),
            ("sft", "preference_data"),
        ),
        Stage(
            "general_rl", "general_rl",
            ("--init", at("sft"), "--helpful", at("helpful_rm"), "--safe", at("safety_rm"), *rl,
             *(("--preferences-from", "2") if config.fast else ())),
            ("sft", "helpful_rm", "safety_rm"),
        ),
        Stage("distill", "distill", ("--data", at("rejection_sampling/records")), ("rejection_sampling",)),
        Stage("student_rl", "r1_zero", ("--preset", "student", *rl)),
    ]  # fmt: skip
    judged = {
        "base": (WORLD_MODEL, "r1_zero"), "r1_zero": (at("r1_zero"), "r1_zero"), "cold_start": (at("cold_start"), "chat"),
        "reasoning_rl": (at("reasoning_rl"), "chat"), "sft": (at("sft"), "chat"), "general_rl": (at("general_rl"), "chat"),
        "student": (STUDENT_MODEL, "r1_zero"), "distill": (at("distill"), "chat"), "student_rl": (at("student_rl"), "r1_zero"),
    }  # fmt: skip
    for name, (folder, prompt) in judged.items():
        options = ("--preset", "world", "--init", folder, "--prompt", prompt, "--problems", str(config.problems))
        needs = (name,) if name in _names(stages) else ()
        stages.append(Stage(f"evaluate_{name}", "evaluate", options, needs, "evaluation.json"))
    return [stage._replace(options=(*stage.options, "--seed", str(config.seed))) for stage in stages]


FAST_RL = (
    "--grpo.iterations 2 --grpo.sampling.prompts 8 --grpo.sampling.group-size 4 --grpo.micro-batches 2 "
    "--evaluation-problems 8 --training-problems 8"
).split()
FAST_DATA = "--data.problems 64".split()


def _names(stages: Sequence[Stage]) -> set[str]:
    return {stage.name for stage in stages}


def chosen(stages: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    """The named stages and all that they depend on.

    Raises:
      UserError: a name is of no stage.
    """
    if unknown := set(only) - _names(stages):
        raise UserError(f"--only {' '.join(sorted(unknown))}: the stages are {', '.join(s.name for s in stages)}")
    wanted = set(only) or _names(stages)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(stage.needs)
    return [stage for stage in stages if stage.name in wanted]


def fingerprints(stages: Sequence[Stage], config: Config) -> dict[str, str]:
    """What a stage depends on, hashed: its experiment's file, its options, and the stages it needs."""
    found: dict[str, str] = {}
    for stage in stages:
        source = (EXPERIMENTS / f"{stage.experiment}.py").read_text()
        facts = [stage.experiment, source, stage.options, [found[name] for name in stage.needs]]
        found[stage.name] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return found


def main(config: Config) -> None:
    root, stages = Path(config.workdir), chosen(plan(config), config.only)
    prints, done = fingerprints(plan(config), config), {}
    if (root / "chain.json").is_file():
        done = read_json(root / "chain.json")
    state = {stage.name: stage_state(stage.name, prints, done) for stage in stages}
    if config.dry_run:
        return show_plan(root, stages, state)
    root.mkdir(parents=True, exist_ok=True)
    with launch.StopRequest() as stop:
        for place, stage in enumerate(stages, start=1):
            if state[stage.name] == "done":
                continue
            launch.console.rule(f"{place} of {len(stages)}: {stage.name}", align="left")
            if state[stage.name] == "changed":
                shutil.rmtree(root / stage.name, ignore_errors=True)
            done[stage.name] = {"fingerprint": prints[stage.name], "finished": False} | _seconds(done, stage, state)
            write_json(root / "chain.json", done)
            began = time.monotonic()
            finished = run_stage(root, stage, stop)
            done[stage.name] |= {
                "finished": finished,
                "seconds": done[stage.name]["seconds"] + time.monotonic() - began,
            }
            write_json(root / "chain.json", done)
            if not finished or stop:
                raise launch.Interrupted
    (root / "table.md").write_text(chain_table(root) + "\n")
    launch.console.print(chain_table(root), soft_wrap=True, markup=False)
    launch.console.print(
        f"{sum(d['seconds'] for d in done.values()):.0f} s; report: {write_chain_report(root)}", soft_wrap=True
    )


def _seconds(done: dict, stage: Stage, state: dict) -> dict:
    """Seconds that a stage which goes on has taken already."""
    return {"seconds": done[stage.name].get("seconds", 0.0) if state[stage.name] == "stopped" else 0.0}


def stage_state(name: str, prints: dict[str, str], done: dict) -> str:
    """done, stopped (goes on), changed (starts over) or new."""
    known = done.get(name)
    if known is None:
        return "new"
    if known["fingerprint"] != prints[name]:
        return "changed"
    return "done" if known["finished"] else "stopped"


def command(root: Path, stage: Stage) -> list[str]:
    """The command line of a stage."""
    return [
        sys.executable,
        str(EXPERIMENTS / f"{stage.experiment}.py"),
        "--workdir",
        str(root / stage.name),
        *stage.options,
    ]


def run_stage(root: Path, stage: Stage, stop: launch.StopRequest) -> bool:
    """Run a stage; what it prints goes to the terminal. True where it finished, False where it was stopped.

    Raises:
      UserError: it failed.
    """
    cache = {"JAX_COMPILATION_CACHE_DIR": str(root / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1"}
    environment = cache | os.environ | {launch.PARENT: str(os.getpid())}
    process, told = subprocess.Popen(command(root, stage), env=environment), False
    while process.poll() is None:
        if stop.signal == signal.SIGTERM and not told:  # SIGINT reaches the stage from the terminal
            process.terminate()
            told = True
        time.sleep(0.2)
    if process.returncode:
        raise UserError(f"stage {stage.name} failed with exit code {process.returncode}; what it printed says why")
    return (root / stage.name / stage.result).exists()


def show_plan(root: Path, stages: Sequence[Stage], state: dict[str, str]) -> None:
    """Print the stages, what is done of them, what they need, and their commands."""
    for place, stage in enumerate(stages, start=1):
        needs = f", after {', '.join(stage.needs)}" if stage.needs else ""
        line = " ".join(
            ["python", f"experiments/{stage.experiment}.py", "--workdir", str(root / stage.name), *stage.options]
        )
        launch.console.print(f"{place:2d} [bold]{stage.name}[/]: {state[stage.name]}{needs}\n   {line}", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config)
