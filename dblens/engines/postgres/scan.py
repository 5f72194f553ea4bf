"""What every read shares: where a table lies, which rows are meant, what kind of type a column has. No value conversion here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dblens.engines.base import Field, KeyRange
from dblens.engines.postgres.ddl import at, literal, quote
from dblens.errors import InvalidInput
from dblens.schema.model import Column, Table

_BASE = re.compile(r"\s*\(.*?\)")


def base_type(column: Column) -> str:
    """Return a column's native type without modifiers (`timestamp without time zone`)."""
    return _BASE.sub("", column.native)


INTEGERS = frozenset({"smallint", "integer", "bigint", "oid"})
FLOATS = frozenset({"real", "double precision"})
TEXTS = frozenset({"text", "character varying", "character", "bpchar", "name"})
BUILT_IN = (
    INTEGERS
    | FLOATS
    | TEXTS
    | {
        "boolean",
        "numeric",
        "bytea",
        "date",
        "time without time zone",
        "time with time zone",
        "timestamp without time zone",
        "timestamp with time zone",
        "interval",
        "uuid",
        "json",
        "jsonb",
        "bit",
        "bit varying",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "money",
        "xml",
    }
)
"""Types whose binary form is the same in all supported versions and holds no OID."""


def relation(table: Table) -> str:
    """Return a table for FROM. Children of classic inheritance are tables of their own, so they are left out."""
    whole = table.kind in ("partitioned", "foreign") or table.partitioning is not None
    return at((table.namespace, table.name)) if whole else f"ONLY {at((table.namespace, table.name))}"


def value(field: Field) -> str:
    """Return a field's raw SQL value: a constant, a rule's expression, or the column."""
    if field.is_constant:
        return f"{literal(field.constant)}::text"
    if field.expression is not None:
        return f"({field.expression})"
    return quote(field.column.name)


def kind(field: Field) -> str:
    """Return the native base type of a field's raw value; a rule's result has the type that its column declares, else text."""
    if field.is_constant:
        return "text"
    return base_type(field.column) or "text"


def conditions(table: Table, keys: KeyRange, where: str | None) -> str:
    """Return the WHERE clause of a key range and a filter, with a leading space, or nothing."""
    parts = []
    if keys.columns and (keys.lo is not None or keys.hi is not None):
        columns = [table.column(c) for c in keys.columns]
        left = f"({', '.join(quote(c.name) for c in columns)})"
        if keys.lo is not None:
            parts.append(f"{left} > ({_bounds(columns, keys.lo)})")
        if keys.hi is not None:
            parts.append(f"{left} <= ({_bounds(columns, keys.hi)})")
    if where:
        parts.append(f"({where}\n)")  # the line break ends a trailing comment
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _bounds(columns: Sequence[Column], texts: Sequence[str]) -> str:
    if len(columns) != len(texts):
        raise InvalidInput(f"a key range of {len(columns)} columns has {len(texts)} bounds")
    return ", ".join(f"{literal(t)}::{c.native}" for c, t in zip(columns, texts, strict=True))
