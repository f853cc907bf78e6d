"""Log-probabilities of given tokens without ever holding the logits of a whole batch."""

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames="chunk_size")
def token_logprobs(hidden, head, targets, *, temperature=1.0, chunk_size: int = 4096):
    """Log-probability of each target token, and the entropy of each predicted distribution.

    Tokens are taken `chunk_size` at a time and their logits recomputed in the backward pass, so that at most
    [chunk_size, V] logits exist at once.

    Args:
      hidden: [B, T, D] final hidden states; hidden[b, t] predicts targets[b, t].
      head: [D, V] output projection.
      targets: [B, T] int32.
      temperature: divides the logits, as the sampler does.
      chunk_size: tokens at a time.

    Returns:
      (logprobs, entropy), both [B, T] float32, in nats.
    """

    @jax.checkpoint
    def chunk(arrays):
        hidden, targets = arrays
        logits = jnp.dot(hidden, head, preferred_element_type=jnp.float32) / temperature
        log_total = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        entropy = log_total - jnp.sum(jnp.exp(logits - log_total[:, None]) * logits, axis=-1)
        return chosen - log_total, entropy

    return _over_tokens(chunk, (hidden, targets), chunk_size)


@partial(jax.jit, static_argnames="chunk_size")
def token_divergence(hidden, head, other_hidden, other_head, *, temperature=1.0, chunk_size: int = 4096):
    """KL(other || this) of two models' distributions of the next token, at every place.

    Chunked and recomputed as `token_logprobs` is: at most two [chunk_size, V] arrays of logits exist at once.

    Args:
      hidden: [B, T, D] final hidden states.
      head: [D, V] output projection.
      other_hidden: [B, T, D'] of the other model, whose width may differ.
      other_head: [D', V].
      temperature: divides the logits of both.
      chunk_size: tokens at a time.

    Returns:
      [B, T] float32, in nats.
    """

    @jax.checkpoint
    def chunk(arrays):
        hidden, other_hidden = arrays
        logits = lambda x, head: jnp.dot(x, head, preferred_element_type=jnp.float32) / temperature
        ours, theirs = (jax.nn.log_softmax(x) for x in (logits(hidden, head), logits(other_hidden, other_head)))
        return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)

    return _over_tokens(chunk, (hidden, other_hidden), chunk_size)


def _over_tokens(function, arrays, chunk_size: int):
    """Apply `function` to `chunk_size` tokens of [B, T, ...] arrays at a time; its [chunk_size] results as [B, T]."""
    batch, length = arrays[0].shape[:2]
    count = batch * length
    size = min(chunk_size, count)

    def cut(x):
        flat = x.reshape(count, *x.shape[2:])
        flat = jnp.pad(flat, ((0, -count % size), *((0, 0),) * (flat.ndim - 1)))
        return flat.reshape(-1, size, *x.shape[2:])

    whole = lambda x: x.reshape(-1)[:count].reshape(batch, length)
    return jax.tree.map(whole, jax.lax.map(function, tuple(map(cut, arrays))))
