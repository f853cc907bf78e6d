"""The type in which sums are kept."""

import jax.numpy as jnp


def wide(*arrays):
    """float32, or float64 where one of the arrays (or types) is: softmax, norms, routing and losses compute in it."""
    return jnp.promote_types(jnp.float32, jnp.result_type(*arrays))
