"""Compile a program for a TPU that is not there, and take its measures."""

import math
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from r1jax.aot.chips import Chip, collective_seconds, roofline
from r1jax.aot.costs import Collective, Cost, program_cost
from r1jax.aot.hlo import parse_program
from r1jax.aot.programs import Case
from r1jax.config import UserError
from r1jax.models.config import ModelConfig
from r1jax.models.describe import measure
from r1jax.models.moe import SLACK

MIB = 1 << 20


def topology_devices(topology: str) -> list:
    """The devices of a slice such as v5p:4x4x4, as the TPU compiler describes them.

    Raises:
      UserError: libtpu is not installed, or does not know the topology.
    """
    # Otherwise libtpu asks the metadata server of a cloud machine what it runs on, and lets one process at a time in.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    for name, value in (quiet | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}).items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # noqa: BLE001 the compiler's plugin raises errors of several kinds
        raise UserError(
            f"--topology={topology}: {str(error).splitlines()[0]}; it needs `pip install -e '.[tpu]'` and a name such "
            "as v5e:4x4, v5p:8x8x8 or v6e:16x16"
        ) from error


class Memory(NamedTuple):
    """Bytes on one chip."""

    arguments: int
    temporaries: int
    outputs: int
    """Those that do not take the place of an argument."""
    code: int

    @property
    def total(self) -> int:
        return sum(self)


class Measures(NamedTuple):
    """Of one compiled program on one chip."""

    compile_seconds: float
    """Of a processor, all its threads."""
    memory: Memory | None
    """None where the compiler found no room; then `failure` says what it wrote, and there are no costs."""
    cost: Cost
    failure: str = ""


def resident_bytes(trees) -> int:
    """Bytes of abstract arrays that lie on each chip."""
    leaves = jax.tree.leaves(trees)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def compile_case(case: Case, text: Path | None = None) -> Measures:
    """Compile it for the mesh's devices; what does not fit their memory is a result, not an error.

    Args:
      text: a file for the compiled program's text.
    """
    began = time.process_time()
    with jax.set_mesh(case.mesh):
        lowered = case.function.lower(*case.arguments, **case.keywords)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Measures(time.process_time() - began, None, Cost(), _shortage(str(error)))
    seconds, sizes = time.process_time() - began, compiled.memory_analysis()
    memory = Memory(
        sizes.argument_size_in_bytes, sizes.temp_size_in_bytes,
        sizes.output_size_in_bytes - sizes.alias_size_in_bytes, sizes.generated_code_size_in_bytes,
    )  # fmt: skip
    if text is not None:
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(compiled.as_text())
    cost = program_cost(parse_program(compiled.as_text()), case.mesh.size, branch=_branch, turns=case.turns)
    return Measures(seconds, memory, cost)


def _branch(costs, key):
    """Of two branches the cheaper, taken where experts are loaded evenly; of more, which are widths, the widest."""
    costs = list(costs)
    return (min if len(costs) == 2 else max)(costs, key=key)


def _shortage(message: str) -> str:
    """The sentence of the compiler's error that says how much it would take."""
    found = re.search(r"Used [\d.]+\w* of [\d.]+\w* hbm[^\n]*", message)
    return found[0] if found else message.splitlines()[0][:200]


def model_flops(model: ModelConfig, case: Case) -> float:
    """Multiplications and additions that the model itself asks for, over all chips: 2 a parameter and token, the head's
    only where something is predicted, and attention."""
    sizes = measure(model)
    head = model.embed_dim * model.vocab_size
    matrices = sizes.activated - sizes.embedding - sizes.head
    widths = model.head_dim * 2 if model.num_kv_heads else sum(
        (model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim)
    )  # fmt: skip
    attention = model.num_layers * model.num_heads * widths * case.context
    return 2.0 * case.passes * (case.tokens * (matrices + attention) + case.predictions * head)


def group_axes(mesh, groups: np.ndarray) -> tuple[str, ...]:
    """Names of the mesh axes along which the members of a group differ."""
    places = np.array(np.unravel_index(groups[0], mesh.devices.shape))
    return tuple(name for name, along in zip(mesh.axis_names, places) if len(np.unique(along)) > 1)


def suspicion(model: ModelConfig, mesh, collective: Collective) -> str:
    """Why a collective should not be there: it moves expert weights between experts' chips, or logits; or ""."""
    dims, axes = collective.shape.dims, group_axes(mesh, collective.groups)
    parts = lambda size: {size // n for n in range(1, mesh.size + 1) if size % n == 0}
    whole_or_cut = lambda size, *axes: {size, size // math.prod(mesh.shape[axis] for axis in axes)}
    widths = whole_or_cut(model.embed_dim, "fsdp", "sequence")  # what has one of them is a slope of the head
    if model.num_experts and collective.kind in ("all-gather", "all-to-all", "collective-permute") and len(dims) >= 3:
        tail, hidden = set(dims[-2:]), whole_or_cut(model.expert_mlp_dim, "tensor")
        if tail & widths and tail & hidden and 1 < dims[-3] <= model.num_experts and "expert" in axes:
            return "expert weights between the chips of different experts"
    if collective.shape.bytes >= MIB and not set(dims) & widths:
        if set(dims) & parts(model.vocab_size) & set(range(model.vocab_size // mesh.size, model.vocab_size + 1)):
            if max(dims) >= model.vocab_size // mesh.shape["tensor"]:
                return "logits"
    return ""


def describe_collectives(model: ModelConfig, case: Case, chip: Chip, cost: Cost) -> list[dict]:
    """One record for each kind, shape and place, the costliest first."""
    mesh, coordinates, merged = case.mesh, device_coordinates(case.mesh), {}
    suspect = lambda one: "" if case.moves_weights else suspicion(model, mesh, one)
    for one in cost.collectives:
        key = one.kind, one.shape.dims, group_axes(mesh, one.groups), one.op_name
        record = merged.setdefault(key, {
            "kind": one.kind, "dtype": one.shape.dtype, "dims": one.shape.dims, "axes": key[2], "count": 0.0,
            "bytes": 0.0, "seconds": 0.0, "place": one.op_name, "suspicion": suspect(one),
        })  # fmt: skip
        record["count"] += one.count
        record["bytes"] += one.bytes
        record["seconds"] += collective_seconds(chip, one, coordinates)
    return sorted(merged.values(), key=lambda record: -record["seconds"])


def device_coordinates(mesh) -> np.ndarray:
    """[devices, 3] places in the slice."""
    return np.array([device.coords for device in mesh.devices.flat])


def record_measures(name: str, model: ModelConfig, chip: Chip, case: Case, measures: Measures) -> dict:
    """All figures of one program as JSON takes them."""
    mesh, resident = case.mesh, resident_bytes(case.resident)
    record = {"program": name, "chips": mesh.size, "mesh": dict(mesh.shape), "tokens": case.tokens}
    record |= {"compile_seconds": round(measures.compile_seconds, 1), "chip_bytes": chip.hbm}
    if measures.memory is None:
        return record | {"fits": False, "failure": measures.failure}
    memory, cost = measures.memory, measures.cost
    total = memory.total + resident
    record["bytes"] = memory._asdict() | {"resident": resident, "total": total}
    record["headroom"] = 1 - total / chip.hbm
    record["fits"] = total <= chip.hbm
    # Grouped products say what they would cost if the buffer of sorted rows were full.
    ways = mesh.shape["expert"]
    live = max(ways // SLACK, 1) / ways
    cost.flops -= cost.grouped_flops * (1 - live)
    line = roofline(chip, cost, device_coordinates(mesh))
    useful = model_flops(model, case) / mesh.size
    collectives, unknown = describe_collectives(model, case, chip, cost), dict(cost.unknown)
    loops = [what for what in unknown if what.startswith("loop")]
    if len(loops) == case.open_loops:
        unknown = {what: count for what, count in unknown.items() if what not in loops}
    return record | {
        "flops": cost.flops, "grouped_flops": cost.grouped_flops * live, "model_flops": useful,
        "hbm_bytes": cost.hbm_bytes, "collective_bytes": sum(c["bytes"] for c in collectives),
        "seconds": {"compute": line.compute, "hbm": line.hbm, "ici": line.ici}, "binding": line.binding,
        "mfu_bound": useful / chip.flops / line.seconds, "unknown": unknown, "collectives": collectives,
    }  # fmt: skip
