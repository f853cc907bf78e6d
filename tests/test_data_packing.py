"""Packing: best fit and end to end, masks, positions, and documents on disk."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.config import UserError
from r1jax.data.documents import Document, DocumentFiles, DocumentList, plain_document, write_documents
from r1jax.data.packing import (
    Piece,
    fill_concatenated,
    fill_separate,
    fill_share,
    plan_best_fit,
    plan_concatenated,
)
from r1jax.data.payloads import PayloadFiles, write_payloads

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=60)


def documents_of(sizes, seed=0) -> list[Document]:
    """Documents whose tokens are all different, some of them learned."""
    rng, starts = np.random.default_rng(seed), np.cumsum([1, *sizes])
    return [
        Document(np.arange(s, s + n, dtype=np.int32), rng.random(n) < 0.6) for s, n in zip(starts, sizes, strict=False)
    ]


@given(lengths, st.integers(4, 50))
def test_every_target_is_in_a_row_once_whatever_the_length(sizes, row_length):
    rows = plan_best_fit(sizes, row_length, long="split")
    places = [(p.document, place) for row in rows for p in row for place in range(p.start, p.stop)]
    assert sorted(places) == [(d, place) for d, size in enumerate(sizes) for place in range(size - 1)]
    assert all(0 < sum(p.stop - p.start for p in row) <= row_length for row in rows)
    assert rows == sorted(rows)


@given(lengths)
def test_rows_hold_whole_documents_and_no_two_would_fit_into_one(sizes):
    rows = plan_best_fit(sizes, 40)
    assert all(p.start == 0 and p.stop == sizes[p.document] - 1 for row in rows for p in row)
    used = sorted(sum(p.stop for p in row) for row in rows)
    assert len(used) < 2 or used[0] + used[1] > 40


def test_best_fit_is_as_good_as_the_best_packing_of_a_few_and_fills_many():
    rng = np.random.default_rng(1)
    for _ in range(12):
        sizes = rng.integers(2, 10, 5).tolist()
        best = min(
            len(set(choice))
            for choice in itertools.product(range(5), repeat=5)
            if all(sum(s - 1 for s, c in zip(sizes, choice, strict=True) if c == row) <= 12 for row in range(5))
        )
        assert len(plan_best_fit(sizes, 12)) <= best * 11 // 9 + 1  # the bound of best fit decreasing
    sizes = np.clip(rng.lognormal(5, 1, 2000).astype(int), 2, 2049).tolist()
    assert sum(s - 1 for s in sizes) / (2048 * len(plan_best_fit(sizes, 2048))) > 0.98


def test_long_and_empty_documents_are_refused_by_name():
    with pytest.raises(ValueError, match="document 1 of 10 tokens does not fit into rows of 8"):
        plan_best_fit([9, 10], 8)
    assert plan_best_fit([10], 8, long="split") == [(Piece(0, 0, 8),), (Piece(0, 8, 9),)]
    with pytest.raises(ValueError, match="document 1 has 1 tokens"):
        plan_best_fit([9, 1], 8)
    assert plan_best_fit([], 8) == plan_concatenated([], 8) == plan_concatenated([1], 8) == []


@settings(deadline=None)
@given(lengths, st.integers(4, 50))
def test_separate_rows_are_their_documents(sizes, row_length):
    documents = documents_of(sizes)
    owner = {int(token): d for d, document in enumerate(documents) for token in document.ids}
    learned = {int(t): bool(x) for document in documents for t, x in zip(*document, strict=True)}
    batch = fill_separate(plan_best_fit(sizes, row_length, long="split"), documents, row_length)
    inside = batch.segments > 0
    assert (batch.targets[inside] == batch.tokens[inside] + 1).all()  # the next token of the same document
    assert all(owner[t] == owner[t + 1] for t in batch.tokens[inside].tolist())
    assert sorted(batch.targets[inside].tolist()) == sorted(t for d in documents for t in d.ids[1:].tolist())
    assert batch.loss_mask[inside].tolist() == [learned[t] for t in batch.targets[inside].tolist()]
    assert not batch.tokens[~inside].any() and not batch.targets[~inside].any() and not batch.loss_mask[~inside].any()
    assert (batch.positions[~inside] == -1).all()
    for positions, segments in zip(batch.positions, batch.segments, strict=True):
        for segment in range(1, segments.max() + 1):
            place = np.flatnonzero(segments == segment)
            assert positions[place].tolist() == list(range(len(place))) and (np.diff(place) == 1).all()
    assert fill_share(batch.segments) == sum(s - 1 for s in sizes) / batch.segments.size


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 50))
def test_concatenated_rows_are_the_text_end_to_end(sizes, row_length):
    documents = documents_of(sizes)
    text, learned = np.concatenate([d.ids for d in documents]), np.concatenate([d.learned for d in documents])
    batch = fill_concatenated(plan_concatenated(sizes, row_length), documents, row_length)
    inside = batch.segments > 0
    assert batch.tokens[inside].tolist() == text[:-1].tolist()
    assert batch.targets[inside].tolist() == text[1:].tolist()
    assert batch.loss_mask[inside].tolist() == learned[1:].tolist()
    assert inside[:-1].all() and set(np.unique(batch.segments)) <= {0, 1}  # only the last row has room
    assert (np.where(inside, batch.positions, 0) == np.where(inside, np.arange(row_length), 0)).all()


def test_padding_rows_are_empty():
    for fill in (fill_separate, fill_concatenated):
        batch = fill([()], [], 5)
        assert batch.tokens.shape == (1, 5) and fill_share(batch.segments) == 0 and not batch.loss_mask.any()


# On disk


def test_documents_come_back_from_disk(tmp_path):
    rng = np.random.default_rng(0)
    documents = documents_of(rng.integers(1, 70, 300).tolist())
    for part, name in ((documents[:100], "a"), (documents[100:], "b")):
        assert write_documents(iter(part), tmp_path / f"{name}.array_record") == len(part)
    files = DocumentFiles([tmp_path / "a.array_record", tmp_path / "b.array_record"])
    assert len(files) == 300 and files.lengths.tolist() == [len(d.ids) for d in documents]
    assert files.lengths.tolist() == DocumentList(documents).lengths.tolist()
    for place in rng.permutation(300):
        assert files[place].ids.tolist() == documents[place].ids.tolist()
        assert files[place].learned.tolist() == documents[place].learned.tolist()
    assert len(list(files)) == 300 and files[-1].ids.tolist() == documents[-1].ids.tolist()
    assert plain_document([5, 6]).learned.all()


def test_payloads_are_read_at_any_place_by_many_threads_at_once(tmp_path):
    payloads = [f"{n}".encode() * (n % 50 + 1) for n in range(2000)]
    for name, part in (("a", payloads[:700]), ("b", payloads[700:])):
        write_payloads(part, tmp_path / f"{name}.array_record")
    files = PayloadFiles([tmp_path / "a.array_record", tmp_path / "b.array_record"])
    order = np.random.default_rng(0).permutation(8000) % 2000
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: files[int(n)], order)) == [payloads[n] for n in order]
    assert list(files) == payloads and files[-1] == payloads[-1]
    with pytest.raises(IndexError):
        files[2000]


def test_a_single_record_does_not_cost_the_length_of_the_file(tmp_path):
    def seconds(count: int) -> float:
        write_payloads((b"%09d" % n for n in range(count)), tmp_path / "x.array_record")
        files = PayloadFiles([tmp_path / "x.array_record"])
        places, best = np.random.default_rng(0).integers(0, count, 300).tolist(), float("inf")
        for _ in range(5):
            start = time.process_time()
            assert [int(files[place]) for place in places] == places
            best = min(best, time.process_time() - start)
        return best

    assert seconds(64_000) < 8 * seconds(2_000)  # 32 times as long


def test_missing_and_damaged_files_are_named(tmp_path):
    write_payloads([b"x" * 1000] * 300, tmp_path / "a.array_record")
    content = (tmp_path / "a.array_record").read_bytes()
    (tmp_path / "cut.array_record").write_bytes(content[: len(content) // 2])
    for name, problem in (("absent", "absent.array_record: missing"), ("cut", "cut.array_record is not a whole")):
        with pytest.raises(UserError, match=problem):
            PayloadFiles([tmp_path / f"{name}.array_record"])
    with pytest.raises(UserError, match="no ArrayRecord file"):
        PayloadFiles([])


def test_documents_without_their_index_are_refused(tmp_path):
    path, index = tmp_path / "a.array_record", tmp_path / "a.array_record.lengths.npy"
    write_documents(documents_of([3, 4, 5]), path)
    np.save(index, np.array([3, 4], np.int32))
    with pytest.raises(UserError, match="3 documents, but 2 lengths"):
        DocumentFiles([path])
    index.unlink()
    with pytest.raises(UserError, match="lengths.npy is missing"):
        DocumentFiles([path])
    with pytest.raises(ValueError, match="both be"):
        write_documents([Document(np.arange(3), np.ones(2, bool))], path)
