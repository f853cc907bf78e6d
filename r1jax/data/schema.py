"""Schemas: which fields the rows of a published form have, of which types."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from r1jax.data.rows import Fault

TEXT, NUMBER, LIST, OBJECT = (str,), (int, float), (list,), (dict,)


class Field(NamedTuple):
    """A field of a published row."""

    name: str
    types: tuple[type, ...] = TEXT
    required: bool = True
    may_be_empty: bool = False


class Form(NamedTuple):
    """A published form: its fields, and how a row that has them becomes a record."""

    name: str
    family: str
    fields: tuple[Field, ...]
    convert: Callable[[dict], dict]
    """Row to record, without family and id; raises ValueError for what the fields alone do not tell."""
    id_field: str | None = None
    """The field that names a row, if the form has one; no two rows of a source may share it."""


def field_fault(form: Form, row: Any) -> Fault | None:
    """The first way in which a row is not of the form; None where it is."""
    if not isinstance(row, dict):
        return Fault("wrong type", f"the row is {type_name(row)}; {form.name} rows are objects")
    for field in form.fields:
        fault = _value_fault(form, field, row)
        if fault:
            return fault
    return None


def _value_fault(form: Form, field: Field, row: dict) -> Fault | None:
    value, where = row.get(field.name), f"field {field.name!r} of {form.name}"
    if value is None:
        if not field.required:
            return None
        found = "is null" if field.name in row else f"is missing; the row has {', '.join(map(repr, row)) or 'no field'}"
        return Fault("missing field", f"{where} {found}")
    if not isinstance(value, field.types) or isinstance(value, bool):
        expected = " or ".join(_NAMES[kind] for kind in field.types)
        return Fault("wrong type", f"{where} is {type_name(value)} {str(value)[:40]!r}; expected {expected}")
    if isinstance(value, float) and not math.isfinite(value):
        return Fault("not a number", f"{where} is {value}")
    if not field.may_be_empty and (not value.strip() if isinstance(value, str) else value in ([], {})):
        return Fault("empty field", f"{where} is empty")
    return None


_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "a truth value",
}


def type_name(value: Any) -> str:
    """The type of a JSON value, in words."""
    return _NAMES.get(type(value), "null" if value is None else type(value).__name__)
