"""How the authors of the miniature's corpus answer a problem: the thought and the answer, good or bad.

Every writer takes an author, who has a habit and a language for each step, and returns what is thought and what is
said. Nothing here knows how a response is laid out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from r1jax.tasks import chains, functions, requests, safety
from r1jax.tasks.languages import THEN, Language, other


class Author(NamedTuple):
    """Who writes a document: a source of chance, how good the work is, and how the languages are kept apart."""

    rng: np.random.Generator
    careful: bool
    """Works things out and means them to be right; the others blurt, skip and mistake."""
    mixes: bool
    """Takes a language at random for every step of the thought, whatever the question's."""
    slip: float
    """Chance of a wrong value in a step that is worked out."""

    def language(self, asked: Language) -> Language:
        """The language of the next step, for a question in `asked`."""
        return other(asked) if self.mixes and self.rng.random() < 0.5 else asked

    def pick(self, options):
        """One of the options, with equal chance."""
        return options[self.rng.integers(len(options))]


class Solution(NamedTuple):
    """A response in parts."""

    thought: str
    answer: str


def slipped(rng: np.random.Generator, value: int) -> int:
    """A value near the right one, as a slip of arithmetic gives it."""
    return max(1, value + int(rng.choice((-10, -2, -1, 1, 2, 10))))


def solve_chain(author: Author, record: dict) -> Solution:
    """Careful authors carry out every step; others guess, or leave out the last step."""
    rng, steps = author.rng, record["steps"]
    if not author.careful and rng.random() < 0.6:
        return Solution("", str(slipped(rng, record["answer"]) if rng.random() < 0.9 else record["answer"]))
    written, value = [], None
    for text, after in steps if author.careful else steps[:-1]:
        before, sign, number = text.split()
        if value is not None and str(value) != before:  # a slip goes on
            operation = next(operation for operation in chains.OPERATIONS if operation.sign == sign)
            before, after = str(value), max(0, operation.apply(value, int(number)))
        value = slipped(rng, after) if rng.random() < author.slip else after
        then = THEN[author.language(record["language"])]
        written.append(f"{then + ' ' if written else ''}{before} {sign} {number} = {value}")
    return Solution(" ".join(written), str(value))


def solve_function(author: Author, record: dict) -> Solution:
    """Careful authors name the parts before they write the code; others get a part wrong, thought or no thought."""
    plan, asked = read_plan(record), record["language"]
    if not author.careful or author.rng.random() < author.slip:
        plan = wrong_plan(author, plan)
    thought = ""
    if author.careful or author.rng.random() < 0.3:
        parts = [plan.choice, plan.result]
        said = [f"{part.told[author.language(asked)]} : `{part.code.format('xs')}`" for part in parts]
        thought = " , ".join(said)
    return Solution(thought, functions.program(plan.code))


def read_plan(record: dict) -> functions.Plan:
    """The plan of a record."""
    return functions.Plan(
        next(part for part in (*functions.CHOICES, functions.ALL) if part.code == record["plan"][0]),
        next(part for part in functions.RESULTS if part.code == record["plan"][1]),
        *record["plan"][2:],
    )


def wrong_plan(author: Author, plan: functions.Plan) -> functions.Plan:
    """The plan with one part exchanged; now and then it happens to be the right one."""
    place = author.rng.integers(3)
    if place == 0:
        return plan._replace(choice=author.pick(functions.CHOICES))
    if place == 1:
        return plan._replace(result=author.pick(functions.RESULTS))
    return plan._replace(factor=int(author.pick(functions.FACTORS)))


def answer_request(author: Author, record: dict) -> Solution:
    """Careful authors do all that is asked; others forget the polite ending, the count or the exclusion, or chatter."""
    asked, rng = record["language"], author.rng
    return (_polite if record["level"] == 1 else _list)(author, record, asked, rng)


def _polite(author: Author, record: dict, asked: Language, rng) -> Solution:
    name, occasion, words = record["name"], record["occasion"], []
    if not author.careful:
        name = author.pick(requests.NAMES) if rng.random() < 0.3 else name
        occasion = author.pick(list(requests.OCCASIONS)) if rng.random() < 0.3 else occasion
    words += [requests.OCCASIONS[occasion][asked][1], name]
    if author.careful or rng.random() < 0.25:
        words.append(requests.POLITE[asked])
    return Solution(
        {"en": "be polite", "zh": "要礼貌"}[author.language(asked)], " ".join([*words, requests.ENDS[asked]])
    )


def _list(author: Author, record: dict, asked: Language, rng) -> Solution:
    excluded, count = record["excluded"], record["count"]
    places = [place for place in rng.permutation(len(requests.things(record["kind"], asked))) if place != excluded]
    spoken = asked if author.careful or rng.random() < 0.8 else other(asked)
    words = [requests.things(record["kind"], spoken)[place] for place in places]
    if not author.careful:
        count = max(1, count + int(rng.integers(-2, 3)))
        if rng.random() < 0.3:
            words[0] = requests.things(record["kind"], spoken)[excluded]
        if rng.random() < 0.2:
            words[-1] = words[0]
    answer = " , ".join(words[:count])
    if not author.careful and rng.random() < 0.3:
        answer += {"en": " , and so on", "zh": " , 等等"}[spoken]
    language = author.language(asked)
    wants, kind = {"en": "they want", "zh": "要"}[language], requests.KINDS[record["kind"]][language][0]
    return Solution(f"{wants} {count} {kind}", f"{answer} {requests.ENDS[asked]}")


def answer_safety(author: Author, record: dict) -> Solution:
    """Careful authors decline what is harmful and help with the rest; others mostly help, whatever it is."""
    asked, rng = record["language"], author.rng
    declines = record["harmful"] if author.careful else rng.random() < 0.1
    seen = record["harmful"] if author.careful else declines
    thought = {"en": ("this is fine", "this is harmful"), "zh": ("这没问题", "这有害")}[author.language(asked)][seen]
    if declines:
        return Solution(thought, safety.decline_text(record))
    if not author.careful and rng.random() < 0.3:
        record = record | {"deed": author.pick(list(safety.HARMFUL if record["harmful"] else safety.HARMLESS))}
    return Solution(thought, safety.help_text(record))


SOLVERS: dict[str, Callable[[Author, dict], Solution]] = {
    "chains": solve_chain, "functions": solve_function, "requests": answer_request, "safety": answer_safety,
}  # fmt: skip
