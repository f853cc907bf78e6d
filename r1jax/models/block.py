"""One layer."""

import flax.linen as nn

from r1jax.models.attention import GroupedQueryAttention, LatentAttention
from r1jax.models.cache import Entries, Stack, decode_entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import MLP, RMSNorm
from r1jax.models.moe import MoE
from r1jax.models.visibility import Visibility
from r1jax.sharding import constrain, cut_axes


class Block(nn.Module):
    """One pre-norm layer: attention, then a dense or mixture-of-experts feed-forward.

    Returns x, and the Entries of the new tokens with the Routing, None in a dense layer.
    """

    config: ModelConfig
    routed: bool

    @nn.compact
    def __call__(self, x, cache: Entries | Stack | None, router_bias, replay, visibility: Visibility):
        config = self.config
        normed = within_layer(RMSNorm(config, name="attention_norm")(x))
        kind = GroupedQueryAttention if config.num_kv_heads else LatentAttention
        attention = kind(config, name="attention")
        cache = cache if isinstance(cache, Stack) else cache and decode_entries(cache, config.dtype)
        mixed, entries = attention(normed, visibility, cache)
        x = between_layers(x + within_layer(mixed))
        normed = within_layer(RMSNorm(config, name="mlp_norm")(x))
        routing = None
        if self.routed:
            out, routing = MoE(config, name="moe")(normed, router_bias, visibility.segments, replay)
        else:
            out = MLP(config, config.mlp_dim, name="mlp")(normed)
        return between_layers(x + within_layer(out)), (entries, routing)


def within_layer(x):
    """Lay [B, T, D] out as attention and feed-forward read and write it: along `tensor`, whose devices have a part of
    heads and hidden widths each, all of them have all tokens."""
    return constrain(x, ("batch", "length", "embed_activation"))


def between_layers(x):
    """Lay [B, T, D] out as it goes from one layer to the next, and is kept for the backward pass: cut as far as can be.

    What attention or feed-forward add up over devices along `tensor` is scattered over their tokens, and gathered by
    the next, in as many bytes as adding it up on all of them takes (arXiv 2205.05198, section 4.2.2).
    """
    length = "length" if cut_axes("length_between_layers", x.shape[1]) is None else "length_between_layers"
    return constrain(x, ("batch", length, "embed_activation"))
