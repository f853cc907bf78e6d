"""R1-Zero with advantages that are not divided by their group's standard deviation (Dr. GRPO, arXiv 2503.20783)."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the experiment it varies

from experiments import r1_zero
from r1jax import launch
from r1jax.objectives import group_advantages
from r1jax.rl_loop import Scored


@dataclasses.dataclass(frozen=True)
class Config(r1_zero.Config):
    """R1-Zero without the standard deviation."""

    workdir: str = "runs/no_std"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""


def centred(scored: Scored, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Rewards less the mean of their group; [P, G]."""
    return np.asarray(group_advantages(scored.rewards.rewards, scored.rewards.known, scale="none")), {}


def main(config: Config) -> None:
    r1_zero.run(config, "no_std", r1_zero.rule_reward, advantages_of=centred)


if __name__ == "__main__":
    launch.run(main, Config)
