"""Train a tokenizer (byte-pair encoding) on the miniature's base corpus, or on texts of your own.

The constant parts of the prompt become one token each, so that a prompt costs about ten tokens instead of a hundred.
The text that the model is given is the paper's, whole.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r1jax import launch
from r1jax.config import UserError, claim_workdir
from r1jax.data.prompts import R1_ZERO_PREFIX, R1_ZERO_SUFFIX, document_text
from r1jax.data.texts import read_texts
from r1jax.data.tokenizer import train_tokenizer
from r1jax.rewards.format import TAGS
from r1jax.tasks.authors import WORLD, Population, phrases, write_document


@dataclasses.dataclass(frozen=True)
class Config:
    """Training of a tokenizer."""

    workdir: str = "runs/tokenizer"
    """tokenizer.model goes here."""
    seed: int = 0
    """The corpus follows from it."""
    vocab_size: int = 512
    """Largest vocabulary, in pieces; training stops earlier where the corpus has no more pairs to merge."""
    population: Population = Population()
    """The authors of the miniature's corpus."""
    documents: int = 20000
    """Documents of the miniature's corpus to train on."""
    texts: tuple[str, ...] = ()
    """Train on these instead: .txt files (a text a line), JSON lines, JSON, parquet or ArrayRecord, or folders."""
    sample_bytes: int = 256 << 20
    """Of a larger corpus a sample of this size is used; training takes about four times as much memory."""


PRESETS = {"countdown": Config(), "world": Config(workdir="runs/world_tokenizer", population=WORLD, vocab_size=1024)}


def miniature_texts(seed: int, population: Population, documents: int) -> Iterator[str]:
    """The miniature's base corpus."""
    rng = np.random.default_rng(seed)
    return (document_text(write_document(rng, population)) for _ in range(documents))


def main(config: Config) -> None:
    if config.sample_bytes < 1 or config.documents < 1:
        raise UserError("--sample-bytes and --documents must be 1 or more")
    own = [read_texts(path) for path in config.texts]  # a missing file is reported before the workdir is made
    workdir = claim_workdir(config.workdir, "train_tokenizer", config)
    symbols = (R1_ZERO_PREFIX, R1_ZERO_SUFFIX, *(() if own else phrases(config.population)), *TAGS)
    tokenizer = train_tokenizer(
        itertools.chain(*own) if own else miniature_texts(config.seed, config.population, config.documents),
        vocab_size=config.vocab_size,
        symbols=symbols,
        budget=config.sample_bytes,
        byte_fallback=bool(own),
        seed=config.seed,
    )
    tokenizer.save(workdir)
    launch.console.print(f"{tokenizer.vocab_size} pieces in {Path(workdir) / 'tokenizer.model'}")


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
