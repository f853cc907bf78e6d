"""Multi-token prediction: a module that predicts the token after the next (DeepSeek-V3, section 2.2, D = 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.block import Block, within_layer
from r1jax.models.cache import Entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import RMSNorm, weight
from r1jax.models.moe import Routing
from r1jax.models.sequence import entries_from_layers, from_layers, to_layers
from r1jax.models.visibility import Visibility, make_visibility
from r1jax.sharding import constrain


class MultiTokenPrediction(nn.Module):
    """Norms of its two inputs, a projection of both, one mixture-of-experts layer, and a final norm of its own.

    Embedding and head are the main model's. The released weights project [embedding, hidden state], in this order, and
    take the hidden state after the main model's final norm; eq. 21 of the paper prints the other order.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden, next_embedding, router_bias, visibility: Visibility, cache: Entries | None = None):
        """Hidden states for the token after the next.

        Args:
          hidden: [B, T, D] of the main model, after its final norm.
          next_embedding: [B, T, D], embedding of each position's next token.
          router_bias: [E] float32, read only.
          visibility: of these positions, and of those that the cache holds.
          cache: the module's own entries of earlier positions, of one layer; read only.

        Returns:
          [B, T, D] after the module's final norm, for the shared head; the Entries of these positions; its Routing.
        """
        config = self.config
        parts = [RMSNorm(config, name="embedding_norm")(next_embedding), RMSNorm(config, name="hidden_norm")(hidden)]
        shape, axes = (2 * config.embed_dim, config.embed_dim), ("embed", "embed_activation")
        x = jnp.concatenate(parts, axis=-1) @ weight(self, "projection", shape, axes, config)
        x = within_layer(x)
        block = nn.remat(Block) if config.remat else Block
        x, (entries, routing) = block(config, routed=True, name="block")(x, cache, router_bias, None, visibility)
        return RMSNorm(config, name="final_norm")(x), entries, routing


def init_mtp_params(config: ModelConfig, key: jax.Array):
    """Fresh parameters of the module, with their logical axes as Flax metadata; they live at params["mtp"]."""
    hidden, positions = jnp.zeros((1, 2, config.embed_dim), config.dtype), jnp.arange(2)[None]
    bias, visibility = jnp.zeros(config.num_experts, jnp.float32), make_visibility(positions, None)
    return MultiTokenPrediction(config).init(key, hidden, hidden, bias, visibility)["params"]


def mtp_forward(config: ModelConfig, params, router_bias, hidden, next_tokens, positions, *, segments=None):
    """Run the module on what the main model made of T tokens.

    A position without a next token to embed must be marked as padding. Positions are the main model's: attention
    depends on their differences alone.

    Args:
      params, router_bias: of the whole model.
      hidden: [B, T, D] from `forward`.
      next_tokens: [B, T] int32, the token after each position.
      positions: [B, T] int32; -1 marks padding.
      segments: [B, T] int32, or None for one sequence a row.

    Returns:
      hidden [B, T, D], which `output_head` maps to logits of the token after the next; and the Routing of all routers
      (load [num_routers, E]), zero but for the module's, to be added to that of the main model.
    """
    hidden, next_tokens, positions, segments = to_layers((hidden, next_tokens, positions, segments))
    visibility = make_visibility(positions, segments)
    hidden, _, routing = _apply(config, params, router_bias, hidden, next_tokens, visibility, None)
    hidden, routing = from_layers(hidden), routing._replace(experts=from_layers(routing.experts))
    last = lambda row: jnp.pad(row[None], [(config.num_moe_layers, 0)] + [(0, 0)] * row.ndim)
    return hidden, Routing(*map(last, routing))


def mtp_with_cache(
    config: ModelConfig, params, router_bias, hidden, next_tokens, positions,
    *, cache: Entries | None = None, cache_positions=None,
):  # fmt: skip
    """Run the module on T positions that follow those whose entries a cache holds, for decoding.

    Args:
      params, router_bias, hidden, next_tokens, positions: as for `mtp_forward`.
      cache: [1, B, S, ...] entries of earlier positions, read only; None where there are none.
      cache_positions: [B, S] int32, the positions that these are of, -1 for an empty slot.

    Returns:
      hidden [B, T, D], and the Entries [1, B, T, ...] of the new positions.
    """
    if cache is None:
        hidden, next_tokens, positions = to_layers((hidden, next_tokens, positions))
    visibility = make_visibility(positions, None, cache_positions)
    cache = jax.tree.map(lambda x: x[0], cache)
    hidden, entries, _ = _apply(config, params, router_bias, hidden, next_tokens, visibility, cache)
    if cache is None:
        hidden, entries = from_layers(hidden), entries_from_layers(entries, rows=0)
    return hidden, jax.tree.map(lambda x: x[None], entries)


def _apply(config, params, router_bias, hidden, next_tokens, visibility, cache):
    rows = constrain(params["embedding"].astype(config.dtype), ("vocab", "embed_activation"))
    embedding = within_layer(rows[next_tokens])
    arguments = hidden, embedding, router_bias[-1], visibility, cache
    return MultiTokenPrediction(config).apply({"params": params["mtp"]}, *arguments)
