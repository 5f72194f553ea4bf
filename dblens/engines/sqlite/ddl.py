"""DDL for SQLite: text out of schema values. Pure.

A staged table keeps its name, because it is built in a file of its own (`files.py`); so references by name, checks that name the
table and the names of indexes are final from the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dblens.engines.base import Build, Place
from dblens.engines.sqlite import types
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Column, Default, ForeignKey, Index, Key, NamedType, Schema, Table
from dblens.schema.types import Binary, Boolean, Float, Integer, Timestamp

OWN = "_dblens_"
"""Prefix of the tables that DBLens keeps in a file of a user for the time of a run."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BARE = re.compile(
    r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[A-Za-z_]+|[xX]'[0-9a-fA-F]*'", re.DOTALL
)
_UUID4 = (
    "lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2))) || '-4' || substr(lower(hex(randomblob(2))), 2) || '-' || "
    "substr('89ab', 1 + (abs(random()) % 4), 1) || substr(lower(hex(randomblob(2))), 2) || '-' || lower(hex(randomblob(6)))"
)


def quote(name: str) -> str:
    """Return an identifier quoted, whatever it contains. Raises InvalidInput for U+0000 and lone surrogates."""
    if "\0" in name:
        raise InvalidInput(f"a name in SQLite cannot hold U+0000: {name!r}", hint="rename it by a rule")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"not a Unicode text: {name!r}", hint="rename it by a rule") from error
    return '"' + name.replace('"', '""') + '"'


def where_is(place: Place) -> str:
    """Return a table's qualified name."""
    return f"{quote(place[0])}.{quote(place[1])}"


def literal(text: str | None) -> str:
    """Return a text as a literal."""
    if text is None:
        return "NULL"
    if "\0" in text:
        return f"CAST(x'{text.encode().hex()}' AS TEXT)"
    return "'" + text.replace("'", "''") + "'"


def staged(live: Place, run: str) -> Place:  # noqa: ARG001 - the protocol's
    """Return where a table is built: under its own name, in the run's file."""
    return ("main", live[1])


def previous(live: Place, run: str) -> Place:
    """Return where a replaced table is kept: in the same file, renamed."""
    return ("main", f"{OWN}{run}_{live[1]}")


def build(
    tables: Sequence[Table],
    places: Mapping[Place, Place],
    types: Sequence[NamedType] = (),  # noqa: ARG001
    flavour: str = "",  # noqa: ARG001
) -> Build:
    """Render tables with all their constraints (SQLite adds none later), then their indexes."""
    before: list[str] = []
    after: list[str] = []
    for table in tables:
        place = places.get((table.namespace, table.name), ("main", table.name))
        before.append(create_table(table, place))
        after.extend(create_index(place, index) for index in table.indexes)
    return Build(before=tuple(before), after=tuple(after))


def create(schema: Schema) -> list[str]:
    """Render a whole schema: tables, indexes, virtual tables, views, triggers."""
    parts = build(schema.tables, {})
    statements = [*parts.before, *parts.after]
    statements += [routine.source for routine in schema.routines]
    for view in schema.views:
        text = view.definition.strip().rstrip(";")
        statements.append(text if text.lower().startswith("create") else f"CREATE VIEW {quote(view.name)} AS {text}")
    statements += [trigger.source.rstrip().rstrip(";") for table in schema.tables for trigger in table.triggers]
    return statements


def _strict(table: Table) -> bool:
    said = table.options.get("strict")
    if said is not None:
        return said == "yes"
    return all(c.native.upper() in types.STRICT_TYPES for c in table.columns)


def create_table(table: Table, place: Place) -> str:
    """Render CREATE TABLE."""
    strict = _strict(table)
    alias = _rowid_alias(table)
    parts = [_column(c, strict, table.primary_key if alias == c.name else None, table) for c in table.columns]
    if table.primary_key is not None and alias is None:
        parts.append(f"{_named(table.primary_key.name)}PRIMARY KEY ({_names(table.primary_key.columns)})")
    parts += [f"{_named(key.name)}UNIQUE ({_names(key.columns)})" for key in table.uniques]
    parts += [f"{_named(check.name)}CHECK ({check.expression})" for check in table.checks]
    parts += [_foreign(key) for key in table.foreign_keys]
    options = [
        word for word, on in (("WITHOUT ROWID", table.options.get("without_rowid") == "yes"), ("STRICT", strict)) if on
    ]
    return (
        f"CREATE TABLE {where_is(place)} (\n  "
        + ",\n  ".join(parts)
        + "\n)"
        + (" " + ", ".join(options) if options else "")
    )


def _rowid_alias(table: Table) -> str | None:
    """Return the column that is the rowid itself: a primary key of one column declared INTEGER."""
    if table.primary_key is None or len(table.primary_key.columns) != 1 or table.options.get("without_rowid") == "yes":
        return None
    name = table.primary_key.columns[0]
    found = next((c for c in table.columns if c.name == name), None)
    return name if found is not None and found.native.upper() == "INTEGER" and found.generated is None else None


def _named(name: str | None) -> str:
    return f"CONSTRAINT {quote(name)} " if name else ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names))


def _column(column: Column, strict: bool, key: Key | None, table: Table) -> str:
    native = column.native or ("ANY" if strict else "")
    words = [quote(column.name)]
    if native:
        words.append(native)
    if (
        types.parse(native) != column.type
        and (meaning := types.describe(column.type))
        and types.spell(column.type) == native.upper()
        and native.upper() in types.STRICT_TYPES
    ):
        words.append(f"/* {meaning} */")
    if key is not None:
        numbered = column.identity is not None and table.options.get("autoincrement") != "no"
        words.append(f"{_named(key.name)}PRIMARY KEY" + (" AUTOINCREMENT" if numbered else ""))
    if column.collation:
        words.append(f"COLLATE {quote(column.collation)}")
    if column.generated is not None:
        words.append(
            f"GENERATED ALWAYS AS ({column.generated.expression}) {'STORED' if column.generated.stored else 'VIRTUAL'}"
        )
    elif column.default is not None and (default := _default(column, column.default)) is not None:
        words.append(f"DEFAULT {default}")
    if not column.nullable:
        words.append("NOT NULL")
    return " ".join(words)


def _default(column: Column, default: Default) -> str | None:
    if default.native:
        return default.native if _BARE.fullmatch(default.native) else f"({default.native})"
    value = default.value or ""
    match default.kind:
        case "literal":
            if isinstance(column.type, Boolean):
                word = value.lower().strip("'\"")
                return "1" if word in ("true", "t", "1", "yes", "on", "b'1'") else "0"
            if (
                isinstance(column.type, (Integer, Float))
                and column.native.upper() != "TEXT"
                and _NUMBER.fullmatch(value)
            ):
                return value
            if isinstance(column.type, Binary):
                octets = (
                    value.removeprefix("\\x")
                    if re.fullmatch(r"\\x(?:[0-9a-fA-F]{2})*", value)
                    else value.encode().hex()
                )
                return f"x'{octets}'"
            return literal(value) if "\0" not in value else f"({literal(value)})"
        case "null":
            return "NULL"
        case "now":
            return (
                "(CURRENT_TIMESTAMP || 'Z')"
                if isinstance(column.type, Timestamp) and column.type.zone
                else "CURRENT_TIMESTAMP"
            )
        case "today":
            return "CURRENT_DATE"
        case "time":
            return "CURRENT_TIME"
        case "uuid":
            return f"({_UUID4})"
    return None


def _foreign(key: ForeignKey) -> str:
    text = f"{_named(key.name)}FOREIGN KEY ({_names(key.columns)}) REFERENCES {quote(key.table)}"
    if key.referred:
        text += f" ({_names(key.referred)})"
    for event, action in (("DELETE", key.on_delete), ("UPDATE", key.on_update)):
        if action != "no action":
            text += f" ON {event} {action.upper()}"
    if key.deferrable:
        text += f" DEFERRABLE INITIALLY {'DEFERRED' if key.initially_deferred else 'IMMEDIATE'}"
    return text


def create_index(place: Place, index: Index) -> str:
    """Render CREATE INDEX. Raises Unsupported for what only other engines have."""
    if index.kind.lower() not in ("btree", "hash") or any(part.prefix for part in index.parts):
        raise Unsupported(
            f"index {index.name!r} in SQLite",
            f"it has no {index.kind} indexes with such parts",
            hint="leave it out in the plan",
        )
    parts = []
    for part in index.parts:
        text = quote(part.column) if part.column is not None else f"({part.expression})"
        if part.collation:
            text += f" COLLATE {quote(part.collation)}"
        parts.append(f"{text} DESC" if part.descending else text)
    unique = "UNIQUE " if index.unique else ""
    where = f" WHERE {index.where}" if index.where else ""
    return f"CREATE {unique}INDEX {where_is((place[0], index.name))} ON {quote(place[1])} ({', '.join(parts)}){where}"
