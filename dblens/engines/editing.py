"""How an engine changes single rows by hand: the statements of `dblens.query.edit`, in its own language, values always as parameters.

An engine offers it as a part of its own, `Engine.edits`. Cells are canonical texts (`values.forms`), as an answer's columns give them.
A statement matches its row by the key, and by those old values that the engine's `=` compares exactly; the others are compared by
reading the row in the same transaction, where it is locked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dblens.engines.asking import Odd, Out
from dblens.errors import InvalidInput
from dblens.schema.model import Column, Table
from dblens.schema.types import Float
from dblens.values.codec import canonical
from dblens.values.forms import Form


class Cell(NamedTuple):
    """A value in its place: the table's column, the same column as an answer has it, and its canonical text; None is NULL.

    `key`: it is part of what names the row, and never NULL.
    """

    column: Column
    out: Out
    text: str | None
    key: bool = False


class Written(NamedTuple):
    """A statement with places `:name`, and what stands in them."""

    text: str
    params: dict[str, object]


class Put(NamedTuple):
    """An expression in which `{}` is the place of `value`."""

    value: object
    sql: str = "{}"


class Edits(Protocol):
    """The chapter of an engine that changes rows."""

    @property
    def isolation(self) -> str:
        """Return the kind of transaction in which a row that was read stays as it was read."""
        ...

    def columns(self, table: Table) -> str | None:
        """Return a query for no row of a table, that tells its columns; None where documents have no columns."""
        ...

    def compares(self, cell: Cell) -> bool:
        """Return whether a statement itself can compare a stored value with this one, exactly."""
        ...

    def find(self, table: Table, match: Sequence[Cell], names: Sequence[str], start: int) -> Written:
        """Return a query for the rows that match, locked until the transaction's end; parameters are numbered from `start`."""
        ...

    def update(self, table: Table, match: Sequence[Cell], new: Sequence[Cell], start: int) -> Written:
        """Return the statement that puts new values into the row that matches. Raises InvalidInput for what the engine cannot hold."""
        ...

    def delete(self, table: Table, match: Sequence[Cell], start: int) -> Written:
        """Return the statement that deletes the row that matches."""
        ...

    def insert(self, table: Table, new: Sequence[Cell], start: int) -> Written:
        """Return the statement that inserts a row; columns without a cell get their defaults."""
        ...

    def last(self, table: Table, key: Column) -> str | None:
        """Return a query for the key that the engine has just given a row; None where it does not tell."""
        ...

    def row(self, outs: Sequence[Out], row: Sequence[object], names: Sequence[str]) -> tuple[str | None, ...]:
        """Return a row of `find` as canonical texts of the named columns."""
        ...

    def alike(self, cell: Cell, text: str | None) -> bool:
        """Return whether a text that was read means the same as a cell's. Raises InvalidInput for a cell that is no value of its form."""
        ...

    def lasting(self, table: Table) -> str:
        """Return why what is written to a table cannot be rolled back; empty where it can."""
        ...


class SqlEdits:
    """What the engines of SQL have in common; each says how it quotes, puts, compares and locks."""

    isolation = ""
    LOCK = " FOR UPDATE"
    EMPTY = "DEFAULT VALUES"
    TOP = " LIMIT 3"

    def quote(self, name: str) -> str:
        """Return an identifier."""
        raise NotImplementedError

    def put(self, cell: Cell) -> Put:
        """Return how a value that is not NULL is stored. Raises InvalidInput."""
        raise NotImplementedError

    def same(self, cell: Cell) -> Put | None:
        """Return a condition, `[]` for the column, that holds for this value alone; None where there is none. Not for NULL."""
        raise NotImplementedError

    def place(self, table: Table) -> str:
        """Return the table's name with its namespace."""
        return f"{self.quote(table.namespace)}.{self.quote(table.name)}"

    def columns(self, table: Table) -> str | None:
        """See `Edits.columns`."""
        return f"SELECT {', '.join(self.quote(c.name) for c in table.columns)} FROM {self.place(table)} WHERE 1 = 0"

    def compares(self, cell: Cell) -> bool:
        """See `Edits.compares`."""
        return cell.text is None or self.same(cell) is not None

    def find(self, table: Table, match: Sequence[Cell], names: Sequence[str], start: int) -> Written:
        """See `Edits.find`. By the key alone where there is one, so that the answer tells what else changed."""
        keys = [cell for cell in match if cell.key] or match
        said = _Said(start)
        where = self._where(keys, said)
        columns = ", ".join(map(self.quote, names))
        return said.made(f"SELECT {columns} FROM {self.place(table)} WHERE {where}{self.TOP}{self.LOCK}")

    def update(self, table: Table, match: Sequence[Cell], new: Sequence[Cell], start: int) -> Written:
        """See `Edits.update`."""
        said = _Said(start)
        puts = ", ".join(f"{self.quote(cell.column.name)} = {self._put(cell, said)}" for cell in new)
        return said.made(f"UPDATE {self.place(table)} SET {puts} WHERE {self._where(match, said)}")

    def delete(self, table: Table, match: Sequence[Cell], start: int) -> Written:
        """See `Edits.delete`."""
        said = _Said(start)
        return said.made(f"DELETE FROM {self.place(table)} WHERE {self._where(match, said)}")

    def insert(self, table: Table, new: Sequence[Cell], start: int) -> Written:
        """See `Edits.insert`."""
        said = _Said(start)
        if not new:
            return said.made(f"INSERT INTO {self.place(table)} {self.EMPTY}")
        names = ", ".join(self.quote(cell.column.name) for cell in new)
        values = ", ".join(self._put(cell, said) for cell in new)
        return said.made(f"INSERT INTO {self.place(table)} ({names}) {self.overriding(new)}VALUES ({values})")

    def overriding(self, new: Sequence[Cell]) -> str:  # noqa: ARG002 - PostgreSQL's alone
        """Return what stands before VALUES when a column that the engine numbers is given a value."""
        return ""

    def last(self, table: Table, key: Column) -> str | None:  # noqa: ARG002 - most tell it in their own way
        """See `Edits.last`."""
        return None

    def row(self, outs: Sequence[Out], row: Sequence[object], names: Sequence[str]) -> tuple[str | None, ...]:
        """See `Edits.row`."""
        found = dict(zip((out.name for out in outs), map(_text, outs, row), strict=True))
        return tuple(found[name] for name in names)

    def alike(self, cell: Cell, text: str | None) -> bool:
        """See `Edits.alike`."""
        if cell.text is None or text is None:
            return cell.text is text
        return cell.text == text or self.canonical(cell) == text

    def canonical(self, cell: Cell) -> str:
        """Return a cell's text in the spelling of its form, as its type holds it. Raises InvalidInput."""
        assert cell.text is not None
        form = cell.out.form
        try:
            if form is Form.FLOAT and cell.out.type == Float(
                32
            ):  # the shortest digits of a single are not those of its double
                return _made(form, struct.unpack("f", struct.pack("f", float(cell.text)))[0])
            return _made(form, bytes.fromhex(cell.text) if form is Form.BYTES else cell.text)
        except (ValueError, OverflowError) as error:
            raise InvalidInput(
                f"column {cell.column.name!r}: {cell.text[:80]!r} is no value of form {form}", hint=str(error)[:200]
            ) from error

    def lasting(self, table: Table) -> str:  # noqa: ARG002 - most tables have transactions
        """See `Edits.lasting`."""
        return ""

    def _put(self, cell: Cell, said: _Said) -> str:
        return "NULL" if cell.text is None else said.place(self.put(cell))

    def _where(self, match: Sequence[Cell], said: _Said) -> str:
        found = []
        for cell in match:
            name = self.quote(cell.column.name)
            if cell.text is None:
                found.append(f"{name} IS NULL")
                continue
            if cell.key:  # as the index has it; what a collation takes for the same is told apart by the next condition
                found.append(f"{name} = {said.place(self.put(cell))}")
            exact = self.same(cell)
            if exact is not None and not (cell.key and exact.sql in ("[] = {}", "[] IS {}")):
                found.append(said.place(exact).replace("[]", name))
        return " AND ".join(found)


def _text(out: Out, value: object) -> str | None:
    return value.text if isinstance(value, Odd) else None if value is None else _made(out.form, value)


def _made(form: Form, value: object) -> str:
    found = canonical(form, value)
    assert found is not None, "NULL was asked about before"
    return found.decode("utf-8", "surrogateescape")


class _Said:
    """Parameters as they are written, `:v<number>`."""

    def __init__(self, start: int) -> None:
        self._next, self.params = start, dict[str, object]()

    def place(self, put: Put) -> str:
        name = f"v{self._next}"
        self._next += 1
        self.params[name] = put.value
        return put.sql.replace("{}", f":{name}")

    def made(self, text: str) -> Written:
        return Written(text, self.params)
