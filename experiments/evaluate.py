"""Evaluate a policy on countdown: pass@1 over k samples with a 95% interval, pass@k, majority vote, behaviour."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from r1jax import launch
from r1jax.data.prompts import r1_zero_prompt
from r1jax.evaluation import comparison_table, evaluation_batches, summarize
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.metrics import write_json
from r1jax.policy import load_policy
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.rewards.verdict import judge_inline
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import countdown_reward, draw_problems


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluation on countdown."""

    workdir: str = "runs/evaluate"
    """evaluation.json goes here."""
    init: str | None = None
    """Workdir of the stage to evaluate; by default the base model that comes with the package."""
    seed: int = 0
    """All noise of sampling follows from it."""
    levels: tuple[Literal[1, 2, 3], ...] = (1, 2)
    """Countdown levels: level L offers L + 2 numbers."""
    split: Literal["held_out", "train"] = "held_out"
    """Which problems: those kept out of corpus and training, or those trained on."""
    problems: int = 512
    """Problems, the same ones for every seed."""
    sampling: SamplingConfig = SamplingConfig(prompts=32, prompt_slots=12, max_new_tokens=128, halvings=2)
    """group_size is the number of samples a problem (k)."""
    mesh: MeshConfig = MeshConfig()


def main(config: Config) -> None:
    mesh = make_mesh(config.mesh)
    config.sampling.check(mesh)
    policy = load_policy(config.init or BASE_MODEL, mesh)
    drawn = draw_problems(config.levels, config.split, config.problems, np.random.default_rng(0))
    records, prompts = [p.record for p in drawn], [r1_zero_prompt(p.question) for p in drawn]
    submit, groups = partial(judge_inline, {"accuracy": countdown_reward, "format": format_reward}), []
    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        task = progress.add_task("evaluate", total=len(prompts), figures="")
        sampler = make_sampler(policy.model, config.sampling, mesh, eos_id=policy.tokenizer.eos_id)
        sample = partial(sampler, (policy.params, policy.router_bias))
        for batch in evaluation_batches(
            sample, policy.tokenizer, config.sampling, seed=config.seed, submit=submit, records=records, prompts=prompts
        ):
            groups += batch
            progress.update(task, completed=len(groups))
            if stop:
                raise launch.Interrupted("stopped; nothing was written. To start over:")
    result = summarize(records, groups, extract_answer)
    path = Path(config.workdir) / "evaluation.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"result": result, "config": dataclasses.asdict(config), "policy": policy.parent.provenance})
    launch.console.print(comparison_table({config.split.replace("_", " "): result}))
    launch.console.print(f"written to {path}", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config)
