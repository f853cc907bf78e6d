"""Drawing the next token."""

import jax
import jax.numpy as jnp


def sample_tokens(keys, logits, *, temperature):
    """Draw one token a row from softmax(logits / temperature).

    Args:
      keys: [B] PRNG keys, one a row, so that a row's draw does not depend on its neighbours.
      logits: [B, V] float32.
      temperature: above 0.

    Returns:
      tokens [B] int32 and their log-probabilities [B] float32 under the distribution they were drawn from.
    """
    scaled = logits / temperature
    tokens = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jax.nn.logsumexp(scaled, axis=-1)
