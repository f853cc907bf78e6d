"""R1-Zero: reinforcement learning from a base model by outcome and format reward alone, without supervised fine-tuning.

DeepSeek-R1 (arXiv 2501.12948), section 2.2. Without options it starts from the small base model that comes with the
package, trains on countdown problems for some minutes on two CPU cores, and compares accuracy, length and behaviour
before and after on held-out problems.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from r1jax import checkpoint, launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.prompts import r1_zero_prompt
from r1jax.doctor import diagnose
from r1jax.evaluation import Response, comparison_table, evaluation_batches, sample_record, summarize
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.metrics import JsonLines, read_json, read_json_lines, write_json
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import freeze, load_policy, start_training
from r1jax.report import write_report
from r1jax.rewards.combine import GroupRewards, Term, combine_groups
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.rewards.verdict import judge_inline
from r1jax.rl_loop import GrpoConfig, make_grpo_iteration
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import countdown_reward, draw_problems

Reward = Callable[[list[list[Response]], np.random.Generator], GroupRewards]
# Both take microseconds and cannot hang, so they are called in this process; judges that can need a RewardPool.
SUBMIT = partial(judge_inline, {"accuracy": countdown_reward, "format": format_reward})
TERMS = {"accuracy": Term(), "format": Term()}
SHOWN_PROBLEMS = 12  # held-out problems whose responses before and after are kept in samples.jsonl


@dataclasses.dataclass(frozen=True)
class Config:
    """R1-Zero on countdown."""

    workdir: str = "runs/r1_zero"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    init: str | None = None
    """Workdir of the stage to start from; by default the base model that comes with the package."""
    seed: int = 0
    """Draws training problems and all noise of sampling."""
    levels: tuple[Literal[1, 2, 3], ...] = (1, 2)
    """Countdown levels to train and evaluate on: level L offers L + 2 numbers."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_updates=5, weight_decay=0.0),
        sampling=SamplingConfig(prompts=32, prompt_slots=12, max_new_tokens=128, halvings=2),
        iterations=60,
        mini_batches=2,
        micro_batches=4,
        reference_every=50,
    )
    evaluation_problems: int = 512
    """Held-out problems before and after, grpo.group_size samples each."""
    training_problems: int = 128
    """Training problems evaluated after training, to set beside the held-out ones."""
    save_every: int = 10
    """Iterations between checkpoints."""
    mesh: MeshConfig = MeshConfig()


def rule_reward(groups: list[list[Response]], rng: np.random.Generator) -> GroupRewards:
    """Accuracy plus format, with the same weight (Nature 645:633, eq. 4); [P, G] in {0, 1, 2}."""
    return combine_groups([[response.judgements for response in group] for group in groups], TERMS)


def ask(levels: tuple[int, ...], split: str, count: int, rng: np.random.Generator) -> dict:
    """Draw problems of a split, as records for the judges and prompts for the policy."""
    drawn = draw_problems(levels, split, count, rng)
    return {"records": [p.record for p in drawn], "prompts": [r1_zero_prompt(p.question) for p in drawn]}


def main(config: Config) -> None:
    run(config, "r1_zero", rule_reward)


def run(config: Config, experiment: str, reward: Reward) -> None:
    """Evaluate the base, train by GRPO on `reward`, evaluate again, report."""
    began, grpo, mesh = time.monotonic(), config.grpo, make_mesh(config.mesh)
    grpo.check(mesh)
    if min(config.evaluation_problems, config.training_problems) < 2:
        raise UserError("--evaluation-problems and --training-problems must be 2 or more")
    policy = load_policy(config.init or BASE_MODEL, mesh)
    workdir = claim_workdir(config.workdir, experiment, config)
    if (workdir / "summary.json").exists():
        return show(workdir)
    policy.tokenizer.save(workdir)
    origin = {"experiment": experiment, "config": to_dict(config), "parent": policy.parent.provenance}
    facts = {"model": to_dict(policy.model), "run": origin}
    held_out = ask(config.levels, "held_out", config.evaluation_problems, np.random.default_rng(0))
    training = ask(config.levels, "train", config.training_problems, np.random.default_rng(0))

    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        manager = checkpoint.open_checkpoints(workdir)
        optimizer = make_optimizer(grpo.optimizer, grpo.iterations * grpo.mini_batches)
        state, shardings, reference, start = start_training(policy, optimizer, mesh, manager)
        samples = JsonLines(workdir / "samples.jsonl", resume_step=-1 if start is None else start)
        log = JsonLines(workdir / "metrics.jsonl", resume_step=start or 0)
        sampler = make_sampler(policy.model, grpo.sampling, mesh, eos_id=policy.tokenizer.eos_id)
        evaluate = partial(evaluate_policy, config, policy.tokenizer, samples, progress, stop)

        def save(step: int, *, wait: bool) -> None:
            arrays = state._asdict() | {"reference": reference}
            checkpoint.save(manager, step, arrays=arrays, facts=facts, wait=wait)

        if start is None:
            ready, start = time.monotonic(), 0
            before = evaluate("before", 0, partial(sampler, reference), held_out)
            seconds = {"startup": ready - began, "before": time.monotonic() - ready}
            write_json(workdir / "before.json", before | {"seconds": seconds})
            save(0, wait=True)

        options = {"seed": config.seed, "submit": SUBMIT, "reward": reward}
        iteration = make_grpo_iteration(policy, optimizer, shardings, mesh, grpo, **options)
        task = progress.add_task("train", total=grpo.iterations, completed=start, figures="")
        for step in range(start + 1, grpo.iterations + 1):
            asked = ask(config.levels, "train", grpo.sampling.prompts, np.random.default_rng((config.seed, step)))
            state, metrics, groups = iteration(state, reference, step, **asked)
            if int(state.update) % grpo.reference_every == 0:
                reference = freeze(state)
            if step == 1:
                limit = grpo.sampling.max_new_tokens
                metrics["doctor"] = diagnose(asked["prompts"], groups, metrics, max_new_tokens=limit)
                for line in metrics["doctor"] or ["nothing found that would keep the reward flat"]:
                    progress.console.print(f"[yellow]doctor:[/] {line}")
            log.write({"step": step, "update": int(state.update)} | metrics)
            samples.write(sample_record(step, "train", 0, asked["prompts"][0], asked["records"][0], groups[0][0]))
            progress.update(task, completed=step, figures=live_figures(metrics))
            last = bool(stop) or step == grpo.iterations
            if last or step % config.save_every == 0:
                save(step, wait=last)
            if stop:
                write_report(workdir)
                raise launch.Interrupted

        evaluating, sample = time.monotonic(), partial(sampler, (state.params, state.router_bias))
        after = evaluate("after", grpo.iterations + 1, sample, held_out)
        on_training = evaluate("training problems", grpo.iterations + 1, sample, training)
    write_summary(workdir, {"after": after, "training": on_training}, {"after": time.monotonic() - evaluating})
    show(workdir)


def evaluate_policy(
    config: Config, tokenizer, samples: JsonLines, progress, stop, phase: str, step: int, sample, asked
):
    """Judge a group of responses to every problem asked; keep some in samples.jsonl; summarise."""
    task, groups = progress.add_task(f"evaluate {phase}", total=len(asked["prompts"]), figures=""), []
    options = {"seed": config.seed, "submit": SUBMIT}
    for batch in evaluation_batches(sample, tokenizer, config.grpo.sampling, **options, **asked):
        groups += batch
        progress.update(task, completed=len(groups))
        if stop:
            raise launch.Interrupted
    for index in range(min(SHOWN_PROBLEMS, len(groups))):
        prompt, record = asked["prompts"][index], asked["records"][index]
        samples.write(sample_record(step, phase, index, prompt, record, groups[index][0]))
    return summarize(asked["records"], groups, extract_answer)


def live_figures(metrics: dict) -> str:
    """The figures beside the progress bar."""
    reward, accuracy, tokens = (metrics[name] for name in ("reward", "accuracy", "mean_response_tokens"))
    return f"reward {reward:.2f}  accuracy {accuracy:.2f}  tokens {tokens:.0f}"


def write_summary(workdir: Path, summaries: dict[str, dict], seconds: dict[str, float]) -> None:
    """Write summary.json: before, the given summaries, and the seconds of every phase."""
    before = read_json(workdir / "before.json")
    seconds = before.pop("seconds") | seconds
    for record in read_json_lines(workdir / "metrics.jsonl"):
        for phase, value in record["seconds"].items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    seconds["total"] = sum(seconds.values())
    write_json(workdir / "summary.json", {"before": before} | summaries | {"seconds": seconds})


def show(workdir: Path) -> None:
    """Write the report and print the outcome of a finished run."""
    summary = read_json(workdir / "summary.json")
    columns = {
        "held out, before": summary["before"],
        "held out, after": summary["after"],
        "training, after": summary["training"],
    }
    launch.console.print(comparison_table(columns))
    launch.console.print(f"{summary['seconds']['total']:.0f} s; report: {write_report(workdir)}", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config)
