"""How far bfloat16 takes the trainer's log-probabilities from the sampler's, with and without its routing replayed.

The policy samples countdown problems and scores its own completions: with all experts chosen by the trainer, and with
those that the sampler took. Both are compared with what the sampler said, over the same tokens; intervals are over
seeds, of problems and noise.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.data.prompts import pad_prompts, r1_zero_prompt
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.mismatch import compare
from r1jax.models.config import Dtype
from r1jax.policy import Policy, load_policy
from r1jax.report.chain import mean_interval
from r1jax.rl import experts_of, make_score, rows_of
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import draw_problems

FIGURES = ("mismatch_kl", "mismatch_kl_k1", "sampler_mismatch", "sampler_mismatch_max", "mismatch_factor_max")
FIGURES += ("mismatch_sequence", "decorrelation", "routing_difference")


@dataclasses.dataclass(frozen=True)
class Config:
    """Mismatch of sampler and trainer, with and without routing replay."""

    init: str = BASE_MODEL
    """Workdir of the policy; by default the base model that comes with the package."""
    dtype: Dtype = "bfloat16"
    """Of activations and matrix products."""
    prompts: int = 64
    """Countdown problems a seed."""
    group_size: int = 8
    """Completions a problem."""
    prompt_slots: int = 12
    """Longest prompt, in tokens."""
    max_new_tokens: int = 128
    """Longest completion, in tokens."""
    seeds: int = 10
    """Rollouts, 2 or more."""
    json: str | None = None
    """Write the figures of every seed to this file."""


def measure(config: Config, policy: Policy, sample, score, seed: int) -> dict[str, dict[str, float]]:
    """Figures of one rollout, without and with replay."""
    problems = draw_problems((1, 2), "train", config.prompts, np.random.default_rng(seed))
    encoded = [policy.tokenizer.encode_prompt(r1_zero_prompt(p.question)) for p in problems]
    prompts, lengths = pad_prompts(encoded, config.prompt_slots)
    weights = (policy.params, policy.router_bias)
    out = jax.tree.map(np.asarray, sample(weights, prompts, lengths, jax.random.key(seed)))
    experts = experts_of(out)
    rows = rows_of(prompts, lengths, out)._replace(recorded=experts)
    sampler = out.sampler_logprobs.reshape(rows.mask.shape)
    results = {}
    for name, replay in {"without replay": None, "with replay": experts}.items():
        logprobs, counts = score(*weights, rows._replace(replay=replay), 1.0)
        differing, known = np.asarray(counts, np.float64).sum(0)
        results[name] = compare(sampler, np.asarray(logprobs), rows.mask)
        more = {"routing_difference": differing / known, "decorrelation": 1 - results[name]["mismatch_correlation"]}
        results[name] |= more
    return results


def main(config: Config) -> None:
    mesh = make_mesh(MeshConfig())
    policy = load_policy(config.init, mesh, dtype=config.dtype)
    sampling = SamplingConfig(
        prompts=config.prompts, group_size=config.group_size, prompt_slots=config.prompt_slots,
        max_new_tokens=config.max_new_tokens, halvings=2, record_routing=True,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        sample = make_sampler(policy.model, sampling, mesh, eos_ids=policy.tokenizer.eos_ids)
        score = make_score(
            policy.model, rows_at_a_time=config.prompts * config.group_size // 8, lengths=(config.max_new_tokens,)
        )
        runs = [measure(config, policy, sample, score, seed) for seed in range(config.seeds)]
    names = list(runs[0])
    table = Table(f"{config.dtype}, {config.seeds} seeds of {config.prompts} x {config.group_size}", *names, "ratio")
    for figure in FIGURES:
        values = {name: np.array([run[name][figure] for run in runs]) for name in names}
        cells = ["{:.3g} ± {:.1g}".format(*mean_interval(values[name])) for name in names]
        ratio = mean_interval(values[names[1]] / values[names[0]])
        table.add_row(figure, *cells, "{:.3f} ± {:.1g}".format(*ratio))
    launch.console.print(table)
    if config.json:
        Path(config.json).write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    launch.run(main, Config)
