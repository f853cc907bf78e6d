"""A Hugging Face checkpoint into sharded arrays, tensor by tensor.

Each device's part of an array is made on the device, and filled there in place with what the device needs of one tensor
after the other, read through a memory map. So the host holds two tensors at most, whatever the size of the model.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.config import UserError
from r1jax.interop.plans import BLOCK, IGNORED, Piece, Plan, make_plan
from r1jax.interop.safetensors import NAMES, StoredTensor, open_checkpoint
from r1jax.models.config import ModelConfig
from r1jax.ops.quant import dequantize_at
from r1jax.sharding import mesh_of_one

SHOWN = 8  # problems of a kind that a message lists
COMPARED = 1 << 24  # bytes of a tensor compared at a time


def load_checkpoint(folder: str | Path, model: ModelConfig, params, router_bias):
    """Read the weights of a Hugging Face folder.

    Args:
      model: as from `read_hf_config`.
      params, router_bias: jax.ShapeDtypeStructs of the model's arrays, with the dtypes and shardings wanted.

    Returns:
      params, router_bias. Weights in FP8 blocks are dequantised; a model without router bias has zeros.

    Raises:
      UserError: the files are broken, or do not hold exactly the tensors of the model; names all that is wrong.
    """
    folder, plan, arrays = Path(folder), make_plan(model), {"params": params, "router_bias": router_bias}
    tensors = open_checkpoint(folder)
    check_tensors(tensors, plan, folder)
    check_arrays(arrays, plan)
    pieces = defaultdict(list)
    for piece in plan.pieces:
        pieces[piece.path].append(piece)
    load = lambda path, leaf: _load_array(leaf, pieces[_names(path)], tensors)
    loaded = jax.tree_util.tree_map_with_path(load, arrays)
    return loaded["params"], loaded["router_bias"]


def has_mtp(folder: str | Path, model: ModelConfig) -> bool:
    """Whether a checkpoint holds a module for multi-token prediction; transformers writes none, whatever it read."""
    prefix = f"model.layers.{model.num_layers}."
    return any(name.startswith(prefix) for name in open_checkpoint(folder))


def check_tensors(tensors: dict[str, StoredTensor], plan: Plan, folder: Path) -> None:
    """Raise UserError unless a checkpoint holds exactly the tensors of a plan, in readable shapes and dtypes."""
    missing, wrong = [], []
    known = set()
    for piece in plan.pieces:
        stored = tensors.get(piece.name)
        known.add(piece.name)
        if stored is None:
            missing.append(piece.name)
            continue
        if stored.shape != piece.shape:
            wrong.append(f"{piece.name} in {stored.file.name} has shape {stored.shape}, expected {piece.shape}")
        if stored.dtype == np.dtype(jnp.float8_e4m3fn) and piece.quantized:
            known.add(piece.scale_name)
            wrong += _wrong_scale(tensors.get(piece.scale_name), piece)
        elif not _is_plain_float(stored.dtype):
            wrong.append(f"{piece.name} in {stored.file.name} has dtype {NAMES[stored.dtype]}, expected a float")
    problems = {"missing": missing, "wrong": wrong, "unknown": []}
    for name, stored in tensors.items():
        if name in plan.copies:
            problems["wrong"] += _differing(name, stored, plan.copies[name], tensors.get(plan.copies[name]))
        elif name not in known and not name.endswith(IGNORED):
            problems["unknown"].append(f"{name} {stored.shape} in {stored.file.name}")
    if any(problems.values()):
        lines = [f"{len(found)} tensors {kind}: {_shorten(found)}" for kind, found in problems.items() if found]
        raise UserError(f"the checkpoint in {folder} is not the model of its config.json:\n  " + "\n  ".join(lines))


def _is_plain_float(dtype: np.dtype) -> bool:
    return dtype in (np.float16, np.float32, np.float64, np.dtype(jnp.bfloat16))


def _wrong_scale(scale: StoredTensor | None, piece: Piece) -> list[str]:
    if scale is None:
        return [f"{piece.name} is FP8, and {piece.scale_name} is missing"]
    if scale.shape == piece.scale_shape and scale.dtype == np.float32:
        return []
    found = f"{NAMES[scale.dtype]} {scale.shape}"
    return [f"{piece.scale_name} in {scale.file.name} is {found}, expected F32 {piece.scale_shape}"]


def _differing(name: str, stored: StoredTensor, other_name: str, other: StoredTensor | None) -> list[str]:
    """What is wrong with a tensor that must repeat another one; compared in parts, so that neither is held."""
    if other is None or (stored.shape, stored.dtype) == (other.shape, other.dtype) and _same_bytes(stored, other):
        return []
    return [f"{name} in {stored.file.name} differs from {other_name}, which it must repeat"]


def _same_bytes(first: StoredTensor, second: StoredTensor) -> bool:
    rows = max(1, COMPARED * first.shape[0] // max(first.nbytes, 1))
    cut = lambda stored, start: stored.view()[start : start + rows].view(np.uint8)
    return all(np.array_equal(cut(first, start), cut(second, start)) for start in range(0, first.shape[0], rows))


def _shorten(found: list[str]) -> str:
    return "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def check_arrays(arrays, plan: Plan) -> None:
    """Raise ValueError unless the pieces of a plan fill exactly these arrays: our mistake, not a checkpoint's."""
    leaves = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
    filled = defaultdict(set)
    for piece in plan.pieces:
        leaf = leaves.get(piece.path)
        leading = () if leaf is None else leaf.shape[: len(piece.index)]
        if leaf is None or leaf.shape[len(leading) :] != piece.dims or any(map(int.__ge__, piece.index, leading)):
            raise ValueError(f"{piece} has no place in {leaf and leaf.shape} at {piece.path}")
        if piece.index in filled[piece.path]:
            raise ValueError(f"{piece} is there twice")
        filled[piece.path].add(piece.index)
    for path, leaf in leaves.items():
        dims = next((piece.dims for piece in plan.pieces if piece.path == path), ())
        expected = int(np.prod(leaf.shape[: len(leaf.shape) - len(dims)]))
        if leaf.size and path != ("router_bias",) and len(filled[path]) != expected:
            raise ValueError(f"{len(filled[path])} tensors fill {path}, which has room for {expected}")


def _names(path) -> tuple[str, ...]:
    return tuple(key.key for key in path)


def _load_array(leaf: jax.ShapeDtypeStruct, pieces: list[Piece], tensors: dict[str, StoredTensor]) -> jax.Array:
    """One of our arrays, from the tensors that make it up. Devices with the same part share its reading."""
    parts, made = [], {}
    for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items():
        spans = tuple(range(*part.indices(size)) for part, size in zip(index, leaf.shape, strict=True))
        if spans not in made:
            made[spans] = _load_part(leaf.dtype, spans, device, pieces, tensors)
        part = made[spans]
        parts.append(part if part.devices() == {device} else jax.device_put(part, device))
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)


def _load_part(dtype, spans: tuple[range, ...], device, pieces: list[Piece], tensors) -> jax.Array:
    """The part of an array that covers `spans`, on a device."""
    part = jnp.zeros([len(span) for span in spans], dtype, device=device)
    with jax.set_mesh(mesh_of_one(device)):  # whatever mesh is in force, this is work of one device
        for piece in pieces:
            depth = len(piece.index)
            if not all(number in span for number, span in zip(piece.index, spans)):
                continue
            start = tuple(number - span.start for number, span in zip(piece.index, spans))
            block, scale = read_piece(piece, spans[depth:], tensors)
            part.block_until_ready()  # one tensor on its way at a time, while the next is being read
            start = np.array(start + (0,) * len(piece.dims), np.int32)
            part = _place(part, block, start) if scale is None else _place_fp8(part, block, *scale, start)
    return part.block_until_ready()


def read_piece(piece: Piece, spans: tuple[range, ...], tensors: dict[str, StoredTensor]):
    """What a part of our array needs of one tensor.

    Args:
      spans: of the part, on the axes `piece.dims`.

    Returns:
      A view in our order of axes and their dtype, its pages not yet read where the part is all of the tensor; and for
      FP8 the scales [rows, columns] as [inputs, outputs], with the block of each of the view's inputs and outputs.
    """
    inputs, cut = piece.inputs, [slice(span.start, span.stop) for span in spans]
    whole = all(len(span) == size for span, size in zip(spans, piece.dims))
    stored = tensors[piece.name]
    view = stored.view().reshape(piece.dims[inputs:] + piece.dims[:inputs])
    if not whole:
        view = np.ascontiguousarray(view[tuple(cut[inputs:] + cut[:inputs])])
    outputs = view.ndim - inputs
    block = view.transpose(*range(outputs, view.ndim), *range(outputs))
    if stored.dtype != np.dtype(jnp.float8_e4m3fn):
        return block, None
    blocks = lambda dims, cuts: (np.arange(np.prod(dims)).reshape(dims)[tuple(cuts)].ravel() // BLOCK).astype(np.int32)
    scale = tensors[piece.scale_name].view().T
    return block, (scale, blocks(piece.dims[:inputs], cut[:inputs]), blocks(piece.dims[inputs:], cut[inputs:]))


@partial(jax.jit, donate_argnums=0)
def _place(part, block, start):
    block = block.astype(part.dtype).reshape((1,) * (part.ndim - block.ndim) + block.shape)
    return jax.lax.dynamic_update_slice(part, block, tuple(start))


@partial(jax.jit, donate_argnums=0)
def _place_fp8(part, block, scale, input_blocks, output_blocks, start):
    matrix = block.reshape(input_blocks.size, output_blocks.size)
    return _place(part, dequantize_at(matrix, scale, input_blocks, output_blocks).reshape(block.shape), start)
