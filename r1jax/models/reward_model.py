"""A decoder that scores texts: one number from the hidden state of a text's last token (Nature 645:633, Methods)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, init_params


class ScoreHead(nn.Module):
    """The scalar head, [..., D] -> [...] float32. It begins at zero, so that at first all texts score alike."""

    @nn.compact
    def __call__(self, hidden):
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        score = self.param("score", init, hidden.shape[-1:], jnp.float32)
        return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), score)


def init_reward_params(config: ModelConfig, key: jax.Array):
    """Fresh parameters with their logical axes as Flax metadata, and a zero router bias [num_moe_layers, E].

    The parameters are the decoder's, "score" [D] in place of its output head.
    """
    params, bias = init_params(config, key)
    head = ScoreHead().init(key, jnp.zeros((1, config.embed_dim)))["params"]
    return _without_output_head(params) | head, bias


def adopt_decoder(reward_params: dict, policy_params: dict) -> dict:
    """The parameters of a reward model with the decoder of a policy of the same shape; "score" stays."""
    return _without_output_head(policy_params) | {"score": reward_params["score"]}


def reward_outputs(config: ModelConfig, params, router_bias, tokens, positions):
    """Score the text of each row.

    Args:
      params, router_bias: as from `init_reward_params`.
      tokens: [B, T] int32.
      positions: [B, T] int32, from 0 in each row; -1 marks padding, on either side. A row of padding alone gets a
        finite score without meaning.

    Returns:
      scores [B] float32, and the expert load [num_moe_layers, E] float32.
    """
    hidden, load = _hidden(config, params, router_bias, tokens, positions)
    last = jnp.argmax(positions, axis=1)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    return ScoreHead().apply({"params": {"score": params["score"]}}, hidden), load


def reward_scores(config: ModelConfig, params, router_bias, tokens, positions) -> jax.Array:
    """Scores [B] float32 of the texts of the rows; arguments as `reward_outputs`."""
    return reward_outputs(config, params, router_bias, tokens, positions)[0]


def token_values(config: ModelConfig, params, router_bias, tokens, positions):
    """A value at every token, for PPO: what is still to come after the tokens up to and including it.

    The value before a completion's token t (`r1jax.objectives.ppo`) is the one at the token before.

    Args:
      params, router_bias, tokens, positions: as `reward_outputs`.

    Returns:
      values [B, T] float32, without meaning at padding, and the expert load [num_moe_layers, E] float32.
    """
    hidden, load = _hidden(config, params, router_bias, tokens, positions)
    return ScoreHead().apply({"params": {"score": params["score"]}}, hidden), load


def _hidden(config: ModelConfig, params, router_bias, tokens, positions):
    # The decoder declares an output head and never applies it; in a compiled program these zeros do not exist.
    unused = jnp.zeros((config.embed_dim, config.vocab_size), jnp.float32)
    decoder = {name: value for name, value in params.items() if name != "score"} | {"head": unused}
    hidden, _, load = forward(config, decoder, router_bias, tokens, positions)
    return hidden, load


def _without_output_head(params: dict) -> dict:
    return {name: value for name, value in params.items() if name != "head"}
