"""What GRPO can be told."""

import dataclasses
from typing import Literal

import numpy as np

from r1jax.config import UserError
from r1jax.generation.sampler import SamplingConfig
from r1jax.models.config import ModelConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.sharding import check_divides


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
    clip_epsilon_high: float | None = None
    """Its upper half where it is another (clip-higher of DAPO: 0.28); by default clip_epsilon."""
    importance_cap: float | None = None
    """Weigh tokens by min(trainer's / sampler's probability, this), truncated importance sampling; 2 is usual. Off by
    default: where both compute alike the weights are 1."""
    kl_coef: float = 0.001
    """Weight of the KL penalty towards the reference."""
    reference_every: int = 400
    """Updates after which the policy becomes the reference; a multiple of mini_batches."""
    offload_reference: bool = False
    """Keep the reference in the hosts' memory, and on the devices while it scores; it moves once an iteration."""
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
    watch_mismatch: bool = True
    """Compute the policy's log-probabilities before the updates, and compare them with the sampler's. Without, and with
    one mini-batch, an update takes its own as the old ones, which they are: one pass less over all completions."""
    mismatch_alarm: float = 1e-3
    """KL from sampler to trainer, in nats a token, above which a run warns. In arXiv 2510.11370 a dense model has 6.4e-4
    in bfloat16, a mixture of experts that went on to collapse 1.5e-3, and 7.5e-4 with its routing replayed."""

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
        if not self.watch_mismatch and self.mini_batches > 1:
            raise UserError(
                f"--grpo.no-watch-mismatch needs --grpo.mini-batches 1, not {self.mini_batches}: from the second update on "
                "the policy is another than the one that sampled, whose log-probabilities must have been computed before"
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
        for name in ("max_extra_batches", "balance_weight", "router_bias_rate"):
            if getattr(self, name) < 0:
                raise UserError(f"--grpo.{name.replace('_', '-')} must be 0 or more, not {getattr(self, name)}")
        for name in ("importance_cap", "clip_epsilon_high", "mismatch_alarm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"--grpo.{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")
        if self.rows_at_a_time % self.completions_a_prompt:
            raise UserError(
                f"a micro-batch of {self.rows_at_a_time} rows does not hold whole groups of {group_size}, as "
                "--grpo.packing shared_prompts needs; use fewer mini-batches or micro-batches, or another packing"
            )
        places = self.rows_at_a_time // self.completions_a_prompt
        check_divides(mesh, places, "batch", "a micro-batch")


def recorded_sampling(model: ModelConfig, config: GrpoConfig) -> SamplingConfig:
    """How completions are drawn: with a record of their routing where it is to be replayed."""
    if not model.num_experts and (config.replay_routing or config.balance_weight or config.router_bias_rate):
        raise UserError(
            "--grpo.replay-routing, --grpo.balance-weight and --grpo.router-bias-rate are for mixtures of experts, and "
            "this model has no experts; leave them at their defaults"
        )
    recording = config.sampling.record_routing or config.replay_routing
    return dataclasses.replace(config.sampling, record_routing=recording)


def loss_scalars(config: GrpoConfig, prompt_lengths: np.ndarray, mask: np.ndarray) -> dict:
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
