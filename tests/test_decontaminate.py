"""Decontamination finds near-copies of benchmark items, and little else."""

import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.data.decontaminate import BenchmarkIndex, Item
from r1jax.data.words import WordHashes, gram_hashes, words, words_and_signs

ASSETS = os.environ.get("R1JAX_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder of the data sets")

OWN_BENCHMARK = (
    "Oluwaseun bakes 36 loaves of rye bread every Friday. He gives a third of them to the shelter on Harbour Street "
    "and sells the others for $4.50 each. How many dollars does Oluwaseun earn in 3 weeks?",
    "A ferry carries 1,250 passengers on a clear day, but only 480 when it rains. Last month had 12 rainy days and 18 "
    "clear days. Ingrid, the captain, wrote the total in the log. What number did Ingrid write?",
    "Mei's aquarium holds 90 liters. It loses half a liter a day to the air, and Mei tops it up with a 6 liter jug "
    "whenever a whole jug fits. After how many days does Mei top it up for the fifth time?",
    "Let $f(x) = \\frac{x^2 - 9}{x - 3}$ for every real $x \\neq 3$. Find the sum of all integers $k$ such that "
    "$f(k)$ is a prime number smaller than 40.",
    "小明和小红一共有84本书，小明的书是小红的三倍。如果小明送给小红12本书，那么他们两人的书相差多少本？",
)
OWN_TRAINING = (
    "Oluwaseun likes rye bread. On Friday he walks 3 miles to Harbour Street. How many miles is that in 4 weeks?",
    "A train carries 300 passengers on a weekday and 120 on a Sunday. How many passengers does it carry in a week?",
    "Mei reads 90 pages in 6 days. How many pages does Mei read a day, and how long does she need for 240 pages?",
    "Let $f(x) = x^2 - 9x + 3$. Find the sum of all real $x$ such that $f(x) = 0$.",
    "小红有三个苹果，小明有五个苹果。他们一共有多少个苹果？",
)


def change_name(text: str) -> str:
    """Another name wherever the commonest capitalised word within sentences stands; the text itself if it has none."""
    names = re.findall(r"(?<=[a-z,;] )[A-Z][a-z]+", text) or re.findall(r"\b[A-Z][a-z]+", text)
    return re.sub(rf"\b{max(names, key=names.count)}\b", "Zebulon", text) if names else text


def change_number(text: str) -> str:
    """One more than the first number; the text itself if it has none."""
    return re.sub(r"\d+", lambda match: str(int(match[0]) + 1), text, count=1)


def embed(text: str) -> str:
    filler = "The archive of the village school keeps old exercise books, and one page reads as follows. "
    return filler * 20 + text + " Below it somebody drew a boat with three masts and a flag." * 20


def spread(text: str) -> str:
    return "\n \t".join(text.replace(" ", "\u00a0 ").split(" ")) + "\n"


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def dress(text: str) -> str:
    """Zero-width spaces, soft hyphens, curly quotes, long dashes and decomposed accents."""
    text = re.sub(r"([a-z]{3})(?=[a-z])", "\\1\u00ad\u200b", text)
    return unicodedata.normalize("NFD", text.replace("'", "\u2019").replace("-", "\u2013")).replace("o", "o\u0308")


def latex(text: str) -> str:
    """Numbers set as formulas, thousands apart."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "{,}", text)
    return re.sub(r"\d+(?:\{,\}\d{3})*(?:\.\d+)?", lambda match: f"${match[0]}$", text.replace("$", "\\$"))


def punctuate(text: str) -> str:
    return re.sub(r"(?<=[a-z]) (?=[a-z])", " - ", re.sub(r"[.,?!](?=\s|$)", " ;", text)) + " !!"


def change_everything(text: str) -> str:
    """Another name for every capitalised word, all numbers changed, the sentences but the last in another order."""
    text = re.sub(r"(?<=[a-z,;'] )[A-Z][a-z]+|^[A-Z][a-z]+", "Zebulon", re.sub(r"\d+", lambda m: f"{m[0]}7", text))
    *sentences, question = re.split(r"(?<=[.?!]) +", text)
    return " ".join([*sentences[::-1], question])


def look_alike(text: str) -> str:
    """Cyrillic and Greek letters in place of some that look the same."""
    return text.translate(str.maketrans("aceopx", "\u0430\u0441\u0435\u03bf\u0440\u0445"))


EVERYTHING = "other names, numbers and order"
MUTATIONS = {
    "upper case": str.upper,
    "swapped case": str.swapcase,
    "no punctuation": lambda text: re.sub(r"[.,;:?!'](?=\s|$)", "", text),
    "other punctuation": punctuate,
    "other spaces": spread,
    "full width": full_width,
    "Unicode dress": dress,
    "LaTeX numbers": latex,
    "another name": change_name,
    "another number": change_number,
    "another name and number": lambda text: change_name(change_number(text)),
    EVERYTHING: change_everything,
    "look-alike letters": look_alike,
    "in a longer text": embed,
    "all at once": lambda text: embed(dress(latex(change_number(text)).upper())),
}


def question_items(name: str, texts) -> list[Item]:
    return [Item(name, f"{name}:{number}", "question", text) for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def own_index():
    return BenchmarkIndex(question_items("own", OWN_BENCHMARK))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_near_copies_of_own_items_are_found(own_index, mutation):
    for number, text in enumerate(OWN_BENCHMARK):
        match = own_index.find(MUTATIONS[mutation](text))
        assert match and match.item == f"own:{number}", (mutation, text, match)
        assert 0.3 < match.share <= 1.0 and match.words


def test_other_problems_about_the_same_things_are_kept(own_index):
    for text in OWN_TRAINING:
        assert own_index.find(text) is None, text


def test_ten_words_in_a_row_are_found_and_nine_are_not(own_index):
    sequence = OWN_BENCHMARK[0].split()
    ten, nine = " ".join(sequence[2:12]), " ".join(sequence[2:11])
    assert own_index.find(f"Yesterday {ten} tomorrow").rule == "run"
    assert own_index.find(f"Yesterday {nine} tomorrow") is None
    assert BenchmarkIndex(question_items("own", OWN_BENCHMARK), run=9).find(f"Yesterday {nine} tomorrow").rule == "run"


def test_a_small_share_counts_for_nothing_where_that_is_asked(own_index):
    strict = BenchmarkIndex(question_items("own", OWN_BENCHMARK), least_share=0.5)
    excerpt = " ".join(OWN_BENCHMARK[0].split()[2:13])
    assert own_index.find(excerpt).share < 0.5 and strict.find(excerpt) is None
    assert strict.find(change_number(OWN_BENCHMARK[0]))


def test_a_changed_name_in_every_clause_is_found_by_the_share_of_short_runs():
    text = "Ana has 3 red kites and Ana buys 5 blue kites but Ana lost 2 green ones so how many kites can Ana fly today"
    index = BenchmarkIndex(question_items("own", [text]))
    match = index.find(text.replace("Ana", "Bo"))
    assert match.rule == "near" and match.share < 1
    assert BenchmarkIndex(question_items("own", [text]), near=1.1).find(text.replace("Ana", "Bo")) is None


def test_short_runs_scattered_over_a_long_text_are_no_copy(own_index):
    sequence = OWN_BENCHMARK[0].split()
    pieces = [" ".join(sequence[start : start + 6]) for start in range(0, len(sequence) - 5, 6)]
    far = (" and here a great many other words stand between the pieces of it" * 8).join(pieces)
    assert own_index.find(far) is None
    assert own_index.find(" indeed ".join(pieces)).rule == "near"


def test_short_items_are_found_whole():
    index = BenchmarkIndex(question_items("own", ["What is the capital of Peru?", "Compute 7!", "Prove it."]))
    assert index.find("Tell me: what is the CAPITAL of Peru? Thanks").rule == "whole"
    assert index.find("What is the capital of Chile?") is None
    assert index.find("compute 7", "compute 7").item == "own:1"
    assert index.find("To begin with, compute 7 of them", "To begin with, compute 7 of them") is None
    assert index.find("compute 7\nThe answer is 5040.", "Compute $7$").item == "own:1"


def test_a_phrase_of_many_items_is_no_evidence():
    phrase = "where m and n are relatively prime positive integers what is the sum of m and n"
    openings = ["A red hexagon rolls", "Two blue circles touch", "Nine green knights ride", "A yellow prism floats",
                "Six orange clocks tick"]  # fmt: skip
    texts = [f"{opening} with ratio m over n {phrase}" for opening in openings]
    assert BenchmarkIndex(question_items("own", texts)).find(f"A coin falls, {phrase}") is None
    assert BenchmarkIndex(question_items("own", texts), common=5).find(f"A coin falls, {phrase}").rule == "run"
    for text in texts:
        assert BenchmarkIndex(question_items("own", texts)).find(f"Consider: {text}")


def test_items_that_are_all_phrase_are_found_whole():
    texts = ["the quick brown fox jumps over the lazy dog again and again"] * 3
    texts = [f"{opening} {texts[0]}" for opening in ("see", "and", "but", "yet")] + texts[:1]
    index = BenchmarkIndex(question_items("own", texts))
    assert {index.find(text).item for text in texts} <= {f"own:{number}" for number in range(5)}


def test_arithmetic_is_no_evidence():
    index = BenchmarkIndex(
        [Item("own", "own:0", "solution", "5*3=<<5*3=15>>15\n15+10=<<15+10=25>>25\n25-5=<<25-5=20>>20")]
    )
    assert index.find("5*3=<<5*3=15>>15\n15+10=<<15+10=25>>25\n25-5=<<25-5=20>>20") is None


def test_of_two_benchmarks_the_one_with_most_in_common_is_named():
    items = question_items("first", [change_name(OWN_BENCHMARK[0])]) + question_items("second", OWN_BENCHMARK)
    assert BenchmarkIndex(items).find(OWN_BENCHMARK[0]).benchmark == "second"


def test_no_items_and_empty_texts():
    assert BenchmarkIndex([]).find("some text of a few words") is None
    index = BenchmarkIndex(question_items("own", ["", "...", *OWN_BENCHMARK]))
    assert len(index.items) == len(OWN_BENCHMARK)
    assert index.find("") is None and index.find("?!") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t PAY $1,000.50!", "dont pay 1000.5"),
        ("1{,}000 = 1\\,000 = 1000.00", "1000 1000 1000"),
        ("x² ½ ﬁne", "x 2 1 2 fine"),
        ("Ｆｕｌｌ　１２", "full 12"),
        ("Café cafe\u0301", "cafe cafe"),
        ("Straße", "strasse"),
        ("m\u0430t\u0435 \u043cир 2πr α", "mate \u043cир 2 πr α"),
        ("小明3个", "小 明 3 个"),
        ("한국어 문장", "한국어 문장"),
        ("\\left(\\dfrac{1}{2}\\right) \\text{ cm}", "frac 1 2 cm"),
        ("snake_case 5kg 3.10 0.05", "snake case 5 kg 3.1 0.05"),
        ("co\u00adop\u200berate", "cooperate"),
    ],
)
def test_words(text, expected):
    assert words(text) == expected.split()


def test_signs_tell_formulas_apart():
    assert words("2 + 3") == words("2 - 3")
    assert words_and_signs("2 + 3") != words_and_signs("2 \u2212 3") == words_and_signs("$2-3$.")


@given(st.text(max_size=200))
def test_words_of_any_text_are_stable(text):
    found = words(text)
    assert words(" ".join(found)) == found
    assert words(text.replace(" ", "  ") + " ") == found
    words_and_signs(text)


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcde"), max_size=30), st.integers(1, 12))
def test_runs_are_those_of_the_words(sequence, size):
    runs = gram_hashes(WordHashes().of(sequence), size)
    plain = [tuple(sequence[start : start + size]) for start in range(len(sequence) - size + 1)]
    assert len(runs) == len(plain)
    assert len(np.unique(runs)) == len(set(plain))
    assert len(set(zip(plain, runs.tolist(), strict=True))) == len(set(plain))


@needs_assets
def test_planted_near_copies_of_gsm8k_are_found():
    """20 test items for each way of changing them, planted among all training questions."""
    read = lambda name: [json.loads(line)["question"] for line in (Path(ASSETS) / "gsm8k" / name).open()]
    test, train = read("test.jsonl"), read("train.jsonl")
    index = BenchmarkIndex(question_items("gsm8k", test))
    clean = [text for text in train if not index.find(text)]
    assert len(train) - len(clean) < 0.005 * len(train)
    ways = [name for name in MUTATIONS if name != EVERYTHING]
    planted = [(number, name) for place, name in enumerate(ways) for number in range(place, len(test), 66)]
    assert len(planted) >= 200
    missed = []
    for number, name in planted:
        match = index.find(MUTATIONS[name](test[number]))
        if match is None or match.item != f"gsm8k:{number}":
            missed.append((name, test[number], match))
    assert not missed
    found = [number for number in range(0, len(test), 5) if index.find(MUTATIONS[EVERYTHING](test[number]))]
    assert len(found) >= 0.9 * len(test) / 5  # a name in every clause leaves too little of some


@needs_assets
@pytest.mark.slow
def test_every_near_copy_of_every_item_of_gsm8k_is_found():
    test = [json.loads(line)["question"] for line in (Path(ASSETS) / "gsm8k" / "test.jsonl").open()]
    index = BenchmarkIndex(question_items("gsm8k", test))
    missed = [(name, text) for name, change in MUTATIONS.items() for text in test if not index.find(change(text))]
    easy = [name for name, _ in missed if name != EVERYTHING]
    assert len(easy) <= 0.0005 * len(test) * (len(MUTATIONS) - 1), missed
    assert len(missed) - len(easy) <= 0.08 * len(test)
