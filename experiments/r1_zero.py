"""R1-Zero: reinforcement learning from a base model by outcome and format reward alone, without supervised fine-tuning.

DeepSeek-R1 (arXiv 2501.12948), section 2.2. Without options it starts from the small base model that comes with the
package, trains on countdown problems for some minutes on two CPU cores, and compares accuracy, length and behaviour
before and after on held-out problems.
"""

import dataclasses
from functools import partial
from typing import Literal

import numpy as np

from r1jax import launch
from r1jax.data.prompts import r1_zero_prompt
from r1jax.data.tokenizer import load_tokenizer
from r1jax.evaluation import Response
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.evaluation.problems import PromptForm
from r1jax.evaluation.problems import ask as put
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.rewards.combine import GroupRewards, Term, combine_groups
from r1jax.rewards.format import format_reward
from r1jax.rewards.verdict import judge_inline
from r1jax.rl_loop import Asked, Reward
from r1jax.rl_stage import RlStageConfig, run_rl_stage
from r1jax.tasks import BASE_MODEL, STUDENT_MODEL, WORLD_MODEL
from r1jax.tasks.countdown import countdown_reward, draw_problems
from r1jax.tasks.families import draw_records, read_parts

TERMS = {"accuracy": Term(), "format": Term()}


@dataclasses.dataclass(frozen=True)
class Config(RlStageConfig):
    """R1-Zero."""

    workdir: str = "runs/r1_zero"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    levels: tuple[Literal[1, 2, 3], ...] = (1, 2)
    """Countdown levels to train and evaluate on: level L offers L + 2 numbers."""
    parts: tuple[str, ...] = ()
    """Families and levels to train and evaluate on instead, in turn, such as countdown:1:zh or chains:2."""
    prompt: PromptForm = "r1_zero"
    """How the questions of `parts` are put: R1-Zero's template, the later stages' plain one, the released R1's, or the
    chat template of the model that --init names."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_updates=5, weight_decay=0.0),
        sampling=SamplingConfig(prompts=32, prompt_slots=12, max_new_tokens=128, halvings=2),
        iterations=60,
        mini_batches=2,
        micro_batches=4,
        reference_every=50,
    )


WORLD_PARTS = (
    "countdown:1", "countdown:2", "chains:2", "functions:3", "countdown:1", "countdown:2", "chains:3", "functions:2"
)  # fmt: skip
WORLD = Config(
    workdir="runs/world_r1_zero",
    init=WORLD_MODEL,
    parts=WORLD_PARTS,
    grpo=dataclasses.replace(
        Config().grpo,
        optimizer=dataclasses.replace(Config().grpo.optimizer, schedule="cosine"),
        sampling=SamplingConfig(prompts=32, prompt_slots=24, max_new_tokens=128, halvings=2),
        iterations=45,
    ),
    evaluation_problems=128,
    training_problems=64,
)
STUDENT = dataclasses.replace(
    WORLD,
    workdir="runs/student_rl",
    init=STUDENT_MODEL,
    grpo=dataclasses.replace(WORLD.grpo, iterations=25),
)
PAPER = Config(
    parts=WORLD_PARTS,
    grpo=GrpoConfig(optimizer=OptimizerConfig(learning_rate=3e-6), iterations=650),
)
"""The paper's settings (Nature 645:633, Methods): 10,400 updates are 650 rollouts of 16."""
CHAT_MODEL = Config(
    workdir="runs/chat_model",
    parts=("sums:1",),
    prompt="template",
    grpo=GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_updates=2, weight_decay=0.0),
        sampling=SamplingConfig(prompts=16, group_size=8, prompt_slots=44, max_new_tokens=8),
        iterations=10,
        mini_batches=4,
        reference_every=400,
    ),
    evaluation_problems=16,
    training_problems=16,
    save_every=5,
)
"""A small chat model that was trained elsewhere, such as SmolLM2-135M-Instruct, on sums of two one-digit numbers."""
PRESETS = {"countdown": Config(), "chat_model": CHAT_MODEL, "world": WORLD, "student": STUDENT, "paper": PAPER}


def rule_reward(step: int, asked: Asked, groups: list[list[Response]], rng: np.random.Generator) -> GroupRewards:
    """Accuracy plus format, with the same weight (Nature 645:633, eq. 4); [P, G] in {0, 1, 2}."""
    return combine_groups([[response.judgements for response in group] for group in groups], TERMS)


def main(config: Config) -> None:
    run(config, "r1_zero", rule_reward)


def run(config: Config, experiment: str, reward: Reward, **more) -> None:
    """Train on `reward`: countdown, whose judges take microseconds and are called here, or any families in a pool.

    `more` goes to `run_rl_stage`: another loss, other advantages.
    """
    stage = partial(run_rl_stage, config, experiment, init=config.init or BASE_MODEL, reward=reward, **more)
    if not config.parts:

        def ask(step: int | None, split: str, count: int, rng: np.random.Generator) -> Asked:
            drawn = draw_problems(config.levels, split, count, rng)
            return Asked([p.record for p in drawn], [r1_zero_prompt(p.question) for p in drawn])

        return stage(ask=ask, submit=partial(judge_inline, {"accuracy": countdown_reward, "format": format_reward}))
    parts, tokenizer = read_parts(config.parts), load_tokenizer(config.init or BASE_MODEL)

    def ask_parts(step: int | None, split: str, count: int, rng: np.random.Generator) -> Asked:
        records = draw_records(parts, split, count, rng)
        asked = put(config.prompt, records, tokenizer, config.grpo.sampling.prompt_slots)
        return Asked(asked.records, asked.prompts, asked)

    examples, unsafe = [part.draw(np.random.default_rng(0)) for part in parts], config.allow_unsafe_exec
    judges = judges_of(config.prompt, language=True, allow_unsafe=unsafe)
    with open_judges(judges, examples, workers=2, allow_unsafe=unsafe) as submit:
        stage(ask=ask_parts, submit=submit)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
