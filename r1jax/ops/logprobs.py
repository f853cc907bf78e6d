"""Log-probabilities of given tokens without ever holding the logits of a whole batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.ops.tiles import Tiling, columns, cut_columns, cut_tokens, join_tokens, plan_tiles
from r1jax.ops.wide import wide


@partial(jax.jit, static_argnames=("chunk_size", "vocab_chunk", "vocab_shards", "tile_bytes", "vocab_axis"))
def token_logprobs(
    hidden,
    head,
    targets,
    *,
    temperature=1.0,
    chunk_size: int | None = None,
    vocab_chunk: int | None = None,
    vocab_shards: int | None = None,
    tile_bytes: int = 16 << 20,
    vocab_axis: str | None = None,
):
    """Log-probability of each target token, and the entropy of each predicted distribution.

    The logits are walked tile by tile, a chunk of the vocabulary for a chunk of the tokens, and computed again in the
    backward pass, so that one tile and its gradient exist at once. What else is held has the size of `hidden`. Sums
    over the vocabulary and over tokens, the gradient of the head among them, are accumulated in float32.

    Without chunks given, they are chosen such that a tile takes at most `tile_bytes` on each device: all tokens if
    512 columns of the vocabulary for them fit, for then each column of the head's gradient is written only once. On a
    mesh the tiles are cut such that rows, times and vocabulary may each lie across devices and none of them moves; it
    must be in force (`jax.set_mesh`).

    Args:
      hidden: [B, T, D] final hidden states; hidden[b, t] predicts targets[b, t].
      head: [D, V] output projection.
      targets: [B, T] int32.
      temperature: divides the logits, as the sampler does; a traced number.
      chunk_size: tokens at a time, over all devices. All three arrays may be differentiated.
      vocab_chunk: columns of the vocabulary at a time, over all devices.
      vocab_shards: parts of the vocabulary that lie on different devices; by default the largest number that divides
        both V and the devices of the mesh in force, which suits every layout.
      tile_bytes: of one tile of float32 logits on one device.
      vocab_axis: under `jax.shard_map`, the mesh axis along which the vocabulary is cut: `head` is then this device's
        part of it, of equal size on all, and the other arguments and the results are the same on all.

    Returns:
      (logprobs, entropy), both [B, T] float32, in nats.
    """
    tiling = plan_tiles(
        targets.shape, head.shape[1], chunk_size=chunk_size, vocab_chunk=vocab_chunk, vocab_shards=vocab_shards,
        tile_bytes=tile_bytes,
    )  # fmt: skip
    if vocab_axis:
        targets = targets - jax.lax.axis_index(vocab_axis) * head.shape[1]
    return _token_logprobs(tiling, vocab_axis, hidden, head, targets, temperature)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _token_logprobs(tiling: Tiling, vocab_axis: str | None, hidden, head, targets, temperature):
    return _statistics(tiling, vocab_axis, hidden, head, targets, temperature)[:2]


def _statistics(tiling: Tiling, vocab_axis: str | None, hidden, head, targets, temperature):
    """Log-probabilities, entropies and normalisers (log sum exp), [B, T] each, by an online softmax.

    Each part of the vocabulary keeps its own sums, [.., M], and they are joined at the end: on a mesh nothing has to be
    summed over devices at every tile.
    """
    whole = partial(jax.lax.psum, axis_name=vocab_axis) if vocab_axis else lambda part: part
    chunks = cut_tokens((hidden, targets), tiling)
    dtype = wide(hidden, head)
    zeros = jnp.zeros((*chunks[1].shape, tiling.shards), dtype)
    begin = (jnp.full_like(zeros, np.finfo(dtype).min / 2), zeros, zeros, zeros)  # finite: times 0 it must be 0

    def visit_columns(step, sums):
        part = columns(head, tiling, step)

        def visit_tokens(_, arrays):
            (hidden, targets), (peak, total, weighted, chosen) = arrays
            logits = _logits(hidden, part, temperature, dtype)
            column, fresh = cut_columns(tiling, step)
            shown = logits if fresh is None else jnp.where(fresh, logits, -jnp.inf)
            new_peak = jnp.maximum(peak, shown.max(-1))
            above = logits - new_peak[..., None]
            exponentials = jnp.exp(shown - new_peak[..., None])
            shrink = jnp.exp(peak - new_peak)
            # An einsum, for XLA's sum of a product over the last axis takes sixty times as long on CPU.
            expected = jnp.einsum("btmv,btmv->btm", exponentials, above)
            weighted = shrink * (weighted + total * (peak - new_peak)) + expected
            total = shrink * total + exponentials.sum(-1)
            hit = column == targets[..., None, None]
            hit = hit if fresh is None else hit & fresh
            return None, (new_peak, total, weighted, chosen + jnp.sum(jnp.where(hit, logits, 0.0), -1))

        return jax.lax.scan(visit_tokens, None, (chunks, sums))[1]

    peak, total, weighted, chosen = jax.lax.fori_loop(0, tiling.steps, visit_columns, begin)
    top = peak.max(-1, keepdims=True)
    top = jax.lax.pmax(top, vocab_axis) if vocab_axis else top
    scale = jnp.exp(peak - top)
    weighted = whole(jnp.sum(scale * (weighted + total * (peak - top)), -1))
    total = whole(jnp.sum(scale * total, -1))
    log_total = top[..., 0] + jnp.log(total)
    # The entropy from differences to the peak: log_total - E[logit] would cancel where logits are large.
    results = whole(chosen.sum(-1)) - log_total, jnp.log(total) - weighted / total, log_total
    return tuple(join_tokens(x, targets.shape) for x in results)


def _forward(tiling, vocab_axis, hidden, head, targets, temperature):
    logprobs, entropy, log_total = _statistics(tiling, vocab_axis, hidden, head, targets, temperature)
    return (logprobs, entropy), (hidden, head, targets, temperature, entropy, log_total)


def _backward(tiling: Tiling, vocab_axis: str | None, saved, slopes):
    hidden, head, targets, temperature, entropy, log_total = saved
    # Of a result that is the same on all devices, shard_map gives each an equal part of the slope.
    slopes = jax.lax.psum(slopes, vocab_axis) if vocab_axis else slopes
    chunks = cut_tokens((hidden, targets, entropy, log_total, *slopes), tiling)
    dtype, narrow = wide(hidden, head), jnp.result_type(hidden, head)
    dot = partial(jnp.einsum, preferred_element_type=dtype)

    def visit_columns(step, slope):
        hidden_slope, head_slope = slope
        part = columns(head, tiling, step)
        column, fresh = cut_columns(tiling, step)

        def visit_tokens(part_slope, arrays):
            (hidden, *per_token), hidden_slope = arrays
            by_logit = _logit_slopes(_logits(hidden, part, temperature, dtype), column, *per_token)
            by_logit = (by_logit if fresh is None else jnp.where(fresh, by_logit, 0.0)).astype(narrow)
            hidden_slope += dot("btmv,dmv->btd", by_logit, part)
            return part_slope + dot("btd,btmv->dmv", hidden, by_logit), hidden_slope

        before = jnp.zeros(part.shape, dtype)
        part_slope, hidden_slope = jax.lax.scan(visit_tokens, before, (chunks, hidden_slope))
        part_slope = (part_slope / temperature).astype(head.dtype)
        if fresh is not None:  # the last step goes back over columns that are done
            part_slope = jnp.where(fresh, part_slope, columns(head_slope, tiling, step))
        return hidden_slope, jax.lax.dynamic_update_slice_in_dim(head_slope, part_slope, tiling.start(step), axis=2)

    begin = jnp.zeros(chunks[0].shape, dtype), jnp.zeros_like(head).reshape(head.shape[0], tiling.shards, -1)
    hidden_slope, head_slope = jax.lax.fori_loop(0, tiling.steps, visit_columns, begin)
    hidden_slope = join_tokens(hidden_slope, targets.shape) / temperature
    # Dividing by the temperature is shrinking the hidden states, so its slope is theirs along themselves.
    by_temperature = -jnp.sum(hidden_slope * hidden) / temperature
    return (
        hidden_slope.astype(hidden.dtype),
        head_slope.reshape(head.shape),
        None,
        by_temperature.astype(jnp.result_type(temperature)),
    )


def _logit_slopes(logits, column, targets, entropy, log_total, slope, entropy_slope):
    """d logprob / d logit_v = 1[v = target] - p_v; d entropy / d logit_v = -p_v (log p_v + entropy)."""
    targets, entropy, log_total, slope, entropy_slope = (
        x[..., None, None] for x in (targets, entropy, log_total, slope, entropy_slope)
    )
    logp = logits - log_total
    return jnp.where(column == targets, slope, 0.0) - jnp.exp(logp) * (slope + entropy_slope * (logp + entropy))


_token_logprobs.defvjp(_forward, _backward)


@partial(jax.jit, static_argnames=("chunk_size", "tile_bytes"))
def token_divergence(
    hidden,
    head,
    other_hidden,
    other_head,
    *,
    temperature=1.0,
    chunk_size: int | None = None,
    tile_bytes: int = 64 << 20,
):
    """KL(other || this) of two models' distributions of the next token, at every place.

    Tokens are taken in chunks and their logits recomputed in the backward pass: at most two [chunk, V] arrays of logits
    exist at once.

    Args:
      hidden: [B, T, D] final hidden states.
      head: [D, V] output projection.
      other_hidden: [B, T, D'] of the other model, whose width may differ.
      other_head: [D', V].
      temperature: divides the logits of both.
      chunk_size: tokens at a time; by default so many that their logits take `tile_bytes`.
      tile_bytes: of the logits of one chunk in float32 on one device.

    Returns:
      [B, T] float32, in nats.
    """
    vocab = head.shape[1]
    tiling = plan_tiles(
        hidden.shape[:2], vocab, chunk_size=chunk_size, vocab_chunk=vocab, vocab_shards=1, tile_bytes=tile_bytes
    )
    # Widened outside the walk, so that the heads' gradients are accumulated in float32.
    widened = [x.astype(wide(x)) for x in (head, other_head)]

    @jax.checkpoint
    def chunk(arrays):
        ours, theirs = (
            jax.nn.log_softmax(jnp.dot(x, w.astype(own.dtype), preferred_element_type=w.dtype) / temperature)
            for x, w, own in zip(arrays, widened, (head, other_head))
        )
        return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)

    return join_tokens(jax.lax.map(chunk, cut_tokens((hidden, other_hidden), tiling)), hidden.shape[:2])


def _logits(hidden, part, temperature, dtype):
    """[b, t, M, W] logits of a chunk of tokens and a part [D, M, W] of the head."""
    return jnp.einsum("btd,dmv->btmv", hidden, part, preferred_element_type=dtype) / temperature
