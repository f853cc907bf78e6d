"""A policy with random experts that compiles within seconds, and one iteration of GRPO on it."""

import dataclasses
from functools import partial

import jax
import numpy as np

from r1jax.data.prompts import r1_zero_prompt
from r1jax.data.tokenizer import load_tokenizer
from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.models.presets import miniature
from r1jax.models.transformer import init_params
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import Policy
from r1jax.rewards.judgement import Judgement
from r1jax.rl_loop import Asked, make_grpo_iteration
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import draw_problems
from r1jax.train import init_train_state

CONFIG = GrpoConfig(
    optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.0),
    iterations=4,
    sampling=SamplingConfig(prompts=2, group_size=4, prompt_slots=12, max_new_tokens=16),
    mini_batches=2,
    reference_every=2,
)


def tiny_policy(**changes) -> Policy:
    """Two layers, the second with experts; weights are the state's, so there are none here."""
    tokenizer = load_tokenizer(BASE_MODEL)
    shape = dict(
        embed_dim=16, num_layers=2, mlp_dim=16, num_heads=2, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8,
        qk_rope_head_dim=8, v_head_dim=8, expert_mlp_dim=16, init_stddev=0.3,
    )  # fmt: skip
    model = dataclasses.replace(miniature(tokenizer.vocab_size), **(shape | changes))
    return Policy(model, tokenizer, {}, jax.numpy.zeros(0), None)


def start(policy: Policy, mesh, config: GrpoConfig, **options):
    """A fresh state and an iteration; call it with the mesh set."""
    optimizer = make_optimizer(config.optimizer, 10)
    state, shardings = init_train_state(jax.random.key(0), partial(init_params, policy.model), optimizer, mesh)
    return state, make_grpo_iteration(policy, optimizer, shardings, mesh, config, seed=0, **options)


def ask(step: int, extra: int = 0) -> Asked:
    """Problems that follow from the step and the number of the batch."""
    drawn = draw_problems((1, 2), "train", CONFIG.sampling.prompts, np.random.default_rng((step, extra)))
    return Asked([p.record for p in drawn], [r1_zero_prompt(p.question) for p in drawn])


def kept(record, text):
    """A judge of format to whom all is well."""
    return Judgement("correct", 1.0)
