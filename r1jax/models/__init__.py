"""Linen modules: parameters and wiring. The mathematics is in r1jax.ops."""
