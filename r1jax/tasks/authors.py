"""The miniature's base corpus: solutions and worksheets by a population of imperfect authors.

Most authors blurt, some try once and answer whatever came out, few search and most of those give up early; all slip in
arithmetic, and some forget parts of the format. Worksheets are marked sums without think or answer tags, with no
stopping and no answer: they teach arithmetic and marking, not when to go on. Only training problems appear.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from r1jax.tasks.countdown import Problem, candidates, countdown_reward, problems

KINDS = ("blurt", "single", "search")


@dataclasses.dataclass(frozen=True)
class Population:
    """Shares of authors and their habits, each a probability."""

    blurt: float = 0.55
    """Authors who write down a guess without computing it."""
    single: float = 0.30
    """Authors who compute and mark one attempt, and answer it even where it failed. The rest search."""
    give_up: float = 0.4
    """Chance, after each failed attempt of a searching author, to answer it anyway."""
    wait: float = 0.15
    """Chance that a new attempt begins with the word "wait"."""
    slip: float = 0.03
    """Chance of a wrong value in a computed attempt."""
    malformed: float = 0.1
    """Chance that one of the tags is missing or text follows the answer."""
    worksheet: float = 0.5
    """Share of documents that are worksheets."""


class Document(NamedTuple):
    """One text of the corpus: a question with a response, or a worksheet."""

    problem: Problem
    kind: str
    """blurt, single, search or worksheet."""
    text: str
    attempts: int
    """Computed and marked attempts."""
    solved: bool
    """A search whose every value is right and whose answer reaches the target."""


def write_document(rng: np.random.Generator, population: Population, levels: tuple[int, ...] = (1, 2, 3)) -> Document:
    """Draw a training problem of one of the levels and have one author write about it."""
    pool = problems(int(rng.choice(levels)), "train")
    problem = pool[rng.integers(len(pool))]
    numbers = tuple(int(n) for n in rng.permutation(problem.numbers))
    problem = problem._replace(numbers=numbers)
    if rng.random() < population.worksheet:
        return _worksheet(rng, problem)
    return _solution(rng, population, problem)


def response_text(thought: str, answer: str) -> str:
    """A response in the format of R1-Zero."""
    return f"<think> {thought} </think> <answer> {answer} </answer>"


def _order(rng, problem: Problem) -> list[tuple[str, int]]:
    """The candidates in the order an author takes them: half of the authors go in reading order, half at random."""
    options = candidates(problem.numbers)
    if rng.random() < 0.5:
        return options
    return [options[i] for i in rng.permutation(len(options))]


def _mark(value: int, target: int) -> str:
    return "yes" if value == target else "no"


def _worksheet(rng, problem: Problem) -> Document:
    options = _order(rng, problem)
    start = rng.integers(len(options))
    length = int(rng.integers(1, len(options) + 1))
    lines = [
        f"{text} = {value} {_mark(value, problem.target)}"
        for text, value in (options[start:] + options[:start])[:length]
    ]
    return Document(problem, "worksheet", f"{problem.question} Worksheet: {' '.join(lines)}", length, False)


def _solution(rng, population: Population, problem: Problem) -> Document:
    options = _order(rng, problem)
    habit = rng.random()
    if habit < population.blurt:
        guess, _ = options[rng.integers(len(options))]
        return Document(problem, "blurt", _format(rng, population, guess, guess), 0, False)
    kind = "single" if habit < population.blurt + population.single else "search"
    if kind == "single":
        options = [options[rng.integers(len(options))]]
    steps, right = [], True
    for answer, value in options:
        if rng.random() < population.slip:
            value, right = max(1, value + int(rng.choice((-10, -2, -1, 1, 2, 10)))), False
        wait = "wait " if steps and rng.random() < population.wait else ""
        steps.append(f"{wait}{answer} = {value} {_mark(value, problem.target)}")
        if value == problem.target or rng.random() < population.give_up:
            break
    solved = kind == "search" and right and value == problem.target
    return Document(problem, kind, _format(rng, population, " ".join(steps), answer), len(steps), solved)


def _format(rng, population: Population, thought: str, answer: str) -> str:
    response = response_text(thought, answer)
    if rng.random() < population.malformed:
        missing = str(rng.choice(("<think> ", "</think> ", "<answer> ", " </answer>", "")))
        response = response.replace(missing, "", 1) if missing else response + " yes"
    return response


def describe_corpus(population: Population, levels: tuple[int, ...], *, documents: int, seed: int) -> dict[str, float]:
    """What a sample of the corpus contains, as shares.

    `complete correct searches` are solutions with at least one failed attempt before the one that is right, every value
    right, and the right answer: the behaviour that reinforcement learning is meant to bring out.
    """
    rng = np.random.default_rng(seed)
    sample = [write_document(rng, population, levels) for _ in range(documents)]
    solutions = [d for d in sample if d.kind != "worksheet"]
    share = lambda chosen, of: len(chosen) / len(of)
    complete = [d for d in solutions if d.solved and d.attempts >= 2]
    right = [d for d in solutions if countdown_reward(d.problem.record, d.text).outcome == "correct"]
    result = {"worksheets, of all documents": 1 - share(solutions, sample)}
    result |= {f"{kind}, of solutions": share([d for d in solutions if d.kind == kind], solutions) for kind in KINDS}
    result["right answer, of solutions"] = share(right, solutions)
    result["complete correct searches, of solutions"] = share(complete, solutions)
    result["complete correct searches, of all documents"] = share(complete, sample)
    return result


if __name__ == "__main__":
    for what, value in describe_corpus(Population(), (1, 2), documents=50_000, seed=0).items():
        print(f"{what:45s} {100 * value:5.1f}%")
