"""PostgreSQL's DDL chapter: text out of schema values, pure.

Staged tables lie in schemas of their own, so that indexes, constraints and sequences keep their names; a swap moves tables between
schemas. Types that tables use are staged with them, and every reference to them is rewritten to where they lie meanwhile.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dblens.engines.base import Build, Place
from dblens.errors import InvalidInput
from dblens.schema.model import (
    Check,
    Column,
    Default,
    ForeignKey,
    Identity,
    Index,
    IndexPart,
    Key,
    NamedType,
    Schema,
    Table,
)
from dblens.schema.types import Bits, Date, Timestamp

NAME_LIMIT = 63
CONTROL = "_dblens"
STAGING_COMMENT = "dblens staging of "


def quote(name: str) -> str:
    """Return an identifier in double quotes. Raises InvalidInput for a name that is empty, too long or holds NUL."""
    if not name or "\0" in name:
        raise InvalidInput(f"PostgreSQL cannot name anything {name!r}", hint="rename it by a rule")
    if len(name.encode("utf-8", "surrogatepass")) > NAME_LIMIT:
        raise InvalidInput(
            f"{name!r} is longer than {NAME_LIMIT} octets and PostgreSQL would cut it", hint="rename it by a rule"
        )
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | None) -> str:
    """Return a text as a literal (standard_conforming_strings is on in every session). Raises InvalidInput for NUL."""
    if text is None:
        return "NULL"
    if "\0" in text:
        raise InvalidInput("PostgreSQL text cannot hold U+0000", hint="strip it")
    return "'" + text.replace("'", "''") + "'"


def at(place: Place) -> str:
    """Return a place as a quoted, qualified name."""
    return f"{quote(place[0])}.{quote(place[1])}"


def staging(namespace: str, run: str) -> str:
    """Return the schema in which a run stages the tables of one namespace: one a namespace, so that equal names do not meet."""
    if namespace == "public":
        return f"{CONTROL}_{run}"
    return f"{CONTROL}_{run}_{hashlib.sha256(namespace.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def staged(live: Place, run: str) -> Place:
    """Return where a table is built out of sight."""
    return staging(live[0], run), live[1]


def previous(live: Place, run: str) -> Place:
    """Return where a replaced table is kept until `finalize`."""
    return f"{staging(live[0], run)}_prev", live[1]


# ----------------------------------------------------------------------------------------------------- names inside expressions

_NAME = r'(?:"(?:[^"]|"")+"|[a-z_\x80-\U0010ffff][a-z0-9_$\x80-\U0010ffff]*)'
_QUALIFIED = re.compile(rf"('(?:[^']|'')*')|({_NAME})\.({_NAME})")


def unquote(name: str) -> str:
    """Return the plain name of an identifier as PostgreSQL prints it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def named_in(native: str) -> Place | None:
    """Return the qualified type that a native spelling names, None for a built-in one."""
    match = re.match(rf"({_NAME})\.({_NAME})", native)
    return (unquote(match[1]), unquote(match[2])) if match else None


def moved(sql: str, names: Mapping[Place, Place]) -> str:
    """Return an expression with qualified names replaced, string literals left alone."""
    if not names or "." not in sql:
        return sql

    def one(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[0]
        new = names.get((unquote(match[2]), unquote(match[3])))
        return at(new) if new else match[0]

    return _QUALIFIED.sub(one, sql)


# ------------------------------------------------------------------------------------------------------------------ columns


def collation(name: str) -> str:
    """Return a collation's name quoted, with its namespace when it has one."""
    namespace, dot, rest = name.partition(".")
    if dot and not re.match(r"[a-z]{2,3}(_[A-Z]{2})?(@|$)", namespace) and namespace != "C":
        return f"{quote(namespace)}.{quote(rest)}"
    return quote(name)


def default_text(column: Column, default: Default, names: Mapping[Place, Place]) -> str | None:
    """Return the text of a default, None when PostgreSQL has none for it (a zero date)."""
    if default.native:
        return moved(default.native, names)
    match default.kind:
        case "literal":
            value = default.value or ""
            dated = isinstance(column.type, (Date, Timestamp))
            if dated and (value.startswith("0000") or "-00" in value[:10]):
                return None
            if isinstance(column.type, Bits):
                value = value.removeprefix("b'").removesuffix("'")
            return literal(value)
        case "now":
            zoned = isinstance(column.type, Timestamp) and column.type.zone
            return "CURRENT_TIMESTAMP" if zoned else "LOCALTIMESTAMP"
        case "today":
            return "CURRENT_DATE"
        case "time":
            return "LOCALTIME"
        case "uuid":
            return "gen_random_uuid()"
    return None


def identity_text(identity: Identity) -> str:
    """Return the words of an identity column."""
    when = "ALWAYS" if identity.always else "BY DEFAULT"
    return f"GENERATED {when} AS IDENTITY (START WITH {identity.start} INCREMENT BY {identity.increment})"


def define(column: Column, names: Mapping[Place, Place] | None = None) -> str:
    """Return a column as it stands in CREATE TABLE."""
    names = names or {}
    words = [quote(column.name), moved(column.native, names)]
    if column.collation:
        words.append(f"COLLATE {collation(column.collation)}")
    if column.generated is not None:
        kind = "STORED" if column.generated.stored else "VIRTUAL"
        words.append(f"GENERATED ALWAYS AS ({moved(column.generated.expression, names)}) {kind}")
    elif column.identity is not None and not (column.default is not None and column.default.kind == "sequence"):
        words.append(identity_text(column.identity))
    elif column.default is not None:
        text = default_text(column, column.default, names)
        if text is not None:
            words.append(f"DEFAULT {text}")
    if not column.nullable:
        words.append("NOT NULL")
    return " ".join(words)


# -------------------------------------------------------------------------------------------------- keys, checks and indexes


def columns_text(columns: Iterable[str]) -> str:
    """Return a list of quoted column names."""
    return ", ".join(quote(c) for c in columns)


def _named(name: str | None) -> str:
    return f"CONSTRAINT {quote(name)} " if name else ""


def _deferral(item: Key | ForeignKey) -> str:
    if not item.deferrable:
        return ""
    return " DEFERRABLE INITIALLY DEFERRED" if item.initially_deferred else " DEFERRABLE"


def key_text(key: Key, *, primary: bool) -> str:
    """Return a key as a table constraint."""
    kind = "PRIMARY KEY" if primary else "UNIQUE" if key.nulls_distinct else "UNIQUE NULLS NOT DISTINCT"
    return f"{_named(key.name)}{kind} ({columns_text(key.columns)}){_deferral(key)}"


def foreign_text(key: ForeignKey, referred: Place) -> str:
    """Return a foreign key as a table constraint."""
    text = f"{_named(key.name)}FOREIGN KEY ({columns_text(key.columns)}) REFERENCES {at(referred)}"
    text += f" ({columns_text(key.referred)})" if key.referred else ""
    text += " MATCH FULL" if key.match.lower() == "full" else ""
    text += f" ON UPDATE {key.on_update.upper()}" if key.on_update != "no action" else ""
    text += f" ON DELETE {key.on_delete.upper()}" if key.on_delete != "no action" else ""
    text += _deferral(key)
    return text if key.validated else f"{text} NOT VALID"


def check_text(check: Check, names: Mapping[Place, Place] | None = None) -> str:
    """Return a check as a table constraint."""
    text = f"{_named(check.name)}CHECK ({moved(check.expression, names or {})})"
    if not check.enforced:
        return f"{text} NOT ENFORCED"
    return text if check.validated else f"{text} NOT VALID"


def _part(part: IndexPart, names: Mapping[Place, Place]) -> str:
    words = [quote(part.column) if part.column is not None else f"({moved(part.expression or '', names)})"]
    if part.collation:
        words.append(f"COLLATE {collation(part.collation)}")
    if part.opclass:
        words.append(part.opclass)
    if part.descending:
        words.append("DESC")
    if part.nulls_first is not None and part.nulls_first != part.descending:
        words.append("NULLS FIRST" if part.nulls_first else "NULLS LAST")
    return " ".join(words)


def index_text(place: Place, index: Index, names: Mapping[Place, Place] | None = None) -> str:
    """Return CREATE INDEX, or ADD CONSTRAINT for an exclusion constraint."""
    names = names or {}
    if "exclude" in index.options:
        return f"ALTER TABLE {at(place)} ADD CONSTRAINT {quote(index.name)} {moved(index.options['exclude'], names)}"
    parts = ", ".join(_part(p, names) for p in index.parts)
    kind = re.sub(r"[^a-z0-9_]", "", index.kind.lower()) or "btree"
    text = f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {quote(index.name)} ON {at(place)} USING {kind} ({parts})"
    if index.include:
        text += f" INCLUDE ({columns_text(index.include)})"
    if index.unique and not index.nulls_distinct:
        text += " NULLS NOT DISTINCT"
    if index.options:
        text += f" WITH ({', '.join(f'{quote(k)} = {literal(v)}' for k, v in sorted(index.options.items()))})"
    if index.where:
        text += f" WHERE {moved(index.where, names)}"
    return text


# -------------------------------------------------------------------------------------------------------------------- types


def type_text(type: NamedType, place: Place, names: Mapping[Place, Place] | None = None) -> str:
    """Return the CREATE of a named type at a place, its own references rewritten."""
    names = names or {}
    match type.kind:
        case "enum":
            return f"CREATE TYPE {at(place)} AS ENUM ({', '.join(literal(v) for v in type.values)})"
        case "domain":
            words = [f"CREATE DOMAIN {at(place)} AS {moved(type.base or 'text', names)}"]
            if type.default is not None:
                words.append(f"DEFAULT {moved(type.default, names)}")
            if not type.nullable:
                words.append("NOT NULL")
            words += [check_text(c, names) for c in type.checks]
            return " ".join(words)
    # Composite and range types carry what stands behind AS in `source`, after their own name.
    head = f"CREATE TYPE {at((type.namespace, type.name))} AS "
    return f"CREATE TYPE {at(place)} AS {moved((type.source or '').removeprefix(head), names)}"


def used_types(tables: Sequence[Table], types: Sequence[NamedType]) -> list[NamedType]:
    """Return the types that tables need, those needed by other types first."""
    known = {(t.namespace, t.name): t for t in types}
    order: list[NamedType] = []
    seen: set[Place] = set()

    def visit(native: str) -> None:
        for match in _QUALIFIED.finditer(native):
            if match[1] is not None:
                continue
            place = (unquote(match[2]), unquote(match[3]))
            found = known.get(place)
            if found is None or place in seen:
                continue
            seen.add(place)
            head = f"CREATE TYPE {at(place)} AS "
            for text in (found.base, found.default, (found.source or "").removeprefix(head)):
                visit(text or "")
            for check in found.checks:
                visit(check.expression)
            order.append(found)

    for table in tables:
        for column in table.columns:
            visit(column.native)
    return order


# -------------------------------------------------------------------------------------------------------------------- build


def build(
    tables: Sequence[Table],
    places: Mapping[Place, Place],
    types: Sequence[NamedType] = (),
    flavour: str = "",  # noqa: ARG001 - the contract's; nothing differs between supported versions here
) -> Build:
    """Render what creates target tables where `places` says. Keys, checks and indexes come after the rows, foreign keys last."""
    needed = used_types(tables, types)
    names = _type_places(needed, places)
    schemas: dict[str, str] = {}
    for live, place in [*places.items(), *names.items()]:
        if place[0] != live[0]:
            schemas[place[0]] = live[0]
    before = []
    for schema, live_schema in sorted(schemas.items()):
        before.append(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}")
        before.append(f"COMMENT ON SCHEMA {quote(schema)} IS {literal(STAGING_COMMENT + live_schema)}")
    before += [type_text(t, names[(t.namespace, t.name)], names) for t in needed]
    after: list[str] = []
    foreign: list[str] = []
    for table in tables:
        live = (table.namespace, table.name)
        place = places.get(live, live)
        before.append(table_text(_numbered(table) if place != live else table, place, names))
        after += after_text(table, place, names)
        for key in table.foreign_keys:
            referred = (key.namespace or table.namespace, key.table)
            foreign.append(f"ALTER TABLE {at(place)} ADD {foreign_text(key, places.get(referred, referred))}")
    return Build(before=tuple(before), after=tuple(after), foreign=tuple(foreign))


def _numbered(table: Table) -> Table:
    """Give serial columns an identity: a staged table must not draw from the sequence of the live one."""
    columns = tuple(
        msgspec.structs.replace(c, default=None)
        if c.identity is not None and c.default is not None and c.default.kind == "sequence"
        else c
        for c in table.columns
    )
    return msgspec.structs.replace(table, columns=columns)


def _type_places(types: Sequence[NamedType], places: Mapping[Place, Place]) -> dict[Place, Place]:
    """Return where types are staged: in the staging schema of their own namespace, of the run that `places` shows."""
    run = None
    for live, place in places.items():
        stem = f"{CONTROL}_"
        if place[0] != live[0] and place[0].startswith(stem):
            run = place[0].removeprefix(stem).partition("_")[0]
            break
    if run is None:
        return {(t.namespace, t.name): (t.namespace, t.name) for t in types}
    return {(t.namespace, t.name): staged((t.namespace, t.name), run) for t in types}


def table_text(table: Table, place: Place, names: Mapping[Place, Place] | None = None) -> str:
    """Return CREATE TABLE with columns only."""
    lines = ",\n".join(f"  {define(c, names)}" for c in table.columns)
    body = f"\n{lines}\n" if lines else ""
    options = ", ".join(f"{quote(k)} = {literal(v)}" for k, v in sorted(table.options.items()) if "." not in k)
    return f"CREATE TABLE {at(place)} ({body}){f' WITH ({options})' if options else ''}"


def after_text(table: Table, place: Place, names: Mapping[Place, Place] | None = None) -> list[str]:
    """Return what follows the rows: keys, indexes, checks, comments."""
    alter = f"ALTER TABLE {at(place)} ADD "
    out = []
    if table.primary_key:
        out.append(alter + key_text(table.primary_key, primary=True))
    out += [alter + key_text(k, primary=False) for k in table.uniques]
    out += [index_text(place, i, names) for i in table.indexes]
    out += [alter + check_text(c, names) for c in table.checks]
    if table.comment:
        out.append(f"COMMENT ON TABLE {at(place)} IS {literal(table.comment)}")
    for column in table.columns:
        if column.comment:
            out.append(f"COMMENT ON COLUMN {at(place)}.{quote(column.name)} IS {literal(column.comment)}")
    for index in table.indexes:
        if index.comment and "exclude" not in index.options:
            out.append(f"COMMENT ON INDEX {at((place[0], index.name))} IS {literal(index.comment)}")
    return out


def create(schema: Schema) -> list[str]:
    """Render the whole schema as CREATE statements in a runnable order."""
    from dblens.engines.postgres.create import create as whole

    return whole(schema)
