"""The models by name."""

from r1jax.models.config import ModelConfig


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
    """DeepSeek-V3 and R1, 671B parameters, at the 4K context of pre-training (no YaRN)."""
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
    )
