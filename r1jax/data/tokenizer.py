"""SentencePiece tokenizers: training, loading, and the few special tokens the stages rely on."""

import heapq
import io
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from r1jax.config import UserError

FILE_NAME = "tokenizer.model"
LONGEST_PIECE = 1 << 18  # characters, at most four bytes each; SentencePiece drops texts of more than 1 MiB in silence


class Tokenizer:
    """Text to token ids and back. `pad_id`, `bos_id` and `eos_id` are never produced by `encode`."""

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()
        self.pad_id, self.bos_id, self.eos_id = (
            self._processor.pad_id(),
            self._processor.bos_id(),
            self._processor.eos_id(),
        )

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids) -> str:
        """Text of the ids; special tokens are left out."""
        return self._processor.decode([int(i) for i in ids])

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model` into the folder."""
        (Path(folder) / FILE_NAME).write_bytes(self.model)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read the tokenizer of a workdir.

    Raises:
      UserError: there is none, or it is not a SentencePiece model.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(f"{path} is missing: {folder} is not the workdir of a finished stage, or of train_tokenizer")
    model = path.read_bytes()
    if not model:  # sentencepiece takes it for "no model yet" and fails later, if at all
        raise UserError(f"{path} is empty: not a SentencePiece model")
    try:
        return Tokenizer(model)
    except Exception as error:  # sentencepiece raises RuntimeError or its own, by version
        raise UserError(f"{path} is not a SentencePiece model: {error}") from error


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
) -> Tokenizer:
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
    return Tokenizer(model.getvalue())


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
