"""DDL for MySQL and MariaDB: text out of schema values. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from dblens.engines.base import Build, Place
from dblens.engines.mysql import sql
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.engines.mysql.types import known_collation
from dblens.errors import Unsupported
from dblens.schema.model import Column, ForeignKey, Index, IndexPart, Key, NamedType, Partitioning, Schema, Table
from dblens.schema.types import Bits, Integer, Timestamp

__all__ = ["build", "create", "literal", "previous", "quote", "staged"]

CONTROL = "~dblens~"
"""Prefix of our control tables, which lie beside staged tables in the staging database."""
ROW_LIMIT, INDEX_LIMIT = 65_535, 3_072
_PARTITIONED = ("RANGE", "LIST", "RANGE COLUMNS", "LIST COLUMNS", "HASH", "KEY", "LINEAR HASH", "LINEAR KEY")


def _area(run: str, suffix: str = "") -> str:
    name = f"_dblens_{run}{suffix}"
    if len(name) <= sql.NAME_LIMIT:
        return name
    return f"_dblens_{hashlib.sha256(run.encode()).hexdigest()[:40]}{suffix}"


def staged(live: Place, run: str) -> Place:
    """Return where a table is built out of sight: its own name in the run's database."""
    return _area(run), live[1]


def previous(live: Place, run: str) -> Place:
    """Return where a replaced table is kept: a second database, because names of foreign keys are unique in each."""
    return _area(run, "~prev"), live[1]


def control(run: str, name: str) -> Place:
    """Return where a control table of a run lies."""
    return _area(run), CONTROL + name


def build(
    tables: Sequence[Table],
    places: Mapping[Place, Place],
    types: Sequence[NamedType] = (),  # noqa: ARG001 - MySQL has no named types
    flavour: str = "",
) -> Build:
    """Render target tables at their places: tables with keys first, secondary indexes after the load, foreign keys last."""
    before: list[str] = []
    after: list[str] = []
    foreign: list[str] = []
    for table in tables:
        place = places.get((table.namespace, table.name), (table.namespace, table.name))
        inline = _identity_index(table)
        before.append(_create_table(table, place, flavour, inline))
        adds = [_unique(key) for key in table.uniques if key is not inline]
        adds += [_index(table, index, flavour) for index in table.indexes if index is not inline]
        if adds:
            after.append(f"alter table {where_is(place)} " + ", ".join(f"add {a}" for a in adds))
        for key in table.foreign_keys:
            referred = (key.namespace or table.namespace, key.table)
            foreign.append(f"alter table {where_is(place)} add {_foreign(key, places.get(referred, referred))}")
    return Build(before=tuple(before), after=tuple(after), foreign=tuple(foreign))


def create(schema: Schema) -> list[str]:
    """Render the whole schema as CREATE statements in a runnable order."""
    flavour = "mariadb" if "mariadb" in schema.version.lower() else "mysql"
    statements = [f"create database if not exists {quote(n)} character set utf8mb4" for n in schema.namespaces]
    statements += [
        f"create sequence {where_is((s.namespace, s.name))} start with {s.next or s.start} increment by {s.increment}"
        + (" cycle" if s.cycle else "")
        for s in schema.sequences
    ]
    parts = build(schema.tables, {}, schema.types, flavour)
    statements += [*parts.before, *parts.after, *parts.foreign]
    for view in schema.views:
        statements.append(f"create view {where_is((view.namespace, view.name))} as {view.definition}")
    statements += [routine.source for routine in schema.routines]
    statements += [trigger.source for table in schema.tables for trigger in table.triggers]
    return statements


def _identity_index(table: Table) -> Key | Index | None:
    """Return the key that an AUTO_INCREMENT column outside the primary key needs from the start."""
    names = [c.name for c in table.columns if c.identity is not None]
    if not names or (table.primary_key is not None and table.primary_key.columns[0] == names[0]):
        return None
    for key in table.uniques:
        if key.columns[0] == names[0]:
            return key
    for index in table.indexes:
        if index.parts and index.parts[0].column == names[0]:
            return index
    return Index(name=f"{names[0][:55]}_auto", parts=(IndexPart(column=names[0]),))


def _create_table(table: Table, place: Place, flavour: str, inline: Key | Index | None) -> str:
    _check_row(table)
    parts = [_column(c, flavour) for c in table.columns]
    if table.primary_key is not None:
        parts.append(f"primary key ({_names(table.primary_key.columns)})")
    match inline:
        case Key():
            parts.append(_unique(inline))
        case Index():
            parts.append(_index(table, inline, flavour))
    for check in table.checks:
        name = f"constraint {quote(check.name)} " if check.name else ""
        enforced = "" if check.enforced or flavour == "mariadb" else " not enforced"
        parts.append(f"{name}check ({check.expression}){enforced}")
    engine = table.options.get("engine", "InnoDB")
    if not re.fullmatch(r"[A-Za-z0-9_]+", engine):
        raise Unsupported(f"storage engine {engine!r}", "not a name of a storage engine")
    text = (
        f"create table {where_is(place)} (\n  " + ",\n  ".join(parts) + f"\n) engine={engine} default charset=utf8mb4"
    )
    collation = table.options.get("collation")
    if collation and collation.startswith("utf8mb4"):
        text += f" collate={_word(known_collation(collation, flavour) if flavour else collation)}"
    if table.options.get("row_format", "").upper() in ("COMPRESSED", "REDUNDANT", "COMPACT"):
        text += f" row_format={table.options['row_format']}"
    if table.comment:
        text += f" comment={literal(table.comment)}"
    if (
        table.partitioning is not None
        and table.partitioning.kind in _PARTITIONED
        and not table.options.get("subpartitions")
    ):
        text += "\n" + _partitions(table.partitioning)
    return text


def _word(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise Unsupported(f"collation {name!r}", "not a name of a collation")
    return name


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names))


_LOB = ("blob", "text", "json", "geometry", "point", "linestring", "polygon", "multi", "geom")


def is_lob(native: str) -> bool:
    """Return whether a native type takes neither literal defaults nor an index over its whole length."""
    word = native.lower().lstrip()
    return any(part in word.split("(")[0].split(" ")[0] for part in _LOB)


def _column(column: Column, flavour: str) -> str:
    parts = [quote(column.name), column.native]
    if column.charset is not None and column.collation is None:
        parts.append(f"character set {_word(column.charset)}")
    if column.collation is not None and "json" not in column.native.lower():
        # The collation names its charset (ascii_bin, latin1_swedish_ci), so it stands alone.
        charset = column.collation.split("_")[0]
        parts.append(
            "binary"
            if column.collation == "binary"
            else f"character set {_word(charset)} collate {_word(column.collation)}"
        )
    if column.generated is not None:
        kind = "stored" if column.generated.stored else "virtual"
        parts.append(f"generated always as ({column.generated.expression}) {kind}")
        if flavour != "mariadb":
            parts.append("null" if column.nullable else "not null")
    else:
        parts.append("null" if column.nullable else "not null")
        if column.identity is not None and isinstance(column.type, Integer):
            parts.append("auto_increment")
        elif (default := _default(column)) is not None:
            parts.append(f"default {default}")
        if column.on_update:
            parts.append("on update " + _now(column))
    if column.invisible:
        parts.append("invisible")
    if column.comment:
        parts.append(f"comment {literal(column.comment)}")
    return " ".join(parts)


def _now(column: Column) -> str:
    precision = column.type.precision if isinstance(column.type, Timestamp) else 0
    return f"current_timestamp({precision})" if precision else "current_timestamp"


def _default(column: Column) -> str | None:
    default = column.default
    if default is None:
        # A TIMESTAMP without a default takes an implicit one on MariaDB; NULL said aloud prevents it.
        return "NULL" if column.nullable and column.native.lower().startswith("timestamp") else None
    lob = is_lob(column.native)
    match default.kind:
        case "null":
            return "NULL" if column.nullable else None
        case "literal":
            value = default.value or ""
            if isinstance(column.type, Bits) and column.native.lower().startswith("bit") and not value.strip("01"):
                return f"b'{value}'"
            return f"({literal(value)})" if lob else literal(value)
        case "now":
            return _now(column) if isinstance(column.type, Timestamp) else "(current_timestamp(6))"
        case "today":
            return "(curdate())"
        case "time":
            return "(curtime(6))"
        case "uuid":
            return "(uuid())"
        case "sequence":
            return None
        case _:
            return f"({default.native})"


def _unique(key: Key) -> str:
    name = f"{quote(key.name)} " if key.name else ""
    return f"unique key {name}({_names(key.columns)})"


def _index(table: Table, index: Index, flavour: str) -> str:
    if index.where:
        raise Unsupported(
            f"partial index {index.name!r}", "MySQL has no indexes with a WHERE", hint="leave it out in the plan"
        )
    kind = index.kind.lower()
    word = {"fulltext": "fulltext key", "spatial": "spatial key"}.get(kind, "unique key" if index.unique else "key")
    parts = ", ".join(_part(table, index, part, flavour) for part in index.parts)
    text = f"{word} {quote(index.name)} ({parts})"
    if kind == "hash":
        text += " using hash"
    if index.comment:
        text += f" comment {literal(index.comment)}"
    if not index.visible:
        text += " ignored" if flavour == "mariadb" else " invisible"
    return text


def _part(table: Table, index: Index, part: IndexPart, flavour: str) -> str:
    if part.column is None:
        if flavour == "mariadb":
            raise Unsupported(
                f"index {index.name!r} on an expression",
                "MariaDB indexes columns only",
                hint="leave it out in the plan",
            )
        text = f"({part.expression})"
    else:
        text = quote(part.column)
        if part.prefix:
            text += f"({part.prefix})"
        elif index.kind.lower() not in ("fulltext", "spatial") and is_lob(table.column(part.column).native):
            if index.unique:
                raise Unsupported(
                    f"unique index {index.name!r}",
                    f"column {part.column!r} is {table.column(part.column).native}, which has no full index",
                )
            text += f"({sql.INDEX_PREFIX})"
    return text + (" desc" if part.descending else "")


def _foreign(key: ForeignKey, referred: Place) -> str:
    name = f"constraint {quote(key.name)} " if key.name else ""
    text = f"{name}foreign key ({_names(key.columns)}) references {where_is(referred)} ({_names(key.referred)})"
    for event, action in (("delete", key.on_delete), ("update", key.on_update)):
        if action == "set default":
            raise Unsupported(f"foreign key {key.name!r}: ON {event.upper()} SET DEFAULT", "InnoDB does not know it")
        if action not in ("no action", "restrict"):
            text += f" on {event} {action}"
    return text


def _partitions(parts: Partitioning) -> str:
    text = f"partition by {parts.kind} ({parts.key})"
    if "HASH" in parts.kind or "KEY" in parts.kind:
        return f"{text} partitions {len(parts.partitions)}"
    word = "less than" if parts.kind.startswith("RANGE") else "in"
    lines = []
    for name, value in parts.partitions:
        bound = value if value == "MAXVALUE" and parts.kind == "RANGE" else f"({value})"
        lines.append(f"partition {quote(name)} values {word} {bound}")
    return f"{text} (" + ", ".join(lines) + ")"


_WIDTH = re.compile(r"^(var)?(char|binary)\s*\((\d+)\)", re.IGNORECASE)


def _check_row(table: Table) -> None:
    """Refuse a row that InnoDB cannot hold before the server does, naming the columns that make it so wide."""
    widths: dict[str, int] = {}
    for column in table.columns:
        match = _WIDTH.match(column.native)
        if match is None:
            widths[column.name] = 12 if is_lob(column.native) else 8
            continue
        octets = 1
        if match[2].lower() == "char":
            charset = (column.collation or column.charset or "utf8mb4").split("_")[0]
            octets = {"utf8mb4": 4, "utf8mb3": 3, "utf8": 3, "utf16": 4, "utf32": 4, "ucs2": 2}.get(charset, 1)
        widths[column.name] = int(match[3]) * octets + (2 if match[1] else 0)
    total = sum(widths.values())
    if total > ROW_LIMIT:
        wide = sorted(widths, key=lambda n: -widths[n])[:8]
        raise Unsupported(
            f"table {table.name!r} in MySQL", f"its columns need {total} octets a row, the limit is {ROW_LIMIT}: {', '.join(wide)}",
            hint="map the widest of these columns to longtext in the plan",
        )  # fmt: skip
    if len(table.columns) > 1017:
        raise Unsupported(f"table {table.name!r} in MySQL", f"it has {len(table.columns)} columns, InnoDB holds 1017")
    keys: list[tuple[str, Sequence[str]]] = [(k.name or "unique", k.columns) for k in table.uniques]
    if table.primary_key is not None:
        keys.append(("primary key", table.primary_key.columns))
    for name, columns in keys:
        size = sum(widths[c] for c in columns if c in widths)
        if size > INDEX_LIMIT + 2 * len(columns):
            raise Unsupported(
                f"key {name!r} of table {table.name!r} in MySQL",
                f"it needs {size} octets, the limit is {INDEX_LIMIT}: {', '.join(columns)}",
                hint="give these columns a shorter length in the plan",
            )
