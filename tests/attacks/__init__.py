"""Hostile programs, kept to show that the sandbox holds them: every public function of these modules is one.

A function's source is the program: `program` puts what it may aim at before it (aims.py) and a call behind it. Its
docstring says what it attempts. It calls `escaped` where it has got what it must not get; besides, the test checks
the host: its files, its sockets, its processes. `ends` names how the run may end where that is part of the promise.
"""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from attacks import aims, files, interpreter, kernel, memory, network, output, processes, signals

MODULES = (files, interpreter, kernel, memory, network, output, processes, signals)


def _attacks_of(module: ModuleType) -> list[Callable]:
    functions = vars(module).values()
    return [f for f in functions if inspect.isfunction(f) and f.__module__ == module.__name__ and f.__name__[0] != "_"]


ATTACKS: dict[str, Callable] = {attack.__name__: attack for module in MODULES for attack in _attacks_of(module)}


def program(attack: Callable, aimed_at: Mapping[str, object]) -> str:
    """The source text of an attack on what the test has set up; names as in aims.py."""
    constants = "".join(f"{name} = {value!r}\n" for name, value in aimed_at.items())
    tools = inspect.getsource(aims).split("# Tools", 1)[1]
    return f"{constants}# Tools{tools}\n{inspect.getsource(attack)}\n{attack.__name__}()\n"
