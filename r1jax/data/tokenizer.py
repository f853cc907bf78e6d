"""SentencePiece tokenizers: training, loading, and the few special tokens the stages rely on."""

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from r1jax.config import UserError

FILE_NAME = "tokenizer.model"


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


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, symbols: tuple[str, ...] = ()) -> Tokenizer:
    """Train byte-pair encoding on the texts.

    Args:
      texts: the corpus, one document an item.
      vocab_size: at most this many pieces; a small corpus may give fewer.
      symbols: strings that always become one piece of their own, such as tags or the constant part of a prompt.
        They match where they follow a space or begin a text.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
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
    )
    return Tokenizer(model.getvalue())
