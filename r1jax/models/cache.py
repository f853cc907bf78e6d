"""The KV cache: of latent attention a latent and one rotary key, nothing per head; of grouped-query keys and values."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig


class Entries(NamedTuple):
    """What a stack of layers keeps for some tokens; the widths are `ModelConfig.cache_widths`."""

    key: jax.Array
    """[L, B, S, Hr] the rotated key that all heads share (latent attention), or [L, B, S, K * H] rotated keys."""
    value: jax.Array
    """[L, B, S, R] the latent after its RMSNorm, from which keys come too, or [L, B, S, K * H] values."""


class Cache(NamedTuple):
    """Entries of all layers, written at the same slots for every row; `positions` says which slots hold a token."""

    dense: Entries
    moe: Entries
    positions: jax.Array
    """[B, S] int32 position of the token in its row, -1 for an empty slot."""


def zero_entries(config: ModelConfig, layers: int, batch: int, slots: int) -> Entries:
    """Entries of `layers` layers, all zero."""
    return Entries(*(jnp.zeros((layers, batch, slots, width), config.dtype) for width in config.cache_widths))


def init_cache(config: ModelConfig, batch: int, slots: int) -> Cache:
    """An empty cache for `batch` rows of at most `slots` tokens."""
    return Cache(
        zero_entries(config, config.num_dense_layers, batch, slots),
        zero_entries(config, config.num_moe_layers, batch, slots),
        jnp.full((batch, slots), -1, jnp.int32),
    )


def write_cache(cache: Cache, new: Cache, slot) -> Cache:
    """Write the entries of T new tokens at slots [slot, slot + T). Inside a loop XLA does this in place.

    Args:
      cache: of S slots.
      new: what the model returned for the new tokens, of T slots.
      slot: int32 scalar, the same for every row.
    """
    place = lambda axis, old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis)
    stack = partial(jax.tree.map, partial(place, 2))
    return Cache(stack(cache.dense, new.dense), stack(cache.moe, new.moe), place(1, cache.positions, new.positions))
