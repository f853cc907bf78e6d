"""The wire between a solution and its tests, each in a sandbox of its own; this file runs inside both, as source text.

Both ends exchange lines of JSON through the judge, which passes them on and trusts neither. Values cross as plain data
and are built anew on the other side, so `==` in the tests compares builtins; what is not data stays where it is and
crosses as a number, behind a `Remote`. It needs the standard library only.
"""

import builtins
import json
import math
import operator
import os
import resource
import sys
import time
from types import ModuleType

PLAIN_INTEGERS = 1 << 63  # larger ones cross in base 16: the decimal form takes quadratic time
SEQUENCES = (list, tuple, set, frozenset)
BYTES = (bytes, bytearray)
TEXT_KINDS = {"Decimal": "decimal", "Fraction": "fractions", "date": "datetime", "time": "datetime"}
TEXT_KINDS |= {"datetime": "datetime"}
PREDICATES = {name for kind in (str, set, float) for name in dir(kind) if name.startswith(("is", "starts", "ends"))}
PAIR_OPERATORS = ("eq", "lt", "le", "gt", "ge", "add", "sub", "mul")


class NotData(TypeError):
    """A value of the tests that the solution cannot be given."""


class SolutionError(Exception):
    """An exception of the solution that is none of Python's own."""


class Remote:
    """An object of the other side.

    It can be called, iterated, indexed, printed, and have its attributes read and set over there; all else, above all
    comparison with data, finds an object that equals nothing. The other side never learns what it is compared with.
    """

    __slots__ = ("_wire", "_place")

    def __init__(self, wire, place):
        object.__setattr__(self, "_wire", wire)
        object.__setattr__(self, "_place", place)

    def __getattr__(self, name):
        # A returned object must not pass for a str or a set by answering the questions that tests put to those.
        if name.startswith("__") or name in PREDICATES:
            raise AttributeError(name)
        return self._wire.request("get", self, name)

    def __setattr__(self, name, value):
        self._wire.request("set", self, name, value)

    def __call__(self, *args, **kwargs):
        return self._wire.request("call", self, args, kwargs)

    def __iter__(self):
        return self._wire.request("iter", self)

    def __next__(self):
        finished, value = self._wire.request("next", self)
        if finished:
            raise StopIteration
        return value

    def __getitem__(self, key):
        return self._wire.request("item", self, key)

    def __setitem__(self, key, value):
        self._wire.request("put", self, key, value)

    def __len__(self):
        return self._wire.request("len", self)

    def __str__(self):
        return str(self._wire.request("str", self))

    def __repr__(self):
        return str(self._wire.request("repr", self))

    def __hash__(self):
        return hash(self._place)


def _pair_operator(name):
    def method(self, other):
        # With data on one side the solution would be shown what it is compared with, or computed into.
        if isinstance(other, Remote) and other._wire is self._wire:
            return self._wire.request(name, self, other)
        return NotImplemented

    return method


for _name in PAIR_OPERATORS:
    setattr(Remote, f"__{_name}__", _pair_operator(_name))


def take_next(iterator):
    """(False, the next item), or (True, None) at the end."""
    try:
        return False, next(iterator)
    except StopIteration:
        return True, None


OPERATIONS = {
    "call": lambda function, args, kwargs: function(*args, **kwargs), "get": getattr, "set": setattr, "iter": iter,
    "next": take_next, "item": operator.getitem, "put": operator.setitem, "len": len, "str": str, "repr": repr,
}  # fmt: skip
OPERATIONS |= {name: getattr(operator, name) for name in PAIR_OPERATORS}


class Wire:
    """One end: encodes and decodes values, asks the other end, and serves what it asks."""

    def __init__(self, reader, writer, operations, may_give):
        self.reader, self.writer = reader, writer
        self.operations = operations
        self.may_give = may_give  # which objects may cross as a number
        self.given = []  # by number; keeps them alive
        self.places = {}
        self.requests = 0

    def send(self, *message):
        self.write(json.dumps(message))

    def write(self, line):
        self.writer.write(line.encode() + b"\n")
        self.writer.flush()

    def receive(self):
        line = self.reader.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    def request(self, operation, *values):
        """What the other end answers; it may ask back before it does.

        Raises:
          Exception: what the other end raised, if it is one of Python's own, else SolutionError.
        """
        self.requests += 1
        self.send("request", operation, [self.encode(value) for value in values])
        while True:
            kind, *rest = self.receive()
            if kind == "answer":
                return self.decode(rest[0])
            if kind == "raise":
                raise make_exception(*rest)
            if kind != "request":
                raise SolutionError("the answer makes no sense")
            self.serve(*rest)

    def serve(self, operation, values):
        """Carry out what the other end asks and answer it."""
        try:
            result = self.operations[operation](*[self.decode(value) for value in values])
            line = json.dumps(["answer", self.encode(result)])
        except BaseException as error:  # also SystemExit and KeyboardInterrupt of the solution
            line = json.dumps(["raise", *describe(error)])
        self.write(line)

    def encode(self, value):
        """A value as JSON: scalars as they are, all else as [kind, ...]."""
        if value is None or isinstance(value, (bool, float, str)):
            return value
        if isinstance(value, int):
            return value if -PLAIN_INTEGERS < value < PLAIN_INTEGERS else ["int", hex(value)]
        for kind in SEQUENCES:
            if isinstance(value, kind):
                return [kind.__name__, *[self.encode(item) for item in kind.__iter__(value)]]
        if isinstance(value, dict):
            return ["dict", *[[self.encode(key), self.encode(item)] for key, item in dict.items(value)]]
        for kind in BYTES:
            if isinstance(value, kind):
                return [kind.__name__, value.hex()]
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if type(value) is range:
            return ["range", *map(self.encode, (value.start, value.stop, value.step))]
        name = type(value).__name__
        if TEXT_KINDS.get(name) == type(value).__module__:
            return [name, value.isoformat() if hasattr(value, "isoformat") else str(value)]
        if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
            return ["type", value.__name__]
        if isinstance(value, Remote):
            return ["yours", value._place]
        return ["mine", self.give(value)]

    def give(self, value):
        """The number under which the other end may refer to an object."""
        if not self.may_give(value):
            raise NotData(f"a {type(value).__name__} cannot be given to the solution; define its class in the preamble")
        if id(value) not in self.places:
            self.places[id(value)] = len(self.given)
            self.given.append(value)
        return self.places[id(value)]

    def call_given(self, function, args, kwargs):
        """Call what the other end was given, and nothing that it names: with `type` it would build lying classes."""
        if id(function) not in self.places:
            raise NotData("only functions that were given may be called")
        return function(*args, **kwargs)

    def decode(self, data):
        """The value that `encode` turned into JSON, built from Python's own types."""
        if not isinstance(data, list):
            if isinstance(data, dict):
                raise SolutionError("the answer makes no sense")
            return data
        kind, *rest = data
        if kind == "mine":
            return Remote(self, operator.index(rest[0]))
        if kind == "yours":
            return self.given[rest[0]]
        for sequence in SEQUENCES:
            if kind == sequence.__name__:
                return sequence([self.decode(item) for item in rest])
        if kind == "dict":
            return {self.decode(key): self.decode(value) for key, value in rest}
        if kind == "range":
            return range(*[self.decode(item) for item in rest])
        if kind in TEXT_KINDS:
            maker = getattr(__import__(TEXT_KINDS[kind]), kind)
            return getattr(maker, "fromisoformat", maker)(rest[0])
        return decode_leaf(kind, *rest)


def decode_leaf(kind, first, second=None):
    """A value without parts: a number, a builtin type or bytes."""
    if kind == "int":
        return int(first, 16)
    if kind == "complex":
        return complex(first, second)
    if kind == "type" and isinstance(getattr(builtins, first), type):
        return getattr(builtins, first)
    for maker in BYTES:
        if kind == maker.__name__:
            return maker.fromhex(first)
    raise SolutionError("the answer makes no sense")


def describe(error):
    """Name and text of an exception, whatever its `__str__` does."""
    try:
        return type(error).__name__, str(error)[:500]
    except BaseException:
        return type(error).__name__, ""


def make_exception(name, text):
    """An exception as the solution raised it; one that Python itself acts on becomes a SolutionError."""
    kind = getattr(builtins, name, None)
    special = (StopIteration, StopAsyncIteration, SyntaxError, UnicodeError)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, special):
        return kind(text)
    return SolutionError(f"{name}: {text}")


def open_wire(operations, may_give):
    """The wire on this process's standard input and output; what is printed goes to standard error from here on."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing, other_end = os.pipe()
    os.close(other_end)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return Wire(reader, writer, operations, may_give)


def run_solution(timeout):
    """Load the source text that arrives and serve calls to what it defines, each for `timeout` seconds at most."""
    wire = open_wire(OPERATIONS, lambda value: True)
    module = ModuleType("solution")
    sys.modules["solution"] = module
    wire.give(module)

    def load(source):
        exec(compile(source, "<solution>", "exec"), module.__dict__)

    def call_by_name(name, args, kwargs):
        return getattr(module, name)(*args, **kwargs)

    wire.operations = OPERATIONS | {"load": load, "call_by_name": call_by_name}
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    while True:
        _, operation, values = wire.receive()
        end = math.ceil(time.process_time() + timeout)
        resource.setrlimit(resource.RLIMIT_CPU, (end if hard < 0 else min(end, hard), hard))
        wire.serve(operation, values)


def run_tests(_):
    """Run the pieces of test code that are asked for, one a line, in one namespace, and say how each ended."""
    wire = open_wire({}, callable)
    wire.operations = {"call": wire.call_given}
    space, known = {"__name__": "tests"}, {}
    while True:
        names, entry_point, source = wire.receive()
        try:
            known |= {name: find(wire, name) for name in names if name not in known}
            space |= {name: found[0] for name, found in known.items() if found and name in names}
            exec(compile(source, "<tests>", "exec"), space)
            wire.send("verdict", "passed" if touches(wire, known) else "unrelated", "the solution was not asked")
        except NotData as error:
            wire.send("verdict", "broken", str(error))
        except BaseException as error:
            blameless = all(known.values()) and not touches(wire, known)
            wire.send("verdict", "broken" if blameless else "failed", ": ".join(filter(None, describe(error))))
        if entry_point in names:  # the setup may hold an empty definition of what the solution has to define
            space.pop(entry_point, None)
            space |= {entry_point: value for value in known.get(entry_point, [])}


def find(wire, name):
    """What the solution calls `name`, as a list of one, or of none where it has no such thing."""
    try:
        return [wire.request("get", Remote(wire, 0), name)]
    except AttributeError:
        return []


def touches(wire, known):
    """Whether the tests have seen anything that the solution has computed."""
    return wire.requests > len(known) or any(
        not isinstance(value, Remote) for found in known.values() for value in found
    )
