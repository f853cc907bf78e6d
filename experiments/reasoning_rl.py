"""Reasoning RL (Dev2): GRPO from the cold start, with accuracy, format and language consistency.

DeepSeek-R1 (Nature 645:633, Methods, first RL stage): the rewards of R1-Zero plus the share of the reasoning's words
that are in the language of the question, added directly (eq. 7); clip range 10; the reference renewed every 400 updates.
"""

import dataclasses

import numpy as np

from r1jax import launch
from r1jax.data.prompts import chat_prompt
from r1jax.evaluation import Response
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.rewards.combine import GroupRewards, Term, combine_groups
from r1jax.rl_loop import Asked
from r1jax.rl_stage import RlStageConfig, run_rl_stage
from r1jax.tasks.families import draw_records, read_parts


@dataclasses.dataclass(frozen=True)
class Config(RlStageConfig):
    """Reasoning RL."""

    workdir: str = "runs/reasoning_rl"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    init: str = "runs/cold_start"
    """Workdir of the stage to start from."""
    parts: tuple[str, ...] = (
        "countdown:1", "countdown:2", "chains:2", "countdown:2", "countdown:1", "chains:3", "functions:1", "functions:3",
    )  # fmt: skip
    """Families and levels to train and evaluate on, in turn."""
    language_weight: float = 1.0
    """Weight of language consistency beside accuracy and format; 0 for the ablation without it."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=2e-4, schedule="cosine", warmup_updates=5, weight_decay=0.0),
        sampling=SamplingConfig(prompts=32, prompt_slots=24, max_new_tokens=128, halvings=2),
        iterations=32,
        mini_batches=2,
        micro_batches=4,
        clip_epsilon=0.2,
        reference_every=50,
    )
    evaluation_problems: int = 128
    """Held-out problems before and after, grpo.group_size samples each."""
    training_problems: int = 64
    """Training problems evaluated after training, to set beside the held-out ones."""


PRESETS = {
    "miniature": Config(),
    "paper": Config(
        grpo=GrpoConfig(optimizer=OptimizerConfig(learning_rate=3e-6), iterations=650, clip_epsilon=10.0),
    ),
}
"""The number of updates of this stage is not published; 650 rollouts are R1-Zero's."""


def main(config: Config) -> None:
    parts = read_parts(config.parts)
    terms = {"accuracy": Term(), "format": Term(), "language": Term(config.language_weight)}

    def ask(step: int | None, split: str, count: int, rng: np.random.Generator) -> Asked:
        records = draw_records(parts, split, count, rng)
        return Asked(records, [chat_prompt(record["question"]) for record in records])

    def reward(step: int, asked: Asked, groups: list[list[Response]], rng: np.random.Generator) -> GroupRewards:
        return combine_groups([[response.judgements for response in group] for group in groups], terms)

    examples, unsafe = [part.draw(np.random.default_rng(0)) for part in parts], config.allow_unsafe_exec
    judges = judges_of("chat", language=True, allow_unsafe=unsafe)
    with open_judges(judges, examples, workers=2, allow_unsafe=unsafe) as submit:
        run_rl_stage(config, "reasoning_rl", init=config.init, ask=ask, submit=submit, reward=reward)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
