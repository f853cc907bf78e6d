"""The shape of a model, and how it is read back from JSON."""

import dataclasses
from typing import Literal

Dtype = Literal["float32", "bfloat16"]
"""What a stage may compute in; float64 is for tests of the mathematics."""


@dataclasses.dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071) as DeepSeek has it: a longer context for the rotary part of latent attention."""

    factor: float
    """The context becomes this many times as long."""
    original_length: int
    """Context of pre-training, in tokens."""
    beta_fast: float = 32.0
    """Channels that turn more often than this within `original_length` keep their frequency."""
    beta_slow: float = 1.0
    """Channels that turn less often than this have it divided by `factor`."""
    mscale: float = 1.0
    """Cosines and sines are scaled by m(mscale) / m(mscale_all_dim), m(c) = 0.1 c ln(factor) + 1: by 1 where equal."""
    mscale_all_dim: float = 1.0
    """The softmax scale is multiplied by m(mscale_all_dim)^2; 0 leaves it, and scales cosines and sines by m(1)."""

    def __post_init__(self):
        _check_rope(self, self.factor, self.original_length, self.beta_slow, self.beta_fast)
        if self.mscale < 0 or self.mscale_all_dim < 0:
            raise ValueError(f"mscale and mscale_all_dim must be 0 or more: {self}")


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """The longer context of Llama 3.1 and later (arXiv 2407.21783)."""

    factor: float
    """Frequencies of slow channels are divided by this."""
    low_freq_factor: float
    """Channels that turn less often than this within `original_length` are slow."""
    high_freq_factor: float
    """Channels that turn more often than this keep their frequency."""
    original_length: int
    """Context of pre-training, in tokens."""

    def __post_init__(self):
        _check_rope(self, self.factor, self.original_length, self.low_freq_factor, self.high_freq_factor)


def _check_rope(rope, factor: float, original_length: int, slow: float, fast: float) -> None:
    if factor < 1 or original_length < 1:
        raise ValueError(f"factor and original_length must be at least 1: {rope}")
    if not 0 < slow < fast:
        raise ValueError(f"the bound of slow channels must be above 0 and below that of fast ones: {rope}")


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
    precision: Literal["dtype", "fp8"] = "dtype"
    """Of the linear products of attention, SwiGLU and experts, forward and backward: `dtype`, or blocks of E4M3
    (section 3.3). Embedding, head, norms, router, the products of attention itself and the projection of the MTP module
    stay in `dtype` or float32."""
    fp8_scales: Literal["float32", "power_of_two"] = "float32"
    """Scales of blocks: amax / 448, or rounded up to powers of two (DeepSeek-V3.1)."""
    fp8_products: Literal["simulated", "native"] = "simulated"
    """Products of dequantised blocks in float32, or of float8 operands, for hardware that has them."""
    unroll_layers: bool = False
    """Unroll the layer scan: faster on CPU, where the backward pass of a loop is slow; compiles longer."""
    remat: bool = True
    """Recompute each layer's activations in the backward pass."""
    attention: Literal["einsum", "splash"] = "einsum"
    """How tokens attend: with all scores held, or by kernels for TPU that hold none: splash attention of new tokens to
    each other, and of latent attention, to a cache, `mla_decode`."""
    expert_dispatch: Literal["ragged", "megablox", "blocks", "dense"] = "ragged"
    """How experts run: sorted grouped products; the same by kernels for TPU; padded blocks of one expert each, for many
    tokens on CPU (in FP8 as the next); or every expert on every token, for few tokens on CPU."""
    expert_transport: Literal["ring", "all_to_all", "shortest"] = "ring"
    """How tokens reach experts on other devices: all visit all; each those of its own experts, which XLA for CPU cannot
    do; or whichever keeps a slice's links busy for less time."""
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
    yarn: Yarn | None = None
    """Latent attention: a context extended by YaRN; None for the short context of pre-training, which has no YaRN."""
    llama3_rope: Llama3Rope | None = None
    """Grouped-query attention: a context extended as in Llama 3.1."""
    num_mtp_layers: int = 0
    """Modules that predict the token after the next (section 2.2), 0 or 1; their parameters are params["mtp"]."""
    router_score: Literal["sigmoid", "softmax"] = "sigmoid"
    """Affinities of experts: DeepSeek-V3's, a group's score the sum of its best two, or V2's, the best one."""
    normalize_top_k: bool = True
    """The weights of the chosen experts are made to add up to `routed_scaling_factor` (not in DeepSeek-V2)."""
    max_positions: int = 0
    """Longest context the weights were made for, in tokens; 0 where nothing is said. Nothing enforces it."""

    def __post_init__(self):
        _check_sizes(self)
        checks = {
            "dtype must be 'float32', 'bfloat16' or 'float64'": self.dtype in ("float32", "bfloat16", "float64"),
            "router_score must be 'sigmoid' or 'softmax'": self.router_score in ("sigmoid", "softmax"),
            "precision must be 'dtype' or 'fp8'": self.precision in ("dtype", "fp8"),
            "fp8_scales must be 'float32' or 'power_of_two'": self.fp8_scales in ("float32", "power_of_two"),
            "fp8_products must be 'simulated' or 'native'": self.fp8_products in ("simulated", "native"),
            "attention must be 'einsum' or 'splash'": self.attention in ("einsum", "splash"),
            "expert_dispatch must be 'ragged', 'megablox', 'blocks' or 'dense'": self.expert_dispatch
            in ("ragged", "megablox", "blocks", "dense"),
            "expert_transport must be 'ring', 'all_to_all' or 'shortest'": self.expert_transport
            in ("ring", "all_to_all", "shortest"),
            "expert_dispatch 'megablox' has no products in FP8": self.expert_dispatch != "megablox"
            or self.precision == "dtype",
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
            "num_mtp_layers must be 0 or 1": self.num_mtp_layers in (0, 1),
            "max_positions must be 0 or more": self.max_positions >= 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}: {self}")

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers

    @property
    def num_routers(self) -> int:
        """Rows of the router bias and of the expert load: the MoE layers, then the MTP module where there is one."""
        return self.num_moe_layers + self.num_mtp_layers

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
        absent = dict.fromkeys(("q_lora_rank", *_LATENT_SIZES, "yarn"), "a model with grouped-query attention")
    else:
        positive += _LATENT_SIZES
        absent = dict.fromkeys((*_GROUPED_SIZES, "qkv_bias", "qk_norm", "llama3_rope"), "a model without num_kv_heads")
    if config.num_experts:
        positive += _EXPERT_SIZES
    else:
        absent |= dict.fromkeys(("num_shared_experts", *_EXPERT_SIZES, "num_mtp_layers"), "a model without num_experts")
    for name in positive:
        if fields[name] < 1:
            raise ValueError(f"{name} must be positive, not {fields[name]}: {config}")
    for name in ("q_lora_rank", "num_shared_experts"):
        if fields[name] < 0:
            raise ValueError(f"{name} must be 0 or more, not {fields[name]}: {config}")
    for name, model in absent.items():
        if fields[name]:
            raise ValueError(f"{name} must be left out of {model}, not {fields[name]}: {config}")


def read_model_config(record: dict) -> ModelConfig:
    """The ModelConfig that `r1jax.config.to_dict` wrote; fields that are younger than the record have their defaults.

    Raises:
      TypeError, ValueError: a field is unknown, missing or impossible.
    """
    nested = {"yarn": Yarn, "llama3_rope": Llama3Rope}
    decoded = {name: kind(**record[name]) for name, kind in nested.items() if record.get(name) is not None}
    return ModelConfig(**(record | decoded))
