"""Every family against a solver that shares nothing with its generator, the sizes of the levels, published sets."""

import ast
import itertools
import math
import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from r1jax.tasks import arithmetic, equations, knights, modular, sequences, strings
from r1jax.tasks.equations import determinant
from r1jax.tasks.expression import evaluate
from r1jax.tasks.families import family_reward
from r1jax.tasks.levels import LEVELS

ASSETS = os.environ.get("R1JAX_ASSETS")
levels = pytest.mark.parametrize("level", LEVELS)


def draws(module, level, count=60):
    rng = np.random.default_rng(level)
    return [module.draw(level, rng) for _ in range(count)]


def mean_size(module, level, size):
    return np.mean([size(record) for record in draws(module, level)])


def grows(module, size):
    sizes = [mean_size(module, level, size) for level in LEVELS]
    return all(a < b for a, b in itertools.pairwise(sizes))


# Arithmetic: Python's own grammar, with every division checked to be exact


def exact_value(node):
    if isinstance(node, ast.Constant):
        assert node.value > 0
        return node.value
    left, right = exact_value(node.left), exact_value(node.right)
    if isinstance(node.op, ast.Div):
        assert left % right == 0
        return left // right
    return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]


@levels
def test_arithmetic_agrees_with_python_and_divides_exactly(level):
    for record in draws(arithmetic, level, 200):
        expression = re.fullmatch(r"Compute (.*) \. The answer is a whole number\.", record["question"])[1]
        assert expression == record["expression"]
        assert exact_value(ast.parse(expression, mode="eval").body) == int(record["answer"])
        assert evaluate(expression)[0] == int(record["answer"])


def test_arithmetic_uses_every_operator_and_grows():
    text = " ".join(record["expression"] for record in draws(arithmetic, 5, 100))
    assert min(text.count(sign) for sign in "+-*/(") > 30
    assert grows(arithmetic, lambda record: len(re.findall(r" [-+*/] ", record["expression"])))
    assert any(int(record["answer"]) < 0 for record in draws(arithmetic, 1, 100))


# Equations: sympy, on the text of the question


@levels
def test_equations_have_the_one_solution_that_sympy_finds(level):
    sympy = pytest.importorskip("sympy")
    for record in draws(equations, level, 25):
        texts = re.search(r": (.*) \. Answer", record["question"])[1].split(" ; ")
        sides = [re.sub(r"([0-9])([xyz])", r"\1*\2", text).split("=") for text in texts]
        unknowns = sympy.symbols(record["unknowns"])
        found = sympy.linsolve([sympy.sympify(a) - sympy.sympify(b) for a, b in sides], unknowns)
        assert len(found) == 1
        (solution,) = found
        assert all(value.is_Rational for value in solution)
        assert record["answer"] == ", ".join(f"{n} = {v}" for n, v in zip(record["unknowns"], solution, strict=True))


def test_equations_grow_and_some_levels_have_fractions():
    coefficients = lambda record: sum(len(re.findall(r"[0-9]+|[xyz]", text)) for text in record["equations"])
    assert grows(equations, lambda record: coefficients(record) + 2 * record["answer"].count("/"))
    for level in LEVELS:
        assert all(("/" in record["answer"]) == (level in (2, 5)) for record in draws(equations, level))


def test_a_determinant_is_that_of_numpy():
    for matrix in np.random.default_rng(0).integers(-9, 10, (50, 3, 3)):
        assert determinant(matrix.tolist()) == round(np.linalg.det(matrix))


# Modular arithmetic: trying every residue, on the text of the question


def residue_solutions(question, modulus):
    numbers = [int(number) for number in re.findall(r"[0-9]+", question)]
    if "remainder" in question:
        base, exponent, by = numbers[:3]
        value = 1
        for bit in f"{exponent:b}":
            value = value * value * (base if bit == "1" else 1) % by
        return {value}
    if "* x = 1" in question:
        return {x for x in range(modulus) if numbers[0] * x % numbers[2] == 1}
    pairs = re.findall(r"x = ([0-9]+) \(mod ([0-9]+)\)", question)
    return {x for x in range(modulus) if all(x % int(m) == int(r) for r, m in pairs)}


@levels
def test_modular_problems_have_one_answer_by_trying_every_residue(level):
    kinds = set()
    for record in draws(modular, level, 40):
        kinds.add(record["question"].split()[1])
        assert residue_solutions(record["question"], record["modulus"]) == {int(record["answer"])}
        assert f"from 0 to {record['modulus'] - 1}." in record["question"]
    assert len(kinds) >= 3
    assert grows(modular, lambda record: math.log(record["modulus"]))


# Sequences: trying every rule, written a second time


def sequence_rules(level):
    """All (order, step) of a level's kind, where step(terms, place) gives the term at a place."""
    span = lambda low, high: [n for n in range(low, high + 1) if n]
    if level == 1:
        return [(1, lambda t, i, b=b: t[i - 1] + b) for b in range(-50, 51)]
    if level == 2:
        choices = itertools.product(span(-5, 5), range(-20, 21))
        return [(1, lambda t, i, a=a, b=b: a * t[i - 1] + b) for a, b in choices]
    if level == 3:
        choices = itertools.product(span(-3, 3), span(-3, 3), range(-10, 11))
        return [(2, lambda t, i, a=a, b=b, c=c: a * t[i - 1] + b * t[i - 2] + c) for a, b, c in choices]
    if level == 4:
        steps = list(itertools.product(span(-2, 3), range(-4, 5)))
        apply = lambda t, i, even, odd: (lambda s: s[0] * t[i - 1] + s[1])(even if i % 2 else odd)
        return [(1, lambda t, i, e=e, o=o: apply(t, i, e, o)) for e, o in itertools.product(steps, steps)]
    choices = itertools.product(span(-2, 2), span(-2, 2), span(-2, 2), range(-25, 26))
    step = lambda t, i, rule: rule[0] * t[i - 1] + rule[1] * t[i - 2] + rule[2] * t[i - 3] + rule[3]
    return [(3, lambda t, i, rule=rule: step(t, i, rule)) for rule in choices]


@levels
def test_every_rule_of_the_stated_kind_gives_the_same_next_term(level):
    rules = sequence_rules(level)
    for record in draws(sequences, level, 30):
        terms = [int(term) for term in re.search(r"next term of (.*) \?", record["question"])[1].split(", ")]
        assert terms == record["terms"]
        fits = [s for order, s in rules if all(s(terms, i) == terms[i] for i in range(order, len(terms)))]
        assert {step(terms, len(terms)) for step in fits} == {int(record["answer"])}


def test_sequences_have_more_rules_to_tell_apart_with_the_level():
    assert [len(sequence_rules(level)) for level in LEVELS] == [
        math.prod(map(len, rules.ranges)) for rules in sequences.RULES
    ]
    counts = [len(sequence_rules(level)) for level in LEVELS]
    assert counts == sorted(counts)
    assert (
        sequences.continuations(sequences.RULES[1], [3, 3]) == {3} != sequences.continuations(sequences.RULES[1], [3])
    )


# Strings: a reader of the English


def follow(text, value):
    """What a step of the question does to a list of letters, numbers or words."""
    numbers = [int(number) for number in re.findall(r"-?[0-9]+", text)]
    last = text.rstrip(".").split()[-1]
    if text.startswith("Move the first"):
        for _ in range(numbers[0] if numbers else 1):
            value = value[1:] + value[:1]
        return value
    if match := re.match(r"Replace every ([a-z]) by ([a-z])$", text):
        return [match[2] if letter == match[1] else letter for letter in value]
    if match := re.match(r"Remove every ([a-z])$", text):
        return [letter for letter in value if letter != match[1]]
    rules = {
        "Reverse the order of": lambda: list(reversed(value)),
        "Swap the first and the last": lambda: [value[-1], *value[1:-1], value[0]],
        "Remove the first": lambda: value[1:],
        "Keep only every second": lambda: [item for place, item in enumerate(value) if place % 2 == 0],
        "Sort the letters in alphabetical": lambda: sorted(value),
        "Sort in alphabetical": lambda: sorted(value),
        "Sort in increasing": lambda: sorted(value),
        "Sort in decreasing": lambda: sorted(value)[::-1],
        "Sort from the shortest": lambda: sorted(sorted(value), key=len),
        "Replace every letter by the next": lambda: [chr((ord(letter) - 97 + 1) % 26 + 97) for letter in value],
        "Add": lambda: [number + numbers[0] for number in value],
        "Remove every number greater": lambda: [number for number in value if not number > numbers[0]],
        "Remove every even": lambda: [number for number in value if number % 2 == 1],
        "Remove every word that contains": lambda: [word for word in value if word.count(last) == 0],
        "Reverse the letters": lambda: ["".join(reversed(word)) for word in value],
    }
    (rule,) = [rule for start, rule in rules.items() if text.startswith(start)]
    return rule()


@levels
def test_strings_come_out_as_a_reader_of_the_question_finds(level):
    forms = set()
    for record in draws(strings, level, 120):
        start, steps = re.match(r"Start with the \w+ (.*) and do, in order: (.*) What is", record["question"]).groups()
        value = {"word": list, "numbers": lambda t: [int(n) for n in t.split(", ")], "words": lambda t: t.split(", ")}
        value = value[record["form"]](start)
        texts = [text for text in re.split(r"(?:^|\. )[0-9]\. ", steps.rstrip(".")) if text.strip()]
        for text in texts:
            assert follow(text, value) != value, "a step that changes nothing"
            value = follow(text, value)
        assert ("".join(value) if record["form"] == "word" else ", ".join(map(str, value))) == record["answer"]
        assert len(value) >= strings.SHORTEST and len(texts) == strings.SIZES[level - 1].steps
        forms.add(record["form"])
    assert forms == set(strings.FORMS)


def test_strings_grow():
    assert grows(strings, lambda record: len(record["question"]))


# Knights and knaves: truth tables, in code of their own


def truth(statement, knight):
    kind, *parts = statement
    if kind == "telling-truth":
        return knight[parts[0]]
    if kind == "lying":
        return not knight[parts[0]]
    values = [truth(part, knight) for part in parts]
    table = {"and": all(values), "or": any(values), "not": not values[0]}
    table |= {"->": values[0] <= values[-1], "<=>": values[0] is values[-1]}
    return table[kind]


def worlds(statements):
    return [
        world
        for world in itertools.product((False, True), repeat=len(statements))
        if all(truth(statement, world) is speaker for statement, speaker in zip(statements, world, strict=True))
    ]


def read_english(text, names):
    """The statement that a sentence of a question makes, by splitting it at its outermost connective."""
    text = text[1:-1] if text.startswith("(") and closes_at_end(text) else text
    if text.startswith("it is not true that "):
        return ["not", read_english(text.removeprefix("it is not true that "), names)]
    words = re.split(r"(\([^()]*(?:\([^()]*\)[^()]*)*\))", text)
    flat = "".join("\0" * len(word) if word.startswith("(") else word for word in words)
    if flat.startswith("if "):
        place = flat.index(" then ")
        return ["->", read_english(text[3:place], names), read_english(text[place + 6 :], names)]
    for said, kind in ((" if and only if ", "<=>"), (" and ", "and"), (" or ", "or")):
        if said in flat:
            place = flat.index(said)
            return [kind, read_english(text[:place], names), read_english(text[place + len(said) :], names)]
    name, role = re.fullmatch(r"(\w+) is a (knight|knave)", text).groups()
    return ["telling-truth" if role == "knight" else "lying", names.index(name)]


def closes_at_end(text):
    depths = list(itertools.accumulate((c == "(") - (c == ")") for c in text))
    return depths[-1] == 0 and 0 not in depths[:-1]


@levels
def test_knights_have_one_solution_and_the_question_says_the_statements(level):
    for record in draws(knights, level, 60):
        assert worlds(record["statements"]) == [tuple(record["solution"])]
        said = re.findall(r'(\w+) says: "(.*?)\."', record["question"])
        assert [name for name, _ in said] == record["names"]
        assert [read_english(text, record["names"]) for _, text in said] == record["statements"]


def test_knights_grow():
    leaves = lambda record: len(re.findall("telling-truth|lying", str(record["statements"])))
    assert grows(knights, lambda record: leaves(record) + 4 * len(record["names"]))
    assert [len(draws(knights, level, 1)[0]["names"]) for level in LEVELS] == [2, 3, 4, 4, 5]


KK = {
    "family": "knights_and_knaves",
    "question": "You meet 2 inhabitants ...",
    "names": ["Zoey", "Oliver"],
    "solution": [True, False],
    "statements": "(('lying', 1), ('lying', 0))",
}


def test_the_published_form_is_judged():
    answer = "<think> </think> <answer> (1) Zoey is a knight\n(2) Oliver is a knave </answer>"
    assert family_reward(KK, answer).outcome == "correct"
    assert family_reward(KK, answer.replace("knave", "knight")).outcome == "wrong"


@pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder of published data")
@pytest.mark.parametrize("split, rows", [("train", 900), ("test", 100)])
def test_the_published_sets_are_judged(split, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(Path(ASSETS) / "logic" / f"kk3_{split}.parquet").to_pylist()
    assert len(table) == rows
    swap = {"knight": "knave", "knave": "knight"}
    for row in table:
        assert worlds(ast.literal_eval(row["statements"])) == [tuple(row["solution"])]
        record = {"family": "knights_and_knaves", "names": row["names"], "solution": row["solution"]}
        for gold in (row["solution_text"], row["solution_text_format"]):
            assert family_reward(record, f"</think> <answer>{gold}</answer>").outcome == "correct"
            assert family_reward(record, f"</think> \\boxed{{{gold}}}").outcome == "correct"
            lie = re.sub(r"knight|knave", lambda match: swap[match[0]], gold, count=1)
            assert family_reward(record, f"</think> <answer>{lie}</answer>").outcome == "wrong"


def test_an_exact_fraction_is_not_a_rounded_one():
    record = {"family": "equations", "unknowns": ["x"], "answer": "x = 1/3"}
    assert Fraction("1/3") != Fraction("0.333")
    for text, expected in (("1/3", "correct"), ("\\frac{1}{3}", "correct"), ("2/6", "correct"), ("0.333", "wrong")):
        assert family_reward(record, f"<answer>{text}</answer>").outcome == expected
