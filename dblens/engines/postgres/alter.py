"""Changes as PostgreSQL statements: pure text, to be run one by one.

Foreign keys and checks are added `NOT VALID` and validated afterwards, so that writers do not wait while rows are read. Indexes are
built plainly, because `CONCURRENTLY` cannot run in a transaction: the reason says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines.base import Build, Rendered
from dblens.engines.postgres import create, ddl
from dblens.engines.postgres.alter_objects import (
    change_rights,
    create_index,
    create_view,
    drop_view,
    named,
    needs_drop,
    render_object,
)
from dblens.schema import changes as c
from dblens.schema.apply import apply_changes, replace
from dblens.schema.model import Column, Identity, Schema, Table
from dblens.schema.order import load_order
from dblens.schema.risk import widens

_Sql = tuple[str, ...]
_Pair = tuple[_Sql, _Sql | None]


def render(changes: Sequence[c.Change], *, schema: Schema, flavour: str = "") -> list[Rendered]:
    """Render changes of `schema` in a runnable order; foreign keys of new tables and owners of new sequences come last."""
    after = apply_changes(schema, changes)
    behind = _identity_sequences(schema) | _identity_sequences(after)
    cut = _cycles(changes)
    aside, again, done = _views_aside(changes, schema, after)
    result: list[Rendered] = aside
    last: list[Rendered] = []
    for change in changes:
        if again and isinstance(change, _LATE):
            result, again = result + again, []
        match change:
            case c.ChangeView() if (change.before.namespace, change.before.name) in done:
                pass
            case c.DropView() if (change.view.namespace, change.view.name) in done:
                pass
            case c.AddSequence() | c.DropSequence() | c.ChangeSequence():
                sequence = change.before if isinstance(change, c.ChangeSequence) else change.sequence
                if (sequence.namespace, sequence.name) in behind:
                    continue  # lives and dies with its identity column
                rendered, later = render_object(change)
                result.append(rendered)
                last.extend(later)
            case c.AddTable():
                first, foreign = _add_table(change, after, flavour)
                result.append(first)
                last.extend(foreign)
            case c.DropTable():
                result.append(_of(change, ((*cut, _drop_table(change.table)), None)))
                cut = ()
            case c.AlterColumn() | c.AddColumn() | c.DropColumn() | c.AlterTable():
                result.append(_column(change, flavour))
            case c.ChangeType():
                rendered, later = render_object(change, schema)
                result.append(rendered)
                last.extend(later)
            case (
                c.AddKey()
                | c.DropKey()
                | c.AddForeignKey()
                | c.DropForeignKey()
                | c.AddIndex()
                | c.DropIndex()
                | c.AddCheck()
                | c.DropCheck()
                | c.AddTrigger()
                | c.DropTrigger()
                | c.RenameTable()
                | c.RenameColumn()
            ):
                result.append(_constraint(change, after))
            case _:
                rendered, later = render_object(change)
                result.append(rendered)
                last.extend(later)
    return result + again + last


_LATE = (
    c.ChangeView,
    c.AddView,
    c.AddTrigger,
    c.DropRoutine,
    c.DropSequence,
    c.DropType,
    c.DropExtension,
    c.DropNamespace,
)
"""Changes that come after views that were put aside are there again."""


def _cycles(changes: Sequence[c.Change]) -> _Sql:
    """Render the removal of the foreign keys of dropped tables that refer to each other in a circle."""
    dropped = {(x.table.namespace, x.table.name): x.table for x in changes if isinstance(x, c.DropTable)}
    groups = load_order(dropped.values()).cycles
    return tuple(text for group in groups if len(group) > 1 for place in group for text in _cut(dropped[place]))


def _views_aside(
    changes: Sequence[c.Change], schema: Schema, after: Schema
) -> tuple[list[Rendered], list[Rendered], set[tuple[str, str]]]:
    """Drop views that would stand in the way of changed columns and changed views, and create them again afterwards.

    Returns what comes first, what comes when the tables are changed, and the views whose own changes are done by that.
    """
    touched: set[str] = set()
    for change in changes:
        match change:
            case c.DropColumn() | c.AlterColumn():
                if isinstance(change, c.DropColumn) or change.what in ("type", "collation", "generated"):
                    touched.add(f"{change.namespace}.{change.table}")
            case c.ChangeView() if needs_drop(change.before, change.after):
                touched.add(f"{change.before.namespace}.{change.before.name}")
    found: set[str] = set()
    grown = True
    while grown:
        names = {f"{v.namespace}.{v.name}": v for v in schema.views}
        new = {n for n, v in names.items() if n in touched or not (touched | found).isdisjoint(v.depends_on)} - found
        found |= new
        grown = bool(new)
    old = [v for v in create._ordered(schema.views) if f"{v.namespace}.{v.name}" in found]
    new_views = [v for v in create._ordered(after.views) if f"{v.namespace}.{v.name}" in found]
    why = "stands in the way of a change and is created again"
    blocking = any(view.materialized for view in old)
    aside = [
        Rendered(statements=(drop_view(v),), undo=create_view(v), blocking=blocking, reason=f"{v.name} {why}")
        for v in old[::-1]
    ]
    again = [
        Rendered(
            statements=create_view(v), undo=(drop_view(v),), blocking=blocking, reason=f"{v.name} is created again"
        )
        for v in new_views
    ]
    return aside, again, {(v.namespace, v.name) for v in old}


def _of(change: c.Change, pair: _Pair, *, blocking: bool | None = None, reason: str = "") -> Rendered:
    statements, undo = pair
    return Rendered(
        statements=statements,
        undo=undo,
        destructive=change.destructive,
        blocking=change.blocking if blocking is None else blocking,
        reason=reason or change.reason,
    )


def _identity_sequences(schema: Schema) -> set[tuple[str, str]]:
    """Return the sequences that belong to identity columns, which PostgreSQL makes and drops by itself."""
    found = set()
    for table in schema.tables:
        for column in table.columns:
            identity = _identity(column)
            if identity is not None and identity.sequence:
                namespace, dot, name = identity.sequence.rpartition(".")
                found.add((namespace, name) if dot else (table.namespace, name))
    return found


def _identity(column: Column) -> Identity | None:
    """Return a column's identity; a serial column is a plain one with a default."""
    return None if column.default is not None and column.default.kind == "sequence" else column.identity


# -------------------------------------------------------------------------------------------------------------------- tables


def _add_table(change: c.AddTable, after_all: Schema, flavour: str) -> tuple[Rendered, list[Rendered]]:
    table = change.table
    place = (table.namespace, table.name)
    if table.kind == "foreign":
        return Rendered(reason="its foreign server is not part of the schema: create the foreign table by hand"), []
    build = ddl.build([table], {place: place}, (), flavour)
    if table.kind in ("partition", "partitioned"):
        # Keys, indexes and references of a partition come with its parent.
        foreign = () if table.kind == "partition" else build.foreign
        bounds = {
            (t.namespace, t.name, name): bound
            for t in after_all.tables
            if t.partitioning
            for name, bound in t.partitioning.partitions
        }
        build = Build(before=(create._table(table, bounds),), after=tuple(create._after(table)), foreign=foreign)
    after = [f"{t.source.rstrip().rstrip(';')}" for t in table.triggers]
    after += change_rights("TABLE", named(*place), owner=(None, table.owner), grants=((), table.grants))
    made = _of(change, ((*build.before, *build.after), (_drop_table(table),)))
    rest = (
        [Rendered(statements=build.foreign, undo=_cut(table), reason="foreign keys of the new table")]
        if build.foreign
        else []
    )
    if after:
        rest.append(Rendered(statements=tuple(after), undo=(), reason="triggers and grants of the new table"))
    return made, rest


def _drop_table(table: Table) -> str:
    return f"DROP {'FOREIGN ' if table.kind == 'foreign' else ''}TABLE {named(table.namespace, table.name)}"


def _cut(table: Table) -> _Sql:
    """Render the removal of a table's foreign keys."""
    place = named(table.namespace, table.name)
    return tuple(f"ALTER TABLE {place} DROP CONSTRAINT {ddl.quote(k.name)}" for k in table.foreign_keys if k.name)


def _column(change: c.AlterColumn | c.AddColumn | c.DropColumn | c.AlterTable, flavour: str) -> Rendered:
    place = named(change.namespace, change.table)
    if isinstance(change, c.AlterTable):
        return _head(change, place)
    alter = f"ALTER TABLE {place}"
    match change:
        case c.AddColumn():
            comment = _comment(place, change.column)
            pair = (
                (f"{alter} ADD COLUMN {ddl.define(change.column)}", *comment),
                (f"{alter} DROP COLUMN {ddl.quote(change.column.name)}",),
            )
            return _of(change, pair)
        case c.DropColumn():
            back: _Sql | None = None if change.destructive else (f"{alter} ADD COLUMN {ddl.define(change.column)}",)
            return _of(change, ((f"{alter} DROP COLUMN {ddl.quote(change.column.name)}",), back))
        case c.AlterColumn():
            forth = _aspect(place, change.what, change.before, change.after, flavour)
            back = None if change.destructive else _aspect(place, change.what, change.after, change.before, flavour)
            reason = change.reason
            if not forth:
                reason = f"PostgreSQL has no statement for {change.what}"
            return _of(change, (forth, back), reason=reason)


def _comment(place: str, column: Column) -> _Sql:
    return (
        (f"COMMENT ON COLUMN {place}.{ddl.quote(column.name)} IS {ddl.literal(column.comment)}",)
        if column.comment
        else ()
    )


def _aspect(place: str, what: c.ColumnAspect, before: Column, after: Column, flavour: str) -> _Sql:
    alter = f"ALTER TABLE {place}"
    column = f"{alter} ALTER COLUMN {ddl.quote(after.name)}"
    match what:
        case "type" | "collation":
            name = ddl.quote(after.name)
            collate = f" COLLATE {ddl.collation(after.collation)}" if after.collation else ""
            if what == "collation" and not collate:
                collate = ' COLLATE "default"'
            if (
                what == "type"
                and before.default is not None
                and before.default.kind != "sequence"
                and not widens(before.type, after.type)
            ):
                # A default is not converted with the values: take it away and set it anew.
                default = _aspect(place, "default", before, after, flavour)
                changed = f"{column} TYPE {after.native}{collate} USING {name}::{after.native}"
                return (f"{column} DROP DEFAULT", changed, *(() if after.default is None else default))
            using = "" if widens(before.type, after.type) else f" USING {name}::{after.native}"
            return (f"{column} TYPE {after.native}{collate}{using}",)
        case "nullable":
            return (f"{column} {'DROP' if after.nullable else 'SET'} NOT NULL",)
        case "default":
            text = ddl.default_text(after, after.default, {}) if after.default is not None else None
            return (f"{column} SET DEFAULT {text}" if text is not None else f"{column} DROP DEFAULT",)
        case "generated":
            if after.generated is None and before.generated is not None and before.generated.stored:
                return (f"{column} DROP EXPRESSION",)
            same_kind = before.generated and after.generated and before.generated.stored == after.generated.stored
            if same_kind and after.generated and flavour.isdigit() and int(flavour) >= 17:
                return (f"{column} SET EXPRESSION AS ({after.generated.expression})",)
            return (f"{alter} DROP COLUMN {ddl.quote(before.name)}", f"{alter} ADD COLUMN {ddl.define(after)}")
        case "identity":
            return _identity_change(column, _identity(before), _identity(after))
        case "comment":
            return (f"COMMENT ON COLUMN {place}.{ddl.quote(after.name)} IS {ddl.literal(after.comment)}",)
        case "visibility":
            return ()


def _identity_change(column: str, before: Identity | None, after: Identity | None) -> _Sql:
    if after is None:
        return (f"{column} DROP IDENTITY IF EXISTS",) if before is not None else ()
    if before is None:
        return (f"{column} ADD {ddl.identity_text(after)}",)
    when = "ALWAYS" if after.always else "BY DEFAULT"
    return (f"{column} SET GENERATED {when} SET START WITH {after.start} SET INCREMENT BY {after.increment}",)


def _head(change: c.AlterTable, place: str) -> Rendered:
    before, after = change.before, change.after
    forth: _Sql
    match change.what:
        case "comment":
            forth = (f"COMMENT ON TABLE {place} IS {ddl.literal(after.comment)}",)
            return _of(change, (forth, (f"COMMENT ON TABLE {place} IS {ddl.literal(before.comment)}",)))
        case "owner":
            forth = tuple(change_rights("TABLE", place, owner=(before.owner, after.owner)))
            return _of(change, (forth, tuple(change_rights("TABLE", place, owner=(after.owner, before.owner)))))
        case "grants":
            forth = tuple(change_rights("TABLE", place, grants=(before.grants, after.grants)))
            return _of(change, (forth, tuple(change_rights("TABLE", place, grants=(after.grants, before.grants)))))
        case "row_security":
            words = {True: "ENABLE", False: "DISABLE"}
            return _of(
                change,
                (
                    (f"ALTER TABLE {place} {words[after.row_security]} ROW LEVEL SECURITY",),
                    (f"ALTER TABLE {place} {words[before.row_security]} ROW LEVEL SECURITY",),
                ),
            )
        case "options":
            return _of(
                change, (_options(place, before.options, after.options), _options(place, after.options, before.options))
            )
        case "kind" | "partitioning" | "partition_of" | "inferred":
            return Rendered(
                blocking=change.blocking,
                reason=f"PostgreSQL cannot change {change.what} in place: build a new table and copy the rows",
            )


def _options(place: str, before: dict[str, str], after: dict[str, str]) -> _Sql:
    gone = ", ".join(sorted(before.keys() - after.keys()))
    new = ", ".join(f"{k} = {ddl.literal(v)}" for k, v in sorted(after.items()) if before.get(k) != v)
    return (
        *((f"ALTER TABLE {place} RESET ({gone})",) if gone else ()),
        *((f"ALTER TABLE {place} SET ({new})",) if new else ()),
    )


# --------------------------------------------------------------------------------------------------------------- constraints

_OnTable = (
    c.AddKey
    | c.DropKey
    | c.AddForeignKey
    | c.DropForeignKey
    | c.AddIndex
    | c.DropIndex
    | c.AddCheck
    | c.DropCheck
    | c.AddTrigger
    | c.DropTrigger
    | c.RenameTable
    | c.RenameColumn
)


def _constraint(change: _OnTable, after: Schema) -> Rendered:
    place = named(change.namespace, change.before if isinstance(change, c.RenameTable) else change.table)
    alter = f"ALTER TABLE {place}"
    quote = ddl.quote
    match change:
        case c.RenameTable():
            back = f"ALTER TABLE {named(change.namespace, change.after)} RENAME TO {quote(change.before)}"
            return _of(change, ((f"{alter} RENAME TO {quote(change.after)}",), (back,)))
        case c.RenameColumn():
            pair = [(change.before, change.after), (change.after, change.before)]
            forth, back = (f"{alter} RENAME COLUMN {quote(x)} TO {quote(y)}" for x, y in pair)
            return _of(change, ((forth,), (back,)))
        case c.AddKey() | c.DropKey():
            name = change.key.name
            add = (f"{alter} ADD {ddl.key_text(change.key, primary=change.primary)}",)
            return _either(change, add, (f"{alter} DROP CONSTRAINT {quote(name)}",) if name else None)
        case c.AddForeignKey() | c.DropForeignKey():
            return _foreign(change, alter, after)
        case c.AddCheck() | c.DropCheck():
            return _check(change, alter, after)
        case c.AddIndex() | c.DropIndex():
            made = create_index(change.namespace, change.table, change.index)
            if not made:
                return Rendered(reason=f"PostgreSQL has no index of kind {change.index.kind}")
            drop = (f"DROP INDEX {named(change.namespace, change.index.name)}",)
            if "exclude" in change.index.options:
                drop = (f"{alter} DROP CONSTRAINT {quote(change.index.name)}",)
            hint = "; CREATE INDEX CONCURRENTLY, outside a transaction, lets them go on"
            reason = change.reason + (hint if isinstance(change, c.AddIndex) else "")
            return _either(change, made, drop, reason=reason)
        case c.AddTrigger() | c.DropTrigger():
            add = (change.trigger.source.rstrip().rstrip(";"),)
            return _either(change, add, (f"DROP TRIGGER {quote(change.trigger.name)} ON {place}",))


def _either(
    change: c.Change, add: _Sql, drop: _Sql | None, *, blocking: bool | None = None, reason: str = ""
) -> Rendered:
    """Return an addition with its removal as undo, or the other way round."""
    if type(change).__name__.startswith("Add"):
        return _of(change, (add, drop), blocking=blocking, reason=reason)
    if drop is None:
        return Rendered(reason="the constraint has no name to drop it by")
    return _of(change, (drop, add), blocking=blocking, reason=reason)


def _plain(after: Schema, change: c.AddForeignKey | c.DropForeignKey | c.AddCheck | c.DropCheck) -> bool:
    """Return whether the table takes NOT VALID constraints (partitioned ones do not)."""
    try:
        return after.table(change.namespace, change.table).kind == "table"
    except KeyError:
        return False


def _foreign(change: c.AddForeignKey | c.DropForeignKey, alter: str, after: Schema) -> Rendered:
    key = change.key
    text = ddl.foreign_text(replace(key, validated=True), (key.namespace or change.namespace, key.table))
    return _two_steps(change, f"{alter} ADD {text}", alter, stays=not key.validated, plain=_plain(after, change))


def _check(change: c.AddCheck | c.DropCheck, alter: str, after: Schema) -> Rendered:
    check = change.check
    text = f"{alter} ADD {ddl.check_text(replace(check, validated=True))}"
    if not check.enforced:
        return _either(change, (text,), (f"{alter} DROP CONSTRAINT {ddl.quote(check.name)}",) if check.name else None)
    return _two_steps(change, text, alter, stays=not check.validated, plain=_plain(after, change))


def _two_steps(
    change: c.AddForeignKey | c.DropForeignKey | c.AddCheck | c.DropCheck,
    text: str,
    alter: str,
    *,
    stays: bool,
    plain: bool,
) -> Rendered:
    """Add a constraint without reading rows, then validate it under a lock that lets writers go on."""
    name = change.check.name if isinstance(change, (c.AddCheck, c.DropCheck)) else change.key.name
    add = [text]
    reason = change.reason
    steps = bool(name) and plain and not stays
    if stays or steps:
        add = [f"{text} NOT VALID"]
    if steps and name:
        add.append(f"{alter} VALIDATE CONSTRAINT {ddl.quote(name)}")
        if isinstance(change, (c.AddForeignKey, c.AddCheck)):
            reason = "every row is read, writers go on meanwhile; fails when a row breaks it"
    drop = (f"{alter} DROP CONSTRAINT {ddl.quote(name)}",) if name else None
    return _either(change, tuple(add), drop, blocking=change.blocking and not steps, reason=reason)
