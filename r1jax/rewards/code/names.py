"""Which names in test code are the solution's, read from the syntax; nothing is executed."""

import ast
import builtins
import symtable
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

BUILTINS = frozenset(dir(builtins))


class BrokenTests(ValueError):
    """The tests of a record cannot judge any solution."""


class TestCode(NamedTuple):
    """A piece of test code."""

    source: str
    tree: ast.Module
    used: frozenset[str]
    """Global names that it reads, wherever that is."""
    defined: frozenset[str]
    """Global names that it defines."""


def read_test_code(source: str, what: str) -> TestCode:
    """Parse a piece of test code.

    Raises:
      BrokenTests: it is no Python; `what` names it in the message.
    """
    try:
        tree = ast.parse(source)
        top = symtable.symtable(source, "<tests>", "exec")
        read = [symbol for table in _tables(top) for symbol in table.get_symbols() if symbol.is_referenced()]
        used = {symbol.get_name() for symbol in read if symbol.is_global()}
        defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        return TestCode(source, tree, frozenset(used), frozenset(defined))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BrokenTests(f"{what} is not Python: {error}") from None


def solution_names(codes: Sequence[TestCode], entry_point: str | None) -> set[str]:
    """The names that the solution has to provide: used in the tests, and defined by neither them nor Python.

    A test may compare values by `abs` or `len`, and a solution must not replace those. Only where the tests use no
    other name of the solution, and call a single builtin, that one is what they test (`assert sum(10, 15) == 6`).

    Args:
      codes: all test code.
      entry_point: a name that is the solution's in any case, or None.

    Raises:
      BrokenTests: there is no such name, or more than one builtin that it could be.
    """
    used = frozenset().union(*(code.used for code in codes))
    defined = frozenset().union(*(code.defined for code in codes))
    names = used - defined - BUILTINS - used_modules(codes)
    if entry_point:
        return set(names | {entry_point})
    if names:
        return set(names)
    called = _called_names(codes) & BUILTINS - defined
    if not called:
        raise BrokenTests("the tests use nothing of the solution")
    if len(called) > 1:
        raise BrokenTests(f"which of {', '.join(sorted(called))} is the solution's? set entry_point")
    return set(called)


def used_modules(codes: Sequence[TestCode]) -> set[str]:
    """Modules of the standard library that test code uses without importing them, always as in `math.pi`."""
    nodes = [node for code in codes for node in ast.walk(code.tree)]
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    otherwise = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
    used = frozenset().union(*(code.used - code.defined for code in codes))
    return set(used & sys.stdlib_module_names) - otherwise


def calls_check(tree: ast.Module) -> bool:
    """Whether a test defines `check(candidate)`, as HumanEval does, and leaves the call to us."""
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    calls = (node.value.func for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    return defined and not any(isinstance(function, ast.Name) and function.id == "check" for function in calls)


def only_imports(tree: ast.Module) -> list[ast.stmt]:
    """The import statements at the top of a setup: the solution may rely on them."""
    return [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def without_classes(preamble: TestCode) -> TestCode:
    """A preamble but for the names of its classes, which the tests shall take from the solution."""
    classes = {node.name for node in preamble.tree.body if isinstance(node, ast.ClassDef)}
    return preamble._replace(defined=preamble.defined - classes)


def _called_names(codes: Sequence[TestCode]) -> frozenset[str]:
    calls = (node.func for code in codes for node in ast.walk(code.tree) if isinstance(node, ast.Call))
    return frozenset(function.id for function in calls if isinstance(function, ast.Name))


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
