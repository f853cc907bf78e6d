"""Endless or counted streams of batches over mixed corpora, the same on any number of hosts, exactly resumable.

The order of the records is a pure function of the seed and the position: position p of a stream is a record of one of
the sources, found by an index shuffle without a buffer. Global batch k is the same whatever the number of hosts;
host h of H takes the h-th of H equal parts of its rows. So the state of a stream says only how far it is, is the same
on every host, and can be restored on another number of them.
"""

import dataclasses
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import grain
import numpy as np

from r1jax.config import UserError, differences
from r1jax.data.mixture import Interleaving, Source, check_sources, source_seed
from r1jax.data.packing import TrainingRows
from r1jax.data.payloads import PayloadFiles
from r1jax.data.rows import parse_json
from r1jax.data.windows import Windows


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which part of every global batch this process reads; `r1jax.hosts.share_of` says it of a mesh."""

    index: int = 0
    count: int = 1


class RecordFiles(Sequence):
    """Records of ArrayRecord files written by `write_array_record`, read one at a time."""

    def __init__(self, paths: Iterable[str | Path]):
        self._payloads = PayloadFiles(paths)

    def __len__(self) -> int:
        return len(self._payloads)

    def __getitem__(self, index: int) -> dict:
        return parse_json(self._payloads[index])


SMALL = 2**14
"""Items up to which a source is shuffled in memory: below, grain's index shuffle is slow, 13 ms for one of two."""


class Stream(Iterator):
    """An iterator of this host's parts of the global batches, with a state to save beside a checkpoint."""

    def __init__(self, batches: grain.DatasetIterator, facts: dict, steps: int | None):
        self._held, self._facts = [batches], facts
        self.steps = steps
        """Global batches from the start to the end; None where it is endless, or packed and so not known before."""
        weakref.finalize(self, _release, self._held)  # grain's threads complain if they outlive the interpreter

    def __next__(self) -> Any:
        if not self._held:
            raise ValueError("the stream is closed")
        return next(self._held[0])

    def state(self) -> dict:
        """Where the stream is: a small dictionary of JSON values, the same on every host after the same batch."""
        return {"stream": self._facts, "at": self._held[0].get_state()}

    def restore(self, state: dict) -> None:
        """Go on after the batch at which the state was taken, on this or any other number of hosts.

        Raises:
          UserError: the state belongs to a stream of other sources, order or batches.
        """
        changed = differences(state["stream"], self._facts)
        if changed:
            raise UserError("the saved state belongs to another stream of data:\n  " + "\n  ".join(changed))
        self._held[0].set_state(state["at"])

    def close(self) -> None:
        """Stop reading ahead; the stream gives nothing more."""
        _release(self._held)


def _release(held: list[grain.DatasetIterator]) -> None:
    while held:
        held.pop().close()


def record_stream(
    sources: Sequence[Source],
    *,
    batch: int,
    seed: int,
    epochs: int | None = None,
    hosts: Hosts = Hosts(),
    transform: Callable[[Any], Any] | None = None,
    read_ahead: int = 2,
) -> Stream:
    """Batches of single records, each a list of `batch` / `hosts.count` items.

    Args:
      sources: mixed by their weights, in a fixed interleaving; each is shuffled anew in every epoch of its own.
      batch: records of a global batch.
      seed: the order follows from it and from the names and lengths of the sources.
      epochs: passes over the mixture; one ends when the first of the sources has been seen whole. Endless by default.
        The records of a last batch that would not be full are left out: (epochs x length) modulo `batch`.
      hosts: which part of the batch this process reads.
      transform: applied to each item as it is read, such as tokenisation; must be a pure function.
      read_ahead: batches to prepare in the background; 0 for none.

    Raises:
      UserError: sources that cannot be mixed, or a batch that the hosts cannot share equally.
    """
    order = _order(sources, seed, epochs)
    share = _share(batch, hosts)
    steps = len(order) // batch
    if not steps:
        raise UserError(f"{epochs} epochs of the sources are {len(order)} records, fewer than one batch of {batch}")
    items = [source.items for source in sources]
    apply = transform or (lambda item: item)
    records = order[: steps * batch].map(lambda place: apply(items[place[0]][place[1]]))
    batches = records.batch(share, batch_fn=list)[hosts.index :: hosts.count]
    threads = grain.ReadOptions(num_threads=min(read_ahead, 4), prefetch_buffer_size=read_ahead)
    facts = _facts(sources, seed, epochs) | {"batch": batch}
    return Stream(iter(batches.to_iter_dataset(threads)), facts, steps if epochs else None)


def packed_stream(
    sources: Sequence[Source],
    *,
    batch: int,
    length: int,
    seed: int,
    epochs: int | None = None,
    hosts: Hosts = Hosts(),
    packing: Literal["best_fit", "concatenate"] = "best_fit",
    long: Literal["error", "split"] = "error",
    window: int = 4096,
    read_ahead: int = 2,
) -> Stream:
    """Batches of packed rows: `TrainingRows` of [`batch` / `hosts.count`, `length`].

    The stream of documents is cut into windows, each packed by itself, so that how it is packed is a function of the
    window alone. Every host plans every window from the index of lengths, and reads the documents of its own rows only.

    Args:
      sources: of tokenised documents with their lengths: `DocumentList` or `DocumentFiles`.
      batch: rows of a global batch.
      length: places of a row.
      seed, epochs, hosts, read_ahead: see `record_stream`. The rows that a last batch lacks are padding.
      packing: "best_fit" keeps documents whole and apart, for fine-tuning; "concatenate" lays them end to end, without
        masks between them, as DeepSeek-V3 is pre-trained.
      long: what "best_fit" does with documents that no row can hold: stop, or split them.
      window: documents packed together. More fill better, and cost more to resume.

    Raises:
      UserError: see `record_stream`; while iterating, a document that cannot be packed.
    """
    for source in sources:
        if not hasattr(source.items, "lengths"):
            raise UserError(f"source {source.name!r} has no lengths; packing needs a DocumentList or DocumentFiles")
    order, share = _order(sources, seed, epochs), _share(batch, hosts)
    rows = slice(hosts.index * share, (hosts.index + 1) * share)
    windows = Windows(order, sources, length, packing, long, window)
    batches = _PackedBatches(windows, batch, rows)
    facts = _facts(sources, seed, epochs) | {"tokens": [int(np.sum(source.items.lengths)) for source in sources]}
    facts |= {"batch": batch, "length": length, "packing": packing, "long": long, "window": window}
    if read_ahead:
        batches = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=read_ahead)
    return Stream(iter(batches), facts, None)


def _share(batch: int, hosts: Hosts) -> int:
    if not 0 <= hosts.index < hosts.count or batch % hosts.count:
        raise UserError(f"a batch of {batch} cannot be shared equally: host {hosts.index} of {hosts.count}")
    return batch // hosts.count


def _facts(sources: Sequence[Source], seed: int, epochs: int | None) -> dict:
    """What the order depends on, as JSON; a state is valid for these facts alone."""
    about = {s.name: {"length": len(s.items), "weight": s.weight, "place": n} for n, s in enumerate(sources)}
    return json.loads(json.dumps({"seed": seed, "epochs": epochs, "sources": about}))


def _order(sources: Sequence[Source], seed: int, epochs: int | None) -> grain.MapDataset:
    """Position to (source, item)."""
    check_sources(sources)
    if epochs is not None and epochs < 1:
        raise UserError(f"{epochs} epochs; at least 1 is needed")
    shuffled = []
    for number, source in enumerate(sources):
        places = _shuffled(len(source.items), source_seed(seed, source.name))
        shuffled.append(places.map(lambda item, number=number: (number, item)))
    mixed = grain.MapDataset.select_from_datasets(shuffled, Interleaving(sources))
    return mixed.repeat(epochs)


def _shuffled(length: int, seed: int) -> grain.MapDataset:
    """The numbers below `length` in random order, another one in every epoch."""
    if length <= SMALL:
        return _Permutations(length, seed)
    return grain.MapDataset.range(length).shuffle(seed)


class _Permutations(grain.MapDataset):
    """Shuffles a small range with a permutation in memory, of which grain's index shuffle would take milliseconds."""

    def __init__(self, length: int, seed: int):
        super().__init__()
        self._length, self._seed, self._kept = length, seed, (-1, None)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, self._length)
        kept, order = self._kept
        if kept != epoch:  # raw bits: their stream is the same in every version of numpy
            order = np.argsort(np.random.Philox(key=[self._seed, epoch]).random_raw(self._length), kind="stable")
            self._kept = epoch, order
        return int(order[place])


class _PackedBatches(grain.IterDataset):
    """Global batches of packed rows; yields `rows` of each."""

    def __init__(self, windows: Windows, batch: int, rows: slice):
        super().__init__()
        self._windows, self._batch, self._rows = windows, batch, rows

    def __iter__(self) -> grain.DatasetIterator:
        return _PackedIterator(self._windows, self._batch, self._rows)


class _PackedIterator(grain.DatasetIterator):
    """Its state is the window and the row of it at which the next global batch begins."""

    def __init__(self, windows: Windows, batch: int, rows: slice):
        super().__init__()
        self._windows, self._batch, self._rows = windows, batch, rows
        self._window = self._row = 0
        self._planned: tuple[int, Any] = (-1, None)

    def __next__(self) -> TrainingRows:
        parts, found = [], 0
        while found < self._batch:
            plan = self._plan()
            if plan is None:
                break
            places, rows = plan
            taken = rows[self._row : self._row + self._batch - found]
            mine = taken[max(0, self._rows.start - found) : max(0, self._rows.stop - found)]
            parts.append(self._windows.fill(places, mine))
            found, self._row = found + len(taken), self._row + len(taken)
            if self._row == len(rows):
                self._window, self._row = self._window + 1, 0
        if not found:
            raise StopIteration
        missing = self._rows.stop - self._rows.start - sum(len(part.tokens) for part in parts)
        parts.append(self._windows.fill([], [()] * missing))
        return TrainingRows(*map(np.concatenate, zip(*parts, strict=True)))

    def _plan(self):
        if self._planned[0] != self._window:
            self._planned = self._window, self._windows.plan(self._window)
        return self._planned[1]

    def get_state(self) -> dict[str, int]:
        return {"window": self._window, "row": self._row}

    def set_state(self, state: dict[str, int]) -> None:
        self._window, self._row = state["window"], state["row"]
