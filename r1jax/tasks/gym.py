"""Problems from reasoning-gym's generators, judged by this project's own exact comparison (an extra).

reasoning-gym's scorers are never called: some pass the model's text to `eval` in the process, others give part of the
score for an answer that merely contains the right one. Only data sets with one right answer are admitted.
"""

from functools import partial

import numpy as np

from r1jax.rewards.judgement import Judgement
from r1jax.tasks.answers import (
    BrokenRecord,
    Reader,
    field,
    judge_answer,
    plain,
    read_integers,
    read_items,
    read_number,
    read_word,
    right_answer,
)
from r1jax.tasks.levels import LEVELS

NAME = "reasoning_gym"
INSTALL = "reasoning-gym is not installed; pip install 'r1jax[reasoning-gym]'"
TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def read_text(text: str) -> str | None:
    """A line of text, upper and lower case apart, runs of white space as one space."""
    return " ".join(plain(text).split()) or None


def read_list(text: str) -> tuple[str, ...] | None:
    """Items between commas, upper and lower case apart."""
    items = tuple(read_items(text))
    return items if all(items) and items else None


def read_truth(text: str) -> bool | None:
    """True or Yes, False or No."""
    return TRUTH.get(plain(text).lower())


READERS = {
    "number": read_number,
    "integers": read_integers,
    "word": read_word,
    "items": read_list,
    "text": read_text,
    "truth": read_truth,
}
"""The forms of an answer, and how each is read."""

DATASETS = {
    "base_conversion": "text",
    "basic_arithmetic": "number",
    "binary_alternation": "number",
    "chain_sum": "number",
    "count_bits": "number",
    "count_primes": "number",
    "course_schedule": "truth",
    "decimal_chain_sum": "number",
    "gcd": "number",
    "isomorphic_strings": "truth",
    "largest_island": "number",
    "lcm": "number",
    "leg_counting": "number",
    "letter_counting": "number",
    "maze": "number",
    "products": "number",
    "ransom_note": "truth",
    "rotten_oranges": "number",
    "simple_equations": "number",
    "spell_backward": "word",
    "string_manipulation": "word",
    "string_splitting": "integers",
    "string_synthesis": "integers",
    "syllogism": "truth",
    "word_sequence_reversal": "items",
    "word_sorting": "items",
}
"""The data sets that are admitted, and the form of their answers."""


def draw(dataset: str, level: int, rng: np.random.Generator) -> dict:
    """A problem of a data set, with the difficulty of its own curriculum; a curriculum with fewer levels ends earlier.

    Problems whose answer is no text of the data set's form, such as an empty string, are drawn again.

    Args:
      dataset: one of DATASETS.
      level: from 1 to 5.
      rng: gives the generator's seed.

    Raises:
      ValueError: unknown data set or level.
      RuntimeError: reasoning-gym is not installed.
    """
    if dataset not in DATASETS:
        raise ValueError(f"no reasoning-gym data set {dataset!r} is admitted; admitted are {', '.join(DATASETS)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: levels are {LEVELS}")
    try:
        from reasoning_gym.factory import create_curriculum, create_dataset
    except ImportError as error:
        raise RuntimeError(INSTALL) from error
    curriculum = create_curriculum(dataset)
    curriculum.set_global_level(level - 1)
    problem = None
    while problem is None or not _is_readable(problem["answer"], READERS[DATASETS[dataset]]):
        settings = vars(curriculum.generate_configuration({"seed": int(rng.integers(2**31)), "size": 1}))
        problem = create_dataset(dataset, **settings)[0]
    record = {"family": f"{NAME}:{dataset}", "level": level, "question": problem["question"].strip()}
    return record | {"form": DATASETS[dataset], "answer": problem["answer"]}


def _is_readable(answer: str, read: Reader) -> bool:
    """Whether an answer can be written down and read again; a string_manipulation may leave nothing of its string."""
    return bool(answer.strip()) and read(answer) is not None


def judge(record: dict, completion: str) -> Judgement:
    """Judge an answer by exact comparison in the record's form: 1 or 0."""
    return judge_answer(record, completion, _prepare)


def drawer(dataset: str) -> partial:
    """`draw` for one data set: (level, rng) -> record."""
    return partial(draw, dataset)


def _prepare(record: dict):
    form = field(record, "form", str)
    if form not in READERS:
        raise BrokenRecord(f"field 'form' holds {form[:40]!r}; expected one of {', '.join(READERS)}")
    return right_answer(record, READERS[form]), READERS[form]
