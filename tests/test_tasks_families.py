"""Every family at every level: records, splits, mixtures, what the judges accept and what they refuse."""

import json
import time
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.rewards.judgement import OUTCOMES
from r1jax.tasks import countdown
from r1jax.tasks.answers import plain, read_integers, read_number, read_word, read_words
from r1jax.tasks.equations import read_values
from r1jax.tasks.families import (
    FAMILIES,
    Part,
    draw_records,
    family_of,
    family_reward,
    is_held_out,
    read_countdown,
    read_parts,
)
from r1jax.tasks.knights import read_roles
from r1jax.tasks.modular import read_residue

BY_NAME = {family.name: family for family in FAMILIES}
# Programs are judged by running them; their own tests do that.
PARTS = [Part(family, level) for family in FAMILIES for level in family.levels if family.name != "programs"]


def identify(part):
    return f"{part.family.name}-{part.level}"


def block(answer):
    return f"<think> 17, no, 18 </think> <answer> {answer} </answer>"


def outcome(record, completion):
    judgement = family_reward(record, completion)
    assert judgement.outcome in OUTCOMES and judgement.score == (judgement.outcome == "correct")
    return judgement.outcome


def draws(part, count, seed=0):
    rng = np.random.default_rng(seed)
    return [part.family.draw(part.level, rng) for _ in range(count)]


# Right answers in several forms, and wrong ones, made from the record by other means than the judge's


def countdown_answers(record):
    solutions = [text for text, value in countdown.candidates(tuple(record["numbers"])) if value == record["target"]]
    text = solutions[0]
    right = [text, text.replace(" ", ""), f"({text})", f"{text} = {record['target']}", text.replace("*", "\\times")]
    wrong = [str(record["target"]), f"{text} + 1", f"{text} + {text}", f"{text} = {record['target'] + 1}"]
    return right, wrong + [f"{text} or {text}", "min(3, 4)"]


def number_answers(record):
    value = int(record["answer"])
    text = str(value)
    right = [text, f" {text} ", f"${text}$", f"\\({text}\\)", f"{text}.", f"{text}.0", f"**{text}**", f"{value:,}"]
    right += [text.replace("-", "\u2212"), f"\\text{{{text}}}"]
    wrong = [str(value + 1), str(value - 1), f"{text} or {value + 1}", f"{text}, {value + 1}", f"{text} {text}"]
    wrong += [
        f"{text}0" if value else "0 0",
        f"1{value:+d}",
        f"{text}.5",
        f"{text}%",
        f"about {text}",
        f"{text}/2" if value else "1/2",
    ]
    return right, wrong + ([str(-value)] if value else [])


def arithmetic_answers(record):
    right, wrong = number_answers(record)
    value = int(record["answer"])
    right.append(f"{record['expression']} = {value}")
    return right, [*wrong, f"{record['expression']} = {value + 1}", f"{value + 1} = {value}", record["expression"]]


def modular_answers(record):
    right, wrong = number_answers(record)
    value, modulus = int(record["answer"]), record["modulus"]
    right += [f"x = {value}", f"x \\equiv {value} \\pmod{{{modulus}}}", f"x \u2261 {value} (mod {modulus})"]
    right += [f"{value} mod {modulus}"]
    wrong += [str(value + modulus), str(value - modulus), f"{value} (mod {modulus + 1})", f"y = {value}"]
    return right, wrong


def equation_answers(record):
    values = dict(pair.split(" = ") for pair in record["answer"].split(", "))
    pairs = [f"{name} = {value}" for name, value in values.items()]
    right = [", ".join(order) for order in permutations(pairs)]
    right += [" and ".join(pairs), "; ".join(pairs), "\n".join(pairs), ",".join(pairs).replace(" ", "")]
    as_latex = lambda text: f"\\frac{{{Fraction(text).numerator}}}{{{Fraction(text).denominator}}}"
    right.append(", ".join(f"${name} = {as_latex(value)}$" for name, value in values.items()))
    tuples = f"({', '.join(values.values())})"
    if len(values) > 1:
        right += [tuples, f"({', '.join(values)}) = {tuples}", f"\\left({', '.join(values.values())}\\right)"]
    else:
        right += list(values.values())
    name, value = next(iter(values.items()))
    changed = values | {name: str(Fraction(value) + 1)}
    wrong = [", ".join(f"{n} = {v}" for n, v in changed.items()), ", ".join([*pairs, f"{name} = {value}"])]
    wrong += [f"{pairs[0]} or {', '.join(pairs)}", ", ".join(pairs[1:]) or "x", f"({', '.join(changed.values())})"]
    wrong += [", ".join([*pairs, "w = 1"]), ", ".join(pairs).replace("x", "u")]
    if len(set(values.values())) > 1:
        wrong.append(
            f"({', '.join(reversed(values.values()))})" if [*values.values()] != [*values.values()][::-1] else ""
        )
    return right, wrong


def string_answers(record):
    text = record["answer"]
    if record["form"] == "word":
        right = [text, f'"{text}"', f"`{text}`", f"\\text{{{text}}}", f"{text}.", f"'{text}'"]
        return right, [text + "a", text[1:], text.upper(), f"{text} or {text}b", f"{text} {text}", f"{text}, {text}"]
    items = text.split(", ")
    right = [text, ",".join(items), " ".join(items), f"[{text}]", f"({text})", f"$[{text}]$"]
    wrong = [", ".join(items[:-1]), ", ".join([*items, items[0]]), f"{text} or {text}", f"[{text}], [{text}]"]
    wrong += [", ".join(items[::-1])] if items != items[::-1] else []
    return right, wrong


def knight_answers(record):
    told = [
        f"{name} is a {'knight' if knight else 'knave'}" for name, knight in zip(record["names"], record["solution"])
    ]
    right = [", ".join(told), ", ".join(told[::-1]), " and ".join(told), ". ".join(told) + ".", "\n".join(told)]
    right += ["\n".join(f"({i}) {text}" for i, text in enumerate(told, 1)), "\n".join(f"- {text}" for text in told)]
    right += [" ".join(f"({i}) {text}" for i, text in enumerate(told, 1)), ", ".join(told).replace(" is a ", ": ")]
    right += ["\n".join(f"{i}. **{text}**" for i, text in enumerate(told, 1)), ", and ".join(told).upper()]
    right += [f"\\text{{{', '.join(told)}}}", ", ".join(told).replace(" is a ", " - ")]
    groups = [[n for n, k in zip(record["names"], record["solution"]) if k == kind] for kind in (True, False)]
    plural = lambda group, word: f"{' and '.join(group)} {f'are {word}s' if len(group) > 1 else f'is a {word}'}"
    right.append("; ".join(plural(g, w) for g, w in zip(groups, ("knight", "knave")) if g))
    swap = {"knight": "knave", "knave": "knight"}
    first = told[0].replace(told[0].split()[-1], swap[told[0].split()[-1]])
    wrong = [", ".join([first, *told[1:]]), ", ".join(told[1:]), ", ".join([*told, first]), f"{first} or {told[0]}"]
    wrong += [", ".join(told).replace(" is ", " is not "), ", ".join([*told, "Nobody is a knave"]), "knight, knave"]
    return right, wrong


ANSWERS = {
    "countdown": countdown_answers,
    "arithmetic": arithmetic_answers,
    "modular": modular_answers,
    "sequences": number_answers,
    "equations": equation_answers,
    "strings": string_answers,
    "knights_and_knaves": knight_answers,
}


@pytest.mark.parametrize("part", PARTS, ids=identify)
def test_right_answers_are_correct_in_every_form_and_wrong_ones_never(part):
    for record in draws(part, 25):
        right, wrong = ANSWERS[part.family.name](record)
        for text in right:
            assert outcome(record, block(text)) == "correct", (record, text)
            assert outcome(record, f"</think> So \\boxed{{{text}}}") == "correct", (record, text)
        for text in wrong:
            assert outcome(record, block(text)) != "correct", (record, text)


@pytest.mark.parametrize("part", PARTS, ids=identify)
def test_only_one_answer_after_the_reasoning_counts(part):
    for record in draws(part, 5):
        right, wrong = ANSWERS[part.family.name](record)
        assert outcome(record, f"<think> <answer> {right[0]} </answer> \\boxed{{{right[0]}}}") == "no_answer"
        assert outcome(record, f"<think> \\boxed{{{right[0]}}} </think> I do not know") == "no_answer"
        assert outcome(record, block(right[0]) + f"<answer> {wrong[0]} </answer>") == "no_answer"
        assert outcome(record, "") == outcome(record, "<answer></answer>") == "no_answer"
        prefilled = record | {"prefill": "<think>\n"}
        assert outcome(prefilled, f"{right[0]} </think> <answer>{right[0]}</answer>") == "correct"
        assert outcome(prefilled, f"<answer>{right[0]}</answer>") == "no_answer"


@pytest.mark.parametrize("part", PARTS, ids=identify)
def test_records_are_json_deterministic_and_name_themselves(part):
    records = draws(part, 20)
    assert records == draws(part, 20) != draws(part, 20, seed=1)
    assert json.loads(json.dumps(records)) == records
    for record in records:
        assert (record["family"], record["level"]) == (part.family.name, part.level)
        assert family_of(record) == part.family and record["question"].strip()


@pytest.mark.parametrize("part", PARTS, ids=identify)
def test_a_broken_record_says_which_field(part):
    record = draws(part, 1)[0]
    needed = {"countdown": ("numbers", "target"), "knights_and_knaves": ("names", "solution")}
    needed |= {"arithmetic": ("answer", "expression"), "modular": ("answer", "modulus"), "sequences": ("answer",)}
    needed |= {"equations": ("answer", "unknowns"), "strings": ("answer", "form")}
    for name in needed[part.family.name]:
        for broken in ({k: v for k, v in record.items() if k != name}, *({**record, name: v} for v in BAD)):
            judgement = family_reward(broken, block("3"))
            assert judgement.outcome == "gold_unparseable" and repr(name) in judgement.reason, broken


BAD = (None, [], {}, [None], [[1]], "", 0.5, True, -(10**5000))


def test_a_record_of_no_family_cannot_be_judged():
    for record in ({}, {"family": None}, {"family": "astrology"}, {"family": []}):
        judgement = family_reward(record, block("3"))
        assert judgement.outcome == "gold_unparseable" and "family" in judgement.reason
    record = draws(PARTS[0], 1)[0]
    assert "prefill" in family_reward(record | {"prefill": 3}, block("3")).reason


TEXT = st.text(st.sampled_from("0123456789-+*/=(),.{}[] \n\\xyzabc$%'\"\u2212\u00d7or"), max_size=60) | st.text(
    max_size=60
)


@settings(max_examples=150, deadline=None)
@given(TEXT, st.integers(0, 2**32), st.sampled_from(PARTS))
def test_no_text_raises(text, seed, part):
    record = part.family.draw(part.level, np.random.default_rng(seed % 50))
    assert outcome(record, text) in ("no_answer", "wrong", "correct")
    found = outcome(record, block(text))
    assert found in ("no_answer", "wrong", "correct")
    if found == "correct":  # random text can only hit an answer that is short
        assert sum(character.isalnum() for character in text) <= 6


@pytest.mark.parametrize("part", [p for p in PARTS if p.level == 3], ids=identify)
def test_hostile_texts_are_refused(part):
    record = draws(part, 1)[0]
    texts = [
        "9" * 5000,
        "9" * 10**6,
        "9**9**9**9",
        "(" * 10**5,
        "{" * 10**5,
        "$" * 10**5,
        "\\text{" * 10**5,
        "1/" * 10**5,
    ]
    texts += [
        "1/0",
        "\\frac{1}{0}",
        "-" * 1000,
        "x = " * 10**5,
        "\u0663",
        "\uff13",
        "1e400",
        "nan",
        "inf",
        "\x00",
        "__import__('os')",
    ]
    texts += [", " * 10**5, "A is a " * 10**5, "0" * 1990, "**" * 990, " " * 10**6]
    for text in texts:
        assert outcome(record, block(text)) in ("wrong", "no_answer")


PIECES = (
    "(",
    "\\text{",
    "\\text{a}",
    "1,",
    "1, ",
    "A is a knight, ",
    "- ",
    "1) ",
    "x = ",
    "9",
    "\\frac{",
    "$",
    "and ",
    "(mod ",
)


def seconds(read, text):
    times = []
    for _ in range(5):
        start = time.process_time()
        read(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("read", [
    plain, read_number, read_integers, read_words, read_word, lambda text: read_roles(text, ["A", "B"]),
    lambda text: read_values(text, ["x", "y"]), lambda text: read_residue(text, 7),
    lambda text: read_countdown(text, [3, 4], 7),
])  # fmt: skip
def test_readers_take_linear_time(read):
    for piece in PIECES:
        short, long = (seconds(read, (piece * length)[:length]) for length in (1000, 16000))
        assert long < 80 * short + 0.005, piece  # 16 where linear, 256 where quadratic


def test_published_families_are_judged_by_their_own_judges():
    math = {"family": "math", "question": "1/4 + 1/4", "answer": "\\frac{1}{2}"}
    assert outcome(math, "</think> \\boxed{0.5}") == "correct" and outcome(math, "</think> \\boxed{2}") == "wrong"
    code = {"family": "code", "question": "Double a number.", "tests": ["assert double(2) == 4"], "setup": ""}
    assert outcome(code, "</think> I cannot.") == "no_answer"


def test_a_sum_may_be_answered_by_a_plain_number_and_by_nothing_else_unmarked():
    for part in read_parts(["sums"]):
        for record in draws(part, 10):
            value, expression = sum(record["numbers"]), " + ".join(map(str, record["numbers"]))
            assert len(record["numbers"]) == part.level + 1 and max(record["numbers"]) < 10
            assert f"Compute {expression}." in record["question"]
            for text in (f"{value}", f" {value}.\n", f"**{value}**", f"{expression} = {value}", f"\\boxed{{{value}}}"):
                assert outcome(record, text) == "correct", text
                assert outcome(record, f"<think> {value + 1} </think>{text}") == "correct"
            for text in (f"{value + 1}", f"{expression} = {value + 1}", f"<answer>{value + 1}</answer>"):
                assert outcome(record, text) == "wrong", text
            for text in (f"The result is {value}", f"{value} or {value + 1}", f"<think> {value}", f"1 + {value}", ""):
                assert outcome(record, text) == "no_answer", text
    assert outcome(draws(Part(BY_NAME["arithmetic"], 1), 1)[0], "3") == "no_answer"  # there it must be marked


# Splits and mixtures


def test_one_sum_in_three_is_held_out_whatever_the_order():
    records = draws(read_parts(["sums:2"])[0], 2000)
    contents = {tuple(sorted(record["numbers"])): is_held_out(record) for record in records}
    assert 0.25 < np.mean(list(contents.values())) < 0.42
    for record in records[:50]:
        assert is_held_out(record | {"numbers": record["numbers"][::-1]}) == is_held_out(record)


@pytest.mark.parametrize("part", PARTS, ids=identify)
def test_one_problem_in_ten_is_held_out(part):
    records = draws(part, 400)
    contents = {part.family.content(record): is_held_out(record) for record in records}
    assert len(contents) > 200 and 0.03 < np.mean(list(contents.values())) < 0.17


def test_splits_share_no_problem_over_thousands_of_draws():
    parts = [part for part in PARTS if part.level in (2, 3)]
    draw = lambda split, count, seed: draw_records(parts, split, count, np.random.default_rng(seed))
    contents = lambda records: {(r["family"], family_of(r).content(r)) for r in records}
    train, held_out = draw("train", 2000, 0), draw("held_out", 250, 1)
    assert not contents(train) & contents(held_out)
    assert len(contents(train)) == 2000 and len(contents(held_out)) == 250
    assert [(r["family"], r["level"]) for r in train[: len(parts)]] == [(p.family.name, p.level) for p in parts]
    assert train[:50] == draw("train", 50, 0)


def test_the_split_of_countdown_is_that_of_the_miniature():
    for record in draws(Part(BY_NAME["countdown"], 2), 500):
        assert is_held_out(record) == countdown.is_held_out(tuple(record["numbers"]), record["target"])


def test_the_split_does_not_see_the_order_of_what_has_no_order():
    knights = draws(Part(BY_NAME["knights_and_knaves"], 3), 1)[0]
    renamed = knights | {"names": ["A", "B", "C", "D"]}
    order = [2, 0, 3, 1]  # person i becomes order[i]
    renumber = lambda s: [renumber(p) if isinstance(p, list) else order[p] if isinstance(p, int) else p for p in s]
    moved = knights | {"statements": [renumber(knights["statements"][order.index(i)]) for i in range(4)]}
    content = BY_NAME["knights_and_knaves"].content
    assert content(knights) == content(renamed) == content(moved)
    equations = draws(Part(BY_NAME["equations"], 4), 1)[0]
    assert BY_NAME["equations"].content(equations | {"equations": equations["equations"][::-1]}) == "|".join(
        sorted(equations["equations"])
    )


def test_a_used_up_level_starts_over_and_an_empty_split_is_refused():
    few = BY_NAME["sequences"]._replace(draw=lambda level, rng: FEW[int(rng.integers(len(FEW)))])
    records = draw_records([Part(few, 1)], "train", 40, np.random.default_rng(0))
    terms = [tuple(record["terms"]) for record in records]
    distinct = len(set(terms))
    assert distinct < 20 and len(set(terms[:distinct])) == distinct
    one = BY_NAME["sequences"]._replace(draw=lambda level, rng: FEW[0])
    other = "train" if is_held_out(FEW[0]) else "held_out"
    with pytest.raises(ValueError, match=f"no {other} problem of level 1"):
        draw_records([Part(one, 1)], other, 1, np.random.default_rng(0))


FEW = draws(Part(BY_NAME["sequences"], 1), 15)


def test_unknown_levels_and_splits_are_refused():
    for family in FAMILIES:
        for level in (0, 6, -1, None):
            with pytest.raises(ValueError, match="level"):
                family.draw(level, np.random.default_rng(0))
    for parts, split in ((PARTS, "test"), ([], "train")):
        with pytest.raises(ValueError, match="split"):
            draw_records(parts, split, 1, np.random.default_rng(0))
