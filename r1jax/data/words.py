"""Texts as words that survive rewriting: case, punctuation, spacing, Unicode forms and LaTeX dress do not count."""

import hashlib
import re
import unicodedata

import numpy as np

REMEMBERED_WORDS = 1 << 20  # distinct words whose hash is kept; about 100 MB

# Scripts written without spaces: Han and its extensions, kana, Thai, Lao, Myanmar, Khmer. Each character is a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_NUMBER = r"\d+(?:\.\d+)?"
_WORD = re.compile(rf"[{_UNSPACED}]|{_NUMBER}|[^\W\d_{_UNSPACED}]+")
_WORD_OR_SIGN = re.compile(rf"[{_UNSPACED}]|{_NUMBER}|[^\W\d_{_UNSPACED}]+|[^\w\s.,;:?\"'`$\\{{}}]")
_ASCII_WORD = re.compile(rf"{_NUMBER}|[a-z]+")
_ASCII_WORD_OR_SIGN = re.compile(rf"{_NUMBER}|[a-z]+|[^\w\s.,;:?\"'`$\\{{}}]")

_IN_NUMBER = re.compile(r"(?<=\d)(?:\\,|\\!|\{,\}|,)+(?=\d{3}(?!\d))")  # 1,000 and 1{,}000 and 1\,000
_DRESS = re.compile(
    r"\\(?:left|right|text(?:bf|it|rm)?|math(?:bf|bb|it|rm)|displaystyle)(?![a-z])"
    r"|\\[dt](?=frac|binom)|\\[,;:! ]"
)
_FINAL_ZEROS = re.compile(r"\.(?<=\d\.)0+(?!\d)|\.(?<=\d\.)(\d*?[1-9])0+(?!\d)")
_NUMBER_PART = re.compile(r"\d[.,\\{]")
_ACCENTS = re.compile("[\u0300-\u036f]")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]")
_QUOTES = re.compile("[\u2018-\u201f\u2032\u2033\u02bc\u00ab\u00bb\u3001-\u3011]")
_LATIN_OR_ALIKE = re.compile("[a-z\u0370-\u04ff]+")
_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u043a\u043c\u0442\u03bf\u03b1\u03bd\u03c1\u03b9",
    "aeopcyxijskmtoavpi",
)  # Cyrillic and Greek letters that look like Latin ones


def words(text: str) -> list[str]:
    """The words and numbers of a text, without anything that a copyist changes by accident.

    Lower case, compatibility forms resolved (NFKC), accents and invisible characters gone; 1,000 and 1000.0 are 1000;
    "don't" is one word; a Cyrillic or Greek letter within a Latin word is the Latin one it looks like; scripts written
    without spaces give a word a character; punctuation and operators are dropped.
    """
    text = _plain(text)
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def words_and_signs(text: str) -> list[str]:
    """Like `words`, with operators and brackets as words of their own: "2 + 3" and "2 - 3" differ."""
    text = _plain(text)
    return (_ASCII_WORD_OR_SIGN if text.isascii() else _WORD_OR_SIGN).findall(text)


class WordHashes(dict):
    """64-bit hashes of words, the same in every process; remembers the words it has seen, up to a bound."""

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        self[word] = value = text_hash(word)
        return value

    def of(self, sequence: list[str]) -> np.ndarray:
        """Hashes of a sequence of words, [W] uint64."""
        return np.fromiter(map(self.__getitem__, sequence), np.uint64, len(sequence))


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def gram_hashes(hashes: np.ndarray, size: int) -> np.ndarray:
    """Hashes of all runs of `size` words, [max(0, W - size + 1)] uint64, from the hashes of the words."""
    count = max(0, len(hashes) - size + 1)
    grams = np.zeros(count, np.uint64)
    for place in range(size if count else 0):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + count]
    grams ^= grams >> np.uint64(31)
    grams *= np.uint64(0xBF58476D1CE4E5B9)
    return grams ^ (grams >> np.uint64(29))


def _without_zeros(match: re.Match) -> str:
    return f".{match[1]}" if match[1] else ""


def _in_latin(match: re.Match) -> str:
    word = match[0]
    return word if word.isascii() or not re.search("[a-z]", word) else word.translate(_ALIKE)


def _plain(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text).casefold())
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", text)).casefold()
        text = _LATIN_OR_ALIKE.sub(_in_latin, _QUOTES.sub("", _DASHES.sub("-", text)))
    text = text.lower().replace("'", "")
    if _NUMBER_PART.search(text):
        text = _FINAL_ZEROS.sub(_without_zeros, _IN_NUMBER.sub("", text))
    return _DRESS.sub(" ", text) if "\\" in text else text
