"""Which answers of a problem's samples are the same, for the majority vote."""

from collections.abc import Sequence
from functools import lru_cache

from r1jax.rewards.answer import final_answer
from r1jax.rewards.math.evaluate import Work
from r1jax.rewards.math.judge import compare_cheaply
from r1jax.tasks.answers import plain, read_number

UNVOTED = ("functions", "requests", "safety")
"""Families whose responses are programs or speech, and programs wherever there are tests: no answers to count."""
LONGEST_READ = 500
"""Characters; a longer answer is the same as another only where the texts are."""


def ballots(record: dict, completions: Sequence[str]) -> list[str | None] | None:
    """The answers of a problem's completions, equal texts for equal answers; None for no answer.

    The gold answer is not looked at. Final answers are read as the judges read them (`r1jax.rewards.answer`), without
    white space and what only sets them in type. Of a mathematical problem an answer also counts as an earlier one that
    the judge's own cheap tiers find equal: 1/2, 0.5 and \\frac{1}{2} are one. They compare with the first of each kind,
    in the order of the samples. Elsewhere other texts are other answers: two expressions for one target are two.

    Returns:
      One text or None a completion; None instead of the list where there are no answers to vote on; see UNVOTED.
    """
    if "tests" in record or record.get("family") in UNVOTED:
        return None
    mathematical, prefill = record.get("family") == "math", record.get("prefill") or ""
    options = {"same": same_value} if mathematical else {}
    finals = [final_answer(text, prefill, **options).text for text in completions]
    texts = [None if final is None else "".join(plain(final).split()) for final in finals]
    if not mathematical:
        return texts
    kinds: dict[str, str] = {}  # text -> the first that it equals
    for text in texts:
        if text is not None and text not in kinds:
            firsts = [first for first in dict.fromkeys(kinds.values()) if same_value(first, text)]
            kinds[text] = firsts[0] if firsts else text
    return [None if text is None else kinds[text] for text in texts]


def same_value(first: str, second: str) -> bool:
    """Whether two mathematical answers agree, either of them being taken for the gold one; plain numbers exactly."""
    if max(len(first), len(second)) > LONGEST_READ:
        return False
    numbers = number(first), number(second)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return compare_cheaply(first, second, Work()) or compare_cheaply(second, first, Work())


number = lru_cache(maxsize=4096)(read_number)
