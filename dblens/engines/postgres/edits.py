"""Statements that change single rows of a PostgreSQL table.

Values travel as texts without a type, so the server reads each as its column's own: what it cannot hold is refused, never cast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dblens.engines.editing import Cell, Put, SqlEdits, Written
from dblens.engines.postgres import ddl
from dblens.errors import InvalidInput
from dblens.schema.model import Table
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    Date,
    Decimal,
    Enum,
    Float,
    Integer,
    Interval,
    Json,
    Text,
    Time,
    Timestamp,
    Uuid,
)
from dblens.values.forms import Form

_INTERVAL = re.compile(r"([+-]?\d+) ([+-]?\d+) ([+-]?\d+)", re.ASCII)
_EXACT = (Boolean, Integer, Decimal, Float, Text, Binary, Date, Time, Timestamp, Uuid, Enum, Bits, Interval)
"""Types whose `=` means the same value; json, xml, points and others have none, or one that means something else."""


class PostgresEdits(SqlEdits):
    """A row that was read for update stays as it is until the transaction's end."""

    def quote(self, name: str) -> str:
        """See `SqlEdits.quote`."""
        return ddl.quote(name)

    def put(self, cell: Cell) -> Put:
        """See `SqlEdits.put`."""
        return Put(_text(cell))

    def same(self, cell: Cell) -> Put | None:
        """See `SqlEdits.same`."""
        kind = cell.column.type
        if isinstance(kind, Json) and kind.normalised:
            return Put(_text(cell), "[] = {}")
        return Put(_text(cell), "[] = {}") if isinstance(kind, _EXACT) else None

    def overriding(self, new: Sequence[Cell]) -> str:
        """See `SqlEdits.overriding`."""
        always = any(cell.column.identity is not None and cell.column.identity.always for cell in new)
        return "OVERRIDING SYSTEM VALUE " if always else ""

    def insert(self, table: Table, new: Sequence[Cell], start: int) -> Written:
        """See `SqlEdits.insert`. It returns the key that it was given."""
        text, params = super().insert(table, new, start)
        key = table.primary_key
        if key is not None and not {cell.column.name for cell in new if cell.text is not None}.issuperset(key.columns):
            text += f" RETURNING {', '.join(map(self.quote, key.columns))}"
        return Written(text, params)


def _text(cell: Cell) -> str:
    """Return the server's spelling of a canonical text."""
    text, form = cell.text or "", cell.out.form
    if "\0" in text:
        raise InvalidInput(f"column {cell.column.name!r}: PostgreSQL holds no U+0000", hint="leave it out")
    if isinstance(cell.column.type, Array):
        raise InvalidInput(f"column {cell.column.name!r} is an array", hint="change it by a query")
    match form:
        case Form.BYTES:
            return f"\\x{text}"
        case Form.TIMESTAMPTZ if "infinity" not in text:
            clock, before = text.removesuffix(" BC"), " BC" if text.endswith(" BC") else ""
            return f"{clock}+00{before}"
        case Form.INTERVAL:
            if parts := _INTERVAL.fullmatch(text):
                return f"{parts[1]} months {parts[2]} days {parts[3]} microseconds"
    return text


edits = PostgresEdits()
