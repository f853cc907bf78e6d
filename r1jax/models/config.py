"""The shape of a model, and the presets."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder of the DeepSeek-V3 family (arXiv 2412.19437, section 2.1)."""

    vocab_size: int
    embed_dim: int
    """Width of the residual stream."""
    num_layers: int
    num_dense_layers: int
    """The first layers have a dense SwiGLU instead of experts."""
    mlp_dim: int
    """Hidden width of the dense SwiGLU."""
    num_heads: int
    q_lora_rank: int
    """Rank of the query compression; 0 projects queries directly."""
    kv_lora_rank: int
    """Width of the cached latent."""
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    num_experts: int
    num_experts_per_token: int
    num_shared_experts: int
    expert_mlp_dim: int
    num_expert_groups: int = 1
    num_limited_groups: int = 1
    """Groups of experts that a token may use."""
    routed_scaling_factor: float = 1.0
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    init_stddev: float = 0.006
    """Standard deviation of every initial weight; 0.006 is DeepSeek-V3's."""
    dtype: Literal["float32", "bfloat16", "float64"] = "bfloat16"
    """Of activations and matrix products; parameters are float32."""
    unroll_layers: bool = False
    """Unroll the layer scan: faster on CPU, where the backward pass of a loop is slow; compiles longer."""
    remat: bool = True
    """Recompute each layer's activations in the backward pass."""
    expert_dispatch: Literal["ragged", "dense"] = "ragged"
    """How experts run: sorted grouped products, or every expert on every token (small models on CPU)."""

    def __post_init__(self):
        sizes = (
            self.vocab_size, self.embed_dim, self.num_layers, self.mlp_dim, self.num_heads, self.kv_lora_rank,
            self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim, self.num_experts, self.num_experts_per_token,
            self.expert_mlp_dim, self.num_expert_groups,
        )  # fmt: skip
        if min(sizes) < 1 or min(self.q_lora_rank, self.num_shared_experts) < 0:
            raise ValueError(f"sizes must be positive (q_lora_rank and num_shared_experts may be 0): {self}")
        checks = {
            "dtype must be 'float32', 'bfloat16' or 'float64'": self.dtype in ("float32", "bfloat16", "float64"),
            "expert_dispatch must be 'ragged' or 'dense'": self.expert_dispatch in ("ragged", "dense"),
            "num_dense_layers must be between 0 and num_layers": 0 <= self.num_dense_layers <= self.num_layers,
            "num_experts must be a multiple of num_expert_groups": self.num_experts % self.num_expert_groups == 0,
            "num_limited_groups must be between 1 and num_expert_groups": 1
            <= self.num_limited_groups
            <= self.num_expert_groups,
            "num_experts_per_token must fit into the limited groups": self.num_experts_per_token
            <= self.num_limited_groups * (self.num_experts // self.num_expert_groups),
            "qk_rope_head_dim must be even": self.qk_rope_head_dim % 2 == 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}: {self}")

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers

    @property
    def cache_elements_per_token(self) -> int:
        """Numbers kept in the KV cache for one token: the latent and the shared rotary key of every layer."""
        return self.num_layers * (self.kv_lora_rank + self.qk_rope_head_dim)


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
