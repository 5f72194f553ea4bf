"""Columns of an answer: what they mean, by the type's number and modifier, and where their values lie, by table and column number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dblens.engines.asking import Out
from dblens.engines.forms import form_of
from dblens.engines.postgres.ddl import quote
from dblens.engines.postgres.types import parse
from dblens.schema.types import (
    Array,
    DataType,
    Enum,
    Geometry,
    Opaque,
    Text,
)
from dblens.values.forms import Form

Cells = Sequence[tuple[str | None, ...]]
NUMERIC: Final = 1700
_BUILT_IN: Final = 16_384
"""Numbers of types below it are the server's own and mean the same everywhere."""
_NARROW: Final = {NUMERIC: 147_460, 869: 50, 650: 50, 2278: 8}
"""numeric, inet, cidr, void: octets of the longest text."""
_COUNTED: Final = frozenset({1042, 1043})
_BITS: Final = frozenset({1560, 1562})


class Described(NamedTuple):
    """What the server says of a column of an answer."""

    name: str
    type: int
    modifier: int
    table: int
    number: int


class Column(NamedTuple):
    """A column as people are told of it; `width`: octets of its longest text, None where it has no bound."""

    out: Out
    oid: int
    width: int | None


class Kind(NamedTuple):
    """A type: its meaning, its spelling, and the octets of its longest text."""

    type: DataType
    native: str
    width: int | None


def lookup(columns: Sequence[Described], known: dict[tuple[int, int], Kind]) -> tuple[str, str]:
    """Return SQL for the types that are not known yet, and for the places of columns; empty where nothing is to be asked."""
    pairs = sorted({(c.type, c.modifier) for c in columns} - set(known))
    places = sorted({(c.table, c.number) for c in columns if c.table})
    return _types(pairs) if pairs else "", _places(places) if places else ""


def _types(pairs: Sequence[tuple[int, int]]) -> str:
    listed = ", ".join(f"({oid}::pg_catalog.oid, {modifier})" for oid, modifier in pairs)
    labels = (
        "(SELECT pg_catalog.array_to_json(pg_catalog.array_agg(e.enumlabel::pg_catalog.text ORDER BY e.enumsortorder)) "
        "FROM pg_catalog.pg_enum e WHERE e.enumtypid OPERATOR(pg_catalog.=) {}.oid)"
    )
    return (
        "SELECT t.oid, w.m, pg_catalog.format_type(t.oid, w.m), t.typtype, t.typlen, n.nspname, t.typname, "
        f"{labels.format('t')}, i.oid, i.typtype, x.nspname, i.typname, {labels.format('i')}, "
        "CASE WHEN i.typtype OPERATOR(pg_catalog.=) 'd' THEN pg_catalog.format_type(i.typbasetype, i.typtypmod) ELSE pg_catalog.format_type(i.oid, w.m) END, "
        "t.typcategory, i.typlen "
        f"FROM (VALUES {listed}) w(o, m) JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) w.o "
        "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace "
        "LEFT JOIN pg_catalog.pg_type i ON i.oid OPERATOR(pg_catalog.=) t.typelem AND t.typcategory OPERATOR(pg_catalog.=) 'A' "
        "LEFT JOIN pg_catalog.pg_namespace x ON x.oid OPERATOR(pg_catalog.=) i.typnamespace"
    )


def _places(places: Sequence[tuple[int, int]]) -> str:
    listed = ", ".join(f"({table}::pg_catalog.oid, {number}::pg_catalog.int2)" for table, number in places)
    return (
        "SELECT c.oid, a.attnum, n.nspname, c.relname, a.attname "
        f"FROM (VALUES {listed}) w(o, m) JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.o "
        "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
        "JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) w.m"
    )


def learned(rows: Cells) -> dict[tuple[int, int], Kind]:
    """Return the types that a lookup found."""
    return {(int(row[0] or 0), int(row[1] or 0)): _kind(row) for row in rows}


def _kind(row: tuple[str | None, ...]) -> Kind:
    oid, modifier, native = int(row[0] or 0), int(row[1] or 0), row[2] or ""
    own = oid >= _BUILT_IN
    if own and row[3] in ("e", "c", "r", "m", "b") and not row[8]:
        native = f"{quote(row[5] or '')}.{quote(row[6] or '')}"
    type: DataType
    if row[3] == "e":
        type = Enum(_labels(row[7]), f"{row[5]}.{row[6]}")
    elif row[8]:
        item = _item(row)
        type = Array(item) if item is not None else Opaque(native)
        if own:
            native = f"{quote(row[10] or '')}.{quote(row[11] or '')}[]"
    elif row[3] != "b" or own:
        type = Text() if row[3] == "b" and row[6] == "citext" else Opaque(native)
    else:
        type = parse(native)
    if oid in (705, 2278, 2275):  # unknown, void, cstring
        type = Text()
    if oid == 19:
        type = Text(63)
    return Kind(type, native, _width(oid, modifier, int(row[4] or -1)))


def _item(row: tuple[str | None, ...]) -> DataType | None:
    """Return the meaning of an array's items, None for those that have none of their own."""
    if row[9] == "e":
        return Enum(_labels(row[12]), f"{row[10]}.{row[11]}")
    if row[9] not in ("b", "d") or (row[9] == "b" and int(row[8] or 0) >= _BUILT_IN and row[11] != "citext"):
        return None
    found = Text() if row[11] in ("citext", "name") else parse(row[13] or "")
    return None if isinstance(found, Opaque | Array) or (row[13] or "") == "money" else found


def _labels(text: str | None) -> tuple[str, ...]:
    import json

    return tuple(json.loads(text)) if text else ()


def _width(oid: int, modifier: int, length: int) -> int | None:
    if oid in _NARROW:
        return _NARROW[oid]
    if oid in _COUNTED:
        return (modifier - 4) * 4 if modifier > 4 else None
    if oid in _BITS:
        return modifier if modifier > 0 else None
    return 64 if length > 0 else None


def described(columns: Sequence[Described], known: dict[tuple[int, int], Kind], places: Cells) -> tuple[Column, ...]:
    """Return the columns as people are told of them."""
    where = {(int(row[0] or 0), int(row[1] or 0)): row[2:] for row in places}
    found = []
    for column in columns:
        kind = known.get((column.type, column.modifier))
        if kind is None:  # dropped since
            kind = Kind(Opaque(f"type {column.type}"), f"type {column.type}", None)
        place = where.get((column.table, column.number), (None, None, None))
        out = Out(
            name=column.name,
            type=kind.type,
            native=kind.native,
            form=spelled_form(kind.type),
            namespace=place[0],
            table=place[1],
            column=place[2],
        )
        found.append(Column(out, column.type, kind.width))
    return tuple(found)


def spelled_form(type: DataType) -> Form:
    """Return the form in which an answer spells a type's values: geometry comes as the server's own text."""
    return Form.TEXT if isinstance(type, Geometry) else form_of(type)


def own_types(known: dict[tuple[int, int], Kind]) -> None:
    """Forget the types that people made: they may change."""
    for pair in [pair for pair in known if pair[0] >= _BUILT_IN]:
        del known[pair]


def array_item(type: DataType) -> DataType:
    """Return the meaning of an array's items."""
    return type.item if isinstance(type, Array) else type
