"""The host's side of GRPO: one iteration from prompts to an updated policy."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

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
from r1jax.rl import GrpoRows, Rows, completion_lengths, grpo_batch_loss, make_score, sorted_by_length
from r1jax.sharding import batch_sharding, check_divides
from r1jax.train import TrainState, check_finite, gradient_sums, make_train_step

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
        if self.sampling.temperature == 0:
            raise UserError("--grpo.sampling.temperature must be above 0, not 0: the trainer divides by it")
        if self.sampling.top_p < 1 or self.sampling.top_k or self.sampling.min_p:
            raise UserError(
                "--grpo.sampling.top-p must be 1, top-k and min-p 0: the trainer's log-probabilities are over all tokens"
            )
        check_divides(mesh, self.rows_at_a_time, "batch", "a micro-batch")


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
    lengths = completion_lengths(sampling.max_new_tokens)
    score = make_score(model, num_micro_batches=config.micro_batches * config.mini_batches, lengths=lengths)
    sums = sorted_by_length(gradient_sums(partial(grpo_batch_loss, model)), config.micro_batches, lengths)
    train_step = make_train_step(sums, optimizer, state_shardings, router_bias_rate=config.router_bias_rate)
    scalars = {"temperature": sampling.temperature, "clip_epsilon": config.clip_epsilon, "kl_coef": config.kl_coef}
    root = jax.random.fold_in(jax.random.key(seed), TRAINING_STREAM)

    def update(state: TrainState, batch: GrpoRows, rng: np.random.Generator):
        updates = []
        for chosen in rng.permutation(len(batch.advantages)).reshape(config.mini_batches, -1):
            mini_batch = jax.device_put(jax.tree.map(lambda x: x[chosen], batch), batch_sharding(mesh))
            state, metrics = train_step(state, mini_batch, scalars)
            updates.append(metrics)
        return state, {name: np.mean([m[name] for m in updates], axis=0).tolist() for name in updates[0]}

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
        rows = jax.device_put(host_rows, batch_sharding(mesh))
        old, ref = (score(*weights, rows, sampling.temperature) for weights in (current, reference))
        metrics = _mismatch(np.asarray(old), rollout, host_rows.mask)
        seconds["scoring"] = tick()

        groups = judged_groups(judging, rollout, texts)
        rewards, known, parts = reward(step, asked, groups, rng)
        advantages = np.asarray(group_advantages(rewards, known))
        seconds["reward"] += tick()

        # A completion whose reward is not known gets an empty mask, so that it does not count.
        learnt = jax.device_put(host_rows.mask & known.reshape(-1, 1), batch_sharding(mesh))
        advantages_of_rows = jax.device_put(advantages.reshape(-1), batch_sharding(mesh))
        batch = GrpoRows(rows._replace(mask=learnt), old, ref, advantages_of_rows)
        state, updated = update(state, batch, rng)
        check_finite(updated, f"iteration {step}")
        seconds["update"] = tick()

        metrics |= updated | describe_responses(records, groups) | {"reward_parts": parts}
        metrics["reward"] = float(rewards[known].mean()) if known.any() else 0.0
        metrics["masked_share"] = float(np.mean(~known))
        metrics["zero_variance_groups"] = float(np.mean(~advantages.any(axis=1)))
        return state, metrics | {"outcomes": judge_outcomes(groups), "seconds": seconds}, groups

    return iteration


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
