"""Drawing the next token."""

import jax
import jax.numpy as jnp


def sample_tokens(keys, logits, *, temperature, top_p: float = 1.0):
    """Draw one token a row from softmax(logits / temperature), or from its nucleus.

    Args:
      keys: [B] PRNG keys, one a row, so that a row's draw does not depend on its neighbours.
      logits: [B, V] float32.
      temperature: above 0.
      top_p: in (0, 1], a Python number; below 1 only the tokens of `nucleus` can be drawn.

    Returns:
      tokens [B] int32 and their log-probabilities [B] float32 under the distribution they were drawn from: after
      temperature, and renormalised over the nucleus.
    """
    scaled = logits / temperature
    if top_p < 1.0:
        scaled = jnp.where(nucleus(jax.nn.softmax(scaled, axis=-1), top_p), scaled, -jnp.inf)
    tokens = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jax.nn.logsumexp(scaled, axis=-1)


def nucleus(probabilities, top_p: float):
    """The likeliest tokens of each row that together have a probability of at least `top_p` (arXiv 1904.09751).

    A token stays where those that are strictly likelier sum to less than `top_p`. So the likeliest always stays, and
    tokens as likely as the last that is needed all stay, whatever their order in the vocabulary.

    Args:
      probabilities: [B, V] float32, rows sum to 1.
      top_p: in (0, 1].

    Returns:
      [B, V] bool.
    """
    descending = jnp.sort(probabilities, axis=-1)[:, ::-1]
    before = jnp.pad(jnp.cumsum(descending, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    last = jnp.sum(before < top_p, axis=-1, keepdims=True) - 1
    return probabilities >= jnp.take_along_axis(descending, last, axis=-1)
