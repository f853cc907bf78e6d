"""The program in a completion: the last complete fenced block of what follows the reasoning."""

from typing import NamedTuple

from r1jax.rewards.answer import conclusion

LANGUAGES = ("python", "py", "python3")
"""Labels, in lower case, of the fences that hold a program."""

FENCES = "`~"
MIN_FENCE = 3


class Extracted(NamedTuple):
    """The program of a completion, or None and the reason why there is none."""

    code: str | None
    reason: str = ""


class Fence(NamedTuple):
    """A line that opens or closes a block."""

    indent: str
    mark: str
    """"`" or "~"."""
    length: int
    label: str
    """The first word after the marks, in lower case; a fence with a label closes nothing."""


def extract_code(completion: str, prefill: str = "") -> Extracted:
    """The last complete Python block of the conclusion.

    Blocks are fenced as in CommonMark: three or more backticks or tildes, closed by a line of at least as many of the
    same mark and nothing else, so that shorter fences inside are text. The label may be python, py or python3 in any
    case. A block without label is taken only where no block has such a label, because sample output is often shown in
    one. What indents the opening fence is taken from the lines of the block. A block that is not closed is no block.

    Args:
      completion: what the policy wrote.
      prefill: what the prompt template already wrote at the start of the response.

    Returns:
      The text of the block, or None with the reason.
    """
    text = conclusion(completion, prefill)
    if text is None:
        return Extracted(None, "the reasoning never ended")
    blocks, unclosed = read_blocks(text)
    programs = [body for label, body in blocks if label in LANGUAGES]
    programs = programs or [body for label, body in blocks if not label]
    if programs:
        empty = not programs[-1].strip()
        return Extracted(None, "the last Python code block is empty") if empty else Extracted(programs[-1])
    return Extracted(None, "the code block is not closed" if unclosed else "no Python code block after the reasoning")


def read_blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """All closed blocks of a text as (label, body) in reading order, and whether the text ends inside a block.

    One pass over the lines, each looked at once.
    """
    blocks, opened, body = [], None, []
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = read_fence(line)
        if opened is None:
            if fence is not None:
                opened, body = fence, []
        elif fence is not None and _closes(fence, opened):
            blocks.append((opened.label, "".join(f"{row}\n" for row in body)))
            opened = None
        else:
            body.append(_remove_indent(line, opened.indent))
    return blocks, opened is not None


def read_fence(line: str) -> Fence | None:
    """The fence that a line is, or None; an answer tag around it does not count."""
    before, tag, after = line.partition("<answer>")
    line = after if tag and not before.strip() else line
    line = line.rstrip().removesuffix("</answer>")
    rest = line.lstrip(" \t")
    mark = rest[:1]
    if not mark or mark not in FENCES:
        return None
    info = rest.lstrip(mark)
    length = len(rest) - len(info)
    if length < MIN_FENCE or (mark == "`" and "`" in info):  # inline code such as ```x``` opens nothing
        return None
    words = info.replace("{", " ").replace(",", " ").replace("}", " ").split(maxsplit=1)
    return Fence(line[: len(line) - len(rest)], mark, length, words[0].lower().lstrip(".") if words else "")


def _closes(fence: Fence, opened: Fence) -> bool:
    return fence.mark == opened.mark and fence.length >= opened.length and not fence.label


def _remove_indent(line: str, indent: str) -> str:
    if line.startswith(indent):
        return line[len(indent) :]
    return line.lstrip(" \t") if not line.strip() else line
