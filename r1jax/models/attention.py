"""Attention layers: multi-head latent (DeepSeek-V3, eq. 1-11), and grouped-query (Llama, Qwen2, Qwen3)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax.models.cache import Entries, Stack
from r1jax.models.config import ModelConfig
from r1jax.models.layers import RMSNorm, linear, weight
from r1jax.models.sequence import lies_in_zigzag
from r1jax.models.visibility import Visibility
from r1jax.ops.attention import attend, grouped_attention, latent_attend
from r1jax.ops.kernels.mla_decode import latent_decode
from r1jax.ops.rotary import (
    apply_rotary,
    apply_rotary_halves,
    llama3_frequencies,
    rotary_frequencies,
    yarn_frequencies,
    yarn_temperature,
)
from r1jax.ops.sequence_parallel import SequenceAxes, sequence_attend
from r1jax.ops.splash import splash_attend
from r1jax.sharding import cut_axes, on_several_devices


class LatentAttention(nn.Module):
    """MLA. Without a cache it expands keys and values per head; with one it runs absorbed, in the latent space."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, visibility: Visibility, cache: Entries | Stack | None = None):
        """Attend from T new tokens to themselves and to what the cache holds.

        Args:
          x: [B, T, D], normed.
          visibility: of the new tokens and the cache.
          cache: one layer's entries, without the axis of layers, or where to find them; read only.

        Returns:
          output [B, T, D], and the Entries of the new tokens, likewise, for the caller to store.
        """
        config = self.config
        heads, nope, rope = config.num_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
        frequencies, amplitude, scale = latent_rotary(config)
        rotate = lambda x: apply_rotary(x, visibility.positions, frequencies, amplitude=amplitude)

        query_in, query_axis = x, "embed"
        if config.q_lora_rank:
            q_down = weight(self, "q_down", (config.embed_dim, config.q_lora_rank), ("embed", "q_lora"), config)
            query_in, query_axis = RMSNorm(config, axis="q_lora", name="q_norm")(linear(x, q_down, config)), "lora"
        q_up = weight(self, "q_up", (query_in.shape[-1], heads, nope + rope), (query_axis, "heads", "head_dim"), config)
        query = linear(query_in, q_up, config)
        q_nope, q_rope = query[..., :nope], rotate(query[..., nope:])

        kv_down = weight(self, "kv_down", (config.embed_dim, config.kv_lora_rank + rope), ("embed", "kv_lora"), config)
        compressed = linear(x, kv_down, config)
        latent = RMSNorm(config, axis="kv_lora", name="kv_norm")(compressed[..., : config.kv_lora_rank])
        rope_key = rotate(compressed[..., None, config.kv_lora_rank :])[..., 0, :]
        entries = Entries(rope_key.swapaxes(1, 2)[:, None], latent[:, None])

        kv_up_shape = (config.kv_lora_rank, heads, nope + config.v_head_dim)
        kv_up = weight(self, "kv_up", kv_up_shape, ("lora", "heads", "head_dim"), config)
        if cache is None:
            query = jnp.concatenate([q_nope, q_rope], axis=-1)
            compressed = jnp.concatenate([latent, rope_key], axis=-1)
            if lies_in_zigzag(x.shape[1]):
                expand, attend_all = partial(_expand, config), partial(attend, scale=scale)
                mixed = _attend_cut(config, query, compressed, kv_up, visibility, expand, attend_all, scale=scale)
            elif config.attention == "splash":
                mixed = _splash(query, *_expand(config, compressed, kv_up), visibility, scale=scale)
            else:
                mixed = attend(query, *_expand(config, compressed, kv_up), visibility.mask, scale=scale)
        else:
            # kv_up as it is, whatever the precision: the released code dequantises it to absorb it.
            key_up, value_up = kv_up[..., :nope], kv_up[..., nope:]
            latent_query = jnp.einsum("btnh,rnh->btnr", q_nope, key_up)
            if config.attention == "splash":
                pooled = _attend_by_kernel(latent_query, q_rope, cache, entries, visibility, scale=scale)
            else:
                part = lambda entries, mask: (entries.value[:, 0], entries.key[:, 0], mask)
                parts = [part(cache, visibility.cache_mask), part(entries, visibility.mask)]
                pooled = latent_attend(latent_query, q_rope, parts, scale=scale)
            mixed = jnp.einsum("btnr,rnh->btnh", pooled.astype(value_up.dtype), value_up)

        out_shape = (heads, config.v_head_dim, config.embed_dim)
        out = weight(self, "out", out_shape, ("heads", "head_dim", "embed"), config)
        return linear(mixed, out, config, contract=2), entries


def _expand(config: ModelConfig, compressed, kv_up):
    """Keys [B, T, N, H] and values [B, T, N, Hv] of MLA from the latents and rotary keys [B, T, R + Hr] of all heads."""
    latent, rope_key = jnp.split(compressed, [config.kv_lora_rank], axis=-1)
    expanded, nope = linear(latent, kv_up, config), config.qk_nope_head_dim
    shared = jnp.broadcast_to(rope_key[:, :, None], (*expanded.shape[:3], config.qk_rope_head_dim))
    return jnp.concatenate([expanded[..., :nope], shared], axis=-1), expanded[..., nope:]


def _attend_cut(config, query, compressed, matrix, visibility: Visibility, expand, attend_all, *, scale: float):
    """Attention among tokens of rows that are cut over devices; arguments as for `sequence_attend`."""
    axes = SequenceAxes(
        cut_axes("batch", len(query)) or (), cut_axes("length", query.shape[1]),
        cut_axes("heads", config.num_kv_heads or query.shape[2]),
        None if matrix is None else cut_axes("lora", len(matrix)),
    )  # fmt: skip
    return sequence_attend(
        query, compressed, matrix, visibility.mask, visibility.segments, expand=expand,
        attend=None if config.attention == "splash" else attend_all, scale=scale, axes=axes,
    )  # fmt: skip


def _splash(query, key, value, visibility: Visibility, *, scale: float):
    """Attention of new tokens among themselves by the TPU kernel: [B, T, N, H] with [B, T, K, H] and [B, T, K, Hv]."""
    return splash_attend(query, key, value, visibility.segments, scale=scale, spec=_kernel_spec(query))


def _attend_by_kernel(latent_query, rope_query, cache, new: Entries, visibility: Visibility, *, scale: float):
    """Absorbed attention of new tokens to the cache and to each other by the TPU kernel."""
    stack = cache if isinstance(cache, Stack) else Stack(Entries(*(x[None] for x in cache)), 0)
    cached = stack.entries.value[:, :, 0], stack.entries.key[:, :, 0], visibility.cache_mask
    new, spec = (new.value[:, 0], new.key[:, 0], visibility.mask), _kernel_spec(rope_query)
    return latent_decode(latent_query, rope_query, cached, new, stack.layer, scale=scale, spec=spec)


def _kernel_spec(query) -> PartitionSpec | None:
    """Mesh axes by which kernels for queries [B, T, N, H] are placed; None where there is one device."""
    axes = cut_axes("batch", len(query)), None, cut_axes("heads", query.shape[2])
    return PartitionSpec(*axes) if on_several_devices() else None


def latent_rotary(config: ModelConfig):
    """Frequencies [Hr // 2] in radians a token, the factor of cosines and sines, and the softmax scale of MLA.

    The released code applies YaRN's temperature to all channels through the softmax scale, and not, as the YaRN paper
    does, to the rotary ones through cosines and sines: their factor is 1 wherever mscale and mscale_all_dim agree.
    """
    width, scale = config.qk_rope_head_dim, (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    yarn = config.yarn
    if yarn is None:
        return rotary_frequencies(width, config.rope_theta), 1.0, scale
    frequencies = yarn_frequencies(
        width,
        config.rope_theta,
        factor=yarn.factor,
        original_length=yarn.original_length,
        beta_fast=yarn.beta_fast,
        beta_slow=yarn.beta_slow,
    )
    everywhere = yarn_temperature(yarn.factor, yarn.mscale_all_dim)
    if yarn.mscale and yarn.mscale_all_dim:
        amplitude = yarn_temperature(yarn.factor, yarn.mscale) / everywhere
    else:
        amplitude = yarn_temperature(yarn.factor, 1.0)
    return frequencies, amplitude, scale * everywhere**2


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245) as Llama and Qwen have it, with rotary embedding in halves."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, visibility: Visibility, cache: Entries | None = None):
        """Attend from T new tokens to themselves and to what the cache holds; contract of `LatentAttention`."""
        config = self.config
        extension = config.llama3_rope
        if extension is None:
            frequencies = rotary_frequencies(config.head_dim, config.rope_theta)
        else:
            frequencies = llama3_frequencies(config.head_dim, config.rope_theta, **vars(extension))
        query = _project(self, "query", x, config.num_heads, normed=config.qk_norm)
        key = _project(self, "key", x, config.num_kv_heads, normed=config.qk_norm)
        value = _project(self, "value", x, config.num_kv_heads, normed=False)
        query, key = (apply_rotary_halves(heads, visibility.positions, frequencies) for heads in (query, key))

        outward = lambda key, value: (key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3))
        entries, scale = Entries(*outward(key, value)), config.head_dim**-0.5
        if cache is None and lies_in_zigzag(x.shape[1]):
            both, split = jnp.concatenate([key, value], axis=-1), lambda both, _: jnp.split(both, 2, axis=-1)
            attend_all = lambda query, *pair: grouped_attention(query, [(*outward(*pair[:2]), pair[2])], scale=scale)
            mixed = _attend_cut(config, query, both, None, visibility, split, attend_all, scale=scale)
        elif cache is None and config.attention == "splash":
            mixed = _splash(query, key, value, visibility, scale=scale)
        else:
            held = [] if cache is None else [(*cache, visibility.cache_mask)]
            mixed = grouped_attention(query, [*held, (*entries, visibility.mask)], scale=scale)

        out_shape = (config.num_heads, config.head_dim, config.embed_dim)
        out = weight(self, "out", out_shape, ("heads", "head_dim", "embed"), config)
        return linear(mixed, out, config, contract=2), entries


def _project(module: nn.Module, name: str, x, heads: int, *, normed: bool):
    """Declare the projection `name` of `module` and apply it: [B, T, D] -> [B, T, heads, H]."""
    config = module.config
    shape, axes = (config.embed_dim, heads, config.head_dim), ("embed", "heads", "head_dim")
    projected = linear(x, weight(module, name, shape, axes, config), config)
    if config.qkv_bias:
        init = nn.with_logical_partitioning(nn.initializers.zeros, axes[1:])
        projected += module.param(f"{name}_bias", init, shape[1:], jnp.float32).astype(config.dtype)
    return RMSNorm(config, axis="head_dim", name=f"{name}_norm")(projected) if normed else projected
