"""The problems of an evaluation, from built-in families or benchmark files, and how they are put to a model."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from r1jax.config import UserError
from r1jax.data.chat import ASSISTANT, BOS, EOS, PREFILL, USER, Template, Vocabulary, r1_template, render
from r1jax.data.prompts import PROMPTS
from r1jax.data.sources import read_records
from r1jax.data.tokenizer import Tokenizer
from r1jax.tasks.answers import BrokenRecord
from r1jax.tasks.families import PUBLISHED, draw_records, family_of, read_parts, with_ids
from r1jax.tasks.splits import Split

PromptForm = Literal["r1_zero", "chat", "r1", "template"]
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""What the paper asks of mathematical problems (README of DeepSeek-R1, usage recommendations)."""

_PREFILL = re.compile(r"<think>\s*(?:</think>\s*)?\Z")


class Asked(NamedTuple):
    """Problems as a model is asked them; also the codec of their prompts."""

    records: list[dict]
    prompts: list[str]
    ids: dict[str, list[int]]
    """By prompt."""
    tokenizer: Tokenizer

    def encode_prompt(self, prompt: str) -> list[int]:
        return self.ids[prompt]

    def decode(self, ids) -> str:
        return self.tokenizer.decode(ids)

    @property
    def unreadable(self) -> int:
        """Prompts with characters that the tokenizer cannot express."""
        return sum("⁇" in self.tokenizer.decode(self.ids[prompt]) for prompt in self.prompts)


def draw_family_problems(names: Sequence[str], split: Split, count: int) -> list[dict]:
    """Problems of built-in families, the same ones at every call, with an "id".

    Args:
      names: see `read_parts`; they take turns.
      split: "held_out", or "train".
      count: how many.

    Raises:
      UserError: no such family or level, or a level without problems in this split.
    """
    try:
        records = draw_records(read_parts(names), split, count, np.random.default_rng(0))
    except (BrokenRecord, ValueError) as error:
        raise UserError(f"--families {' '.join(names)}: {error}") from error
    return with_ids(records)


def read_benchmarks(paths: Sequence[str], count: int | None) -> list[dict]:
    """The records of benchmark files in any published form (`r1jax.data.sources`), with "benchmark", the file's name.

    Args:
      paths: `path`, or `name=path`.
      count: the first so many of all; None for all.

    Raises:
      UserError: a file cannot be read, two have one name, or a record is of a family that no judge knows.
    """
    records: list[dict] = []
    names: set[str] = set()
    for text in paths:
        name, _, path = text.rpartition("=")
        name = name or Path(path).name.split(".")[0]
        if name in names:
            raise UserError(f"two benchmarks are called {name!r}; give one another name: --benchmark NAME={path}")
        names.add(name)
        for record in islice(read_records(path, name=name), count and count - len(records)):
            records.append(record | {"benchmark": name})
            _check_family(record)
        if count is not None and len(records) >= count:
            break
    return records


def question_text(record: dict) -> str:
    """The question with its options, and for mathematics what the paper asks for, unless it says so itself."""
    text = record["question"]
    choices = record.get("choices")
    if choices:
        pairs = choices.items() if isinstance(choices, dict) else zip("ABCDEFGHIJ", choices, strict=False)
        text += "".join(f"\n{letter}) {option}" for letter, option in pairs)
    if record["family"] == "math" and "\\boxed" not in text:
        text += f"\n{INSTRUCTION}"
    return text


def ask(form: PromptForm, records: Sequence[dict], tokenizer: Tokenizer, slots: int) -> Asked:
    """Prompts of a form and their token ids.

    Args:
      form: "r1_zero" and "chat" are `r1jax.data.prompts.PROMPTS`, plain text in which the model opens <think>; "r1" is
        the template of the released DeepSeek-R1, with its control tokens and "<think>\\n" already written; "template"
        is the chat template that came with the tokenizer.
      records: the problems.
      tokenizer: of the model.
      slots: tokens that a prompt may have.

    Raises:
      UserError: a prompt is too long, the longest is named; "r1" and the tokenizer lacks a control token; "template"
        and it has none; or a question spells a control token.
    """
    questions = [question_text(record) for record in records]
    if form in ("r1", "template"):
        template, vocabulary = chat_form(form, tokenizer)
        messages = [[{"role": "user", "content": question}] for question in questions]
        prompts = ["".join(part.text for part in template(message)) for message in messages]
        try:
            encoded = [render(message, template, vocabulary).ids.tolist() for message in messages]
        except ValueError as error:
            raise UserError(f"a question cannot be put into the template: {error}") from error
    else:
        prompts = [PROMPTS[form](question) for question in questions]
        encoded = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    longest = max(range(len(records)), key=lambda place: len(encoded[place]), default=None)
    if longest is not None and len(encoded[longest]) > slots:
        many = sum(len(ids) > slots for ids in encoded)
        raise UserError(
            f"the prompt of {records[longest].get('id', longest)} has {len(encoded[longest])} tokens and {slots} fit "
            f"({many} of {len(records)} prompts are too long, and none is longer); "
            f"use --sampling.prompt-slots {len(encoded[longest])}"
        )
    begun = [
        record | {"prefill": written} if (written := prefill_of(p)) else record for record, p in zip(records, prompts)
    ]
    return Asked(begun, prompts, dict(zip(prompts, encoded, strict=True)), tokenizer)


def prefill_of(prompt: str) -> str:
    """What a template has already written of the response: a <think> at the end of the prompt, closed or not."""
    found = _PREFILL.search(prompt)
    return found.group() if found else ""


def with_prefill(form: PromptForm, records: Sequence[dict]) -> list[dict]:
    """The records of stored completions with what R1's template writes of a response and its completions leave out."""
    return [record | {"prefill": PREFILL} for record in records] if form == "r1" else list(records)


def chat_form(form: Literal["r1", "template"], tokenizer: Tokenizer) -> tuple[Template, Vocabulary]:
    """A chat template, and what it needs of a tokenizer.

    Raises:
      UserError: "r1" and the tokenizer lacks a control token, or "template" and it has no template.
    """
    if form == "r1":
        return r1_template(), chat_vocabulary(tokenizer)
    if tokenizer.chat_template is None:
        raise UserError(
            "the tokenizer has no chat template, which --prompt template needs; use --prompt chat or r1_zero"
        )
    return tokenizer.chat_template, Vocabulary(tokenizer.encode, tokenizer.controls)


def chat_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What the released template needs of a tokenizer.

    Raises:
      UserError: it has no piece for the turn of the user or of the assistant.
    """
    controls = {BOS: tokenizer.bos_id, EOS: tokenizer.eos_id} | dict(tokenizer.controls)
    for control in (one for one in (USER, ASSISTANT) if one not in controls):
        ids = tokenizer.encode(control)
        if len(ids) != 1 or tokenizer.decode(ids).strip() != control:
            raise UserError(
                f"the tokenizer has no piece for {control}, which the template of --prompt r1 needs; "
                "use --prompt chat or r1_zero"
            )
        controls[control] = ids[0]
    return Vocabulary(tokenizer.encode, controls)


def _check_family(record: dict) -> None:
    if record["family"] in PUBLISHED:
        return
    try:
        family_of(record)
    except BrokenRecord as error:
        raise UserError(f"{record['id']}: no judge is known for records of family {record['family']!r}") from error
