"""The two languages of the miniature, and what a verdict and a second thought are called in each."""

from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
MARKS = {"en": ("yes", "no"), "zh": ("对", "不对")}
"""What an author writes behind a value that is, and one that is not, what was looked for."""
WAIT = {"en": "wait", "zh": "等等"}
THEN = {"en": "then", "zh": "然后"}


def other(language: Language) -> Language:
    """The language that this one is mixed with."""
    return "zh" if language == "en" else "en"
