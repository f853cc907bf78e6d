"""Prompt templates of the paper, and prompts as arrays."""

import numpy as np

from r1jax.tasks.authors import Document

R1_ZERO_PREFIX = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>. User:"
)
R1_ZERO_SUFFIX = "Assistant:"


def r1_zero_prompt(question: str) -> str:
    """The template of DeepSeek-R1-Zero (arXiv 2501.12948 v1, table 1), `question` in place of "prompt".

    Plain text without chat tokens; the model itself opens <think>.
    """
    return f"{R1_ZERO_PREFIX} {question} {R1_ZERO_SUFFIX}"


def chat_prompt(question: str) -> str:
    """The prompt of every stage after R1-Zero, in the manner of `r1jax.data.chat.plain_template`."""
    return f"User: {question} {R1_ZERO_SUFFIX}"


PROMPTS = {"r1_zero": r1_zero_prompt, "chat": chat_prompt}


def document_text(document: Document) -> str:
    """A document of the corpus as a model reads it: responses follow the prompt of their form, worksheets stand alone."""
    if document.form == "worksheet":
        return document.text
    return f"{PROMPTS[document.form](document.record['question'])} {document.text}"


def pad_prompts(prompts: list[list[int]], slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids as one array padded with 0 on the left, [P, slots] int32, and the lengths [P] int32.

    Raises:
      ValueError: a prompt is empty or does not fit; says which and how long it is.
    """
    array = np.zeros((len(prompts), slots), np.int32)
    for row, ids in enumerate(prompts):
        if not 0 < len(ids) <= slots:
            raise ValueError(f"prompt {row} has {len(ids)} tokens; 1 to {slots} fit")
        array[row, slots - len(ids) :] = ids
    return array, np.array([len(ids) for ids in prompts], np.int32)
