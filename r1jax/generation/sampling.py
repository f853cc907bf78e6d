"""Drawing the next token."""

import jax
import jax.numpy as jnp

_BLOCK = 128  # tokens drawn from at a time; a vocabulary of 129,280 has 1,010 such blocks


def sample_tokens(keys, logits, *, temperature=1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0):
    """Draw one token a row from softmax(logits / temperature), or from what filters leave of it.

    Filters apply in the order top_k, top_p, min_p, each to the renormalised distribution that the one before left. A
    token as likely as the last one that is kept stays too, whatever its order in the vocabulary.

    Args:
      keys: [B] PRNG keys, one a row, so that a row's draw does not depend on its neighbours.
      logits: [B, V] float32.
      temperature: above 0; or the Python number 0, which takes the likeliest token, the first of equals.
      top_k: keep the k likeliest tokens; 0 keeps all.
      top_p: in (0, 1]; below 1 keep the `nucleus`.
      min_p: in [0, 1]; drop tokens less likely than this share of the likeliest (arXiv 2407.01082).

    Returns:
      tokens [B] int32 and their log-probabilities [B] float32 under the distribution they were drawn from: after
      temperature, and renormalised over what is kept.
    """
    if isinstance(temperature, int | float) and temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), jnp.zeros(len(logits), jnp.float32)
    scaled, weights = _weigh(logits, temperature, top_k, top_p, min_p)
    tokens = draw(keys, weights)
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jnp.log(jnp.sum(weights, axis=-1))


def probabilities(logits, *, temperature=1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0):
    """The distribution that `sample_tokens` draws from, [..., V] float32; arguments as there, logits [..., V].

    Temperature 0 gives probability 1 to the likeliest token, the first of equals.
    """
    if isinstance(temperature, int | float) and temperature == 0:
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    _, weights = _weigh(logits, temperature, top_k, top_p, min_p)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _weigh(logits, temperature, top_k: int, top_p: float, min_p: float):
    """Logits after temperature, the largest 0, and exp of them where filters keep a token, else 0."""
    scaled = logits / temperature
    scaled -= jnp.max(scaled, axis=-1, keepdims=True)
    if 0 < top_k < scaled.shape[-1]:
        kept = _likeliest(scaled, jnp.ones_like(scaled), top_k)
        scaled = jnp.where(kept, scaled, -jnp.inf)
    if top_p < 1.0:
        scaled = jnp.where(nucleus(jax.nn.softmax(scaled, axis=-1), top_p), scaled, -jnp.inf)
    weights = jnp.exp(scaled)
    if min_p > 0.0:
        weights = jnp.where(weights >= min_p, weights, 0.0)
    return scaled, weights


def draw(keys, weights):
    """Draw one index a row with probability weights / sum(weights), by inversion in two stages.

    A block of tokens is drawn first, then a token of it, each by a uniform number of 23 bits. Noise for every token, as
    the Gumbel trick needs, would cost more than the rest of a small model's step; and one uniform number for the whole
    vocabulary could not reach tokens less likely than 2^-23. What has weight 0 is never drawn.

    Args:
      keys: [B] PRNG keys.
      weights: [B, V] float32, not negative, at least one of a row positive.

    Returns:
      [B] int32.
    """
    batch, size = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -size % _BLOCK))).reshape(batch, -1, _BLOCK)
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    block = _invert(uniforms[:, 0], blocks.sum(-1))
    inside = _invert(uniforms[:, 1], jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0])
    return block * _BLOCK + inside


def _invert(uniform, weights):
    """The first index of each row, of weight above 0, whose cumulative weight exceeds uniform * total: [B] int32."""
    # Rounding may let cumulative sums fall; with the total taken as their largest, some index always qualifies.
    cumulative = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    exceeds = cumulative > uniform[:, None] * jnp.max(cumulative, axis=-1, keepdims=True)
    return jnp.argmax(exceeds, axis=-1).astype(jnp.int32)


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
    return _likeliest(probabilities, probabilities, top_p)


def _likeliest(values, weights, limit):
    """Which values of a row [B, V] stay, if those that are strictly greater must weigh less than `limit` together.

    Bisects on the bits of the smallest value that stays, which is several times faster than sorting and just as exact.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    order = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats
    low = jnp.min(order, axis=-1, keepdims=True) - 1  # too small unless everything stays
    high = jnp.max(order, axis=-1, keepdims=True)  # stays

    def halve(_, bounds):
        low, high = bounds
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        stays = jnp.sum(jnp.where(order > middle, weights, 0.0), axis=-1, keepdims=True) < limit
        return jnp.where(stays, low, middle), jnp.where(stays, middle, high)

    _, smallest = jax.lax.fori_loop(0, 32, halve, (low, high))
    return order >= smallest
