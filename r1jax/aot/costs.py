"""What a compiled program does on one device: arithmetic, memory traffic, collectives; loops count as they run."""

import dataclasses
import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from r1jax.aot.hlo import Computation, Instruction, Program, Shape, replica_groups, result_shapes, trip_count
from r1jax.aot.traffic import hbm_bytes, is_continued

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip


class Collective(NamedTuple):
    """Traffic between devices, all executions of one instruction together."""

    kind: str
    shape: Shape
    """The largest array that one device holds in full: the result of an all-gather, the input of the others."""
    payload: int
    """Bytes of all such arrays."""
    groups: np.ndarray
    """[groups, members], or pairs of source and target."""
    count: float
    """Executions."""
    op_name: str
    """Where in the traced program it comes from."""

    @property
    def bytes(self) -> float:
        """That leave one device, by the least that any algorithm sends (a ring's), all executions together."""
        away = 1 - 1 / self.groups.shape[1]
        return self.count * self.payload * {"all-reduce": 2 * away, "collective-permute": 1.0}.get(self.kind, away)


@dataclasses.dataclass
class Cost:
    """Of one device."""

    flops: float = 0.0
    """Of matrix products; a multiplication and an addition count as two. Kernels say their own."""
    grouped_flops: float = 0.0
    """Of `flops`, grouped products whose rows may be mostly padding."""
    hbm_bytes: float = 0.0
    """Read and written by instructions, whose operands and results are in the chip's main memory."""
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    unknown: Counter = dataclasses.field(default_factory=Counter)
    """Loops without a trip count and kernels without a cost (not counted), by name."""

    def add(self, other: "Cost", times: float = 1.0) -> None:
        """Add another cost, so many times."""
        self.flops += times * other.flops
        self.grouped_flops += times * other.grouped_flops
        self.hbm_bytes += times * other.hbm_bytes
        self.collectives += [c._replace(count=c.count * times) for c in other.collectives]
        self.unknown.update(other.unknown)


def program_cost(program: Program, devices: int, *, branch=max, turns: int = 1) -> Cost:
    """The cost of a parsed program on one of its `devices`; of a conditional, the costliest branch, or with min another.

    A loop that does not say how often it runs is named, and counted `turns` times where it has products and no other
    such loop inside, else once.
    """
    done: dict[tuple[str, bool], Cost] = {}

    def cost_of(name: str, fused: bool) -> Cost:
        if (name, fused) not in done:
            computation, total = program.computations[name], Cost()
            for instruction in computation.instructions.values():
                total.add(_instruction_cost(program, computation, instruction, devices, cost_of, fused, branch, turns))
            done[name, fused] = total
        return done[name, fused]

    return cost_of(program.entry, False)


def _instruction_cost(
    program, computation, instruction: Instruction, devices, cost_of, fused: bool, branch, turns: int
) -> Cost:
    """Of one instruction with all it calls."""
    cost, opcode = Cost(), instruction.opcode
    if opcode == "while":
        times = trip_count(program, computation, instruction)
        if times is None:
            cost.unknown[f"loop {instruction.name}"] += 1
            body = cost_of(instruction.called("body"), fused)
            nested = any(what.startswith("loop") for what in body.unknown)
            times = turns if body.flops and not nested else 1
        for part in ("body", "condition"):
            cost.add(cost_of(instruction.called(part), fused), times)
    elif opcode == "conditional":
        branches = re.findall(r"%([\w.\-]+)", _listed(instruction, "branch_computations"))
        branches = branches or [instruction.called(f"{which}_computation") for which in ("true", "false")]
        cost.add(branch((cost_of(name, fused) for name in branches), key=lambda c: (c.flops, c.hbm_bytes)))
    elif opcode == "call" or opcode == "async-start":
        cost.add(cost_of(instruction.called("to_apply") or instruction.called("calls"), fused))
    elif opcode == "fusion":
        cost.add(cost_of(instruction.called("calls"), True))
    elif opcode in ("dot", "convolution"):
        count = dot_flops if opcode == "dot" else convolution_flops
        cost.flops = count(computation, instruction)
    elif opcode == "custom-call":
        _add_kernel(cost, computation, instruction)
    elif (kind := opcode.removesuffix("-start")) in COLLECTIVES:
        if not is_continued(computation, instruction):
            cost.collectives.append(_collective(computation, instruction, kind, devices))
    if not fused:
        cost.hbm_bytes += hbm_bytes(program, computation, instruction)
    return cost


def _listed(instruction: Instruction, attribute: str) -> str:
    found = re.search(rf"{attribute}=\{{([^}}]*)\}}", instruction.attributes)
    return found[1] if found else ""


def _collective(computation: Computation, instruction: Instruction, kind: str, devices: int) -> Collective:
    given = [shape for name in instruction.operands for shape in result_shapes(computation, name)]
    whole = instruction.shapes if kind == "all-gather" else given
    if kind == "ragged-all-to-all":  # of what is sent and what is filled, one has room for the worst case
        whole = [min(given[:2], key=lambda shape: shape.bytes)]
    if kind == "all-gather" and instruction.opcode.endswith("-start"):  # the result repeats the operands
        whole = instruction.shapes[len(given) :]
    if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):  # TPU: each keeps a slice of the sum
        kind = "reduce-scatter"
    whole = [shape for shape in whole if shape.elements > 1] or whole
    return Collective(
        kind, max(whole, key=lambda shape: shape.bytes), sum(shape.bytes for shape in whole),
        replica_groups(instruction.attributes, devices), 1.0, instruction.op_name,
    )  # fmt: skip


def _add_kernel(cost: Cost, computation: Computation, instruction: Instruction) -> None:
    """Of a Pallas kernel: its own estimate, or what is known of splash attention, which has none."""
    if 'custom_call_target="tpu_custom_call"' not in instruction.attributes or "metadata" in instruction.name:
        return
    if estimate := re.search(r'"cost_estimate":\{"flops":"?(\d+)', instruction.attributes):
        cost.flops = float(estimate[1])
        if re.search(r"ragged|gmm", instruction.name + instruction.op_name):
            cost.grouped_flops = cost.flops
    elif "splash" in instruction.op_name or "splash" in instruction.name:
        cost.flops = splash_flops(computation, instruction)
    else:
        cost.unknown[f"kernel {instruction.name}"] += 1


def dot_flops(computation: Computation, instruction: Instruction) -> float:
    """Two for each product of a dot."""
    left = result_shapes(computation, instruction.operands[0])[0].dims
    contracted = [left[int(axis)] for axis in _listed(instruction, "lhs_contracting_dims").split(",") if axis]
    return 2.0 * instruction.shapes[0].elements * math.prod(contracted)


def convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Two for each product of a convolution, which is how TPU programs write products of matrices.

    Products with padding and with the holes of a dilated input are not counted: batched products are written as
    convolutions along the batch that meet one element in each window.
    """
    left, right = (result_shapes(computation, name)[0].dims for name in instruction.operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes).groups()
    total = 2.0 * right[labels[1].index("i")]
    for axis, (label, size) in enumerate(zip(labels[2], instruction.shapes[0].dims)):
        if label in "bf":
            total *= size
        else:
            inputs, kernel = left[labels[0].index(label)], right[labels[1].index(label)]
            total *= _met(_window(instruction, int(label)), inputs, kernel, size)
    return total


def _window(instruction: Instruction, axis: int) -> dict[str, int]:
    """Stride, padding below and dilations of one spatial axis."""
    text = (re.search(r"window=\{([^}]*)\}", instruction.attributes) or [""] * 2)[1]
    fields = dict(field.split("=") for field in text.split())
    at = lambda name, default: fields[name].split("x")[axis] if name in fields else default
    return {
        "stride": int(at("stride", "1")),
        "low": int(at("pad", "0_0").split("_")[0]),
        "lhs": int(at("lhs_dilate", "1")),
        "rhs": int(at("rhs_dilate", "1")),
    }


def _met(window: dict[str, int], inputs: int, kernel: int, outputs: int) -> int:
    """Pairs of an output and a kernel place, along one axis, that meet an element of the input."""
    place = np.arange(outputs)[:, None] * window["stride"] + np.arange(kernel) * window["rhs"] - window["low"]
    inside = (place >= 0) & (place <= (inputs - 1) * window["lhs"]) & (place % window["lhs"] == 0)
    return int(inside.sum())


def splash_flops(computation: Computation, instruction: Instruction) -> float:
    """Of causal attention kernels, from their operands: half of all scores, with the products that each kernel takes.

    Forward: scores and values. The backward kernel for queries: scores, slopes of weights, of queries. The other: these
    two, and slopes of keys and values.
    """
    arrays = [shape.dims for name in instruction.operands for shape in result_shapes(computation, name)]
    wide = [dims for dims in arrays if len(dims) >= 3 and min(dims[-2:]) >= 64]
    query, key, value = wide[:3]
    name = instruction.name + instruction.op_name
    if "dkv" in name:
        per_score = 2 * key[-1] + 2 * value[-1]
    elif "dq" in name:
        per_score = 2 * key[-1] + value[-1]
    else:
        per_score = key[-1] + value[-1]
    return 2.0 * math.prod(query[:-1]) * key[-2] / 2 * per_score
