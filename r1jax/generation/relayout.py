"""A policy as the sampler wants it: in the compute dtype, and laid out on a mesh of its own."""

from functools import partial

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig
from r1jax.models.transformer import init_params
from r1jax.sharding import tree_shardings

FLOAT32 = ("router", "scale")
"""Parameters that the model uses as they are; all others it casts to its compute dtype at each use."""


def make_relayout(model: ModelConfig, mesh):
    """Compile relayout(params, router_bias) -> the same policy, for sampling on `mesh`.

    Training cuts parameters along every axis it can, and gathers them for many tokens at once; a step of decoding has
    few tokens, and wants weights that stay where they are, in half the bytes. The sampled numbers are the same: what is
    cast here is what the model would cast.

    Args:
      mesh: of the devices that the parameters lie on, in the same order; see `reshape_mesh`.
    """
    shardings = tree_shardings(jax.eval_shape(partial(init_params, model), jax.random.key(0)), mesh)

    @partial(jax.jit, out_shardings=shardings)
    def relayout(params, router_bias):
        cast = lambda path, x: x if path[-1].key in FLOAT32 else x.astype(jnp.dtype(model.dtype))
        return jax.tree_util.tree_map_with_path(cast, params), router_bias

    return relayout
