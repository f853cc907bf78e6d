"""Ingredients others add to the outcome reward, and the paper does not: length in tokens, repetition, tags."""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from r1jax.rewards.format import TAGS, zero_flaw

# A character of a script without spaces, or a run of other word characters.
_UNSPACED = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def soft_overlong(tokens, *, max_length: int, cache: int) -> np.ndarray:
    """Punishment of completions that come near the length limit (DAPO, arXiv 2503.14476, equation 13).

    0 up to `max_length - cache`, falling linearly to -1 at `max_length`, and -1 beyond.

    Args:
      tokens: lengths of completions in tokens, any shape.
      max_length: the limit in tokens, the cache included; the paper has 20480.
      cache: width of the punished interval in tokens; the paper has 4096.

    Returns:
      In [-1, 0], float64, of the shape of `tokens`.

    Raises:
      ValueError: the cache is not within the limit, or a length is negative.
    """
    lengths = _lengths(tokens)
    if not 0 < cache <= max_length:
        raise ValueError(f"cache is {cache}; it must be above 0 and at most max_length, {max_length}")
    return np.clip((max_length - cache - lengths) / cache, -1.0, 0.0)


def cosine_length(
    tokens,
    correct,
    *,
    max_length: int,
    right: tuple[float, float] = (2.0, 1.0),
    wrong: tuple[float, float] = (-10.0, 0.0),
    exceeded: float = -10.0,
) -> np.ndarray:
    """Reward along half a cosine of the length: short where right, long where wrong (arXiv 2502.03373, section 4).

    Args:
      tokens: lengths of completions in tokens, any shape.
      correct: whether each is right, of the same shape.
      max_length: completions of this length or more get `exceeded`; the cosine never turns up again.
      right, wrong: the rewards at length 0 and at `max_length`.

    Returns:
      float64, of the shape of `tokens`.

    Raises:
      ValueError: the limit is not positive, a length is negative, or the shapes differ.
    """
    lengths, correct = _lengths(tokens), _like(correct, tokens)
    if max_length <= 0:
        raise ValueError(f"max_length is {max_length}; it must be above 0")
    start, end = np.where(correct, right[0], wrong[0]), np.where(correct, right[1], wrong[1])
    rewards = end + 0.5 * (start - end) * (1 + np.cos(np.pi * np.minimum(lengths / max_length, 1.0)))
    return np.where(lengths >= max_length, exceeded, rewards)


def group_length(tokens, correct, known=None) -> np.ndarray:
    """Length reward relative to the other completions of the same prompt (Kimi k1.5, arXiv 2501.12599, section 2.3.3).

    `0.5 - (length - shortest) / (longest - shortest)` of the group; where the completion is wrong, at most 0. A group
    of equal lengths gets 0.

    Args:
      tokens: [P, G] lengths of completions in tokens.
      correct: [P, G] whether each is right.
      known: [P, G] whether it was judged at all; others get 0 and do not enter the extremes. All by default.

    Returns:
      [P, G] float64 in [-0.5, 0.5].

    Raises:
      ValueError: a length is negative, or the shapes differ.
    """
    lengths, correct = _lengths(tokens), _like(correct, tokens)
    known = np.ones(lengths.shape, bool) if known is None else _like(known, tokens)
    shortest = np.min(lengths, axis=-1, keepdims=True, where=known, initial=np.inf)
    longest = np.max(lengths, axis=-1, keepdims=True, where=known, initial=-np.inf)
    spread = longest - shortest
    with np.errstate(invalid="ignore"):
        rewards = 0.5 - (lengths - shortest) / np.where(spread > 0, spread, 1.0)
    rewards = np.where(correct, rewards, np.minimum(rewards, 0.0))
    return np.where(known & (spread > 0), rewards, 0.0)


def repetition_penalty(items: Sequence[Hashable], *, n: int, max_penalty: float = 1.0) -> float:
    """Share of the n-grams that were there before, as a punishment (after arXiv 2502.03373, section 4.3).

    Args:
      items: token ids of a completion, or `text_units` of its text.
      n: length of an n-gram in items.
      max_penalty: of a text that repeats throughout.

    Returns:
      In [-max_penalty, 0]; 0 for fewer than n items. -0.0 is never returned.

    Raises:
      ValueError: `n` is below 1 or `max_penalty` is negative.
    """
    if n < 1 or max_penalty < 0:
        raise ValueError(f"n is {n} and max_penalty {max_penalty}; n must be at least 1, max_penalty at least 0")
    total = len(items) - n + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(items[start : start + total] for start in range(n)), strict=True)))
    return 0.0 - max_penalty * (total - distinct) / total


def text_units(text: str) -> list[str]:
    """Words of a text in lower case; every character by itself where a script has no spaces (Chinese, Japanese)."""
    return _UNIT.findall(text.lower())


def tag_count(completion: str, prefill: str = "") -> float:
    """Partial credit for R1-Zero's four tags: a quarter for each that occurs exactly once, after the ones before it.

    The last quarter is paid only with the whole format, so that a text which breaks it never gets more than 0.75, and
    more blocks never get more than one.
    """
    text, last, counted = prefill + completion, -1, 0
    for tag in TAGS:
        place = text.find(tag)
        if place > last and text.find(tag, place + 1) < 0:
            last, counted = place, counted + 1
    return counted / 4 if counted < 4 or zero_flaw(text) is None else 0.75


def _lengths(tokens) -> np.ndarray:
    lengths = np.asarray(tokens, np.float64)
    if lengths.size and not lengths.min() >= 0:
        raise ValueError(f"a length is {lengths.min():g} tokens; lengths must be 0 or more")
    return lengths


def _like(flags, tokens) -> np.ndarray:
    flags = np.asarray(flags, bool)
    if flags.shape != np.shape(tokens):
        raise ValueError(f"{flags.shape} flags for {np.shape(tokens)} lengths; the shapes must be the same")
    return flags
