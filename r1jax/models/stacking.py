"""Layers one by one, as a loop around the model should carry what is theirs.

Parameters and cache are stacked by layer, [L, ...], and where layers are unrolled the model slices the stack. A product
reads an array of its own as it lies, and a slice only after copying it: in a loop, at every turn. So a loop carries the
layers apart and joins them again for the model; XLA sees that the whole is only sliced again, and joins nothing.
"""

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig

STACKS = ("dense_layers", "moe_layers")


def separate(config: ModelConfig, stack) -> tuple:
    """A pytree of arrays [L, ...] as one tree a layer, of [1, ...]; in one piece where layers are scanned."""
    layers = len(jax.tree.leaves(stack)[0])
    if not config.unroll_layers or not layers:
        return (stack,)
    return tuple(jax.tree.map(lambda x, layer=layer: x[layer : layer + 1], stack) for layer in range(layers))


def together(layers: tuple):
    """The reverse of `separate`."""
    return layers[0] if len(layers) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *layers)


def separate_params(config: ModelConfig, params: dict) -> dict:
    """Parameters with the layers of every stack apart."""
    return params | {name: separate(config, params[name]) for name in STACKS if name in params}


def join_params(params: dict) -> dict:
    """The reverse of `separate_params`."""
    return params | {name: together(params[name]) for name in STACKS if name in params}
