"""Sharded arrays to a Hugging Face folder, tensor by tensor."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.config import UserError
from r1jax.interop.hf_config_writing import to_hf_config
from r1jax.interop.plans import Piece, make_plan
from r1jax.interop.safetensors import TensorSpec, write_checkpoint
from r1jax.models.config import ModelConfig
from r1jax.ops.quant import quantize_blocks
from r1jax.sharding import replicated

WeightType = Literal["bfloat16", "float32", "fp8"]


def save_checkpoint(
    folder: str | Path,
    model: ModelConfig,
    params,
    router_bias,
    *,
    dtype: WeightType,
    token_ids: dict[str, int | list[int]] | None = None,
    max_shard_bytes: int = 5 << 30,
    also: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write config.json, generation_config.json and the weights; the folder appears when it is complete.

    Every process of a pod must call this, and the first one writes.

    Args:
      folder: must not exist, or be empty.
      dtype: of the weights; "fp8" is the form of the released DeepSeek-V3 and R1, norms and embeddings bfloat16.
      token_ids: bos_token_id and so on, as far as there are such tokens.
      max_shard_bytes: of tensors in one file; a larger tensor has a file of its own.
      also: writes more files into the folder, such as those of the tokenizer, before it appears.

    Raises:
      UserError: the folder is in use, or no model of transformers computes what this one does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder to export to")
    record = to_hf_config(model, dtype=dtype, token_ids=token_ids)
    if model.router_score == "softmax" and np.asarray(router_bias).any():
        raise UserError("the router bias is not zero, and the form of DeepSeek-V2 has no place for it")
    writer, partial_folder = jax.process_index() == 0, folder.with_name(f"{folder.name}.partial")
    specs, tensors = _tensors(model, {"params": params, "router_bias": router_bias}, dtype)
    if not writer:
        for _ in tensors:  # every process takes part in gathering them
            pass
        return
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        write_checkpoint(partial_folder, specs, tensors, max_shard_bytes=max_shard_bytes)
        _write_json(partial_folder / "config.json", record)
        _write_json(partial_folder / "generation_config.json", token_ids or {})
        also(partial_folder)
        if folder.exists():
            folder.rmdir()
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def checkpoint_specs(model: ModelConfig, dtype: WeightType) -> list[TensorSpec]:
    """The tensors of a model's checkpoint, as they are written."""
    plan, narrow = make_plan(model), np.dtype(jnp.float32 if dtype == "float32" else jnp.bfloat16)
    specs = []
    for piece in plan.pieces:
        if dtype == "fp8" and piece.quantized:
            specs.append(TensorSpec(piece.name, np.dtype(jnp.float8_e4m3fn), piece.shape))
            specs.append(TensorSpec(piece.scale_name, np.dtype(np.float32), piece.scale_shape))
        else:
            specs.append(TensorSpec(piece.name, np.dtype(np.float32) if piece.wide else narrow, piece.shape))
    shapes = {piece.name: piece.shape for piece in plan.pieces}
    return specs + [TensorSpec(name, narrow, shapes[source]) for name, source in plan.copies.items()]


def _tensors(model: ModelConfig, arrays, dtype: WeightType) -> tuple[list[TensorSpec], Iterator[np.ndarray]]:
    """The specs of all tensors, and the tensors in their order, gathered one by one."""
    plan, specs = make_plan(model), checkpoint_specs(model, dtype)
    pieces = {piece.name: piece for piece in plan.pieces}
    scales = {piece.scale_name for piece in plan.pieces if piece.quantized}

    def make() -> Iterator[np.ndarray]:
        for spec in specs:
            if spec.name in scales:
                continue  # came with its weight
            yield from _fetch(arrays, pieces[plan.copies.get(spec.name, spec.name)], spec)

    return specs, make()


def _fetch(arrays, piece: Piece, spec: TensorSpec) -> tuple[np.ndarray, ...]:
    """The tensor of a piece on the host; with the scales of its blocks where it becomes FP8."""
    leaf = arrays
    for name in piece.path:
        leaf = leaf[name]
    index = np.array(piece.index + (0,) * len(piece.dims), np.int32)
    form = {"dims": piece.dims, "inputs": piece.inputs, "shape": piece.shape, "dtype": spec.dtype}
    return tuple(map(np.asarray, _cut(leaf, index, **form, mesh=getattr(leaf.sharding, "mesh", None))))


@partial(jax.jit, static_argnames=("dims", "inputs", "shape", "dtype", "mesh"))
def _cut(leaf, index, *, dims, inputs, shape, dtype, mesh):
    """One of their tensors from one of our arrays, whole on every device: the array may be spread over many hosts."""
    part = jax.lax.dynamic_slice(leaf, tuple(index), (1,) * (leaf.ndim - len(dims)) + dims).reshape(dims)
    theirs = part.transpose(*range(inputs, len(dims)), *range(inputs)).reshape(shape)
    cut = quantize_blocks(theirs) if dtype == jnp.float8_e4m3fn else (theirs.astype(dtype),)
    return cut if mesh is None else jax.lax.with_sharding_constraint(cut, replicated(mesh))
