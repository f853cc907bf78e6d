"""PPO in the place of GRPO: a value model tells advantages token by token (DeepSeek-R1, supplement A.3, figure 4)."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the experiment it varies

from experiments import r1_zero
from r1jax import launch
from r1jax.critic import Critic, CriticConfig, ppo_batch_loss


@dataclasses.dataclass(frozen=True)
class Config(r1_zero.Config):
    """R1-Zero by PPO."""

    workdir: str = "runs/ppo"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""
    critic: CriticConfig = CriticConfig()


def main(config: Config) -> None:
    make_critic = lambda policy, mesh: Critic(policy, mesh, config.critic, config.grpo)
    r1_zero.run(config, "ppo", r1_zero.rule_reward, loss=ppo_batch_loss, make_critic=make_critic)


if __name__ == "__main__":
    launch.run(main, Config)
