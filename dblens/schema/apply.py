"""Apply changes to a schema, and reverse them: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from dblens.errors import InvalidInput
from dblens.schema import changes as c
from dblens.schema.model import Column, ForeignKey, Index, IndexPart, Key, Schema, Table

_Item = TypeVar("_Item")
replace = msgspec.structs.replace


def apply_changes(schema: Schema, changes: Iterable[c.Change]) -> Schema:
    """Return the schema as it is after the changes, ordered by namespace and name. Raises InvalidInput when a change does not fit."""
    work = _Work(schema)
    for change in changes:
        work.apply(change)
    return work.schema()


class _Work:
    """A schema taken apart by name, so that a thousand changes of a thousand tables stay cheap."""

    def __init__(self, schema: Schema) -> None:
        self.base = schema
        self.namespaces = list(schema.namespaces)
        self.extensions = dict(schema.extensions)
        self.tables = {(t.namespace, t.name): t for t in schema.tables}
        self.views = {(v.namespace, v.name): v for v in schema.views}
        self.sequences = {(s.namespace, s.name): s for s in schema.sequences}
        self.routines = {(r.namespace, r.name, r.kind, r.signature): r for r in schema.routines}
        self.types = {(t.namespace, t.name): t for t in schema.types}

    def schema(self) -> Schema:
        return replace(
            self.base,
            namespaces=tuple(sorted(self.namespaces)),
            extensions=tuple(sorted(self.extensions.items())),
            tables=_by_name(self.tables),
            views=_by_name(self.views),
            sequences=_by_name(self.sequences),
            routines=_by_name(self.routines),
            types=_by_name(self.types),
        )

    def apply(self, change: c.Change) -> None:
        match change:
            case c.AddNamespace():
                self.namespaces.append(change.name)
            case c.DropNamespace():
                self.namespaces = [n for n in self.namespaces if n != change.name]
            case c.AddExtension():
                self.extensions[change.name] = change.version
            case c.DropExtension():
                self.extensions.pop(change.name, None)
            case c.ChangeExtension():
                self.extensions[change.name] = change.after
            case c.AddType():
                _add(self.types, (change.type.namespace, change.type.name), change.type)
            case c.DropType():
                _drop(self.types, (change.type.namespace, change.type.name))
            case c.ChangeType():
                _drop(self.types, (change.before.namespace, change.before.name))
                self.types[change.after.namespace, change.after.name] = change.after
            case c.AddSequence():
                _add(self.sequences, (change.sequence.namespace, change.sequence.name), change.sequence)
            case c.DropSequence():
                _drop(self.sequences, (change.sequence.namespace, change.sequence.name))
            case c.ChangeSequence():
                _drop(self.sequences, (change.before.namespace, change.before.name))
                self.sequences[change.after.namespace, change.after.name] = change.after
            case c.AddRoutine() | c.DropRoutine() | c.ChangeRoutine():
                self._routine(change)
            case c.AddView():
                _add(self.views, (change.view.namespace, change.view.name), change.view)
            case c.DropView():
                _drop(self.views, (change.view.namespace, change.view.name))
            case c.ChangeView():
                _drop(self.views, (change.before.namespace, change.before.name))
                self.views[change.after.namespace, change.after.name] = change.after
            case c.AddTable():
                _add(self.tables, (change.table.namespace, change.table.name), change.table)
            case c.DropTable():
                _drop(self.tables, (change.table.namespace, change.table.name))
            case c.RenameTable():
                self._rename_table(change)
            case c.RenameColumn():
                self._rename_column(change)
            case _:
                place = (change.namespace, change.table)
                if place not in self.tables:
                    raise InvalidInput(f"no table {change.namespace}.{change.table} to change")
                self.tables[place] = _table(self.tables[place], change)

    def _routine(self, change: c.AddRoutine | c.DropRoutine | c.ChangeRoutine) -> None:
        if not isinstance(change, c.AddRoutine):
            old = change.routine if isinstance(change, c.DropRoutine) else change.before
            _drop(self.routines, (old.namespace, old.name, old.kind, old.signature))
        if not isinstance(change, c.DropRoutine):
            new = change.routine if isinstance(change, c.AddRoutine) else change.after
            _add(self.routines, (new.namespace, new.name, new.kind, new.signature), new)

    def _rename_table(self, change: c.RenameTable) -> None:
        old, new = (change.namespace, change.before), (change.namespace, change.after)
        table = self.tables.get(old)
        if table is None:
            raise InvalidInput(f"no table {change.namespace}.{change.before} to rename")
        _drop(self.tables, old)
        _add(self.tables, new, replace(table, name=change.after))
        self._refer(old, lambda key: replace(key, table=change.after))

    def _rename_column(self, change: c.RenameColumn) -> None:
        place = (change.namespace, change.table)
        if place not in self.tables:
            raise InvalidInput(f"no table {change.namespace}.{change.table} to change")
        self.tables[place] = _renamed(self.tables[place], change.before, change.after)
        self._refer(place, lambda key: replace(key, referred=_swap(key.referred, change.before, change.after)))

    def _refer(self, place: tuple[str, str], moved: Callable[[ForeignKey], ForeignKey]) -> None:
        """Change every foreign key that refers to a table."""
        for name, table in self.tables.items():
            keys = tuple(moved(k) if (k.namespace or name[0], k.table) == place else k for k in table.foreign_keys)
            if keys != table.foreign_keys:
                self.tables[name] = replace(table, foreign_keys=keys)


def _by_name(items: dict[Any, _Item]) -> tuple[_Item, ...]:
    return tuple(items[key] for key in sorted(items))


def _add(items: dict[Any, _Item], name: tuple[str, ...], item: _Item) -> None:
    if name in items:
        raise InvalidInput(f"{'.'.join(name[:2])} is there already")
    items[name] = item


def _drop(items: dict[Any, _Item], name: tuple[str, ...]) -> None:
    if name not in items:
        raise InvalidInput(f"{'.'.join(name[:2])} is not there")
    del items[name]


def _swap(names: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    return tuple(new if name == old else name for name in names)


def _renamed(table: Table, old: str, new: str) -> Table:
    if all(column.name != old for column in table.columns):
        raise InvalidInput(f"no column {table.namespace}.{table.name}.{old} to rename")

    def key(k: Key) -> Key:
        return replace(k, columns=_swap(k.columns, old, new))

    def index(i: Index) -> Index:
        parts: tuple[IndexPart, ...] = tuple(replace(p, column=new) if p.column == old else p for p in i.parts)
        return replace(i, parts=parts, include=_swap(i.include, old, new))

    return replace(
        table,
        columns=tuple(replace(column, name=new) if column.name == old else column for column in table.columns),
        primary_key=key(table.primary_key) if table.primary_key else None,
        uniques=tuple(key(k) for k in table.uniques),
        foreign_keys=tuple(replace(k, columns=_swap(k.columns, old, new)) for k in table.foreign_keys),
        indexes=tuple(index(i) for i in table.indexes),
    )


_InTable = (
    c.AlterTable
    | c.AddColumn
    | c.DropColumn
    | c.AlterColumn
    | c.AddKey
    | c.DropKey
    | c.AddForeignKey
    | c.DropForeignKey
    | c.AddIndex
    | c.DropIndex
    | c.AddCheck
    | c.DropCheck
    | c.AddTrigger
    | c.DropTrigger
)


def _table(table: Table, change: _InTable) -> Table:
    match change:
        case c.AlterTable():
            return replace(table, **{change.what: getattr(change.after, change.what)})
        case c.AddColumn():
            if any(column.name == change.column.name for column in table.columns):
                raise InvalidInput(f"column {table.namespace}.{table.name}.{change.column.name} is there already")
            return replace(table, columns=(*table.columns, change.column))
        case c.DropColumn():
            return replace(table, columns=_without(table, table.columns, change.column, key=lambda x: x.name))
        case c.AlterColumn():
            return replace(table, columns=tuple(_altered(x, change) for x in table.columns))
        case c.AddKey():
            if change.primary:
                return replace(table, primary_key=change.key)
            return replace(table, uniques=(*table.uniques, change.key))
        case c.DropKey():
            if change.primary:
                return replace(table, primary_key=None)
            return replace(table, uniques=_without(table, table.uniques, change.key))
        case c.AddForeignKey():
            return replace(table, foreign_keys=(*table.foreign_keys, change.key))
        case c.DropForeignKey():
            return replace(table, foreign_keys=_without(table, table.foreign_keys, change.key))
        case c.AddIndex():
            return replace(table, indexes=(*table.indexes, change.index))
        case c.DropIndex():
            return replace(table, indexes=_without(table, table.indexes, change.index))
        case c.AddCheck():
            return replace(table, checks=(*table.checks, change.check))
        case c.DropCheck():
            return replace(table, checks=_without(table, table.checks, change.check))
        case c.AddTrigger():
            return replace(table, triggers=(*table.triggers, change.trigger))
    return replace(table, triggers=_without(table, table.triggers, change.trigger))


def _without(
    table: Table, items: tuple[_Item, ...], gone: _Item, *, key: Callable[[_Item], object] = lambda item: item
) -> tuple[_Item, ...]:
    """Return the items without the first one that equals `gone`."""
    for position, item in enumerate(items):
        if key(item) == key(gone):
            return items[:position] + items[position + 1 :]
    name = getattr(gone, "name", None) or "an unnamed one"
    raise InvalidInput(f"{table.namespace}.{table.name} has no such {type(gone).__name__.lower()}: {name}")


ASPECTS: dict[c.ColumnAspect, tuple[str, ...]] = {
    "type": ("type", "native", "path"),
    "nullable": ("nullable",),
    "default": ("default", "on_update"),
    "generated": ("generated",),
    "identity": ("identity",),
    "collation": ("collation", "charset"),
    "visibility": ("invisible",),
    "comment": ("comment",),
}
"""The fields of a column that belong to each aspect."""


def _altered(column: Column, change: c.AlterColumn) -> Column:
    if column.name != change.before.name:
        return column
    return replace(column, **{field: getattr(change.after, field) for field in ASPECTS[change.what]})
