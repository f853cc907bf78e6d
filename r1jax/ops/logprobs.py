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

    batch, length = targets.shape
    count = batch * length
    size = min(chunk_size, count)
    pad = -count % size
    flat_hidden = jnp.pad(hidden.reshape(count, -1), ((0, pad), (0, 0)))
    flat_targets = jnp.pad(targets.reshape(count), (0, pad))
    logprobs, entropy = jax.lax.map(
        chunk, (flat_hidden.reshape(-1, size, hidden.shape[-1]), flat_targets.reshape(-1, size))
    )
    return logprobs.reshape(-1)[:count].reshape(batch, length), entropy.reshape(-1)[:count].reshape(batch, length)
