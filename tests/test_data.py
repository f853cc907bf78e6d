"""Tokenizer, packing, prompts, and the records of a run."""

import json

import numpy as np
import pytest

from experiments import train_tokenizer as experiment
from r1jax.config import UserError
from r1jax.data.packing import pack_documents
from r1jax.data.prompts import R1_ZERO_PREFIX, R1_ZERO_SUFFIX, pad_prompts, r1_zero_prompt
from r1jax.data.tokenizer import FILE_NAME, SentencePieceTokenizer, load_tokenizer, train_tokenizer
from r1jax.metrics import JsonLines, read_json_lines, write_json
from r1jax.rewards.format import TAGS
from r1jax.tasks.authors import Population, write_document
from r1jax.tasks.countdown import LARGEST, QUESTION_PHRASES, SMALLEST, candidates


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The miniature's tokenizer, trained by its experiment with the default settings."""
    workdir = tmp_path_factory.mktemp("stage") / "tokenizer"
    experiment.main(experiment.Config(workdir=str(workdir)))
    return load_tokenizer(workdir)


def corpus(seed, count):
    rng = np.random.default_rng(seed)
    documents = [write_document(rng, Population()) for _ in range(count)]
    return [d.text if d.kind == "worksheet" else f"{r1_zero_prompt(d.record['question'])} {d.text}" for d in documents]


# Tokenizer


def test_the_corpus_survives_a_round_trip(tokenizer):
    for text in corpus(1, 500):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(3 < i < tokenizer.vocab_size for i in ids)  # no special token, nothing unknown


def test_every_number_of_a_candidate_is_one_token(tokenizer):
    options = candidates(tuple(range(SMALLEST, LARGEST + 1)))
    for expression, value in options:
        assert len(tokenizer.encode(f"{expression} = {value} no")) == 6, expression
        assert len(tokenizer.encode(expression)) == 3 and len(tokenizer.encode(str(value))) == 1


def test_constant_strings_are_one_token_and_a_prompt_is_short(tokenizer):
    pieces = [R1_ZERO_PREFIX, R1_ZERO_SUFFIX, *QUESTION_PHRASES, *TAGS]
    assert [len(tokenizer.encode(piece)) for piece in pieces] == [1] * len(pieces)
    prompt = r1_zero_prompt("Use two of the numbers 2 5 7 to make 12 .")
    assert len(tokenizer.encode(prompt)) == 9
    assert tokenizer.decode(tokenizer.encode(prompt)) == prompt


def test_a_completion_can_be_decoded_apart_from_its_prompt(tokenizer):
    prompt = r1_zero_prompt("Use two of the numbers 2 5 7 to make 12 .")
    response = "<think> 5 + 7 = 12 yes </think> <answer> 5 + 7 </answer>"
    together, apart = tokenizer.encode(f"{prompt} {response}"), tokenizer.encode(prompt)
    assert together[: len(apart)] == apart
    assert tokenizer.decode(together[len(apart) :]) == response


def test_special_tokens_are_known_never_encoded_and_never_decoded(tokenizer):
    specials = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    assert specials == (0, 1, 2)
    ids = tokenizer.encode("<s> 2 + 3 </s> <pad> </s>")
    assert not set(ids) & set(specials)
    ids = tokenizer.encode("2 + 3")
    assert tokenizer.decode([1, *ids, 2, 0, 0]) == "2 + 3"
    assert tokenizer.decode(np.array(ids)) == "2 + 3"
    assert tokenizer.encode("") == []


def test_one_corpus_gives_one_tokenizer():
    texts = corpus(0, 400)
    train = lambda texts: train_tokenizer(texts, vocab_size=300, symbols=TAGS).model
    assert train(texts) == train(iter(texts))
    assert train(texts) != train(corpus(1, 400))


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert isinstance(again, SentencePieceTokenizer) and again.model == tokenizer.model


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x80" * 1000, b'{"model": {}}'])
def test_a_missing_or_foreign_tokenizer_is_the_users_mistake(content, tmp_path):
    if content is not None:
        (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match=FILE_NAME):
        load_tokenizer(tmp_path)


# Packing and padding


def test_documents_are_packed_whole():
    rng = np.random.default_rng(0)
    written = []

    def next_document():
        start = 1000 * (len(written) + 1)
        written.append(list(range(start, start + int(rng.integers(2, 12)))))
        return written[-1]

    batch = pack_documents(next_document, batch=4, length=16)
    assert all(x.shape == (4, 16) and x.dtype == np.int32 for x in batch)
    found = []
    for tokens, targets, positions, segments in zip(*batch, strict=True):
        inside = segments > 0
        assert inside[: inside.sum()].all() and not tokens[~inside].any() and not targets[~inside].any()
        assert (positions[~inside] == -1).all()
        for segment in range(1, segments.max() + 1):
            place = np.flatnonzero(segments == segment)
            assert (np.diff(place) == 1).all()
            assert positions[place].tolist() == list(range(len(place)))
            assert (targets[place][:-1] == tokens[place][1:]).all()
            found.append([*tokens[place].tolist(), int(targets[place][-1])])
    assert sorted(found) == written[:-1]  # all but the one that found no room
    assert all((row > 0).sum() + len(written[-1]) - 1 > 16 for row in batch.segments)


def test_a_document_may_fill_a_row_and_no_more():
    batch = pack_documents(lambda: list(range(1, 6)), batch=2, length=4)
    assert batch.tokens.tolist() == [[1, 2, 3, 4]] * 2 and batch.targets.tolist() == [[2, 3, 4, 5]] * 2
    with pytest.raises(ValueError, match="6 tokens"):
        pack_documents(lambda: list(range(6)), batch=2, length=4)


def test_prompts_are_padded_on_the_left():
    array, lengths = pad_prompts([[5], [6, 7, 8]], 3)
    assert array.tolist() == [[0, 0, 5], [6, 7, 8]] and lengths.tolist() == [1, 3]
    assert array.dtype == lengths.dtype == np.int32
    with pytest.raises(ValueError, match="prompt 1 has 4 tokens"):
        pad_prompts([[5], [6, 7, 8, 9]], 3)
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        pad_prompts([[]], 3)


def test_the_prompt_is_the_papers_with_the_question_in_place():
    prompt = r1_zero_prompt("1 + 1 ?")
    assert prompt.startswith("A conversation between User and Assistant. The user asks a question,")
    assert prompt.endswith("<answer> answer here </answer>. User: 1 + 1 ? Assistant:")


# Records


def write_records(path, steps, resume_step=0):
    log = JsonLines(path, resume_step=resume_step)
    for step in steps:
        log.write({"step": step, "loss": step / 2})


def steps_of(path):
    return [record["step"] for record in read_json_lines(path)]


def test_resuming_drops_the_steps_that_will_be_run_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_records(path, [1, 2, 3, 4])
    write_records(path, [3, 4, 5], resume_step=2)
    assert steps_of(path) == [1, 2, 3, 4, 5]
    write_records(path, [1])
    assert steps_of(path) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_record_is_readable_as_soon_as_it_is_written(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl", resume_step=0)
    log.write({"step": 1})
    assert steps_of(tmp_path / "metrics.jsonl") == [1]


def test_a_last_line_cut_off_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert steps_of(path) == [1, 2]
    write_records(path, [3], resume_step=2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": 1.5}\n'


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2") as error:
        read_json_lines(path)
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="line 2"):
        JsonLines(path, resume_step=3)
    assert path.read_text().count("\n") == 3


def test_a_missing_file_has_no_records(tmp_path):
    assert read_json_lines(tmp_path / "metrics.jsonl") == []


def test_write_json_replaces_the_file_in_one_move(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": [1, 2]})
    assert json.loads(path.read_text()) == {"b": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    with pytest.raises(TypeError):
        write_json(path, {"c": object()})
    assert json.loads(path.read_text()) == {"b": [1, 2]}
