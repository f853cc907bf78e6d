"""The final answer of a completion: what follows the reasoning, and the one answer in it."""

import re
from collections.abc import Callable
from typing import NamedTuple

BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t]*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BARE_ARGUMENT = re.compile(r"[^\s$,;]{1,200}")
HASH_LINE = re.compile(r"^[ \t]{0,8}####(.*)$", re.MULTILINE)
CORRECTION = re.compile(
    r"\b(?:wait|actually|oops|sorry|apologi[sz]e|mistakes?|mistaken|errors?|wrong|incorrect|correction|corrected|"
    r"recheck|re-check|rechecking|recalculat\w{0,6}|recomput\w{0,6}|reconsider\w{0,5}|redo|redoing|scratch that|"
    r"on second thought|hold on|not right|revised?|should be|should have been|instead)\b"
    r"|等等|不对|更正|纠正|错了|重新",
    re.IGNORECASE,
)
HEDGE = re.compile(r"\b(?:or|maybe|perhaps|possibly|alternatively|either|could be|might be)\b|或", re.IGNORECASE)
MAX_CHARACTERS = 200_000  # of a conclusion; of a longer one, which is no answer but a flood, only the end is read
MAX_CANDIDATES = 1000
OR = r"(?:(?:\\text\{\s{0,4})?(?:\bor\b|或者?)(?:\s{0,4}\})?)"
UNSURE = r"(?:\b(?:maybe|perhaps|possibly)\b|可能)"
ALTERNATIVE_AFTER = re.compile(
    rf"(?:[\s$).,]{{0,8}}\(?\s{{0,4}}{OR}(?:[\s,]{{0,4}}{UNSURE})?|[ $),]{{0,8}}{UNSURE})[\s,]{{0,4}}\$?"
    r"(-?\d{1,30}(?:/\d{1,30})?)(?![\d.,/]*\d|\s*\\?%|[a-zA-Z])",
    re.IGNORECASE,
)
ALTERNATIVE_BEFORE = re.compile(rf"(?<![\d.,/\w])(-?\d{{1,30}}(?:/\d{{1,30}})?)[\s$),]{{0,8}}{OR}[\s$(]{{0,8}}$")
DENIED = re.compile(r"\b(?:not|never|cannot|\w{2,6}n't)(?: be| equal| equal to)?[\s$(:]{0,8}$", re.IGNORECASE)
NEGATED = re.compile(r"(?:[$=(]|\\\[)\s{0,4}[-−]\s{0,2}$")
HEDGE_REACH = 40  # characters before a box in which a hedge word turns a correction into a second guess


class FinalAnswer(NamedTuple):
    """The text of the final answer, or None and the reason why there is none."""

    text: str | None
    reason: str = ""


class Candidate(NamedTuple):
    """An answer that a completion marks, and where it stands; text None where its braces never close."""

    start: int
    end: int
    text: str | None


def conclusion(completion: str, prefill: str = "") -> str | None:
    """What follows the reasoning: the text after the last </think>; None where the reasoning never ended.

    A completion without any <think> tag, neither its own nor in `prefill` (what the prompt template already wrote at
    the start of the response), is all conclusion. An answer inside the reasoning is never part of it.
    """
    text = prefill + completion
    before, closed, after = text.rpartition("</think>")
    return None if "<think>" in after else after


def final_answer(
    completion: str, prefill: str = "", same: Callable[[str, str], bool] = lambda first, second: first == second
) -> FinalAnswer:
    r"""The final answer of a completion, or the reason why it has none.

    Only the text after the last </think> is read. If it has an <answer> block, it must have exactly one, and only its
    inside is read. The answer is the content of \boxed{...} or \fbox{...}; without a box, the text of the answer block;
    without a block, a last line `#### answer` as in GSM8K. Several boxes count as one if they agree; a later box
    replaces one that differs only if the text between them says that it is a correction. Boxes are never merged, and a
    box beside "or" and another whole number or fraction, or behind "not", is no answer.

    Args:
      completion: what the policy wrote.
      prefill: what the prompt template wrote before it.
      same: whether two answers agree, given stripped texts.
    """
    text = conclusion(completion, prefill)
    if text is None:
        return FinalAnswer(None, "the reasoning never ended")
    opened, closed = text.count("<answer>"), text.count("</answer>")
    block = None
    if opened or closed:
        if (opened, closed) != (1, 1) or text.index("</answer>") < text.index("<answer>"):
            return FinalAnswer(None, "not exactly one <answer> ... </answer> block")
        text = block = text.partition("<answer>")[2].partition("</answer>")[0]
    text = text[-MAX_CHARACTERS:]
    candidates = boxes(text)
    if candidates:
        return committed(text, candidates, same)
    if block is not None:
        lines = hash_lines(block)
        answer = lines[-1].text if lines else block.strip()
        return FinalAnswer(answer) if answer else FinalAnswer(None, "the answer block is empty")
    candidates = hash_lines(text)
    if candidates and not text[candidates[-1].end :].strip():
        return committed(text, candidates, same)
    return FinalAnswer(None, "no box, no answer block and no last line '#### answer'")


def boxes(text: str) -> list[Candidate]:
    r"""Every outermost \boxed{...} and \fbox{...} in order, and `\boxed 5`; one pass, whatever the text."""
    starts = [(match.start(), match.end()) for match in BOX.finditer(text)]
    if not starts:
        return []
    closing, stack = {}, []
    for match in BRACE.finditer(text, starts[0][0]):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            closing[stack.pop()] = match.start()
    found, done = [], 0
    for start, after in starts:
        if start < done:
            continue
        if text[after : after + 1] != "{":
            bare = BARE_ARGUMENT.match(text, after)
            done = bare.end() if bare else after
            found.append(Candidate(start, done, bare.group().rstrip(".") if bare else ""))
        elif after in closing:
            done = closing[after] + 1
            found.append(Candidate(start, done, unwrapped(text[after + 1 : done - 1])))
        else:
            found.append(Candidate(start, len(text), None))
            break
    return found


def unwrapped(text: str) -> str:
    r"""The content of a box whose whole content is a box again, however deep, stripped."""
    text = text.strip()
    while (match := BOX.match(text)) and text[match.end() : match.end() + 1] == "{" and text.endswith("}"):
        inner = text[match.end() + 1 : -1]
        depth = 0
        for brace in BRACE.finditer(inner):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth < 0:
                return text
        if len(inner) > 2000:  # not an answer; also keeps the nest of boxes from taking quadratic time
            return text
        text = inner.strip()
    return text


def hash_lines(text: str) -> list[Candidate]:
    """Every line that begins with `####`, as GSM8K marks its answers."""
    return [Candidate(match.start(), match.end(), match.group(1).strip()) for match in HASH_LINE.finditer(text)]


def committed(text: str, candidates: list[Candidate], same: Callable[[str, str], bool]) -> FinalAnswer:
    """The one answer that the candidates commit to, or the reason why they do not."""
    if len(candidates) > MAX_CANDIDATES:
        return FinalAnswer(None, f"more than {MAX_CANDIDATES} answers")
    if any(candidate.text is None for candidate in candidates):
        return FinalAnswer(None, "a box that never closes")
    last = candidates[-1].text
    compared = {last}
    for earlier, later in zip(reversed(candidates[:-1]), reversed(candidates), strict=False):
        between = text[earlier.end : later.start]
        if CORRECTION.search(between) and not HEDGE.search(between[-HEDGE_REACH:]):
            break  # what stands before is taken back
        if earlier.text in compared:
            continue
        if len(compared) > 8 or not same(last, earlier.text):
            return FinalAnswer(None, "several different answers, none marked as a correction")
        compared.add(earlier.text)
    if not last:
        return FinalAnswer(None, "the box is empty")
    before, after = text[: candidates[-1].start][-100:], text[candidates[-1].end :][:100]
    boxed = text.startswith("\\", candidates[-1].start)  # what stands above a line `####` is the solution
    if boxed and (DENIED.search(before) or NEGATED.search(before)):
        return FinalAnswer(None, "the answer is denied, or its sign is outside the box")
    for other in (ALTERNATIVE_AFTER.match(after), ALTERNATIVE_BEFORE.search(before)):
        if other and not same(last, other.group(1)):
            return FinalAnswer(None, f"{other.group(1)} is offered as well")
    return FinalAnswer(last)
