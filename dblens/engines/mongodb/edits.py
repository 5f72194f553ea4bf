"""Statements that change single documents of a MongoDB collection. A cell is a field of the document: Extended JSON, None where it has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dblens.engines.asking import Out
from dblens.engines.editing import Cell, Written
from dblens.errors import InvalidInput
from dblens.schema.model import Column, Table

_ID = "_id"


class MongoEdits:
    """Without transactions (no replica set) a document is read, compared, and matched again by what was compared."""

    isolation = ""

    def columns(self, table: Table) -> str | None:  # noqa: ARG002 - documents have none
        """See `Edits.columns`."""
        return None

    def compares(self, cell: Cell) -> bool:  # noqa: ARG002
        """See `Edits.compares`. Its `$eq` holds 1 and 1.0 equal; what was read tells them apart."""
        return True

    def find(self, table: Table, match: Sequence[Cell], names: Sequence[str], start: int) -> Written:  # noqa: ARG002
        """See `Edits.find`. Nothing is locked."""
        said = _Said(start)
        keys = [cell for cell in match if cell.key]
        return said.made(f"{_collection(table)}.find({said.match(keys)}).limit(3)")

    def update(self, table: Table, match: Sequence[Cell], new: Sequence[Cell], start: int) -> Written:
        """See `Edits.update`."""
        said = _Said(start)
        found = said.match(match)
        puts = ", ".join(f"{_field(c)}: {said.value(c)}" for c in new if c.text is not None)
        gone = ", ".join(f'{_field(c)}: ""' for c in new if c.text is None)
        parts = [f"$set: {{{puts}}}"] * bool(puts) + [f"$unset: {{{gone}}}"] * bool(gone)
        return said.made(f"{_collection(table)}.updateOne({found}, {{{', '.join(parts)}}})")

    def delete(self, table: Table, match: Sequence[Cell], start: int) -> Written:
        """See `Edits.delete`."""
        said = _Said(start)
        return said.made(f"{_collection(table)}.deleteOne({said.match(match)})")

    def insert(self, table: Table, new: Sequence[Cell], start: int) -> Written:
        """See `Edits.insert`."""
        said = _Said(start)
        puts = ", ".join(f"{_field(c)}: {said.value(c)}" for c in new if c.text is not None)
        return said.made(f"{_collection(table)}.insertOne({{{puts}}})")

    def last(self, table: Table, key: Column) -> str | None:  # noqa: ARG002
        """See `Edits.last`."""
        return None

    def row(self, outs: Sequence[Out], row: Sequence[object], names: Sequence[str]) -> tuple[str | None, ...]:  # noqa: ARG002
        """See `Edits.row`."""
        from dblens.engines.mongodb import extjson

        found = extjson.decode(str(row[0]))
        return tuple(extjson.encode(found[name]) if name in found else None for name in names)

    def alike(self, cell: Cell, text: str | None) -> bool:
        """See `Edits.alike`. The order of a document's keys counts, and the type of a number."""
        if cell.text is None or text is None:
            return cell.text is text
        return cell.text == text or _encoded(_decoded(cell)) == text

    def lasting(self, table: Table) -> str:  # noqa: ARG002 - the server is asked when the transaction begins
        """See `Edits.lasting`."""
        return ""


class _Said:
    """Parameters as they are written, `:v<number>`."""

    def __init__(self, start: int) -> None:
        self._next, self.params = start, dict[str, object]()

    def value(self, cell: Cell) -> str:
        name = f"v{self._next}"
        self._next += 1
        self.params[name] = _decoded(cell)
        return f":{name}"

    def match(self, match: Sequence[Cell]) -> str:
        parts = [
            f"{_field(c)}: {{$exists: false}}" if c.text is None else f"{_field(c)}: {{$eq: {self.value(c)}}}"
            for c in match
        ]
        return f"{{{', '.join(parts)}}}"

    def made(self, text: str) -> Written:
        return Written(text, self.params)


def _collection(table: Table) -> str:
    return f"db.getCollection({json.dumps(table.name)})"


def _field(cell: Cell) -> str:
    name = cell.column.name
    if not name or name.startswith("$") or "." in name or "\0" in name:
        raise InvalidInput(f"{name!r} is no field of a document's own", hint="change the document by a query")
    return json.dumps(name)


def _decoded(cell: Cell) -> Any:
    from dblens.engines.mongodb import extjson  # the driver is loaded when it is first needed

    try:
        return extjson.decode(cell.text or "null")
    except ValueError as error:
        raise InvalidInput(
            f"field {cell.column.name!r}: {(cell.text or '')[:80]!r} is no Extended JSON",
            hint='a text stands in quotes: "a"',
        ) from error


def _encoded(value: Any) -> str:
    from dblens.engines.mongodb import extjson

    return extjson.encode(value)


edits = MongoEdits()
