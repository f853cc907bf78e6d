"""A ModelConfig to config.json of the Hugging Face world."""

import math
from typing import Any

from r1jax.config import UserError
from r1jax.interop.hf_config import FAMILIES, LATENT, QUANTIZATION
from r1jax.models.config import ModelConfig


def family_of(model: ModelConfig) -> str:
    """The model_type whose transformers class computes what the model computes.

    Raises:
      UserError: there is none; says why.
    """
    if model.num_kv_heads:
        family = "qwen2" if model.qkv_bias else "qwen3" if model.qk_norm else "llama"
        obstacles = {
            "experts beside grouped-query attention": model.num_experts > 0,
            "qk_norm beside qkv_bias": model.qkv_bias and model.qk_norm,
            f"embed_dim {model.embed_dim}, no multiple of {model.num_heads} heads": model.embed_dim % model.num_heads,
        }
    else:
        family = "deepseek_v3" if model.router_score == "sigmoid" else "deepseek_v2"
        softmax, routed, yarn = family == "deepseek_v2", model.num_experts > 0, model.yarn
        few = model.num_experts < 2 * model.num_expert_groups
        obstacles = {
            f"norm_eps {model.norm_eps}, expected 1e-06": model.norm_eps != 1e-6,
            "num_shared_experts 0": routed and not model.num_shared_experts,
            "less than two experts in a group": routed and not softmax and few,
            "normalize_top_k with softmax scores": softmax and model.normalize_top_k,
            "num_mtp_layers with softmax scores": softmax and model.num_mtp_layers,
            "yarn.mscale 0 beside yarn.mscale_all_dim": yarn and yarn.mscale_all_dim and not yarn.mscale,
        }
    for obstacle, present in obstacles.items():
        if present:
            raise UserError(f"no model of transformers computes this one, because of {obstacle}: {model}")
    return family


def to_hf_config(
    model: ModelConfig, *, dtype: str, token_ids: dict[str, int | list[int]] | None = None
) -> dict[str, Any]:
    """config.json of a model, in the spelling of transformers 4, which transformers 5 reads too.

    Args:
      dtype: of the weights: "bfloat16", "float32", or "fp8" for DeepSeek's blocks.
      token_ids: bos_token_id and so on, as far as there are such tokens.

    Raises:
      UserError: no model of transformers is like this one.
    """
    family = family_of(model)
    record = {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "torch_dtype": "bfloat16" if dtype == "fp8" else dtype,
        "vocab_size": model.vocab_size,
        "hidden_size": model.embed_dim,
        "intermediate_size": model.mlp_dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads or model.num_heads,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "initializer_range": model.init_stddev,
        "max_position_embeddings": _max_positions(model),
        "tie_word_embeddings": model.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        "rope_theta": model.rope_theta,
        "rope_scaling": _rope_scaling(model),
    } | (token_ids or {})
    if dtype == "fp8":
        if family != "deepseek_v3":
            raise UserError(f"weights in FP8 blocks are a form of deepseek_v3, and this is a {family}: choose bfloat16")
        record["quantization_config"] = QUANTIZATION
    if family not in LATENT:
        extra = {"head_dim": model.head_dim}
        extra |= {"use_sliding_window": False} if family != "llama" else {"mlp_bias": False}
        if family == "qwen2":
            del record["attention_bias"]  # its queries, keys and values have biases, unasked
        return record | extra
    return record | _latent_record(model, family)


def _latent_record(model: ModelConfig, family: str) -> dict[str, Any]:
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "routed_scaling_factor")
    record = {name: getattr(model, name) for name in names} | {
        "q_lora_rank": model.q_lora_rank or None,
        "first_k_dense_replace": model.num_dense_layers,
        "moe_layer_freq": 1,
        # Of a model without experts these describe layers that do not exist.
        "n_routed_experts": model.num_experts or 2,
        "n_shared_experts": model.num_shared_experts or 1,
        "num_experts_per_tok": model.num_experts_per_token or 1,
        "moe_intermediate_size": model.expert_mlp_dim or model.mlp_dim,
        "n_group": model.num_expert_groups,
        "topk_group": model.num_limited_groups,
        "norm_topk_prob": model.normalize_top_k,
        "scoring_func": model.router_score,
    }
    if family == "deepseek_v3":
        mtp = {"num_nextn_predict_layers": model.num_mtp_layers}
        return record | mtp | {"topk_method": "noaux_tc", "rope_interleave": True}
    return record | {"topk_method": "greedy" if model.num_expert_groups == 1 else "group_limited_greedy"}


def _rope_scaling(model: ModelConfig) -> dict[str, Any] | None:
    if model.yarn:
        names, rope, kind = ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"), model.yarn, "yarn"
    elif model.llama3_rope:
        names, rope, kind = ("factor", "low_freq_factor", "high_freq_factor"), model.llama3_rope, "llama3"
    else:
        return None
    scaling = {name: getattr(rope, name) for name in names}
    return {"type": kind, "rope_type": kind} | scaling | {"original_max_position_embeddings": rope.original_length}


def _max_positions(model: ModelConfig) -> int:
    """What is said of the longest context; where nothing is, what the rotary embedding extends to, or 4096."""
    rope = model.yarn or model.llama3_rope
    return model.max_positions or (math.ceil(rope.factor * rope.original_length) if rope else 4096)
