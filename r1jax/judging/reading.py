"""Reading the verdict out of what a judge wrote freely."""

import json
import re
from typing import NamedTuple

from r1jax.judging.prompts import PAIRWISE_VALUES

_LABEL = re.compile(r"\[\[([AB<>= ]{1,16})\]\]", re.IGNORECASE)
_OBJECT = re.compile(r'\{\s*"[^"\\]{1,40}"\s*:')
_BACKSLASH = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
MAX_OBJECTS = 8  # tried from the end; bounds the work on a text full of beginnings


class Correctness(NamedTuple):
    """What the JSON object of Listing 4 says."""

    correct: bool
    analysis: str


def read_pairwise_verdict(text: str) -> str | None:
    """The final verdict of a judge: its last [[label]], as a key of PAIRWISE_VALUES.

    A judge may quote the labels and change its mind on the way, so the last one counts; but not if it is none of the
    five, nor if its line names two that differ. Case and spaces inside the brackets are forgiven.

    Returns:
      A label such as "[[A>B]]", or None.
    """
    labels = list(_LABEL.finditer(text))
    if not labels:
        return None
    line = text.rfind("\n", 0, labels[-1].start()) + 1
    said = {f"[[{label.group(1).replace(' ', '').upper()}]]" for label in labels if label.start() >= line}
    return said.pop() if len(said) == 1 and said <= PAIRWISE_VALUES.keys() else None


def read_correctness(text: str) -> Correctness | None:
    r"""The last JSON object in a text that has the key "correctness", fenced or not; None where there is none.

    Forgiven are text around the object, line breaks inside strings, and backslashes that JSON does not know, as judges
    write them in formulas. An object that gives both verdicts, or another than the two, is none. Linear in the text.
    """
    for start in [match.start() for match in _OBJECT.finditer(text)][: -MAX_OBJECTS - 1 : -1]:
        pairs = _pairs(text[start:])
        said = [str(value).strip().lower() for key, value in pairs if key == "correctness"]
        if not said:
            continue
        if said[0] not in ("correct", "incorrect") or any(value != said[0] for value in said):
            return None
        analysis = dict(pairs).get("analysis")
        return Correctness(said[0] == "correct", analysis if isinstance(analysis, str) else "")
    return None


def _pairs(text: str) -> list[tuple[str, object]]:
    """Keys and values, in order and with repeats, of the JSON object at the beginning of a text; [] if it is broken."""
    repaired = _BACKSLASH.sub(lambda match: match.group() if match.group(1) else r"\\", text)
    decoder = json.JSONDecoder(object_pairs_hook=list, strict=False)
    for candidate in (text, repaired):
        try:
            return decoder.raw_decode(candidate)[0]
        except (ValueError, RecursionError):
            pass
    return []
