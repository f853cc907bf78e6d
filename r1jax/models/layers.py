"""Parameters with logical axes, linear products, the norm and the feed-forward layer."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig
from r1jax.ops.fp8 import Recipe, fp8_linear
from r1jax.ops.moe import swiglu
from r1jax.ops.norm import rms_norm
from r1jax.sharding import on_several_devices


def weight(module: nn.Module, name: str, shape, axes, config: ModelConfig):
    """Declare a weight with its logical axes, drawn from N(0, init_stddev^2), and return it in the compute dtype."""
    init = nn.with_logical_partitioning(nn.initializers.normal(config.init_stddev), axes)
    return module.param(name, init, shape, jnp.float32).astype(config.dtype)


FLOAT32 = ("router", "scale")
"""Parameters that the model uses as they are; all others it casts to its compute dtype at each use."""


def cast_params(config: ModelConfig, params):
    """Parameters that give the same numbers in fewer bytes: what the model would cast at each use is cast here."""
    cast = lambda path, x: x if path[-1].key in FLOAT32 else x.astype(jnp.dtype(config.dtype))
    return jax.tree_util.tree_map_with_path(cast, params)


def cast_shapes(config: ModelConfig, params):
    """What `cast_params` makes of parameters, or of their shapes with shardings, as shapes laid out like them."""
    shapes = jax.eval_shape(partial(cast_params, config), params)
    return jax.tree.map(lambda x, laid: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=laid.sharding), shapes, params)


def fp8_recipe(config: ModelConfig) -> Recipe | None:
    """How linear products run in FP8; None where they run in the compute dtype."""
    if config.precision == "dtype":
        return None
    return Recipe(power_of_two=config.fp8_scales == "power_of_two", native=config.fp8_products == "native")


def linear(x, w, config: ModelConfig, *, contract: int = 1):
    """Sum over the last `contract` axes of x [..., *inputs] and the first of w [*inputs, *outputs]: [..., *outputs].

    In FP8, blocks are those of the matrix [inputs, outputs] with axes merged, as in the released checkpoints.
    """
    recipe = fp8_recipe(config)
    if recipe is None and on_several_devices():
        return jnp.tensordot(x, w, contract)  # axes that are cut stay apart
    inputs, outputs = w.shape[:contract], w.shape[contract:]
    # As a product of two matrices, which on CPU has a gradient without transposed copies: 10 ms where they take 45.
    rows, matrix = x.reshape(-1, math.prod(inputs)), w.reshape(math.prod(inputs), -1)
    product = rows @ matrix if recipe is None else fp8_linear(rows, matrix, recipe)
    return product.reshape(*x.shape[:-contract], *outputs)


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
        return swiglu(x, gate, up, down, dot=partial(linear, config=config))
