"""What tells one language from the others of its script."""

from typing import NamedTuple


class Profile(NamedTuple):
    """The marks of one language, by hand, the words of reasoning among them.

    A word, ending or letter may be in several profiles; then it speaks for each of them. Content words need not be
    there: a word that nobody claims goes with its neighbours.
    """

    code: str
    """ISO 639-1; languages that cannot be told apart by such marks share one."""
    name: str
    script: str
    words: str = ""
    endings: str = ""
    """Of words of at least five letters."""
    letters: str = ""
    """That occur in this language and in few others of its script."""
