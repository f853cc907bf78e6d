"""How far the trainer's log-probabilities are from the sampler's own, on the tokens that were sampled; in numpy.

Three policies have a say in an update: the sampler, with its arithmetic; the trainer with the same parameters (`old`),
whose log-probabilities the objective's ratio is taken against; and the policy being trained. This watches the first
against the second, which should be one policy. `ratio_deviation` and `clip_fraction` of the objective watch the third
against the second.
"""

from collections.abc import Callable, Sequence

import numpy as np

CONTEXT = 24  # tokens before a token that its record shows


def compare(sampler, old, mask) -> dict[str, float]:
    """Figures of one batch, 0 where there is no token; sequences are completions.

    Args:
      sampler, old: [..., T] log-probabilities of the sampled tokens.
      mask: [..., T] bool, the tokens that count. What it leaves out may hold anything.

    Returns:
      sampler_mismatch, sampler_mismatch_max: mean and largest |log old - log sampler|, nats a token.
      mismatch_kl_k1, mismatch_kl: the k1 and k3 estimates of KL(sampler || old), nats a token; k3 is never negative.
      mismatch_factor, mismatch_factor_max: mean and largest exp |log old - log sampler|, the factor by which a
        probability is off; 1 for none.
      mismatch_correlation: Pearson's, of the probabilities; 0 where one of them does not vary.
      mismatch_sequence, mismatch_sequence_max: mean and largest |log old - log sampler| of whole sequences, in nats.
        Exp of it is what a ratio of sequences would be off.
    """
    mask = np.asarray(mask, bool)
    sampler, old = (np.where(mask, x, 0.0).astype(np.float64) for x in (sampler, old))
    gaps, sums = (old - sampler)[mask], np.abs((old - sampler).sum(-1))[mask.any(-1)]
    figures = {
        "sampler_mismatch": np.abs(gaps),
        "mismatch_kl_k1": -gaps,
        "mismatch_kl": np.expm1(gaps) - gaps,
        "mismatch_factor": np.exp(np.abs(gaps)),
        "mismatch_sequence": sums,
    }
    largest = ("sampler_mismatch", "mismatch_factor", "mismatch_sequence")
    result = {name: float(values.mean()) if values.size else 0.0 for name, values in figures.items()}
    result |= {f"{name}_max": float(figures[name].max(initial=0.0)) for name in largest}
    return result | {"mismatch_correlation": correlation(np.exp(sampler[mask]), np.exp(old[mask]))}


def correlation(x, y) -> float:
    """Pearson's correlation of two vectors; 0 where one of them does not vary."""
    if np.size(x) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - np.mean(x), y - np.mean(y)
    return float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)))


def is_alarming(figures: dict, alarm: float) -> bool:
    """Whether the KL from the sampler to the trainer, where it was measured, is above `alarm` or is no number."""
    return not figures.get("mismatch_kl", 0.0) <= alarm


def warning(figures: dict, alarm: float, *, dtype: str, replaying: bool) -> str:
    """One line for a step that is alarming: what is wrong, and what to try in the order of what it costs.

    Args:
      figures: of `compare`, and routing_difference where routing is recorded.
      alarm: the threshold, in nats a token.
      dtype: of the model's activations.
      replaying: whether the trainer replays the sampler's routing.
    """
    routing = figures.get("routing_difference")
    advice = [
        "--grpo.replay-routing" if routing and not replaying else "",
        "--grpo.importance-cap 2",
        "--dtype float32" if dtype != "float32" else "",
    ]
    routed = f", {100 * routing:.2g}% of the routing decisions differ" if routing is not None else ""
    return (
        f"sampler and trainer differ by a KL of {figures['mismatch_kl']:.2g} nats a token, above {alarm:.2g} "
        f"(a probability is off by a factor of {figures['mismatch_factor_max']:.3g} at worst{routed}); try "
        f"{', '.join(filter(None, advice))}. The worst tokens are in samples.jsonl."
    )


def worst_tokens(sampler, old, mask, count: int) -> np.ndarray:
    """Places [n, ndim] of the n <= count tokens with the largest |log old - log sampler|, the largest first.

    Of equal ones the first comes first; what is no number counts as largest. Arguments as `compare`.
    """
    gaps = np.where(mask, np.abs(np.subtract(old, sampler, dtype=np.float64)), -1.0)
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    order = np.argsort(-gaps, axis=None, kind="stable")[: min(count, int(np.sum(mask)))]
    return np.stack(np.unravel_index(order, gaps.shape), -1)


def describe_tokens(places: np.ndarray, tokens, sampler, old, decode: Callable[[Sequence[int]], str]) -> list[dict]:
    """The tokens at `places` as JSON: where they are, both log-probabilities, and the text before them.

    Args:
      places: [n, 3], prompt, sample and position, from `worst_tokens` of [P, G, T] arrays.
      tokens: [P, G, T] ids.
      sampler, old: [P, G, T].
      decode: ids -> text.
    """
    return [
        {
            "prompt": int(p),
            "sample": int(g),
            "position": int(t),
            "token": int(tokens[p, g, t]),
            "text": decode(tokens[p, g, t : t + 1]),
            "sampler_logprob": float(sampler[p, g, t]),
            "old_logprob": float(old[p, g, t]),
            "context": decode(tokens[p, g, max(0, t - CONTEXT) : t]),
        }
        for p, g, t in places
    ]
