"""Changes as SQLite statements: pure text, to be run one by one on one connection.

SQLite's ALTER TABLE renames, and adds and drops simple columns. Everything else is a rebuild of the table in one transaction: the old
table is put aside under another name (in legacy mode, so that views, triggers and references of other tables keep pointing at the
name and not at the table put aside), the new one created, rows copied, the old one dropped, indexes and triggers created again.
Foreign keys must be off meanwhile; `PRAGMA foreign_key_check` lists orphans at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dblens.engines.base import Rendered
from dblens.engines.sqlite import ddl
from dblens.errors import Unsupported
from dblens.schema import changes as c
from dblens.schema.apply import apply_changes
from dblens.schema.model import Column, Index, Schema, Table, View

_Sql = tuple[str, ...]
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
_ABSENT = frozenset({"comment", "owner", "grants", "row_security", "inferred", "partitioning", "partition_of"})
"""Aspects that SQLite does not have."""


def render(changes: Sequence[c.Change], *, schema: Schema, flavour: str = "") -> list[Rendered]:
    """Render changes of `schema` in a runnable order: those of one table together, where the last of them stands."""
    renames = [x for x in changes if isinstance(x, (c.RenameTable, c.RenameColumn))]
    before = apply_changes(schema, renames)  # renames come first and are statements of their own
    after = apply_changes(schema, changes)
    groups: dict[tuple[str, str], list[_InTable]] = {}
    for change in changes:
        if isinstance(change, _InTable):
            groups.setdefault((change.namespace, change.table), []).append(change)
    result: list[Rendered] = []
    for change in changes:
        if isinstance(change, _InTable):
            group = groups[change.namespace, change.table]
            if change is group[-1]:
                place = (change.namespace, change.table)
                result.extend(_group(group, before.table(*place), after.table(*place), flavour, _sources(before)))
        else:
            result.append(_single(change, flavour))
    return result


def named(namespace: str, name: str) -> str:
    """Return a name quoted behind its namespace."""
    return f"{ddl.quote(namespace)}.{ddl.quote(name)}"


def _of(change: c.Change, statements: _Sql, undo: _Sql | None, reason: str = "") -> Rendered:
    return Rendered(
        statements=statements,
        undo=None if change.destructive else undo,
        destructive=change.destructive,
        blocking=change.blocking,
        reason=reason or change.reason,
    )


def _pair(change: c.Change, add: _Sql, drop: _Sql) -> Rendered:
    return _of(change, add, drop) if type(change).__name__.startswith("Add") else _of(change, drop, add)


def _single(change: c.Change, flavour: str) -> Rendered:
    match change:
        case c.AddTable():
            return _of(
                change,
                _create(change.table, flavour),
                (f"DROP TABLE {named(change.table.namespace, change.table.name)}",),
            )
        case c.DropTable():
            return _of(change, (f"DROP TABLE {named(change.table.namespace, change.table.name)}",), None)
        case c.RenameTable():
            forth = f"ALTER TABLE {named(change.namespace, change.before)} RENAME TO {ddl.quote(change.after)}"
            back = f"ALTER TABLE {named(change.namespace, change.after)} RENAME TO {ddl.quote(change.before)}"
            return _of(change, (forth,), (back,))
        case c.RenameColumn():
            alter = f"ALTER TABLE {named(change.namespace, change.table)} RENAME COLUMN"
            old, new = ddl.quote(change.before), ddl.quote(change.after)
            return _of(change, (f"{alter} {old} TO {new}",), (f"{alter} {new} TO {old}",))
        case c.AddView() | c.DropView():
            return _pair(
                change, (_view(change.view),), (f"DROP VIEW {named(change.view.namespace, change.view.name)}",)
            )
        case c.ChangeView():
            drop = f"DROP VIEW {named(change.after.namespace, change.after.name)}"
            return _of(change, (drop, _view(change.after)), (drop, _view(change.before)))
        case c.DropNamespace() | c.AddNamespace():
            return Rendered(reason="a namespace is a file: ATTACH it")
    return Rendered(reason="SQLite has no such objects")


def _view(view: View) -> str:
    text = view.definition.strip().rstrip(";")
    return text if text.lower().startswith("create") else f"CREATE VIEW {named(view.namespace, view.name)} AS {text}"


def _create(table: Table, flavour: str) -> _Sql:
    """Render a table where it belongs, with its indexes and triggers."""
    place = (table.namespace, table.name)
    build = ddl.build([table], {place: place}, (), flavour)
    return (*build.before, *build.after, *build.foreign, *(_source(t.source) for t in table.triggers))


def _source(text: str) -> str:
    """Return a trigger's source, without the semicolon behind its END."""
    return text.rstrip().rstrip(";")


# -------------------------------------------------------------------------------------------------------- changes of a table


def _sources(schema: Schema) -> _Sql:
    """Return the sources of all views and triggers: any of them may name a column."""
    return (*(v.definition for v in schema.views), *(t.source for table in schema.tables for t in table.triggers))


def _group(group: Sequence[_InTable], before: Table, after: Table, flavour: str, sources: _Sql) -> list[Rendered]:
    absent = [x for x in group if (isinstance(x, (c.AlterTable, c.AlterColumn)) and x.what in _ABSENT | {"visibility"})]
    left = [x for x in group if x not in absent]
    result = [
        Rendered(reason=f"SQLite keeps no {x.what}") for x in absent if isinstance(x, (c.AlterTable, c.AlterColumn))
    ]
    if not left:
        return result
    if all(_simple(x, before, after, sources) for x in left):
        return result + [_direct(x, before, after) for x in left]
    destructive = any(x.destructive for x in left)
    reasons = dict.fromkeys(["the table is built again and its rows copied", *(x.reason for x in left if x.reason)])
    rebuilt = Rendered(
        statements=rebuild(before, after, flavour),
        undo=None if destructive else rebuild(after, before, flavour),
        destructive=destructive,
        blocking=True,
        reason="; ".join(reasons),
    )
    return [*result, rebuilt]


def _simple(change: _InTable, before: Table, after: Table, sources: _Sql) -> bool:
    """Return whether SQLite can make the change without a rebuild."""
    match change:
        case c.AddIndex() | c.DropIndex() | c.AddTrigger() | c.DropTrigger():
            return True
        case c.AddColumn():
            column = change.column
            constant = column.default is None or column.default.kind in ("literal", "null")
            filled = column.nullable or (column.default is not None and column.default.kind == "literal")
            plain = column.identity is None and (column.generated is None or not column.generated.stored)
            return constant and plain and (filled or column.generated is not None)
        case c.DropColumn():
            return not _used(change.column.name, before, after, sources)
    return False


def _used(name: str, before: Table, after: Table, sources: _Sql) -> bool:
    """Return whether anything may still name a column; a false alarm only costs a rebuild."""
    keys = [k.columns for k in (before.primary_key, *before.uniques) if k is not None]
    keys += [k.columns for k in before.foreign_keys]
    kept = [i for i in before.indexes if i in after.indexes]
    texts = [x.expression for x in before.checks] + list(sources)
    texts += [x.generated.expression for x in before.columns if x.generated is not None]
    texts += [text for i in kept for text in (i.where, *(p.expression for p in i.parts)) if text]
    return (
        any(name in columns for columns in keys)
        or any(part.column == name for index in kept for part in index.parts)
        or any(name.lower() in text.lower() for text in texts)
        or any(key.table == before.name and name in key.referred for key in before.foreign_keys)
    )


def _direct(change: _InTable, before: Table, after: Table) -> Rendered:
    place = named(change.namespace, change.table)
    match change:
        case c.AddColumn():
            return _of(
                change,
                (f"ALTER TABLE {place} ADD COLUMN {_define(change.column, after)}",),
                (f"ALTER TABLE {place} DROP COLUMN {ddl.quote(change.column.name)}",),
            )
        case c.DropColumn():
            forth = f"ALTER TABLE {place} DROP COLUMN {ddl.quote(change.column.name)}"
            return _of(change, (forth,), (f"ALTER TABLE {place} ADD COLUMN {_define(change.column, before)}",))
        case c.AddIndex() | c.DropIndex():
            made = _create_index(change.namespace, change.table, change.index)
            if made is None:
                return Rendered(reason=f"SQLite has no index of kind {change.index.kind}")
            return _pair(change, (made,), (f"DROP INDEX {named(change.namespace, change.index.name)}",))
        case c.AddTrigger() | c.DropTrigger():
            drop = f"DROP TRIGGER {named(change.namespace, change.trigger.name)}"
            return _pair(change, (_source(change.trigger.source),), (drop,))
    raise AssertionError(f"{type(change).__name__} of {before.name} needs a rebuild")


def _define(column: Column, table: Table) -> str:
    """Return a column as it stands in ADD COLUMN."""
    return ddl._column(column, ddl._strict(table), None, table)


def _create_index(namespace: str, table: str, index: Index) -> str | None:
    """Return the statement that creates an index, None for what only other engines have."""
    if index.include:
        return None
    try:
        return ddl.create_index((namespace, table), index)
    except Unsupported:
        return None


def rebuild(before: Table, after: Table, flavour: str = "") -> _Sql:
    """Return the statements that turn a table into another, rows included, in one transaction.

    Columns of the same name are copied; a column that is new takes its default. A NOT NULL column that is new without a default makes
    it fail, and nothing is changed.
    """
    aside = before.name + "__dblens_old"
    kept = {x.name for x in before.columns if x.generated is None}
    columns = ", ".join(ddl.quote(x.name) for x in after.columns if x.generated is None and x.name in kept)
    place = (after.namespace, after.name)
    build = ddl.build([after], {place: place}, (), flavour)
    here, old = named(*place), named(before.namespace, aside)
    copy = (f"INSERT INTO {here} ({columns}) SELECT {columns} FROM {old}",) if columns else ()
    numbers = _keep_number(after, aside) if any(map(_numbers, build.before)) and _numbered(before) else ()
    check = (f"PRAGMA {ddl.quote(after.namespace)}.foreign_key_check",) if after.foreign_keys else ()
    return (
        "PRAGMA foreign_keys=OFF",
        "PRAGMA legacy_alter_table=ON",
        "BEGIN IMMEDIATE",
        f"ALTER TABLE {named(before.namespace, before.name)} RENAME TO {ddl.quote(aside)}",
        *build.before,
        *copy,
        *numbers,
        f"DROP TABLE {old}",
        *build.after,
        *build.foreign,
        *(_source(t.source) for t in after.triggers),
        *check,
        "COMMIT",
        "PRAGMA legacy_alter_table=OFF",
        "PRAGMA foreign_keys=ON",
    )


def _numbered(table: Table) -> bool:
    return any(column.identity is not None for column in table.columns)


def _numbers(statement: str) -> bool:
    """Return whether a CREATE TABLE has AUTOINCREMENT, outside of names and texts."""
    return "AUTOINCREMENT" in re.sub(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'", "", statement).upper()


def _keep_number(table: Table, aside: str) -> _Sql:
    """Carry the last number given over: copying rows alone would hand out the numbers of deleted rows again."""
    numbers = f"{ddl.quote(table.namespace)}.sqlite_sequence"
    name = ddl.literal(table.name)
    return (
        f"DELETE FROM {numbers} WHERE name = {name}",
        f"INSERT INTO {numbers} (name, seq) SELECT {name}, seq FROM {numbers} WHERE name = {ddl.literal(aside)}",
    )
