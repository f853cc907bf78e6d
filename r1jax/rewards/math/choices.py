"""Multiple choice with the texts of the options known."""

import string
from collections.abc import Mapping, Sequence

from r1jax.rewards.math.comparison import same
from r1jax.rewards.math.evaluate import TooBig, Undecided, Work
from r1jax.rewards.math.latex import Malformed
from r1jax.rewards.math.reading import read_structure
from r1jax.rewards.math.structures import Choice, Scalar, Structure, Words


def read_choices(choices: Mapping[str, object] | Sequence[object]) -> dict[str, Structure]:
    """The options by letter; an option that is no readable answer is kept as words.

    Args:
      choices: a mapping from letters to texts, or the texts in order, with their letters before them or without.
    """
    pairs = choices.items() if isinstance(choices, Mapping) else zip(string.ascii_uppercase, choices, strict=False)
    options = {}
    for letter, text in pairs:
        try:
            option = read_structure(str(text))
        except Malformed:
            option = Words(str(text).casefold())
        if isinstance(option, Choice) and option.rest is not None:
            letter, option = option.letter, option.rest
        options[str(letter).strip("(). ").upper()] = option
    return options


def pick_choice(options: dict[str, Structure], answer: Structure, work: Work) -> str | None:
    """The letter an answer picks, by letter or by text; None where it picks none, several, or contradicts itself."""
    if isinstance(answer, Choice):
        option = options.get(answer.letter)
        agrees = option is not None and (answer.rest is None or agree(option, answer.rest, work))
        return answer.letter if agrees else None
    found = [letter for letter, option in options.items() if agree(option, answer, work)]
    if not found and isinstance(answer, Scalar | Words):
        name = answer.text if isinstance(answer, Words) else answer.node.args[0] if answer.node.op == "sym" else ""
        found = [name.upper()] if name.upper() in options else []
    return found[0] if len(found) == 1 else None


def agree(option: Structure, answer: Structure, work: Work) -> bool:
    """Whether an answer is an option's text."""
    try:
        return same(option, answer, work)
    except (TooBig, Undecided):
        return False
