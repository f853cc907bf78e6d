"""One layer."""

import flax.linen as nn

from r1jax.models.attention import GroupedQueryAttention, LatentAttention
from r1jax.models.cache import Entries, Stack, decode_entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import MLP, RMSNorm
from r1jax.models.moe import MoE
from r1jax.models.visibility import Visibility
from r1jax.sharding import constrain


class Block(nn.Module):
    """One pre-norm layer: attention, then a dense or mixture-of-experts feed-forward.

    Returns x, and the Entries of the new tokens with the Routing, None in a dense layer.
    """

    config: ModelConfig
    routed: bool

    @nn.compact
    def __call__(self, x, cache: Entries | Stack | None, router_bias, replay, visibility: Visibility):
        config = self.config
        normed = RMSNorm(config, name="attention_norm")(x)
        kind = GroupedQueryAttention if config.num_kv_heads else LatentAttention
        attention = kind(config, name="attention")
        cache = cache if isinstance(cache, Stack) else cache and decode_entries(cache, config.dtype)
        mixed, entries = attention(normed, visibility, cache)
        x = constrain(x + mixed, ("batch", "length", "embed_activation"))
        normed = RMSNorm(config, name="mlp_norm")(x)
        routing = None
        if self.routed:
            out, routing = MoE(config, name="moe")(normed, router_bias, visibility.segments, replay)
        else:
            out = MLP(config, config.mlp_dim, name="mlp")(normed)
        return constrain(x + out, ("batch", "length", "embed_activation")), (entries, routing)
