"""Parameters with logical axes, the norm and the feed-forward layer."""

import flax.linen as nn
import jax.numpy as jnp

from r1jax.models.config import ModelConfig
from r1jax.ops.moe import swiglu
from r1jax.ops.norm import rms_norm


def weight(module: nn.Module, name: str, shape, axes, config: ModelConfig):
    """Declare a weight with its logical axes, drawn from N(0, init_stddev^2), and return it in the compute dtype."""
    init = nn.with_logical_partitioning(nn.initializers.normal(config.init_stddev), axes)
    return module.param(name, init, shape, jnp.float32).astype(config.dtype)


class RMSNorm(nn.Module):
    """RMSNorm with a learned scale."""

    config: ModelConfig
    axis: str = "embed"

    @nn.compact
    def __call__(self, x):
        init = nn.with_logical_partitioning(nn.initializers.ones, (self.axis,))
        scale = self.param("scale", init, x.shape[-1:], jnp.float32)
        return rms_norm(x, scale, eps=self.config.norm_eps)


class MLP(nn.Module):
    """SwiGLU feed-forward layer, [..., D] -> [..., D]."""

    config: ModelConfig
    hidden_dim: int

    @nn.compact
    def __call__(self, x):
        config, embed_dim = self.config, x.shape[-1]
        gate = weight(self, "gate", (embed_dim, self.hidden_dim), ("embed", "mlp"), config)
        up = weight(self, "up", (embed_dim, self.hidden_dim), ("embed", "mlp"), config)
        down = weight(self, "down", (self.hidden_dim, embed_dim), ("mlp", "embed"), config)
        return swiglu(x, gate, up, down)
