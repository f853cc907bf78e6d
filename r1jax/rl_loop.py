"""The host's side of GRPO: one iteration from prompts to an updated policy."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

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
from r1jax.generation.rollout import Rollout
from r1jax.generation.sampler import make_sampler
from r1jax.grpo_config import GrpoConfig, loss_scalars, recorded_sampling
from r1jax.hosts import fetch, place
from r1jax.mismatch import compare, describe_tokens, is_alarming, worst_tokens
from r1jax.objectives import group_advantages
from r1jax.policy import Policy
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.verdict import Submit
from r1jax.rl import GrpoRows, Rows, experts_of, grpo_batch_loss, rows_of
from r1jax.rl_layout import Loss, choose_layout
from r1jax.sharding import batch_sharding, in_memory
from r1jax.train import TrainState, check_finite, make_train_step

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


class Scored(NamedTuple):
    """A rollout of B = P x G completions with all that advantages may follow from; arrays are numpy's."""

    asked: Asked
    groups: list[list[Response]]
    """Judged responses to each problem."""
    rewards: GroupRewards
    rows: Rows
    old_logprobs: np.ndarray | None
    """[B, T] of the policy that sampled; None with --grpo.no-watch-mismatch."""
    ref_logprobs: np.ndarray
    """[B, T] of the reference policy."""


Advantages = Callable[[Scored, np.random.Generator], tuple[np.ndarray, dict]]
"""(rollout, rng) -> advantages [P, G], or [P, G, T] where they differ within a completion, and metrics to be logged."""


def group_relative(scored: Scored, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """The advantages of GRPO; see `group_advantages`."""
    return np.asarray(group_advantages(scored.rewards.rewards, scored.rewards.known)), {}


class Experience(NamedTuple):
    """What an iteration learnt from."""

    asked: Asked
    groups: list[list[Response]]
    """Judged responses to each problem."""
    worst_tokens: list[dict]
    """Where sampler and trainer differ most, if they differ alarmingly; see `describe_tokens`."""


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
    advantages_of: Advantages = group_relative,
):
    """Compile one iteration of GRPO.

    Args:
      policy: model and tokenizer; its weights are not read, the state's are.
      submit: begins to judge completions, which goes on while the trainer's log-probabilities are computed;
        `RewardPool.submit`, or `partial(judge_inline, judges)`. "accuracy" and "format" must be among the judges.
      reward: what is maximised.
      loss: what is minimised; compose another one from `r1jax.objectives`.
      advantages_of: how rewards become the advantages that the loss weighs completions or tokens by.

    Returns:
      iteration(state, reference, step, asked, more=None) -> (state, metrics, Experience). `state` is donated;
      `reference` is (params, router_bias) of the reference policy, in the memory of devices or hosts; `step` names the
      iteration and its noise; `asked` are config.sampling.prompts problems; `more(extra)` are as many new ones for
      dynamic sampling, extra from 1. Metrics are floats.

    Raises:
      UserError: the model is not one for which a setting is.
    """
    model, tokenizer, sampling = policy.model, policy.tokenizer, recorded_sampling(policy.model, config)
    sample = make_sampler(model, sampling, mesh, eos_ids=tokenizer.eos_ids)
    layout = choose_layout(model, config, loss)
    train_step = make_train_step(layout.sums, optimizer, state_shardings, router_bias_rate=config.router_bias_rate)
    put = partial(place, sharding=batch_sharding(mesh))
    together = np.arange(config.completions_a_prompt)

    def draw(weights, asked: Asked, key, clock: _Clock):
        """A batch, sampled, and a function that waits for its judged responses."""
        codec = asked.codec or tokenizer
        prompts = encode_prompts(codec, asked.prompts, sampling.prompt_slots)
        rollout, texts = respond(partial(sample, weights, key=key), codec, *prompts)
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
        """Old and reference log-probabilities, the share of routing decisions that differ, and of padding."""
        experts = experts if config.watch_mismatch else None  # read by the old policy's pass alone
        rows, places = layout.arrange(rows._replace(recorded=experts))
        rows = put(rows)
        if not config.watch_mismatch:
            scored = None
        elif config.replay_routing:
            scored = layout.score(*weights, rows._replace(replay=rows.recorded), sampling.temperature)
        else:
            scored = layout.score(*weights, rows, sampling.temperature)
        old, counts = (scored, None) if experts is None else scored
        reference = in_memory("device", reference)
        # Waited for, so that its seconds are not counted as those of the reward.
        ref = jax.block_until_ready(layout.score(*reference, rows._replace(recorded=None), sampling.temperature))
        if counts is None:
            return old, ref, {}, places
        differing, known = fetch(counts).astype(np.float64).sum(0)
        return old, ref, {"routing_difference": float(differing / max(known, 1))}, places

    def update(state: TrainState, batch: GrpoRows, scalars: dict, rng: np.random.Generator):
        updates, usage = [], np.zeros(2)
        order = rng.permutation(len(batch.advantages) // len(together))[:, None] * len(together) + together
        for chosen in order.reshape(config.mini_batches, -1):
            mini_batch = jax.tree.map(lambda x: x[chosen], batch)
            rows, places = layout.arrange(mini_batch.rows)
            state, metrics = train_step(state, put(mini_batch._replace(rows=rows)), scalars)
            updates.append(metrics)
            usage += places
        return state, {name: np.mean([fetch(m[name]) for m in updates], axis=0).tolist() for name in updates[0]}, usage

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
        experts, sampler = experts_of(rollout), rollout.sampler_logprobs.reshape(host_rows.mask.shape)
        old, ref, routing, scored = compute_logprobs(weights, reference, host_rows, experts)
        old, ref = fetch((old, ref))
        watched, worst = _watch(rollout, old, config, (asked.codec or tokenizer).decode)
        metrics |= watched | routing
        clock.tick("scoring")

        groups = wait()
        rewards, known, parts = rewarded = reward(step, asked, groups, rng)
        advantages, more_metrics = advantages_of(Scored(asked, groups, rewarded, host_rows, old, ref), rng)
        advantages = advantages * np.expand_dims(informative, tuple(range(1, advantages.ndim)))
        clock.tick("reward")

        # A completion whose reward is not known gets an empty mask, so that it does not count.
        learnt = host_rows._replace(mask=host_rows.mask & known.reshape(-1, 1))
        learnt = learnt._replace(replay=experts if config.replay_routing else None)
        trained = GrpoRows(learnt, old, ref, advantages.reshape(-1, *advantages.shape[2:]), sampler)
        scalars = loss_scalars(config, learnt.prompt_lengths, learnt.mask)
        state, updated, learned = update(state, trained, scalars, rng)
        check_finite(updated, f"iteration {step}")
        clock.tick("update")

        metrics |= updated | describe_responses(asked.records, groups) | {"reward_parts": parts} | more_metrics
        metrics |= {
            "reward": float(rewards[known].mean()) if known.any() else 0.0,
            "masked_share": float(np.mean(~known)),
            "zero_variance_groups": float(np.mean(~advantages.reshape(len(groups), -1).any(axis=1))),
            "padding": {"scoring": _padding(*scored), "update": _padding(*learned)},
            "outcomes": judge_outcomes(groups),
            "seconds": clock.seconds,
        }
        return state, metrics, Experience(asked, groups, worst)

    return iteration


def _watch(rollout: Rollout, old, config: GrpoConfig, decode: Callable) -> tuple[dict, list[dict]]:
    """What there is to say of the sampler, and records of the worst tokens if it differs alarmingly from the trainer.

    Args:
      rollout: of numpy arrays.
      old: [B, T] log-probabilities by the trainer; not read where the mismatch is not watched.
    """
    figures = {}
    if rollout.drafts is not None:
        figures["draft_acceptance"] = float(rollout.accepted.sum() / max(rollout.drafts.sum(), 1))
    if not config.watch_mismatch:
        return figures, []
    compared = rollout.sampler_logprobs, old.reshape(rollout.mask.shape), rollout.mask
    figures |= compare(*compared)
    if not is_alarming(figures, config.mismatch_alarm):
        return figures, []
    places = worst_tokens(*compared, WORST_TOKENS)
    return figures, describe_tokens(places, rollout.tokens, *compared[:2], decode)


class _Clock:
    """Seconds of each phase."""

    def __init__(self):
        self.seconds, self._last = {}, time.monotonic()

    def tick(self, phase: str) -> None:
        """Count the time since the last tick to a phase."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def _padding(tokens: float, places: float) -> float:
    """Share of the places that went through the model which held no token."""
    return 1.0 - float(tokens) / float(places) if places else 0.0


def _sampling_key(seed: int, step: int, extra: int):
    """The key of a batch's noise; extra batches have a stream of their own, so that the first stays what it was."""
    key = jax.random.fold_in(jax.random.key(seed), EXTRA_STREAM if extra else TRAINING_STREAM)
    key = jax.random.fold_in(key, step)
    return jax.random.fold_in(key, extra) if extra else key
