"""The changes that lead from one schema to another: frozen, tagged, serialisable values.

Each says whether it loses data (`destructive`), whether it holds a long lock or rewrites (`blocking`, judged without knowing the
server; an engine's `alter` chapter judges better), and why. A change carries the objects before and after whole, so that an engine can
render it and its undo without looking anything up.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dblens.schema.model import (
    Check,
    Column,
    ForeignKey,
    Grant,
    Index,
    Key,
    NamedType,
    Partitioning,
    Routine,
    Sequence,
    Table,
    TableKind,
    Trigger,
    View,
)


class _Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="change", tag=True):
    """Common shape of every change."""

    destructive: bool = False
    blocking: bool = False
    reason: str = ""


class _OnTable(_Change, frozen=True, kw_only=True, tag=True):
    """A change to a table that stays."""

    namespace: str
    table: str


class AddNamespace(_Change, frozen=True, kw_only=True, tag=True):
    """A namespace that only the second schema has."""

    name: str


class DropNamespace(_Change, frozen=True, kw_only=True, tag=True):
    """A namespace that only the first schema has."""

    name: str


class AddExtension(_Change, frozen=True, kw_only=True, tag=True):
    """An extension that only the second schema has."""

    name: str
    version: str


class DropExtension(_Change, frozen=True, kw_only=True, tag=True):
    """An extension that only the first schema has."""

    name: str
    version: str


class ChangeExtension(_Change, frozen=True, kw_only=True, tag=True):
    """An extension of another version."""

    name: str
    before: str
    after: str


class AddType(_Change, frozen=True, kw_only=True, tag=True):
    """A named type that only the second schema has."""

    type: NamedType


class DropType(_Change, frozen=True, kw_only=True, tag=True):
    """A named type that only the first schema has."""

    type: NamedType


class ChangeType(_Change, frozen=True, kw_only=True, tag=True):
    """A named type that differs."""

    before: NamedType
    after: NamedType


class AddSequence(_Change, frozen=True, kw_only=True, tag=True):
    """A sequence that only the second schema has."""

    sequence: Sequence


class DropSequence(_Change, frozen=True, kw_only=True, tag=True):
    """A sequence that only the first schema has."""

    sequence: Sequence


class ChangeSequence(_Change, frozen=True, kw_only=True, tag=True):
    """A sequence that differs, its present value apart."""

    before: Sequence
    after: Sequence


class AddRoutine(_Change, frozen=True, kw_only=True, tag=True):
    """A routine that only the second schema has."""

    routine: Routine


class DropRoutine(_Change, frozen=True, kw_only=True, tag=True):
    """A routine that only the first schema has."""

    routine: Routine


class ChangeRoutine(_Change, frozen=True, kw_only=True, tag=True):
    """A routine that differs."""

    before: Routine
    after: Routine


class AddView(_Change, frozen=True, kw_only=True, tag=True):
    """A view that only the second schema has."""

    view: View


class DropView(_Change, frozen=True, kw_only=True, tag=True):
    """A view that only the first schema has."""

    view: View


class ChangeView(_Change, frozen=True, kw_only=True, tag=True):
    """A view that differs."""

    before: View
    after: View


class AddTable(_Change, frozen=True, kw_only=True, tag=True):
    """A table that only the second schema has, with all that belongs to it."""

    table: Table


class DropTable(_Change, frozen=True, kw_only=True, tag=True):
    """A table that only the first schema has, with all that belongs to it."""

    table: Table


class RenameTable(_Change, frozen=True, kw_only=True, tag=True):
    """A table that the caller said is the same under another name."""

    namespace: str
    before: str
    after: str


class RenameColumn(_OnTable, frozen=True, kw_only=True, tag=True):
    """A column that the caller said is the same under another name."""

    before: str
    after: str


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a table is apart from its columns and constraints."""

    kind: TableKind = "table"
    partitioning: Partitioning | None = None
    partition_of: str | None = None
    comment: str | None = None
    owner: str | None = None
    grants: tuple[Grant, ...] = ()
    options: dict[str, str] = {}
    row_security: bool = False
    inferred: bool = False


TableAspect = Literal[
    "kind", "partitioning", "partition_of", "comment", "owner", "grants", "options", "row_security", "inferred"
]


class AlterTable(_OnTable, frozen=True, kw_only=True, tag=True):
    """One aspect of a table itself that differs."""

    what: TableAspect
    before: Head
    after: Head


class AddColumn(_OnTable, frozen=True, kw_only=True, tag=True):
    """A column that only the second schema has; it is added at the end."""

    column: Column


class DropColumn(_OnTable, frozen=True, kw_only=True, tag=True):
    """A column that only the first schema has."""

    column: Column


ColumnAspect = Literal["type", "nullable", "default", "generated", "identity", "collation", "visibility", "comment"]


class AlterColumn(_OnTable, frozen=True, kw_only=True, tag=True):
    """One aspect of a column that differs; `before` and `after` are the whole column."""

    what: ColumnAspect
    before: Column
    after: Column


class AddKey(_OnTable, frozen=True, kw_only=True, tag=True):
    """A primary key or unique constraint that only the second schema has."""

    key: Key
    primary: bool = False


class DropKey(_OnTable, frozen=True, kw_only=True, tag=True):
    """A primary key or unique constraint that only the first schema has."""

    key: Key
    primary: bool = False


class AddForeignKey(_OnTable, frozen=True, kw_only=True, tag=True):
    """A foreign key that only the second schema has."""

    key: ForeignKey


class DropForeignKey(_OnTable, frozen=True, kw_only=True, tag=True):
    """A foreign key that only the first schema has."""

    key: ForeignKey


class AddIndex(_OnTable, frozen=True, kw_only=True, tag=True):
    """An index that only the second schema has."""

    index: Index


class DropIndex(_OnTable, frozen=True, kw_only=True, tag=True):
    """An index that only the first schema has."""

    index: Index


class AddCheck(_OnTable, frozen=True, kw_only=True, tag=True):
    """A check constraint that only the second schema has."""

    check: Check


class DropCheck(_OnTable, frozen=True, kw_only=True, tag=True):
    """A check constraint that only the first schema has."""

    check: Check


class AddTrigger(_OnTable, frozen=True, kw_only=True, tag=True):
    """A trigger that only the second schema has."""

    trigger: Trigger


class DropTrigger(_OnTable, frozen=True, kw_only=True, tag=True):
    """A trigger that only the first schema has."""

    trigger: Trigger


Change = (
    AddNamespace
    | DropNamespace
    | AddExtension
    | DropExtension
    | ChangeExtension
    | AddType
    | DropType
    | ChangeType
    | AddSequence
    | DropSequence
    | ChangeSequence
    | AddRoutine
    | DropRoutine
    | ChangeRoutine
    | AddView
    | DropView
    | ChangeView
    | AddTable
    | DropTable
    | RenameTable
    | RenameColumn
    | AlterTable
    | AddColumn
    | DropColumn
    | AlterColumn
    | AddKey
    | DropKey
    | AddForeignKey
    | DropForeignKey
    | AddIndex
    | DropIndex
    | AddCheck
    | DropCheck
    | AddTrigger
    | DropTrigger
)


def describe(change: Change) -> tuple[str, str]:
    """Return the object that a change concerns and what happens to it, as two short texts for people."""
    match change:
        case AddNamespace() | DropNamespace() | AddExtension() | DropExtension():
            kind = "namespace" if isinstance(change, (AddNamespace, DropNamespace)) else "extension"
            return change.name, f"{_verb(change)} {kind}"
        case ChangeExtension():
            return change.name, f"extension {change.before} → {change.after}"
        case AddType() | DropType():
            return f"{change.type.namespace}.{change.type.name}", f"{_verb(change)} {change.type.kind}"
        case AddSequence() | DropSequence():
            return f"{change.sequence.namespace}.{change.sequence.name}", f"{_verb(change)} sequence"
        case AddRoutine() | DropRoutine():
            return f"{change.routine.namespace}.{change.routine.name}", f"{_verb(change)} {change.routine.kind}"
        case AddView() | DropView():
            return f"{change.view.namespace}.{change.view.name}", f"{_verb(change)} {_view(change.view)}"
        case ChangeType() | ChangeSequence() | ChangeRoutine() | ChangeView():
            return f"{change.before.namespace}.{change.before.name}", f"change {_noun(change)}: {_differing(change)}"
        case AddTable() | DropTable():
            return f"{change.table.namespace}.{change.table.name}", f"{_verb(change)} {_table(change.table)}"
        case RenameTable():
            return f"{change.namespace}.{change.before}", f"rename to {change.after}"
    return f"{change.namespace}.{change.table}", _detail(change)


_OnATable = (
    RenameColumn
    | AlterTable
    | AddColumn
    | DropColumn
    | AlterColumn
    | AddKey
    | DropKey
    | AddForeignKey
    | DropForeignKey
    | AddIndex
    | DropIndex
    | AddCheck
    | DropCheck
    | AddTrigger
    | DropTrigger
)


def _detail(change: _OnATable) -> str:
    match change:
        case RenameColumn():
            return f"rename column {change.before} to {change.after}"
        case AlterTable():
            return f"{change.what}: {_short(change.before, change.what)} → {_short(change.after, change.what)}"
        case AddColumn() | DropColumn():
            null = "" if change.column.nullable else " not null"
            return f"{_verb(change)} column {change.column.name} {change.column.native}{null}"
        case AlterColumn():
            return f"column {change.before.name}: {_aspect(change.before, change.what)} → {_aspect(change.after, change.what)}"
        case AddKey() | DropKey():
            kind = "primary key" if change.primary else "unique key"
            return f"{_verb(change)} {kind} ({', '.join(change.key.columns)})"
        case AddForeignKey() | DropForeignKey():
            key = change.key
            return f"{_verb(change)} foreign key ({', '.join(key.columns)}) → {key.table} ({', '.join(key.referred)})"
        case AddIndex() | DropIndex():
            parts = ", ".join(part.column or f"({part.expression})" for part in change.index.parts)
            return f"{_verb(change)} {'unique ' if change.index.unique else ''}index {change.index.name} ({parts})"
        case AddCheck() | DropCheck():
            return f"{_verb(change)} check {change.check.name or ''} {change.check.expression}".replace("  ", " ")
    return f"{_verb(change)} trigger {change.trigger.name}"


def _verb(change: Change) -> str:
    return "add" if type(change).__name__.startswith("Add") else "drop"


def _noun(change: ChangeType | ChangeSequence | ChangeRoutine | ChangeView) -> str:
    return type(change).__name__.removeprefix("Change").lower()


def _view(view: View) -> str:
    return "materialised view" if view.materialized else "view"


def _table(table: Table) -> str:
    return table.kind if table.kind in ("collection", "table") else f"{table.kind} table"


def _differing(change: ChangeType | ChangeSequence | ChangeRoutine | ChangeView) -> str:
    fields = change.before.__struct_fields__
    return ", ".join(f for f in fields if getattr(change.before, f) != getattr(change.after, f)) or "meaning"


def _short(head: Head, what: TableAspect) -> str:
    value = getattr(head, what)
    match value:
        case None | "" | () | {}:
            return "none"
        case Partitioning():
            return f"{value.kind} ({value.key})"
        case dict():
            return ", ".join(f"{k}={v}" for k, v in sorted(value.items()))
        case tuple():
            return ", ".join(f"{g.privilege} to {g.grantee}" for g in value)
    return str(value)


def _aspect(column: Column, what: ColumnAspect) -> str:
    match what:
        case "type":
            return column.native
        case "nullable":
            return "null" if column.nullable else "not null"
        case "default":
            text = f"default {column.default.native}" if column.default else "no default"
            return f"{text} on update {column.on_update}" if column.on_update else text
        case "generated":
            if column.generated is None:
                return "not generated"
            return f"{'stored' if column.generated.stored else 'virtual'} as {column.generated.expression}"
        case "identity":
            if column.identity is None:
                return "not numbered"
            always = " always" if column.identity.always else ""
            return f"numbered{always} from {column.identity.start} by {column.identity.increment}"
        case "collation":
            return "/".join(t for t in (column.charset, column.collation) if t) or "default collation"
        case "visibility":
            return "invisible" if column.invisible else "visible"
    return f"comment {column.comment!r}" if column.comment else "no comment"
