"""The KV cache of multi-head latent attention: the normed latent and the rotated shared key, nothing per head."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig


class Entries(NamedTuple):
    """What a stack of layers keeps for some tokens."""

    latent: jax.Array
    """[L, B, S, R], after its RMSNorm."""
    rope_key: jax.Array
    """[L, B, S, Hr], after rotation."""


class Cache(NamedTuple):
    """Entries of all layers, written at the same slots for every row; `positions` says which slots hold a token."""

    dense: Entries
    moe: Entries
    positions: jax.Array
    """[B, S] int32 position of the token in its row, -1 for an empty slot."""


def init_cache(config: ModelConfig, batch: int, slots: int) -> Cache:
    """An empty cache for `batch` rows of at most `slots` tokens."""
    dtype = jnp.dtype(config.dtype)

    def entries(layers: int) -> Entries:
        return Entries(
            jnp.zeros((layers, batch, slots, config.kv_lora_rank), dtype),
            jnp.zeros((layers, batch, slots, config.qk_rope_head_dim), dtype),
        )

    return Cache(
        entries(config.num_dense_layers), entries(config.num_moe_layers), jnp.full((batch, slots), -1, jnp.int32)
    )


def write_cache(cache: Cache, new: Cache, slot) -> Cache:
    """Write the entries of T new tokens at slots [slot, slot + T). Inside a loop XLA does this in place.

    Args:
      cache: of S slots.
      new: what the model returned for the new tokens, of T slots.
      slot: int32 scalar, the same for every row.
    """
    place = lambda old, new, axis: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis)
    stack = lambda old, new: Entries(place(old.latent, new.latent, 2), place(old.rope_key, new.rope_key, 2))
    return Cache(stack(cache.dense, new.dense), stack(cache.moe, new.moe), place(cache.positions, new.positions, 1))
