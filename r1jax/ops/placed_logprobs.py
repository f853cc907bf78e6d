"""Log-probabilities of given tokens on a mesh, each device doing those of its own tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax.ops.logprobs import token_logprobs
from r1jax.ops.wide import wide


class TokenAxes(NamedTuple):
    """Mesh axes, by name, along which the arrays are cut; () or None where they are not."""

    batch: tuple[str, ...]
    """Of tokens."""
    length: tuple[str, ...]
    """Of tokens."""
    embed: tuple[str, ...] | None
    """Of the head's first axis."""
    vocab: str | None
    """Of the head's second axis."""


def placed_token_logprobs(hidden, head, targets, *, axes: TokenAxes, temperature=1.0):
    """`token_logprobs` on the mesh in force: the head comes to the tokens, once, and its slope goes back, once.

    Left to itself XLA moves the head, and adds up its slope over the devices, for every tile. Where the vocabulary is cut
    it stays so: each device does its part of it for all tokens that it shares with the others, and they add up their
    sums, [B, T], and slopes of the hidden states.

    Args:
      hidden: [B, T, D] final hidden states.
      head: [D, V] output projection.
      targets: [B, T] int32.
      axes: of the mesh in force.
      temperature: divides the logits; a traced number.

    Returns:
      (logprobs, entropy), both [B, T] float32, in nats.
    """

    def local(hidden, head, targets, temperature):
        head = jax.lax.all_gather(head, axes.embed, axis=0, tiled=True) if axes.embed else head
        return token_logprobs(hidden, head, targets, temperature=temperature, vocab_shards=1, vocab_axis=axes.vocab)

    tokens = PartitionSpec(axes.batch or None, axes.length or None)
    in_specs = (tokens, PartitionSpec(axes.embed, axes.vocab), tokens, PartitionSpec())
    placed = jax.shard_map(local, in_specs=in_specs, out_specs=(tokens, tokens), check_vma=False)
    return placed(hidden, head, targets, jnp.asarray(temperature, wide(hidden)))
