"""The host's side of GRPO: one iteration from prompts to an updated policy."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from r1jax.config import UserError
from r1jax.dynamic_sampling import Batch, draw_informative
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
from r1jax.mismatch import compare, describe_tokens, worst_tokens
from r1jax.models.config import ModelConfig
from r1jax.objectives import group_advantages
from r1jax.optimizer import OptimizerConfig
from r1jax.policy import Policy
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.verdict import Submit
from r1jax.rl import (
    GrpoRows,
    Rows,
    completion_lengths,
    experts_of,
    grpo_batch_loss,
    make_score,
    rows_of,
    sorted_by_length,
)
from r1jax.sharding import batch_sharding, check_divides
from r1jax.train import LossOutput, TrainState, check_finite, gradient_sums, make_train_step

TRAINING_STREAM = 0  # folded into the seed; r1jax.evaluation has its own, so that they never share noise
EXTRA_STREAM = 2  # of the extra batches of dynamic sampling
WORST_TOKENS = 8  # of an iteration, whose records are kept


class Asked(NamedTuple):
    """Problems, as records for the judges and prompts for the policy."""

    records: Sequence[dict]
    prompts: Sequence[str]
    codec: Codec | None = None
    """Makes ids of the prompts where they are more than plain text; by default the policy's tokenizer."""


Reward = Callable[[int, Asked, list[list[Response]], np.random.Generator], GroupRewards]
"""(iteration, P problems, P groups of G judged responses, rng) -> numbers to be maximised, and which are known."""

Loss = Callable[[ModelConfig, dict, jax.Array, GrpoRows, dict], LossOutput]
"""(model, params, router_bias, rows, scalars) -> sums, as `grpo_batch_loss`."""


class Experience(NamedTuple):
    """What an iteration learnt from."""

    asked: Asked
    groups: list[list[Response]]
    """Judged responses to each problem."""
    worst_tokens: list[dict]
    """Where sampler and trainer differ most; see `describe_tokens`."""


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
    clip_epsilon_high: float | None = None
    """Its upper half where it is another (clip-higher of DAPO: 0.28); by default clip_epsilon."""
    importance_cap: float | None = None
    """Weigh tokens by min(trainer's / sampler's probability, this), truncated importance sampling; 2 is usual. Off by
    default: where both compute alike the weights are 1."""
    kl_coef: float = 0.001
    """Weight of the KL penalty towards the reference."""
    reference_every: int = 400
    """Updates after which the policy becomes the reference; a multiple of mini_batches."""
    router_bias_rate: float = 0.0
    """Step of expert balancing (not stated for RL; 0 at the end of DeepSeek-V3's pre-training). Frozen: a bias that moves
    sends tokens to other experts than those that sampled, whatever their reward, and the few kinds of prompts of RL are
    no measure of the load that the experts were balanced for."""
    balance_weight: float = 0.0
    """Weight, a token, of the sequence-wise balance of experts (1e-4 in DeepSeek-V3's pre-training). Off: its gradient
    moves the router away from what earned the reward, and so the policy away from the one that sampled."""
    replay_routing: bool = False
    """Take the sampler's experts in the old and the current policy's passes (arXiv 2510.11370); weights and gradient of
    the router stay the trainer's. Off: it costs the record, 2 bytes a token, layer and choice, and float32 needs none.
    The reference chooses for itself: with another policy's experts it would be no policy that ever was."""
    max_extra_batches: int = 0
    """Dynamic sampling (DAPO): batches of problems that may be sampled besides, until all groups differ in accuracy; 0
    for none. Those that are still missing then are filled up by groups without advantage."""
    mismatch_alarm: float = 1e-3
    """KL from sampler to trainer, in nats a token, above which a run warns. In arXiv 2510.11370 a dense model has 6.4e-4
    in bfloat16, a mixture of experts that went on to collapse 1.5e-3, and 7.5e-4 with its routing replayed."""

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
        if self.sampling.top_p < 1:
            raise UserError("--grpo.sampling.top-p must be 1: the trainer's log-probabilities know no nucleus")
        for name in ("max_extra_batches", "balance_weight", "router_bias_rate"):
            if getattr(self, name) < 0:
                raise UserError(f"--grpo.{name.replace('_', '-')} must be 0 or more, not {getattr(self, name)}")
        for name in ("importance_cap", "clip_epsilon_high", "mismatch_alarm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"--grpo.{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")
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
    loss: Loss = grpo_batch_loss,
):
    """Compile one iteration of GRPO.

    Args:
      policy: model and tokenizer; its weights are not read, the state's are.
      submit: begins to judge completions, which goes on while the trainer's log-probabilities are computed;
        `RewardPool.submit`, or `partial(judge_inline, judges)`. "accuracy" and "format" must be among the judges.
      reward: what is maximised.
      loss: what is minimised; compose another one from `r1jax.objectives`.

    Returns:
      iteration(state, reference, step, asked, more=None) -> (state, metrics, Experience). `state` is donated;
      `reference` is (params, router_bias) of the reference policy; `step` names the iteration and its noise; `asked`
      are config.sampling.prompts problems; `more(extra)` are as many new ones for dynamic sampling, extra from 1.
      Metrics are floats.

    Raises:
      UserError: a setting is for mixtures of experts, and the model is none.
    """
    model, tokenizer, sampling = policy.model, policy.tokenizer, _sampling(policy.model, config)
    sample = make_sampler(model, sampling, mesh, eos_ids=tokenizer.eos_ids)
    lengths = completion_lengths(sampling.max_new_tokens)
    score = make_score(model, num_micro_batches=config.micro_batches * config.mini_batches, lengths=lengths)
    sums = sorted_by_length(gradient_sums(partial(loss, model)), config.micro_batches, lengths)
    train_step = make_train_step(sums, optimizer, state_shardings, router_bias_rate=config.router_bias_rate)
    put = lambda arrays: jax.device_put(arrays, batch_sharding(mesh))

    def draw(weights, asked: Asked, key, clock: _Clock):
        """A batch, sampled, and a function that waits for its judged responses."""
        codec = asked.codec or tokenizer
        prompts = encode_prompts(codec, asked.prompts, sampling.prompt_slots)
        rollout, texts = respond(partial(sample, weights, key=key), codec, asked.prompts, sampling.prompt_slots)
        clock.tick("rollout")
        judging = submit_groups(submit, asked.records, texts)
        clock.tick("reward")
        return Batch(asked.records, asked.prompts, *prompts, rollout), partial(judged_groups, judging, rollout, texts)

    def draw_until_informative(weights, asked: Asked, more, step: int, clock: _Clock):
        def draw_judged(extra: int):
            problems = more(extra) if extra else asked
            batch, wait = draw(weights, problems, _sampling_key(seed, step, extra), clock)
            return batch, wait()

        drawn = draw_informative(draw_judged, config.max_extra_batches)
        clock.tick("reward")
        return drawn

    def compute_logprobs(weights, reference, rows: Rows, experts):
        """Rows to train on, old and reference log-probabilities, and the share of routing decisions that differ."""
        trained = rows._replace(replay=experts if config.replay_routing else None)
        scored = score(*weights, trained._replace(recorded=experts), sampling.temperature)
        old, counts = (scored, None) if experts is None else scored
        ref = score(*reference, rows, sampling.temperature)
        if counts is None:
            return trained, old, ref, {}
        differing, known = np.asarray(counts, np.float64).sum(0)
        return trained, old, ref, {"routing_difference": float(differing / max(known, 1))}

    def update(state: TrainState, batch: GrpoRows, scalars: dict, rng: np.random.Generator):
        updates = []
        for chosen in rng.permutation(len(batch.advantages)).reshape(config.mini_batches, -1):
            state, metrics = train_step(state, put(jax.tree.map(lambda x: x[chosen], batch)), scalars)
            updates.append(metrics)
        return state, {name: np.mean([m[name] for m in updates], axis=0).tolist() for name in updates[0]}

    def iteration(state: TrainState, reference, step: int, asked: Asked, more: Callable[[int], Asked] | None = None):
        clock, weights = _Clock(), (state.params, state.router_bias)
        rng = np.random.default_rng((seed, TRAINING_STREAM, step))
        if config.max_extra_batches:
            batch, groups, informative, metrics = draw_until_informative(weights, asked, more, step, clock)
            wait = lambda: groups
        else:
            batch, wait = draw(weights, asked, _sampling_key(seed, step, 0), clock)
            informative, metrics = np.ones(len(batch.records), bool), {}
        asked, rollout = asked._replace(records=batch.records, prompts=batch.texts), batch.rollout

        host_rows = rows_of(batch.prompts, batch.lengths, rollout)
        rows, sampler = put((host_rows, rollout.sampler_logprobs.reshape(host_rows.mask.shape)))
        rows, old, ref, routing = compute_logprobs(weights, reference, rows, put(experts_of(rollout)))
        old_of_groups = np.asarray(old).reshape(rollout.mask.shape)
        compared = rollout.sampler_logprobs, old_of_groups, rollout.mask
        metrics |= compare(*compared) | routing
        places, codec = worst_tokens(*compared, WORST_TOKENS), asked.codec or tokenizer
        worst = describe_tokens(places, rollout.tokens, *compared[:2], codec.decode)
        clock.tick("scoring")

        groups = wait()
        rewards, known, parts = reward(step, asked, groups, rng)
        advantages = np.asarray(group_advantages(rewards, known)) * informative[:, None]
        clock.tick("reward")

        # A completion whose reward is not known gets an empty mask, so that it does not count.
        learnt = host_rows.mask & known.reshape(-1, 1)
        rows = rows._replace(mask=put(learnt))
        trained = GrpoRows(rows, old, ref, put(advantages.reshape(-1)), sampler)
        state, updated = update(state, trained, _scalars(config, host_rows.prompt_lengths, learnt), rng)
        check_finite(updated, f"iteration {step}")
        clock.tick("update")

        metrics |= updated | describe_responses(asked.records, groups) | {"reward_parts": parts}
        metrics["reward"] = float(rewards[known].mean()) if known.any() else 0.0
        metrics["masked_share"] = float(np.mean(~known))
        metrics["zero_variance_groups"] = float(np.mean(~advantages.any(axis=1)))
        metrics |= {"outcomes": judge_outcomes(groups), "seconds": clock.seconds}
        return state, metrics, Experience(asked, groups, worst)

    return iteration


class _Clock:
    """Seconds of each phase."""

    def __init__(self):
        self.seconds, self._last = {}, time.monotonic()

    def tick(self, phase: str) -> None:
        """Count the time since the last tick to a phase."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def _sampling(model: ModelConfig, config: GrpoConfig) -> SamplingConfig:
    """How completions are drawn: with a record of their routing where it is to be replayed."""
    if not model.num_experts and (config.replay_routing or config.balance_weight or config.router_bias_rate):
        raise UserError(
            "--grpo.replay-routing, --grpo.balance-weight and --grpo.router-bias-rate are for mixtures of experts, and "
            "this model has no experts; leave them at their defaults"
        )
    recording = config.sampling.record_routing or config.replay_routing
    return dataclasses.replace(config.sampling, record_routing=recording)


def _sampling_key(seed: int, step: int, extra: int):
    """The key of a batch's noise; extra batches have a stream of their own, so that the first stays what it was."""
    key = jax.random.fold_in(jax.random.key(seed), EXTRA_STREAM if extra else TRAINING_STREAM)
    key = jax.random.fold_in(key, step)
    return jax.random.fold_in(key, extra) if extra else key


def _scalars(config: GrpoConfig, prompt_lengths: np.ndarray, mask: np.ndarray) -> dict:
    """The numbers of the loss; what is off is not there, and costs nothing."""
    scalars = {"temperature": config.sampling.temperature, "clip_epsilon": config.clip_epsilon}
    scalars["kl_coef"] = config.kl_coef
    if config.clip_epsilon_high is not None:
        scalars["clip_epsilon_high"] = config.clip_epsilon_high
    if config.importance_cap is not None:
        scalars["importance_cap"] = config.importance_cap
    if config.balance_weight:
        # The balance is a sum over tokens, the loss one over completions: their ratio makes the weight one a token.
        scalars["balance_weight"] = config.balance_weight * mask.any(-1).sum() / (prompt_lengths.sum() + mask.sum())
    return scalars
