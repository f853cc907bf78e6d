"""R1-Zero on countdown with a reward for every step besides that for the outcome (DeepSeekMath, section 4.1.3).

A step is a check, `3 * 4 = 12 no`, worth 1 where its value and its mark are right and it was not made before; the last
step is the end of the response, worth accuracy plus format. A rule judges the steps here, so that what is compared is
where the reward is given, and not how well a learned judge of steps holds.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the experiment it varies

from experiments import r1_zero
from r1jax import launch
from r1jax.data.tokenizer import Tokenizer, load_tokenizer
from r1jax.objectives import process_advantages
from r1jax.rl_loop import Scored
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.behaviour import check_ends, read_checks


@dataclasses.dataclass(frozen=True)
class Config(r1_zero.Config):
    """R1-Zero with process rewards."""

    workdir: str = "runs/process_reward"
    """Checkpoints, metrics, samples, summary and report go here; a stopped run resumes from here."""


def by_steps(tokenizer: Tokenizer, scored: Scored, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Advantages of tokens from the rewards of the steps that end at them or later; [P, G, T]."""
    (prompts, group), length = scored.rewards.rewards.shape, scored.rows.mask.shape[1]
    shape = (prompts, group, length // 4 + 1)  # a check takes four tokens or more
    rewards, ends, known = np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    for place in np.ndindex(prompts, group):
        row = place[0] * group + place[1]
        ids, text = scored.rows.tokens[row][scored.rows.mask[row]], scored.groups[place[0]][place[1]].text
        checks = read_checks(text, scored.asked.records[place[0]]["target"])[: shape[2] - 1]
        count = len(checks) + 1
        rewards[place][:count] = [*(c.right and not c.repeated for c in checks), scored.rewards.rewards[place]]
        ends[place][:count] = [*check_ends(tokenizer.decode, ids, text, checks), len(ids) - 1]
        known[place][:count] = scored.rewards.known[place]
    return np.asarray(process_advantages(rewards, ends, known, length=length)), {}


def main(config: Config) -> None:
    advantages_of = partial(by_steps, load_tokenizer(config.init or BASE_MODEL))
    r1_zero.run(config, "process_reward", r1_zero.rule_reward, advantages_of=advantages_of)


if __name__ == "__main__":
    launch.run(main, Config)
