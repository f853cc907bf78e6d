"""Records as documents to fine-tune on, and those as packed batches."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from r1jax.data.chat import Template, Vocabulary, conversation_documents
from r1jax.data.documents import Document, plain_document
from r1jax.data.packing import TrainingRows, fill_separate, plan_best_fit


def record_messages(record: dict) -> list[dict]:
    """The conversation that a record (r1jax.data.forms) teaches.

    A conversation is its own; a problem is asked by the user and answered by its solution, or by `record["response"]`,
    a chosen one; of a preference the chosen answer is taken.

    Raises:
      ValueError: the record has no answer to learn from.
    """
    if record["family"] == "conversation":
        return record["messages"]
    if record["family"] == "preference":
        return [*record["messages"], record["chosen"]]
    answer = record.get("response") or record.get("solution")
    if not isinstance(answer, str):
        raise ValueError(
            f"record {record.get('id')!r} of family {record['family']!r} has neither response nor solution"
        )
    return [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": answer}]


def record_documents(record: dict, template: Template, vocabulary: Vocabulary) -> list[Document]:
    """The documents of a record: one or several for a conversation, one for a problem; only the assistant is learned.

    Raises:
      ValueError: see `record_messages` and `r1jax.data.chat.render`; names the record.
    """
    try:
        return conversation_documents(record_messages(record), template, vocabulary)
    except ValueError as error:
        raise ValueError(f"record {record.get('id')!r}: {error}") from error


def text_document(text: str, encode: Callable[[str], list[int]], eos_id: int) -> Document:
    """A text of pre-training as a document: every token is learned, the end of sequence included."""
    return plain_document([*encode(text), eos_id])


def packed_batches(
    documents: Iterable[Document], *, batch: int, length: int, window: int = 4096
) -> Iterator[TrainingRows]:
    """Batches of [`batch`, `length`] from documents in the given order, windows of them packed by best fit.

    For what fits into memory and is read once, such as a validation set; training takes `packed_stream`. Rows that the
    last batch lacks are padding.

    Raises:
      ValueError: a document does not fit into a row.
    """
    rows: list[tuple] = []
    for chunk in _chunks(documents, window):
        for row in plan_best_fit([len(document.ids) for document in chunk], length):
            rows.append((row, chunk))
            if len(rows) == batch:
                yield _joined_rows(rows, batch, length)
                rows = []
    if rows:
        yield _joined_rows(rows, batch, length)


def _chunks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    chunk = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _joined_rows(rows: list[tuple], batch: int, length: int) -> TrainingRows:
    parts = [fill_separate([row], chunk, length) for row, chunk in rows]
    parts.append(fill_separate([()] * (batch - len(rows)), [], length))
    return TrainingRows(*map(np.concatenate, zip(*parts, strict=True)))
