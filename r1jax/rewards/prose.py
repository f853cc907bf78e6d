"""The words of a text by script, without its code, formulas, numbers and addresses; in linear time."""

import re
import unicodedata
from bisect import bisect_left
from typing import NamedTuple


class Word(NamedTuple):
    """A word; of scripts without spaces, a run of characters."""

    text: str
    script: str
    weight: float
    """How many words it counts for."""
    position: float
    """How many words, and pauses, come before it."""
    sentence: int


WORD_LENGTHS = {"han": 1.6, "kana": 2.5, "thai": 4.0, "lao": 4.0, "khmer": 4.0, "myanmar": 4.0}
"""Characters a word has on average, of scripts that are written without spaces."""

PAUSE = 2.0  # the end of a sentence separates words like this many words between them

_SCRIPTS = {
    "latin": "A-Za-zªº\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0300-\u036f\u1e00-\u1eff",
    "han": "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "kana": "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff",
    "hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7af",
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u0373\u0376-\u037d\u0386-\u03ff\u1f00-\u1fff",
    "arabic": "\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f",
    "hebrew": "\u0591-\u05c7\u05d0-\u05ea",
    "armenian": "\u0531-\u0556\u0561-\u0587",
    "georgian": "\u10a0-\u10ff",
    "ethiopic": "\u1200-\u135a",
    "devanagari": "\u0900-\u0963\u0971-\u097f",
    "bengali": "\u0980-\u09e3",
    "gurmukhi": "\u0a01-\u0a51\u0a59-\u0a5e\u0a70-\u0a75",
    "gujarati": "\u0a81-\u0ae3",
    "tamil": "\u0b82-\u0bd7",
    "telugu": "\u0c00-\u0c63",
    "kannada": "\u0c80-\u0ce3",
    "malayalam": "\u0d00-\u0d63",
    "thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "lao": "\u0e81-\u0ecd",
    "myanmar": "\u1000-\u103f\u1050-\u108f",
    "khmer": "\u1780-\u17d3",
}
_TOKEN = re.compile(
    "|".join(f"(?P<{name}>[{letters}]+)" for name, letters in _SCRIPTS.items()) + r"|(?P<stop>[!?。！？।\n]|\.(?=\s))"
)
_INVISIBLE = re.compile("[\u00ad\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u2064]")

_FENCE = re.compile(r"\s*(```+|~~~+)")
_BLOCK_LINE = re.compile(
    r"(?:def|class|for|while|if|elif|else|with|try|except|async|switch|catch|function|public|private|static|void|int|fn)\b"
)
_CODE_LINE = re.compile(
    r"(?:else|try|finally):$|import \S+$|from \S+ import |return \S+$|#include\b|assert \S+ [=!<>]=? ?\S+$|"
    r"[\w.]+\(.*\);?$|[\w.\[\]]+ ?[-+*/%]?= ?[\w.]+\(.*\)$|"
    r"[\w.\[\]]+ ?[-+*/%]?= ?[\w.\[\]()]+(?: ?[-+*/%] ?[\w.\[\]()]+)?;?$"
)
_BODY = re.compile(r"(?:  |\t)\s*(?![-+*•] |\d+[.)] )\S")  # an indented line that is no item of a list
_PLAIN_WORDS = re.compile(r"(?:\(?[^\W\d_]{2,}[,)]? ){4}")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,80}>")
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})*")
# What white space separates, of Latin letters and ASCII symbols: Chinese has no white space, and must not be swallowed.
_CHUNK = re.compile(r"[!-~\u00c0-\u024f]+")
_WRAPPING = "\"'()[]{}.,;:!?*_~-#>|"
_NOT_PROSE = re.compile(r"[=<>^\\_|@{}\[\]()#$%&+*/0-9~]|[A-Za-z]\.[a-z]|[a-z][A-Z]")


def words(text: str) -> list[Word]:
    """The words of a text in order; single Latin and short Greek letters are mathematics and not among them."""
    found, position, sentence = [], 0.0, 0
    for match in _TOKEN.finditer(prose(text)):
        script, token = match.lastgroup, match.group()
        if script == "stop":
            position, sentence = position + PAUSE, sentence + 1
            continue
        weight = len(token) / WORD_LENGTHS.get(script, len(token))
        position += weight
        if not (script == "latin" and len(token) < 2 or script == "greek" and len(token) < 3):
            found.append(Word(token, script, weight, position, sentence))
    return found


def prose(text: str) -> str:
    """A text without what is not in any language: code, LaTeX and other formulas, tags, addresses, names of variables.

    Blocks that are never closed run to the end of the text; inline code and formulas must close within their paragraph.
    """
    text = _normalised(_INVISIBLE.sub("", text))
    text = _without_formulas(_without_code_blocks(text))
    text = _COMMAND.sub(" ", _TAG.sub("\n", text))
    return _CHUNK.sub(_prose_or_space, text)


def _prose_or_space(match: re.Match) -> str:
    chunk = match.group()
    return chunk if chunk.islower() and chunk.isalpha() or not _NOT_PROSE.search(chunk.strip(_WRAPPING)) else " "


def _normalised(text: str, size: int = 512) -> str:
    """NFKC in pieces: the time it takes is quadratic in the length of a run of combining marks."""
    return "".join(unicodedata.normalize("NFKC", text[i : i + size]) for i in range(0, len(text), size))


def _without_code_blocks(text: str) -> str:
    """Without fenced blocks, lines that can only be code, and the indented lines that follow these."""
    kept, fence, follows = [], "", False
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence) and line.strip() == mark.group(1):
                fence = ""
            continue
        if mark and "`" not in line[mark.end() :]:
            fence = mark.group(1)
            follows = False
        elif _is_code(line.strip()) or follows and _BODY.match(line) and not _PLAIN_WORDS.search(line[:200]):
            follows = True
        else:
            follows = follows and not line.strip()
            kept.append(line)
    return "\n".join(kept)


def _is_code(line: str) -> bool:
    if len(line) > 200 or _PLAIN_WORDS.search(line):  # the bound keeps the expressions cheap
        return False
    symbols = any(symbol in line for symbol in "()[]=<>{}")
    if line in ("{", "}", "};") or line.endswith((";", "{", "}")) and symbols and "\\" not in line and "$" not in line:
        return True
    return bool(_CODE_LINE.match(line) or symbols and line.endswith(":") and _BLOCK_LINE.match(line))


class _Span(NamedTuple):
    """How one kind of formula or inline code begins and ends."""

    opens: str
    closes: str
    """What matches as a group cannot end it, and shows that nothing began."""
    inline: bool
    """Whether it must close within its paragraph."""


_SPANS = (
    _Span(r"\\begin\{[A-Za-z]+\*?\}", r"\\end\{[A-Za-z]+\*?\}", False),
    _Span(r"\\\[", r"\\\]", False),
    _Span(r"\\\(", r"\\\)", True),
    _Span(r"\$\$", r"\$\$", False),
    # A price is not a formula: in one, no white space follows the first dollar sign or comes before the next.
    _Span(r"(?<![\\$])\$(?![\s$])", r"(?<=[^\s\\$])\$(?![\d$])|(\$)", True),
    *(_Span(mark, mark, True) for mark in (r"(?<!`)`(?!`)", r"(?<!`)``(?!`)", r"(?<!`)```+(?!`)")),
)
_OPENS = re.compile("|".join(f"({span.opens})" for span in _SPANS))
_PARAGRAPH = re.compile(r"\n\s*\n")


def _without_formulas(text: str) -> str:
    """Without formulas and inline code. Every search for an end is a bisection, so that no text is searched twice."""
    ends: dict[int, list[tuple[int, int, bool]]] = {}
    breaks = [match.start() for match in _PARAGRAPH.finditer(text)]
    pieces, done = [], 0
    for match in _OPENS.finditer(text):
        if match.start() < done:
            continue
        kind = match.lastindex - 1
        if kind not in ends:
            ends[kind] = [(*found.span(), found.lastindex is None) for found in re.finditer(_SPANS[kind].closes, text)]
        index = bisect_left(ends[kind], (match.end(),))
        if index == len(ends[kind]):
            continue
        start, stop, proper = ends[kind][index]
        paragraph = bisect_left(breaks, match.end())
        across = _SPANS[kind].inline and paragraph < len(breaks) and breaks[paragraph] < start
        if across or not proper:
            continue
        pieces += [text[done : match.start()], " "]
        done = stop
    return "".join([*pieces, text[done:]])
