"""Streams: their order, mixtures and epochs; the same on any number of hosts; killed at any point and resumed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from r1jax.config import UserError
from r1jax.data.documents import DocumentFiles, DocumentList, plain_document, write_documents
from r1jax.data.packing import TrainingRows, fill_share
from r1jax.data.sources import write_array_record
from r1jax.data.streams import SMALL, Hosts, RecordFiles, Source, packed_stream, record_stream

SIZES = {"math": 90, "code": 31, "text": 47}
WEIGHTS = {"math": 3, "code": 1, "text": 2}
BATCH, ROW = 8, 48


def record(name: str, number: int) -> dict:
    return {"id": f"{name}:{number}", "n": number}


def document(name: str, number: int):
    """Its tokens say whose they are: the source and the number are in every one."""
    size = int(np.random.default_rng([len(name), number]).integers(2, 40))
    return plain_document(10_000 * list(SIZES).index(name) + 100 * number + np.arange(size) + 1)


def sources_in(folder: Path, packed: bool) -> list[Source]:
    """Three weighted sources: two on disk, one in memory."""
    found = []
    for name, size in SIZES.items():
        path = folder / f"{name}{'.packed' * packed}.array_record"
        make = document if packed else record
        if not path.exists():
            (write_documents if packed else write_array_record)((make(name, n) for n in range(size)), path)
        items = DocumentFiles([path]) if packed else RecordFiles([path])
        if name == "code":
            items = [record(name, n) for n in range(size)]
            items = DocumentList([document(name, n) for n in range(size)]) if packed else items
        found.append(Source(name, items, WEIGHTS[name]))
    return found


def open_stream(folder: Path, kind: str, hosts: Hosts = Hosts()):
    if kind == "records":
        return record_stream(
            sources_in(folder, False), batch=BATCH, seed=5, epochs=2, hosts=hosts, transform=lambda r: r["id"]
        )
    return packed_stream(
        sources_in(folder, True), batch=BATCH, length=ROW, seed=5, epochs=2, hosts=hosts, packing=kind, window=37
    )


def as_json(batch) -> list:
    """A part of a batch, row by row."""
    if isinstance(batch, TrainingRows):
        return [[array[row].tolist() for array in batch] for row in range(len(batch.tokens))]
    return batch


KINDS = ["records", "best_fit", "concatenate"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of the corpus and, by kind, every global batch of its two epochs."""
    folder = tmp_path_factory.mktemp("corpus")
    return folder, {kind: [as_json(batch) for batch in open_stream(folder, kind)] for kind in KINDS}


# Order


@pytest.mark.parametrize("size", [96, SMALL + 32])  # shuffled in memory, and by grain
def test_an_epoch_of_one_source_is_a_permutation_and_the_next_is_another(size):
    stream = record_stream([Source("s", range(size))], batch=32, seed=0, epochs=2)
    order = [item for batch in stream for item in batch]
    epochs = [order[:size], order[size:]]
    assert stream.steps == 2 * size // 32 and all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[0] != list(range(size))
    assert abs(np.corrcoef(epochs[0], range(size))[0, 1]) < 4 / size**0.5
    epochs = [epoch[:64] for epoch in epochs]
    first = lambda seed, name="s": next(record_stream([Source(name, range(size))], batch=64, seed=seed, read_ahead=0))
    assert first(0) == epochs[0]
    assert first(1) != epochs[1] and first(1) != first(0) != first(0, "another")  # seeds do not share their epochs


def test_a_mixture_keeps_its_weights_at_every_point(corpus):
    names = [item.split(":")[0] for batch in corpus[1]["records"] for item in batch]
    for end in range(1, len(names) + 1):
        counts = Counter(names[:end])
        assert all(abs(counts[name] - end * weight / 6) < 1.5 for name, weight in WEIGHTS.items())
    seen = Counter(item for batch in corpus[1]["records"] for item in batch)
    assert len(names) == 2 * (47 * 6 // 2) // BATCH * BATCH  # an epoch ends when text has been seen whole
    assert max(seen.values()) == 2 and sum(seen[f"text:{n}"] == 2 for n in range(47)) >= 45


def test_without_weights_every_record_comes_once_an_epoch():
    sources = [Source(name, [record(name, n)["id"] for n in range(size)]) for name, size in SIZES.items()]
    for epochs in (1, 2):
        seen = Counter(x for batch in record_stream(sources, batch=8, seed=3, epochs=epochs) for x in batch)
        assert len(seen) == 168 and set(seen.values()) == {epochs}


def test_an_endless_stream_goes_on():
    stream = record_stream([Source("s", list(range(10)))], batch=4, seed=0)
    assert stream.steps is None
    seen = Counter(item for _ in range(50) for item in next(stream))
    assert set(seen.values()) == {20}
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)


def test_every_document_is_packed_and_no_token_lost(corpus):
    order = [place.split(":") for batch in corpus[1]["records"] for place in batch]
    for kind in ("best_fit", "concatenate"):
        batches = [TrainingRows(*map(np.array, zip(*batch, strict=True))) for batch in corpus[1][kind]]
        assert all(batch.tokens.shape == (BATCH, ROW) for batch in batches)
        targets = Counter(t for b in batches for t in b.targets[b.segments > 0].tolist())
        whole = Counter(t for name, n in order for t in document(name, int(n)).ids.tolist())
        firsts = Counter(int(document(name, int(n)).ids[0]) for name, n in order)
        missing = whole - targets  # the record stream leaves out a last batch, the packed one does not
        assert missing <= firsts and (kind == "concatenate" or missing == firsts - targets)
        assert np.mean([fill_share(batch.segments) for batch in batches[:-1]]) > 0.9


# Hosts and resumption


@pytest.mark.parametrize("kind", KINDS)
def test_any_state_continues_on_any_number_of_hosts(kind, corpus):
    folder, batches = corpus
    expected = batches[kind]
    for at in (0, 1, len(expected) // 2, len(expected) - 1, len(expected)):
        for before, after in ((1, 4), (4, 2), (2, 1)):
            states = []
            for index in range(before):
                stream = open_stream(folder, kind, Hosts(index, before))
                for _ in range(at):
                    next(stream)
                states.append(json.dumps(stream.state()))
            assert len(set(states)) == 1 and len(states[0]) < 700
            parts = []
            for index in range(after):
                stream = open_stream(folder, kind, Hosts(index, after))
                next(stream, None)  # a stream that was already in use
                stream.restore(json.loads(states[0]))
                parts.append([as_json(batch) for batch in stream])
            assert [sum(rows, []) for rows in zip(*parts, strict=True)] == expected[at:]


CHILD = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from test_data_streams import Hosts, as_json, open_stream
folder, kind, index, count, saved = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
stream = open_stream(folder, kind, Hosts(index, count))
if saved:
    stream.restore(json.loads(saved))
for batch in stream:
    print(json.dumps([as_json(batch), stream.state()]), flush=True)
"""


def run_hosts(folder, kind, count, saved, kill_after):
    """Run a process for every host; each logs what it consumed and is killed after so many batches.

    Returns the global batches and the state after each, or as many as all hosts have logged.
    """
    here = Path(__file__).resolve().parent
    code = CHILD.format(root=str(here.parent), tests=str(here))
    command = lambda index: [sys.executable, "-c", code, str(folder), kind, str(index), str(count), saved]
    children = [subprocess.Popen(command(n), stdout=subprocess.PIPE, text=True) for n in range(count)]
    logs = []
    for child in children:
        logs.append([])
        for line in child.stdout:
            logs[-1].append(json.loads(line))
            if len(logs[-1]) == kill_after:
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.close()
        assert child.wait(timeout=60) == (-signal.SIGKILL if len(logs[-1]) == kill_after else 0)
    logged = list(zip(*logs, strict=False))
    assert all(state == step[0][1] for step in logged for _, state in step)
    return [sum((rows for rows, _ in step), []) for step in logged], [json.dumps(step[0][1]) for step in logged]


@pytest.mark.parametrize("kind", ["records", "best_fit"])
def test_processes_killed_at_random_points_see_one_stream_on_1_2_and_4_hosts(kind, corpus):
    folder, batches = corpus
    expected, done, saved = batches[kind], 0, ""
    rng = np.random.default_rng(7)
    for count in (2, 4):
        found, states = run_hosts(folder, kind, count, saved, int(rng.integers(5, len(expected) // 2)))
        assert found == expected[done : done + len(found)]
        kept = int(rng.integers(1, len(found) + 1))  # what came after the checkpoint is lost
        done, saved = done + kept, states[kept - 1]
    found, _ = run_hosts(folder, kind, 1, saved, None)
    assert found == expected[done:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_kills(kind, corpus):
    folder, batches = corpus
    expected, rng, done, saved = batches[kind], np.random.default_rng(11), 0, ""
    while done < len(expected):
        found, states = run_hosts(folder, kind, int(rng.choice([1, 2, 4])), saved, int(rng.integers(3, 20)))
        assert found and found == expected[done : done + len(found)]
        kept = int(rng.integers(1, len(found) + 1))
        done, saved = done + kept, states[kept - 1]


# Mistakes


def test_a_state_of_another_stream_is_refused(corpus):
    folder, _ = corpus
    state = open_stream(folder, "best_fit").state()
    with pytest.raises(UserError, match='packing: "best_fit" -> "concatenate"'):
        open_stream(folder, "concatenate").restore(state)
    sources = sources_in(folder, True)
    with pytest.raises(UserError, match="sources.text.weight: 2 -> 5"):
        changed = [*sources[:2], sources[2]._replace(weight=5)]
        packed_stream(changed, batch=BATCH, length=ROW, seed=5, epochs=2, window=37).restore(state)
    with pytest.raises(UserError, match="seed: 5 -> 6"):
        packed_stream(sources, batch=BATCH, length=ROW, seed=6, epochs=2, window=37).restore(state)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sources": []}, "at least one source"),
        ({"sources": [Source("a", [1]), Source("a", [2])]}, "name of its own"),
        ({"sources": [Source("a", [])]}, "'a' has 0 items"),
        ({"sources": [Source("a", [1], 1), Source("b", [2])]}, "'b' has weight None"),
        ({"sources": [Source("a", [1], 0)]}, "'a' has weight 0"),
        ({"hosts": Hosts(0, 3)}, "batch of 8 cannot be shared"),
        ({"hosts": Hosts(2, 2)}, "host 2 of 2"),
        ({"epochs": 0}, "0 epochs"),
        ({"sources": [Source("a", [1])], "epochs": 1}, "fewer than one batch"),
    ],
)
def test_streams_that_cannot_be_are_refused(changes, problem):
    with pytest.raises(UserError, match=problem):
        record_stream(**{"sources": [Source("a", list(range(20)))], "batch": 8, "seed": 0} | changes)


def test_documents_that_cannot_be_packed_are_named():
    items = DocumentList([plain_document(range(9)), plain_document(range(99))])
    with pytest.raises(UserError, match="does not fit into rows of 16.*s\\["):
        next(packed_stream([Source("s", items)], batch=2, length=16, seed=0, read_ahead=0))
    batch = next(packed_stream([Source("s", items)], batch=2, length=16, seed=0, long="split", epochs=1))
    assert batch.tokens.shape == (2, 16)
    with pytest.raises(UserError, match="has no lengths"):
        packed_stream([Source("s", [[1, 2]])], batch=2, length=16, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_a_corpus_larger_than_its_budget(tmp_path):
    budget, size, count = 64 << 20, 20_000, 8_000  # 160 MB of text that does not compress
    rng = np.random.default_rng(0)
    text = lambda: rng.integers(0, 16, size, dtype=np.uint8).tobytes().hex()[1::2]
    write_array_record(({"id": str(n), "text": text()} for n in range(count)), tmp_path / "big.array_record")
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    stream = record_stream([Source("big", RecordFiles([tmp_path / "big.array_record"]))], batch=16, seed=0, epochs=2)
    for _ in range(20):
        next(stream)
    start, peak = resident(), 0
    for _ in stream:
        peak = max(peak, resident())
    assert (tmp_path / "big.array_record").stat().st_size > budget
    assert peak - start < budget
