"""The language-consistency reward of DeepSeek-R1: share of the reasoning's words in the language of the prompt."""

from collections import defaultdict
from functools import cache, lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np

from r1jax.rewards.format import reasoning
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.profiles import PROFILES
from r1jax.rewards.prose import Word, words

CONSISTENT = 0.9
"""From this share on the outcome is "correct", for gates and rates; the reward is the share itself."""

WORD, LETTER, ENDING = 1.0, 0.7, 0.4  # what a mark of a language weighs
NAME = 0.1  # what a word weighs with a capital inside a sentence: it may be part of a name
NAMES = 4  # this many capitals in a row may be; more are a heading
SPREAD = 0.75  # how much of a mark is left one word further on
REACH = 12  # words; further on, next to nothing is left
AUDIBLE = 0.4  # Latin words with weaker marks around them are of no known language
WHOLE = 0.5  # what the mean of a mark over the whole text adds at every word
TERM = 3  # so many Latin words in a row may be a term in a sentence of another script
LONE = 3  # this many small words in a row without any mark are an unknown language; fewer are terms, capitals names
TIE = 0.95  # of languages this close to each other, the wanted one wins
JAPANESE = 0.1  # share of kana that makes the Han characters of a sentence Japanese

# Written between numbers in any language.
_NOTATION = frozenset(
    "sin cos tan cot sec log ln exp lim max min gcd lcm mod det dim arg deg sup inf ok hmm hm ah oh".split()
)
# Of programs and of the descriptions of programs in any language; alone among words of another script, of none.
_TERMS = frozenset(
    """for while if else return break continue pass try except print import class def true false none null list index
    count total sum number string value values left right next last max min result step case root integer even odd
    set get add put end find check input output state start stop key node place""".split()
)
_QUOTES = (("„", "“"), ("“", "”"), ("«", "»"), ("「", "」"), ("『", "』"), ("‘", "’"), ('"', '"'))


_SAME = {"nb": "no", "nn": "no", "ms": "id", "bs": "hr"}  # close enough to share a profile


def language_reward(record: dict, completion: str) -> Judgement:
    """Share of the words of the reasoning that are in the language of the prompt (Nature 645:633, equation 7).

    Args:
      record: "language" is the target, an ISO 639-1 code or an English name; without it the target is the language of
        "question", or else of "prompt" (text, or messages of which the last of the user counts). "prefill" as for
        `format_reward`.
      completion: what is judged is its reasoning; see `reasoning`. The answer or summary is not.

    Returns:
      The share as score, with outcome "correct" or "wrong"; "no_answer" with 0 where the reasoning has no words, for
      nothing may be gained by writing none; "gold_unparseable" where the target is not known.
    """
    try:
        target = target_language(record)
    except ValueError as error:
        return Judgement("gold_unparseable", 0.0, str(error))
    counts = count_words(reasoning(completion, record.get("prefill") or ""), target)
    total = sum(counts.values())
    if not total:
        return Judgement("no_answer", 0.0, "no words in the reasoning")
    share = min(1.0, counts.get(target, 0.0) / total)
    others = sorted((code for code in counts if code != target), key=lambda code: -counts[code])
    reason = f"{share:.0%} of {total:.0f} words are {target}" + "".join(
        f", {counts[code] / total:.0%} {code}" for code in others[:3]
    )
    return Judgement("correct" if share >= CONSISTENT else "wrong", share, reason)


def target_language(record: dict) -> str:
    """The ISO 639-1 code of the language a record asks for; see `language_reward`.

    Raises:
      ValueError: it names a language without a profile, or its text has no words by which to tell.
    """
    named = record.get("language")
    if named:
        code = str(named).strip().lower().replace("_", "-").split("-")[0]
        code = _SAME.get(code, code)
        for profile in PROFILES:
            if code in (profile.code, profile.name):
                return profile.code
        raise ValueError(f"language is {named!r}, which no profile describes; see r1jax.rewards.profiles")
    text = record.get("question") or record.get("prompt") or ""
    if not isinstance(text, str):
        messages = text if isinstance(text, list) else []
        said = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "user"]
        text = said[-1] if said and isinstance(said[-1], str) else ""
    code = detect_language(text)
    if code is None:
        raise ValueError(f"no language can be told from {text[:60]!r}; put it into the record as 'language'")
    return code


def detect_language(text: str) -> str | None:
    """The language most words of a text are in, as ISO 639-1 code; None where it has no words of a known language.

    Quoted text does not count where there is anything else: it may be there to be translated.
    """
    for candidate in (_unquoted(text), text):
        counts = count_words(candidate)
        counts.pop("und", None)
        if counts:
            return max(counts, key=counts.get)
    return None


def count_words(text: str, target: str | None = None) -> dict[str, float]:
    """Words of a text by language, as ISO 639-1 codes, with "und" for languages that are not known.

    A word belongs to the language whose marks prevail around it: common words, letters, endings, each fading with the
    distance. So names and loan words go with the sentence they stand in, and a Latin name in Chinese is not counted.

    Args:
      text: code, formulas, numbers and addresses in it are not words; see `prose`.
      target: the language that wins ties.
    """
    counts: dict[str, float] = defaultdict(float)
    by_script = defaultdict(list)
    for word in _without_terms(words(text)):
        by_script["han" if word.script == "kana" else word.script].append(word)
    for script, found in by_script.items():
        marks = _marks_of(script)
        if script == "han":
            labels = _chinese_or_japanese(found)
        elif len(marks.codes) == 1:
            labels = marks.codes * len(found)
        else:
            found = [word for word in found if script != "latin" or not _is_notation(word.text)]
            labels = _prevailing(found, marks, target)
        for word, label in zip(found, labels, strict=True):
            if label:
                counts[label] += word.weight
    return dict(counts)


class _Marks(NamedTuple):
    """The profiles of one script, turned round: which languages a word, ending or letter speaks for."""

    codes: tuple[str, ...]
    words: dict[str, frozenset[int]]
    endings: dict[str, frozenset[int]]
    letters: dict[str, frozenset[int]]


@cache
def _marks_of(script: str) -> _Marks:
    profiles = [profile for profile in PROFILES if profile.script == script]

    def turned(items_of) -> dict[str, frozenset[int]]:
        owners = defaultdict(set)
        for index, profile in enumerate(profiles):
            for item in items_of(profile):
                owners[item].add(index)
        return {item: frozenset(indices) for item, indices in owners.items()}

    return _Marks(
        tuple(profile.code for profile in profiles),
        turned(lambda profile: {word.text.lower() for word in words(profile.words)}),
        turned(lambda profile: profile.endings.split()),
        turned(lambda profile: profile.letters),
    )


@lru_cache(maxsize=1 << 15)
def _evidence(word: str, script: str, named: bool) -> np.ndarray:
    """[L] what a word says for each language of its script; less where it may be part of a name."""
    marks = _marks_of(script)
    evidence = np.zeros(len(marks.codes))
    evidence[list(marks.words.get(word, ()))] += NAME if named else WORD
    for letter in set(word) & marks.letters.keys():
        owners = list(marks.letters[letter])
        evidence[owners] = np.maximum(evidence[owners], LETTER)
    if len(word) >= 5:
        for length in range(2, 6):
            owners = list(marks.endings.get(word[-length:], ()))
            evidence[owners] = np.maximum(evidence[owners], ENDING)
    return evidence


@lru_cache(maxsize=1 << 15)
def _is_notation(word: str) -> bool:
    """Variables, units, functions and acronyms in Latin letters: words of no language."""
    unclaimed = word.lower() not in _marks_of("latin").words
    return word.lower() in _NOTATION or unclaimed and (len(word) < 3 or len(word) < 6 and word.isupper())


def _without_terms(found: list[Word]) -> list[Word]:
    """Without the few Latin words at a time that are names or terms in a sentence of another script."""
    kept: list[Word] = []
    start = 0
    for _, group in groupby(found, key=lambda word: (word.sentence, word.script == "latin")):
        run = list(group)
        sides = found[max(start - 1, 0) : start] + found[start + len(run) : start + len(run) + 1]
        start += len(run)
        hosted = any(word.sentence == run[0].sentence for word in sides)
        if run[0].script != "latin" or len(run) > TERM or not hosted or any(_speaks(word.text) for word in run):
            kept += run
    return kept


def _speaks(word: str) -> bool:
    """Whether a Latin word is a common one of some language, and not a term."""
    return word.lower() not in _TERMS and word.lower() in _marks_of("latin").words


def _maybe_names(found: list[Word]) -> list[bool]:
    """Whether each word has a capital, does not begin its sentence, and is not in a heading of capitals throughout."""
    titled = [False] + [word.text.istitle() and word.sentence == before.sentence for before, word in pairwise(found)]
    runs = [list(run) for _, run in groupby(titled)]
    return [flag and len(run) <= NAMES for run in runs for flag in run]


def _prevailing(found: list[Word], marks: _Marks, target: str | None) -> list[str | None]:
    """The language of each word, "und" for an unknown one, None for a name or term that stands alone."""
    if not found:
        return []
    named = _maybe_names(found)
    evidence = np.stack(
        [_evidence(word.text.lower(), word.script, name) for word, name in zip(found, named, strict=True)]
    )
    positions, around = np.array([word.position for word in found]), evidence.copy()
    for step in range(1, min(REACH, len(found) - 1) + 1):
        fading = SPREAD ** (positions[step:] - positions[:-step])[:, None]
        around[step:] += fading * evidence[:-step]
        around[:-step] += fading * evidence[step:]
    # Other scripts have few languages: there a word without marks goes with the whole text.
    heard = (around.max(axis=1) >= AUDIBLE) | (found[0].script != "latin")
    around += WHOLE * evidence.mean(axis=0)
    strongest = around.max(axis=1)
    labels: list[str | None] = [marks.codes[best] for best in around.argmax(axis=1)]
    if target in marks.codes:
        for i in np.flatnonzero(around[:, marks.codes.index(target)] >= TIE * strongest):
            labels[i] = target
    silent = np.flatnonzero(~heard)
    for i in silent:
        labels[i] = None
    for run in _runs([i for i in silent if found[i].text.islower() or not found[i].text[1:].islower()]):
        if len(run) >= LONE:
            for i in run:
                labels[i] = "und"
    return labels


def _runs(indices: list[int]) -> list[list[int]]:
    """Numbers in increasing order, parted where two neighbours differ by more than two."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i - runs[-1][-1] <= 2:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _chinese_or_japanese(found: list[Word]) -> list[str]:
    """Han characters are Japanese in a sentence with kana, or in a short one that follows a Japanese one."""
    kana, total = defaultdict(int), defaultdict(int)
    for word in found:
        total[word.sentence] += len(word.text)
        kana[word.sentence] += len(word.text) if word.script == "kana" else 0
    labels, last = {}, "zh"
    for sentence in total:
        if kana[sentence] >= JAPANESE * total[sentence]:
            last = "ja"
        elif not (last == "ja" and total[sentence] < 8):
            last = "zh"
        labels[sentence] = last
    return ["ja" if word.script == "kana" else labels[word.sentence] for word in found]


def _unquoted(text: str) -> str:
    """Without what stands between quotation marks."""
    for opening, closing in _QUOTES:
        pieces = text.split(opening)
        if opening == closing:
            text = " ".join(pieces[::2]) if len(pieces) % 2 else text
        else:
            text = pieces[0] + " " + " ".join(piece.partition(closing)[2] or piece for piece in pieces[1:])
    return text
