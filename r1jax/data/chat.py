"""Conversations as token ids, with a mask on what the assistant says.

A template turns messages (r1jax.data.messages) into parts of text: the prompt, and, where the last message is the
assistant's, its response, which alone is learned. Every part is tokenised by itself, so that no token straddles the
border: the prompt has the very ids it has when a response is sampled, and the mask is exact.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from r1jax.data.documents import Document

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
OUTPUTS_BEGIN, OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT_BEGIN, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
PREFILL = "<think>\n"
"""What the released template of DeepSeek-R1 writes at the start of every response."""


class Part(NamedTuple):
    """A stretch of rendered text, control tokens spelled out, and whether a model learns to write it."""

    text: str
    learned: bool = False


Template = Callable[[Sequence[dict]], list[Part]]
"""Messages to parts. Where the last message is not the assistant's, the prompt for one."""


class Vocabulary(NamedTuple):
    """What a template needs of a tokenizer."""

    encode: Callable[[str], Sequence[int]]
    """Text without control tokens to ids, adding none of its own."""
    controls: Mapping[str, int]
    """The spelling and id of every control token; no message may contain one."""


def render(messages: Sequence[dict], template: Template, vocabulary: Vocabulary) -> Document:
    """Token ids of a conversation; the last message is learned if it is the assistant's, its end token included.

    Raises:
      ValueError: there is no message, or one contains the spelling of a control token: as text it would forge a turn.
    """
    if not messages:
        raise ValueError("there is no message")
    split = _control_splitter(tuple(vocabulary.controls))
    for number, message in enumerate(messages, start=1):
        found = [piece for text in _texts(message) for piece in split(text) if piece in vocabulary.controls]
        if found:
            raise ValueError(f"message {number} contains the control token {found[0]!r} as text")
    ids: list[int] = []
    learned: list[bool] = []
    for part in template(messages):
        for piece in split(part.text):
            control = vocabulary.controls.get(piece)
            new = [control] if control is not None else vocabulary.encode(piece) if piece else []
            ids.extend(new)
            learned.extend([part.learned] * len(new))
    return Document(np.array(ids, np.int32), np.array(learned, bool))


def conversation_documents(
    messages: Sequence[dict], template: Template, vocabulary: Vocabulary, *, turns: Sequence[int] | None = None
) -> list[Document]:
    """Documents from which every message of the assistant is learned, each in the context it would be sampled in.

    Turns share a document as long as each one's prompt begins with the document so far. A template that rewrites the
    past, as R1's does when it drops old reasoning, gets one document a turn.

    Args:
      turns: indices of the messages to learn; every one of the assistant by default.

    Raises:
      ValueError: see `render`; or no message is by the assistant.
    """
    if turns is None:
        turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise ValueError("no message is by the assistant")
    documents: list[Document] = []
    for turn in turns:
        document = render(messages[: turn + 1], template, vocabulary)
        before = documents[-1] if documents else None
        if before and np.array_equal(document.ids[: len(before.ids)], before.ids):
            document.learned[: len(before.ids)] |= before.learned
            documents.pop()
        documents.append(document)
    return documents


def r1_template(prefill: str = PREFILL) -> Template:
    """The chat template of DeepSeek-R1 as released, with reasoning in the last message only.

    <bos>system<User>question<Assistant><think>
    reasoning
    </think>

    answer<eos>; earlier messages of the assistant lose their reasoning. A message without reasoning closes the block
    that `prefill` opened at once.

    Args:
      prefill: begins every response and belongs to the prompt; "" leaves the opening of <think> to the model.
    """
    return functools.partial(_r1_parts, prefill=prefill)


def plain_template(messages: Sequence[dict]) -> list[Part]:
    """Plain text in the manner of R1-Zero's prompt: system, "User:" and question, "Assistant:" and response, <eos>."""
    parts, system = [], " ".join(message["content"] for message in messages if message["role"] == "system")
    for number, message in enumerate(messages):
        content, reasoning = message["content"], message.get("reasoning")
        if message["role"] == "user":
            parts.append(Part(f"{system} User: {content} Assistant:".lstrip()))
            system = ""
        elif message["role"] == "assistant":
            text = f"<think> {reasoning} </think> {content}" if reasoning else content
            learned = number == len(messages) - 1
            parts += [Part(text, learned), Part(EOS, learned)]
        elif message["role"] == "tool":
            raise ValueError(f"message {number + 1} is a tool's; the plain template has no tools")
    return parts


def _control_splitter(controls: tuple[str, ...]) -> Callable[[str], list[str]]:
    if not controls:
        return lambda text: [text]
    pattern = re.compile("(" + "|".join(re.escape(c) for c in sorted(controls, key=len, reverse=True)) + ")")
    return pattern.split


def _texts(message: dict) -> Iterator[str]:
    yield message["content"]
    yield message.get("reasoning") or ""
    for call in message.get("tool_calls") or ():
        yield from (call["function"]["name"], call["function"]["arguments"])


def _r1_parts(messages: Sequence[dict], *, prefill: str) -> list[Part]:
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    parts, after_tool, last = [Part(BOS + system)], False, len(messages) - 1
    for number, message in enumerate(messages):
        role, is_last = message["role"], number == last
        if role == "user":
            parts.append(Part(USER + message["content"]))
        elif role == "tool":
            begin = "" if after_tool else OUTPUTS_BEGIN
            follows = not is_last and messages[number + 1]["role"] == "tool"
            parts.append(
                Part(begin + OUTPUT_BEGIN + message["content"] + OUTPUT_END + ("" if follows else OUTPUTS_END))
            )
        elif role == "assistant":
            parts += _r1_response(message, is_last, after_tool, prefill)
        after_tool = role == "tool"
    if messages[last]["role"] == "user":
        parts.append(Part(ASSISTANT + prefill))
    return parts


def _r1_response(message: dict, is_last: bool, after_tool: bool, prefill: str) -> list[Part]:
    prefill = "" if after_tool or not is_last else prefill  # after a tool the model goes on without a new turn
    text, calls = message["content"], message.get("tool_calls") or ()
    if is_last and message.get("reasoning"):
        thought = message["reasoning"].strip("\n")
        text = f"{'' if prefill else PREFILL}{thought}\n</think>\n\n{text}"
    elif prefill:
        text = f"\n</think>\n\n{text}"
    spelled = "\n".join(
        f"{CALL_BEGIN}{call['type']}{SEPARATOR}{call['function']['name']}\n```json\n{call['function']['arguments']}\n```"
        + CALL_END
        for call in calls
    )
    text += f"{CALLS_BEGIN}{spelled}{CALLS_END}" if calls else ""
    return [Part(("" if after_tool else ASSISTANT) + prefill), Part(text + EOS, is_last)]
