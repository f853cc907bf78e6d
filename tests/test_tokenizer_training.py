"""Tokenizer training: a bounded sample of a stream, and the shipped tokenizer bit for bit."""

import collections
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.config import UserError
from r1jax.data import tokenizer as module
from r1jax.data.tokenizer import load_tokenizer, sample_texts, train_tokenizer
from r1jax.tasks import BASE_MODEL


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(0, 1000))
def test_texts_that_fit_come_back_as_they_are(texts, seed):
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert list(sample_texts(texts, budget=size, seed=seed)) == texts


@given(st.lists(st.text("ab\u4e00", min_size=1, max_size=20), min_size=2, max_size=30), st.integers(0, 1000))
def test_a_sample_is_a_part_in_order_within_the_budget(texts, seed):
    budget = sum(len(text.encode()) for text in texts) // 2
    numbered = [f"{text}" for text in texts]
    sample = list(sample_texts(numbered, budget=budget, seed=seed))
    assert sum(len(text.encode()) for text in sample) <= budget
    remaining = iter(numbered)
    assert all(text in remaining for text in sample), "not in the order of the texts"
    assert sample == list(sample_texts(iter(numbered), budget=budget, seed=seed))


def test_every_text_is_as_likely_as_any():
    texts = [f"{number:03d}" for number in range(40)]
    drawn = collections.Counter(text for seed in range(1000) for text in sample_texts(texts, budget=30, seed=seed))
    counts = np.array([drawn[text] for text in texts])
    assert counts.sum() == 10_000
    assert np.abs(counts - 250).max() < 5 * np.sqrt(1000 * 0.25 * 0.75)


@settings(max_examples=30)
@given(st.text("ab \n", max_size=200))
def test_long_texts_come_in_pieces(text):
    longest, module.LONGEST_PIECE = module.LONGEST_PIECE, 16
    try:
        pieces = list(sample_texts([text], budget=1 << 20, seed=0))
    finally:
        module.LONGEST_PIECE = longest
    assert "".join(pieces) == text and all(len(piece) <= 16 for piece in pieces)


def test_a_stream_is_not_held():
    texts = (chr(97 + number % 26) * 1000 for number in range(20_000))
    tracemalloc.start()
    sum(len(text) for text in sample_texts(texts, budget=100_000, seed=0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, "20 MB went through"


def test_training_is_repeatable_and_bytes_cover_what_the_corpus_lacks():
    texts = ["the cat sat on the mat and the dog sat on the log"] * 50
    first = train_tokenizer(texts, vocab_size=300, byte_fallback=True)
    assert first.model == train_tokenizer(iter(texts), vocab_size=300, byte_fallback=True).model
    text = "the \u732b sat: \u20ac5"
    assert first.decode(first.encode(text)) == text
    with pytest.raises(UserError, match="pieces"):
        train_tokenizer([], vocab_size=300)


def test_own_texts_on_the_command_line(tmp_path, experiment):
    (tmp_path / "plain.txt").write_text("a line about caf\u00e9s\n\nanother line about ships\n" * 30, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"text": "a document about seven ships"}\n' * 30)
    options = ["--vocab-size", 350, "--workdir", tmp_path / "tokenizer"]
    process = experiment("train_tokenizer", "--texts", tmp_path / "plain.txt", tmp_path / "rows.jsonl", *options)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.decode(tokenizer.encode("ships about \u6d77")) == "ships about \u6d77"
    process = experiment("train_tokenizer", "--texts", tmp_path / "none.txt", "--workdir", tmp_path / "other")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "none.txt is missing" in errors and not (tmp_path / "other").exists()


def test_a_text_file_that_is_not_utf8_is_named_by_line(tmp_path):
    from r1jax.data.texts import read_texts

    (tmp_path / "bad.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(UserError, match="line 2: invalid UTF-8 at byte 2"):
        list(read_texts(tmp_path / "bad.txt"))


def test_the_default_options_give_the_shipped_tokenizer(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_tokenizer.py"),
        "--workdir",
        str(tmp_path / "tokenizer"),
    ]
    subprocess.run(command, check=True, timeout=600)
    assert load_tokenizer(tmp_path / "tokenizer").model == load_tokenizer(BASE_MODEL).model
