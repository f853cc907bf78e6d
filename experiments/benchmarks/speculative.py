"""What speculative decoding saves: drafts of the MTP module that are accepted, tokens a step, and time against without.

The policy samples countdown problems. The rounds take turns, with and without speculation, and the ratio is the median
of the rounds; compilation is left out. The model needs an MTP module: pre-train with --mtp-weight above 0.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.data.prompts import pad_prompts, r1_zero_prompt
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.policy import Policy, load_policy
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks.countdown import draw_problems


@dataclasses.dataclass(frozen=True)
class Config:
    """Acceptance and speed of speculative decoding."""

    init: str = "runs/pretrain"
    """Workdir of a policy with an MTP module."""
    prompts: int = 32
    """Countdown problems."""
    group_size: int = 4
    """Completions a problem."""
    prompt_slots: int = 12
    """Longest prompt, in tokens."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    temperatures: tuple[float, ...] = (1.0, 0.6, 0.0)
    """Each is measured; 0 is greedy."""
    rounds: int = 3
    """Timed rollouts of each kind."""
    seed: int = 0
    """Of the problems and the noise."""
    json: str | None = None
    """Write the figures to this file."""


def measure(config: Config, policy: Policy, mesh, temperature: float) -> dict[str, float]:
    """Figures at one temperature."""
    problems = draw_problems((1, 2), "train", config.prompts, np.random.default_rng(config.seed))
    encoded = [policy.tokenizer.encode_prompt(r1_zero_prompt(problem.question)) for problem in problems]
    batch = pad_prompts(encoded, config.prompt_slots)
    key, weights = jax.random.key(config.seed), (policy.params, policy.router_bias)
    samplers = {}
    for speculative in (False, True):
        sampling = SamplingConfig(
            prompts=config.prompts, group_size=config.group_size, prompt_slots=config.prompt_slots,
            max_new_tokens=config.max_new_tokens, temperature=temperature, speculative=speculative,
        )  # fmt: skip
        samplers[speculative] = make_sampler(policy.model, sampling, mesh, eos_ids=policy.tokenizer.eos_ids)
    seconds = {False: [], True: []}
    for turn in range(config.rounds + 1):  # the first compiles
        for speculative, sample in samplers.items():
            start = time.perf_counter()
            out = jax.block_until_ready(sample(weights, *batch, key))
            if turn:
                seconds[speculative].append(time.perf_counter() - start)
    drafts, accepted, tokens = int(out.drafts.sum()), int(out.accepted.sum()), int(out.mask.sum())
    return {
        "temperature": temperature,
        "drafts": drafts,
        "acceptance": accepted / drafts,
        # The first token of a completion comes from the prefill, in either case.
        "tokens_per_step": (tokens - out.finished.size) / drafts,
        "time_ratio": statistics.median(a / b for a, b in zip(seconds[True], seconds[False], strict=True)),
    }


def main(config: Config) -> None:
    mesh = make_mesh(MeshConfig())
    policy = load_policy(config.init, mesh)
    with jax.set_mesh(mesh):
        rows = [measure(config, policy, mesh, temperature) for temperature in config.temperatures]
    table = Table("temperature", "drafts", "accepted", "tokens a row and step", "time, of that without")
    for row in rows:
        table.add_row(
            f"{row['temperature']:g}", f"{row['drafts']:,}", f"{row['acceptance']:.1%}",
            f"{row['tokens_per_step']:.2f}", f"{row['time_ratio']:.2f}",
        )  # fmt: skip
    launch.console.print(table)
    if config.json:
        Path(config.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
