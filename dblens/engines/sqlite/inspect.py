"""Reads a file's schema: one query an object kind over all tables, and the CREATE texts for what PRAGMAs do not tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dblens.engines.sqlite import sqlparse, types
from dblens.engines.sqlite.ddl import OWN, quote
from dblens.engines.sqlite.driver import Db
from dblens.schema.model import (
    Action,
    Check,
    Column,
    Default,
    ForeignKey,
    Generated,
    Identity,
    Index,
    IndexPart,
    Key,
    Routine,
    Schema,
    Table,
    TableRef,
    Trigger,
    View,
)
from dblens.schema.types import Boolean, DataType, Text

_ACTIONS: dict[str, Action] = {
    "NO ACTION": "no action",
    "RESTRICT": "restrict",
    "CASCADE": "cascade",
    "SET NULL": "set null",
    "SET DEFAULT": "set default",
}
_BOOLEAN_CHECK = re.compile(r'("(?:[^"]|"")+") in \(0,1\)', re.DOTALL)
_LENGTH_CHECK = re.compile(r'length\(("(?:[^"]|"")+")\) <= (\d+)', re.DOTALL)
_GREATEST = (1 << 63) - 1
SIZED = 64 * 1024 * 1024
"""Files up to so many octets get sizes a table: dbstat reads every page."""
Rows = list[tuple[Any, ...]]


def _mine(name: str) -> bool:
    return name.lower().startswith(OWN)


def _system(name: str) -> bool:
    return name.lower().startswith("sqlite_")


class _Catalog:
    """The answers to all queries, by table."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.objects: Rows = db.rows("SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name")
        self.kinds = {
            name: (kind, wr, strict)
            for name, kind, wr, strict in db.rows(
                "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main'"
            )
        }
        self.columns = self._by(
            'SELECT m.name, x.name, x.type, x."notnull", x.dflt_value, x.pk, x.hidden FROM main.sqlite_schema m '
            "JOIN pragma_table_xinfo(m.name, 'main') x WHERE m.type IN ('table', 'view') ORDER BY m.name, x.cid"
        )
        self.indexes = self._by(
            'SELECT m.name, x.name, x."unique", x.origin, x.partial FROM main.sqlite_schema m '
            "JOIN pragma_index_list(m.name, 'main') x WHERE m.type = 'table' ORDER BY m.name, x.seq DESC"
        )
        self.parts = self._by(
            "SELECT l.name, x.cid, x.name, x.\"desc\", x.coll FROM main.sqlite_schema m JOIN pragma_index_list(m.name, 'main') l "
            "JOIN pragma_index_xinfo(l.name, 'main') x WHERE m.type = 'table' AND x.key = 1 ORDER BY l.name, x.seqno"
        )
        self.foreign = self._by(
            'SELECT m.name, x.id, x.seq, x."table", x."from", x."to", x.on_update, x.on_delete FROM main.sqlite_schema m '
            "JOIN pragma_foreign_key_list(m.name, 'main') x WHERE m.type = 'table' ORDER BY m.name, x.id DESC, x.seq"
        )
        names = {name for _, name, _, _ in self.objects}
        self.sequences: dict[str, int] = {}
        if "sqlite_sequence" in names:
            self.sequences = {
                n: int(s or 0) for n, s in db.rows("SELECT name, seq FROM main.sqlite_sequence") if n is not None
            }
        self.statistics: dict[str, int] = {}
        if "sqlite_stat1" in names:
            for name, stat in db.rows("SELECT tbl, stat FROM main.sqlite_stat1 WHERE stat IS NOT NULL"):
                first = str(stat).split(" ")[0]
                if first.isdigit():
                    self.statistics[name] = max(self.statistics.get(name, 0), int(first))
        self.sizes = self._sizes()
        self.sources = {(kind, name): sql for kind, name, _, sql in self.objects}
        self.definitions: dict[str, sqlparse.Definition] = {}

    def _by(self, query: str) -> Mapping[str, Rows]:
        found: dict[str, Rows] = defaultdict(list)
        for name, *rest in self.db.rows(query):
            found[name].append(tuple(rest))
        return found

    def _sizes(self) -> dict[str, int]:
        size = int(self.db.one("PRAGMA main.page_count") or 0) * int(self.db.one("PRAGMA main.page_size") or 0)
        known = self.db.one("SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'")
        if not known or size > SIZED:
            return {}
        tables = {name: owner for kind, name, owner, _ in self.objects if kind in ("table", "index")}
        sizes: dict[str, int] = defaultdict(int)
        for name, octets in self.db.rows(
            "SELECT name, sum(pgsize) FROM dbstat('main') WHERE aggregate = TRUE GROUP BY name"
        ):
            sizes[tables.get(name, name)] += int(octets or 0)
        return sizes

    def kind(self, name: str) -> str:
        """Return table, virtual or shadow."""
        return str(self.kinds.get(name, ("table", 0, 0))[0])

    def tables(self) -> list[str]:
        return [
            name
            for kind, name, _, _ in self.objects
            if kind == "table" and not _mine(name) and not _system(name) and self.kind(name) == "table"
        ]

    def definition(self, name: str) -> sqlparse.Definition:
        if name not in self.definitions:
            self.definitions[name] = sqlparse.read_table(self.sources.get(("table", name)) or "")
        return self.definitions[name]

    def primary(self, name: str) -> list[str]:
        """Return a table's primary key columns in order."""
        found = sorted((pk, column) for column, _, _, _, pk, _ in self.columns.get(name, ()) if pk)
        return [column for _, column in found]

    def estimate(self, name: str) -> int | None:
        """Return about how many rows a table has: by its statistics, else by its greatest rowid."""
        if name in self.statistics:
            return self.statistics[name]
        last = self.last_rowid(name)
        return None if last is None else max(0, last)

    def last_rowid(self, name: str) -> int | None:
        """Return the greatest rowid, 0 for an empty table, None where there is none to read."""
        if self.kinds.get(name, ("table", 0, 0))[1]:
            return None
        taken = {column.lower() for column, *_ in self.columns.get(name, ())}
        alias = next((a for a in ("_rowid_", "rowid", "oid") if a not in taken), None)
        return None if alias is None else int(self.db.one(f"SELECT max({alias}) FROM main.{quote(name)}") or 0)


def list_tables(db: Db) -> list[TableRef]:
    """Return tables, views and virtual tables without their columns."""
    refs = []
    statistics: dict[str, int] = {}
    if db.one("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'"):
        for name, stat in db.rows("SELECT tbl, stat FROM main.sqlite_stat1 WHERE stat IS NOT NULL"):
            statistics[name] = max(statistics.get(name, 0), int(str(stat).split(" ")[0] or 0))
    for name, kind in db.rows(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow' ORDER BY name"
    ):
        if not _mine(name) and not _system(name):
            refs.append(TableRef(namespace="main", name=name, kind=kind, rows_estimate=statistics.get(name)))
    return refs


def inspect(db: Db, version: str, database: str, *, columns_of_ours: bool = False) -> Schema:
    """Read the whole schema of a file."""
    catalog = _Catalog(db)
    names = catalog.tables()
    if columns_of_ours:
        names += [name for kind, name, _, _ in catalog.objects if kind == "table" and _mine(name)]
    return Schema(
        engine="sqlite",
        version=version,
        database=database,
        namespaces=("main",),
        tables=tuple(_table(catalog, name) for name in sorted(names)),
        views=tuple(
            View(
                namespace="main",
                name=name,
                definition=sqlparse.view_definition(sql),
                columns=tuple(_view_column(*row) for row in catalog.columns.get(name, ())),
            )
            for kind, name, _, sql in catalog.objects
            if kind == "view"
        ),
        routines=tuple(
            Routine(namespace="main", name=name, kind="virtual table", source=sql or "")
            for kind, name, _, sql in catalog.objects
            if kind == "table" and catalog.kind(name) == "virtual"
        )
        + tuple(
            Routine(namespace="main", name=name, kind="trigger on a view", source=sql)
            for kind, name, owner, sql in catalog.objects
            if kind == "trigger" and ("view", owner) in catalog.sources
        ),
    )


def _view_column(name: str, native: str, *_: object) -> Column:
    return Column(name=name, type=types.parse(native or ""), native=native or "")


def _table(catalog: _Catalog, name: str) -> Table:
    _, without_rowid, strict = catalog.kinds.get(name, ("table", 0, 0))
    definition = catalog.definition(name)
    primary = catalog.primary(name)
    columns = _columns(catalog, name, definition, primary, bool(without_rowid))
    options = {"strict": "yes" if strict else "no"}
    if without_rowid:
        options["without_rowid"] = "yes"
    if any(c.identity for c in columns) and not definition.autoincrement:
        options["autoincrement"] = "no"
    uniques, indexes = _indexes(catalog, name, definition)
    return Table(
        namespace="main",
        name=name,
        columns=columns,
        primary_key=Key(name=definition.primary_name, columns=tuple(primary)) if primary else None,
        uniques=uniques,
        foreign_keys=_foreign(catalog, name, definition),
        indexes=indexes,
        checks=tuple(Check(name=n, expression=e) for n, e in definition.checks),
        triggers=tuple(
            _trigger(n, sql) for kind, n, owner, sql in catalog.objects if kind == "trigger" and owner == name
        ),
        rows_estimate=catalog.estimate(name),
        bytes=catalog.sizes.get(name),
        options=options,
    )


def _trigger(name: str, sql: str) -> Trigger:
    timing, events = sqlparse.trigger_head(sql)
    return Trigger(name=name, timing=timing, events=events, source=sql)


def _columns(
    catalog: _Catalog, name: str, definition: sqlparse.Definition, primary: list[str], without_rowid: bool
) -> tuple[Column, ...]:
    found = []
    checked = _checked(definition)
    for column, declared, notnull, default, pk, hidden in catalog.columns.get(name, ()):
        said = definition.columns.get(column.lower())
        native = _bare(declared or "") if hidden in (2, 3) else declared or ""
        alias = (
            bool(pk)
            and len(primary) == 1
            and native.upper() == "INTEGER"
            and not without_rowid
            and _is_alias(catalog, name)
        )
        identity = None
        if alias:
            last = max(catalog.last_rowid(name) or 0, catalog.sequences.get(name, 0) if definition.autoincrement else 0)
            # Beyond the greatest rowid SQLite looks for a free number at random: nothing to foretell.
            identity = Identity(
                next=last + 1 if last < _GREATEST else None,
                sequence="sqlite_sequence" if definition.autoincrement else None,
            )
        found.append(
            Column(
                name=column,
                type=_meaning(native, said, checked.get(column)),
                native=native,
                nullable=not (notnull or alias or (pk and (without_rowid or catalog.kinds.get(name, ("", 0, 0))[2]))),
                default=_default(default),
                generated=Generated(expression=said.generated, stored=hidden == 3)
                if said and said.generated is not None
                else None,
                identity=identity,
                collation=said.collation if said else None,
                invisible=hidden == 1,
            )
        )
    return tuple(found)


def _bare(native: str) -> str:
    """Return a computed column's type without the words that PRAGMA table_xinfo leaves in it."""
    return re.sub(r"\s*\bGENERATED\s+ALWAYS$", "", native, flags=re.IGNORECASE)


def _is_alias(catalog: _Catalog, name: str) -> bool:
    """Tell whether a primary key is the rowid: then it has no index of its own (`INTEGER PRIMARY KEY DESC` has one and is none)."""
    return not any(origin == "pk" for _, _, origin, _ in catalog.indexes.get(name, ()))


def _checked(definition: sqlparse.Definition) -> dict[str, DataType]:
    """Return the meanings that our own check constraints tell, by column."""
    found: dict[str, DataType] = {}
    for _, expression in definition.checks:
        if match := _BOOLEAN_CHECK.fullmatch(expression):
            found[match[1][1:-1].replace('""', '"')] = Boolean()
        elif match := _LENGTH_CHECK.fullmatch(expression):
            found[match[1][1:-1].replace('""', '"')] = Text(int(match[2]))
    return found


def _meaning(native: str, said: sqlparse.Column | None, checked: DataType | None) -> DataType:
    """Return a column's meaning: by our comment beside it, by our check on it, else by its declared type."""
    if said is not None and said.meaning and native.upper() in types.STRICT_TYPES:
        meant = types.parse(said.meaning)
        if types.describe(meant) == said.meaning and types.spell(meant) == native.upper():
            return meant
    if checked is not None and types.spell(checked) == native.upper():
        return checked
    return types.parse(native)


def _default(text: str | None) -> Default | None:
    if text is None:
        return None
    word = text.strip()
    match word.upper():
        case "NULL":
            return Default(native=text, kind="null")
        case "CURRENT_TIMESTAMP" | "(CURRENT_TIMESTAMP)" | "CURRENT_TIMESTAMP || 'Z'":
            return Default(native=text, kind="now")
        case "CURRENT_DATE":
            return Default(native=text, kind="today")
        case "CURRENT_TIME":
            return Default(native=text, kind="time")
        case "TRUE" | "FALSE":
            return Default(native=text, kind="literal", value="1" if word.upper() == "TRUE" else "0")
    if re.fullmatch(r"[+-]?\s*(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", word, re.ASCII):
        return Default(native=text, kind="literal", value=word)
    if re.fullmatch(r"'(?:[^']|'')*'", word, re.DOTALL):
        return Default(native=text, kind="literal", value=word[1:-1].replace("''", "'"))
    if re.fullmatch(r'"(?:[^"]|"")*"', word, re.DOTALL):
        return Default(native=text, kind="literal", value=word[1:-1].replace('""', '"'))
    return Default(native=text)


def _indexes(
    catalog: _Catalog, name: str, definition: sqlparse.Definition
) -> tuple[tuple[Key, ...], tuple[Index, ...]]:
    uniques, indexes = [], []
    named = dict[tuple[str, ...], list[str | None]]()
    for constraint, columns in definition.uniques:
        named.setdefault(columns, []).append(constraint)
    collations = {c.lower(): (said.collation or "BINARY").upper() for c, said in definition.columns.items()}
    for index, unique, origin, _ in catalog.indexes.get(name, ()):
        parts = catalog.parts.get(index, [])
        if origin == "u":
            columns = tuple(str(column) for _, column, _, _ in parts)
            waiting = named.get(tuple(c.lower() for c in columns), [])
            uniques.append(Key(name=waiting.pop(0) if waiting else None, columns=columns))
        elif origin == "c":
            sql = catalog.sources.get(("index", index)) or ""
            texts, where = sqlparse.index_parts(sql) if sql else ([], None)
            indexes.append(
                Index(
                    name=index,
                    parts=tuple(
                        IndexPart(
                            column=column,
                            expression=texts[i] if column is None and i < len(texts) else None,
                            descending=bool(descending),
                            collation=_collation(collation, collations.get((column or "").lower(), "BINARY")),
                        )
                        for i, (_, column, descending, collation) in enumerate(parts)
                    ),
                    unique=bool(unique),
                    where=where,
                    definition=sql,
                )
            )
    return tuple(uniques), tuple(sorted(indexes, key=lambda i: i.name))


def _collation(given: str | None, own: str) -> str | None:
    """Return an index part's collation where it is not its column's own."""
    return None if given is None or given.upper() == own else given


def _foreign(catalog: _Catalog, name: str, definition: sqlparse.Definition) -> tuple[ForeignKey, ...]:
    groups: dict[int, Rows] = {}
    for number, *rest in catalog.foreign.get(name, ()):
        groups.setdefault(number, []).append(tuple(rest))
    keys = []
    # PRAGMA foreign_key_list numbers keys from the last one back; the query has turned them round.
    for group, said in zip(groups.values(), definition.references + [sqlparse.Reference()] * len(groups), strict=False):
        _, table, _, _, on_update, on_delete = group[0]
        referred = tuple(to for _, _, _, to, _, _ in group if to is not None) or tuple(_primary_of(catalog, table))
        keys.append(
            ForeignKey(
                name=said.name,
                columns=tuple(column for _, _, column, _, _, _ in group),
                table=_spelled(catalog, table),
                referred=referred,
                on_delete=_ACTIONS.get(on_delete, "no action"),
                on_update=_ACTIONS.get(on_update, "no action"),
                deferrable=said.deferrable,
                initially_deferred=said.initially_deferred,
            )
        )
    return tuple(keys)


def _spelled(catalog: _Catalog, table: str) -> str:
    """Return a referred table's own name: references may differ from it in case."""
    if ("table", table) in catalog.sources:
        return table
    return next((n for kind, n in catalog.sources if kind == "table" and n.lower() == table.lower()), table)


def _primary_of(catalog: _Catalog, table: str) -> list[str]:
    return catalog.primary(_spelled(catalog, table))
