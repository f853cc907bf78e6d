"""A policy as the sampler wants it: in the compute dtype, and laid out on a mesh of its own."""

from functools import partial

import jax

from r1jax.models.config import ModelConfig
from r1jax.models.layers import cast_params
from r1jax.models.transformer import init_params
from r1jax.sharding import tree_shardings


def make_relayout(model: ModelConfig, mesh):
    """Compile relayout(params, router_bias) -> the same policy, for sampling on `mesh`.

    Training cuts parameters along every axis it can, and gathers them for many tokens at once; a step of decoding has
    few tokens, and wants weights that stay where they are, in half the bytes (`cast_params`).

    Args:
      mesh: of the devices that the parameters lie on, in the same order; see `reshape_mesh`.
    """
    shardings = tree_shardings(jax.eval_shape(partial(init_params, model), jax.random.key(0)), mesh)

    @partial(jax.jit, out_shardings=shardings)
    def relayout(params, router_bias):
        return cast_params(model, params), router_bias

    return relayout
