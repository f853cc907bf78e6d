"""Sorting and string operations: a word, a list of numbers or a list of words, changed step by step."""

import string
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import BrokenRecord, field, judge_answer, read_integers, read_word, read_words, right_answer
from r1jax.tasks.levels import at_level

SHORTEST = 3
"""No step is taken that leaves fewer letters or items."""


class Size(NamedTuple):
    """How large a problem is."""

    steps: int
    length: int


SIZES = (Size(1, 5), Size(2, 7), Size(3, 9), Size(4, 11), Size(6, 13))
FORMS = {"word": read_word, "numbers": read_integers, "words": read_words}
"""The forms of a result, and how an answer of each is read."""


class Step(NamedTuple):
    """One operation in words, and what it does."""

    text: str
    change: Callable[[Any], Any]


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: 1, 2, 3, 4 or 6 steps on something of 5, 7, 9, 11 or 13 letters or items.

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    form = str(rng.choice(tuple(FORMS)))
    value = start = _start(form, size.length, rng)
    texts = []
    while len(texts) < size.steps:
        step = _draw_step(form, value, rng)
        changed = step.change(value)
        if changed != value and len(changed) >= SHORTEST:
            value = changed
            texts.append(f"{len(texts) + 1}. {step.text}.")
    noun = "word" if form == "word" else "list"
    question = f"Start with the {noun} {_written(start)} and do, in order: {' '.join(texts)} What is the {noun} then?"
    question += "" if form == "word" else " Separate the items by commas."
    record = {"family": "strings", "level": level, "question": question}
    return record | {"form": form, "answer": _written(value)}


def judge(record: dict, completion: str) -> Judgement:
    """Judge the word, or the whole list in its order: 1 or 0."""
    return judge_answer(record, completion, _prepare)


def _prepare(record: dict):
    form = field(record, "form", str)
    if form not in FORMS:
        raise BrokenRecord(f"field 'form' holds {form[:40]!r}; expected one of {', '.join(FORMS)}")
    return right_answer(record, FORMS[form]), FORMS[form]


def _written(value: str | tuple) -> str:
    return value if isinstance(value, str) else ", ".join(map(str, value))


def _letters(count: int, rng) -> str:
    return "".join(string.ascii_lowercase[place] for place in rng.integers(26, size=count))


def _start(form: str, length: int, rng) -> str | tuple:
    if form == "word":
        return _letters(length, rng)
    if form == "numbers":
        return tuple(int(number) for number in rng.integers(-20, 100, length))
    return tuple(_letters(int(count), rng) for count in rng.integers(2, 6, length))


def _draw_step(form: str, value: str | tuple, rng) -> Step:
    own = {"word": _word_steps, "numbers": _number_steps, "words": _list_of_words_steps}
    steps = own[form](value, rng) + _common_steps("letter" if form == "word" else "item", rng)
    return steps[int(rng.integers(len(steps)))]


def _common_steps(item: str, rng) -> list[Step]:
    """Steps that take a word as they take a list."""
    count = int(rng.integers(1, 4))
    left = Step(f"Move the first {item} to the end, {count} times", lambda value: value[count:] + value[:count])
    return [
        Step(f"Reverse the order of the {item}s", lambda value: value[::-1]),
        Step(f"Swap the first and the last {item}", lambda value: value[-1:] + value[1:-1] + value[:1]),
        Step(f"Remove the first {item}", lambda value: value[1:]),
        Step(f"Keep only every second {item}, beginning with the first", lambda value: value[::2]),
        left if count > 1 else Step(f"Move the first {item} to the end", left.change),
    ]


def _word_steps(word: str, rng) -> list[Step]:
    old, new = str(rng.choice(list(word))), _letters(1, rng)
    after = lambda letter: string.ascii_lowercase[(string.ascii_lowercase.index(letter) + 1) % 26]
    return [
        Step("Sort the letters in alphabetical order", lambda word: "".join(sorted(word))),
        Step(f"Replace every {old} by {new}", lambda word: word.replace(old, new)),
        Step(f"Remove every {old}", lambda word: word.replace(old, "")),
        Step("Replace every letter by the next in the alphabet, and z by a", lambda word: "".join(map(after, word))),
    ]


def _number_steps(numbers: tuple[int, ...], rng) -> list[Step]:
    amount, bound = int(rng.integers(2, 10)), int(rng.choice(numbers))
    return [
        Step("Sort in increasing order", lambda numbers: tuple(sorted(numbers))),
        Step("Sort in decreasing order", lambda numbers: tuple(sorted(numbers, reverse=True))),
        Step(f"Add {amount} to every number", lambda numbers: tuple(n + amount for n in numbers)),
        Step(f"Remove every number greater than {bound}", lambda numbers: tuple(n for n in numbers if n <= bound)),
        Step("Remove every even number", lambda numbers: tuple(n for n in numbers if n % 2)),
    ]


def _list_of_words_steps(words: tuple[str, ...], rng) -> list[Step]:
    letter = str(rng.choice(list("".join(words))))
    return [
        Step("Sort in alphabetical order", lambda words: tuple(sorted(words))),
        Step(
            "Sort from the shortest to the longest, equally long ones in alphabetical order",
            lambda words: tuple(sorted(words, key=lambda word: (len(word), word))),
        ),
        Step(f"Remove every word that contains {letter}", lambda words: tuple(w for w in words if letter not in w)),
        Step("Reverse the letters of every word", lambda words: tuple(word[::-1] for word in words)),
    ]
