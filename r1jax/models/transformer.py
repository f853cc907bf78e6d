"""The decoder: embedding, dense layers, mixture-of-experts layers, final norm, head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.block import Block, between_layers
from r1jax.models.cache import Cache, Entries, Stack, zero_entries
from r1jax.models.config import ModelConfig
from r1jax.models.layers import RMSNorm, weight
from r1jax.models.moe import Routing
from r1jax.models.mtp import init_mtp_params
from r1jax.models.sequence import entries_from_layers, from_layers, to_layers
from r1jax.models.visibility import make_visibility
from r1jax.ops.logprobs import token_logprobs
from r1jax.ops.placed_logprobs import TokenAxes, placed_token_logprobs
from r1jax.sharding import constrain, cut_axes, on_several_devices


def _stack(config: ModelConfig, cache, *, routed: bool, length: int, name: str) -> nn.Module:
    """`length` blocks as one scanned module, whose parameters are stacked on a leading layer axis."""
    of_cache = Stack(nn.broadcast, 0) if isinstance(cache, Stack) else 0
    block = nn.remat(Block, prevent_cse=config.unroll_layers) if config.remat else Block
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(of_cache, 0, 0, nn.broadcast),
        length=length,
        unroll=length if config.unroll_layers else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config, routed, name=name)


def _by_layer(config: ModelConfig, entries: Entries | None) -> Entries | Stack | None:
    """Cached entries as a scan over layers takes them: cut into layers, or whole where a kernel finds its own layer."""
    if entries is None or config.attention != "splash" or config.num_kv_heads or config.unroll_layers:
        return entries
    plain = all(getattr(part, "dtype", None) == config.dtype for part in entries)
    return Stack(entries, jnp.arange(len(entries.key))) if plain else entries


class Transformer(nn.Module):
    """A DeepSeek-V3 decoder (arXiv 2412.19437, section 2.1), or a Llama or Qwen: pre-norm layers in either case."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens, positions, router_bias, *, segments=None, parents=None, cache: Cache | None = None, replay=None
    ):
        """Hidden states of T new tokens, which see each other causally and, through the cache, what came before.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, from 0 in each sequence; -1 marks padding, which nobody sees and no load counts.
          router_bias: [num_routers, E] float32, read only.
          segments: [B, T] int32, from 1, where a row packs several sequences; None for one sequence a row.
          parents: [B, T] int32, the segment that a token sees besides its own, for instance the prompt that several
            completions share; its own where there is none. None for no such token.
          cache: read only; store the returned entries with `write_cache`.
          replay: [num_moe_layers, B, T, K] int32, experts to take in place of the routers' choice; see `route`.

        Returns:
          hidden [B, T, D] after the final norm (multiply by `output_head` for logits); the new tokens'
          entries as a Cache of T slots; the Routing of all routers, zero for the MTP module, which does not run here.
        """
        config = self.config
        embedding = weight(self, "embedding", (config.vocab_size, config.embed_dim), ("vocab", "embed"), config)
        # The head is declared here and applied by the caller, so that no [B, T, V] logits need exist.
        if not config.tied_embeddings:
            weight(self, "head", (config.embed_dim, config.vocab_size), ("embed", "vocab"), config)
        if parents is not None and config.attention == "splash":
            raise ValueError("attention 'splash' shows a token its own segment only: take 'einsum', or no parents")
        if cache is None:
            tokens, positions, segments, parents = to_layers((tokens, positions, segments, parents))
            replay = to_layers(replay, rows=1)
        # Looked up in whole rows: tokens and rows cut along the same mesh axis would make XLA gather all activations.
        rows = constrain(embedding, ("vocab", "embed_activation"))
        x = between_layers(rows[tokens])
        visibility = make_visibility(positions, segments, None if cache is None else cache.positions, parents)
        empty = zero_entries(config, 0, *tokens.shape)
        dense, moe = empty, empty
        routing = Routing(
            jnp.zeros((0, config.num_experts), jnp.float32),
            jnp.zeros(0, jnp.float32),
            jnp.zeros((0, *tokens.shape, config.num_experts_per_token), jnp.int32),
        )
        if config.num_dense_layers:
            held = cache and _by_layer(config, cache.dense)
            stack = _stack(config, held, routed=False, length=config.num_dense_layers, name="dense_layers")
            x, (dense, _) = stack(x, held, None, None, visibility)
        if config.num_moe_layers:
            held = cache and _by_layer(config, cache.moe)
            stack = _stack(config, held, routed=True, length=config.num_moe_layers, name="moe_layers")
            x, (moe, routing) = stack(x, held, router_bias[: config.num_moe_layers], replay, visibility)
        if cache is None:
            x, positions = from_layers((x, positions))
            dense, moe = entries_from_layers((dense, moe), rows=1)
            routing = routing._replace(experts=from_layers(routing.experts, rows=1))
        absent = lambda rows: jnp.pad(rows, [(0, config.num_mtp_layers)] + [(0, 0)] * (rows.ndim - 1))
        routing = jax.tree.map(absent, routing)
        return RMSNorm(config, name="final_norm")(x), Cache(dense, moe, positions), routing


def output_head(config: ModelConfig, params) -> jax.Array:
    """The [D, V] projection from hidden states to logits, in the compute dtype."""
    head = params["embedding"].T if config.tied_embeddings else params["head"]
    return head.astype(config.dtype)


def target_logprobs(config: ModelConfig, params, hidden, targets, *, temperature=1.0):
    """Log-probability of each target [B, T] after hidden states [B, T, D], and the entropy of each prediction."""
    head = output_head(config, params)
    if not on_several_devices():
        return token_logprobs(hidden, head, targets, temperature=temperature)
    batch, length = targets.shape
    tokens = cut_axes("batch", batch) or (), cut_axes("length", length) or ()
    axes = TokenAxes(*tokens, cut_axes("embed", config.embed_dim), cut_axes("vocab", config.vocab_size))
    return placed_token_logprobs(hidden, head, targets, axes=axes, temperature=temperature)


def init_params(config: ModelConfig, key: jax.Array):
    """Fresh parameters with their logical axes as Flax metadata, and a zero router bias [num_routers, E]."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    bias = jnp.zeros((config.num_routers, config.num_experts), jnp.float32)
    params = Transformer(config).init(key, tokens, jnp.arange(2)[None], bias)["params"]
    if config.num_mtp_layers:
        params |= {"mtp": init_mtp_params(config, jax.random.fold_in(key, 1))}
    return params, bias


def forward(
    config: ModelConfig, params, router_bias, tokens, positions,
    *, segments=None, parents=None, cache: Cache | None = None,
):  # fmt: skip
    """Apply the decoder: hidden states, the new Cache entries, and the expert load [num_routers, E] float32.

    See `Transformer.__call__` for shapes. The rows of the load that belong to the MTP module are zero.
    """
    apply = Transformer(config).apply
    hidden, entries, routing = apply(
        {"params": params}, tokens, positions, router_bias, segments=segments, parents=parents, cache=cache
    )
    return hidden, entries, routing.load


def forward_with_routing(
    config: ModelConfig, params, router_bias, tokens, positions,
    *, segments=None, parents=None, cache: Cache | None = None, replay=None,
):  # fmt: skip
    """As `forward`, with the whole Routing in place of the load, for losses that balance experts and for replay."""
    return Transformer(config).apply(
        {"params": params}, tokens, positions, router_bias,
        segments=segments, parents=parents, cache=cache, replay=replay,
    )  # fmt: skip
