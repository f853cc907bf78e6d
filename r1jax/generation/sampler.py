"""A policy's sampler with its settings bound."""

import contextlib
import dataclasses
from functools import partial

import jax
import numpy as np

from r1jax.config import UserError
from r1jax.generation import speculative
from r1jax.generation.relayout import make_relayout
from r1jax.generation.rollout import Rollout, generate
from r1jax.hosts import place
from r1jax.models.cache import CacheDtype
from r1jax.models.config import ModelConfig
from r1jax.sharding import MeshConfig, batch_sharding, check_divides, reshape_mesh


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
    top_k: int = 0
    """Tokens are drawn from so many likeliest; 0 draws from all of them. Rollouts to train on want 0."""
    min_p: float = 0.0
    """Tokens less likely than this share of the likeliest are not drawn. Rollouts to train on want 0."""
    slots: int = 0
    """Completions decoded at a time; a slot whose completion has ended is given the next. 0 decodes all at once."""
    halvings: int = 0
    """How often slots are halved as the last completions finish: saves work where lengths differ, one compiled program
    each."""
    widths: int = 1
    """Into how many parts the cache is cut; a step reads those that hold something. Saves work where completions are
    long, and each is compiled."""
    steps: int = 512
    """Tokens decoded in a row before the host looks."""
    prefill_rows: int = 32
    """Prompts prefilled at a time."""
    prefill_chunk: int = 512
    """Tokens of a prompt prefilled at a time."""
    cache_dtype: CacheDtype = "dtype"
    """How the cache is kept: in the model's dtype, in bfloat16, or quantized to 8 bits."""
    record_routing: bool = False
    """Keep the experts that every token was sent to, so that the trainer can take the same ones."""
    speculative: bool = False
    """Draft tokens by the model's module for multi-token prediction and verify them: the same distribution in fewer
    steps. The model must have been pre-trained with one."""
    relayout: bool = False
    """Sample with a copy of the weights in the model's dtype on `mesh`, made anew for each batch; otherwise with the
    trainer's own weights as they lie."""
    mesh: MeshConfig = MeshConfig()
    """Of sampling, where `relayout` is on: the same devices, arranged for steps that wait for weights."""

    def mesh_of(self, mesh):
        """The mesh that is sampled on, for a trainer's."""
        return reshape_mesh(mesh, self.mesh) if self.relayout else mesh

    def check(self, mesh) -> None:
        """Raise UserError where a setting is impossible or the prompts do not divide over the mesh."""
        if self.temperature < 0:
            raise UserError(f"--sampling.temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--sampling.top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"--sampling.min-p must be between 0 and 1, not {self.min_p}")
        least = {"top_k": 0, "slots": 0, "halvings": 0} | dict.fromkeys(
            (
                "prompts",
                "group_size",
                "prompt_slots",
                "max_new_tokens",
                "widths",
                "steps",
                "prefill_rows",
                "prefill_chunk",
            ),
            1,
        )
        for name, value in least.items():
            if getattr(self, name) < value:
                found = getattr(self, name)
                raise UserError(f"--sampling.{name.replace('_', '-')} must be {value} or more, not {found}")
        check_divides(self.mesh_of(mesh), self.prompts, "batch", "the number of prompts")


def make_sampler(
    model: ModelConfig,
    config: SamplingConfig,
    mesh,
    *,
    eos_ids: tuple[int, ...],
    stop: tuple[tuple[int, ...], ...] = (),
):
    """Bind a model and settings: returns sample(policy, prompts, lengths, key, *, resume, budget) -> Rollout.

    `policy` is (params, router_bias), `prompts` [P, S] int32 padded on the left with P = config.prompts, `lengths` [P],
    `key` one PRNG key, from which every prompt's is folded by its place. `stop`, `resume` and `budget` are those of
    `decode`.

    Raises:
      UserError: speculative decoding is asked for, and is not possible.
    """
    if config.speculative:
        speculative.check(model, record_routing=config.record_routing, resumes=False)
    settings = rollout_settings(config)
    mesh = config.mesh_of(mesh)
    relayout = make_relayout(model, mesh) if config.relayout else None

    def sample(policy, prompts, lengths, key, *, resume: Rollout | None = None, budget: int | None = None) -> Rollout:
        keys = jax.vmap(partial(jax.random.fold_in, key))(np.arange(len(prompts)))
        prompts, lengths, keys = place((prompts, lengths, keys), batch_sharding(mesh))
        with jax.set_mesh(mesh) if relayout else contextlib.nullcontext():
            policy = relayout(*policy) if relayout else policy
            return generate(
                model, *policy, prompts, lengths, keys, eos_ids=eos_ids, stop=stop, resume=resume, budget=budget,
                **settings,
            )  # fmt: skip

    return sample


def rollout_settings(config: SamplingConfig) -> dict:
    """The keyword arguments of `r1jax.generation.rollout.decode` among the settings."""
    others = ("prompts", "prompt_slots", "relayout", "mesh")
    return {name: value for name, value in vars(config).items() if name not in others}
