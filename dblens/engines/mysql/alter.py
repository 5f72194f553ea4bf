"""Changes as MySQL and MariaDB statements: pure text, to be run one by one.

All changes of one table's columns, keys, indexes and checks share one ALTER TABLE, so that it is rewritten once and a primary key can
change under an AUTO_INCREMENT column. DDL commits by itself: a list of statements that stops half-way stays half-way.
"""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines.base import Rendered
from dblens.engines.mysql import ddl
from dblens.schema import changes as c
from dblens.schema.apply import apply_changes
from dblens.schema.model import Column, ForeignKey, Grant, Index, Schema, Table, View
from dblens.schema.model import Sequence as Numbers
from dblens.schema.order import load_order

_Sql = tuple[str, ...]
_Clause = (
    c.DropIndex
    | c.DropCheck
    | c.DropKey
    | c.DropColumn
    | c.AddColumn
    | c.AlterColumn
    | c.AddKey
    | c.AddCheck
    | c.AddIndex
)
_CLAUSES = (
    c.DropIndex,
    c.DropCheck,
    c.DropKey,
    c.DropColumn,
    c.AddColumn,
    c.AlterColumn,
    c.AddKey,
    c.AddCheck,
    c.AddIndex,
)


def render(changes: Sequence[c.Change], *, schema: Schema, flavour: str = "") -> list[Rendered]:
    """Render changes of `schema` in a runnable order: those of one table together, where the first of them stands."""
    # Renames come first and are statements of their own.
    before = apply_changes(schema, [x for x in changes if isinstance(x, (c.RenameTable, c.RenameColumn))])
    after = apply_changes(schema, changes)
    cut = _cycles(changes)
    groups: dict[tuple[str, str], list[_Clause]] = {}
    for change in changes:
        if isinstance(change, _CLAUSES):
            groups.setdefault((change.namespace, change.table), []).append(change)
    result: list[Rendered] = []
    last: list[Rendered] = []
    for change in changes:
        match change:
            case c.AddTable():
                first, foreign = _add_table(change, flavour)
                result.append(first)
                last.extend(foreign)
            case c.DropTable():
                result.append(
                    _of(change, (*cut, f"DROP TABLE {named(change.table.namespace, change.table.name)}"), None)
                )
                cut = ()
            case _ if isinstance(change, _CLAUSES):
                # New columns may need namespaces and tables made first: wait for the first change that is not a removal.
                group = groups[change.namespace, change.table]
                if change is _anchor(group):
                    result.append(_group(group, before, after, flavour))
            case _:
                result.append(_single(change, after))
    return result + last


def _cycles(changes: Sequence[c.Change]) -> _Sql:
    """Render the removal of the foreign keys of dropped tables that refer to each other in a circle."""
    dropped = {(x.table.namespace, x.table.name): x.table for x in changes if isinstance(x, c.DropTable)}
    groups = load_order(dropped.values()).cycles
    return tuple(text for group in groups if len(group) > 1 for place in group for text in _cut(dropped[place]))


def _anchor(group: Sequence[_Clause]) -> _Clause:
    """Return the change of a group that marks its place: the last, so that everything before it is done."""
    return group[-1]


def named(namespace: str, name: str) -> str:
    """Return a name quoted behind its database."""
    return f"{ddl.quote(namespace)}.{ddl.quote(name)}"


def _of(change: c.Change, statements: _Sql, undo: _Sql | None, reason: str = "") -> Rendered:
    return Rendered(
        statements=statements,
        undo=None if change.destructive else undo,
        destructive=change.destructive,
        blocking=change.blocking,
        reason=reason or change.reason,
    )


def _add_table(change: c.AddTable, flavour: str) -> tuple[Rendered, list[Rendered]]:
    table = change.table
    place = (table.namespace, table.name)
    build = ddl.build([table], {place: place}, (), flavour)
    made = _of(change, (*build.before, *build.after), (f"DROP TABLE {named(*place)}",))
    rest = (
        [Rendered(statements=build.foreign, undo=_cut(table), reason="foreign keys of the new table")]
        if build.foreign
        else []
    )
    more = (
        *(trigger.source.rstrip().rstrip(";") for trigger in table.triggers),
        *_grants(named(*place), (), table.grants),
    )
    if more:
        rest.append(Rendered(statements=more, undo=(), reason="triggers and grants of the new table"))
    return made, rest


def _cut(table: Table) -> _Sql:
    place = named(table.namespace, table.name)
    return tuple(f"ALTER TABLE {place} DROP FOREIGN KEY {ddl.quote(k.name)}" for k in table.foreign_keys if k.name)


# -------------------------------------------------------------------------------------------------- one ALTER TABLE per table


def _group(group: Sequence[_Clause], before: Schema, after: Schema, flavour: str) -> Rendered:
    forth: list[str] = []
    back: list[str] | None = []
    refused: list[str] = []
    seen: set[str] = set()
    for change in group:
        if isinstance(change, c.AlterColumn):
            # MODIFY states the whole column: once is enough, with everything that the schema holds afterwards.
            if change.before.name in seen:
                continue
            seen.add(change.before.name)
            now = after.table(change.namespace, change.table).column(change.before.name)
            forth.append(_modify(change.before, now, flavour))
            undo: str | None = _modify(now, change.before, flavour)
        else:
            side = after if isinstance(change, c.AddIndex) else before
            add, drop = _clause(change, side.table(change.namespace, change.table), flavour)
            if add is None:
                refused.append(
                    f"no index of kind {change.index.kind}" if isinstance(change, c.AddIndex) else "has no name"
                )
                continue
            undo = drop if type(change).__name__.startswith("Add") else add
            text = add if type(change).__name__.startswith("Add") else drop
            if text is None:
                refused.append("an unnamed constraint cannot be dropped")
                continue
            forth.append(text)
        if undo is None:
            back = None
        elif back is not None:
            back.insert(0, undo)
    destructive = any(change.destructive for change in group)
    place = named(group[0].namespace, group[0].table)
    reasons = list(dict.fromkeys([change.reason for change in group if change.reason] + refused))
    return Rendered(
        statements=(f"ALTER TABLE {place} {', '.join(forth)}",) if forth else (),
        undo=None if destructive or back is None else (f"ALTER TABLE {place} {', '.join(back)}",) if back else (),
        destructive=destructive,
        blocking=any(change.blocking for change in group)
        or any(isinstance(x, (c.DropKey,)) and x.primary for x in group),
        reason="; ".join(reasons),
    )


def _modify(before: Column, after: Column, flavour: str) -> str:
    """Return the clause that changes a column; a virtual one is computed anew, because it cannot be modified into anything else."""
    virtual = [x.generated is not None and not x.generated.stored for x in (before, after)]
    if any(virtual) and before.generated != after.generated:
        return f"DROP COLUMN {ddl.quote(before.name)}, ADD COLUMN {ddl._column(after, flavour)}"
    return f"MODIFY COLUMN {ddl._column(after, flavour)}"


def _clause(change: _Clause, table: Table, flavour: str) -> tuple[str | None, str | None]:
    """Return how the object is added and how it is dropped."""
    quote = ddl.quote
    match change:
        case c.AddColumn() | c.DropColumn():
            return f"ADD COLUMN {ddl._column(change.column, flavour)}", f"DROP COLUMN {quote(change.column.name)}"
        case c.AddKey() | c.DropKey():
            if change.primary:
                return f"ADD PRIMARY KEY ({_columns(change.key.columns)})", "DROP PRIMARY KEY"
            name = change.key.name
            return f"ADD {ddl._unique(change.key)}", f"DROP INDEX {quote(name)}" if name else None
        case c.AddCheck() | c.DropCheck():
            enforced = "" if change.check.enforced or flavour == "mariadb" else " NOT ENFORCED"
            add = f"ADD {_constraint(change.check.name)}CHECK ({change.check.expression}){enforced}"
            word = "CONSTRAINT" if flavour == "mariadb" else "CHECK"
            return add, f"DROP {word} {quote(change.check.name)}" if change.check.name else None
        case c.AddIndex() | c.DropIndex():
            return _index(table, change.index, flavour), f"DROP INDEX {quote(change.index.name)}"
        case c.AlterColumn():
            return _modify(change.before, change.after, flavour), _modify(change.after, change.before, flavour)


def _columns(names: Sequence[str]) -> str:
    return ", ".join(ddl.quote(name) for name in names)


def _constraint(name: str | None) -> str:
    return f"CONSTRAINT {ddl.quote(name)} " if name else ""


_KINDS = ("btree", "hash", "fulltext", "spatial", "rtree")


def _index(table: Table, index: Index, flavour: str) -> str | None:
    """Return the clause that adds an index, None for what only other engines have."""
    expressions = flavour == "mariadb" and any(part.column is None for part in index.parts)
    if index.kind.lower() not in _KINDS or index.where or index.include or expressions:
        return None
    return f"ADD {ddl._index(table, index, flavour)}"


# ------------------------------------------------------------------------------------------------------------ single changes


def _single(change: c.Change, after: Schema) -> Rendered:
    quote = ddl.quote
    match change:
        case c.AddForeignKey() | c.DropForeignKey():
            return _foreign(change)
        case c.AddTrigger() | c.DropTrigger():
            source = (change.trigger.source.rstrip().rstrip(";"),)
            return _pair(change, source, (f"DROP TRIGGER {named(change.namespace, change.trigger.name)}",))
        case c.AlterTable():
            return _head(change)
        case c.RenameTable():
            old, new = named(change.namespace, change.before), named(change.namespace, change.after)
            return _of(change, (f"RENAME TABLE {old} TO {new}",), (f"RENAME TABLE {new} TO {old}",))
        case c.RenameColumn():
            alter = f"ALTER TABLE {named(change.namespace, change.table)} RENAME COLUMN"
            old, new = quote(change.before), quote(change.after)
            return _of(change, (f"{alter} {old} TO {new}",), (f"{alter} {new} TO {old}",))
        case c.AddNamespace():
            return _of(change, (f"CREATE DATABASE {quote(change.name)}",), (f"DROP DATABASE {quote(change.name)}",))
        case c.DropNamespace():
            return _of(change, (f"DROP DATABASE {quote(change.name)}",), None)
        case c.AddView() | c.DropView():
            return _pair(change, _view(change.view), (f"DROP VIEW {named(change.view.namespace, change.view.name)}",))
        case c.ChangeView():
            return _of(change, _view(change.after, replace=True), _view(change.before, replace=True))
        case c.AddSequence() | c.DropSequence():
            made = (
                f"CREATE SEQUENCE {named(change.sequence.namespace, change.sequence.name)} {_settings(change.sequence)}",
            )
            return _pair(change, made, (f"DROP SEQUENCE {named(change.sequence.namespace, change.sequence.name)}",))
        case c.ChangeSequence():
            alter = f"ALTER SEQUENCE {named(change.after.namespace, change.after.name)}"
            return _of(change, (f"{alter} {_settings(change.after)}",), (f"{alter} {_settings(change.before)}",))
        case c.AddRoutine() | c.DropRoutine():
            routine = change.routine
            drop = f"DROP {routine.kind.upper()} {named(routine.namespace, routine.name)}"
            return _pair(change, (routine.source.rstrip().rstrip(";"),), (drop,))
        case c.ChangeRoutine():
            drop = f"DROP {change.before.kind.upper()} {named(change.before.namespace, change.before.name)}"
            old, new = (r.source.rstrip().rstrip(";") for r in (change.before, change.after))
            return _of(change, (drop, new), (drop, old), "dropped and created again, not in one transaction")
    return Rendered(reason=f"{type(change).__name__}: {after.engine} has no such objects")


def _pair(change: c.Change, add: _Sql, drop: _Sql) -> Rendered:
    return _of(change, add, drop) if type(change).__name__.startswith("Add") else _of(change, drop, add)


def _foreign(change: c.AddForeignKey | c.DropForeignKey) -> Rendered:
    key: ForeignKey = change.key
    alter = f"ALTER TABLE {named(change.namespace, change.table)}"
    text = f"{alter} ADD {ddl._foreign(key, (key.namespace or change.namespace, key.table))}"
    if isinstance(change, c.AddForeignKey):
        reason = f"{change.reason}; it cannot be deferred here" if key.deferrable else change.reason
        return _of(change, (text,), (f"{alter} DROP FOREIGN KEY {ddl.quote(key.name)}",) if key.name else None, reason)
    if not key.name:
        return Rendered(reason="an unnamed foreign key cannot be dropped")
    return _of(change, (f"{alter} DROP FOREIGN KEY {ddl.quote(key.name)}",), (text,))


def _head(change: c.AlterTable) -> Rendered:
    place = named(change.namespace, change.table)
    before, after = change.before, change.after
    match change.what:
        case "comment":
            texts = [f"ALTER TABLE {place} COMMENT = {ddl.literal(x.comment or '')}" for x in (after, before)]
            return _of(change, (texts[0],), (texts[1],))
        case "grants":
            return _of(change, _grants(place, before.grants, after.grants), _grants(place, after.grants, before.grants))
        case "options":
            return _of(
                change, _options(place, before.options, after.options), _options(place, after.options, before.options)
            )
    return Rendered(
        blocking=change.blocking,
        reason=f"{change.what} cannot be changed in place: build a new table and copy the rows",
    )


_OPTIONS = {
    "engine": "ENGINE",
    "row_format": "ROW_FORMAT",
    "charset": "DEFAULT CHARACTER SET",
    "collation": "DEFAULT COLLATE",
    "key_block_size": "KEY_BLOCK_SIZE",
}


def _options(place: str, before: dict[str, str], after: dict[str, str]) -> _Sql:
    """Render table options that are known and given afterwards; one that is only gone keeps its value."""
    words = [
        f"{_OPTIONS[name.lower()]} = {_word(value)}"
        for name, value in sorted(after.items())
        if before.get(name) != value and name.lower() in _OPTIONS
    ]
    return (f"ALTER TABLE {place} {', '.join(words)}",) if words else ()


def _word(value: str) -> str:
    return value if value.replace("_", "").isalnum() else ddl.literal(value)


def _grants(place: str, before: Sequence[Grant], after: Sequence[Grant]) -> _Sql:
    gone = [f"REVOKE {g.privilege} ON {place} FROM {_grantee(g)}" for g in before if g not in after]
    new = [
        f"GRANT {g.privilege} ON {place} TO {_grantee(g)}{' WITH GRANT OPTION' if g.grantable else ''}"
        for g in after
        if g not in before
    ]
    return (*gone, *new)


def _grantee(grant: Grant) -> str:
    """Return a grantee as user@host; information_schema gives it quoted already."""
    if grant.grantee.startswith("'"):
        return grant.grantee
    user, at, host = grant.grantee.rpartition("@")
    return f"{ddl.literal(user)}@{ddl.literal(host)}" if at else ddl.literal(grant.grantee)


def _view(view: View, *, replace: bool = False) -> _Sql:
    text = view.definition.strip().rstrip(";")
    if text.lower().startswith("create"):
        drop = (f"DROP VIEW {named(view.namespace, view.name)}",)
        return (*(drop if replace and not text.lower().startswith("create or replace") else ()), text)
    return (f"CREATE {'OR REPLACE ' if replace else ''}VIEW {named(view.namespace, view.name)} AS {text}",)


def _settings(sequence: Numbers) -> str:
    words = [f"START WITH {sequence.start} INCREMENT BY {sequence.increment}"]
    words.append(f"MINVALUE {sequence.minimum}" if sequence.minimum is not None else "NO MINVALUE")
    words.append(f"MAXVALUE {sequence.maximum}" if sequence.maximum is not None else "NO MAXVALUE")
    words.append("CYCLE" if sequence.cycle else "NOCYCLE")
    return " ".join(words)
