"""One reward from several judgements: weights, gates, and what is known."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement


class Term(NamedTuple):
    """How the score of one judge enters the reward."""

    weight: float = 1.0
    gate: str | None = None
    """Another judge; the score counts only where that one says "correct", and is 0 elsewhere."""


class Combined(NamedTuple):
    """The reward of one completion."""

    reward: float
    """The sum of the parts; 0 where it is not known."""
    known: bool
    """False where a judge that enters the reward failed: the sample must be masked, not taught as a 0."""
    parts: dict[str, float]
    """Weighted and gated score of every term."""

    def plus(self, name: str, score: float) -> "Combined":
        """With one more part, such as the score of a reward model; it does not make an unknown reward known."""
        return Combined(self.reward + score if self.known else 0.0, self.known, self.parts | {name: score})


class GroupRewards(NamedTuple):
    """The rewards of P groups of G completions."""

    rewards: np.ndarray
    """[P, G] float32."""
    known: np.ndarray
    """[P, G] bool; completions that are not known get advantage 0 and stay out of their group's statistics."""
    parts: dict[str, float]
    """Mean part of every term over the known completions that have it; 0 where none is known."""


def combine(judgements: Mapping[str, Judgement], terms: Mapping[str, Term]) -> Combined:
    """Weighted sum of the scores that pass their gates.

    DeepSeek-R1 adds accuracy and format with the same weight, and the language consistency to that (Nature 645:633,
    equations 4 and 7): `{"accuracy": Term(), "format": Term(), "language": Term()}`.

    Args:
      judgements: of one completion, by the name of the judge; some may have no term, and are then only logged.
      terms: by the name of the judge. A weight of 0 takes a judge out, its failures too.

    Raises:
      ValueError: a term or gate without a judgement, or a weight that is not finite.
    """
    check_terms(terms, judgements)
    counted = {name: term for name, term in terms.items() if term.weight}
    needed = counted.keys() | {term.gate for term in counted.values() if term.gate}
    known = all(judgements[name].teaches for name in needed)
    opened = lambda term: term.gate is None or judgements[term.gate].outcome == "correct"
    parts = {name: term.weight * judgements[name].score * opened(term) for name, term in terms.items()}
    return Combined(math.fsum(parts.values()) if known else 0.0, known, parts)


def combine_groups(groups: Sequence[Sequence[Mapping[str, Judgement]]], terms: Mapping[str, Term]) -> GroupRewards:
    """`combine` over P groups of G completions each."""
    return group_rewards([combine(judgements, terms) for judgements in group] for group in groups)


def group_rewards(groups: Iterable[Sequence[Combined]]) -> GroupRewards:
    """The rewards of P groups of G completions, whose terms may differ from group to group."""
    groups = list(groups)
    known = [c for group in groups for c in group if c.known]
    names = dict.fromkeys(name for group in groups for c in group for name in c.parts)
    mean = lambda values: math.fsum(values) / max(1, len(values))
    return GroupRewards(
        np.array([[c.reward for c in group] for group in groups], np.float32),
        np.array([[c.known for c in group] for group in groups], bool),
        {name: mean([c.parts[name] for c in known if name in c.parts]) for name in names},
    )


def check_terms(terms: Mapping[str, Term], judges) -> None:
    """Raise ValueError where a term names or gates by something that is not among `judges`, or weighs no number."""
    for name, term in terms.items():
        for judge in (name, *([term.gate] if term.gate else [])):
            if judge not in judges:
                raise ValueError(f"the term {name!r} needs a judge {judge!r}; there are {', '.join(judges)}")
        if not math.isfinite(term.weight):
            raise ValueError(f"the term {name!r} has the weight {term.weight}; a finite number is needed")
