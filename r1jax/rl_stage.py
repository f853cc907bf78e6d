"""A stage of reinforcement learning, from the policy it starts from to its report. What is learned is the caller's."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from r1jax import checkpoint, launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.critic import Critic
from r1jax.doctor import diagnose
from r1jax.evaluation import comparison_table, evaluation_batches, sample_record, summarize
from r1jax.generation.sampler import make_sampler
from r1jax.grpo_config import GrpoConfig
from r1jax.hosts import any_host, is_first, on_first
from r1jax.metrics import JsonLines, read_json, read_json_lines, write_json
from r1jax.mismatch import is_alarming, warning
from r1jax.models.config import Dtype
from r1jax.optimizer import make_optimizer
from r1jax.policy import Policy, freeze, load_policy, start_reference, start_training
from r1jax.provenance import provenance
from r1jax.report import write_report
from r1jax.rewards.answer import final_answer
from r1jax.rewards.verdict import Submit
from r1jax.rl import grpo_batch_loss
from r1jax.rl_loop import Advantages, Asked, Loss, Reward, group_relative, make_grpo_iteration
from r1jax.sharding import MeshConfig, in_memory, make_mesh

SHOWN_PROBLEMS = 12  # held-out problems whose responses before and after are kept in samples.jsonl

Ask = Callable[[int | None, str, int, np.random.Generator], Asked]
"""(iteration or None, split, count, rng) -> so many problems of a split; None asks for all that is evaluated."""


@dataclasses.dataclass(frozen=True)
class RlStageConfig:
    """What every stage of reinforcement learning can be told."""

    grpo: GrpoConfig
    workdir: str
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    init: str | None = None
    """Workdir of the stage to start from; by default the base model that comes with the package."""
    seed: int = 0
    """Draws training problems and all noise of sampling."""
    evaluation_problems: int = 512
    """Held-out problems before and after, grpo.group_size samples each."""
    training_problems: int = 128
    """Training problems evaluated after training, to set beside the held-out ones."""
    save_every: int = 10
    """Iterations between checkpoints."""
    allow_unsafe_exec: bool = False
    """Run the policy's programs without isolation where this host offers none."""
    dtype: Dtype | None = None
    """Of activations and matrix products, in this stage and those after it; by default the parent's. Parameters stay
    float32."""
    mesh: MeshConfig = MeshConfig()


def run_rl_stage(
    config: RlStageConfig,
    experiment: str,
    *,
    init: str,
    ask: Ask,
    submit: Submit,
    reward: Reward,
    loss: Loss = grpo_batch_loss,
    advantages_of: Advantages = group_relative,
    make_critic: Callable[[Policy, jax.sharding.Mesh], Critic] | None = None,
) -> None:
    """Evaluate a policy, train it by GRPO on `reward`, evaluate it again, report. Resumes, and stops on request.

    Args:
      config: of the stage.
      experiment: its name.
      init: workdir of the policy to start from.
      ask: draws problems.
      submit: begins to judge; see `make_grpo_iteration`.
      reward, loss, advantages_of: see `make_grpo_iteration`.
      make_critic: makes what tells advantages in their place, from the policy; saved and resumed with it.

    Raises:
      UserError: a setting, the parent or the workdir does not fit.
      Interrupted: the run was asked to stop, and has been saved.
    """
    began, grpo, mesh = time.monotonic(), config.grpo, make_mesh(config.mesh)
    grpo.check(mesh)
    if min(config.evaluation_problems, config.training_problems) < 2:
        raise UserError("--evaluation-problems and --training-problems must be 2 or more")
    policy = load_policy(init, mesh, dtype=config.dtype)
    workdir = on_first(claim_workdir, config.workdir, experiment, config)
    if on_first((workdir / "summary.json").exists):
        return on_first(show, workdir)
    on_first(policy.tokenizer.save, workdir)
    facts = {"model": to_dict(policy.model), "run": provenance(experiment, config, policy.parent.provenance)}
    held_out = ask(None, "held_out", config.evaluation_problems, np.random.default_rng(0))
    training = ask(None, "train", config.training_problems, np.random.default_rng(0))

    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        manager = checkpoint.open_checkpoints(workdir)
        optimizer = make_optimizer(grpo.optimizer, grpo.iterations * grpo.mini_batches)
        state, shardings, start = start_training(policy, optimizer, mesh, manager)
        keep = partial(in_memory, "pinned_host" if grpo.offload_reference else "device")
        reference = keep(start_reference(policy.model, state, manager))
        critic = make_critic(policy, mesh) if make_critic else None
        if critic and start is not None:
            critic.resume(manager)
        log_to = lambda name: workdir / name if is_first() else None
        samples = JsonLines(log_to("samples.jsonl"), resume_step=-1 if start is None else start)
        log = JsonLines(log_to("metrics.jsonl"), resume_step=start or 0)
        sampler = make_sampler(policy.model, grpo.sampling, mesh, eos_ids=policy.tokenizer.eos_ids)
        evaluate = partial(evaluate_policy, config, policy.tokenizer, samples, progress, stop, submit)

        def save(step: int, *, wait: bool) -> None:
            arrays = state._asdict() | {"reference": reference} | (critic.arrays() if critic else {})
            checkpoint.save(manager, step, arrays=arrays, facts=facts, wait=wait)

        if start is None:
            ready, start = time.monotonic(), 0
            before = evaluate("before", 0, partial(sampler, in_memory("device", reference)), held_out)
            seconds = {"startup": ready - began, "before": time.monotonic() - ready}
            on_first(write_json, workdir / "before.json", before | {"seconds": seconds})
            save(0, wait=True)

        options, alarmed = {"seed": config.seed, "submit": submit, "reward": reward, "loss": loss}, False
        options["advantages_of"] = critic or advantages_of
        iteration = make_grpo_iteration(policy, optimizer, shardings, mesh, grpo, **options)
        task = progress.add_task("train", total=grpo.iterations, completed=start, figures="")
        for step in range(start + 1, grpo.iterations + 1):
            more = partial(ask_training, config, ask, step)
            state, metrics, experience = iteration(state, reference, step, more(0), more)
            asked, groups, worst_tokens = experience
            if int(state.update) % grpo.reference_every == 0:
                reference = keep(freeze(policy.model, state))
            if step == 1:
                limit = grpo.sampling.max_new_tokens
                metrics["doctor"] = diagnose(asked.prompts, groups, metrics, max_new_tokens=limit)
                for line in metrics["doctor"] or ["nothing found that would keep the reward flat"]:
                    progress.console.print(f"[yellow]doctor:[/] {line}")
            log.write({"step": step, "update": int(state.update)} | metrics)
            samples.write(sample_record(step, "train", 0, asked.prompts[0], asked.records[0], groups[0][0]))
            alarmed = sound_alarm(config, policy, samples, progress.console, alarmed, step, metrics, worst_tokens)
            progress.update(task, completed=step, figures=live_figures(metrics))
            stopping = any_host(bool(stop))
            last = stopping or step == grpo.iterations
            if last or step % config.save_every == 0:
                save(step, wait=last)
            if stopping:
                on_first(write_report, workdir)
                raise launch.Interrupted

        evaluating, sample = time.monotonic(), partial(sampler, (state.params, state.router_bias))
        after = evaluate("after", grpo.iterations + 1, sample, held_out)
        on_training = evaluate("training problems", grpo.iterations + 1, sample, training)
    seconds = {"after": time.monotonic() - evaluating}
    on_first(write_summary, workdir, {"after": after, "training": on_training}, seconds)
    on_first(show, workdir)


def ask_training(config: RlStageConfig, ask: Ask, step: int, extra: int) -> Asked:
    """Problems of an iteration; of extra batches, counted from 1, other ones that follow from seed, step and number."""
    seeds = (config.seed, step, extra) if extra else (config.seed, step)
    return ask(step, "train", config.grpo.sampling.prompts, np.random.default_rng(seeds))


def sound_alarm(
    config: RlStageConfig, policy: Policy, samples: JsonLines, console, alarmed: bool, step: int, metrics, worst_tokens
) -> bool:
    """Whether sampler and trainer differ alarmingly; if so keep the worst tokens, and say it where it is new."""
    alarm = config.grpo.mismatch_alarm
    if not is_alarming(metrics, alarm):
        return False
    samples.write({"step": step, "phase": "mismatch", "tokens": worst_tokens})
    if not alarmed:
        line = warning(metrics, alarm, dtype=policy.model.dtype, replaying=config.grpo.replay_routing)
        console.print(f"[yellow]mismatch:[/] {line}")
    return True


def evaluate_policy(
    config: RlStageConfig,
    tokenizer,
    samples: JsonLines,
    progress,
    stop,
    submit: Submit,
    phase: str,
    step: int,
    sample,
    asked: Asked,
) -> dict:
    """Judge a group of responses to every problem asked; keep some in samples.jsonl; summarise."""
    task, groups = progress.add_task(f"evaluate {phase}", total=len(asked.prompts), figures=""), []
    options = {"seed": config.seed, "submit": submit, "records": asked.records, "prompts": asked.prompts}
    for batch in evaluation_batches(sample, asked.codec or tokenizer, config.grpo.sampling, **options):
        groups += batch
        progress.update(task, completed=len(groups))
        if any_host(bool(stop)):
            raise launch.Interrupted
    for index in range(min(SHOWN_PROBLEMS, len(groups))):
        prompt, record = asked.prompts[index], asked.records[index]
        samples.write(sample_record(step, phase, index, prompt, record, groups[index][0]))
    return summarize(asked.records, groups, lambda text: final_answer(text).text)


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
