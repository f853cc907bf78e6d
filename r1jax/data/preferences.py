"""What reward models learn from: pairs of responses and labelled responses, read from files and split by prompt."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from r1jax.config import UserError
from r1jax.data.chat import EOS, plain_template
from r1jax.data.messages import answer_message, openai_messages
from r1jax.data.schema import Field, Form
from r1jax.data.sources import read_records


class Example(NamedTuple):
    """A judgement to learn: that the first of two responses is better, or whether one response is safe."""

    prompt: str
    """As the policy saw it, see `prompt_text`."""
    responses: tuple[str, ...]
    """What is scored of each: summaries for a helpful, whole responses for a safety reward model."""
    label: bool = True
    """Of a single response: it is safe."""


def prompt_text(messages: Sequence[dict]) -> str:
    """Messages (r1jax.data.messages) as the text that a reward model reads as the prompt, by `plain_template`.

    Raises:
      ValueError: the last message is not the user's, one is a tool's, or one spells the end token.
    """
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message of the prompt is not the user's")
    if any(EOS in message["content"] for message in messages):
        raise ValueError(f"a message contains the control token {EOS!r} as text")
    return "".join(part.text for part in plain_template(messages))


def read_comparisons(paths: Sequence[str | Path]) -> list[Example]:
    """Pairs of a preferred and a refused response, from files of any form that is read as family "preference".

    Only the content of an answer is kept, not its reasoning.

    Raises:
      UserError: see `read_records`; a record of another family, or one that is no pair of summaries; names it.
    """
    return _examples((record for path in paths for record in read_records(path)), _comparison)


def read_safety_labels(paths: Sequence[str | Path]) -> list[Example]:
    """Responses labelled safe or not: rows {"id", "prompt", "response", "safe": true or false}, the prompt a user's.

    Raises:
      UserError: see `read_records`; names file and line of the first rows that are not of this form.
    """
    return _examples((record for path in paths for record in read_records(path, SAFETY_LABEL)), _labelled)


def split_by_prompt(examples: Sequence[Example], share: float, split: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples; all of one prompt are on the same side.

    Args:
      share: expected share of prompts that are held out.
      split: names one of many splits.
    """
    limit, parts = int(share * 2**64), ([], [])
    for example in examples:
        digest = hashlib.blake2b(f"{split}:{example.prompt}".encode(), digest_size=8).digest()
        parts[int.from_bytes(digest) < limit].append(example)
    return parts


def _examples(records: Iterator[dict], convert: Callable[[dict], Example]) -> list[Example]:
    examples = []
    for record in records:
        try:
            examples.append(convert(record))
        except ValueError as error:
            raise UserError(f"record {record['id']!r}: {error}") from error
    return examples


def _comparison(record: dict) -> Example:
    if record["family"] != "preference":
        raise ValueError(f"it is of family {record['family']!r}, not of 'preference'")
    contents = tuple(answer_message(record[name])["content"].strip() for name in ("chosen", "rejected"))
    if not all(contents):
        raise ValueError("an answer has no text")
    if len(set(contents)) == 1:
        raise ValueError("'chosen' and 'rejected' differ in their reasoning only, which is not scored")
    return Example(prompt_text(openai_messages(record["messages"])), contents)


def _labelled(record: dict) -> Example:
    prompt = prompt_text([{"role": "user", "content": record["prompt"]}])
    return Example(prompt, (record["response"],), record["safe"])


def _safety_label(row: dict) -> dict:
    if not isinstance(row.get("safe"), bool):
        raise ValueError(f"field 'safe' must be true or false; it is {row.get('safe')!r}")
    return {name: row[name] for name in ("prompt", "response", "safe")}


SAFETY_LABEL = Form(
    "safety_label", "safety_label", (Field("id"), Field("prompt"), Field("response")), _safety_label, "id"
)
