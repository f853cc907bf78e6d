"""The miniature world: its families in two languages, its authors, and the rewriting of responses."""

import numpy as np
import pytest

from r1jax.data.prompts import document_text
from r1jax.rewards.format import think_format_reward
from r1jax.rewards.language import language_reward
from r1jax.tasks import chains, functions, requests, safety
from r1jax.tasks.authors import (
    WORLD,
    Population,
    boxed,
    chat_text,
    describe_corpus,
    phrases,
    response_text,
    write_document,
)
from r1jax.tasks.behaviour import read_checks
from r1jax.tasks.families import MINIATURE, Part, draw_records, family_reward, is_held_out, read_parts
from r1jax.tasks.languages import LANGUAGES
from r1jax.tasks.rewriting import in_one_language, rewrite
from r1jax.tasks.solutions import SOLVERS, Author

PARTS = [Part(family, level) for family in MINIATURE.values() for level in family.levels]
IDS = [f"{part.family.name} {part.level}" for part in PARTS]


def careful(seed=0, mixes=False):
    return Author(np.random.default_rng(seed), careful=True, mixes=mixes, slip=0.0)


@pytest.mark.parametrize("part", PARTS, ids=IDS)
def test_problems_come_in_both_languages_and_splits(part):
    train, held_out = (draw_records([part], split, 40, np.random.default_rng(0)) for split in ("train", "held_out"))
    assert {record["language"] for record in train} == set(LANGUAGES)
    contents = [{part.family.content(record) for record in split} for split in (train, held_out)]
    assert not contents[0] & contents[1]
    for record in held_out:
        assert record["family"] == part.family.name and record["level"] == part.level and is_held_out(record)
    only = draw_records([part._replace(language="zh")], "train", 10, np.random.default_rng(1))
    assert {record["language"] for record in only} == {"zh"} and all(
        any(c > "\u4e00" for c in r["question"]) for r in only
    )


@pytest.mark.parametrize(
    "part", [part for part in PARTS if part.family.name in SOLVERS], ids=[i for i in IDS if "countdown" not in i]
)
def test_careful_authors_are_right_in_both_forms(part):
    for seed, record in enumerate(draw_records([part], "train", 4, np.random.default_rng(2))):
        thought, answer = SOLVERS[part.family.name](careful(seed), record)
        summary = boxed(answer, record["language"]) if part.family.name == "chains" else answer
        for text in (response_text(thought, answer), chat_text(thought, summary)):
            judgement = family_reward(record, text)
            assert judgement.outcome == "correct", (record, text, judgement)
        assert think_format_reward({}, chat_text(thought, summary)).outcome == "correct"
        assert language_reward(record, chat_text(thought, summary)).score == 1.0


def test_chains_are_what_their_steps_say():
    for level in chains.LEVELS:
        record = chains.draw(level, np.random.default_rng(level))
        value = None
        for text, after in record["steps"]:
            assert value is None or text.startswith(f"{value} ")
            assert eval(text) == after and chains.SMALLEST <= after <= chains.LARGEST  # trusted: our own numbers
            value = after
        assert value == record["answer"] and len(record["steps"]) == level + 1
        for wrong in (value + 1, -value, f"{value} or {value + 1}"):
            assert chains.judge(record, f"<think> </think> \\boxed{{{wrong}}}").outcome != "correct"


def test_the_inputs_of_functions_tell_all_parts_apart():
    plans = [functions.Plan(c, r, 3, 0) for c in (*functions.CHOICES, functions.ALL) for r in functions.RESULTS]
    rng = np.random.default_rng(0)
    many = [rng.integers(-9, 13, rng.integers(1, 6)).tolist() for _ in range(300)]
    values = lambda plan, inputs: tuple(plan.apply(list(xs)) for xs in inputs)
    assert len({values(plan, functions.INPUTS) for plan in plans}) == len({values(plan, many) for plan in plans}) > 20
    for plan in plans:
        run = eval(f"lambda xs: {plan.code}")  # trusted: our own code
        assert tuple(run(list(xs)) for xs in functions.INPUTS) == values(plan, functions.INPUTS)


@pytest.mark.parametrize(
    "said, score",
    [
        ("apple , pear .", 1.0),
        ("pear , apple", 1.0),
        ("apple .", 0.5),
        ("apple , apple .", 0.5),
        ("apple , plum .", 0.5),
        ("apple , pear , grape .", 2 / 3 * 1.5),
        ("apple , dog .", 0.25),
        ("apple , pear , and so on .", 1 / 3),
        ("\u82f9\u679c , \u68a8 .", 0.0),
        ("", 0.0),
    ],
)
def test_lists_are_judged_by_what_is_asked(said, score):
    record = {"level": 2, "language": "en", "kind": "fruit", "count": 2, "excluded": 2}
    judgement = requests.judge(record, f"<think> they want 2 fruits </think> {said}")
    assert judgement.score == pytest.approx(min(score, 1.0)) and (judgement.outcome == "correct") == (score == 1.0)


@pytest.mark.parametrize(
    "said, score",
    [
        ("Hello Ana and all the best .", 1.0),
        ("Hello Ana .", 2 / 3),
        ("Hello Ben and all the best .", 1 / 3),
        ("Goodbye Ana .", 1 / 6),
        ("Hello Ana and all the best . How are you ?", 0.5),
    ],
)
def test_politeness_is_judged_by_what_is_asked(said, score):
    record = {"level": 1, "language": "en", "occasion": "greeting", "name": "Ana"}
    assert requests.judge(record, f"<think> be polite </think> {said}").score == pytest.approx(score)


def test_safety_declines_harm_and_helps_otherwise():
    harmful, harmless = (safety.draw(level, np.random.default_rng(0), "en") for level in (2, 1))
    assert safety.judge(harmful, safety.decline_text(harmful)).outcome == "correct"
    assert safety.judge(harmless, safety.help_text(harmless)).outcome == "correct"
    assert safety.judge(harmful, safety.help_text(harmful)).outcome == "wrong"
    assert safety.judge(harmless, safety.decline_text(harmless)).outcome == "wrong"
    tool = safety.HARMFUL[harmful["deed"]]["en"][1]
    assert safety.judge(harmful, f"<think> take a {tool} </think> {safety.decline_text(harmful)}").outcome == "wrong"


def test_the_corpus_of_the_world():
    shares = describe_corpus(WORLD, (1, 2), documents=8000, seed=1)
    assert 0.005 < shares["complete correct searches, of solutions"] < 0.10
    assert 0.05 < shares["right answer, of solutions"] < 0.20
    for family, share in {"chains": 0.14 * 0.55, "functions": 0.1, "requests": 0.09, "safety": 0.05}.items():
        assert shares[f"{family}, of all documents"] == pytest.approx(share, rel=0.25)
    assert all(0.15 < shares[f"right answer, of {family}"] < 0.65 for family in ("chains", "requests", "safety"))


def test_half_of_the_authors_mix_the_languages():
    rng = np.random.default_rng(0)
    documents = [write_document(rng, WORLD, (1,)) for _ in range(8000)]
    assert not any(is_held_out(d.record) for d in documents)
    searches = [d for d in documents if d.kind == "search" and d.attempts >= 4]
    mixed = [
        len({check.text[-1] in "\u5bf9" for check in read_checks(d.text, d.record["target"])}) == 2 for d in searches
    ]
    assert 0.3 < np.mean(mixed) < 0.55 and len(searches) > 30


def test_the_first_population_writes_what_it_always_wrote():
    """The corpus of the shipped base model, by its first documents."""
    rng = np.random.default_rng(0)
    documents = [write_document(rng, Population(), (1, 2)) for _ in range(3)]
    assert {d.record["language"] for d in documents} == {"en"} and phrases(Population()) == (
        "Use two of the numbers",
        "to make",
    )
    assert document_text(documents[0]).startswith(("Use two of the numbers", "A conversation between"))


@pytest.mark.parametrize(
    "thought, language, expected",
    [
        ("8 - 7 = 1 \u4e0d\u5bf9 3 + 4 = 7 yes", "en", "8 - 7 = 1 no 3 + 4 = 7 yes"),
        ("8 - 7 = 1 no wait 3 + 4 = 7 \u5bf9", "zh", "8 - 7 = 1 \u4e0d\u5bf9 \u7b49\u7b49 3 + 4 = 7 \u5bf9"),
        (
            "the even numbers : `xs` , the sum of : `sum( xs )`",
            "zh",
            "\u5076\u6570 : `xs` , \u4e4b\u548c : `sum( xs )`",
        ),
        ("nothing of it", "zh", "nothing of it"),
    ],
)
def test_a_thought_is_put_into_one_language(thought, language, expected):
    assert in_one_language(thought, language) == expected
    assert in_one_language(expected, language) == expected


@pytest.mark.parametrize("name", ["countdown", "chains", "functions"])
def test_rewritten_responses_are_right_readable_and_in_one_language(name):
    record = MINIATURE[name].draw(2, np.random.default_rng(5), "zh")
    if name == "countdown":
        record |= {"numbers": [3, 4, 9], "target": 7}
        text = response_text("9 - 3 = 6 no 3 + 4 = 7 \u5bf9", "3 + 4")
    else:
        text = response_text(*SOLVERS[name](careful(3, mixes=True), record))
    thought, summary = rewrite(record, text)
    again = chat_text(thought, summary)
    assert family_reward(record, again).outcome == "correct" and think_format_reward({}, again).score == 1.0
    assert language_reward(record, again).score == 1.0


@pytest.mark.parametrize("name", ["nonsense:1", "chains:9", "arithmetic:1:zh", "chains:zh:1", ""])
def test_a_part_that_does_not_exist_is_named(name):
    with pytest.raises(ValueError, match=repr(name)):
        read_parts([name])


def test_parts_are_read():
    chain, both, arithmetic = read_parts(["chains:2:zh", "countdown:1", "arithmetic:3"])
    assert (chain.family.name, chain.level, chain.language) == ("chains", 2, "zh")
    assert both.language is None and both.family is MINIATURE["countdown"]
    assert arithmetic.draw(np.random.default_rng(0))["family"] == "arithmetic"
