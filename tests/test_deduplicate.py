"""Duplicates: equal but for dress, near by MinHash against brute force, the first is kept."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1jax.data.deduplicate import BANDS, ROWS, Deduplicator
from r1jax.data.words import words_and_signs

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def sentence(rng: random.Random, size: int = 60) -> list[str]:
    return rng.choices(VOCABULARY, k=size)


def jaccard(first: str, second: str, run: int = 5) -> float:
    """Share of runs of words in common, by sets."""
    runs = [
        {tuple(w[start : start + run]) for start in range(max(1, len(w) - run + 1))}
        for w in (words_and_signs(first), words_and_signs(second))
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_equal_but_for_dress():
    found = Deduplicator()
    assert found.find("a", "Find $x$ if x + 3 = 5.", "2") is None
    assert found.find("b", "find x, if  X+3=5", "2") == ("a", "same", 1.0, True)
    assert found.find("c", "FIND x if $x + 3 = 5$", "3") == ("a", "same", 1.0, False)
    assert found.find("d", "Find $x$ if x - 3 = 5.", "8") is None, "another sign is another problem"
    assert len(found) == 2


def test_another_answer_is_another_problem():
    rng = random.Random(0)
    text = sentence(rng)
    other = " ".join(text[:-1] + ["zzz"])
    found = Deduplicator()
    assert found.find("a", " ".join(text), "1") is None
    assert found.find("b", other, "2") is None
    duplicate = found.find("c", " ".join(text[:-1] + ["yyy"]), "2")
    assert duplicate.kept == "b" and duplicate.rule == "near", "compared with the one of the same answer"


def test_the_first_of_a_chain_is_kept():
    rng = random.Random(1)
    text = sentence(rng)
    found = Deduplicator()
    assert found.find("a", " ".join(text)) is None
    assert found.find("b", " ".join([*text, "one"])).kept == "a"
    assert found.find("c", " ".join([*text, "one", "more"])).kept == "a", "b was not kept, so nothing repeats it"


def test_near_duplicates_agree_with_brute_force():
    """Among a thousand texts, many alike: what is clearly above or below the threshold is decided as by sets."""
    rng, texts = random.Random(2), []
    for _ in range(200):
        text = sentence(rng)
        texts.append(text)
        for changes in (1, 1, 2, 8):
            other = list(text)
            for place in rng.sample(range(60), changes):
                other[place] = "changed" + str(rng.randrange(10**6))
            texts.append(other)
    texts = [" ".join(text) for text in texts]
    found, kept, missed, clear = Deduplicator(near=0.7), {}, 0, 0
    for number, text in enumerate(texts):
        duplicate = found.find(str(number), text)
        family = [other for other in kept if other // 5 == number // 5]
        nearest = max((jaccard(texts[other], text) for other in family), default=0.0)
        if duplicate:
            assert int(duplicate.kept) in family
            exact = jaccard(texts[int(duplicate.kept)], text)
            assert abs(exact - duplicate.similarity) < 0.25 and exact > 0.5
        else:
            kept[number] = text
            missed += nearest > 0.8
        clear += nearest > 0.8
    assert clear > 200 and missed <= 0.03 * clear


def test_the_estimate_is_unbiased():
    rng = random.Random(3)
    errors = []
    for _ in range(100):
        text = sentence(rng)
        other = list(text)
        other[rng.randrange(60)] = "changed"
        first, second = " ".join(text), " ".join(other)
        found = Deduplicator(near=0.01)
        found.find("a", first)
        duplicate = found.find("b", second)
        errors.append(duplicate.similarity - jaccard(first, second))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 2 * np.sqrt(0.8 * 0.2 / (BANDS * ROWS))


def test_growing_loses_nothing():
    rng = random.Random(4)
    texts = [sentence(rng) for _ in range(3000)]
    found = Deduplicator()
    assert not any(found.find(str(number), " ".join(text)) for number, text in enumerate(texts))
    again = [found.find("again", " ".join([*text, "end"])) for text in texts]
    right = sum(duplicate is not None and duplicate.kept == str(number) for number, duplicate in enumerate(again))
    assert right >= 0.995 * len(texts)


def test_the_same_texts_give_the_same_decisions():
    rng = random.Random(5)
    texts = [" ".join(sentence(rng, 12)) for _ in range(50)] * 2
    decide = lambda seed: (lambda found: [found.find(str(n), text) for n, text in enumerate(texts)])(
        Deduplicator(seed=seed)
    )
    assert decide(0) == decide(0)
    assert [d and d.kept for d in decide(0)] == [d and d.kept for d in decide(1)]


def test_memory_is_that_of_signatures():
    """Texts of a hundred kilobytes are remembered in about one kilobyte each."""
    rng = random.Random(6)
    found = Deduplicator()
    found.find("first", " ".join(sentence(rng, 25_000)))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(40):
        found.find(str(number), " ".join(sentence(rng, 25_000)))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000, "4 MB of text went through"


def test_only_equal_texts_where_near_is_switched_off():
    rng = random.Random(7)
    text = sentence(rng)
    found = Deduplicator(near=1.1)
    for number in range(600):
        assert found.find(str(number), " ".join([*text, str(number)])) is None
    assert found.find("again", " ".join([*text, "7"])).kept == "7"


@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_texts(texts):
    found = Deduplicator()
    for number, text in enumerate(texts):
        found.find(str(number), text)
    for text in texts:
        assert found.find("again", text), "everything was seen before"


@pytest.mark.parametrize("answer", [None, "5", [1, 2], {"b": 1, "a": [True]}, 3.5])
def test_answers_of_any_kind(answer):
    found = Deduplicator()
    assert found.find("a", "what is it", answer) is None
    assert found.find("b", "What is it?", answer).same_answer
