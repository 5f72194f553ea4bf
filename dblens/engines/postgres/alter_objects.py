"""Changes of PostgreSQL objects other than tables: namespaces, extensions, types, sequences, views, routines, indexes, rights."""

from __future__ import annotations

from collections.abc import Sequence as Listed

from dblens.engines.base import Rendered
from dblens.engines.postgres import ddl
from dblens.schema import changes as c
from dblens.schema.model import Grant, Index, NamedType, Routine, Schema, Sequence, View
from dblens.schema.types import Enum

_Sql = tuple[str, ...]
_FOREIGN_KINDS = frozenset({"fulltext", "spatial", "rtree", "text", "hashed", "2d", "2dsphere", "wildcard", "ttl"})

Objects = (
    c.AddNamespace
    | c.DropNamespace
    | c.AddExtension
    | c.DropExtension
    | c.ChangeExtension
    | c.AddType
    | c.DropType
    | c.ChangeType
    | c.AddSequence
    | c.DropSequence
    | c.ChangeSequence
    | c.AddRoutine
    | c.DropRoutine
    | c.ChangeRoutine
    | c.AddView
    | c.DropView
    | c.ChangeView
)


def named(namespace: str, name: str) -> str:
    """Return a name quoted behind its namespace."""
    return f"{ddl.quote(namespace)}.{ddl.quote(name)}"


def render_object(change: Objects, schema: Schema | None = None) -> tuple[Rendered, list[Rendered]]:
    """Render one change, and what has to wait until the tables are there."""
    match change:
        case c.AddNamespace() | c.DropNamespace():
            made, gone = f"CREATE SCHEMA {ddl.quote(change.name)}", f"DROP SCHEMA {ddl.quote(change.name)}"
            forth, back = (made, gone) if isinstance(change, c.AddNamespace) else (gone, made)
            # Without CASCADE nothing that is still in it can be lost.
            return Rendered(
                statements=(forth,), undo=(back,), reason="fails unless empty" if forth == gone else change.reason
            ), []
        case c.AddExtension() | c.DropExtension():
            made, gone = (
                f"CREATE EXTENSION IF NOT EXISTS {ddl.quote(change.name)}",
                f"DROP EXTENSION {ddl.quote(change.name)}",
            )
            forth, back = (made, gone) if isinstance(change, c.AddExtension) else (gone, made)
            return _of(change, (forth,), (back,)), []
        case c.ChangeExtension():
            to = f"ALTER EXTENSION {ddl.quote(change.name)} UPDATE TO "
            return _of(change, (to + ddl.literal(change.after),), (to + ddl.literal(change.before),)), []
        case c.AddType() | c.DropType():
            made_t, gone_t = create_type(change.type), _drop_type(change.type)
            if isinstance(change, c.AddType):
                return _of(change, made_t, (gone_t,)), []
            return _of(change, (gone_t,), made_t), []
        case c.ChangeType():
            return _change_type(change, schema), []
        case c.AddSequence() | c.DropSequence():
            return _sequence(change)
        case c.ChangeSequence():
            return _of(
                change, _alter_sequence(change.before, change.after), _alter_sequence(change.after, change.before)
            ), []
        case c.AddRoutine() | c.DropRoutine() | c.ChangeRoutine():
            return _routine(change), []
        case c.AddView() | c.DropView():
            made_v, gone_v = create_view(change.view), drop_view(change.view)
            if isinstance(change, c.AddView):
                return _of(change, made_v, (gone_v,)), []
            return _of(change, (gone_v,), made_v), []
        case c.ChangeView():
            return _of(
                change, _replace_view(change.before, change.after), _replace_view(change.after, change.before)
            ), []


def _of(change: c.Change, statements: _Sql, undo: _Sql | None, reason: str = "") -> Rendered:
    return Rendered(
        statements=statements,
        undo=None if change.destructive else undo,
        destructive=change.destructive,
        blocking=change.blocking,
        reason=reason or change.reason,
    )


# -------------------------------------------------------------------------------------------------------------------- rights


def change_rights(
    kind: str,
    target: str,
    *,
    owner: tuple[str | None, str | None] = (None, None),
    grants: tuple[Listed[Grant], Listed[Grant]] = ((), ()),
) -> list[str]:
    """Render the change of owner and grants of one object, each given before and after."""
    (old_owner, new_owner), (before, after) = owner, grants
    found = [f"ALTER {kind} {target} OWNER TO {ddl.quote(new_owner)}"] if new_owner and new_owner != old_owner else []
    on = kind if kind in ("SEQUENCE", "FUNCTION", "PROCEDURE") else "TABLE"
    found += [f"REVOKE {g.privilege} ON {on} {target} FROM {_grantee(g)}" for g in before if g not in after]
    for grant in after:
        if grant not in before:
            option = " WITH GRANT OPTION" if grant.grantable else ""
            found.append(f"GRANT {grant.privilege} ON {on} {target} TO {_grantee(grant)}{option}")
    return found


def _grantee(grant: Grant) -> str:
    return "PUBLIC" if grant.grantee.upper() == "PUBLIC" else ddl.quote(grant.grantee)


# --------------------------------------------------------------------------------------------------------------------- types


def create_type(type: NamedType) -> _Sql:
    """Render the creation of a named type with its comment."""
    place = (type.namespace, type.name)
    word = "DOMAIN" if type.kind == "domain" else "TYPE"
    comment = (f"COMMENT ON {word} {named(*place)} IS {ddl.literal(type.comment)}",) if type.comment else ()
    return (ddl.type_text(type, place), *comment)


def _drop_type(type: NamedType) -> str:
    return f"DROP {'DOMAIN' if type.kind == 'domain' else 'TYPE'} {named(type.namespace, type.name)}"


def _change_type(change: c.ChangeType, schema: Schema | None) -> Rendered:
    before, after = change.before, change.after
    place = named(after.namespace, after.name)
    word = "DOMAIN" if after.kind == "domain" else "TYPE"
    tail: list[str] = []
    if before.comment != after.comment:
        tail.append(f"COMMENT ON {word} {place} IS {ddl.literal(after.comment)}")
    if after.owner and before.owner != after.owner:
        tail.append(f"ALTER {word} {place} OWNER TO {ddl.quote(after.owner)}")
    if before.kind == after.kind == "enum":
        if [v for v in after.values if v in before.values] == list(before.values):
            return _of(
                change, (*_new_values(place, before, after), *tail), None, "values that were added cannot be taken away"
            )
        return _of(change, (*_rebuild_enum(after, schema), *tail), None)
    if before.kind == after.kind == "domain" and before.base == after.base:
        return _of(change, (*_domain(place, before, after), *tail), _domain(place, after, before))
    if (before.kind, before.source, before.base) == (after.kind, after.source, after.base):
        return _of(change, tuple(tail), None)
    return Rendered(
        blocking=True, reason="the type cannot be changed in place: create another one and convert the columns"
    )


def _new_values(place: str, before: NamedType, after: NamedType) -> list[str]:
    found = []
    for position, value in enumerate(after.values):
        if value not in before.values:
            where = f"AFTER {ddl.literal(after.values[position - 1])}" if position else ""
            if not position and before.values:
                where = f"BEFORE {ddl.literal(before.values[0])}"
            found.append(f"ALTER TYPE {place} ADD VALUE {ddl.literal(value)} {where}".rstrip())
    return found


def _rebuild_enum(after: NamedType, schema: Schema | None) -> list[str]:
    """Render the exchange of an enum type: the old one aside, its columns converted through text, the old one dropped."""
    aside = f"{after.name[:50]}_dblens_old"
    place = named(after.namespace, after.name)
    found = [f"ALTER TYPE {place} RENAME TO {ddl.quote(aside)}", *create_type(after)]
    for table in schema.tables if schema else ():
        for column in table.columns:
            if isinstance(column.type, Enum) and column.type.name in (f"{after.namespace}.{after.name}", after.name):
                alter = f"ALTER TABLE {named(table.namespace, table.name)} ALTER COLUMN {ddl.quote(column.name)}"
                if column.default is not None:
                    found.append(f"{alter} DROP DEFAULT")
                found.append(f"{alter} TYPE {place} USING {ddl.quote(column.name)}::text::{place}")
                if column.default is not None:
                    found.append(f"{alter} SET DEFAULT {column.default.native}")
    return [*found, f"DROP TYPE {named(after.namespace, aside)}"]


def _domain(place: str, before: NamedType, after: NamedType) -> _Sql:
    alter = f"ALTER DOMAIN {place}"
    found = []
    if before.default != after.default:
        found.append(f"{alter} SET DEFAULT {after.default}" if after.default is not None else f"{alter} DROP DEFAULT")
    if before.nullable != after.nullable:
        found.append(f"{alter} {'DROP' if after.nullable else 'SET'} NOT NULL")
    found += [f"{alter} DROP CONSTRAINT {ddl.quote(x.name)}" for x in before.checks if x not in after.checks and x.name]
    found += [f"{alter} ADD {ddl.check_text(x)}" for x in after.checks if x not in before.checks]
    return tuple(found)


# ----------------------------------------------------------------------------------------------------------------- sequences


def _sequence(change: c.AddSequence | c.DropSequence) -> tuple[Rendered, list[Rendered]]:
    sequence = change.sequence
    place = named(sequence.namespace, sequence.name)
    if isinstance(change, c.DropSequence):
        # Owned sequences go with their column, which may be gone by now.
        return _of(change, (f"DROP SEQUENCE {'IF EXISTS ' if sequence.owned_by else ''}{place}",), None), []
    made = f"CREATE SEQUENCE {place} AS {sequence.native} {_settings(sequence)}"
    rights = change_rights("SEQUENCE", place, owner=(None, sequence.owner), grants=((), sequence.grants))
    later = [Rendered(statements=(s,), undo=(), reason="the owner of the new sequence") for s in _owned(sequence)]
    return _of(change, (made, *rights), (f"DROP SEQUENCE {place}",)), later


def _settings(sequence: Sequence) -> str:
    low = f"MINVALUE {sequence.minimum}" if sequence.minimum is not None else "NO MINVALUE"
    high = f"MAXVALUE {sequence.maximum}" if sequence.maximum is not None else "NO MAXVALUE"
    cycle = "CYCLE" if sequence.cycle else "NO CYCLE"
    return f"INCREMENT BY {sequence.increment} {low} {high} START WITH {sequence.start} {cycle}"


def _owned(sequence: Sequence) -> _Sql:
    if not sequence.owned_by:
        return ()
    table, _, column = sequence.owned_by.rpartition(".")
    table = table.removeprefix(f"{sequence.namespace}.")
    owner = f"{named(sequence.namespace, table)}.{ddl.quote(column)}"
    return (f"ALTER SEQUENCE {named(sequence.namespace, sequence.name)} OWNED BY {owner}",)


def _alter_sequence(before: Sequence, after: Sequence) -> _Sql:
    place = named(after.namespace, after.name)
    found = []
    if (before.native, _settings(before)) != (after.native, _settings(after)):
        found.append(f"ALTER SEQUENCE {place} AS {after.native} {_settings(after)}")
    if before.owned_by != after.owned_by:
        found += _owned(after) or (f"ALTER SEQUENCE {place} OWNED BY NONE",)
    return (
        *found,
        *change_rights("SEQUENCE", place, owner=(before.owner, after.owner), grants=(before.grants, after.grants)),
    )


# ---------------------------------------------------------------------------------------------------------- views and indexes


def create_view(view: View) -> _Sql:
    """Render the creation of a view with its indexes, comment and rights."""
    place = named(view.namespace, view.name)
    word = "MATERIALIZED VIEW" if view.materialized else "VIEW"
    text = view.definition.strip().rstrip(";")
    if not text.lower().startswith("create"):
        text = f"CREATE {word} {place} AS {text}"
    indexes = [s for index in view.indexes for s in create_index(view.namespace, view.name, index)]
    comment = [f"COMMENT ON {word} {place} IS {ddl.literal(view.comment)}"] if view.comment else []
    return (text, *indexes, *comment, *change_rights(word, place, owner=(None, view.owner), grants=((), view.grants)))


def drop_view(view: View) -> str:
    """Render the removal of a view."""
    return f"DROP {'MATERIALIZED ' if view.materialized else ''}VIEW {named(view.namespace, view.name)}"


def needs_drop(before: View, after: View) -> bool:
    """Return whether a changed view has to be created anew; its comment and rights alone can be changed in place."""
    fields = ("definition", "materialized", "indexes", "columns")
    return any(getattr(before, field) != getattr(after, field) for field in fields)


def _replace_view(before: View, after: View) -> _Sql:
    place = named(after.namespace, after.name)
    word = "MATERIALIZED VIEW" if after.materialized else "VIEW"
    same = (before.definition, before.materialized, before.indexes) == (
        after.definition,
        after.materialized,
        after.indexes,
    )
    if same and before.columns == after.columns:
        found = []
        if before.comment != after.comment:
            found.append(f"COMMENT ON {word} {place} IS {ddl.literal(after.comment)}")
        return (
            *found,
            *change_rights(word, place, owner=(before.owner, after.owner), grants=(before.grants, after.grants)),
        )
    return (drop_view(before), *create_view(after))


def create_index(namespace: str, table: str, index: Index) -> _Sql:
    """Render the creation of an index; nothing for a kind that PostgreSQL does not have."""
    if index.kind.lower() in _FOREIGN_KINDS or any(part.prefix for part in index.parts):
        return ()
    comment = (
        (f"COMMENT ON INDEX {named(namespace, index.name)} IS {ddl.literal(index.comment)}",) if index.comment else ()
    )
    return (ddl.index_text((namespace, table), index), *comment)


# ------------------------------------------------------------------------------------------------------------------ routines


def _routine(change: c.AddRoutine | c.DropRoutine | c.ChangeRoutine) -> Rendered:
    if isinstance(change, c.ChangeRoutine):
        return _of(change, _replace_routine(change.before, change.after), _replace_routine(change.after, change.before))
    routine = change.routine
    if isinstance(change, c.AddRoutine):
        return _of(change, _create_routine(routine), (_drop_routine(routine),))
    return _of(change, (_drop_routine(routine),), _create_routine(routine))


def _word(routine: Routine) -> str:
    return {"procedure": "PROCEDURE", "aggregate": "AGGREGATE"}.get(routine.kind, "FUNCTION")


def _target(routine: Routine) -> str:
    return f"{named(routine.namespace, routine.name)}({routine.signature.strip().removeprefix('(').removesuffix(')')})"


def _create_routine(routine: Routine) -> _Sql:
    rights = change_rights(_word(routine), _target(routine), owner=(None, routine.owner), grants=((), routine.grants))
    return (routine.source.rstrip().rstrip(";"), *rights)


def _drop_routine(routine: Routine) -> str:
    return f"DROP {_word(routine)} {_target(routine)}"


def _replace_routine(before: Routine, after: Routine) -> _Sql:
    rights = change_rights(
        _word(after), _target(after), owner=(before.owner, after.owner), grants=(before.grants, after.grants)
    )
    if before.source == after.source:
        return tuple(rights)
    if after.source.lstrip().lower().startswith("create or replace"):
        return (after.source.rstrip().rstrip(";"), *rights)
    return (_drop_routine(before), *_create_routine(after))
