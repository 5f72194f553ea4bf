"""Statements that change single rows of a MySQL or MariaDB table."""

from __future__ import annotations

import re
from decimal import Decimal as Exact
from decimal import InvalidOperation

from dblens.engines.editing import Cell, Put, SqlEdits
from dblens.engines.mysql.sql import quote
from dblens.errors import InvalidInput
from dblens.schema.model import Column, Table
from dblens.schema.types import Float
from dblens.values.forms import Form

_ZERO = re.compile(r"0000|\d{4}-00|\d{4}-\d\d-00", re.ASCII)

_NO_TRANSACTIONS = frozenset({"myisam", "aria", "memory", "csv", "archive", "blackhole", "mrg_myisam"})


class MysqlEdits(SqlEdits):
    """A row that was read for update stays as it is until the transaction's end, in tables that have transactions."""

    EMPTY = "() VALUES ()"

    def quote(self, name: str) -> str:
        """See `SqlEdits.quote`."""
        return quote(name)

    def put(self, cell: Cell) -> Put:
        """See `SqlEdits.put`."""
        return Put(_value(cell))

    def same(self, cell: Cell) -> Put | None:
        """See `SqlEdits.same`. Texts octet by octet: `=` goes by a collation, for which 'a' may be 'A', and 'a '."""
        form, text = cell.out.form, cell.text or ""
        if form is Form.FLOAT and cell.out.type != Float(64):
            return None  # a number of 32 bits is no equal of what it was made of, nor always of what it shows
        if form is Form.TEXT:
            return Put(_value(cell), "CAST(CONVERT([] USING utf8mb4) AS BINARY) = CAST({} AS BINARY)")
        if form in (Form.DATE, Form.TIMESTAMP) and not _ZERO.match(text):
            return Put(_value(cell), "[] = {}")
        return Put(_value(cell), "[] = {}") if form in (Form.INT, Form.DECIMAL, Form.FLOAT, Form.BYTES) else None

    def last(self, table: Table, key: Column) -> str | None:  # noqa: ARG002
        """See `SqlEdits.last`."""
        return "SELECT LAST_INSERT_ID()" if key.identity is not None else None

    def lasting(self, table: Table) -> str:
        """See `SqlEdits.lasting`."""
        kind = table.options.get("engine", "InnoDB")
        return f"tables of {kind} have no transactions" if kind.lower() in _NO_TRANSACTIONS else ""


def _value(cell: Cell) -> object:
    text = cell.text or ""
    try:
        match cell.out.form:
            case Form.INT:
                return int(text)
            case Form.DECIMAL:
                return Exact(text)
            case Form.FLOAT:
                return float(text)
            case Form.BYTES:
                return bytes.fromhex(text)
            case Form.BITS:
                return int(text, 2)
            case Form.GEOMETRY:
                raise InvalidInput(f"column {cell.column.name!r} is a geometry", hint="change it by a query")
    except (ValueError, OverflowError, InvalidOperation) as error:
        raise InvalidInput(
            f"column {cell.column.name!r}: {text[:80]!r} is no value of form {cell.out.form}", hint="see `values.forms`"
        ) from error
    return text


edits = MysqlEdits()
