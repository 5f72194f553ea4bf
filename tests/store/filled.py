"""A store with awkward rows in every table, whatever tables there are, and what lies in a store."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from dblens.store.database import Store
from dblens.store.tables import UtcTime, metadata

TEXT = "Å 'q\" \\ %s {} \n 🙂"
JSON = {"k": [1, 9007199254740993, 1e-7, None, True, {"é": "\u2028", "": "{}"}]}
AT = dt.datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=dt.UTC)


def _value(column: sa.Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, UtcTime):
        return AT + dt.timedelta(microseconds=number)
    if isinstance(kind, sa.JSON):
        return JSON | {"n": number}
    if isinstance(kind, sa.LargeBinary):
        return bytes(range(200, 232))[number:] + bytes([number])
    if isinstance(kind, sa.Boolean):
        return number % 2 == 0
    if isinstance(kind, sa.Integer):
        return number + 1 if not isinstance(kind, sa.BigInteger) else 2**53 + number
    assert isinstance(kind, sa.String), kind
    if column.primary_key and kind.length == 32:
        return f"{number:032x}"
    return f"{number}{TEXT}"[: kind.length]


def fill(store: Store, rows: int = 3) -> None:
    """Put rows into every table; in the last one everything that may be NULL is, and one JSON value is JSON's null."""
    with store.write() as tx:
        for table in metadata.sorted_tables:
            for number in range(rows):
                row: dict[str, Any] = {}
                for column in table.columns:
                    if column.nullable and number == rows - 1:
                        row[column.name] = sa.null()
                    elif column.nullable and number == rows - 2 and isinstance(column.type, sa.JSON):
                        row[column.name] = None  # kept as JSON's null, which is not NULL
                    elif column.foreign_keys:
                        row[column.name] = f"{number:032x}"
                    else:
                        row[column.name] = _value(column, number)
                tx.execute(table.insert().values(row))


def content(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table, JSON as its text."""
    found = {}
    with store.read() as tx:
        for table in metadata.sorted_tables:
            wanted = [
                sa.cast(c, sa.Text) if isinstance(c.type, sa.JSON) and tx.dialect.name == "postgresql"
                else sa.type_coerce(c, sa.Text) if isinstance(c.type, sa.JSON) else c
                for c in table.columns
            ]  # fmt: skip
            found[table.name] = sorted((tuple(row) for row in tx.execute(sa.select(*wanted))), key=repr)
    return found
