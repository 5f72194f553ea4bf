"""Documents to columns: what a sample shows (`sampled`), and what a full scan proves (`Prover`)."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from dblens.engines.mongodb.types import parse
from dblens.schema.model import Column, Index, IndexPart, Key, Table, TypeShare
from dblens.schema.types import Array, DataType, Document

MOST_COLUMNS = 200
_DEPTH = 5
_NAMES: dict[type, str] = {
    int: "int", Int64: "long", float: "double", str: "string", bool: "bool", type(None): "null", dict: "object", list: "array",
    ObjectId: "objectId", DatetimeMS: "date", dt.datetime: "date", Decimal128: "decimal", Regex: "regex", Code: "javascript",
    Timestamp: "timestamp", MinKey: "minKey", MaxKey: "maxKey", DBRef: "object", bytes: "binData",
}  # fmt: skip
SCALARS = ("int", "long", "double", "decimal", "string", "binData", "uuid", "bool", "date", "objectId")
_WHOLE_DOUBLE = 2**53


def type_name(value: Any) -> str:
    """Return what MongoDB calls a value's type; `uuid` is binData of subtype 4 and 16 octets."""
    name = _NAMES.get(type(value))
    if name is not None:
        return name
    if isinstance(value, Binary):
        return "uuid" if value.subtype == 4 and len(value) == 16 else "binData"
    return next((n for kind, n in _NAMES.items() if isinstance(value, kind)), "unknown")


class Prover:
    """Counts the types of the top-level fields of every document, and decides which fields become columns."""

    def __init__(self) -> None:
        self.documents = 0
        self._counts: dict[str, Counter[str]] = {}
        self._inexact: set[str] = set()
        """Fields with a whole number that a double would change."""

    def add(self, documents: Iterable[dict[str, Any]]) -> None:
        """Count a batch of documents."""
        counts = self._counts
        names = _NAMES.get
        for document in documents:
            self.documents += 1
            for key, value in document.items():
                name = names(type(value)) or type_name(value)
                field = counts.get(key)
                if field is None:
                    field = counts[key] = Counter()
                field[name] += 1
                if name == "long" and not -_WHOLE_DOUBLE <= value <= _WHOLE_DOUBLE:
                    self._inexact.add(key)

    def _native(self, key: str) -> str | None:
        kinds = set(self._counts[key]) - {"null"}
        if len(kinds) == 1:
            kind = kinds.pop()
            return kind if kind in SCALARS else None
        if kinds == {"int", "long"}:
            return "long"
        if kinds and kinds <= {"int", "long", "double"}:
            return None if key in self._inexact else "double"
        if kinds and kinds <= {"int", "long", "decimal"}:
            return "decimal"
        return None

    def natives(self) -> dict[str, str | None]:
        """Return what each field is throughout, None where no one type holds all its values."""
        return {key: self._native(key) for key in self._counts}

    def promoted(self) -> list[Column]:
        """Return the fields that become columns, `_id` first, by first appearance."""
        total = self.documents or 1
        columns: list[Column] = []
        for key, counts in self._counts.items():
            native = self._native(key)
            if key == "_id" and native is None:
                native = "document"
            if native is None or (len(columns) > MOST_COLUMNS and key != "_id"):
                continue
            present = sum(counts.values())
            column = Column(
                name=key or "empty_name",
                type=parse(native),
                native=native,
                nullable=key != "_id",
                path=(key,),
                presence=present / total,
                shares=_shares(counts),
            )
            columns.insert(0, column) if key == "_id" else columns.append(column)
        return columns

    def table(self, table: Table) -> Table:
        """Return the table as the data prove it: `_id`, promoted fields, and the whole document in a last column."""
        columns = self.promoted()
        if not any(c.name == "_id" for c in columns) and not self.documents:
            columns.insert(
                0, Column(name="_id", type=parse("objectId"), native="objectId", nullable=False, path=("_id",))
            )
        columns = unique_names(columns)
        columns.append(_document_column({c.name for c in columns}))
        return msgspec.structs.replace(
            table,
            columns=tuple(columns),
            primary_key=Key(name=None, columns=("_id",))
            if columns[0].name == "_id" and table.kind != "timeseries"
            else None,
            indexes=tuple(_index(index, columns) for index in table.indexes),
            inferred=True,
            sampled=self.documents,
            rows_estimate=self.documents,
        )


def unique_names(columns: list[Column]) -> list[Column]:
    """Return the columns, a name that an earlier one has with underscores behind it."""
    taken: set[str] = set()
    out = []
    for column in columns:
        name = column.name
        while name in taken:
            name += "_"
        taken.add(name)
        out.append(column if name == column.name else msgspec.structs.replace(column, name=name))
    return out


def _document_column(taken: set[str]) -> Column:
    name = "doc"
    while name in taken or name.lower() in {t.lower() for t in taken}:
        name += "_"
    return Column(name=name, type=Document(), native="document", nullable=False, presence=1.0)


def _index(index: Index, columns: list[Column]) -> Index:
    """Refer to columns where the indexed field is one, to its path otherwise."""
    by_path = {c.path: c.name for c in columns}
    parts = []
    for part in index.parts:
        field = part.column or part.expression or ""
        name = by_path.get((field,))
        parts.append(
            msgspec.structs.replace(part, column=name, expression=None if name else field)
            if isinstance(part, IndexPart)
            else part
        )
    return msgspec.structs.replace(index, parts=tuple(parts))


def _shares(counts: Counter[str]) -> tuple[TypeShare, ...]:
    present = sum(counts.values()) or 1
    return tuple(TypeShare(name=name, share=n / present) for name, n in counts.most_common())


def sampled(documents: Iterable[dict[str, Any]]) -> tuple[Column, ...]:
    """Return the fields of a sample, nested ones too, by first appearance and path."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    items: dict[tuple[str, ...], Counter[str]] = {}
    total = 0

    def visit(path: tuple[str, ...], value: Any) -> None:
        name = type_name(value)
        counts.setdefault(path, Counter())[name] += 1
        if isinstance(value, dict) and len(path) < _DEPTH:
            for key, inner in value.items():
                visit((*path, key), inner)
        elif isinstance(value, list):
            items.setdefault(path, Counter()).update(map(type_name, value))

    for document in documents:
        total += 1
        for key, value in document.items():
            visit((key,), value)
    columns = [
        Column(
            name=".".join(path),
            type=_sampled_type(counter, items.get(path)),
            native=_one(counter) or "document",
            nullable=path != ("_id",),
            path=path,
            presence=sum(counter.values()) / total,
            shares=_shares(counter),
        )
        for path, counter in counts.items()
    ]
    columns.sort(key=lambda c: (c.path != ("_id",),))
    return tuple(unique_names(columns))


def _one(counter: Counter[str]) -> str | None:
    kinds = [name for name in counter if name != "null"]
    if len(kinds) == 1 and kinds[0] in (*SCALARS, "object", "array"):
        return kinds[0]
    return "long" if set(kinds) == {"int", "long"} else None


def _sampled_type(counter: Counter[str], inside: Counter[str] | None) -> DataType:
    native = _one(counter)
    if native == "array":
        item = _one(inside) if inside else None
        return Array(parse(item) if item in SCALARS else Document())
    return Document() if native in (None, "object") else parse(native)
