"""R1-Zero: reinforcement learning from a base model by outcome and format reward alone, without supervised fine-tuning.

DeepSeek-R1 (arXiv 2501.12948), section 2.2. Without options it starts from the small base model that comes with the
package, trains on countdown problems for about ten minutes on two CPU cores, and compares accuracy, length and
behaviour before and after on held-out problems.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import checkpoint, launch, metrics as records_io
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.prompts import r1_zero_prompt
from r1jax.data.tokenizer import load_tokenizer
from r1jax.evaluation import Response
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import init_params
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.rl_loop import GrpoConfig, evaluate_policy, make_grpo_iteration, make_sampler
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import Problem, countdown_reward, problems
from r1jax.train import init_train_state

JUDGES = {"accuracy": countdown_reward, "format": format_reward}


@dataclasses.dataclass(frozen=True)
class Config:
    """R1-Zero on countdown."""

    workdir: str = "runs/r1_zero"
    """Checkpoints, metrics.jsonl, samples.jsonl, summary.json and report.html go here; a stopped run resumes from here."""
    init: str = BASE_MODEL
    """Workdir of the stage to start from; by default the base model that comes with the package."""
    seed: int = 0
    levels: tuple[int, ...] = (1, 2)
    """Countdown levels to train and evaluate on: level L offers L + 2 numbers."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_updates=5, weight_decay=0.0),
        iterations=100,
        prompts=32,
        mini_batches=2,
        micro_batches=4,
        prompt_slots=12,
        max_new_tokens=128,
        reference_every=50,
        halvings=2,
    )
    evaluation_problems: int = 512
    """Held-out problems before and after, grpo.group_size samples each."""
    training_problems: int = 128
    """Training problems evaluated after training, to set beside the held-out ones."""
    save_every: int = 10
    """Iterations between checkpoints."""
    mesh: MeshConfig = MeshConfig()


def rule_reward(groups: list[list[Response]], rng: np.random.Generator) -> np.ndarray:
    """Accuracy plus format, with the same weight (eq. 4 of the Nature version); [P, G] in {0, 1, 2}."""
    return np.array([[sum(j.score for j in r.judgements.values()) for r in group] for group in groups], np.float32)


def draw(pool: list[Problem], count: int, rng: np.random.Generator) -> list[Problem]:
    """`count` different problems, as many of each level as possible, their numbers in random order."""
    levels = sorted({problem.level for problem in pool})
    by_level = [[p for p in pool if p.level == level] for level in levels]
    chosen = [by_level[i % len(levels)] for i in range(count)]
    picks = [problems_of_level[rng.integers(len(problems_of_level))] for problems_of_level in chosen]
    return [p._replace(numbers=tuple(int(n) for n in rng.permutation(p.numbers))) for p in picks]


def main(config: Config) -> None:
    run(config, "r1_zero", rule_reward)


def run(config: Config, experiment: str, reward: Callable[[list[list[Response]], np.random.Generator], np.ndarray]) -> None:
    """Evaluate, train by GRPO on `reward`, evaluate again, report."""
    began = time.monotonic()
    mesh = make_mesh(config.mesh)
    config.grpo.check(mesh)
    parent = checkpoint.open_parent(config.init)
    tokenizer = load_tokenizer(config.init)
    model = ModelConfig(**parent.model)
    workdir = claim_workdir(config.workdir, experiment, config)
    tokenizer.save(workdir)
    grpo = config.grpo
    optimizer = make_optimizer(grpo.optimizer, grpo.iterations * grpo.mini_batches)
    ask = lambda chosen: {"records": [p.record for p in chosen], "prompts": [r1_zero_prompt(p.question) for p in chosen]}
    pool = {split: [p for level in config.levels for p in problems(level, split)] for split in ("train", "held_out")}
    held_out = ask(draw(pool["held_out"], config.evaluation_problems, np.random.default_rng(0)))

    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        state, shardings = init_train_state(jax.random.key(config.seed), functools.partial(init_params, model), optimizer, mesh)
        manager = checkpoint.open_checkpoints(workdir)
        arrays = lambda: state._asdict() | {"reference": reference}
        reference = jax.tree.map(jnp.copy, (state.params, state.router_bias))
        start = manager.latest_step() or 0
        if start:
            items = checkpoint.restore(manager, arrays=arrays())
            reference, state = items.pop("reference"), type(state)(**items)
        else:
            params, bias = checkpoint.load_parent(parent, state.params, state.router_bias)
            state = state._replace(params=params, router_bias=bias)
            reference = jax.tree.map(jnp.copy, (params, bias))
        sampler = make_sampler(model, tokenizer, grpo, mesh)
        evaluate = lambda asked: evaluate_policy(
            functools.partial(sampler, state), tokenizer, grpo, seed=config.seed, judges=JUDGES, **asked
        ).summary(extract_answer)
        if not start:
            t=time.monotonic()
            before = evaluate(held_out)
            print(before, time.monotonic()-t)
        iteration = make_grpo_iteration(
            model, tokenizer, optimizer, shardings, mesh, grpo, seed=config.seed, judges=JUDGES, reward=reward
        )
        log = records_io.JsonLines(workdir / "metrics.jsonl", resume_step=start)
        task = progress.add_task("r1_zero", total=grpo.iterations, completed=start, figures="")
        for step in range(start + 1, grpo.iterations + 1):
            asked = ask(draw(pool["train"], grpo.prompts, np.random.default_rng((config.seed, step))))
            state, metrics, groups = iteration(state, reference, step, **asked)
            log.write({"step": step} | metrics)
            if step % 5 == 0 or step < 4:
                print(step, {k: (round(v, 3) if isinstance(v, float) else v) for k, v in metrics.items()}, round(time.monotonic()-began), flush=True)
                print(groups[1][0].text)
            progress.update(task, completed=step, figures=f"reward {metrics['reward']:.3f}")
            if int(state.update) % grpo.reference_every == 0:
                reference = jax.tree.map(jnp.copy, (state.params, state.router_bias))
        after = evaluate(held_out)
        print(after, time.monotonic()-began)


if __name__ == "__main__":
    launch.run(main, Config)
