"""A reader of the text of optimised HLO programs: computations, instructions, shapes, trip counts, replica groups."""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

import numpy as np

BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "f4e2m1fn": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16,
    "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip


class Shape(NamedTuple):
    """One array, as laid out by the compiler."""

    dtype: str
    dims: tuple[int, ...]
    space: int
    """0 is the chip's main memory (HBM); others are on-chip memories, semaphores and the like."""

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without the padding of tiles. Types unknown here (tokens, opaque) count nothing; any float8 counts one."""
        return self.elements * BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 0) // 8


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    """Of the result; a tuple's leaves in order."""
    operands: tuple[str, ...]
    arguments: str
    """What stands between the parentheses."""
    attributes: str
    """What follows them."""

    def called(self, attribute: str) -> str | None:
        """Name of the computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found and found[1]

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; the root gives the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """In the order of the arguments."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.arguments))


class Program(NamedTuple):
    """A module."""

    computations: dict[str, Computation]
    entry: str


_SHAPE = re.compile(r"(\w+)\[([\d,<= ]*)\](?:\{[^}]*?(?:S\((\d+)\))?[^}S]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")


def parse_program(text: str) -> Program:
    """Read what `compiled.as_text()` gives.

    Raises:
      ValueError: the text has no entry computation, or a line of one of its computations cannot be read.
    """
    computations, entry, lines = {}, None, None
    for line in text.splitlines():
        if lines is None:
            if header := _HEADER.match(line):
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif line == "}" or line.startswith("}, execution_thread"):
            computations[name] = _parse_computation(name, lines)
            lines = None
        elif _LINE.match(line) or not lines:
            lines.append(line)
        else:  # attributes of some kernels go over several lines
            lines[-1] += line
    if entry is None:
        raise ValueError("this text has no ENTRY computation; give the text of a compiled program")
    return Program(computations, entry)


def _parse_computation(name: str, lines: list[str]) -> Computation:
    instructions, root = {}, ""
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"cannot read this line of {name}: {line[:200]}")
        instructions[found[2]] = _parse_instruction(found[2], found[3])
        root = found[2] if found[1] else root
    return Computation(name, instructions, root)


def _parse_instruction(name: str, text: str) -> Instruction:
    shape, rest = _split_shape(text)
    opcode, _, rest = rest.partition("(")
    inside, attributes = _split_parentheses(rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, opcode.strip(), parse_shapes(shape), operands, inside, attributes)


def _split_shape(text: str) -> tuple[str, str]:
    if not text.startswith("("):
        return tuple(text.split(" ", 1))
    inside, rest = _split_parentheses(text[1:])
    return inside, rest.lstrip()


def _split_parentheses(text: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes one opened before `text`, and what follows it."""
    depth, quoted = 1, False
    for place, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "()":
            depth += 1 if letter == "(" else -1
            if not depth:
                return text[:place], text[place + 1 :]
    raise ValueError(f"unbalanced parentheses: {text[:200]}")


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a type, a tuple's leaves in order."""
    return tuple(
        Shape(dtype, tuple(int(size.strip("<= ")) for size in dims.split(",") if size.strip()), int(space or 0))
        for dtype, dims, space in _SHAPE.findall(text)
    )


def result_shapes(computation: Computation, name: str) -> tuple[Shape, ...]:
    """Shapes of an operand; none where it is not of this computation."""
    found = computation.instructions.get(name)
    return found.shapes if found else ()


def trip_count(program: Program, caller: Computation, loop: Instruction) -> int | None:
    """How often the body of a `while` runs, or None where the text does not say.

    Some compilers write it as `known_trip_count`. Otherwise it is read from a condition that compares a counter, which
    starts at a constant and goes up by one, with a constant.
    """
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition = program.computations[loop.called("condition")]
    compare = _comparison(program, condition)
    if compare is None:
        return None
    start, limit = (_loop_value(program, condition, caller, loop, operand) for operand in compare[1])
    if start is None or limit is None:
        return None
    return max(limit - start + (compare[0] == "LE"), 0)


def _comparison(program: Program, condition: Computation):
    """Direction and operands (in the condition) of a loop's LT or LE, which may be inside a fusion."""
    root = condition.instructions[condition.root]
    if root.opcode == "fusion":
        inner = program.computations[root.called("calls")]
        compare = inner.instructions[inner.root]
        place = {parameter.name: root.operands[i] for i, parameter in enumerate(inner.parameters)}
        operands = [place.get(name) for name in compare.operands]
    else:
        compare, operands = root, list(root.operands)
    direction = re.search(r"direction=(\w+)", compare.attributes)
    if compare.opcode != "compare" or direction is None or None in operands:
        return None
    if direction[1] in ("GT", "GE"):
        return {"GT": "LT", "GE": "LE"}[direction[1]], operands[::-1]
    return (direction[1], operands) if direction[1] in ("LT", "LE") else None


def _loop_value(program: Program, condition: Computation, caller: Computation, loop: Instruction, name: str):
    """A scalar that a condition reads, as it is when the loop begins."""
    instruction = condition.instructions[name]
    while instruction.opcode in ("copy", "bitcast", "convert"):
        instruction = condition.instructions[instruction.operands[0]]
    if instruction.opcode == "constant":
        return _integer(instruction)
    if instruction.opcode != "get-tuple-element":
        return None
    index = int(re.search(r"index=(\d+)", instruction.attributes)[1])
    begin = caller.instructions.get(loop.operands[0])
    return _constant(caller, begin.operands[index]) if begin and begin.opcode == "tuple" else None


def _constant(computation: Computation, name: str) -> int | None:
    instruction = computation.instructions.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        instruction = computation.instructions.get(instruction.operands[0])
    return _integer(instruction) if instruction is not None and instruction.opcode == "constant" else None


def _integer(instruction: Instruction) -> int | None:
    return int(instruction.arguments) if re.fullmatch(r"-?\d+", instruction.arguments) else None


def replica_groups(attributes: str, devices: int) -> np.ndarray:
    """Which devices take part together: [groups, members], places in the program's order of devices.

    Raises:
      ValueError: the groups are written in a form that is not known here.
    """
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return np.array([[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)", pairs[0])])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", attributes):
        return _mesh_groups(mesh[1], mesh[2], mesh[3])
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\S*?)[, ]*(?: |$)", attributes):
        return _transposed(iota[2]).reshape(_numbers(iota[1]))
    if listed := re.search(r"replica_groups=\{(\{.*?\})?\}", attributes):
        groups = [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[0])]
        return np.array(groups) if groups else np.arange(devices)[None]
    raise ValueError(f"replica groups in a form that is not known: {attributes[:200]}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _transposed(text: str) -> np.ndarray:
    """The numbers from 0 as `[2,4]T(1,0)` orders them, flat."""
    sizes, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    numbers = np.arange(math.prod(_numbers(sizes))).reshape(_numbers(sizes))
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _mesh_groups(sizes: str, devices: str | None, members: str) -> np.ndarray:
    """Groups along axes of a mesh, `'a'=4,'b'=2` and `'a'`; a part of an axis, of 2 after 4 others, is `'a':(4)2`.

    Where `devices` is given it is the order of the mesh's devices: that of `_transposed`, or a list.
    """
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    order = np.arange(math.prod(axes.values()))
    if devices:
        listed = np.array(_numbers(devices.strip("[]"))) if re.fullmatch(r"\[?[\d,]+\]?", devices) else None
        order = listed if listed is not None and listed.size == order.size else _transposed(devices)
    taken = {name: (1, axes[name]) for name in re.findall(r"'(\w+)'", members)}
    taken |= {name: (int(a), int(b)) for name, a, b in re.findall(r"'(\w+)':\((\d+)\)(\d+)", members)}
    dims, inside = [], []
    for name, size in axes.items():
        before, length = taken.get(name, (size, 1))
        inside += [len(dims) + 1] if name in taken else []
        dims += [before, length, size // before // length]
    outside = [place for place in range(len(dims)) if place not in inside]
    return order.reshape(dims).transpose(outside + inside).reshape(-1, math.prod(dims[place] for place in inside))
