"""Small program synthesis: write a program that reads a line, changes it step by step, and prints what is left."""

import itertools
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from r1jax.rewards.code import code_reward
from r1jax.tasks.levels import LEVELS, at_level

__all__ = ["LEVELS", "draw", "judge", "reference_solution"]

TESTS = 8
DIFFERENT = 5
"""So many different outputs at least have the tests of a problem; no guess passes them."""
TIMEOUT = 2.0
TRIES = 50
VOWELS = "aeiou"
FORMS = {
    "numbers": "reads n (at least 1) from the first line and n whole numbers, separated by spaces, from the second",
    "word": "reads one line with a word of lower-case letters",
}
READERS = {"numbers": "n = int(input())\nxs = list(map(int, input().split()))[:n]\n", "word": "s = input().strip()\n"}


class Step(NamedTuple):
    """One operation: in words, as a function, and as the line of a program."""

    text: str
    change: Callable
    code: str


class Size(NamedTuple):
    """How large a problem is."""

    steps: int
    length: int
    """The longest input in the tests."""


SIZES = (Size(1, 6), Size(2, 8), Size(3, 10), Size(4, 12), Size(6, 14))


class Plan(NamedTuple):
    """A problem before it is put in words."""

    form: str
    steps: tuple[Step, ...]
    final: Step


def draw(level: int, rng: np.random.Generator) -> dict:
    """A problem of a level: 1, 2, 3, 4 or 6 steps before something is printed, with hidden tests.

    Raises:
      ValueError: unknown level.
    """
    size = at_level(SIZES, level)
    plan, inputs = _draw_plan(size, rng)
    while len(plan.steps) < size.steps or not is_sharp(plan, inputs):
        plan, inputs = _draw_plan(size, rng)
    lines = [f"{place}. {step.text}." for place, step in enumerate((*plan.steps, plan.final), start=1)]
    empty = ["If nothing is left, it prints an empty line."] if plan.final.text.startswith("Print") else []
    task = f"Write a Python program that {FORMS[plan.form]}, and then does, in order:"
    question = "\n".join([task, *lines, *empty, "Give the whole program in a ```python block."])
    tests = [{"stdin": write_input(plan.form, value), "stdout": run_plan(plan, value) + "\n"} for value in inputs]
    record = {"family": "programs", "level": level, "question": question, "tests": tests, "timeout": TIMEOUT}
    return record | {"scoring": "all", "solution": reference_solution(plan)}


judge = code_reward
"""Judges the program in a completion by the record's tests, in the sandbox: 1 or 0."""


def reference_solution(plan: Plan) -> str:
    """A program that solves a problem."""
    return READERS[plan.form] + "".join(f"{step.code}\n" for step in (*plan.steps, plan.final))


def run_plan(plan: Plan, value: tuple[int, ...] | str) -> str:
    """What a right program prints for an input."""
    for step in plan.steps:
        value = step.change(value)
    return plan.final.change(value)


def is_sharp(plan: Plan, inputs: list) -> bool:
    """Whether tests with these inputs expect enough different outputs, and fail a program that leaves out a step."""
    outputs = [run_plan(plan, value) for value in inputs]
    shorter = [plan._replace(steps=plan.steps[:place] + plan.steps[place + 1 :]) for place in range(len(plan.steps))]
    idle = any([run_plan(other, value) for value in inputs] == outputs for other in shorter)
    return len(set(outputs)) >= DIFFERENT and not idle


def write_input(form: str, value: tuple[int, ...] | str) -> str:
    """An input as the program reads it."""
    return f"{len(value)}\n{' '.join(map(str, value))}\n" if form == "numbers" else f"{value}\n"


def _draw_plan(size: Size, rng) -> tuple[Plan, list]:
    """Steps that each change most of the inputs, as many as were found, and the inputs."""
    form = str(rng.choice(list(FORMS)))
    inputs = _draw_inputs(form, size.length, rng)
    steps, values, before_last = [], inputs, None
    for _ in range(TRIES):
        if len(steps) == size.steps:
            break
        choices = _number_steps(rng) if form == "numbers" else _word_steps(rng)
        step = choices[int(rng.integers(len(choices)))]
        changed = [step.change(value) for value in values]
        shown = sum(before != after for before, after in zip(values, changed, strict=True))
        # A step must matter in most tests, leave enough, and not undo or repeat the one before.
        undone = changed == before_last or (steps and step.text == steps[-1].text)
        if 2 * shown > TESTS and sum(len(value) > 1 for value in changed) > TESTS // 2 and not undone:
            before_last, values = values, changed
            steps.append(step)
    finals = _number_finals() if form == "numbers" else _word_finals()
    return Plan(form, tuple(steps), finals[int(rng.integers(len(finals)))]), inputs


def _draw_inputs(form: str, longest: int, rng) -> list:
    """Inputs of all lengths, the shortest possible and one with repetitions among them."""
    lengths = [1, 2, longest, longest, *rng.integers(3, longest + 1, TESTS - 4).tolist()]
    if form == "numbers":
        spans = [20] * (TESTS - 1) + [3]
        return [tuple(rng.integers(-span, span + 1, n).tolist()) for n, span in zip(lengths, spans, strict=True)]
    letters = [string.ascii_lowercase] * 2 + [VOWELS + "bdlmnrst"] * (TESTS - 3) + ["abe"]
    return ["".join(rng.choice(list(some), n).tolist()) for n, some in zip(lengths, letters, strict=True)]


def _number_steps(rng) -> list[Step]:
    k, m = int(rng.integers(2, 10)), int(rng.integers(-8, 9))
    unique = lambda xs: tuple(dict.fromkeys(xs))
    sums = lambda xs: tuple(itertools.accumulate(xs))
    return [
        Step("Reverse the order of the numbers", lambda xs: xs[::-1], "xs = xs[::-1]"),
        Step("Sort the numbers in increasing order", lambda xs: tuple(sorted(xs)), "xs.sort()"),
        Step("Sort the numbers in decreasing order", lambda xs: tuple(sorted(xs))[::-1], "xs.sort(reverse=True)"),
        Step("Keep only the even numbers", lambda xs: tuple(x for x in xs if x % 2 == 0),
             "xs = [x for x in xs if not x & 1]"),
        Step("Keep only the odd numbers", lambda xs: tuple(x for x in xs if x % 2), "xs = [x for x in xs if x & 1]"),
        Step(f"Remove every number less than {m}", lambda xs: tuple(x for x in xs if x >= m),
             f"xs = [x for x in xs if not x < {m}]"),
        Step(f"Remove every multiple of {k}", lambda xs: tuple(x for x in xs if x % k),
             f"xs = [x for x in xs if x % {k} != 0]"),
        Step(f"Replace each number by its remainder when divided by {k} (from 0 to {k - 1})",
             lambda xs: tuple(x % k for x in xs), f"xs = [(x % {k} + {k}) % {k} for x in xs]"),
        Step(f"Subtract each number from {m}", lambda xs: tuple(m - x for x in xs), f"xs = [{m} - x for x in xs]"),
        Step(f"Multiply each number by {k}", lambda xs: tuple(k * x for x in xs), f"xs = [x * {k} for x in xs]"),
        Step(f"Add {k} to each number", lambda xs: tuple(x + k for x in xs), f"xs = [x + {k} for x in xs]"),
        Step("Replace each number by its square", lambda xs: tuple(x * x for x in xs), "xs = [x ** 2 for x in xs]"),
        Step("Replace each number by its absolute value", lambda xs: tuple(map(abs, xs)),
             "xs = [-x if x < 0 else x for x in xs]"),
        Step("Remove all but the first of equal numbers", unique,
             "xs = [x for i, x in enumerate(xs) if x not in xs[:i]]"),
        Step("Replace each number by the sum of itself and all before it", sums,
             "for i in range(1, len(xs)):\n    xs[i] += xs[i - 1]"),
        Step("Keep every second number, beginning with the first", lambda xs: xs[::2],
             "xs = [x for i, x in enumerate(xs) if i % 2 == 0]"),
        Step("Move the first number to the end", lambda xs: xs[1:] + xs[:1], "if xs:\n    xs.append(xs.pop(0))"),
    ]  # fmt: skip


def _word_steps(rng) -> list[Step]:
    k, letter = int(rng.integers(1, 13)), str(rng.choice(list("abdelmnrst")))
    letters = string.ascii_lowercase
    shifted = str.maketrans(letters, letters[k:] + letters[:k])
    later = f"{k} letter{'s' if k > 1 else ''} later in the alphabet (a comes after z)"
    return [
        Step("Reverse the word", lambda s: s[::-1], "s = ''.join(reversed(s))"),
        Step("Sort the letters in alphabetical order", lambda s: "".join(sorted(s)), "s = ''.join(sorted(s))"),
        Step("Remove the vowels (a, e, i, o, u)", lambda s: "".join(c for c in s if c not in VOWELS),
             "for c in 'aeiou':\n    s = s.replace(c, '')"),
        Step(f"Remove every {letter}", lambda s: "".join(c for c in s if c != letter),
             f"s = s.replace('{letter}', '')"),
        Step("Write every letter twice", lambda s: "".join(c + c for c in s), "s = ''.join(c * 2 for c in s)"),
        Step("Remove all but the first of equal letters", lambda s: "".join(dict.fromkeys(s)),
             "s = ''.join(c for i, c in enumerate(s) if c not in s[:i])"),
        Step(f"Replace each letter by the one {later}", lambda s: s.translate(shifted),
             f"s = ''.join(chr((ord(c) - 97 + {k}) % 26 + 97) for c in s)"),
        Step("Keep every second letter, beginning with the first", lambda s: s[::2],
             "s = ''.join(c for i, c in enumerate(s) if not i % 2)"),
        Step("Move the last letter to the front", lambda s: s[-1:] + s[:-1], "s = s[len(s) - 1:] + s[:-1] if s else s"),
        Step("Append the reversed word", lambda s: s + s[::-1], "s += s[::-1]"),
    ]  # fmt: skip


def _number_finals() -> list[Step]:
    return [
        Step("Print the numbers on one line, separated by spaces", lambda xs: " ".join(map(str, xs)), "print(*xs)"),
        Step("Print the numbers on one line, separated by spaces", lambda xs: " ".join(map(str, xs)), "print(*xs)"),
        Step("Count the numbers and print how many there are", lambda xs: str(len(xs)), "print(len(xs))"),
        Step("Add the numbers up and print the sum, which is 0 if nothing is left", lambda xs: str(sum(xs)),
             "print(sum(xs))"),
    ]  # fmt: skip


def _word_finals() -> list[Step]:
    return [
        Step("Print the word", lambda s: s, "print(s)"),
        Step("Print the word", lambda s: s, "print(s)"),
        Step("Count the different letters and print how many there are", lambda s: str(len(set(s))),
             "print(len(set(s)))"),
    ]  # fmt: skip
