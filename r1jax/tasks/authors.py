"""The miniature's base corpus: solutions and worksheets by a population of imperfect authors.

Most authors blurt, some try once and answer whatever came out, few search and most of those give up early; all slip in
arithmetic, and some forget parts of the format. Worksheets are marked sums without think or answer tags, with no
stopping and no answer: they teach arithmetic and marking, not when to go on. Only training problems appear.

`Population()` writes about countdown in English alone; `WORLD` about every family of the miniature, in two languages
that half of its authors mix.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from r1jax.tasks import chains, functions, requests, safety
from r1jax.tasks.countdown import CHINESE_PHRASES, QUESTION_PHRASES, Problem, candidates, problems
from r1jax.tasks.families import MINIATURE, family_reward, is_held_out
from r1jax.tasks.languages import LANGUAGES, MARKS, WAIT, Language
from r1jax.tasks.solutions import SOLVERS, Author, slipped

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
    chains: float = 0.0
    """Share of documents about chains; the rest after all shares is about countdown."""
    functions: float = 0.0
    """Share of documents about functions."""
    requests: float = 0.0
    """Share of documents that answer requests."""
    safety: float = 0.0
    """Share of documents that answer harmful requests and harmless ones that look like them."""
    careful: float = 0.3
    """Authors of the last four who work carefully."""
    chat: float = 0.0
    """Solutions and answers laid out as a conversation instead of in the format of R1-Zero."""
    chinese: float = 0.0
    """Share of questions that are asked in Chinese."""
    mixing: float = 0.0
    """Authors who mix the languages: every step of theirs is in one or the other with equal chance."""


WORLD = Population(
    worksheet=0.45, chains=0.14, functions=0.1, requests=0.09, safety=0.05, chat=0.25, chinese=0.5, mixing=0.5
)
"""The population of the miniature world, in which every stage of DeepSeek-R1 has something to do."""


def phrases(population: Population) -> tuple[str, ...]:
    """Constant strings of the population's documents that deserve a token of their own; tags and prompts are not here."""
    if not sum(getattr(population, family) for family in SOLVERS):
        return QUESTION_PHRASES
    words = [*QUESTION_PHRASES, *CHINESE_PHRASES, *WORKSHEET.values()]
    words += [text for language in LANGUAGES for text in (*safety.HELP[language], safety.DECLINE[language])]
    for module in (chains, functions):
        words += module.OPENING.values()
    words += [*chains.CLOSING.values(), *requests.POLITE.values(), *(start for start, _ in BOXED.values())]
    codes = [part.code for part in (*functions.CHOICES, functions.ALL) if " " in part.code]
    codes += [part.code.format("xs") for part in functions.RESULTS]
    return (*words, *codes, *(f"`{code}`" for code in codes), functions.FENCE_OPEN, r"\boxed{")


class Document(NamedTuple):
    """One text of the corpus: a question with a response, or a worksheet."""

    record: dict
    """The problem."""
    kind: str
    """blurt, single, search or worksheet about countdown; careful or careless about other families."""
    text: str
    """The response; of a worksheet, all of it."""
    attempts: int
    """Computed and marked attempts."""
    solved: bool
    """A search whose every value is right and whose answer reaches the target."""
    form: Literal["r1_zero", "chat", "worksheet"] = "r1_zero"
    """How it is laid out."""


def write_document(rng: np.random.Generator, population: Population, levels: tuple[int, ...] = (1, 2, 3)) -> Document:
    """Draw a training problem of one of the levels and have one author write about it."""
    shares = [getattr(population, family) for family in SOLVERS]
    if sum(shares):
        place, drawn = 0, rng.random()
        for place, family in enumerate(SOLVERS):
            if drawn < sum(shares[: place + 1]):
                return _other_document(rng, population, family)
    pool = problems(int(rng.choice(levels)), "train")
    problem = pool[rng.integers(len(pool))]
    numbers = tuple(int(n) for n in rng.permutation(problem.numbers))
    problem = problem._replace(numbers=numbers)
    if population.chinese and rng.random() < population.chinese:
        problem = problem._replace(language="zh")
    author = _author(rng, population)
    if rng.random() < population.worksheet:
        return _worksheet(author, problem)
    return _solution(author, population, problem)


def response_text(thought: str, answer: str) -> str:
    """A response in the format of R1-Zero."""
    return f"<think> {thought} </think> <answer> {answer} </answer>".replace("  ", " ")


def chat_text(thought: str, summary: str) -> str:
    """A response in the form of the released DeepSeek-R1."""
    return f"<think> {thought} </think> {summary}".replace("  ", " ")


WORKSHEET = {"en": "Worksheet:", "zh": "练习："}
BOXED = {"en": ("The answer is", "."), "zh": ("答案是", "。")}


def boxed(answer: str, language: Language) -> str:
    r"""A sentence that states an answer in \boxed{}."""
    start, end = BOXED[language]
    return f"{start} \\boxed{{ {answer} }} {end}"


def _author(rng, population: Population, careful: bool = True) -> Author:
    mixes = bool(population.mixing) and rng.random() < population.mixing
    return Author(rng, careful, mixes, population.slip)


def _order(rng, problem: Problem) -> list[tuple[str, int]]:
    """The candidates in the order an author takes them: half of the authors go in reading order, half at random."""
    options = candidates(problem.numbers)
    if rng.random() < 0.5:
        return options
    return [options[i] for i in rng.permutation(len(options))]


def _mark(author: Author, value: int, problem: Problem) -> str:
    return MARKS[author.language(problem.language)][value != problem.target]


def _worksheet(author: Author, problem: Problem) -> Document:
    rng = author.rng
    options = _order(rng, problem)
    start = rng.integers(len(options))
    length = int(rng.integers(1, len(options) + 1))
    lines = [
        f"{text} = {value} {_mark(author, value, problem)}"
        for text, value in (options[start:] + options[:start])[:length]
    ]
    text = f"{problem.question} {WORKSHEET[problem.language]} {' '.join(lines)}"
    return Document(problem.record, "worksheet", text, length, False, "worksheet")


def _solution(author: Author, population: Population, problem: Problem) -> Document:
    rng = author.rng
    options = _order(rng, problem)
    habit = rng.random()
    if habit < population.blurt:
        guess, _ = options[rng.integers(len(options))]
        return _laid_out(rng, population, problem.record, "blurt", guess, guess)
    kind = "single" if habit < population.blurt + population.single else "search"
    if kind == "single":
        options = [options[rng.integers(len(options))]]
    steps, right = [], True
    for answer, value in options:
        if rng.random() < population.slip:
            value, right = slipped(rng, value), False
        wait = f"{WAIT[author.language(problem.language)]} " if steps and rng.random() < population.wait else ""
        steps.append(f"{wait}{answer} = {value} {_mark(author, value, problem)}")
        if value == problem.target or rng.random() < population.give_up:
            break
    solved = kind == "search" and right and value == problem.target
    return _laid_out(rng, population, problem.record, kind, " ".join(steps), answer, len(steps), solved)


def _other_document(rng, population: Population, family: str) -> Document:
    record = _training_record(rng, population, family)
    if family == "chains" and rng.random() < population.worksheet:
        return _chain_worksheet(_author(rng, population), record)
    author = _author(rng, population, careful=rng.random() < population.careful)
    thought, answer = SOLVERS[family](author, record)
    return _laid_out(rng, population, record, "careful" if author.careful else "careless", thought, answer)


def _training_record(rng, population: Population, family: str) -> dict:
    levels, draw = MINIATURE[family].levels, MINIATURE[family].draw
    while True:
        language = LANGUAGES[int(rng.random() < population.chinese)]
        record = draw(levels[rng.integers(len(levels))], rng, language)
        if not is_held_out(record):
            return record


def _chain_worksheet(author: Author, record: dict) -> Document:
    lines = " ".join(f"{text} = {after}" for text, after in record["steps"])
    text = f"{record['question']} {WORKSHEET[record['language']]} {lines}"
    return Document(record, "worksheet", text, 0, False, "worksheet")


def _laid_out(
    rng, population, record: dict, kind: str, thought: str, answer: str, attempts=0, solved=False
) -> Document:
    if population.chat and rng.random() < population.chat:
        plain = record["family"] not in ("countdown", "chains")
        summary = answer if plain else boxed(answer, record["language"])
        response = chat_text(thought, summary) if rng.random() < 0.7 else summary
        return Document(record, kind, response, attempts, solved, "chat")
    response = response_text(thought, answer)
    if rng.random() < population.malformed:
        missing = str(rng.choice(("<think> ", "</think> ", "<answer> ", " </answer>", "")))
        response = response.replace(missing, "", 1) if missing else response + " yes"
    return Document(record, kind, response, attempts, solved)


def describe_corpus(population: Population, levels: tuple[int, ...], *, documents: int, seed: int) -> dict[str, float]:
    """What a sample of the corpus contains, as shares.

    `complete correct searches` are countdown solutions with at least one failed attempt before the one that is right,
    every value right, and the right answer: the behaviour that reinforcement learning is meant to bring out.
    """
    rng = np.random.default_rng(seed)
    sample = [write_document(rng, population, levels) for _ in range(documents)]
    solutions = [d for d in sample if d.kind != "worksheet"]
    countdown = [d for d in solutions if d.record["family"] == "countdown"]
    share = lambda chosen, of: len(chosen) / len(of)
    right = lambda documents: [d for d in documents if family_reward(d.record, d.text).outcome == "correct"]
    complete = [d for d in countdown if d.solved and d.attempts >= 2]
    result = {"worksheets, of all documents": 1 - share(solutions, sample)}
    result |= {f"{kind}, of solutions": share([d for d in countdown if d.kind == kind], countdown) for kind in KINDS}
    result["right answer, of solutions"] = share(right(countdown), countdown)
    result["complete correct searches, of solutions"] = share(complete, countdown)
    result["complete correct searches, of all documents"] = share(complete, sample)
    for family in SOLVERS:
        if chosen := [d for d in solutions if d.record["family"] == family]:
            result[f"{family}, of all documents"] = share(chosen, sample)
            if family != "functions":  # would take a sandbox for every document
                result[f"right answer, of {family}"] = share(right(chosen), chosen)
    return result


def main() -> None:
    """Print what both corpora contain."""
    for name, population in {"Population()": Population(), "WORLD": WORLD}.items():
        print(name)
        for what, value in describe_corpus(population, (1, 2), documents=50_000, seed=0).items():
            print(f"  {what:45s} {100 * value:5.1f}%")


if __name__ == "__main__":
    main()
