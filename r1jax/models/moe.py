"""DeepSeekMoE feed-forward layer: routed experts chosen by their scores, plus shared experts."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig
from r1jax.models.layers import MLP, fp8_recipe, weight
from r1jax.ops.expert_exchange import exchange_is_shorter, experts_exchange
from r1jax.ops.expert_parallel import ExpertAxes, experts_ring
from r1jax.ops.fp8 import fp8_linear, fp8_ragged
from r1jax.ops.grouped import grouped_dot
from r1jax.ops.moe import (
    expert_load,
    experts_blocks,
    experts_dense,
    experts_each,
    experts_ragged,
    experts_windowed,
    route,
    sequence_balance,
)
from r1jax.ops.wide import wide
from r1jax.sharding import count_ways, cut_axes, on_several_devices


class Routing(NamedTuple):
    """How the tokens of a batch were spread over the experts; of a stack of layers, with a leading layer axis."""

    load: jax.Array
    """[E] float32, tokens sent to each expert."""
    balance: jax.Array
    """float32, what `sequence_balance` says."""
    experts: jax.Array
    """[B, T, K] int32, the router's own choice for each token, the likeliest first; also where a replay replaced it."""


SLACK = 2
"""Devices that share the experts make room for this many times the rows of an even load before they take more turns."""


def _choose_experts(config: ModelConfig, ways: int):
    """The function that runs one of `ways` shares of the experts: by dispatch and precision."""
    recipe = fp8_recipe(config)
    if config.expert_dispatch in ("dense", "blocks"):
        if recipe is not None:
            return partial(experts_each, dot=lambda x, w: fp8_linear(x, w, recipe))
        return experts_dense if config.expert_dispatch == "dense" else experts_blocks
    if config.expert_dispatch == "megablox":
        dot = grouped_dot
    else:
        dot = jax.lax.ragged_dot if recipe is None else lambda x, w, sizes: fp8_ragged(x, w, sizes, recipe)
    windows = ways // SLACK
    return partial(experts_windowed, windows=windows, dot=dot) if windows > 1 else partial(experts_ragged, dot=dot)


def _run_experts(config: ModelConfig, x, indices, weights, gate, up, down):
    """Weighted sum of the chosen experts' outputs, of the shape of `x`: [N, D], or on several devices, where the experts
    stay where they are, [B, T, D]."""
    run = _choose_experts(config, count_ways("experts"))
    if not on_several_devices():
        return run(x, indices, weights, gate, up, down)
    axes = ExpertAxes(
        cut_axes("batch", x.shape[0]) or (), cut_axes("length", x.shape[1]), cut_axes("experts", gate.shape[0]),
        cut_axes("embed", gate.shape[1]), cut_axes("expert_mlp", gate.shape[2]),
    )  # fmt: skip
    place = experts_exchange if _takes_exchange(config, axes) else experts_ring
    return place(x, indices, weights, gate, up, down, run=run, axes=axes)


def _takes_exchange(config: ModelConfig, axes: ExpertAxes) -> bool:
    """Whether tokens travel to their experts by an all-to-all; where all devices have them there is nothing to send."""
    if config.expert_transport == "ring" or axes.experts not in axes.batch:
        return False
    ways = count_ways("experts")
    of_groups = config.num_limited_groups * max(ways // config.num_expert_groups, 1)
    visited = min(config.num_experts_per_token, ways, of_groups)
    return config.expert_transport == "all_to_all" or exchange_is_shorter(ways, visited)


class MoE(nn.Module):
    """Routed and shared experts (DeepSeek-V3, eq. 12-16), dropless."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, router_bias, segments, replay=None):
        """Apply the experts.

        Args:
          x: [B, T, D].
          router_bias: [E] float32, added to the scores for the choice of experts only; state, not a parameter.
          segments: [B, T] int32, from 1; 0 for padding, which is left out of the load.
          replay: [B, T, K] int32 or None, experts to take in place of the router's choice; see `route`.

        Returns:
          output [B, T, D] and the Routing.
        """
        config, embed_dim = self.config, x.shape[-1]
        experts, mlp_dim = config.num_experts, config.expert_mlp_dim
        router_init = nn.with_logical_partitioning(nn.initializers.normal(config.init_stddev), ("embed", "experts"))
        router = self.param("router", router_init, (embed_dim, experts), jnp.float32)
        gate = weight(self, "gate", (experts, embed_dim, mlp_dim), ("experts", "embed", "expert_mlp"), config)
        up = weight(self, "up", (experts, embed_dim, mlp_dim), ("experts", "embed", "expert_mlp"), config)
        down = weight(self, "down", (experts, mlp_dim, embed_dim), ("experts", "expert_mlp", "embed"), config)

        # One axis of tokens, but where rows and lengths are cut over devices, each in its own way.
        tokens = x if on_several_devices() else x.reshape(-1, embed_dim)
        softmax = config.router_score == "softmax"
        # TPUs multiply float32 in one pass of bfloat16 unless told otherwise.
        logits = jnp.dot(tokens.astype(wide(tokens)), router, precision=jax.lax.Precision.HIGHEST)
        scores = (jax.nn.softmax if softmax else jax.nn.sigmoid)(logits)
        choose = partial(
            route,
            scores,
            router_bias,
            num_selected=config.num_experts_per_token,
            num_groups=config.num_expert_groups,
            num_limited_groups=config.num_limited_groups,
            group_top=1 if softmax else 2,
            normalize=config.normalize_top_k,
            scaling=config.routed_scaling_factor,
        )
        own, weights = choose()
        indices = own
        if replay is not None:
            indices, weights = choose(replay=replay.reshape(own.shape))
        routed = _run_experts(config, tokens, indices, weights, gate, up, down).reshape(x.shape)
        load = expert_load(indices.reshape(-1, indices.shape[-1]), experts, (segments > 0).reshape(-1))
        by_row = scores.reshape(*x.shape[:2], experts)
        balance = sequence_balance(by_row, segments, num_selected=config.num_experts_per_token)
        if config.num_shared_experts:
            routed += MLP(config, mlp_dim * config.num_shared_experts, name="shared")(x)
        return routed, Routing(load, balance, own.reshape(*x.shape[:2], -1))
