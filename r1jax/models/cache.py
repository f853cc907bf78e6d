"""The KV cache: of latent attention a latent and one rotary key, nothing per head; of grouped-query keys and values."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig

CacheDtype = Literal["dtype", "bfloat16", "int8", "float8_e4m3"]
"""How entries are kept: in the model's compute dtype, rounded to bfloat16, or quantized."""

_QUANTIZED = {"int8": (jnp.int8, 127.0), "float8_e4m3": (jnp.float8_e4m3fn, 448.0)}  # and the largest value


class Quantized(NamedTuple):
    """Numbers in 8 bits, with one scale for the channels of each token and head."""

    values: jax.Array
    """int8 or float8_e4m3fn."""
    scale: jax.Array
    """float32, of size 1 along the channels; the numbers are values * scale."""


class Entries(NamedTuple):
    """What a stack of layers keeps for some tokens, laid out as the products of attention read it.

    Latent attention has one key-value head, which all heads share (K = 1). Each part is an array, or `Quantized` in a
    cache of 8 bits.
    """

    key: jax.Array
    """[L, B, K, H, S] rotated keys; of latent attention the rotary key alone, H = Hr."""
    value: jax.Array
    """[L, B, K, S, H] values; of latent attention the latent after its RMSNorm, from which keys come too, H = R."""


class Stack(NamedTuple):
    """Entries of a whole stack of layers and which of them to read: what a kernel takes, for a slice would be a copy."""

    entries: Entries
    """Arrays alone, none of them `Quantized`."""
    layer: jax.Array
    """int32."""


class Cache(NamedTuple):
    """Entries of all layers, written at the same slots for every row; `positions` says which slots hold a token."""

    dense: Entries
    moe: Entries
    positions: jax.Array
    """[B, S] int32 position of the token in its row, -1 for an empty slot."""


def encode_entries(entries: Entries, cache_dtype: CacheDtype) -> Entries:
    """Entries as a cache of this dtype keeps them."""
    if cache_dtype == "dtype":
        return entries
    if cache_dtype == "bfloat16":
        return Entries(*(x.astype(jnp.bfloat16) for x in entries))
    dtype, largest = _QUANTIZED[cache_dtype]

    def quantize(x, channels):
        x = x.astype(jnp.float32)
        peak = jnp.max(jnp.abs(x), axis=channels, keepdims=True, initial=0.0)
        scale = jnp.where(peak > 0, peak / largest, 1.0)
        scaled = jnp.clip(x / scale, -largest, largest)
        return Quantized((jnp.round(scaled) if dtype == jnp.int8 else scaled).astype(dtype), scale)

    return Entries(quantize(entries.key, -2), quantize(entries.value, -1))


def decode_entries(entries: Entries, dtype) -> Entries:
    """What attention reads, in the compute dtype."""
    read = lambda x: x.values.astype(jnp.float32) * x.scale if isinstance(x, Quantized) else x
    return Entries(*(read(x).astype(dtype) for x in entries))


def zero_entries(
    config: ModelConfig, layers: int, batch: int, slots: int, cache_dtype: CacheDtype = "dtype"
) -> Entries:
    """Entries of `layers` layers, all zero."""
    heads = max(config.num_kv_heads, 1)
    key, value = (width // heads for width in config.cache_widths)
    part = lambda *shape: jnp.zeros((layers, batch, heads, *shape), config.dtype)
    return encode_entries(Entries(part(key, slots), part(slots, value)), cache_dtype)


def init_cache(config: ModelConfig, batch: int, slots: int, cache_dtype: CacheDtype = "dtype") -> Cache:
    """An empty cache for `batch` rows of at most `slots` tokens."""
    return Cache(
        zero_entries(config, config.num_dense_layers, batch, slots, cache_dtype),
        zero_entries(config, config.num_moe_layers, batch, slots, cache_dtype),
        jnp.full((batch, slots), -1, jnp.int32),
    )


def cache_bytes_per_token(config: ModelConfig, cache_dtype: CacheDtype = "dtype") -> int:
    """Bytes that all layers together keep for one token, scales included."""
    layers = jax.eval_shape(lambda: zero_entries(config, config.num_layers, 1, 1, cache_dtype))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(layers))


def encode_like(new: Entries, stored: Entries) -> Entries:
    """New tokens' entries as those of a cache are kept."""
    part = stored.key
    if isinstance(part, Quantized):
        return encode_entries(new, "int8" if part.values.dtype == jnp.int8 else "float8_e4m3")
    return Entries(*(x.astype(part.dtype) for x in new))


def along_slots(function, *trees):
    """Apply function(axis, *arrays) to the arrays of trees of Entries; `axis` is that of their slots."""

    def apply(*entries):
        keys, values = zip(*entries, strict=True)
        at = lambda back, *arrays: function(arrays[0].ndim - back, *arrays)
        return Entries(jax.tree.map(partial(at, 1), *keys), jax.tree.map(partial(at, 2), *values))

    return jax.tree.map(apply, *trees, is_leaf=lambda x: isinstance(x, Entries))


def slice_slots(entries, start: int, stop: int):
    """Slots [start, stop) of a tree of Entries."""
    return along_slots(lambda axis, x: jax.lax.slice_in_dim(x, start, stop, axis=axis), entries)


def write_cache(cache: Cache, new: Cache, slot) -> Cache:
    """Write the entries of T new tokens at slots [slot, slot + T). Inside a loop XLA does this in place.

    Args:
      cache: of S slots.
      new: what the model returned for the new tokens, of T slots.
      slot: int32 scalar, the same for every row.
    """
    place = lambda axis, old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis)
    stack = lambda old, new: along_slots(place, old, encode_like(new, old))
    return Cache(stack(cache.dense, new.dense), stack(cache.moe, new.moe), place(1, cache.positions, new.positions))


def write_token(stored, new, slots):
    """Write one new token a row, each row at a slot of its own. Inside a loop XLA does this in place.

    Args:
      stored: a tree of Entries of S slots.
      new: the same of one, as `encode_like` makes them.
      slots: [B] int32; a row whose slot is S or more is left as it is.
    """

    def place(axis, old, new):
        # All but the channels is indexed, not sliced: XLA for TPU lays sliced axes side by side, and would copy the
        # cache at every step, there and back.
        layers, rows, heads = (jnp.arange(size) for size in old.shape[:3])
        where = layers[:, None, None], rows[:, None], heads
        at = old.at[*where, :, slots[:, None]] if axis == 4 else old.at[*where, slots[:, None]]
        return at.set(jnp.squeeze(new, axis), mode="drop", unique_indices=True)

    return along_slots(place, stored, new)
