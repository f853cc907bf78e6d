"""Byte strings in ArrayRecord files: written one after the other, read at any place."""

import bisect
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from r1jax.config import UserError

READER = {"options": "readahead_buffer_size:0,max_parallelism:0", "file_reader_buffer_size": 1 << 15}
"""For reading single records at random places."""


def write_payloads(payloads: Iterable[bytes], path: str | Path) -> int:
    """Write byte strings as an ArrayRecord file, in one move; returns how many there were.

    Each is in a group of its own, for streams over a corpus that does not fit into memory read them one at a time.

    Raises:
      UserError: the file does not hold what was written, as on a full disk.
    """
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path, count = Path(path), 0
    partial = path.with_name(path.name + ".partial")
    writer = ArrayRecordWriter(str(partial), "group_size:1")
    for count, payload in enumerate(payloads, start=1):
        writer.write(payload)
    writer.close()
    if ArrayRecordReader(str(partial)).num_records() != count:  # 0 for a broken file
        raise UserError(f"{partial} does not hold the {count} records written to it; is the disk full?")
    partial.rename(path)
    return count


class PayloadFiles(Sequence):
    """The byte strings of ArrayRecord files, one file after the other, each read when it is asked for.

    Several threads may read at once. A record is read as a range of one: asking the reader for a list of places, as
    grain's own data source does, takes time in proportion to the length of the file.
    """

    def __init__(self, paths: Iterable[str | Path]):
        """Open the files, in this order.

        Raises:
          UserError: there is none, or one is missing or damaged.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        paths = [Path(path) for path in paths]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing or not paths:
            raise UserError(f"{', '.join(missing)}: missing" if missing else "no ArrayRecord file was named")
        self._paths = paths
        self._readers = [ArrayRecordReader(str(path), **READER) for path in paths]
        for path, reader in zip(paths, self._readers, strict=True):
            if not reader.ok():
                raise UserError(f"{path} is not a whole ArrayRecord file; write it again")
        self._ends = list(itertools.accumulate(reader.num_records() for reader in self._readers))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        index = range(len(self))[index]  # a range knows negative places, and its end
        file = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[file - 1] if file else 0)
        try:
            return self._readers[file].read(place, place + 1)[0]
        except RuntimeError as error:
            raise UserError(f"{self._paths[file]}, record {place + 1}: damaged: {error}") from error
