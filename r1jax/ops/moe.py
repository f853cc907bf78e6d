"""DeepSeekMoE: routing, the ways to run the experts, and the router-bias update."""

from functools import partial

import jax
import jax.numpy as jnp

from r1jax.ops.wide import wide

_MASKED = -jnp.inf


def route(
    scores,
    bias,
    *,
    num_selected: int,
    num_groups: int = 1,
    num_limited_groups: int = 1,
    group_top: int = 2,
    normalize: bool = True,
    scaling: float = 1.0,
    replay=None,
):
    """Choose experts for each token with group-limited top-k and a selection-only bias (DeepSeek-V3, eq. 12-16).

    A group's score is the sum of its `group_top` best biased scores; the best `num_limited_groups` groups stay. The
    weights come from the unbiased scores of the chosen experts, renormalised and scaled. DeepSeek-V2 (arXiv
    2405.04434, section 2.2.2) takes a group's best score, no bias, and does not renormalise.

    Args:
      scores: [..., E] float32 affinities in (0, 1), sigmoid (V3) or softmax (V2) of the router logits.
      bias: [E] float32, added for the choice only; no gradient flows to it.
      num_selected: experts per token.
      num_groups, num_limited_groups: E is cut into `num_groups` equal groups, of which this many may be used.
      group_top: 2 in DeepSeek-V3, 1 in V2.
      normalize: the weights of a token are made to sum to 1 before they are scaled.
      scaling: multiplies the weights.
      replay: [..., num_selected] int32, experts to take in place of the choice, as in the routing replay of arXiv
        2510.11370: weights, and the router's gradient, come from `scores` at these. A row that begins with -1 chooses.

    Returns:
      indices [..., num_selected] int32, weights [..., num_selected] float32.
    """
    choice = jax.lax.stop_gradient(scores) + jax.lax.stop_gradient(bias)
    if num_groups > num_limited_groups:
        grouped = choice.reshape(*choice.shape[:-1], num_groups, -1)
        group_score = jax.lax.top_k(grouped, min(group_top, grouped.shape[-1]))[0].sum(-1)
        kept = jax.lax.top_k(group_score, num_limited_groups)[1]
        keep = jax.nn.one_hot(kept, num_groups, dtype=jnp.bool_).any(-2)
        # Dropped groups get -inf: with 0 they would win over kept experts whose biased score is negative.
        choice = jnp.where(keep[..., None], grouped, _MASKED).reshape(choice.shape)
    indices = jax.lax.top_k(choice, num_selected)[1]
    if replay is not None:
        indices = jnp.where(replay[..., :1] >= 0, replay, indices)
    chosen = jnp.take_along_axis(scores, indices, axis=-1)
    if normalize:
        chosen = chosen / (chosen.sum(-1, keepdims=True) + 1e-20)
    return indices, chosen * scaling


def expert_load(indices, num_experts: int, token_mask) -> jax.Array:
    """Tokens sent to each expert, [E] float32, from indices [N, K] and token_mask [N] (0 for padding)."""
    ones = jnp.broadcast_to(token_mask[:, None].astype(jnp.float32), indices.shape)
    return jnp.zeros(num_experts, jnp.float32).at[indices.reshape(-1)].add(ones.reshape(-1))


def update_router_bias(bias, load, *, rate):
    """Move each expert's bias by `rate` towards the mean load: b_i += rate * sign(mean - load_i).

    Auxiliary-loss-free balancing (arXiv 2408.15664, algorithm 1). `load` must be the sum over the whole batch of the
    step: every device and every micro-batch.

    Args:
      bias, load: [..., E]; the leading axis is usually the MoE layers.
      rate: the paper's gamma, 0.001 for most of DeepSeek-V3's pre-training.
    """
    return bias + rate * jnp.sign(load.mean(-1, keepdims=True) - load)


def max_violation(load) -> jax.Array:
    """MaxVio of arXiv 2408.15664: (max load - mean load) / mean load over the last axis; 0 is perfect balance."""
    mean = load.mean(-1)
    return (load.max(-1) - mean) / jnp.maximum(mean, 1.0)


def sequence_balance(scores, segments, *, num_selected: int):
    """How unevenly each sequence uses the experts: sum_i f_i P_i of DeepSeek-V3, eq. 17-20, times its tokens, summed.

    f_i is the share of a sequence's choices that fall on expert i, times E, where a token's choice is the top-k of its
    scores without bias and groups, as printed in eq. 18; P_i is the mean of its scores, normalised over all experts. A
    sequence that uses all experts alike counts 1 a token. The gradient flows through P alone.

    Args:
      scores: [B, T, E] float32 affinities, unbiased.
      segments: [B, T] int32, which sequence of its row a token belongs to, from 1 to T; 0 for padding.
      num_selected: experts per token.

    Returns:
      float32 scalar. Times the paper's alpha and divided by the number of tokens, it is the loss of one layer: its mean
      over sequences where all are equally long.
    """
    batch, length, num_experts = scores.shape
    chosen = jax.lax.top_k(jax.lax.stop_gradient(scores), num_selected)[1]
    chosen = jax.nn.one_hot(chosen, num_experts, dtype=jnp.float32).sum(-2)
    normalized = scores / scores.sum(-1, keepdims=True)
    row = jnp.arange(batch)[:, None]
    total = lambda values: jnp.zeros((batch, length + 1, values.shape[-1])).at[row, segments].add(values)[:, 1:]
    tokens = jnp.maximum(total(jnp.ones((batch, length, 1))), 1.0)
    return jnp.sum(total(chosen) * total(normalized) / tokens) * num_experts / num_selected


def swiglu(x, gate, up, down, *, dot=jnp.matmul):
    """down(silu(x gate) * (x up)): x [..., D], gate and up [D, F], down [F, D]; `dot` is the matrix product to take."""
    return dot(jax.nn.silu(dot(x, gate)) * dot(x, up), down)


def experts_dense(x, indices, weights, gate, up, down):
    """Weighted sum of the chosen experts' SwiGLU outputs, computed by running every expert on every token.

    Exact and dropless. It spends E / K times the necessary FLOPs, and is still the fastest form on CPU for small
    experts, where it is three large products. The reference for `experts_ragged`.

    Args:
      x: [N, D] tokens.
      indices, weights: [N, K] from `route`; an index outside of [0, E) counts nothing.
      gate, up: [E, D, F]; down: [E, F, D].

    Returns:
      [N, D], dtype of `x`.
    """
    num_experts, embed_dim, mlp_dim = gate.shape
    combine = jnp.zeros((x.shape[0], num_experts), weights.dtype)
    for slot in range(indices.shape[-1]):
        combine += jax.nn.one_hot(indices[:, slot], num_experts, dtype=weights.dtype) * weights[:, slot, None]
    flat = lambda w: w.transpose(1, 0, 2).reshape(embed_dim, num_experts * mlp_dim)
    hidden = jax.nn.silu(x @ flat(gate)) * (x @ flat(up))
    hidden = hidden.reshape(-1, num_experts, mlp_dim) * combine[..., None].astype(x.dtype)
    return hidden.reshape(x.shape[0], -1) @ down.reshape(num_experts * mlp_dim, embed_dim)


def experts_each(x, indices, weights, gate, up, down, *, dot):
    """The same sum as `experts_dense`, with products `dot`, [N, D] by [D, F], of one expert at a time.

    Slower than one wide product, for a `dot` that must know where an expert's weights begin.
    """
    chosen = jax.nn.one_hot(indices, gate.shape[0], dtype=weights.dtype)
    outputs = jax.vmap(partial(swiglu, dot=dot), in_axes=(None, 0, 0, 0))(x, gate, up, down)
    combine = jnp.einsum("nke,nk->en", chosen, weights)
    return jnp.einsum("end,en->nd", outputs, combine.astype(outputs.dtype))


def experts_ragged(x, indices, weights, gate, up, down, *, dot=jax.lax.ragged_dot):
    """The same sum as `experts_dense`, with tokens sorted by expert and grouped products.

    Dropless, and spends only the necessary FLOPs on accelerators. Arguments and result as `experts_dense`; `dot` takes
    the arguments of `jax.lax.ragged_dot`.
    """
    num_tokens, num_selected = indices.shape
    order, ends = _sort_by_expert(indices, gate.shape[0])
    sizes = jnp.diff(ends, prepend=0)
    # Masked on both sides: what a grouped product makes of rows beyond its groups, and of their slopes, is undefined.
    own = (jnp.arange(order.size) < ends[-1])[:, None]
    rows = jnp.where(own, x[order // num_selected], 0)
    out = swiglu(rows, gate, up, down, dot=lambda rows, w: dot(rows, w, sizes))
    out = jnp.where(own, out, 0)[jnp.argsort(order)].reshape(num_tokens, num_selected, -1)
    return jnp.einsum("nkd,nk->nd", out, weights.astype(out.dtype))


def experts_blocks(x, indices, weights, gate, up, down, *, block: int = 128):
    """The same sum as `experts_ragged`, in blocks of rows of one expert each, padded, as one batched product.

    For hardware without grouped products, where `ragged_dot` runs every expert on every row: E experts cost E half-filled
    blocks on average beside the necessary work, and a copy of an expert's weights for each of its blocks. Arguments and
    result as `experts_dense`; `block` is the number of rows.
    """
    (num_tokens, num_selected), num_experts = indices.shape, gate.shape[0]
    order, ends = _sort_by_expert(indices, num_experts)
    sizes = jnp.diff(ends, prepend=0)
    blocks = -(-sizes // block)
    last, count = jnp.cumsum(blocks), -(-order.size // block) + num_experts
    owner = jnp.minimum(jnp.searchsorted(last, jnp.arange(count), side="right"), num_experts - 1)
    turn = jnp.arange(order.size)
    expert = jnp.minimum(jnp.searchsorted(ends, turn, side="right"), num_experts - 1)
    place = (last - blocks)[expert] * block + turn - (ends - sizes)[expert]
    place = jnp.where(turn < ends[-1], place, count * block)  # out of range: of an expert that is not here
    source = jnp.full(count * block, num_tokens).at[place].set(order // num_selected, mode="drop")
    rows = jnp.pad(x, ((0, 1), (0, 0)))[source].reshape(count, block, -1)
    out = swiglu(rows, gate[owner], up[owner], down[owner]).reshape(count * block, -1)
    out = jnp.pad(out, ((0, 1), (0, 0)))[jnp.zeros_like(place).at[order].set(place)]
    out = out.reshape(num_tokens, num_selected, -1)
    return jnp.einsum("nkd,nk->nd", out, weights.astype(out.dtype))


def experts_windowed(x, indices, weights, gate, up, down, *, windows: int, dot=jax.lax.ragged_dot):
    """The same sum as `experts_ragged`, for a share of the experts that rarely gets more than a share of the tokens.

    The sorted rows are cut into windows of equal length. Where the rows of these experts fit into the first, as they do
    if experts are loaded about evenly, only that one is computed; else all are, one after the other. So it is dropless
    without work or memory traffic for rows that are not there. Arguments and result as `experts_ragged`.
    """
    num_tokens, num_selected = indices.shape
    order, ends = _sort_by_expert(indices, gate.shape[0])
    length = -(-order.size // windows)
    order = jnp.pad(order, (0, windows * length - order.size))

    def window(arrays, start):
        x, weights, *matrices = arrays
        chosen = jax.lax.dynamic_slice_in_dim(order, start, length)
        sizes = jnp.diff(jnp.clip(ends - start, 0, length), prepend=0)
        own = (start + jnp.arange(length) < ends[-1])[:, None]
        rows = jnp.where(own, x[chosen // num_selected], 0)
        out = swiglu(rows, *matrices, dot=lambda rows, w: dot(rows, w, sizes))
        out = jnp.where(own, out, 0) * weights.reshape(-1)[chosen, None].astype(out.dtype)
        return jnp.zeros((num_tokens, out.shape[-1]), wide(x)).at[chosen // num_selected].add(out)

    # Recomputed in the backward pass: a branch that is not taken must leave nothing to keep.
    @jax.checkpoint
    def first(arrays):
        return window(arrays, 0)

    @jax.checkpoint
    def every(arrays):
        add = jax.checkpoint(lambda total, start: (total + window(arrays, start), None))
        return jax.lax.scan(add, jnp.zeros((num_tokens, x.shape[-1]), wide(x)), jnp.arange(windows) * length)[0]

    return jax.lax.cond(ends[-1] <= length, first, every, (x, weights, gate, up, down)).astype(x.dtype)


def _sort_by_expert(indices, num_experts: int):
    """Places [N K] of the choices, by expert, those of experts outside of [0, E) last; and where each expert's end."""
    flat = indices.reshape(-1)
    flat = jnp.where((flat >= 0) & (flat < num_experts), flat, num_experts)
    sizes = jnp.bincount(flat, length=num_experts + 1)[:num_experts]
    return jnp.argsort(flat, stable=True), jnp.cumsum(sizes.astype(jnp.int32))
