"""Responses of R1-Zero rewritten by templates: one language, a summary. The miniature's stand-in for the people and the
model that rewrote DeepSeek-R1's cold-start data (Nature 645:633, SI 2.3.2)."""

import re

from r1jax.rewards.answer import final_answer
from r1jax.rewards.format import reasoning
from r1jax.tasks import functions
from r1jax.tasks.authors import boxed
from r1jax.tasks.languages import MARKS, THEN, WAIT, Language

SAME = [
    *({language: MARKS[language][place] for language in MARKS} for place in (0, 1)), WAIT, THEN,
    *(part.told for part in (*functions.CHOICES, functions.ALL, *functions.RESULTS)),
]  # fmt: skip
"""What is said in the thoughts of the miniature, in both languages."""


def in_one_language(thought: str, language: Language) -> str:
    """A thought with every phrase of the other language replaced by its like.

    "Translate the thinking process to the same language as the question", as the paper asks a model to do.
    """
    like = {}
    for said in SAME:
        (there,) = (text for name, text in said.items() if name != language)
        like[there] = said[language]
    longest_first = sorted(like, key=len, reverse=True)
    pattern = re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\S)")
    return pattern.sub(lambda match: like[match.group()], thought)


def rewrite(record: dict, completion: str) -> tuple[str, str]:
    """The thought of an R1-Zero response in the language of its question, and a summary for the reader.

    Raises:
      ValueError: the response has no answer.
    """
    answer = final_answer(completion)
    if answer.text is None:
        raise ValueError(answer.reason)
    thought = in_one_language(reasoning(completion).strip(), record["language"])
    return thought, answer.text if record["family"] == "functions" else boxed(answer.text, record["language"])
