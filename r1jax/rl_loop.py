"""The host's side of GRPO: one iteration from prompts to an updated policy."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import numpy as np

from r1jax.config import UserError
from r1jax.evaluation import (
    Codec,
    Response,
    describe_responses,
    encode_prompts,
    judge_outcomes,
    judged_groups,
    respond,
    submit_groups,
)
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.objectives import group_advantages
from r1jax.optimizer import OptimizerConfig
from r1jax.policy import Policy
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.verdict import Submit
from r1jax.rl import GrpoRows, Rows
from r1jax.rl_layout import Layout, packed_layout, padded_layout
from r1jax.sharding import batch_sharding, check_divides
from r1jax.train import TrainState, check_finite, make_train_step

TRAINING_STREAM = 0  # folded into the seed; r1jax.evaluation has its own, so that they never share noise


class Asked(NamedTuple):
    """Problems, as records for the judges and prompts for the policy."""

    records: Sequence[dict]
    prompts: Sequence[str]
    codec: Codec | None = None
    """Makes ids of the prompts where they are more than plain text; by default the policy's tokenizer."""


Reward = Callable[[int, Asked, list[list[Response]], np.random.Generator], GroupRewards]
"""(iteration, P problems, P groups of G judged responses, rng) -> numbers to be maximised, and which are known."""


@dataclasses.dataclass(frozen=True)
class GrpoConfig:
    """Group Relative Policy Optimization; a default is the paper's value for R1-Zero where the paper states one."""

    optimizer: OptimizerConfig
    iterations: int
    """Rollout phases, each followed by one pass over its samples."""
    sampling: SamplingConfig = SamplingConfig()
    mini_batches: int = 16
    """Updates a rollout phase; its completions are split among them at random, after advantages are computed."""
    micro_batches: int = 1
    """Parts of a mini-batch that are in memory one at a time; rows of like length go together."""
    packing: Literal["none", "rows", "shared_prompts"] = "none"
    """How completions are laid out for scoring and update. "rows": several in a row as long as the longest could be;
    a micro-batch is a number of such rows, of which only the filled are run, so more micro-batches mean less padding.
    "shared_prompts": besides, a prompt is processed once for its whole group, in a row with room for all of it, which
    saves most for short answers to long prompts; mini-batches are then drawn of whole groups."""
    clip_epsilon: float = 0.2
    """Half-width of the ratio's trust region (not stated for R1-Zero)."""
    kl_coef: float = 0.001
    """Weight of the KL penalty towards the reference."""
    reference_every: int = 400
    """Updates after which the policy becomes the reference; a multiple of mini_batches."""
    router_bias_rate: float = 0.0
    """Step of expert balancing (not stated for RL; 0 at the end of DeepSeek-V3's pre-training)."""

    @property
    def rows_at_a_time(self) -> int:
        """Completions of a micro-batch."""
        return self.sampling.prompts * self.sampling.group_size // self.mini_batches // self.micro_batches

    @property
    def completions_a_prompt(self) -> int:
        """Completions for which a prompt is processed once."""
        return self.sampling.group_size if self.packing == "shared_prompts" else 1

    def check(self, mesh) -> None:
        """Raise UserError where the sizes do not fit each other or the mesh."""
        prompts, group_size = self.sampling.prompts, self.sampling.group_size
        rows = prompts * group_size
        if rows % (self.mini_batches * self.micro_batches):
            raise UserError(
                f"{prompts} prompts x {group_size} completions = {rows} rows do not divide into "
                f"{self.mini_batches} mini-batches of {self.micro_batches} micro-batches"
            )
        if self.reference_every % self.mini_batches:
            raise UserError(
                f"reference_every {self.reference_every} is not a multiple of mini_batches {self.mini_batches}"
            )
        self.sampling.check(mesh)
        if self.sampling.top_p < 1:
            raise UserError("--grpo.sampling.top-p must be 1: the trainer's log-probabilities know no nucleus")
        if self.rows_at_a_time % self.completions_a_prompt:
            raise UserError(
                f"a micro-batch of {self.rows_at_a_time} rows does not hold whole groups of {group_size}, as "
                "--grpo.packing shared_prompts needs; use fewer mini-batches or micro-batches, or another packing"
            )
        places = self.rows_at_a_time // self.completions_a_prompt
        check_divides(mesh, places, "batch", "a micro-batch")


def make_grpo_iteration(
    policy: Policy,
    optimizer,
    state_shardings,
    mesh,
    config: GrpoConfig,
    *,
    seed: int,
    submit: Submit,
    reward: Reward,
):
    """Compile one iteration of GRPO.

    Args:
      policy: model and tokenizer; its weights are not read, the state's are.
      submit: begins to judge completions, which goes on while the trainer's log-probabilities are computed;
        `RewardPool.submit`, or `partial(judge_inline, judges)`. "accuracy" and "format" must be among the judges.
      reward: what is maximised.

    Returns:
      iteration(state, reference, step, asked) -> (state, metrics, groups). `state` is donated; `reference` is (params,
      router_bias) of the reference policy; `step` names the iteration and its noise; `asked` are
      config.sampling.prompts problems. Metrics are floats, `groups` the judged responses.
    """
    model, tokenizer, sampling = policy.model, policy.tokenizer, config.sampling
    sample = make_sampler(model, sampling, mesh, eos_ids=tokenizer.eos_ids)
    layout = _layout(model, config)
    train_step = make_train_step(layout.sums, optimizer, state_shardings, router_bias_rate=config.router_bias_rate)
    scalars = {"temperature": sampling.temperature, "clip_epsilon": config.clip_epsilon, "kl_coef": config.kl_coef}
    root = jax.random.fold_in(jax.random.key(seed), TRAINING_STREAM)

    put = partial(jax.device_put, device=batch_sharding(mesh))
    together = np.arange(config.completions_a_prompt)

    def update(state: TrainState, batch: GrpoRows, rng: np.random.Generator):
        updates, usage = [], np.zeros(2)
        order = rng.permutation(len(batch.advantages) // len(together))[:, None] * len(together) + together
        for chosen in order.reshape(config.mini_batches, -1):
            mini_batch = jax.tree.map(lambda x: x[chosen], batch)
            rows, places = layout.arrange(mini_batch.rows)
            state, metrics = train_step(state, put(mini_batch._replace(rows=rows)), scalars)
            updates.append(metrics)
            usage += places
        return state, {name: np.mean([m[name] for m in updates], axis=0).tolist() for name in updates[0]}, usage

    def iteration(state: TrainState, reference, step: int, asked: Asked):
        records, prompts = asked.records, asked.prompts
        codec = asked.codec or tokenizer
        clock = [time.monotonic()]
        tick = lambda: clock.append(time.monotonic()) or clock[-1] - clock[-2]
        rng = np.random.default_rng((seed, TRAINING_STREAM, step))
        current = (state.params, state.router_bias)
        drawn = partial(sample, current, key=jax.random.fold_in(root, step))
        rollout, texts = respond(drawn, codec, prompts, sampling.prompt_slots)
        seconds = {"rollout": tick()}

        judging = submit_groups(submit, records, texts)
        seconds["reward"] = tick()

        host_rows = _rows(rollout, *encode_prompts(codec, prompts, sampling.prompt_slots))
        rows, scored = layout.arrange(host_rows)
        rows = put(rows)
        old, ref = (layout.score(*weights, rows, sampling.temperature) for weights in (current, reference))
        metrics = _mismatch(np.asarray(old), rollout, host_rows.mask)
        seconds["scoring"] = tick()

        groups = judged_groups(judging, rollout, texts)
        rewards, known, parts = reward(step, asked, groups, rng)
        advantages = np.asarray(group_advantages(rewards, known))
        seconds["reward"] += tick()

        # A completion whose reward is not known gets an empty mask, so that it does not count.
        learnt = host_rows._replace(mask=host_rows.mask & known.reshape(-1, 1))
        state, updated, learned = update(state, GrpoRows(learnt, old, ref, advantages.reshape(-1)), rng)
        check_finite(updated, f"iteration {step}")
        seconds["update"] = tick()

        metrics |= updated | describe_responses(records, groups) | {"reward_parts": parts}
        metrics["reward"] = float(rewards[known].mean()) if known.any() else 0.0
        metrics["masked_share"] = float(np.mean(~known))
        metrics["zero_variance_groups"] = float(np.mean(~advantages.any(axis=1)))
        metrics["padding"] = {"scoring": _padding(*scored), "update": _padding(*learned)}
        return state, metrics | {"outcomes": judge_outcomes(groups), "seconds": seconds}, groups

    return iteration


def _layout(model, config: GrpoConfig) -> Layout:
    if config.packing == "none":
        return padded_layout(model, width=config.sampling.max_new_tokens, rows_at_a_time=config.rows_at_a_time)
    sharing = config.completions_a_prompt
    return packed_layout(model, sharing=sharing, rows_at_a_time=config.rows_at_a_time // sharing)


def _padding(tokens: float, places: float) -> float:
    """Share of the places that went through the model which held no token."""
    return 1.0 - float(tokens) / float(places) if places else 0.0


def _rows(rollout, prompts, lengths) -> Rows:
    """One row a completion."""
    group = rollout.tokens.shape[1]
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    return Rows(np.repeat(prompts, group, 0), np.repeat(lengths, group), flat(rollout.tokens), flat(rollout.mask))


def _mismatch(old, rollout, mask) -> dict[str, float]:
    """How far the trainer's log-probabilities are from the sampler's, in nats a token."""
    gaps = np.abs(old - rollout.sampler_logprobs.reshape(old.shape))[mask]
    mean, largest = (float(gaps.mean()), float(gaps.max())) if gaps.size else (0.0, 0.0)
    return {"sampler_mismatch": mean, "sampler_mismatch_max": largest}
