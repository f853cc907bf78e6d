"""Fill in the middle: documents rearranged so that a model learns to write what stands between two others.

DeepSeek-V3 (arXiv 2412.19437, section 4.1) does this to a tenth of its documents, before packing, in the order prefix,
suffix, middle: <|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle <|eos_token|>.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

RATE = 0.1
"""Share of documents in the pre-training of DeepSeek-V3."""


class Parts(NamedTuple):
    """A text cut in three; joined in this order they are the text."""

    prefix: str
    middle: str
    suffix: str


class Marks(NamedTuple):
    """Ids of the tokens that stand around the parts."""

    begin: int
    hole: int
    end: int
    eos: int


def cut_document(text: str, key: str, *, rate: float = RATE) -> Parts | None:
    """Cut a document at two random characters; None for the documents that stay as they are.

    Args:
      text: the document.
      key: its name, such as the id of its record and a seed; the decision and the cuts follow from it alone.
      rate: share of documents that are cut.

    Raises:
      ValueError: `rate` is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate} is not a share in [0, 1]")
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).digest()
    chance, first, second = (int.from_bytes(digest[at : at + 8]) / 2**64 for at in (0, 8, 16))
    if chance >= rate or len(text) < 2:
        return None
    start, stop = sorted(int(share * (len(text) + 1)) for share in (first, second))
    return Parts(text[:start], text[start:stop], text[stop:])


def fim_ids(parts: Parts, encode: Callable[[str], Sequence[int]], marks: Marks) -> list[int]:
    """Token ids of a cut document in the order prefix, suffix, middle; each part is tokenised by itself."""
    ids = [marks.begin, *encode(parts.prefix), marks.hole, *encode(parts.suffix), marks.end, *encode(parts.middle)]
    return [*ids, marks.eos]


def join_document(ids: Sequence[int], decode: Callable[[Sequence[int]], str], marks: Marks) -> str:
    """The text of a document from its ids, the inverse of `fim_ids`.

    Raises:
      ValueError: the marks are missing, repeated or out of order.
    """
    ids = list(ids)
    if any(ids.count(mark) != 1 for mark in marks):
        raise ValueError("each of the four marks must be there once")
    begin, hole, end, eos = map(ids.index, marks)
    if not (begin == 0 and begin < hole < end < eos == len(ids) - 1):
        raise ValueError("the marks are out of order")
    return decode(ids[1:hole]) + decode(ids[end + 1 : eos]) + decode(ids[hole + 1 : end])
