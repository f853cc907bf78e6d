"""The models by name."""

import dataclasses

from r1jax.models.config import Llama3Rope, ModelConfig, Yarn


def for_tpu(model: ModelConfig) -> ModelConfig:
    """The model with the kernels for TPU; its numbers stay, but for rounding."""
    grouped = model.num_experts and model.precision == "dtype"
    dispatch = "megablox" if grouped else model.expert_dispatch
    return dataclasses.replace(model, attention="splash", expert_dispatch=dispatch, expert_transport="shortest")


def miniature(vocab_size: int) -> ModelConfig:
    """The half-million-parameter model of the laptop experiments, laid out for CPU."""
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=128,
        num_layers=3,
        num_dense_layers=1,
        mlp_dim=256,
        num_heads=4,
        q_lora_rank=64,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=32,
        num_experts=8,
        num_experts_per_token=2,
        num_shared_experts=1,
        expert_mlp_dim=32,
        num_expert_groups=4,
        num_limited_groups=2,
        routed_scaling_factor=1.0,
        init_stddev=0.05,
        dtype="float32",
        unroll_layers=True,
        remat=False,
        expert_dispatch="blocks",
    )


def passkey_model(vocab_size: int) -> ModelConfig:
    """The smallest model of DeepSeek-V3's parts that looks things up in its context, laid out for CPU.

    `rope_theta` is as far from a context of 32 tokens as DeepSeek-V3's is from 4096: the slowest channel of the rotary
    key turns once in about a dozen contexts.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=32,
        num_layers=2,
        num_dense_layers=1,
        mlp_dim=64,
        num_heads=2,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=16,
        num_experts=4,
        num_experts_per_token=2,
        num_shared_experts=1,
        expert_mlp_dim=16,
        num_expert_groups=2,
        num_limited_groups=1,
        rope_theta=100.0,
        init_stddev=0.05,
        dtype="float32",
        unroll_layers=True,
        remat=False,
        expert_dispatch="dense",
    )


def student(vocab_size: int) -> ModelConfig:
    """A dense student for distillation, a Qwen2 of about 0.2M parameters, laid out for CPU."""
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=96,
        num_layers=3,
        num_dense_layers=3,
        mlp_dim=128,
        num_heads=4,
        num_kv_heads=2,
        head_dim=24,
        qkv_bias=True,
        init_stddev=0.05,
        dtype="float32",
        unroll_layers=True,
        remat=False,
    )


def deepseek_v3() -> ModelConfig:
    """DeepSeek-V3 and R1, 671B parameters, at the 160K context of the released weights, with the MTP module."""
    return dataclasses.replace(deepseek_v3_pretraining(), yarn=Yarn(40.0, 4096), max_positions=163840)


def deepseek_v3_pretraining() -> ModelConfig:
    """DeepSeek-V3 at the 4K context of its pre-training, before YaRN."""
    return ModelConfig(
        vocab_size=129280,
        embed_dim=7168,
        num_layers=61,
        num_dense_layers=3,
        mlp_dim=18432,
        num_heads=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        num_experts=256,
        num_experts_per_token=8,
        num_shared_experts=1,
        expert_mlp_dim=2048,
        num_expert_groups=8,
        num_limited_groups=4,
        routed_scaling_factor=2.5,
        num_mtp_layers=1,
        max_positions=4096,
    )


def deepseek_v2_lite() -> ModelConfig:
    """DeepSeek-V2-Lite, 16B parameters (arXiv 2405.04434): no query compression, a softmax gate without groups."""
    return ModelConfig(
        vocab_size=102400,
        embed_dim=2048,
        num_layers=27,
        num_dense_layers=1,
        mlp_dim=10944,
        num_heads=16,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        num_experts=64,
        num_experts_per_token=6,
        num_shared_experts=2,
        expert_mlp_dim=1408,
        router_score="softmax",
        normalize_top_k=False,
        yarn=Yarn(40.0, 4096, mscale=0.707, mscale_all_dim=0.707),
        max_positions=163840,
    )


def v3_1m(vocab_size: int = 512) -> ModelConfig:
    """DeepSeek-V3's parts at 1M parameters, for ablations in minutes."""
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=128,
        num_layers=4,
        num_dense_layers=1,
        mlp_dim=320,
        num_heads=4,
        q_lora_rank=64,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=32,
        num_experts=16,
        num_experts_per_token=4,
        num_shared_experts=1,
        expert_mlp_dim=32,
        num_expert_groups=4,
        num_limited_groups=2,
        routed_scaling_factor=2.5,
        init_stddev=0.05,
    )


def v3_30m(vocab_size: int = 8192) -> ModelConfig:
    """DeepSeek-V3's parts at 30M parameters, for ablations on one chip."""
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=384,
        num_layers=8,
        num_dense_layers=1,
        mlp_dim=1024,
        num_heads=6,
        q_lora_rank=192,
        kv_lora_rank=96,
        qk_nope_head_dim=48,
        qk_rope_head_dim=24,
        v_head_dim=48,
        num_experts=32,
        num_experts_per_token=4,
        num_shared_experts=1,
        expert_mlp_dim=80,
        num_expert_groups=4,
        num_limited_groups=2,
        routed_scaling_factor=2.5,
        init_stddev=0.02,
    )


def v3_1b(vocab_size: int = 129280) -> ModelConfig:
    """DeepSeek-V3's parts at 1B parameters, for ablations on a few chips."""
    return ModelConfig(
        vocab_size=vocab_size,
        embed_dim=1024,
        num_layers=16,
        num_dense_layers=1,
        mlp_dim=2816,
        num_heads=16,
        q_lora_rank=384,
        kv_lora_rank=256,
        qk_nope_head_dim=64,
        qk_rope_head_dim=32,
        v_head_dim=64,
        num_experts=64,
        num_experts_per_token=6,
        num_shared_experts=1,
        expert_mlp_dim=224,
        num_expert_groups=8,
        num_limited_groups=4,
        routed_scaling_factor=2.5,
    )


def qwen2_5_1_5b() -> ModelConfig:
    """Qwen2.5-1.5B (arXiv 2412.15115)."""
    return ModelConfig(
        vocab_size=151936,
        embed_dim=1536,
        num_layers=28,
        num_dense_layers=28,
        mlp_dim=8960,
        num_heads=12,
        num_kv_heads=2,
        head_dim=128,
        qkv_bias=True,
        tied_embeddings=True,
        rope_theta=1e6,
        init_stddev=0.02,
        max_positions=131072,
    )


def qwen2_5_7b() -> ModelConfig:
    """Qwen2.5-7B."""
    sizes = dict(vocab_size=152064, embed_dim=3584, mlp_dim=18944, num_heads=28, num_kv_heads=4)
    return dataclasses.replace(qwen2_5_1_5b(), **sizes, tied_embeddings=False)


def qwen2_5_14b() -> ModelConfig:
    """Qwen2.5-14B."""
    sizes = dict(embed_dim=5120, num_layers=48, num_dense_layers=48, mlp_dim=13824, num_heads=40, num_kv_heads=8)
    return dataclasses.replace(qwen2_5_7b(), **sizes, norm_eps=1e-5)


def qwen2_5_32b() -> ModelConfig:
    """Qwen2.5-32B."""
    return dataclasses.replace(qwen2_5_14b(), num_layers=64, num_dense_layers=64, mlp_dim=27648)


def qwen2_5_math_1_5b() -> ModelConfig:
    """Qwen2.5-Math-1.5B (arXiv 2409.12122), the base of the smallest distilled R1: a 4K context."""
    return dataclasses.replace(qwen2_5_1_5b(), rope_theta=1e4, max_positions=4096)


def qwen2_5_math_7b() -> ModelConfig:
    """Qwen2.5-Math-7B, the base of the distilled R1 of 7B: a 4K context."""
    return dataclasses.replace(qwen2_5_7b(), rope_theta=1e4, max_positions=4096)


def llama_3_1_8b() -> ModelConfig:
    """Llama-3.1-8B (arXiv 2407.21783)."""
    return ModelConfig(
        vocab_size=128256,
        embed_dim=4096,
        num_layers=32,
        num_dense_layers=32,
        mlp_dim=14336,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rope_theta=5e5,
        norm_eps=1e-5,
        init_stddev=0.02,
        llama3_rope=Llama3Rope(8.0, 1.0, 4.0, 8192),
        max_positions=131072,
    )


def llama_3_3_70b() -> ModelConfig:
    """Llama-3.3-70B-Instruct, of the shape of Llama-3.1-70B."""
    sizes = dict(embed_dim=8192, num_layers=80, num_dense_layers=80, mlp_dim=28672, num_heads=64)
    return dataclasses.replace(llama_3_1_8b(), **sizes)
