"""All of DeepSeek-R1 as one chain: R1-Zero, and the four stages to R1, distillation, evaluation, one report.

Every stage is an experiment of its own, run as a process with the options shown by `--dry-run`; stages hand workdirs to
each other. What is done is kept, what was stopped goes on, and what changed is run again, with all that depends on it.
"""

import dataclasses
from pathlib import Path

from r1jax import launch
from r1jax.chain import Stage, chosen, run_stages, show_plan, stage_states
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
        Stage("rejection_sampling", "rejection_sampling", ("--init", at("reasoning_rl"), *few), ("reasoning_rl",)),
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
        needs = (name,) if name in {stage.name for stage in stages} else ()
        stages.append(Stage(f"evaluate_{name}", "evaluate", options, needs))
    return [stage._replace(options=(*stage.options, "--seed", str(config.seed))) for stage in stages]


FAST_RL = (
    "--grpo.iterations 2 --grpo.sampling.prompts 8 --grpo.sampling.group-size 4 --grpo.micro-batches 2 "
    "--evaluation-problems 8 --training-problems 8"
).split()
FAST_DATA = "--data.problems 64".split()


def main(config: Config) -> None:
    root, stages = Path(config.workdir), plan(config)
    wanted = chosen(stages, config.only)
    if config.dry_run:
        return show_plan(root, wanted, stage_states(root, stages, EXPERIMENTS))
    done = run_stages(root, stages, wanted, EXPERIMENTS)
    (root / "table.md").write_text(chain_table(root) + "\n")
    launch.console.print(chain_table(root), soft_wrap=True, markup=False)
    launch.console.print(
        f"{sum(d['seconds'] for d in done.values()):.0f} s; report: {write_chain_report(root)}", soft_wrap=True
    )


if __name__ == "__main__":
    launch.run(main, Config)
