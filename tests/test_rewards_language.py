"""The language-consistency reward: labels, invariances, targets, limits."""

import json
import os
import pickle
import random
from pathlib import Path

import pytest
from growth import growth
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_completions import CASES, QUESTIONS
from reasoning_paragraphs import BARE, BARE_CODE, CPP, DISPLAY, INLINE, PARAGRAPHS, PYTHON

from r1jax.rewards.language import CONSISTENT, count_words, detect_language, language_reward, target_language
from r1jax.rewards.profiles import PROFILES
from r1jax.rewards.prose import prose, words

ASSETS = os.environ.get("R1JAX_ASSETS")
OF_LANGUAGE = {}
for name, text in PARAGRAPHS.items():
    OF_LANGUAGE.setdefault(name[:2], []).append(text)


def share(text: str, code: str) -> float:
    counts = count_words(text, code)
    return counts.get(code, 0.0) / sum(counts.values())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_share_agrees_with_the_label(case):
    judgement = language_reward(case.record, case.completion)
    if case.share is None:
        assert (judgement.outcome, judgement.score) == ("no_answer", 0.0)
    else:
        assert case.share[0] <= judgement.score <= case.share[1], judgement.reason
        assert judgement.outcome == ("correct" if judgement.score >= CONSISTENT else "wrong")


def test_there_are_enough_labels():
    assert len(CASES) >= 150 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("code", QUESTIONS)
def test_the_target_comes_from_the_question(code):
    assert detect_language(QUESTIONS[code]) == target_language({"question": QUESTIONS[code]}) == code
    assert target_language({"prompt": QUESTIONS[code]}) == code


def test_the_target_may_be_named_or_come_from_messages():
    assert [target_language({"language": name}) for name in ("fr", "FR", "fr-CA", "fr_FR", " French ")] == ["fr"] * 5
    assert target_language({"language": "zh-Hans"}) == "zh" and target_language({"language": "nb"}) == "no"
    talk = [
        {"role": "system", "content": "You are a helpful assistant and always answer in full sentences."},
        {"role": "user", "content": QUESTIONS["en"]},
        {"role": "assistant", "content": "In the afternoon."},
        {"role": "user", "content": QUESTIONS["de"]},
    ]
    assert target_language({"prompt": talk}) == "de"
    assert target_language({"question": QUESTIONS["es"], "prompt": QUESTIONS["en"]}) == "es"


def test_quoted_text_does_not_decide():
    assert (
        detect_language("Übersetze ins Deutsche: “The quick brown fox jumps over the lazy dog and runs away.”") == "de"
    )
    assert detect_language('Translate "der schnelle braune Fuchs springt über den faulen Hund"') == "en"
    assert detect_language("“The quick brown fox jumps over the lazy dog.”") == "en"


@pytest.mark.parametrize("record", [{}, {"question": "12 * 7 = ?"}, {"question": "$x^2 = 2$"}, {"language": "tlh"}])
def test_an_unknown_target_teaches_nothing(record):
    judgement = language_reward(record, f"<think>{PARAGRAPHS['en roots']}</think> Two.")
    assert not judgement.teaches and judgement.outcome == "gold_unparseable" and judgement.reason


@pytest.mark.parametrize("prompt", [None, 3, [], [{"role": "user"}], [{"role": "user", "content": ["x"]}], ["x"]])
def test_odd_prompts_are_no_exception(prompt):
    assert language_reward({"prompt": prompt}, "<think>a</think> b").outcome == "gold_unparseable"


def test_the_reason_names_the_languages():
    completion = f"<think>{PARAGRAPHS['en train']} {PARAGRAPHS['fr train']}</think> Two."
    reason = language_reward({"language": "en"}, completion).reason
    assert "words are en" in reason and "% fr" in reason


def test_nothing_is_gained_by_writing_no_words():
    for text in ("", " \n", "$x = 1$", PYTHON, "1 + 1 = 2", "...", "∀ε>0 ∃δ>0", "<b></b>", "😀 🎉"):
        assert language_reward({"language": "en"}, f"<think>{text}</think> The answer is two.").score == 0


@pytest.mark.parametrize("code", sorted(OF_LANGUAGE))
@pytest.mark.parametrize("matter", [PYTHON, CPP, DISPLAY, INLINE, BARE, "```\nnever closed"], ids=range(6))
def test_code_and_formulas_change_nothing(code, matter):
    text = OF_LANGUAGE[code][0]
    assert share(f"{text}\n\n{matter}", code) == share(text, code)
    if "closed" not in matter:
        assert abs(share(f"{matter}\n\n{text}", code) - share(text, code)) < 0.02


@pytest.mark.parametrize("code", sorted(code for code in OF_LANGUAGE if len(OF_LANGUAGE[code]) > 1))
def test_texts_of_one_language_joined_stay_in_it(code):
    for _ in range(3):
        joined = "\n\n".join(random.Random(code).sample(OF_LANGUAGE[code], len(OF_LANGUAGE[code])))
        assert share(joined, code) >= min(share(text, code) for text in OF_LANGUAGE[code]) - 0.01
    assert abs(share("\n\n".join([joined] * 5), code) - share(joined, code)) < 0.01


MIXTURES = st.lists(st.sampled_from(["en", "fr", "de", "es", "zh", "ru"]), min_size=1, max_size=6)
MARKUP = st.lists(st.sampled_from(["$", "`", "```", "\n", "\\(", "\\]", "a", "the ", "的", " ", "\\begin{x}"]))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["en", "fr", "de", "es", "zh", "ru"]), min_size=1, max_size=6),
    st.sampled_from(["en", "zh"]),
)
def test_the_share_of_a_mixture_is_that_of_its_parts(codes, target):
    parts = [OF_LANGUAGE[code][0] for code in codes]
    sizes = [sum(count_words(part).values()) for part in parts]
    expected = sum(size for code, size in zip(codes, sizes, strict=True) if code == target) / sum(sizes)
    assert abs(share("\n\n".join(parts), target) - expected) < 0.06


@settings(deadline=None)
@given(st.text() | MARKUP)
def test_any_text_gets_a_share(pieces):
    text = "".join(pieces)
    judgement = language_reward({"language": "en"}, text)
    assert 0 <= judgement.score <= 1 and judgement.teaches
    assert detect_language(text) is None or detect_language(text) in {profile.code for profile in PROFILES}


MASKED = {
    "fence": ("a\n```python\nhidden\n```\nb", "a\nb"),
    "fence in a list": ("a\n  ~~~\n  hidden ``` x\n  ~~~\nb", "a\nb"),
    "longer fence": ("a\n````\n```\nhidden\n````\nb", "a\nb"),
    "inline code": ("use `hidden code` here", "use   here"),
    "doubled backticks": ("use ``hidden ` code`` here", "use   here"),
    "one backtick": ("a ` b", "a ` b"),
    "backticks of two paragraphs": ("a ` b\n\nc ` d", "a ` b\n\nc ` d"),
    "dollars": ("so $hidden$ holds", "so   holds"),
    "display": ("so $$hidden\nthere$$ holds", "so   holds"),
    "brackets": ("so \\[hidden\n\nthere\\] and \\(hidden\\) hold", "so   and   hold"),
    "environment": ("so \\begin{align*}hidden\\end{align*} holds", "so   holds"),
    "body of a bare function": ("def f(a):\n    while a:\n        a, b = b, a\n\nb", "\nb"),
    "bare calls": ("best = solve(3, 4)\nassert best == 5\nb", "b"),
    "items under code": ("f(a)\n  - one thing\n  * two things", "  - one thing\n  * two things"),
    "indented prose under code": ("f(a)\n  which gives the best of all", "  which gives the best of all"),
    "address": ("see https://a.example/hidden now", "see   now"),
    "markdown": ("**bold** _word_ (brackets)", "**bold** _word_ (brackets)"),
    "full stop without space": ("It ends.Then on", "It ends.Then on"),
}


@pytest.mark.parametrize("text, expected", MASKED.values(), ids=MASKED)
def test_what_is_not_prose(text, expected):
    assert prose(text) == expected


def test_prices_are_prose():
    text = "One costs $5 and two cost $9, so we pay $x for three where $x = 12$ holds."
    assert prose(text).split() == "One costs and two cost so we pay for three where holds.".split()


def test_words_of_scripts_without_spaces_are_counted_by_length():
    assert sum(word.weight for word in words("一二三四五六七八")) == pytest.approx(5)
    assert [word.script for word in words("x 轴 and y")] == ["han", "latin"]


def test_bare_code_is_not_prose():
    assert all(line.strip() not in prose(BARE_CODE) for line in BARE_CODE.split("\n"))
    sentence = "Es gilt dann (für alle Zahlen);"
    assert prose(sentence) == sentence


UNITS = ["$", "$a ", "$a", "`", "` `` ", "\\(", "\\[", "\\begin{a}", "\\a{", "{", "<a", "<a ", "a", "a ", "a.", ".a"]
UNITS += ["=", "é", "\n", "\n ", "```\n", "\n```", "的", "かな", "的 the ", "a(b);\n", "\u0301\u0316", "\u05b0\u05b1"]
UNITS += ["def a:\n", "  a\n", "def a:\n" + " " * 50, "a = b(", "assert a == "]
UNITS += ["for的", "A ", "é", "“", '"', "the ", "\ud800", "\\text{a} "]


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_is_linear(unit):
    judge = lambda text: language_reward({"question": text}, text)
    assert growth(judge, lambda n: unit * (n // len(unit)), 2_000) < 40
    assert growth(judge, lambda n: "the $ ` " + unit * (n // len(unit)) + " end", 2_000) < 40


def test_profiles_are_in_order():
    codes = [profile.code for profile in PROFILES]
    assert len(set(codes)) == len(codes) == len({profile.name for profile in PROFILES})
    for profile in PROFILES:
        text = f"{profile.words} {profile.endings}"
        assert text == text.lower() and not {word.script for word in words(text)} - {profile.script}


@pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS is not set: no published English text to judge")
def test_published_english_is_english():
    rows = [json.loads(line) for line in (Path(ASSETS) / "gsm8k" / "test.jsonl").open(encoding="utf-8")]
    shares = [share(f"{row['question']}\n{row['answer']}", "en") for row in rows[:400]]
    assert sum(shares) / len(shares) > 0.99 and sum(s > 0.9 for s in shares) / len(shares) > 0.98


def test_the_judge_travels_between_processes():
    assert pickle.loads(pickle.dumps(language_reward)) is language_reward


ASIDES = {
    "keywords in Chinese": ("先写 if 判断，再写 else 分支，然后 return 一个 list。", {"zh"}),
    "a common English word in Chinese": ("我们 need 计算面积。", {"zh", "en"}),
    "a city in German": ("Herr Johnson wohnt in New York und Frau Smith in Los Angeles.", {"de"}),
    "a heading of capitals": ("Let Me Think About The Sum Of Two Numbers And Their Product", {"en"}),
    "a lone term is a name": ("我们用 quicksort 来排序，然后返回结果。", {"zh"}),
    "names in Chinese": ("感谢 Terry Pratchett、Jasper Fforde 和 Neal Stephenson 的帮助。", {"zh"}),
    "a loan word goes with its sentence": (
        "Wir benutzen hier den sogenannten greedy Ansatz und rechnen weiter.",
        {"de"},
    ),
    "endings speak where common words do not": (
        "Berechnung Umformung Gleichungen wissenschaftliche Möglichkeiten",
        {"de"},
    ),
    "letters speak where common words do not": ("größte Möbel Fußbälle Bänke", {"de"}),
    "small words of no known language": ("我们 blorp zint quorl frimp glant 计算", {"zh", "und"}),
}


@pytest.mark.parametrize("text, expected", ASIDES.values(), ids=ASIDES)
def test_names_terms_and_rare_words(text, expected):
    assert set(count_words(text)) == expected
