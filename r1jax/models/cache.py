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
    """Numbers in 8 bits, with one scale for each token and part of its entry."""

    values: jax.Array
    """[..., C] int8 or float8_e4m3fn."""
    scale: jax.Array
    """[..., 1] float32; the numbers are values * scale."""


class Entries(NamedTuple):
    """What a stack of layers keeps for some tokens; the widths are `ModelConfig.cache_widths`.

    Each part is an array, or `Quantized` in a cache of 8 bits.
    """

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


def encode_entries(entries: Entries, cache_dtype: CacheDtype) -> Entries:
    """Entries as a cache of this dtype keeps them."""
    if cache_dtype == "dtype":
        return entries
    if cache_dtype == "bfloat16":
        return Entries(*(x.astype(jnp.bfloat16) for x in entries))
    dtype, largest = _QUANTIZED[cache_dtype]

    def quantize(x):
        x = x.astype(jnp.float32)
        peak = jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
        scale = jnp.where(peak > 0, peak / largest, 1.0)
        scaled = jnp.clip(x / scale, -largest, largest)
        return Quantized((jnp.round(scaled) if dtype == jnp.int8 else scaled).astype(dtype), scale)

    return Entries(*map(quantize, entries))


def decode_entries(entries: Entries, dtype) -> Entries:
    """What attention reads, in the compute dtype."""
    read = lambda x: x.values.astype(jnp.float32) * x.scale if isinstance(x, Quantized) else x
    return Entries(*(read(x).astype(dtype) for x in entries))


def zero_entries(
    config: ModelConfig, layers: int, batch: int, slots: int, cache_dtype: CacheDtype = "dtype"
) -> Entries:
    """Entries of `layers` layers, all zero."""
    shape = (layers, batch, slots)
    return encode_entries(
        Entries(*(jnp.zeros((*shape, width), config.dtype) for width in config.cache_widths)), cache_dtype
    )


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


def separate(config: ModelConfig, entries: Entries) -> tuple[Entries, ...]:
    """Entries [L, ...] as a loop should carry them: layer by layer where layers are unrolled, for there a product can
    read a layer's own array as it lies, and must copy a slice of a stack; as they are where layers are scanned."""
    layers = len(jax.tree.leaves(entries)[0])
    if not config.unroll_layers or not layers:
        return (entries,)
    return tuple(jax.tree.map(lambda x, layer=layer: x[layer : layer + 1], entries) for layer in range(layers))


def together(parts: tuple[Entries, ...]) -> Entries:
    """The reverse of `separate`; XLA reads the parts where the whole is only sliced again."""
    return jax.tree.map(lambda *layers: jnp.concatenate(layers), *parts)


def write_cache(cache: Cache, new: Cache, slot) -> Cache:
    """Write the entries of T new tokens at slots [slot, slot + T). Inside a loop XLA does this in place.

    Args:
      cache: of S slots.
      new: what the model returned for the new tokens, of T slots.
      slot: int32 scalar, the same for every row.
    """
    place = lambda axis, old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis)
    stack = lambda old, new: jax.tree.map(partial(place, 2), old, encode_like(new, old))
    return Cache(stack(cache.dense, new.dense), stack(cache.moe, new.moe), place(1, cache.positions, new.positions))


def write_token(stored, new, slots):
    """Write one new token a row, each row at a slot of its own. Inside a loop XLA does this in place.

    Args:
      stored: a pytree of arrays [L, B, S, C].
      new: the same of [L, B, 1, C], as `encode_like` makes them.
      slots: [B] int32; a row whose slot is S or more is left as it is.
    """
    rows = jnp.arange(len(slots))

    def place(old, new):
        # Layers are indexed, not sliced: XLA for TPU would lay a sliced axis beside the tokens, and copy the cache.
        layers = jnp.arange(len(old))[:, None]
        return old.at[layers, rows, slots].set(new[:, :, 0], mode="drop", unique_indices=True)

    return jax.tree.map(place, stored, new)
