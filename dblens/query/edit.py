"""Rows changed by hand: from changes of a grid to statements, shown before they run, each of which touches exactly one row or nothing is done.

A row is matched by its primary key (or a unique key without NULL, or all its values where there is neither) and by the old values that
were shown. Within the transaction each row is read and locked first: what was changed by somebody else since ends the whole batch, and
so does a value that the database stores otherwise than it was given, unless that is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from dblens.engines.asking import Asks, Limits, Out
from dblens.engines.base import Engine
from dblens.engines.editing import Cell, Edits, Written
from dblens.errors import Conflict, DBLensError, InvalidInput, Unsupported
from dblens.query.run import lexis_of
from dblens.schema.model import Column, ForeignKey, Key, Table
from dblens.schema.types import Document
from dblens.values.forms import Form

MOST: Final = 1000
"""Changes of a batch."""
_SHOWN: Final = 60
_FOLLOW: Final = frozenset({"cascade", "set null", "set default"})
Values = dict[str, str | int | bool | None]


class RowChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change. Values are canonical texts, as a query returns them; null is NULL (of a document: the field is not there).

    `old`: what was shown of the row, its key among it; `new`: what it shall be, of an insert without the columns that get their defaults.
    """

    action: Literal["update", "insert", "delete"]
    old: Values = {}
    new: Values = {}


class DraftStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A statement of a change, its parameters as texts, and the read that goes before it in the same transaction."""

    number: int
    action: Literal["update", "insert", "delete"]
    row: str
    text: str
    params: dict[str, str | None] = {}
    check: str = ""


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch of changes would run, in this order, in one transaction. `key`: what matches rows; empty: all their values."""

    table: str
    key: tuple[str, ...]
    statements: tuple[DraftStatement, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return all statements as one text."""
        return ";\n".join(each.text for each in self.statements)


class EditedRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row as it is stored now; no values where it was deleted, or could not be read again."""

    number: int
    action: Literal["update", "insert", "delete"]
    values: dict[str, str | None] = {}


class Edited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch did. `atomic`: in one transaction."""

    inserted: int
    updated: int
    deleted: int
    atomic: bool
    rows: tuple[EditedRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def affected(self) -> int:
        """Return how many rows were touched."""
        return self.inserted + self.updated + self.deleted


class _Step(msgspec.Struct, frozen=True):
    number: int
    change: RowChange
    match: tuple[Cell, ...]
    new: tuple[Cell, ...]
    find: Written | None
    written: Written

    @property
    def row(self) -> str:
        cells = [cell for cell in self.match if cell.key] or self.match or self.new
        told = ", ".join(f"{c.column.name}={'NULL' if c.text is None else c.text[:_SHOWN]}" for c in cells[:8])
        return told or "defaults"


class Batch:
    """Changes of one table, checked and put into the engine's statements. Raises InvalidInput, Unsupported."""

    def __init__(
        self,
        engine: Engine,
        table: Table,
        outs: Sequence[Out],
        changes: Sequence[RowChange],
        *,
        loose: bool = False,
        others: Sequence[Table] = (),
    ) -> None:
        self.engine, self.edits, self.lexis = engine, edits_of(engine), lexis_of(engine)
        self.table, self.loose, self._others = table, loose, others
        if not 1 <= len(changes) <= MOST:
            raise InvalidInput(f"{len(changes)} changes", hint=f"from 1 to {MOST} at once")
        if engine.facts.documents:
            table = self.table = _documents(table, changes)
            outs = [Out(name=c.name, type=c.type, native=c.native, form=Form.DOCUMENT) for c in table.columns]
        self._columns = {c.name: (c, out) for c, out in zip(table.columns, outs, strict=True)}
        self.key = key_of(table)
        self._names = tuple(self._columns)
        self._next = 1
        self.steps = tuple(self._step(number, change) for number, change in enumerate(changes, 1))

    def draft(self) -> Draft:
        """Return what it would run."""
        return Draft(
            table=f"{self.table.namespace}.{self.table.name}",
            key=self.key,
            statements=tuple(
                DraftStatement(
                    number=step.number, action=step.change.action, row=step.row, text=step.written.text,
                    params=_shown(step.written), check=step.find.text if step.find is not None else "",
                )
                for step in self.steps
            ),
            notes=tuple(self._notes()),
        )  # fmt: skip

    def _notes(self) -> Iterator[str]:
        if not self.key and any(step.match for step in self.steps):
            yield "the table has no key: rows are matched by all their values"
        unlike = {
            cell.column.name for step in self.steps for cell in step.match if not self.edits.compares(cell)
        }  # fmt: skip
        if unlike:
            yield (
                f"no `=` compares {', '.join(sorted(unlike))} exactly: compared by reading the row in the same transaction"
            )
        for name, key in self._following():
            yield f"rows of {name!r} follow by its foreign key ({', '.join(key.columns)}): they are not counted"
        if why := self.edits.lasting(self.table):
            yield f"{why}: what is done cannot be rolled back"

    def _following(self) -> Iterator[tuple[str, ForeignKey]]:
        """Yield the foreign keys by which other rows are changed or deleted along with these."""
        deleted = any(step.change.action == "delete" for step in self.steps)
        changed = {cell.column.name for step in self.steps if step.match for cell in step.new}
        for other in self._others:
            for key in other.foreign_keys:
                if (key.namespace or other.namespace, key.table) != (self.table.namespace, self.table.name):
                    continue
                if (deleted and key.on_delete in _FOLLOW) or (
                    key.on_update in _FOLLOW and changed.intersection(key.referred)
                ):
                    yield other.name, key

    # ----------------------------------------------------------------------------------------------------------------- checks

    def _step(self, number: int, change: RowChange) -> _Step:
        try:
            made = self._made(number, change)
        except InvalidInput as error:
            error.message = f"change {number}: {error.message}"
            error.args = (error.message,)
            raise
        self._next += len(made.written.params)
        return made

    def _made(self, number: int, change: RowChange) -> _Step:
        old, new = self._cells(change.old, key=True), self._cells(change.new, key=False)
        for cell in new:
            if cell.column.generated is not None:
                raise InvalidInput(f"the column {cell.column.name!r} is generated", hint="change what it is made of")
        edits, table = self.edits, self.table
        if change.action == "insert":
            if old:
                raise InvalidInput("an insert has no old values", hint="`new` alone")
            return _Step(number, change, (), new, None, edits.insert(table, new, self._next))
        if change.action == "delete" and new:
            raise InvalidInput("a delete has no new values", hint="`old` alone")
        self._enough(change)
        find = edits.find(table, old, self._names, 1)
        if change.action == "delete":
            return _Step(number, change, old, (), find, edits.delete(table, old, self._next))
        before = {cell.column.name: cell for cell in old}
        changed = tuple(cell for cell in new if not edits.alike(cell, before[cell.column.name].text))
        if not changed:
            raise InvalidInput("it changes nothing: the new values are the old ones", hint="leave it out")
        if self.engine.facts.documents and any(cell.column.name in self.key for cell in changed):
            raise InvalidInput("a document's _id does not change", hint="insert another, delete this one")
        return _Step(number, change, old, changed, find, edits.update(table, old, changed, self._next))

    def _cells(self, values: Mapping[str, Any], *, key: bool) -> tuple[Cell, ...]:
        found = []
        for name, value in values.items():
            if name not in self._columns:
                raise InvalidInput(
                    f"{self.table.name!r} has no column {name!r}", hint=f"it has {', '.join(self._names)[:500]}"
                )
            column, out = self._columns[name]
            text = str(int(value)) if isinstance(value, bool) and not self.engine.facts.documents else value
            text = str(text).lower() if isinstance(text, bool) else str(text) if isinstance(text, int) else text
            cell = Cell(column, out, text, key and name in self.key and text is not None)
            self.edits.alike(cell, "")  # a text that is no value of its form is refused here, before anything is asked
            found.append(cell)
        return tuple(sorted(found, key=lambda cell: not cell.key))

    def _enough(self, change: RowChange) -> None:
        lacking = [name for name in (self.key or self._names) if name not in change.old]
        if lacking:
            what = "of the key" if self.key else "of a table without a key"
            raise InvalidInput(
                f"no old value {what}: {', '.join(lacking)[:300]}", hint="give what was shown of the row"
            )
        blind = [name for name in change.new if name not in change.old]
        if blind:
            raise InvalidInput(f"no old value of {', '.join(blind)[:300]}", hint="give what was shown, null for NULL")
        if change.action == "update" and not change.new:
            raise InvalidInput("an update without new values", hint="give some, or leave it out")

    # -------------------------------------------------------------------------------------------------------------------- run

    def run(
        self,
        asks: Asks,
        *,
        limits: Limits = Limits(),
        tag: str = "",
        piecemeal: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Edited:
        """Do it all, or nothing. `piecemeal`: one by one where there are no transactions; what was done before an error stays then.

        Raises Conflict naming the row that is not what it was, Unsupported for several changes without transactions, QueryFailed.
        """
        return _Runner(self, asks, limits, tag, check).run(piecemeal=piecemeal)


class _Runner:
    """One batch on its way, on one session."""

    def __init__(self, batch: Batch, asks: Asks, limits: Limits, tag: str, check: Callable[[], None]) -> None:
        self.batch, self.asks, self.limits, self.tag, self.check = batch, asks, limits, tag, check
        self.edits: Edits = batch.edits
        self.notes: list[str] = []

    def run(self, *, piecemeal: bool) -> Edited:
        steps, atomic = self.batch.steps, self._begin()
        if not atomic and len(steps) > 1 and not piecemeal:
            if self.asks.transaction is not None:
                self.asks.rollback()
            raise Unsupported(
                "changing several rows at once", self._why, hint="one by one: what is done before an error stays then"
            )
        done: list[EditedRow] = []
        try:
            if not atomic:
                for step in steps:
                    self._compare(step)
            for step in steps:
                self.check()
                done.append(self._one(step, atomic=atomic))
            self.check()
            if self.asks.transaction is not None:
                self.asks.commit()
        except BaseException as error:
            with contextlib.suppress(DBLensError):  # a session that is gone rolls back by itself
                if self.asks.transaction is not None:
                    self.asks.rollback()
            if not atomic and done and isinstance(error, DBLensError):
                error.message += f" (before it {len(done)} of {len(steps)} changes were made, and stay)"
                error.args = (error.message,)
            raise
        if not atomic:
            self.notes.append(f"not in a transaction: {self._why}")
        count = {action: sum(row.action == action for row in done) for action in ("insert", "update", "delete")}
        return Edited(
            inserted=count["insert"], updated=count["update"], deleted=count["delete"], atomic=atomic,
            rows=tuple(done), notes=tuple(self.notes),
        )  # fmt: skip

    def _begin(self) -> bool:
        self._why = self.edits.lasting(self.batch.table)
        try:
            self.asks.begin(isolation=self.edits.isolation)
        except Unsupported as error:
            self._why = error.why
        return not self._why

    def _one(self, step: _Step, *, atomic: bool) -> EditedRow:
        self._compare(step)
        outs, rows, affected = self._asked(step.written, read_only=False)
        if affected != 1:
            raise Conflict(
                f"change {step.number} ({step.row}) would touch {affected} rows, not one", hint=_again(atomic=atomic)
            )
        if step.change.action == "delete":
            return EditedRow(number=step.number, action="delete")
        return self._stored(step, outs, rows, atomic=atomic)

    def _compare(self, step: _Step) -> None:
        """Read the row, lock it where the engine can, and compare it with what was shown. Raises Conflict."""
        if step.find is None:
            return
        names = [cell.column.name for cell in step.match]
        outs, rows, _ = self._asked(step.find, read_only=self.asks.transaction is None)
        if len(rows) != 1:
            how = "is not there (any more)" if not rows else "is there more than once"
            raise Conflict(f"change {step.number}: the row {step.row} {how}", hint="read it again")
        texts = self.edits.row(outs, rows[0], names)
        other = [
            f"{cell.column.name} is {_cut(text)}, was {_cut(cell.text)}"
            for cell, text in zip(step.match, texts, strict=True)
            if not self.edits.alike(cell, text)
        ]
        if other:
            what = f"change {step.number}: the row {step.row} was changed since: {'; '.join(other)[:500]}"
            raise Conflict(what, hint="read it again")

    def _stored(self, step: _Step, outs: Sequence[Out], rows: Sequence[Any], *, atomic: bool) -> EditedRow:
        """Read the row again and compare it with what was given. Raises Conflict for a value that is stored otherwise."""
        found = self._again_at(step, outs, rows)
        made = EditedRow(number=step.number, action=step.change.action, values=found or {})
        if found is None:
            return made
        other = [cell for cell in step.new if not self.edits.alike(cell, found[cell.column.name])]
        if other:
            told = "; ".join(
                f"{cell.column.name} is stored as {_cut(found[cell.column.name])}, given was {_cut(cell.text)}"
                for cell in other
            )
            if atomic and not self.batch.loose:
                raise Conflict(
                    f"change {step.number} ({step.row}): {told[:500]}",
                    hint="give a value that the column holds, or allow what the database makes of it",
                )
            self.notes.append(f"change {step.number} ({step.row}): {told}")
        return made

    def _again_at(self, step: _Step, outs: Sequence[Out], rows: Sequence[Any]) -> dict[str, str | None] | None:
        batch = self.batch
        texts = {cell.column.name: cell.text for cell in (*step.match, *step.new)}
        if rows and not batch.engine.facts.documents:
            names = [out.name for out in outs]
            texts |= dict(zip(names, self.edits.row(outs, rows[0], names), strict=True))
        lacking = [name for name in batch.key if texts.get(name) is None]
        if len(lacking) == 1 and len(batch.key) == 1 and step.change.action == "insert":
            last = self.edits.last(batch.table, batch._columns[lacking[0]][0])
            if last is not None:
                (first, *_), *_ = self._asked(Written(last, {}), read_only=False)[1] or [(None,)]
                texts[lacking[0]] = None if first is None else str(first)
        if not batch.key or any(texts.get(name) is None for name in batch.key):
            return None
        key = [Cell(*batch._columns[name], texts[name], True) for name in batch.key]
        outs, rows, _ = self._asked(
            self.edits.find(batch.table, key, batch._names, 1), read_only=self.asks.transaction is None
        )
        if len(rows) != 1:
            raise Conflict(
                f"change {step.number}: the row {step.row} is not there after it", hint="a trigger changed it"
            )
        return dict(zip(batch._names, self.edits.row(outs, rows[0], batch._names), strict=True))

    def _asked(self, written: Written, *, read_only: bool) -> tuple[tuple[Out, ...], list[Any], int | None]:
        from dblens.query import params

        text, given = params.bound(written.text, self.batch.lexis, written.params)
        with self.asks.ask(text, given, read_only=read_only, limits=self.limits, tag=self.tag) as answer:
            rows = [row for some in answer.batches() for row in some]
            touched = len(rows) if answer.affected is None and rows else answer.affected
            return answer.columns, rows, touched


# ------------------------------------------------------------------------------------------------------------------------ parts


def edits_of(engine: Engine) -> Edits:
    """Return how an engine changes rows. Raises Unsupported."""
    if engine.edits is None:
        raise Unsupported("changing rows", f"{engine.title} has no way for it")
    return engine.edits


def key_of(table: Table) -> tuple[str, ...]:
    """Return the columns that tell a row from all others: of the primary key, else of a unique key without NULL; none: there are none."""
    if table.primary_key is not None:
        return table.primary_key.columns
    nullable = {column.name for column in table.columns if column.nullable}
    uniques = [key.columns for key in table.uniques if not key.deferrable]
    uniques += [
        tuple(part.column or "" for part in index.parts)
        for index in table.indexes
        if index.unique and index.where is None and all(part.column and part.prefix is None for part in index.parts)
    ]
    return next((columns for columns in uniques if not nullable.intersection(columns)), ())


def _documents(table: Table, changes: Sequence[RowChange]) -> Table:
    """Return a collection with the fields that the changes speak of as its columns."""
    names = dict.fromkeys(["_id", *(name for each in changes for name in (*each.old, *each.new))])
    columns = tuple(Column(name=name, type=Document(), native="document", nullable=name != "_id") for name in names)
    return msgspec.structs.replace(table, columns=columns, primary_key=Key(name=None, columns=("_id",)))


def _shown(written: Written) -> dict[str, str | None]:
    return {name: _param(value) for name, value in written.params.items()}


def _param(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _cut(text: str | None) -> str:
    return "NULL" if text is None else repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _again(*, atomic: bool) -> str:
    return "nothing was done; read the row again" if atomic else "read the row again"
