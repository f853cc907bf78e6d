"""The shape of a model, and the presets."""

import dataclasses
from typing import Literal

Dtype = Literal["float32", "bfloat16"]
"""What a stage may compute in; float64 is for tests of the mathematics."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder of the DeepSeek-V3 family (arXiv 2412.19437, section 2.1), or a Llama, Qwen2 or Qwen3.

    Attention is grouped-query where `num_kv_heads` is given, else multi-head latent; fields of the other kind stay 0.
    A model without experts has `num_dense_layers == num_layers` and every expert size 0.
    """

    vocab_size: int
    embed_dim: int
    """Width of the residual stream."""
    num_layers: int
    num_dense_layers: int
    """The first layers have a dense SwiGLU instead of experts."""
    mlp_dim: int
    """Hidden width of the dense SwiGLU."""
    num_heads: int
    q_lora_rank: int = 0
    """Latent attention: rank of the query compression; 0 projects queries directly."""
    kv_lora_rank: int = 0
    """Latent attention: width of the cached latent."""
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_experts: int = 0
    num_experts_per_token: int = 0
    num_shared_experts: int = 0
    expert_mlp_dim: int = 0
    num_expert_groups: int = 1
    num_limited_groups: int = 1
    """Groups of experts that a token may use."""
    routed_scaling_factor: float = 1.0
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    init_stddev: float = 0.006
    """Standard deviation of every initial weight; 0.006 is DeepSeek-V3's."""
    dtype: Dtype | Literal["float64"] = "bfloat16"
    """Of activations and matrix products; parameters are float32."""
    unroll_layers: bool = False
    """Unroll the layer scan: faster on CPU, where the backward pass of a loop is slow; compiles longer."""
    remat: bool = True
    """Recompute each layer's activations in the backward pass."""
    expert_dispatch: Literal["ragged", "dense"] = "ragged"
    """How experts run: sorted grouped products, or every expert on every token (small models on CPU)."""
    num_kv_heads: int = 0
    """Grouped-query attention: heads of keys and values, each shared by num_heads / num_kv_heads queries."""
    head_dim: int = 0
    """Grouped-query attention: width of a head."""
    qkv_bias: bool = False
    """Grouped-query attention: queries, keys and values have biases (Qwen2)."""
    qk_norm: bool = False
    """Grouped-query attention: RMSNorm of each query and key head before its rotation (Qwen3)."""
    tied_embeddings: bool = False
    """The head is the embedding transposed, and no parameter of its own."""

    def __post_init__(self):
        _check_sizes(self)
        checks = {
            "dtype must be 'float32', 'bfloat16' or 'float64'": self.dtype in ("float32", "bfloat16", "float64"),
            "expert_dispatch must be 'ragged' or 'dense'": self.expert_dispatch in ("ragged", "dense"),
            "num_dense_layers must be between 0 and num_layers": 0 <= self.num_dense_layers <= self.num_layers,
            "num_dense_layers must be num_layers in a model without experts": self.num_experts
            or self.num_dense_layers == self.num_layers,
            "num_experts must be a multiple of num_expert_groups": self.num_experts % self.num_expert_groups == 0,
            "num_limited_groups must be between 1 and num_expert_groups": 1
            <= self.num_limited_groups
            <= self.num_expert_groups,
            "num_experts_per_token must fit into the limited groups": self.num_experts_per_token
            <= self.num_limited_groups * (self.num_experts // self.num_expert_groups),
            "num_heads must be a multiple of num_kv_heads": self.num_heads % max(self.num_kv_heads, 1) == 0,
            "qk_rope_head_dim and head_dim must be even": (self.qk_rope_head_dim + self.head_dim) % 2 == 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}: {self}")

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers

    @property
    def cache_widths(self) -> tuple[int, int]:
        """Numbers that a layer keeps for one token as `key` and as `value`; see `r1jax.models.cache.Entries`."""
        if self.num_kv_heads:
            return self.num_kv_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return self.qk_rope_head_dim, self.kv_lora_rank

    @property
    def cache_elements_per_token(self) -> int:
        """Numbers kept in the KV cache for one token, over all layers."""
        return self.num_layers * sum(self.cache_widths)


_SIZES = ("vocab_size", "embed_dim", "num_layers", "mlp_dim", "num_heads", "num_expert_groups")
_LATENT_SIZES = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_GROUPED_SIZES = ("num_kv_heads", "head_dim")
_EXPERT_SIZES = ("num_experts", "num_experts_per_token", "expert_mlp_dim")


def _check_sizes(config: ModelConfig) -> None:
    """Raise ValueError where a size is missing, or given for a part that the model does not have."""
    fields, positive = vars(config), _SIZES
    if config.num_kv_heads:
        positive += _GROUPED_SIZES
        absent = dict.fromkeys(("q_lora_rank", *_LATENT_SIZES), "a model with grouped-query attention")
    else:
        positive += _LATENT_SIZES
        absent = dict.fromkeys((*_GROUPED_SIZES, "qkv_bias", "qk_norm"), "a model without num_kv_heads")
    if config.num_experts:
        positive += _EXPERT_SIZES
    else:
        absent |= dict.fromkeys(("num_shared_experts", *_EXPERT_SIZES), "a model without num_experts")
    for name in positive:
        if fields[name] < 1:
            raise ValueError(f"{name} must be positive, not {fields[name]}: {config}")
    for name in ("q_lora_rank", "num_shared_experts"):
        if fields[name] < 0:
            raise ValueError(f"{name} must be 0 or more, not {fields[name]}: {config}")
    for name, model in absent.items():
        if fields[name]:
            raise ValueError(f"{name} must be left out of {model}, not {fields[name]}: {config}")


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
