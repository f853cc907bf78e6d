"""Tiny random models that transformers itself makes and writes, and the same ones as r1jax reads them."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import safetensors.torch
import torch
import transformers

from r1jax.interop.hf_config import read_hf_config
from r1jax.interop.loading import has_mtp, load_checkpoint
from r1jax.interop.safetensors import INDEX
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, abstract_arrays, make_mesh

COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "attn_implementation": "eager",
}
LATENT = COMMON | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
YARN |= {"beta_fast": 2, "beta_slow": 0.2, "mscale": 1.0, "mscale_all_dim": 1.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50000.0, "factor": 8.0, "original_max_position_embeddings": 32}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}

V3 = partial(transformers.DeepseekV3Config, **LATENT)
V2 = partial(transformers.DeepseekV2Config, **LATENT)
GROUPED = COMMON | {"num_key_value_heads": 2}
CASES = {
    "v3": partial(V3, q_lora_rank=12, n_group=4, topk_group=2, rope_parameters=YARN),
    "v3_direct_queries": partial(V3, q_lora_rank=None, n_group=1, topk_group=1, tie_word_embeddings=True),
    "v3_two_groups": partial(
        V3,
        q_lora_rank=12,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=0,
        norm_topk_prob=False,
        rope_parameters=YARN | {"mscale": 0.7, "mscale_all_dim": 0.4},
    ),
    "v2": partial(V2, q_lora_rank=None, topk_method="greedy", rope_parameters=YARN),
    "v2_groups": partial(V2, q_lora_rank=12, topk_method="group_limited_greedy", n_group=4, topk_group=2),
    "qwen2": partial(transformers.Qwen2Config, **GROUPED, tie_word_embeddings=True),
    "qwen3": partial(transformers.Qwen3Config, **GROUPED, head_dim=12, rms_norm_eps=1e-5),
    "llama": partial(transformers.LlamaConfig, **GROUPED, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama_untied": partial(transformers.LlamaConfig, **GROUPED | {"num_key_value_heads": 4}),
}


def make_model(case: str, *, seed: int = 0):
    """A model of transformers with every parameter drawn, norms, biases and router bias too."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CASES[case](), attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("bias"):  # of experts too: transformers begins them at zero
                tensor.uniform_(0.0, 0.3)
    return model


def read_model(folder: str | Path, mesh=None, **changes):
    """The ModelConfig, params and router bias of a folder, laid out for CPU."""
    model = read_hf_config(folder)
    layout = {"dtype": "float32", "unroll_layers": True, "remat": False, "expert_dispatch": "dense"} | changes
    if not has_mtp(folder, model):
        layout["num_mtp_layers"] = 0
    model = dataclasses.replace(model, **layout)
    return model, *load_checkpoint(folder, model, *abstract_model(model, mesh))


def abstract_model(model, mesh=None):
    """Shapes and shardings of the parameters and the router bias."""
    abstract = jax.eval_shape(partial(init_params, model), jax.random.key(0))
    return abstract_arrays(abstract, mesh or make_mesh(MeshConfig()))


def rewrite(folder: Path, change) -> None:
    """Apply a change to the tensors of a folder, name -> tensor, and write them as one file."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
        file.unlink()
    (folder / INDEX).unlink()
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
