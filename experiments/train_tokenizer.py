"""Train the miniature's tokenizer (byte-pair encoding) on its base corpus.

The constant parts of the prompt become one token each, so that a prompt costs about ten tokens instead of a hundred.
The text that the model is given is the paper's, whole.
"""

import dataclasses
from pathlib import Path

import numpy as np

from r1jax import launch
from r1jax.config import claim_workdir
from r1jax.data.prompts import R1_ZERO_PREFIX, R1_ZERO_SUFFIX, document_text
from r1jax.data.tokenizer import train_tokenizer
from r1jax.rewards.format import TAGS
from r1jax.tasks.authors import Population, write_document
from r1jax.tasks.countdown import QUESTION_PHRASES


@dataclasses.dataclass(frozen=True)
class Config:
    """Tokenizer of the miniature."""

    workdir: str = "runs/tokenizer"
    """tokenizer.model goes here."""
    seed: int = 0
    """The corpus follows from it."""
    vocab_size: int = 512
    """Largest vocabulary, in pieces; training stops earlier where the corpus has no more pairs to merge."""
    documents: int = 20000
    """Documents of the corpus to train on."""


def main(config: Config) -> None:
    workdir = claim_workdir(config.workdir, "train_tokenizer", config)
    rng = np.random.default_rng(config.seed)
    texts = (document_text(write_document(rng, Population())) for _ in range(config.documents))
    tokenizer = train_tokenizer(
        texts, vocab_size=config.vocab_size, symbols=(R1_ZERO_PREFIX, R1_ZERO_SUFFIX, *QUESTION_PHRASES, *TAGS)
    )
    tokenizer.save(workdir)
    launch.console.print(f"{tokenizer.vocab_size} pieces in {Path(workdir) / 'tokenizer.model'}")


if __name__ == "__main__":
    launch.run(main, Config)
