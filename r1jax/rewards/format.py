"""The output formats of DeepSeek-R1: R1-Zero's four tags, and the released `<think> reasoning </think> summary`."""

import re
import unicodedata
from typing import NamedTuple

from r1jax.rewards.judgement import Judgement

TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# Almost a tag: odd case, white space or attributes. Both white space runs are bounded by "/" or a name, so that no text
# makes the search superlinear.
_ALMOST_THINK = re.compile(r"<\s*(?:/\s*)?think\b[^<>]*>", re.IGNORECASE)
_ALMOST_ANSWER = re.compile(r"<\s*(?:/\s*)?(?:think|answer)\b[^<>]*>", re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>]*[|｜]>")
# Letters by category, but drawn as nothing: Hangul fillers and the Braille blank.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_PLACEHOLDERS = frozenset(".,;:!?'\"`_·…。，、；：！？‘’“”")


class Flaw(NamedTuple):
    """The first breach of a format."""

    problem: str
    """In words, the same for every text with this breach, so that breaches can be counted."""
    position: int
    """Character of the judged text where it was seen; its length where something is missing."""


def zero_flaw(text: str) -> Flaw | None:
    """The first breach of `<think> reasoning </think> <answer> answer </answer>`; None where the whole text obeys it.

    Each tag exactly once and in order, only white space outside the two blocks, and an answer that says something:
    invisible characters, full stops and special tokens say nothing. The reasoning may be empty, and is free text, in
    which `<THINK>` or `< think >` is not a tag; elsewhere that is a breach. A tag is a tag, quoted or in code or not:
    whoever reads the output cuts at it (arXiv 2501.12948, section 2.2.2).
    """
    places = _places(text, TAGS)
    if isinstance(places, Flaw):
        return places
    opened, closed, answer, end = places
    after_think, after_end = closed + len("</think>"), end + len("</answer>")
    return (
        _not_blank(text, 0, opened, "text before <think>")
        or _not_blank(text, after_think, answer, "text between </think> and <answer>")
        or _not_blank(text, after_end, len(text), "text after </answer>")
        or _no_content(text, answer + len("<answer>"), end, "answer", _ALMOST_ANSWER)
    )


def think_flaw(text: str) -> Flaw | None:
    """The first breach of `<think> reasoning </think> summary`, the form of the released DeepSeek-R1; None without one.

    The same rules as `zero_flaw`, with a free summary, in which <answer> is text, in the place of the answer block.
    """
    places = _places(text, TAGS[:2])
    if isinstance(places, Flaw):
        return places
    opened, closed = places
    return _not_blank(text, 0, opened, "text before <think>") or _no_content(
        text, closed + len("</think>"), len(text), "summary", _ALMOST_THINK
    )


def format_problem(completion: str) -> str | None:
    """What first breaks the format of R1-Zero, in words; None where the whole string obeys it."""
    flaw = zero_flaw(completion)
    return flaw.problem if flaw else None


def format_reward(record: dict, completion: str) -> Judgement:
    """1 where the completion obeys the format of DeepSeek-R1-Zero (arXiv 2501.12948, section 2.2.2), else 0.

    Args:
      record: "prefill" is what the prompt template wrote at the start of the response; it is part of the judged text.
      completion: as the policy ended it; an end-of-sequence token left in it is text after the answer.
    """
    prefill = record.get("prefill") or ""
    return _judge(zero_flaw(prefill + completion), prefill, completion)


def think_format_reward(record: dict, completion: str) -> Judgement:
    """1 where the completion is `<think> reasoning </think> summary`, else 0; see `format_reward`."""
    prefill = record.get("prefill") or ""
    return _judge(think_flaw(prefill + completion), prefill, completion)


def extract_answer(completion: str) -> str | None:
    """The text of the answer block after the reasoning has ended, stripped; None where there is none.

    Only what follows the last </think> counts, so an answer inside the reasoning is never read. Of several answer
    blocks none is taken: the completion has not committed itself.
    """
    _, closed, conclusion = completion.rpartition("</think>")
    if not closed or conclusion.count("<answer>") != 1 or conclusion.count("</answer>") != 1:
        return None
    answer = conclusion.partition("<answer>")[2].partition("</answer>")
    return answer[0].strip() or None if answer[1] else None


def reasoning(completion: str, prefill: str = "") -> str:
    """The reasoning of a completion: what stands between the first <think> and the last </think>.

    Without a </think> after it, it runs to the end; without a <think>, it begins at the start. So a completion without
    tags is all reasoning, and no text escapes by leaving them out.
    """
    text = prefill + completion
    start = text.find("<think>")
    start = 0 if start < 0 else start + len("<think>")
    end = text.rfind("</think>")
    return text[start:] if end < start else text[start:end]


def says_something(text: str) -> bool:
    """Whether a text has any visible character that is more than a full stop or another placeholder.

    Brackets and operators count: they are the answers to some puzzles. Special tokens such as
    `<｜end▁of▁sentence｜>` do not.
    """
    visible = lambda c: unicodedata.category(c)[0] not in "ZCM" and c not in _BLANK_LETTERS
    return any(visible(c) and c not in _PLACEHOLDERS for c in _SPECIAL_TOKEN.sub("", text))


def _places(text: str, tags: tuple[str, ...]) -> list[int] | Flaw:
    """Where the tags begin; the flaw where one of them is missing, repeated or out of order."""
    for tag in tags:
        first = text.find(tag)
        if first < 0:
            return Flaw(f"missing {tag}", len(text))
        again = text.find(tag, first + len(tag))
        if again >= 0:
            return Flaw(f"{tag} more than once", again)
    places = [text.index(tag) for tag in tags]
    for before, after in zip(places, places[1:], strict=False):
        if after < before:
            return Flaw("tags out of order", after)
    return places


def _not_blank(text: str, start: int, stop: int, problem: str) -> Flaw | None:
    part = text[start:stop]
    return Flaw(problem, start + len(part) - len(part.lstrip())) if part.strip() else None


def _no_content(text: str, start: int, stop: int, name: str, almost_tag: re.Pattern) -> Flaw | None:
    almost = almost_tag.search(text, start, stop)
    if almost:
        return Flaw(f"almost a tag in the {name}", almost.start())
    return None if says_something(text[start:stop]) else Flaw(f"empty {name}", start)


def _judge(flaw: Flaw | None, prefill: str, completion: str) -> Judgement:
    if flaw is None:
        return Judgement("correct", 1.0)
    position = flaw.position - len(prefill)
    if position < 0:
        where = f"in the prefill {prefill[:40]!r}"
    elif position < len(completion):
        where = f"at character {position}: {completion[position : position + 40]!r}"
    else:
        where = f"at the end, character {len(completion)}"
    return Judgement("wrong", 0.0, f"{flaw.problem} {where}")
