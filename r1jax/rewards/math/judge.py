"""The judge of mathematical answers: the tiers from cheap to dear, and what each outcome means."""

import math
import re
from dataclasses import fields
from functools import lru_cache
from numbers import Real
from typing import Literal, NamedTuple

from r1jax.rewards.answer import final_answer
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.math import symbolic
from r1jax.rewards.math.choices import pick_choice, read_choices
from r1jax.rewards.math.comparison import same
from r1jax.rewards.math.equality import evaluate, points
from r1jax.rewards.math.evaluate import TooBig, Undecided, Undefined, Work
from r1jax.rewards.math.latex import Malformed, Token, Unsupported, group_digits, tokenize
from r1jax.rewards.math.nodes import Node, is_integer, is_proper_fraction
from r1jax.rewards.math.reading import read_structure
from r1jax.rewards.math.structures import INFINITY, Bracket, Equation, Items, Quantity, Scalar, Structure
from r1jax.rewards.math.units import PERCENT

ASKS_PERCENT = re.compile(r"(?:what|which|how many|by how|find|calculate|express)[^.?!]{0,120}percent", re.IGNORECASE)
UNIT_IN_LETTERS = re.compile(r"(.*[\d}])\s*([a-zA-Z]{1,2}(?:/[a-zA-Z]{1,2})?)(\^\{?[23]\}?)?\s*\.?", re.DOTALL)
ARITHMETIC = {"num", "add", "mul", "neg", "div", "mixed", "percent"}


class Gold(NamedTuple):
    """A gold answer as read: its tokens and structure (None where only the symbolic tier reads it), or its problem."""

    tokens: tuple[Token, ...] = ()
    structure: Structure | None = None
    problem: str | None = None


class Comparison(NamedTuple):
    """Whether an answer is the gold answer, and why; "timeout" where the judge could not find out."""

    outcome: Literal["correct", "wrong", "gold_unparseable", "timeout"]
    reason: str = ""


def math_reward(record: dict, completion: str) -> Judgement:
    """Judge the final answer of a completion against `record["answer"]`: 1 or 0.

    What counts as the final answer, and when two answers are the same, is written down in docs/rewards_math.md. Never
    raises and never takes longer than about two seconds, whatever the text.

    Args:
      record: "answer", the gold as a string or a number; optionally "choices" (a list of texts, or a mapping from
        letters to texts), "question" (read only for whether it asks for a percentage) and "prefill".
      completion: what the policy wrote.
    """
    try:
        return judge(record, completion)
    except Exception as error:  # a mistake in this judge must not teach the policy
        return Judgement("error", 0.0, f"{type(error).__name__}: {error}"[:300])


def judge(record: dict, completion: str) -> Judgement:
    """Judge a completion; see `math_reward`."""
    answer = record.get("answer")
    problem = gold_problem(answer)
    if problem is not None:
        return Judgement("gold_unparseable", 0.0, problem)
    work = Work()

    def agree(first: str, second: str) -> bool:
        return compare_cheaply(first, second, work)

    final = final_answer(completion, record.get("prefill") or "", same=agree)
    if final.text is None:
        return Judgement("no_answer", 0.0, final.reason)
    outcome, reason = compare(
        gold_text(answer), final.text, work, record.get("choices"), str(record.get("question", ""))
    )
    return Judgement(outcome, float(outcome == "correct"), reason)


def same_answer(gold: str, answer: str) -> bool:
    """Whether an answer says the same as the gold answer; False where that cannot be found out.

    Args:
      gold: the answer that is right; it decides what may be left out, such as a unit.
      answer: the answer to compare, without the text around it.
    """
    if gold_problem(gold) is not None:
        return False
    return compare(gold_text(gold), answer, Work(), finished=False).outcome == "correct"


def check_gold(answer: object) -> str | None:
    """Why no answer can be judged against this gold answer; None where it can be. Cheap enough for a whole data set."""
    problem = gold_problem(answer)
    if problem is None and read_gold(gold_text(answer)).structure is None and not symbolic.readable(gold_text(answer)):
        problem = f"{gold_text(answer)[:100]!r} is not readable by the symbolic tier either"
    return problem


def gold_problem(answer: object) -> str | None:
    """What keeps a gold answer from being judged, as far as the cheap tiers can tell."""
    if not isinstance(answer, str | Real) or isinstance(answer, bool):
        return f"the gold answer is {type(answer).__name__}, not text or a number"
    try:
        if isinstance(answer, Real) and not math.isfinite(answer):
            return "the gold answer is not a finite number"
    except OverflowError:  # an integer beyond every float
        return "the gold answer is too large a number; write it as text"
    return read_gold(gold_text(answer)).problem


def gold_text(answer: str | Real) -> str:
    """The gold answer as text; a whole float is an integer, since JSON writes 27 as 27.0 in some data sets."""
    if isinstance(answer, float) and answer.is_integer() and abs(answer) < 1e15:
        return str(int(answer))
    return str(answer)


@lru_cache(maxsize=8192)
def read_gold(text: str) -> Gold:
    """A gold answer as read; its problem where it is malformed or has no value within the budget."""
    try:
        tokens = tuple(group_digits(tokenize(text), plain_commas=True))
        structure = read_structure(text)
        work = Work()
        for node in nodes_of(structure):
            evaluate(node, work, points(node, node)[0])
        return Gold(tokens, structure)
    except Unsupported as error:
        return Gold() if symbolic.within_budget(text) else Gold(problem=f"{text[:100]!r} is too large: {error}")
    except Malformed as error:
        return Gold(problem=f"{text[:100]!r} is no answer in any notation read here: {error}")
    except (TooBig, Undefined, Undecided) as error:
        return Gold(problem=f"{text[:100]!r} has no value within the budget: {error}")


def nodes_of(part: object) -> list[Node]:
    """Every expression in a structure, but infinity."""
    if isinstance(part, Node):
        return [] if INFINITY in (part, *part.args) else [part]
    if isinstance(part, tuple):
        return [node for item in part for node in nodes_of(item)]
    return (
        [n for field in fields(part) for n in nodes_of(getattr(part, field.name))]
        if hasattr(part, "__dataclass_fields__")
        else []
    )


def compare(
    gold: str, answer: str, work: Work, choices: object = None, question: str = "", *, finished: bool = True
) -> Comparison:
    """Compare an answer with a gold answer that `gold_problem` lets pass.

    Args:
      gold, answer: the two texts.
      work: the budget of the judgement.
      choices: the options of a multiple choice.
      question: to see whether a bare number is a percentage.
      finished: whether arithmetic with plain numbers must be carried out.
    """
    known = read_gold(gold)
    if known.structure is None:
        return by_symbols(gold, answer)
    try:
        tokens = group_digits(tokenize(answer), plain_commas=True)
        if [token[:2] for token in tokens] == [token[:2] for token in known.tokens]:
            return Comparison("correct", "the same text")
        if choices:
            options = read_choices(choices)
            right, picked = (pick_choice(options, read_structure(text), work) for text in (gold, answer))
            if right is not None:
                return Comparison("correct" if right == picked else "wrong", f"choice {picked}, gold {right}")
        readings = answer_readings(answer, known.structure)
        match = next((reading for reading in readings if alike(known.structure, reading, question, work)), None)
    except (Malformed, TooBig, Undecided) as error:
        return Comparison("wrong", f"the answer is not readable within the budget: {error}")
    if match is None:
        return Comparison("wrong", f"not the same: {answer[:100]!r}, gold {gold[:100]!r}")
    if finished and leaves_arithmetic(match) and not leaves_arithmetic(known.structure):
        return Comparison("wrong", f"leaves the arithmetic undone: {answer[:100]!r}")
    return Comparison("correct", "the same value")


def compare_cheaply(first: str, second: str, work: Work) -> bool:
    """Whether two answers of one completion agree, without the symbolic tier."""
    try:
        return first == second or same(read_structure(first), read_structure(second), work)
    except (Malformed, TooBig, Undecided):
        return False


def answer_readings(answer: str, gold: Structure) -> list[Structure]:
    """The ways to read an answer: with digit groups apart if the gold has several items; with letters as a unit.

    A gold without a unit takes 12 m/s, but not 12m, which may be a product.
    """
    readings = [read_structure(answer)]
    if isinstance(gold, Items | Bracket) and "," in answer:
        readings.append(read_structure(answer, plain_commas=False))
    measured = isinstance(gold, Quantity) and gold.unit.dimensions
    match = UNIT_IN_LETTERS.fullmatch(answer.strip().strip("$")) if measured or isinstance(gold, Scalar) else None
    if match and not isinstance(readings[0], Quantity) and (measured or "/" in match[2]):
        reading = read_structure(rf"{match[1]}\text{{ {match[2]}}}{match[3] or ''}")
        readings += [reading] if isinstance(reading, Quantity) and not reading.unit.nouns else []
    return readings


def alike(gold: Structure, answer: Structure, question: str, work: Work) -> bool:
    """Whether structures agree; where the question asks for a percentage, a bare number is one."""
    if same(gold, answer, work):
        return True
    if not question or not isinstance(gold, Scalar | Quantity) or not ASKS_PERCENT.search(question[-4000:]):
        return False
    units = getattr(gold, "unit", None), getattr(answer, "unit", None)
    return (
        isinstance(answer, Scalar | Quantity)
        and set(units) == {None, PERCENT}
        and same(Scalar(gold.node), Scalar(answer.node), work)
    )


def leaves_arithmetic(structure: Structure) -> bool:
    """Whether a value is a sum or product of plain numbers that nobody has computed, as 48/2 + 48 is.

    An integer plus a proper fraction is a mixed number, and a power of ten is scientific notation.
    """
    if isinstance(structure, Equation):
        return structure.value is not None and leaves_arithmetic(structure.value)
    if not isinstance(structure, Scalar | Quantity):
        return False
    found, stack = set(), [structure.node]
    while stack:
        node = stack.pop()
        if node.op == "add" and len(node.args) == 2 and is_integer(node.args[0]) and is_proper_fraction(node.args[1]):
            continue
        found.add(node.op)
        stack += [arg for arg in node.args if isinstance(arg, Node)]
    return found <= ARITHMETIC and bool(found & {"add", "mul"})


def by_symbols(gold: str, answer: str) -> Comparison:
    """The last tier, for golds that the others do not read: the gold alone decides that, so no answer can slow a judge.

    An answer that takes too much processor time is wrong, or a policy could hide behind it.
    """
    if "".join(gold.split()) == "".join(answer.split()):
        return Comparison("correct", "the same text")
    verdict = symbolic.same_expression(gold, answer)
    outcomes = {"same": "correct", "gold unreadable": "gold_unparseable", "timeout": "timeout", "not ready": "timeout"}
    return Comparison(outcomes.get(verdict, "wrong"), f"symbolic tier: {verdict}")
