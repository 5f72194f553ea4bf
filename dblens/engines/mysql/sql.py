"""Pieces of MySQL text: names, literals, key ranges. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dblens.engines.base import KeyRange, Place
from dblens.errors import InvalidInput
from dblens.schema.model import Column, Table
from dblens.schema.types import (
    Binary,
    Bits,
    Date,
    Decimal,
    Enum,
    Float,
    Geometry,
    Integer,
    Json,
    Set,
    Text,
    Year,
)

NAME_LIMIT = 64
INDEX_PREFIX = 191


def quote(name: str) -> str:
    """Return an identifier in backticks. Raises InvalidInput for what MySQL can never hold as a name."""
    if not name or "\0" in name:
        raise InvalidInput(f"not a MySQL name: {name!r}", hint="names are not empty and hold no U+0000")
    if len(name) > NAME_LIMIT:
        raise InvalidInput(
            f"name too long for MySQL: {name!r}", hint=f"at most {NAME_LIMIT} characters; rename it in the plan"
        )
    if any(ord(c) > 0xFFFF for c in name):
        raise InvalidInput(
            f"not a MySQL name: {name!r}",
            hint="characters beyond U+FFFF (emoji) cannot stand in MySQL names; rename it in the plan",
        )
    if name.endswith(" "):
        raise InvalidInput(f"not a MySQL name: {name!r}", hint="names cannot end in a space; rename it in the plan")
    return "`" + name.replace("`", "``") + "`"


def where_is(place: Place) -> str:
    """Return a table's quoted, qualified name."""
    return f"{quote(place[0])}.{quote(place[1])}"


_ESCAPES = str.maketrans({"\\": "\\\\", "'": "''", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"})


def literal(text: str | None) -> str:
    """Return a text as a literal (the sessions keep backslash escapes on)."""
    return "NULL" if text is None else "'" + text.translate(_ESCAPES) + "'"


_PLAIN = re.compile(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$", re.ASCII)


def _number(text: str) -> str:
    if not _PLAIN.match(text):
        raise InvalidInput(
            f"not a number in a key range: {text!r}", hint="key ranges come from `chunks` of the same table"
        )
    return text


def bound(column: Column, text: str) -> str:
    """Return a key bound as a literal that compares in the column's own order."""
    match column.type:
        case Integer() | Decimal() | Float() | Year():
            return _number(text)
        case Binary():
            if not re.fullmatch(r"([0-9a-fA-F]{2})*", text):
                raise InvalidInput(f"not octets in a key range: {text!r}", hint="key ranges come from `chunks`")
            return f"x'{text}'"
        case _:
            return literal(text)


def bound_text(column: Column) -> str:
    """Return the expression that reads a key column as the text of a bound."""
    name = quote(column.name)
    match column.type:
        case Binary():
            return f"lower(hex({name}))"
        case Float(bits=32):
            return f"concat(if({name} < 0, '-', ''), abs(cast({name} as double)))"
        case _:
            return f"concat({name})"


def rangeable(column: Column) -> bool:
    """Return whether `<` on the column follows its index order: not for ENUM and SET (compared as texts, ordered by number)."""
    return not isinstance(column.type, (Enum, Set, Bits, Json, Geometry))


def key_condition(table: Table, keys: KeyRange) -> str:
    """Return the condition of a key range, '' for all. Composite bounds are written out as OR, which MySQL can use an index for."""
    parts = []
    columns = [table.column(c) for c in keys.columns]
    if keys.lo is not None:
        parts.append(_beyond(columns, keys.lo, ">", ">"))
    if keys.hi is not None:
        parts.append(_beyond(columns, keys.hi, "<", "<="))
    return " and ".join(f"({p})" for p in parts)


def _beyond(columns: Sequence[Column], values: Sequence[str], strict: str, last: str) -> str:
    alternatives = []
    for i, column in enumerate(columns):
        equal = [f"{quote(c.name)} = {bound(c, v)}" for c, v in zip(columns[:i], values[:i], strict=True)]
        operator = last if i == len(columns) - 1 else strict
        alternatives.append(" and ".join([*equal, f"{quote(column.name)} {operator} {bound(column, values[i])}"]))
    if len(columns) == 1:
        return alternatives[0]
    # The redundant first condition lets the optimizer start with a plain range.
    head = f"{quote(columns[0].name)} {strict}= {bound(columns[0], values[0])}"
    return f"{head} and (" + " or ".join(f"({a})" for a in alternatives) + ")"


def filters(*conditions: str | None) -> str:
    """Return a WHERE clause of the given conditions, '' without any."""
    kept = [f"({c})" for c in conditions if c]
    return " where " + " and ".join(kept) if kept else ""


def key_columns(table: Table) -> tuple[str, ...]:
    """Return the columns that identify a row: the primary key, else a unique key without nullable columns, else none."""
    if table.primary_key is not None:
        return table.primary_key.columns
    for key in table.uniques:
        if all(not table.column(c).nullable for c in key.columns):
            return key.columns
    return ()


def is_text(column: Column) -> bool:
    """Return whether a column holds characters (and so has a charset)."""
    return isinstance(column.type, (Text, Enum, Set))


def is_temporal_date(column: Column) -> bool:
    """Return whether a column is a DATE."""
    return isinstance(column.type, Date)
