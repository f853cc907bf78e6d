"""General RL (R1): GRPO from the second fine-tuning, with rule rewards for reasoning and reward models for the rest.

DeepSeek-R1 (Nature 645:633, Methods, second RL stage, eq. 8-10): accuracy and format for reasoning, a reward model and
format for general prompts, language consistency for all; temperature 0.7. General prompts and preference rewards come
only in the last part of the stage (400 of 1,700 updates): optimised for longer, the policy learns to please the reward
model at the cost of reasoning.
"""

import dataclasses

import numpy as np

from r1jax import launch
from r1jax.config import UserError
from r1jax.data.prompts import chat_prompt
from r1jax.evaluation import Response
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.reward_model import Scorer, load_reward_model, make_scorer
from r1jax.rewards.combine import Combined, GroupRewards, Term, combine, group_rewards
from r1jax.rl_loop import Asked
from r1jax.rl_stage import RlStageConfig, run_rl_stage
from r1jax.sharding import make_mesh
from r1jax.tasks.families import Part, draw_records, read_parts

REASONING = {"accuracy": Term(), "format": Term(), "language": Term()}
GENERAL = {"format": Term(), "language": Term()}
"""The rule that defines helpfulness in the miniature is logged as "accuracy" and never rewarded."""


@dataclasses.dataclass(frozen=True)
class Config(RlStageConfig):
    """General RL."""

    workdir: str = "runs/general_rl"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    init: str = "runs/sft"
    """Workdir of the stage to start from."""
    helpful: str = "runs/helpful_rm"
    """Workdir of the reward model of helpfulness."""
    safe: str = "runs/safety_rm"
    """Workdir of the reward model of safety."""
    reasoning_parts: tuple[str, ...] = (
        "countdown:1",
        "countdown:2",
        "chains:2",
        "countdown:2",
        "chains:3",
        "functions:3",
    )
    """Families and levels judged by rules; none: general prompts alone, which shows what pleasing a reward model costs."""
    general_parts: tuple[str, ...] = ("requests:1", "safety:1", "requests:2", "safety:2", "requests:3")
    """Families and levels judged by reward models: safety by the one of safety, others by the one of helpfulness."""
    preferences_from: int = 16
    """First iteration with general prompts and preference rewards."""
    scored_length: int = 160
    """Tokens of a prompt and a response that the reward models read."""
    grpo: GrpoConfig = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_updates=5, weight_decay=0.0),
        sampling=SamplingConfig(
            prompts=32, prompt_slots=24, max_new_tokens=128, temperature=0.7, halvings=2
        ),
        iterations=40,
        mini_batches=2,
        micro_batches=4,
        reference_every=50,
    )  # fmt: skip
    evaluation_problems: int = 128
    """Held-out problems before and after, grpo.group_size samples each."""
    training_problems: int = 64
    """Training problems evaluated after training, to set beside the held-out ones."""


PRESETS = {
    "miniature": Config(),
    "paper": Config(
        grpo=GrpoConfig(
            optimizer=OptimizerConfig(learning_rate=3e-6), sampling=SamplingConfig(temperature=0.7),
            iterations=106, clip_epsilon=10.0,
        ),
        preferences_from=82, scored_length=34_000,
    ),
}  # fmt: skip
"""1,700 updates are 106 rollouts of 16; the last 400 updates, 25 rollouts, have preference rewards."""


def main(config: Config) -> None:
    reasoning, general = read_parts(config.reasoning_parts), read_parts(config.general_parts)
    if config.preferences_from < 1 or (config.preferences_from > 1 and not reasoning):
        raise UserError(
            f"--preferences-from must be 1 or more, and 1 without --reasoning-parts, not {config.preferences_from}"
        )
    together = alternating(reasoning, general)
    mesh = make_mesh(config.mesh)
    models = {"helpful": load_reward_model(config.helpful, mesh), "safety": load_reward_model(config.safe, mesh)}
    size = {"batch": config.grpo.rows_at_a_time, "length": config.scored_length}
    scorers = {kind: make_scorer(model, mesh, **size) for kind, model in models.items()}

    def ask(step: int | None, split: str, count: int, rng: np.random.Generator) -> Asked:
        parts = together if step is None or step >= config.preferences_from else reasoning
        records = draw_records(parts, split, count, rng)
        return Asked(records, [chat_prompt(record["question"]) for record in records])

    def reward(step: int, asked: Asked, groups: list[list[Response]], rng: np.random.Generator) -> GroupRewards:
        return mixed_rewards(asked, groups, scorers, {part.family.name for part in general})

    examples, unsafe = [part.draw(np.random.default_rng(0)) for part in reasoning + general], config.allow_unsafe_exec
    judges = judges_of("chat", language=True, allow_unsafe=unsafe)
    with open_judges(judges, examples, workers=2, allow_unsafe=unsafe) as submit:
        run_rl_stage(config, "general_rl", init=config.init, ask=ask, submit=submit, reward=reward)


def alternating(reasoning: list[Part], general: list[Part]) -> list[Part]:
    """Half of either, as many as the shorter has; general parts alone where there is no reasoning."""
    return [part for pair in zip(reasoning, general) for part in pair] if reasoning else general


def mixed_rewards(
    asked: Asked, groups: list[list[Response]], scorers: dict[str, Scorer], general: set[str]
) -> GroupRewards:
    """Rules for reasoning (eq. 8, 9); for general prompts a reward model's score, format and language (eq. 10).

    Args:
      asked, groups: P problems and their judged responses.
      scorers: "safety" for prompts of that family, "helpful" for other general ones; the score goes through a sigmoid.
      general: families without a rule for a reward.
    """
    kinds = [_kind(record) if record["family"] in general else None for record in asked.records]
    preferences: dict[int, list[float]] = {}
    for kind, scorer in scorers.items():
        if places := [place for place, other in enumerate(kinds) if other == kind]:
            prompts = [asked.prompts[place] for place in places for _ in groups[place]]
            scores = scorer(prompts, [response.text for place in places for response in groups[place]])
            squashed = (1 / (1 + np.exp(-scores))).reshape(len(places), -1)
            preferences |= dict(zip(places, squashed.tolist(), strict=True))

    def combined(place: int, group: list[Response]) -> list[Combined]:
        if (kind := kinds[place]) is None:
            return [combine(response.judgements, REASONING) for response in group]
        rules = [combine(response.judgements, GENERAL) for response in group]
        return [rule.plus(kind, score) for rule, score in zip(rules, preferences[place], strict=True)]

    return group_rewards(combined(place, group) for place, group in enumerate(groups))


def _kind(record: dict) -> str:
    """Which reward model judges a general prompt."""
    return "safety" if record["family"] == "safety" else "helpful"


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
