"""The safetensors format, read by memory map and written tensor by tensor, without torch.

A file is eight bytes with the length of a JSON header, the header (name -> dtype, shape, span of bytes), and the bytes.
A checkpoint is one such file, or several with `model.safetensors.index.json` that says which tensor is in which.
"""

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from r1jax.config import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "BOOL": np.dtype(np.bool_), "U8": np.dtype(np.uint8), "I8": np.dtype(np.int8), "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"), "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LONGEST_HEADER = 100 << 20  # bytes; the limit of the reference implementation


class StoredTensor(NamedTuple):
    """Where a tensor lies."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    """Bytes from the beginning of the file."""

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def view(self) -> np.ndarray:
        """The tensor as a read-only memory map of its own: a slice of it reads only the pages that it touches.

        The map goes with the last array that refers to it, and with it what it adds to the memory of the process.
        """
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        length = self.offset + self.nbytes - start
        with open(self.file, "rb") as file:
            memory = mmap.mmap(file.fileno(), length, offset=start, access=mmap.ACCESS_READ)
        count = self.nbytes // self.dtype.itemsize
        return np.frombuffer(memory, self.dtype, count, self.offset - start).reshape(self.shape)


def open_checkpoint(folder: str | Path) -> dict[str, StoredTensor]:
    """Read the headers of a checkpoint's files, and none of its tensors.

    Returns:
      tensor name -> where it lies.

    Raises:
      UserError: no such files, one of them missing, truncated or broken, or index and files that disagree.
    """
    folder = Path(folder)
    single, index = folder / SINGLE, folder / INDEX
    if single.exists() and index.exists():
        raise UserError(f"{folder} has both {SINGLE} and {INDEX}; remove the one that is not meant")
    if single.exists():
        return open_file(single)
    if not index.exists():
        found = sorted(path.name for path in folder.glob("*.safetensors")) + sorted(
            path.name for path in folder.glob("pytorch_model*")
        )
        raise UserError(
            f"{folder} has neither {SINGLE} nor {INDEX} (weights found: {', '.join(found[:5]) or 'none'}); weights of "
            "another form have to be saved as safetensors first"
        )
    return _open_shards(folder, _read_index(index))


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is not an index of safetensors files: {error!r}") from error
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{index}: tensor {name} is said to be in {file!r}, which is not a file name")
    return weight_map


def _open_shards(folder: Path, weight_map: dict[str, str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    missing = sorted(file for file in set(weight_map.values()) if not (folder / file).exists())
    if missing:
        raise UserError(
            f"{folder / INDEX} names {len(set(weight_map.values()))} files, of which {len(missing)} are missing: "
            f"{', '.join(missing[:10])}; is the download complete?"
        )
    for file in sorted(set(weight_map.values())):
        for name, tensor in open_file(folder / file).items():
            if name in tensors:
                raise UserError(f"tensor {name} is in {tensors[name].file} and again in {tensor.file}")
            if weight_map.get(name) != file:
                said = f"in {weight_map[name]}" if name in weight_map else "nowhere"
                raise UserError(f"tensor {name} is in {tensor.file}, and {INDEX} says that it is {said}")
            tensors[name] = tensor
    absent = [name for name in weight_map if name not in tensors]
    if absent:
        raise UserError(
            f"{folder / INDEX} says that {weight_map[absent[0]]} holds tensor {absent[0]}, and it does not "
            f"({len(absent)} such tensors)"
        )
    return tensors


def open_file(path: str | Path) -> dict[str, StoredTensor]:
    """Read the header of one file.

    Raises:
      UserError: the file is truncated, its header is broken, or a dtype is not handled; names file and tensor.
    """
    path = Path(path)
    size = path.stat().st_size
    header, start = _read_header(path, size)
    header.pop("__metadata__", None)
    tensors = {name: _stored(path, name, entry, start) for name, entry in header.items()}
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset != end:
            raise UserError(
                f"{path}: the header is broken: the bytes of tensor {name} begin at {tensor.offset - start}, and those "
                f"of the tensor before end at {end - start}"
            )
        end += tensor.nbytes
    if end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise UserError(f"{path} is {state}: {size} bytes, expected {end}; fetch or write it again")
    return tensors


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > LONGEST_HEADER or 8 + length > size:
            raise UserError(
                f"{path} is truncated or not a safetensors file: it has {size} bytes, and begins by asking for a "
                f"header of {length}"
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        if not isinstance(header, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise UserError(f"{path}: the header is broken: {error}") from error
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found


def _stored(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    try:
        code, shape, (first, last) = entry["dtype"], tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: the header is broken at tensor {name}: {entry!r}") from error
    if code not in DTYPES:
        raise UserError(f"{path}: tensor {name} has dtype {code}; handled are {', '.join(DTYPES)}")
    tensor = StoredTensor(path, DTYPES[code], shape, start + first)
    if min(shape, default=0) < 0 or first < 0 or last - first != tensor.nbytes:
        raise UserError(
            f"{path}: the header is broken: tensor {name} of shape {shape} and dtype {code} has {last - first} bytes, "
            f"expected {tensor.nbytes}"
        )
    return tensor


class TensorSpec(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_checkpoint(
    folder: str | Path, specs: Sequence[TensorSpec], tensors: Iterable[np.ndarray], *, max_shard_bytes: int = 5 << 30
) -> None:
    """Write tensors as they come, holding one at a time, into files that appear under their names when complete.

    Args:
      folder: must exist.
      specs: of all tensors.
      tensors: in the order of `specs`.
      max_shard_bytes: of tensors in one file; a larger tensor has a file of its own.

    Raises:
      UserError: a tensor is not what its spec says.
    """
    folder, shards, arrays = Path(folder), _cut_shards(specs, max_shard_bytes), iter(tensors)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard, arrays)
        weight_map |= {spec.name: name for spec in shard}
    if len(shards) > 1:
        total = sum(spec.nbytes for spec in specs)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        partial = folder / f"{INDEX}.partial"
        partial.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        partial.rename(folder / INDEX)


def _cut_shards(specs: Sequence[TensorSpec], limit: int) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    held = 0
    for spec in specs:
        if shards[-1] and held + spec.nbytes > limit:
            shards.append([])
            held = 0
        shards[-1].append(spec)
        held += spec.nbytes
    return shards


def _write_shard(path: Path, specs: list[TensorSpec], arrays: Iterator[np.ndarray]) -> None:
    header, offsets, end = {"__metadata__": {"format": "pt"}}, {}, 0
    for spec in sorted(specs, key=lambda spec: -spec.dtype.itemsize):  # widest first, so that all are aligned
        offsets[spec.name], first, end = end, end, end + spec.nbytes
        header[spec.name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec in specs:
            array = next(arrays)
            if array.dtype != spec.dtype or array.shape != spec.shape:
                raise UserError(
                    f"{path}: tensor {spec.name} is {array.dtype} {array.shape}, expected {spec.dtype} {spec.shape}"
                )
            file.seek(8 + len(text) + offsets[spec.name])
            file.write(np.ascontiguousarray(array).view(np.uint8).data if array.ndim else array.tobytes())
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
