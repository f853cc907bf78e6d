"""Units of measurement and counted nouns behind a number."""

import re
from fractions import Fraction
from typing import NamedTuple

BASES = {
    "m": ("length", "1", "m metre meter"), "km": ("length", "1000", "km kilometre kilometer"),
    "cm": ("length", "1/100", "cm centimetre centimeter"), "mm": ("length", "1/1000", "mm millimetre millimeter"),
    "in": ("length", "0.0254", "inch inches in"), "ft": ("length", "0.3048", "ft foot feet"),
    "yd": ("length", "0.9144", "yd yard"), "mi": ("length", "1609.344", "mi mile"),
    "s": ("time", "1", "s sec second"), "ms": ("time", "1/1000", "ms millisecond"), "min": ("time", "60", "min minute"),
    "h": ("time", "3600", "h hr hour"), "day": ("time", "86400", "day"), "week": ("time", "604800", "wk week"),
    "year": ("year", "1", "year yr"), "month": ("year", "1/12", "month"),
    "g": ("mass", "1", "g gram gramme"), "kg": ("mass", "1000", "kg kilogram kilo"), 
    "mg": ("mass", "1/1000", "mg milligram"),
    "lb": ("mass", "453.59237", "lb pound lbs"), "oz": ("mass", "28.349523125", "oz ounce"),
    "l": ("volume", "1", "l L litre liter"), "ml": ("volume", "1/1000", "ml mL millilitre milliliter"),
    "dollar": ("dollar", "1", "dollar USD usd buck 美元"), "cent": ("dollar", "1/100", "cent penny pennies ¢"),
    "euro": ("euro", "1", "euro EUR €"), "sterling": ("sterling", "1", "£ GBP"), "yuan": ("yuan", "1", "¥ yuan 元 RMB"),
    "degree": ("angle", "1", "degree deg"), "percent": ("percent", "1", "percent % percentage"),
    "mph": ("speed", "1", "mph"), "unit": ("unit", "1", "unit"),
}  # fmt: skip
KNOWN = {word: (dimension, Fraction(scale)) for dimension, scale, words in BASES.values() for word in words.split()}
COUNTS = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
NOT_UNITS = frozenset(
    """maybe not no or and but approximately about around nearly almost least most more less fewer than if unless
    possibly probably wrong incorrect false is isn't are was be being either neither nor else otherwise minus plus
    times squared cubed half quarter point over under negative mod modulo divided multiplied to from between through
    up down only any all some none both answer equals equal option choice perhaps depending except without rather
    instead below factorial doubled tripled halved permille halves thirds fourths fifths sixths sevenths eighths ninths
    tenths hundredths thousandths millionths""".split()
)
"""Words that say that a number is not the answer, or not the whole of it."""
MAX_WORDS = 6
IRREGULAR = {"feet": "foot", "inches": "inch", "people": "person", "children": "child", "men": "man", "women": "woman"}
IRREGULAR |= {"ways": "way", "pennies": "penny", "boxes": "box", "mice": "mouse", "dice": "die", "halves": "half"}


class Unit(NamedTuple):
    """A unit: its dimensions with their powers and its size in base units, or the words of a noun that is no unit."""

    dimensions: tuple[tuple[str, int], ...] = ()
    scale: Fraction = Fraction(1)
    nouns: frozenset[str] = frozenset()


PERCENT = Unit((("percent", 1),))
DOLLAR = Unit((("dollar", 1),))
DEGREE = Unit((("angle", 1),))


def singular(word: str) -> str:
    """A word without its English plural ending, in lower case unless it is a known symbol."""
    if word in KNOWN:
        return word
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    for ending, replacement in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + replacement
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def read_unit(words: list[str]) -> tuple[int, Unit] | None:
    """The count words multiply to, and the unit that the words name; None where they name no unit and no noun.

    `words` may hold "^2" after a word, and "/" or "per" before what divides.
    """
    count, power, sign, scale = 1, 1, 1, Fraction(1)
    dimensions, nouns = {}, []
    if sum(word[0] not in "^/." for word in words) > MAX_WORDS:
        return None
    for place, word in enumerate(words):
        if word.lower() in NOT_UNITS:
            return None
        if word in (".", "-", "*") or word.startswith("^"):
            continue
        if word in ("/", "per", "Per"):
            sign = -1
        elif word.lower() in COUNTS and sign == 1 and not dimensions and not nouns:
            count *= COUNTS[word.lower()]
        elif word.lower() in POWERS:
            power = POWERS[word.lower()]
        elif (base := KNOWN.get(singular(word))) and not nouns:
            following = words[place + 1] if place + 1 < len(words) else ""
            if following.startswith("^"):
                if not re.fullmatch(r"\^-?[1-9]", following):
                    return None
                power = int(following[1:])
            power *= sign
            dimensions[base[0]] = dimensions.get(base[0], 0) + power
            scale, power = scale * base[1] ** power, 1
        else:
            nouns.append(singular(word))
    if nouns:  # an unknown word makes the whole a noun: 5 cm ribbons are not 5 cm
        words = [singular(w) for w in words if w[0] not in "^/.-*" and w.lower() not in COUNTS | POWERS and w != "of"]
        return count, Unit(nouns=frozenset(words))
    if dimensions == {"length": 1, "time": -1} and scale == Fraction("1609.344") / 3600:
        dimensions, scale = {"speed": 1}, Fraction(1)
    return count, Unit(tuple(sorted((name, p) for name, p in dimensions.items() if p)), scale)


def conversion(gold: Unit, answer: Unit) -> Fraction | None:
    """What an amount in `answer` must be multiplied by to become one in `gold`; None where they do not compare."""
    if gold.nouns or answer.nouns:
        shared = gold.nouns & answer.nouns  # one may say more than the other: 7 distinct integers
        return Fraction(1) if shared and shared in (gold.nouns, answer.nouns) else None
    return answer.scale / gold.scale if gold.dimensions == answer.dimensions else None
