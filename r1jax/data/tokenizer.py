"""Tokenizers: what the stages ask of one, loading, and the training of SentencePiece models."""

import heapq
import io
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import sentencepiece

from r1jax.config import UserError, as_path
from r1jax.data.chat import Template
from r1jax.data.json_tokenizer import JSON_NAME, load_json_tokenizer

FILE_NAME = "tokenizer.model"
LONGEST_PIECE = 1 << 18  # characters, at most four bytes each; SentencePiece drops texts of more than 1 MiB in silence


class Tokenizer(Protocol):
    """Text to token ids and back."""

    vocab_size: int
    """One more than the largest id."""
    bos_id: int | None
    eos_id: int
    """Ends every text that a model learns."""
    eos_ids: tuple[int, ...]
    """What ends a response when it is sampled: `eos_id`, and what else the tokenizer's folder names."""
    begin_ids: tuple[int, ...]
    """What every text begins with: the BOS of models that were trained with one, else nothing."""
    controls: Mapping[str, int]
    """Spelling and id of the tokens that separate turns; only a chat template writes them."""
    chat_template: Template | None
    """Of a chat model, its own."""

    def encode(self, text: str) -> list[int]:
        """Ids of a stretch of text. Control tokens that it spells are text: nobody who writes a text can forge one."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """`begin_ids`, then the ids of the text."""
        ...

    def decode(self, ids) -> str:
        """Text of the ids; control tokens are left out."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write all files that `load_tokenizer` reads into the folder."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model. `pad_id`, `bos_id` and `eos_id` are never produced by `encode`. See `Tokenizer`."""

    begin_ids: tuple[int, ...] = ()
    controls: Mapping[str, int] = MappingProxyType({})
    chat_template: Template | None = None

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()
        self.pad_id, self.bos_id, self.eos_id = (
            self._processor.pad_id(),
            self._processor.bos_id(),
            self._processor.eos_id(),
        )
        self.eos_ids = (self.eos_id,)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    encode_prompt = encode

    def decode(self, ids) -> str:
        return self._processor.decode([int(i) for i in ids])

    def save(self, folder: str | Path) -> None:
        (as_path(folder) / FILE_NAME).write_bytes(self.model)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read the tokenizer of a workdir or of a Hugging Face folder; a tokenizer.json is taken before a tokenizer.model.

    Raises:
      UserError: there is none, or a file of it is broken.
    """
    if (as_path(folder) / JSON_NAME).is_file():
        return load_json_tokenizer(folder)
    path = as_path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{path} is missing, and so is {JSON_NAME}: {folder} is not the workdir of a finished stage, or of "
            "train_tokenizer, nor a Hugging Face folder with a tokenizer"
        )
    model = path.read_bytes()
    if not model:  # sentencepiece takes it for "no model yet" and fails later, if at all
        raise UserError(f"{path} is empty: not a SentencePiece model")
    try:
        return SentencePieceTokenizer(model)
    except Exception as error:  # sentencepiece raises RuntimeError or its own, by version
        raise UserError(f"{path} is not a SentencePiece model: {error}") from error


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, folder: str | Path) -> None:
    """Raise UserError where the tokenizer of a folder has ids that a model of `vocab_size` tokens cannot embed.

    A smaller tokenizer is usual: released embeddings are padded to a round size.
    """
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{folder}: the tokenizer's largest id is {tokenizer.vocab_size - 1}, and the model's vocabulary has "
            f"{vocab_size} tokens: they do not belong together"
        )


def sample_texts(texts: Iterable[str], *, budget: int, seed: int) -> Iterator[str]:
    """The texts in their order, if they fit into a budget; else a sample of them that does, each as likely as any.

    Of a stream of any length no more than the budget and one text is held. Texts of more than LONGEST_PIECE characters
    come in pieces, cut at a space where there is one.

    Args:
      texts: one document an item.
      budget: bytes of UTF-8.
      seed: which texts are drawn follows from it and their order.
    """
    rng, held, kept = random.Random(seed), 0, []  # kept: a heap with the worst lot first
    for number, piece in enumerate(piece for text in texts for piece in _pieces(text)):
        heapq.heappush(kept, (-rng.random(), number, piece))
        held += len(piece.encode("utf-8", "surrogatepass"))
        while held > budget:
            held -= len(heapq.heappop(kept)[2].encode("utf-8", "surrogatepass"))
    kept.sort(key=lambda entry: -entry[1])
    while kept:
        yield kept.pop()[2]


def _pieces(text: str) -> Iterator[str]:
    while len(text) > LONGEST_PIECE:
        cut = text.rfind(" ", 1, LONGEST_PIECE)
        cut = cut if cut > 0 else LONGEST_PIECE
        yield text[:cut]
        text = text[cut:]
    yield text


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    symbols: tuple[str, ...] = (),
    budget: int = 256 << 20,
    byte_fallback: bool = False,
    seed: int = 0,
) -> SentencePieceTokenizer:
    """Train byte-pair encoding on the texts, or on a sample of them.

    SentencePiece holds all it is given, at three times its size; so it is given a sample of bounded size.

    Args:
      texts: the corpus, one document an item; read once.
      vocab_size: at most this many pieces; a small corpus may give fewer.
      symbols: strings that always become one piece of their own, such as tags or the constant part of a prompt.
        They match where they follow a space or begin a text.
      budget: bytes of text to train on at most; see `sample_texts`.
      byte_fallback: spend 256 pieces on the bytes, so that characters which the corpus lacks can be written.
      seed: the sample follows from it.

    Raises:
      UserError: the texts are empty, or the vocabulary is smaller than what it must hold.
    """
    model = io.BytesIO()
    sample = sample_texts(texts, budget=budget, seed=seed)
    try:
        _train(sample, model, vocab_size, symbols, byte_fallback)
    except RuntimeError as error:  # sentencepiece: its own source lines and conditions
        raise UserError(
            f"no tokenizer of {vocab_size} pieces can be trained on these texts: {error}; are there texts, and is "
            "the vocabulary larger than their number of characters?"
        ) from error
    return SentencePieceTokenizer(model.getvalue())


def _train(
    texts: Iterator[str], model: io.BytesIO, vocab_size: int, symbols: tuple[str, ...], byte_fallback: bool
) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        user_defined_symbols=["\u2581" + symbol.replace(" ", "\u2581") for symbol in symbols],
        normalization_rule_name="identity",
        character_coverage=1.0,
        max_sentence_length=1 << 20,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,  # so that one corpus gives one tokenizer
        minloglevel=2,
        **({"byte_fallback": True} if byte_fallback else {}),  # an option that is named is written into the model
    )
