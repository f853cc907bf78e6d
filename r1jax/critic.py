"""PPO's value model, trained beside a policy: the baseline that DeepSeek-R1 compares GRPO with (supplement A.3).

A decoder with a scalar head at every token that starts as the policy it judges. It costs what GRPO does without: a
second model with its moments, its passes and its updates.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.checkpoint import restore
from r1jax.config import UserError
from r1jax.grpo_config import GrpoConfig
from r1jax.hosts import fetch, place
from r1jax.models.config import ModelConfig
from r1jax.models.reward_model import adopt_decoder, init_reward_params, token_values
from r1jax.objectives import dapo_sums, generalized_advantages, k3, log_ratio, token_rewards, value_sums
from r1jax.ops.masked import masked_sum
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import Policy
from r1jax.rl import GrpoRows, Rows, routed_logprobs, row_inputs
from r1jax.sharding import batch_sharding
from r1jax.train import LossOutput, TrainState, check_finite, gradient_sums, init_train_state, make_train_step


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """The value model and the advantages that it gives."""

    trace: float = 1.0
    """Lambda of generalized advantage estimation; 1 for returns less values, 0.95 for the usual trace."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, warmup_updates=5, weight_decay=0.0)
    """Of the value model; as many updates a rollout as the policy's."""


class Judged(NamedTuple):
    """Rows with what their values should be."""

    rows: Rows
    returns: jax.Array
    """[B, T] float32."""


class Critic:
    """Tells the advantages of a rollout by its values, then learns from it; `state` moves with every call."""

    def __init__(self, policy: Policy, mesh, config: CriticConfig, grpo: GrpoConfig):
        self._config, self._grpo, self._mesh = config, grpo, mesh
        optimizer = make_optimizer(config.optimizer, grpo.iterations * grpo.mini_batches)
        init = partial(init_reward_params, policy.model)
        state, shardings = init_train_state(jax.random.key(0), init, optimizer, mesh)
        params, bias = jax.tree.map(jnp.copy, (policy.params, policy.router_bias))
        self.state = state._replace(params=adopt_decoder(state.params, params), router_bias=bias)
        parts = grpo.mini_batches * grpo.micro_batches
        self._values = jax.jit(partial(_values_in_parts, policy.model, parts))
        sums = gradient_sums(partial(value_loss, policy.model))
        self._step = make_train_step(sums, optimizer, shardings, num_micro_batches=grpo.micro_batches)

    def arrays(self) -> dict:
        """What a checkpoint must hold besides the policy's."""
        return {"critic": self.state._asdict()}

    def resume(self, manager) -> None:
        """Go on from the latest checkpoint of a run."""
        self.state = TrainState(**restore(manager, arrays=self.arrays())["critic"])

    def __call__(self, scored, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        """An `r1jax.rl_loop.Advantages`: [P, G, T], over the rollout's tokens of mean 0 and standard deviation 1."""
        if scored.old_logprobs is None:
            raise UserError("PPO needs the log-probabilities of the sampled tokens: leave --grpo.watch-mismatch on")
        known, rows = scored.rewards.known, place(scored.rows, batch_sharding(self._mesh))
        mask = scored.rows.mask & known.reshape(-1, 1)
        values = fetch(self._values(self.state.params, self.state.router_bias, rows))
        scores = scored.rewards.rewards.reshape(-1)
        rewards = token_rewards(scores, scored.old_logprobs, scored.ref_logprobs, mask, kl_coef=self._grpo.kl_coef)
        advantages, returns = fetch(generalized_advantages(rewards, values, mask, trace=self._config.trace))
        metrics = self._learn(scored.rows._replace(mask=mask), returns, rng)
        spread = returns[mask].var() if mask.any() else 0.0
        error = np.mean(np.square(returns - values)[mask]) if mask.any() else 0.0
        metrics["explained_variance"] = float(1 - error / spread) if spread > 0 else 0.0
        if mask.any():
            advantages = np.where(mask, (advantages - advantages[mask].mean()) / (advantages[mask].std() + 1e-6), 0.0)
        return advantages.reshape(*known.shape, -1), metrics

    def _learn(self, rows: Rows, returns: np.ndarray, rng: np.random.Generator) -> dict:
        """One pass over a rollout, in as many updates as the policy makes."""
        losses = []
        for chosen in rng.permutation(len(returns)).reshape(self._grpo.mini_batches, -1):
            batch = jax.tree.map(lambda x: x[chosen], Judged(rows, returns))
            self.state, metrics = self._step(self.state, place(batch, batch_sharding(self._mesh)), {})
            check_finite(metrics, f"update {int(self.state.update)} of the critic")
            losses.append(float(metrics["loss"]))
        return {"value_loss": float(np.mean(losses)), "critic_bytes": count_bytes(self.state)}


def row_values(model: ModelConfig, params, router_bias, rows: Rows):
    """The value before every token of the completions, [B, T] float32, and the load of the experts."""
    values, load = token_values(model, params, router_bias, *row_inputs(rows))
    return values[:, rows.prompts.shape[1] - 1 :], load


def _values_in_parts(model: ModelConfig, parts: int, params, router_bias, rows: Rows):
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)
    values = jax.lax.map(lambda part: row_values(model, params, router_bias, part)[0], cut)
    return values.reshape(rows.mask.shape)


def value_loss(model: ModelConfig, params, router_bias, batch: Judged, scalars) -> LossOutput:
    """Half the mean square of values less returns, over tokens."""
    values, load = row_values(model, params, router_bias, batch.rows)
    loss, count = value_sums(values, values, batch.returns, batch.rows.mask, clip=jnp.inf)
    return LossOutput(loss, count, {}, load)


def ppo_batch_loss(
    model: ModelConfig, params, router_bias, batch: GrpoRows, scalars, *, logprobs_of=routed_logprobs
) -> LossOutput:
    """The policy's part of PPO on rows: the clipped surrogate as a mean over tokens; the KL is in the rewards."""
    logprobs, entropy, routing = logprobs_of(model, params, router_bias, batch.rows, temperature=scalars["temperature"])
    mask, epsilon = batch.rows.mask, scalars["clip_epsilon"]
    loss, count, metrics = dapo_sums(
        logprobs, batch.old_logprobs, batch.advantages, mask, clip_low=epsilon, clip_high=epsilon
    )
    metrics["entropy"] = masked_sum(entropy, mask)
    metrics["kl"] = masked_sum(k3(log_ratio(logprobs, batch.ref_logprobs, mask)), mask)
    return LossOutput(loss, count, metrics, routing.load)


def count_bytes(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))
