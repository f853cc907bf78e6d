"""The decoder: embedding, dense layers, mixture-of-experts layers, final norm, head."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.attention import GroupedQueryAttention, LatentAttention
from r1jax.models.cache import Cache, Entries, zero_entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import MLP, RMSNorm, weight
from r1jax.models.moe import MoE
from r1jax.ops.attention import attention_mask
from r1jax.sharding import constrain


class Visibility(NamedTuple):
    """What every layer needs to know about positions; the same for all layers."""

    positions: jax.Array
    mask: jax.Array
    cache_mask: jax.Array | None
    token_mask: jax.Array


class Block(nn.Module):
    """One pre-norm layer: attention, then a dense or mixture-of-experts feed-forward."""

    config: ModelConfig
    routed: bool

    @nn.compact
    def __call__(self, x, cache: Entries | None, router_bias, visibility: Visibility):
        config = self.config
        normed = RMSNorm(config, name="attention_norm")(x)
        kind = GroupedQueryAttention if config.num_kv_heads else LatentAttention
        attention = kind(config, name="attention")
        mixed, entries = attention(normed, visibility.positions, visibility.mask, cache, visibility.cache_mask)
        x = constrain(x + mixed, ("batch", "length", "embed_activation"))
        normed = RMSNorm(config, name="mlp_norm")(x)
        load = None
        if self.routed:
            out, load = MoE(config, name="moe")(normed, router_bias, visibility.token_mask)
        else:
            out = MLP(config, config.mlp_dim, name="mlp")(normed)
        return constrain(x + out, ("batch", "length", "embed_activation")), (entries, load)


def _stack(config: ModelConfig, *, routed: bool, length: int, name: str) -> nn.Module:
    """`length` blocks as one scanned module, whose parameters are stacked on a leading layer axis."""
    block = nn.remat(Block, prevent_cse=config.unroll_layers) if config.remat else Block
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, 0, nn.broadcast),
        length=length,
        unroll=length if config.unroll_layers else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config, routed, name=name)


class Transformer(nn.Module):
    """A DeepSeek-V3 decoder (arXiv 2412.19437, section 2.1), or a Llama or Qwen: pre-norm layers in either case."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens, positions, router_bias, *, segments=None, cache: Cache | None = None):
        """Hidden states of T new tokens, which see each other causally and, through the cache, what came before.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, from 0 in each sequence; -1 marks padding, which nobody sees and no load counts.
          router_bias: [num_moe_layers, E] float32, read only.
          segments: [B, T] int32 where a row packs several sequences; None for one sequence a row.
          cache: read only; store the returned entries with `write_cache`.

        Returns:
          hidden [B, T, D] after the final norm (multiply by `output_head` for logits); the new tokens'
          entries as a Cache of T slots; expert load [num_moe_layers, E] float32.
        """
        config = self.config
        embedding = weight(self, "embedding", (config.vocab_size, config.embed_dim), ("vocab", "embed"), config)
        # The head is declared here and applied by the caller, so that no [B, T, V] logits need exist.
        if not config.tied_embeddings:
            weight(self, "head", (config.embed_dim, config.vocab_size), ("embed", "vocab"), config)
        x = constrain(embedding[tokens], ("batch", "length", "embed_activation"))
        visibility = Visibility(
            positions,
            attention_mask(positions, positions, segments, segments),
            None if cache is None else attention_mask(positions, cache.positions),
            positions >= 0,
        )
        empty = zero_entries(config, 0, *tokens.shape)
        dense, moe, load = empty, empty, jnp.zeros((0, config.num_experts), jnp.float32)
        if config.num_dense_layers:
            stack = _stack(config, routed=False, length=config.num_dense_layers, name="dense_layers")
            x, (dense, _) = stack(x, cache and cache.dense, None, visibility)
        if config.num_moe_layers:
            stack = _stack(config, routed=True, length=config.num_moe_layers, name="moe_layers")
            x, (moe, load) = stack(x, cache and cache.moe, router_bias, visibility)
        return RMSNorm(config, name="final_norm")(x), Cache(dense, moe, positions), load


def output_head(config: ModelConfig, params) -> jax.Array:
    """The [D, V] projection from hidden states to logits, in the compute dtype."""
    head = params["embedding"].T if config.tied_embeddings else params["head"]
    return head.astype(config.dtype)


def init_params(config: ModelConfig, key: jax.Array):
    """Fresh parameters with their logical axes as Flax metadata, and a zero router bias [num_moe_layers, E]."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    bias = jnp.zeros((config.num_moe_layers, config.num_experts), jnp.float32)
    return Transformer(config).init(key, tokens, jnp.arange(2)[None], bias)["params"], bias


def forward(config: ModelConfig, params, router_bias, tokens, positions, *, segments=None, cache: Cache | None = None):
    """Apply the decoder; see `Transformer.__call__` for shapes."""
    return Transformer(config).apply({"params": params}, tokens, positions, router_bias, segments=segments, cache=cache)
