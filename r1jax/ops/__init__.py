"""Mathematics of the model: arrays in, arrays out. Imports jax only."""
