"""A generative judge that can say nothing but its verdicts: their probabilities as continuations of a prompt."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.config import UserError
from r1jax.data.prompts import pad_prompts
from r1jax.data.tokenizer import Tokenizer
from r1jax.generation.prefill import prompt_positions
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, output_head
from r1jax.ops.logprobs import token_logprobs
from r1jax.policy import Policy
from r1jax.sharding import batch_sharding, check_divides, replicated

ScoreVerdicts = Callable[[Sequence[str]], np.ndarray]
"""N prompts -> [N, num_verdicts] float32 log-probabilities, normalised over the verdicts; NaN where there are none."""


def make_verdict_scorer(policy: Policy, mesh, verdicts: Sequence[str], *, batch: int, length: int) -> ScoreVerdicts:
    """Constrain a checkpoint to a few verdicts: returns score(prompts) -> [N, num_verdicts] log-probabilities.

    A verdict's probability is that of all its tokens after the prompt, divided by the sum over the verdicts: what the
    checkpoint would say at temperature 1 if it had to say one of them. Equal prompts are scored once. All shapes are
    fixed, so it compiles once.

    Args:
      policy: its model, tokenizer, params and router_bias are read.
      mesh: where the parameters lie.
      verdicts: texts that follow the prompt after a space.
      batch: prompts at a time.
      length: tokens a prompt may have; one with more, or with none, gets NaN.

    Raises:
      UserError: the tokenizer cannot write a verdict, one verdict begins another, or `batch` does not divide over the
        mesh.
    """
    check_divides(mesh, batch, "batch", "the judge's batch")
    tokens, mask = encode_verdicts(policy.tokenizer, verdicts)

    def logprobs(params, router_bias, prompts, lengths):
        totals = verdict_sums(policy.model, params, router_bias, prompts, lengths, tokens, mask)
        return jax.nn.log_softmax(totals, axis=-1)

    compiled = jax.jit(logprobs, out_shardings=replicated(mesh))

    def score(prompts: Sequence[str]) -> np.ndarray:
        ids = {prompt: policy.tokenizer.encode_prompt(prompt) for prompt in dict.fromkeys(prompts)}
        fitting = [prompt for prompt in ids if 0 < len(ids[prompt]) <= length]
        rows = dict.fromkeys(ids, np.full(len(verdicts), np.nan, np.float32))
        for start in range(0, len(fitting), batch):
            some = fitting[start : start + batch]
            padded = some + [some[0]] * (batch - len(some))
            arrays = jax.device_put(pad_prompts([ids[prompt] for prompt in padded], length), batch_sharding(mesh))
            rows |= zip(some, np.asarray(compiled(policy.params, policy.router_bias, *arrays)))
        return np.array([rows[prompt] for prompt in prompts], np.float32).reshape(len(prompts), len(verdicts))

    return score


def encode_verdicts(tokenizer: Tokenizer, verdicts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the verdicts, [num_verdicts, L] int32 with 0 on the right, and the mask of those that count.

    Raises:
      UserError: there are fewer than two, the tokenizer cannot write one, or one is the beginning of another.
    """
    ids = [list(tokenizer.encode(verdict)) for verdict in verdicts]
    if len(ids) < 2:
        raise UserError(f"a judge needs two verdicts to choose from, not {list(verdicts)}")
    for verdict, row in zip(verdicts, ids):
        if not row or tokenizer.decode(row).strip() != verdict.strip():
            raise UserError(f"the judge's tokenizer cannot write the verdict {verdict!r}; choose another wording")
    for i, short in enumerate(ids):
        for j, long in enumerate(ids):
            if i != j and long[: len(short)] == short:
                raise UserError(f"the verdict {verdicts[i]!r} begins {verdicts[j]!r}: who says one has said the other")
    mask = np.arange(max(map(len, ids))) < np.array([len(row) for row in ids])[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = np.concatenate(ids)
    return tokens, mask


def verdict_sums(model: ModelConfig, params, router_bias, prompts, lengths, verdicts, mask) -> jax.Array:
    """Log-probability of every verdict after every prompt, summed over its tokens, [B, num_verdicts] float32.

    The prompt is run once, and the verdicts read it from the cache.

    Args:
      model, params, router_bias: of the judge.
      prompts: [B, S] int32, padded on the left.
      lengths: [B] int32.
      verdicts: [num_verdicts, L] int32.
      mask: [num_verdicts, L] bool.
    """
    batch, (count, width) = len(prompts), verdicts.shape
    share = lambda x, axis=0: jnp.repeat(x, count, axis)
    tile = lambda x: jnp.tile(x, (batch, 1))
    hidden, cache, _ = forward(model, params, router_bias, prompts, prompt_positions(lengths, prompts.shape[1]))
    hidden = share(hidden[:, -1:])  # [B * num_verdicts, 1, D]
    if width > 1:
        cache = cache._replace(positions=cache.positions[None])  # now the batch is the second axis of every array
        cache = jax.tree.map(lambda x: share(x, 1), cache)
        cache = cache._replace(positions=cache.positions[0])
        positions = jnp.where(tile(mask), share(lengths)[:, None] + jnp.arange(width), -1)
        after, _, _ = forward(model, params, router_bias, tile(verdicts)[:, :-1], positions[:, :-1], cache=cache)
        hidden = jnp.concatenate([hidden, after], axis=1)
    logprobs, _ = token_logprobs(hidden, output_head(model, params), tile(verdicts))
    return jnp.where(tile(mask), logprobs, 0.0).sum(-1).reshape(batch, count)
