"""Which bytes of main memory an instruction of a compiled program reads and writes."""

import re

from r1jax.aot.hlo import Computation, Instruction, Program, Shape, result_shapes

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id",
    "replica-id", "while", "conditional", "call", "async-update", "domain", "add-dependency",
}  # fmt: skip
SLICES = {"dynamic-slice", "slice", "gather"}
IN_PLACE = {"dynamic-update-slice", "scatter"}


def hbm_bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Operands read and results written once, where they are in the chip's main memory.

    Of what is sliced or updated in place, the slice counts and not the whole, and of a kernel's operands no more than it
    says. Computations that an instruction runs
    (loops, branches) count where they stand; fusions are one instruction. Of an asynchronous collective, which fusions
    start, accompany and end, the one that starts it has all its bytes.
    """
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done") or "AllocateBuffer" in instruction.attributes:
        return 0
    if opcode in ("fusion", "async-start") and (called := instruction.called("calls")):
        return _fusion_bytes(program, computation, instruction, program.computations[called])
    reads = [_main(result_shapes(computation, name)) for name in instruction.operands]
    if opcode.endswith("-start"):  # the result repeats the operands, and adds flags
        moved = max((shape.bytes for shape in instruction.shapes if not shape.space), default=0)
        return sum(reads) + (moved if all(shape.space == 0 for shape in instruction.shapes[:2]) else 0)
    writes = _main(instruction.shapes)
    if opcode == "ragged-all-to-all":  # rows into a buffer; the larger of the two has room for the worst case
        rows = min(shape.bytes for name in instruction.operands[:2] for shape in result_shapes(computation, name))
        return min(reads[0], rows) + min(writes, rows)
    if opcode in SLICES:
        return (_all(instruction.shapes) if reads[0] else 0) + writes
    if opcode in IN_PLACE:
        update = _main(result_shapes(computation, instruction.operands[1 if opcode == "dynamic-update-slice" else 2]))
        return 2 * update
    touched = sum(reads) + writes
    # A kernel may read one layer of a stack; then it says less than its operands are.
    estimate = opcode == "custom-call" and re.search(r'"bytes_accessed":"?(\d+)', instruction.attributes)
    return min(touched, int(estimate[1]) or touched) if estimate else touched


def _main(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes if shape.space == 0)


def _all(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes)


def is_continued(computation: Computation, instruction: Instruction) -> bool:
    """Whether a collective is the part of an asynchronous one that stands in a fusion after the one that starts it."""
    if "async_collective_fusion_config" not in instruction.attributes:
        return False
    return not any("AsyncCollectiveStart" in other.attributes for other in computation.instructions.values())


def _fusion_bytes(program: Program, caller: Computation, instruction: Instruction, inner: Computation) -> int:
    if "AsyncCollectiveDone" in inner.instructions[inner.root].attributes:
        return 0
    total = 0
    for parameter, name in zip(inner.parameters, instruction.operands):
        outside = result_shapes(caller, name)
        if _main(outside):
            total += min(_read(program, inner, parameter.name), _main(outside))
    root = inner.instructions[inner.root]
    results = root.operands if root.opcode == "tuple" else (root.name,)
    if len(results) != len(instruction.shapes):  # a nested tuple
        return total + _written(inner, inner.root)
    outside = zip(results, instruction.shapes)
    return total + sum(_written(inner, name) for name, shape in outside if not shape.space)


def _read(program: Program, inner: Computation, name: str) -> int:
    """Bytes of a fusion's parameter that its instructions touch."""
    whole, total = _all(inner.instructions[name].shapes), 0
    for user in inner.instructions.values():
        if name not in user.operands:
            continue
        if user.opcode in SLICES and user.operands[0] == name:
            total += _all(user.shapes)
        elif user.opcode == "bitcast":
            total += _read(program, inner, user.name)
        elif user.opcode == "fusion":
            deeper = program.computations[user.called("calls")]
            places = [i for i, operand in enumerate(user.operands) if operand == name]
            total += sum(_read(program, deeper, deeper.parameters[i].name) for i in places)
        elif user.opcode == "tuple" or (user.opcode in IN_PLACE and user.operands[0] == name):
            continue
        elif is_continued(inner, user):
            continue
        else:
            return whole
    return min(total, whole)


def _written(inner: Computation, name: str) -> int:
    """Bytes that a fusion writes for one of its results."""
    instruction = inner.instructions[name]
    if instruction.opcode == "tuple":
        return sum(_written(inner, operand) for operand in instruction.operands)
    if instruction.opcode == "parameter" or is_continued(inner, instruction):
        return 0
    if instruction.opcode == "bitcast":
        return _written(inner, instruction.operands[0])
    if instruction.opcode in IN_PLACE and not instruction.shapes[0].space:
        return _all(
            result_shapes(inner, instruction.operands[1 if instruction.opcode == "dynamic-update-slice" else 2])
        )
    return _main(instruction.shapes)
