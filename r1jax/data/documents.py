"""Tokenised documents: in memory, or in ArrayRecord files with an index of their lengths."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1jax.config import UserError
from r1jax.data.payloads import PayloadFiles, write_payloads


class Document(NamedTuple):
    """Token ids, and which of them a model learns to produce."""

    ids: np.ndarray
    """[L] int32."""
    learned: np.ndarray
    """[L] bool."""


def plain_document(ids: Sequence[int]) -> Document:
    """A document of which every token is learned, as in pre-training."""
    return Document(np.asarray(ids, np.int32), np.ones(len(ids), bool))


class DocumentList(Sequence):
    """Documents in memory, with their lengths."""

    def __init__(self, documents: Iterable[Document]):
        self._documents = list(documents)
        self.lengths = np.array([len(document.ids) for document in self._documents], np.int32)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index):
        return self._documents[index]


def write_documents(documents: Iterable[Document], path: str | Path) -> int:
    """Write documents as an ArrayRecord file, and their lengths beside it (`<path>.lengths.npy`); returns the count.

    The lengths let every host plan how the whole stream is packed while it reads only its own documents.

    Raises:
      UserError: the file does not hold what was written, as on a full disk.
    """
    path, lengths = Path(path), []

    def payloads() -> Iterator[bytes]:
        for document in documents:
            lengths.append(len(document.ids))
            yield _to_bytes(document)

    index = _index_path(path)
    index.unlink(missing_ok=True)  # an index without its file would be believed
    count = write_payloads(payloads(), path)
    partial = index.with_name(index.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, np.array(lengths, np.int32))
    partial.rename(index)
    return count


class DocumentFiles(Sequence):
    """Documents in files written by `write_documents`; the lengths are mapped, documents are read one at a time."""

    def __init__(self, paths: Iterable[str | Path]):
        """Open the files, in this order.

        Raises:
          UserError: a file or its index is missing, or they do not belong together.
        """
        paths = [Path(path) for path in paths]
        for path in paths:
            for file in (path, _index_path(path)):
                if not file.is_file():
                    raise UserError(f"{file} is missing; write_documents makes both, the documents and their index")
        self.lengths = _joined([np.load(_index_path(path), mmap_mode="r") for path in paths])
        self._payloads = PayloadFiles(paths)
        if len(self._payloads) != len(self.lengths):
            raise UserError(
                f"{', '.join(map(str, paths))}: {len(self._payloads)} documents, but {len(self.lengths)} lengths in "
                "the index; a file is damaged or belongs to another index: write it again"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Document:
        return _from_bytes(self._payloads[index])


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _index_path(path: Path) -> Path:
    return path.with_name(path.name + ".lengths.npy")


def _to_bytes(document: Document) -> bytes:
    ids, learned = np.asarray(document.ids, "<i4"), np.asarray(document.learned, bool)
    if ids.shape != learned.shape or ids.ndim != 1:
        raise ValueError(f"ids {ids.shape} and learned {learned.shape} must both be [L]")
    return ids.tobytes() + np.packbits(learned).tobytes()


def _from_bytes(data: bytes) -> Document:
    size = 8 * len(data) // 33  # L ids of 4 bytes and ceil(L / 8) bytes of bits: L = floor(8 bytes / 33)
    ids = np.frombuffer(data, "<i4", size)
    return Document(ids, np.unpackbits(np.frombuffer(data, np.uint8, offset=4 * size), count=size).astype(bool))
