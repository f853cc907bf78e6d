"""R1-Zero with a coin for a reward: the same run must not get better, or the gain was not caused by the reward."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the experiment it varies

from experiments import r1_zero
from r1jax import launch
from r1jax.rewards.combine import GroupRewards


@dataclasses.dataclass(frozen=True)
class Config(r1_zero.Config):
    """R1-Zero on countdown with a random reward."""

    workdir: str = "runs/random_reward"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""


def random_reward(step, asked, groups, rng: np.random.Generator) -> GroupRewards:
    """0 or 1 with equal chance, whatever the response; [P, G]."""
    coins = rng.integers(0, 2, (len(groups), len(groups[0]))).astype(np.float32)
    return GroupRewards(coins, np.ones(coins.shape, bool), {})


def main(config: Config) -> None:
    r1_zero.run(config, "random_reward", random_reward)


if __name__ == "__main__":
    launch.run(main, Config)
