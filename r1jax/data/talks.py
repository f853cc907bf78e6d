"""Rows of conversations and of preferences between answers as records, without family and id."""

from typing import Any

from r1jax.data.messages import answer_message, openai_messages, share_gpt_messages, spoken_messages


def preference(row: dict) -> dict:
    """Two answers to the same messages, as messages.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    chosen, rejected = answer_message(row["chosen"]), answer_message(row["rejected"])
    if "conversations" in row:
        messages = share_gpt_messages(row["conversations"])
    elif isinstance(row["chosen"], list) and len(row["chosen"]) > 1:  # as in UltraFeedback, whose prompt is one of them
        messages = _before_both(openai_messages(row["chosen"]), row["rejected"])
    else:
        messages = openai_messages(row["prompt"])
    if chosen == rejected:
        raise ValueError("'chosen' and 'rejected' are the same")
    if messages[-1]["role"] == "assistant":
        raise ValueError("the last message before 'chosen' is by the assistant")
    return {"messages": messages, "chosen": chosen, "rejected": rejected}


def _before_both(chosen: list[dict], rejected: Any) -> list[dict]:
    """What a chosen conversation says before its last message; of a rejected one it must be the same."""
    if isinstance(rejected, list) and len(rejected) > 1 and openai_messages(rejected)[:-1] != chosen[:-1]:
        raise ValueError("'chosen' and 'rejected' differ before their last message")
    return chosen[:-1]


def two_conversations(row: dict) -> dict:
    """Two conversations that differ in the last message only, each a list or, as in HH-RLHF, one text.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    both = {name: row[name] for name in ("chosen", "rejected")}
    both = {name: spoken_messages(value) if isinstance(value, str) else value for name, value in both.items()}
    if len(both["chosen"]) < 2 or len(both["rejected"]) < 2:
        raise ValueError("'chosen' and 'rejected' must be conversations where there is no 'prompt'")
    return preference(both)


def question_preference(row: dict) -> dict:
    """Two answers to one question, with or without a system message.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return preference(row | {"prompt": [*system, {"role": "user", "content": row["question"]}]})


def prompt_completion(row: dict) -> dict:
    """A prompt and what completes it, each a text or messages.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    answer = row["completion"]
    answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    return conversation(openai_messages(row["prompt"]) + openai_messages(answer), row)


def conversation(messages: list[dict], row: dict) -> dict:
    """Messages of which at least one is the assistant's, and the tools of the row.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no message is by the assistant")
    return {"messages": messages} | ({"tools": row["tools"]} if row.get("tools") else {})


def share_gpt(row: dict) -> dict:
    """A ShareGPT conversation, with or without a system message of its own.

    Raises:
      ValueError: says what of the row cannot be used.
    """
    system = [{"from": "system", "value": row["system"]}] if row.get("system") else []
    return conversation(share_gpt_messages(system + row["conversations"]), row)
