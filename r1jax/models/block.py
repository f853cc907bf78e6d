"""One layer, and what all layers know about positions."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.attention import GroupedQueryAttention, LatentAttention
from r1jax.models.cache import Entries, decode_entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import MLP, RMSNorm
from r1jax.models.moe import MoE
from r1jax.ops.attention import attention_mask
from r1jax.sharding import constrain


class Visibility(NamedTuple):
    """What every layer needs to know about positions; the same for all layers."""

    positions: jax.Array
    mask: jax.Array
    cache_mask: jax.Array | None
    segments: jax.Array
    """[B, T] int32, from 1; 0 for padding, which no expert's load counts."""


def make_visibility(positions, segments, cache_positions=None) -> Visibility:
    """Who sees whom; arguments as `Transformer.__call__`, and the positions [B, S] that a cache holds."""
    cache_mask = None if cache_positions is None else attention_mask(positions, cache_positions)
    numbered = jnp.ones_like(positions) if segments is None else segments
    numbered = jnp.where(positions >= 0, numbered, 0)
    return Visibility(positions, attention_mask(positions, positions, segments, segments), cache_mask, numbered)


class Block(nn.Module):
    """One pre-norm layer: attention, then a dense or mixture-of-experts feed-forward.

    Returns x, and the Entries of the new tokens with the Routing, None in a dense layer.
    """

    config: ModelConfig
    routed: bool

    @nn.compact
    def __call__(self, x, cache: Entries | None, router_bias, replay, visibility: Visibility):
        config = self.config
        normed = RMSNorm(config, name="attention_norm")(x)
        kind = GroupedQueryAttention if config.num_kv_heads else LatentAttention
        attention = kind(config, name="attention")
        cache = cache and decode_entries(cache, config.dtype)
        mixed, entries = attention(normed, visibility.positions, visibility.mask, cache, visibility.cache_mask)
        x = constrain(x + mixed, ("batch", "length", "embed_activation"))
        normed = RMSNorm(config, name="mlp_norm")(x)
        routing = None
        if self.routed:
            out, routing = MoE(config, name="moe")(normed, router_bias, visibility.segments, replay)
        else:
            out = MLP(config, config.mlp_dim, name="mlp")(normed)
        return constrain(x + out, ("batch", "length", "embed_activation")), (entries, routing)
