"""Which of our arrays is which Hugging Face tensor, by family; read in one direction to import, in the other to export.

Our layers, and the experts in them, are stacked on leading axes; theirs are tensors of their own. Our matrices are
[inputs, outputs], heads as an axis of their own; theirs are [outputs, inputs]. Nothing is permuted: rotary pairs lie in
both as `r1jax.ops.rotary` says.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from r1jax.models.config import ModelConfig

BLOCK = 128
"""The released DeepSeek weights are FP8 in blocks of 128 x 128."""
IGNORED = (".rotary_emb.inv_freq",)
"""Endings of tensors that old checkpoints hold although they follow from the configuration."""


class Piece(NamedTuple):
    """One of their tensors, and where it lies in ours."""

    name: str
    path: tuple[str, ...]
    """Of our array in {"params": ..., "router_bias": ...}."""
    index: tuple[int, ...]
    """On the leading axes of our array: layer and expert, layer, or nothing."""
    dims: tuple[int, ...]
    """The other axes of our array."""
    inputs: int
    """How many of `dims` are the inputs of a matrix, which come second in theirs; 0 for what is not transposed."""
    shape: tuple[int, ...]
    """Of their tensor."""
    quantized: bool
    """FP8 in the released DeepSeek weights, with the scales of its blocks as another tensor."""

    @property
    def scale_name(self) -> str:
        return f"{self.name}_scale_inv"

    @property
    def scale_shape(self) -> tuple[int, ...]:
        return tuple(-(-size // BLOCK) for size in self.shape)

    @property
    def wide(self) -> bool:
        """Whether it is float32 also in a checkpoint of another dtype."""
        return self.path == ("router_bias",)


class Plan(NamedTuple):
    """All their tensors."""

    pieces: tuple[Piece, ...]
    """In the order of the checkpoint: by layer."""
    copies: dict[str, str]
    """Tensors that repeat another one: name -> name of that."""


def make_plan(model: ModelConfig) -> Plan:
    """The plan of a model's checkpoint; `r1jax.interop.hf_config.check_exportable` says which have one."""
    pieces = [_plain("model.embed_tokens.weight", ("params", "embedding"), (model.vocab_size, model.embed_dim))]
    for number in range(model.num_layers):
        pieces += _layer(model, number)
    pieces.append(_plain("model.norm.weight", ("params", "final_norm", "scale"), (model.embed_dim,)))
    head = "model.embed_tokens.weight" if model.tied_embeddings else "lm_head.weight"
    if not model.tied_embeddings:
        pieces.append(_matrix(head, ("params", "head"), (model.embed_dim,), (model.vocab_size,)))
    copies = {}
    if model.num_mtp_layers:
        prefix = f"model.layers.{model.num_layers}"
        pieces += _mtp(model, prefix)
        copies = {
            f"{prefix}.embed_tokens.weight": "model.embed_tokens.weight",
            f"{prefix}.shared_head.head.weight": head,
        }
    return Plan(tuple(pieces), copies)


def _plain(name: str, path: tuple[str, ...], dims: tuple[int, ...], index: tuple[int, ...] = ()) -> Piece:
    return Piece(name, path, index, dims, 0, dims, False)


def _matrix(
    name: str,
    path: tuple[str, ...],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    index: tuple[int, ...] = (),
    *,
    quantized: bool = False,
) -> Piece:
    shape = (math.prod(outputs), math.prod(inputs))
    return Piece(name, path, index, inputs + outputs, len(inputs), shape, quantized)


def _layer(model: ModelConfig, number: int) -> Iterator[Piece]:
    """The tensors of a layer of the trunk."""
    routed = number >= model.num_dense_layers
    index = (number - model.num_dense_layers if routed else number,)
    path = ("params", "moe_layers" if routed else "dense_layers")
    return _block(model, f"model.layers.{number}", path, index, routed=routed, router=index)


def _block(
    model: ModelConfig,
    prefix: str,
    path: tuple[str, ...],
    index: tuple[int, ...],
    *,
    routed: bool,
    router: tuple[int, ...],
) -> Iterator[Piece]:
    """The tensors of one pre-norm block at `path` and `index`, its router bias at row `router`."""
    width = (model.embed_dim,)
    yield _plain(f"{prefix}.input_layernorm.weight", (*path, "attention_norm", "scale"), width, index)
    attention = _grouped_attention if model.num_kv_heads else _latent_attention
    yield from attention(model, f"{prefix}.self_attn", (*path, "attention"), index)
    yield _plain(f"{prefix}.post_attention_layernorm.weight", (*path, "mlp_norm", "scale"), width, index)
    if routed:
        yield from _experts(model, f"{prefix}.mlp", (*path, "moe"), index, router)
    else:
        yield from _mlp(model, f"{prefix}.mlp", (*path, "mlp"), model.mlp_dim, index)


def _grouped_attention(model: ModelConfig, prefix: str, path, index) -> Iterator[Piece]:
    width, query, key = (model.embed_dim,), (model.num_heads, model.head_dim), (model.num_kv_heads, model.head_dim)
    for ours, theirs, outputs in (("query", "q", query), ("key", "k", key), ("value", "v", key)):
        yield _matrix(f"{prefix}.{theirs}_proj.weight", (*path, ours), width, outputs, index)
        if model.qkv_bias:
            bias = _plain(f"{prefix}.{theirs}_proj.bias", (*path, f"{ours}_bias"), outputs, index)
            yield bias._replace(shape=(math.prod(outputs),))
    yield _matrix(f"{prefix}.o_proj.weight", (*path, "out"), query, width, index)
    if model.qk_norm:
        for ours, theirs in (("query", "q"), ("key", "k")):
            yield _plain(f"{prefix}.{theirs}_norm.weight", (*path, f"{ours}_norm", "scale"), (model.head_dim,), index)


def _latent_attention(model: ModelConfig, prefix: str, path, index) -> Iterator[Piece]:
    def matrix(name, ours, inputs, outputs):
        return _matrix(f"{prefix}.{name}.weight", (*path, ours), inputs, outputs, index, quantized=True)

    def norm(name, ours, width):
        return _plain(f"{prefix}.{name}.weight", (*path, ours, "scale"), (width,), index)

    width, heads, nope, rope = (model.embed_dim,), model.num_heads, model.qk_nope_head_dim, model.qk_rope_head_dim
    if model.q_lora_rank:
        yield matrix("q_a_proj", "q_down", width, (model.q_lora_rank,))
        yield norm("q_a_layernorm", "q_norm", model.q_lora_rank)
        yield matrix("q_b_proj", "q_up", (model.q_lora_rank,), (heads, nope + rope))
    else:
        yield matrix("q_proj", "q_up", width, (heads, nope + rope))
    yield matrix("kv_a_proj_with_mqa", "kv_down", width, (model.kv_lora_rank + rope,))
    yield norm("kv_a_layernorm", "kv_norm", model.kv_lora_rank)
    yield matrix("kv_b_proj", "kv_up", (model.kv_lora_rank,), (heads, nope + model.v_head_dim))
    yield matrix("o_proj", "out", (heads, model.v_head_dim), width)


def _mlp(model: ModelConfig, prefix: str, path, hidden: int, index) -> Iterator[Piece]:
    """SwiGLU: gate and up [D, F], down [F, D]."""
    outer, inner = (model.embed_dim,), (hidden,)
    quantized = not model.num_kv_heads
    yield _matrix(f"{prefix}.gate_proj.weight", (*path, "gate"), outer, inner, index, quantized=quantized)
    yield _matrix(f"{prefix}.up_proj.weight", (*path, "up"), outer, inner, index, quantized=quantized)
    yield _matrix(f"{prefix}.down_proj.weight", (*path, "down"), inner, outer, index, quantized=quantized)


def _experts(model: ModelConfig, prefix: str, path, index, router) -> Iterator[Piece]:
    outer, experts = (model.embed_dim,), (model.num_experts,)
    yield _matrix(f"{prefix}.gate.weight", (*path, "router"), outer, experts, index)
    if model.router_score == "sigmoid":
        yield _plain(f"{prefix}.gate.e_score_correction_bias", ("router_bias",), experts, router)
    for expert in range(model.num_experts):
        yield from _mlp(model, f"{prefix}.experts.{expert}", path, model.expert_mlp_dim, (*index, expert))
    if model.num_shared_experts:
        hidden = model.expert_mlp_dim * model.num_shared_experts
        yield from _mlp(model, f"{prefix}.shared_experts", (*path, "shared"), hidden, index)


def _mtp(model: ModelConfig, prefix: str) -> Iterator[Piece]:
    """The module that predicts the token after the next: released as one more layer."""
    path, width = ("params", "mtp"), (model.embed_dim,)
    yield _plain(f"{prefix}.enorm.weight", (*path, "embedding_norm", "scale"), width)
    yield _plain(f"{prefix}.hnorm.weight", (*path, "hidden_norm", "scale"), width)
    yield _matrix(f"{prefix}.eh_proj.weight", (*path, "projection"), (2 * model.embed_dim,), width)
    router = (model.num_moe_layers,)
    yield from _block(model, prefix, (*path, "block"), (), routed=True, router=router)
    yield _plain(f"{prefix}.shared_head.norm.weight", (*path, "final_norm", "scale"), width)
