"""A policy's sampler with its settings bound."""

import dataclasses
from functools import partial

import jax
import numpy as np

from r1jax.config import UserError
from r1jax.generation.rollout import Rollout, generate
from r1jax.models.config import ModelConfig
from r1jax.sharding import batch_sharding, check_divides


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn; the defaults are the paper's for R1-Zero's rollouts."""

    prompts: int = 512
    """Questions in flight at a time (512 in the paper: 32 an update times 16 updates)."""
    group_size: int = 16
    """Completions a question."""
    prompt_slots: int = 1024
    """Longest prompt, in tokens."""
    max_new_tokens: int = 32768
    """Longest completion, in tokens; 32,768 in the paper's first 8,200 updates."""
    temperature: float = 1.0
    """Divides the logits, in sampling and in the log-probabilities trained on."""
    top_p: float = 1.0
    """Tokens are drawn from the likeliest that have this probability together; 1 draws from all of them. The trainer's
    log-probabilities are over all tokens, so rollouts to train on want 1."""
    halvings: int = 0
    """How often a batch is halved as its rows finish: saves work where lengths differ, one compiled loop each."""
    record_routing: bool = False
    """Keep the experts that every token was sent to, so that the trainer can take the same ones."""

    def check(self, mesh) -> None:
        """Raise UserError where a setting is impossible or the prompts do not divide over the mesh."""
        if self.temperature <= 0:
            raise UserError(f"--sampling.temperature must be above 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--sampling.top-p must be above 0 and at most 1, not {self.top_p}")
        for name in ("prompts", "group_size", "prompt_slots", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"--sampling.{name.replace('_', '-')} must be 1 or more, not {getattr(self, name)}")
        check_divides(mesh, self.prompts, "batch", "the number of prompts")


def make_sampler(model: ModelConfig, config: SamplingConfig, mesh, *, eos_ids: tuple[int, ...]):
    """Bind a model and settings: returns sample(policy, prompts, lengths, key) -> Rollout.

    `policy` is (params, router_bias), `prompts` [P, S] int32 padded on the left with P = config.prompts, `lengths` [P],
    `key` one PRNG key, from which every prompt's is folded by its place.
    """

    def sample(policy, prompts, lengths, key) -> Rollout:
        keys = jax.vmap(partial(jax.random.fold_in, key))(np.arange(len(prompts)))
        prompts, lengths, keys = jax.device_put((prompts, lengths, keys), batch_sharding(mesh))
        return generate(
            model, *policy, prompts, lengths, keys, group_size=config.group_size, max_new_tokens=config.max_new_tokens,
            eos_ids=eos_ids, temperature=config.temperature, top_p=config.top_p, halvings=config.halvings,
            record_routing=config.record_routing,
        )  # fmt: skip

    return sample
