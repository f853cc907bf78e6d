"""config.json of the Hugging Face world to a ModelConfig, in the spellings of transformers 4 and 5."""

import json
from pathlib import Path
from typing import Any

from r1jax.config import UserError
from r1jax.interop.plans import BLOCK
from r1jax.models.config import Llama3Rope, ModelConfig, Yarn

FAMILIES = {
    "deepseek_v3": "DeepseekV3ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM", "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
LATENT = ("deepseek_v3", "deepseek_v2")
DTYPES = {"bfloat16": "bfloat16", "float32": "float32", "float64": "float64", "float16": "bfloat16"}
QUANTIZATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [BLOCK, BLOCK],
}


class _Fields:
    """The fields of a config.json, or of a part of it, for reading with good messages."""

    def __init__(self, record: dict[str, Any], where: str):
        self.record, self.where = record, where

    def get(self, name: str, default: Any = None) -> Any:
        """A field that may be missing or null."""
        value = self.record.get(name)
        return default if value is None else value

    def number(self, name: str, default: float | None = None) -> Any:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{self.where}: {name} is {value!r}, expected a number")
        return value

    def expect(self, name: str, *expected: Any) -> Any:
        """A field that must have one of the expected values, of which the first stands where it is missing."""
        value = self.get(name, expected[0])
        if value not in expected:
            shown = " or ".join(repr(choice) for choice in expected)
            raise UserError(f"{self.where}: {name} is {value!r}, expected {shown}: r1jax has nothing else")
        return value


def is_hf_folder(folder: str | Path) -> bool:
    """Whether the folder holds a model in the form of Hugging Face: config.json with a model_type, and safetensors."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "model_type" in record and any(folder.glob("*.safetensors*"))


def read_hf_config(folder: str | Path) -> ModelConfig:
    """The model that config.json of a folder describes.

    Raises:
      UserError: it is missing or broken, or asks for something that r1jax does not have; names field, found, expected.
    """
    path = Path(folder) / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {folder} is no model in the form of Hugging Face") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return from_hf_config(record, str(path))


def from_hf_config(record: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """The model that a config.json describes; `where` names it in messages. Raises as `read_hf_config`."""
    if not isinstance(record, dict):
        raise UserError(f"{where} is not an object")
    fields = _Fields(record, where)
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type is {family!r}, expected one of {', '.join(FAMILIES)}")
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        fields.expect(name, False)
    fields.expect("hidden_act", "silu")
    _check_quantization(fields, family)
    for kind in fields.get("layer_types", []):
        if kind != "full_attention":
            raise UserError(f"{where}: layer_types has {kind!r}, expected 'full_attention' in every layer")
    parts = _common(fields) | (_latent(fields, family) if family in LATENT else _grouped(fields, family))
    try:
        return ModelConfig(**parts, **_rope(fields, family))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} describes no model that r1jax has: {error}") from error


def _common(fields: _Fields) -> dict[str, Any]:
    layers, dtype = fields.number("num_hidden_layers"), fields.get("dtype", fields.get("torch_dtype", "float32"))
    if dtype not in DTYPES:
        raise UserError(f"{fields.where}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    return {
        "vocab_size": fields.number("vocab_size"),
        "embed_dim": fields.number("hidden_size"),
        "num_layers": layers,
        "num_dense_layers": layers,
        "mlp_dim": fields.number("intermediate_size"),
        "num_heads": fields.number("num_attention_heads"),
        "norm_eps": fields.number("rms_norm_eps", 1e-6),
        "init_stddev": fields.number("initializer_range", 0.02),
        "dtype": DTYPES[dtype],
        "tied_embeddings": bool(fields.get("tie_word_embeddings", False)),
        "max_positions": fields.number("max_position_embeddings", 0),
    }


def _grouped(fields: _Fields, family: str) -> dict[str, Any]:
    heads = fields.number("num_attention_heads")
    return {
        "num_kv_heads": fields.number("num_key_value_heads", heads),
        "head_dim": fields.number("head_dim", 128 if family == "qwen3" else fields.number("hidden_size") // heads),
        "qkv_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
    }


def _latent(fields: _Fields, family: str) -> dict[str, Any]:
    # The norms of the latents have 1e-6 in the released code, whatever this says.
    fields.expect("rms_norm_eps", 1e-6)
    fields.expect("rope_interleave", True)
    fields.expect("num_key_value_heads", fields.number("num_attention_heads"))
    parts = {
        name: fields.number(name) for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    }
    parts["q_lora_rank"] = fields.number("q_lora_rank", 0)
    dense = fields.number("first_k_dense_replace", 0)
    if not fields.get("n_routed_experts") or dense >= fields.number("num_hidden_layers"):
        return parts
    fields.expect("moe_layer_freq", 1)
    return (
        parts
        | _routing(fields, family)
        | {
            "num_dense_layers": dense,
            "num_experts": fields.number("n_routed_experts"),
            "num_experts_per_token": fields.number("num_experts_per_tok"),
            "num_shared_experts": fields.number("n_shared_experts", 0),
            "expert_mlp_dim": fields.number("moe_intermediate_size"),
            "routed_scaling_factor": float(fields.number("routed_scaling_factor", 1.0)),
        }
    )


def _routing(fields: _Fields, family: str) -> dict[str, Any]:
    groups = {
        "num_expert_groups": fields.number("n_group", 1),
        "num_limited_groups": fields.number("topk_group", 1),
    }
    if family == "deepseek_v3":
        fields.expect("topk_method", "noaux_tc")
        fields.expect("scoring_func", "sigmoid")
        mtp = fields.number("num_nextn_predict_layers", fields.number("num_mtp_layers", 0))
        normalize = bool(fields.get("norm_topk_prob", True))
        return groups | {"normalize_top_k": normalize, "num_mtp_layers": mtp}
    fields.expect("scoring_func", "softmax")
    fields.expect("norm_topk_prob", False)
    greedy = fields.expect("topk_method", "greedy", "group_limited_greedy") == "greedy"
    groups = {"num_expert_groups": 1, "num_limited_groups": 1} if greedy else groups
    return groups | {"router_score": "softmax", "normalize_top_k": False}


def _rope(fields: _Fields, family: str) -> dict[str, Any]:
    """rope_theta and what extends the context: transformers 5 has all in rope_parameters, transformers 4 apart."""
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    record = fields.get(name, {})
    if not isinstance(record, dict):
        raise UserError(f"{fields.where}: {name} is {record!r}, expected an object")
    rope = _Fields(record, f"{fields.where}: {name}")
    for part in (rope, fields):
        part.expect("partial_rotary_factor", 1.0)
    theta = {"rope_theta": float(rope.number("rope_theta", fields.number("rope_theta", 10000.0)))}
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = ("default", "yarn") if family in LATENT else ("default", "llama3")
    if kind not in known:
        raise UserError(f"{rope.where}: rope_type is {kind!r}, expected {' or '.join(map(repr, known))} in {family}")
    if kind == "default":
        return theta
    length = rope.number("original_max_position_embeddings", fields.get("original_max_position_embeddings"))
    common = {"factor": float(rope.number("factor")), "original_length": length}
    if kind == "llama3":
        names = ("low_freq_factor", "high_freq_factor")
        return theta | {"llama3_rope": Llama3Rope(**common, **{name: float(rope.number(name)) for name in names})}
    return theta | {"yarn": Yarn(**common, **_yarn(rope))}


def _yarn(rope: _Fields) -> dict[str, Any]:
    rope.expect("truncate", True)
    rope.expect("attention_factor", None)
    mscale, all_dim = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    if all_dim and not mscale:
        raise UserError(f"{rope.where}: mscale is {mscale}, expected a positive number beside mscale_all_dim {all_dim}")
    return {
        "beta_fast": float(rope.number("beta_fast", 32)),
        "beta_slow": float(rope.number("beta_slow", 1)),
        # transformers takes m(1) for cosines and sines unless both are given.
        "mscale": float(mscale if all_dim else 1.0),
        "mscale_all_dim": float(all_dim),
    }


def _check_quantization(fields: _Fields, family: str) -> None:
    record = fields.get("quantization_config")
    if record is None:
        return
    quantization = _Fields(record, f"{fields.where}: quantization_config")
    if family != "deepseek_v3":
        raise UserError(f"{quantization.where} is {record!r}, expected none in {family}")
    quantization.expect("quant_method", "fp8")
    quantization.expect("fmt", "e4m3")
    quantization.expect("weight_block_size", [BLOCK, BLOCK])
