"""Statements that change single rows of a SQLite table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal

from dblens.engines.asking import Odd, Out
from dblens.engines.editing import Cell, Put, SqlEdits
from dblens.engines.sqlite import ddl
from dblens.engines.sqlite.ask_types import Column
from dblens.errors import InvalidInput
from dblens.schema import model
from dblens.schema.model import Table
from dblens.values.codec import canonical
from dblens.values.forms import Form

_CLASS = re.compile(r"[irtb]:", re.ASCII)


class SqliteEdits(SqlEdits):
    """A transaction that writes from its beginning keeps what was read. Every storage class is compared as it is."""

    isolation = "immediate"
    LOCK = ""

    def quote(self, name: str) -> str:
        """See `SqlEdits.quote`."""
        return ddl.quote(name)

    def put(self, cell: Cell) -> Put:
        """See `SqlEdits.put`."""
        return Put(_stored(cell))

    def same(self, cell: Cell) -> Put | None:
        """See `SqlEdits.same`. What does not tell its class is compared by reading: decimals may be stored in three."""
        if cell.out.form in (Form.DECIMAL, Form.DYNAMIC) and not _CLASS.match(cell.text or ""):
            return None
        value = _stored(cell)
        return Put(value, "[] COLLATE BINARY IS {}" if isinstance(value, str) else "[] IS {}")

    def last(self, table: Table, key: model.Column) -> str | None:
        """See `SqlEdits.last`. The number of a row is its key only where that is declared INTEGER, to the letter."""
        alone = table.primary_key is not None and table.primary_key.columns == (key.name,)
        return "SELECT last_insert_rowid()" if alone and key.native.upper() == "INTEGER" else None

    def alike(self, cell: Cell, text: str | None) -> bool:
        """See `SqlEdits.alike`. A row alone may be read in another form than all of them: the class is compared where both tell it."""
        if cell.text is None or text is None:
            return cell.text is text
        if text in (cell.text, cell.text[2:] if _CLASS.match(cell.text) else None):
            return True
        if cell.out.form is Form.DYNAMIC and not _CLASS.match(cell.text):
            return (
                _CLASS.match(text) is not None and text[2:] == cell.text
            )  # as a column shows it whose values are of one class
        value = _stored(cell)
        told = canonical(Form.DYNAMIC, value)
        return told is not None and text.encode("utf-8", "surrogateescape") in (told, told[2:])

    def row(self, outs: Sequence[Out], row: Sequence[object], names: Sequence[str]) -> tuple[str | None, ...]:
        """See `SqlEdits.row`. A value alone may give its column another form: then it tells its class."""
        found = dict(zip((out.name for out in outs), super().row(outs, row, [out.name for out in outs]), strict=True))
        for out, value in zip(outs, row, strict=True):
            if (
                value is not None
                and not isinstance(value, Odd)
                and out.form is not Column(out.name, out.native, ()).form
            ):
                text = canonical(Form.DYNAMIC, value)
                found[out.name] = None if text is None else text.decode("utf-8", "surrogateescape")
        return tuple(found[name] for name in names)


def _stored(cell: Cell) -> object:
    """Return a text as SQLite stores it. `i:5` is of another class than its column's, as an answer spells it."""
    text, form = cell.text or "", cell.out.form
    try:
        if form is Form.DYNAMIC or (form not in (Form.TEXT, Form.JSON, Form.NATIVE) and _CLASS.match(text)):
            return _of_class(text)
        match form:
            case Form.INT:
                return _whole(text)
            case Form.FLOAT:
                return _real(text)
            case Form.BYTES:
                return bytes.fromhex(text)
            case Form.DECIMAL:
                return _number(text)
            case Form.TEXT:
                text.encode()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"column {cell.column.name!r}: {text[:80]!r} is no value of form {form}", hint=f"SQLite: {error}"
        ) from error
    return text


def _of_class(text: str) -> object:
    kind, rest = text[:2], text[2:]
    match kind:
        case "i:":
            return _whole(rest)
        case "r:":
            return _real(rest)
        case "b:":
            return bytes.fromhex(rest)
        case "t:":
            rest.encode()
            return rest
    raise ValueError("a value of a column without a type begins with i:, r:, t: or b:")


def _whole(text: str) -> int:
    found = int(text)
    if not -(2**63) <= found < 2**63:
        raise ValueError("a whole number has 64 bits at most")
    return found


def _real(text: str) -> float:
    found = float(text)
    if math.isnan(found):
        raise ValueError("NaN would be stored as NULL")
    return found


def _number(text: str) -> object:
    """Return a decimal in the class that holds it exactly. Raises ValueError: a column of numbers would round it, whatever is given."""
    if "." not in text:
        return _whole(text)
    found = float(text)
    if Decimal(repr(found)) != Decimal(text):
        raise ValueError("SQLite keeps about 15 digits of a fraction")
    return found


edits = SqliteEdits()
