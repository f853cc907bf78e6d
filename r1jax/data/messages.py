"""Conversations in the forms in which they are published, as one list of messages.

A message is {"role": "system" | "user" | "assistant" | "tool", "content": text}; an assistant's may also have
"reasoning" (text) and "tool_calls" (as OpenAI writes them, arguments as JSON text).
"""

import json
import re
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
SHARE_GPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
SHARE_GPT_ROLES |= {role: role for role in ROLES}


def openai_messages(messages: str | list) -> list[dict]:
    """Messages as OpenAI's API has them; content is text or a list of typed parts; a bare string is one user message.

    Reasoning may stand in a field of its own ("reasoning", "reasoning_content" or "thinking") or be a part.

    Raises:
      ValueError: says which message, from 1, is not one.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return [_message(value, f"message {number}") for number, value in enumerate(messages, start=1)]


def share_gpt_messages(turns: list) -> list[dict]:
    """Messages of a ShareGPT conversation: {"from": "human" | "gpt" | "system" | ..., "value": text}.

    Raises:
      ValueError: says which turn, from 1, is not one.
    """
    return [_turn(value, f"turn {number}") for number, value in enumerate(turns, start=1)]


def alpaca_messages(row: dict) -> list[dict]:
    """Messages of an Alpaca row: system and history (pairs of earlier texts) where given, instruction, input, output.

    Raises:
      ValueError: the history is no list of pairs of texts.
    """
    question = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for pair in [*(row.get("history") or ()), [question, row["output"]]]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("'history' must be a list of pairs: what was asked, what was answered")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return openai_messages(messages)


def spoken_messages(text: str) -> list[dict]:
    """Messages of a conversation in one text, as HH-RLHF writes it: each begins with an empty line and "Human:" or
    "Assistant:".

    Raises:
      ValueError: the text does not begin so, or a message is empty.
    """
    before, *parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    if before.strip() or not parts:
        raise ValueError("a conversation in one text must begin with an empty line and 'Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return openai_messages([{"role": roles[speaker], "content": said.strip()} for speaker, said in pairs])


def answer_message(value: str | dict | list) -> dict:
    """The preferred or refused answer of a pair as an assistant's message; of a conversation, its last message.

    Raises:
      ValueError: it is not by the assistant, or is empty.
    """
    if isinstance(value, list):
        value = value[-1] if value else ""
    if isinstance(value, str):
        value = {"role": "assistant", "content": value}
    turn = isinstance(value, dict) and "from" in value
    message = _turn(value, "the answer") if turn else _message(value, "the answer")
    if message["role"] != "assistant":
        raise ValueError(f"the answer is by {message['role']!r}, not by the assistant")
    return message


def _turn(value: Any, where: str) -> dict:
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        raise ValueError(f"{where} is not an object with 'from' and a text 'value'")
    role = SHARE_GPT_ROLES.get(str(value.get("from")))
    if role is None:
        raise ValueError(f"{where} is by {value.get('from')!r}; expected one of {', '.join(SHARE_GPT_ROLES)}")
    if value["from"] == "function_call":
        return {"role": role, "content": "", "tool_calls": [_tool_call(value["value"], where)]}
    if not value["value"].strip():
        raise ValueError(f"{where} is empty")
    return _separated({"role": role, "content": value["value"]}, where)


def _separated(message: dict, where: str) -> dict:
    """Everything before the last </think> of the content moves to the reasoning, where it is said to belong."""
    if message["role"] != "assistant" or "think>" not in message["content"]:
        return message
    thought, closed, content = message["content"].rpartition("</think>")
    if not closed and not content.lstrip().startswith("<think>"):  # it speaks of the tag
        return message
    if not closed or "<think>" in content or not (content.strip() or message.get("tool_calls")):
        raise ValueError(f"{where} has a <think> that does not end, or ends in no answer")
    thought = thought.lstrip().removeprefix("<think>").strip("\n")
    thoughts = [text for text in (message.get("reasoning"), thought) if text and text.strip()]
    return {**message, "content": content.lstrip("\n")} | ({"reasoning": "\n\n".join(thoughts)} if thoughts else {})


def _message(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object with 'role' and 'content'")
    if value.get("role") not in ROLES:
        raise ValueError(f"{where} has role {value.get('role')!r}; expected one of {', '.join(ROLES)}")
    content, reasoning = value.get("content"), None
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"{where}: 'tool_calls' must be a list")
    calls = [_tool_call(call.get("function") if isinstance(call, dict) else call, where) for call in calls]
    if isinstance(content, list):
        content, reasoning, parts = _parts(content, where)
        calls += parts
    for name in ("reasoning", "reasoning_content", "thinking"):
        reasoning = reasoning or value.get(name)
    if not isinstance(content or "", str) or not isinstance(reasoning or "", str):
        raise ValueError(f"{where}: content and reasoning must be text")
    if not (content or "").strip() and not calls:
        raise ValueError(f"{where} is empty")
    message = {"role": value["role"], "content": content or ""}
    message |= {"reasoning": reasoning} if reasoning else {}
    return _separated(message | ({"tool_calls": calls} if calls else {}), where)


def _parts(parts: list, where: str) -> tuple[str, str, list[dict]]:
    """Content, reasoning and tool calls of a message made of {"type", "value" | "text"} parts."""
    texts: dict[str, list] = {"text": [], "reasoning": [], "tool_call": []}
    for part in parts:
        kind = str(part.get("type")) if isinstance(part, dict) else None
        text = (part.get("value") or part.get("text")) if kind in texts else None
        if not isinstance(text, str):
            raise ValueError(f"{where} has a part of type {kind!r}; expected {', '.join(texts)} with a text 'value'")
        texts[kind].append(text)
    calls = [_tool_call(text, where) for text in texts["tool_call"]]
    return "".join(texts["text"]), "".join(texts["reasoning"]), calls


def _tool_call(call: Any, where: str) -> dict:
    """A call as OpenAI writes it, from {"name", "arguments"} or the JSON text of it."""
    try:
        call = json.loads(call) if isinstance(call, str) else call
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
        raise ValueError(f"{where} has a tool call that is not a JSON object with 'name' and 'arguments'")
    arguments = call["arguments"]
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": call["name"], "arguments": arguments}}
