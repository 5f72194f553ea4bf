"""Reading a schema: the catalog's rows put together as a `Schema`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence as Listed
from typing import Any

from dblens.engines.postgres import inspect_sql as sql
from dblens.engines.postgres.ddl import at, quote, unquote
from dblens.engines.postgres.link import Link
from dblens.engines.postgres.types import parse
from dblens.errors import NotFound
from dblens.schema.model import (
    Action,
    Check,
    Column,
    Default,
    ForeignKey,
    Generated,
    Grant,
    Identity,
    Index,
    IndexPart,
    Key,
    NamedType,
    Partitioning,
    Routine,
    Schema,
    Sequence,
    Table,
    TableKind,
    TableRef,
    Trigger,
    View,
)
from dblens.schema.types import Array, DataType, Enum, Opaque

Row = tuple[Any, ...]
_ACTIONS: dict[str, Action] = {
    "a": "no action",
    "r": "restrict",
    "c": "cascade",
    "n": "set null",
    "d": "set default",
}
_PAGE = 8192


def namespaces(link: Link) -> list[str]:
    """Return the namespaces without system ones and DBLens' own."""
    return [n for (n,) in link.rows(sql.NAMESPACES)]


def list_tables(link: Link, namespace: str) -> list[TableRef]:
    """Return tables and views of a namespace without their columns."""
    return [
        TableRef(namespace=namespace, name=name, kind=kind, rows_estimate=rows, comment=comment)
        for name, kind, rows, comment in link.rows(sql.LISTING, [namespace])
    ]


def inspect(link: Link, wanted: tuple[str, ...]) -> Schema:
    """Read the schema of the wanted namespaces (none: all but system ones and DBLens' own)."""
    if link.in_transaction:
        return _inspect(link, wanted)
    # One snapshot for all queries: a table that appears in between must not have columns and no name.
    with link.transaction("reading the schema"):
        link.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return _inspect(link, wanted)


def _inspect(link: Link, wanted: tuple[str, ...]) -> Schema:
    if wanted:
        known = {
            n for (n,) in link.rows("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY($1)", [list(wanted)])
        }
        lacking = [n for n in wanted if n not in known]
        if lacking:
            raise NotFound(f"{link.database!r} has no namespace {lacking[0]!r}", hint="names are case-sensitive")
    names = sorted(set(wanted)) if wanted else namespaces(link)
    return _Reading(link, names).schema()


class _Reading:
    def __init__(self, link: Link, names: list[str]) -> None:
        self.link = link
        self.names = names
        self.types: list[NamedType] = []
        self.meanings: dict[int, DataType] = {}
        self.owned: dict[tuple[int, int], Sequence] = {}
        self.indexes: dict[int, list[Index]] = {}

    def ask(self, text: str, *more: object) -> list[Row]:
        return self.link.rows(text, [self.names, *more], what="reading the schema")

    def schema(self) -> Schema:
        """Ask for every kind of object and put the answers together."""
        self._types()
        sequences = self._sequences()
        tables = self._tables(sequences)
        return Schema(
            engine="postgresql",
            version=str(self.link.version),
            database=str(self.link.database),
            namespaces=tuple(self.names),
            tables=tuple(tables),
            views=tuple(self._views()),
            sequences=tuple(sequences[oid] for oid in sequences),
            routines=tuple(self._routines()),
            types=tuple(self.types),
            extensions=tuple((n, v) for n, v in self.link.rows(sql.EXTENSIONS)),
        )

    # ---- types

    def _types(self) -> None:
        for row in self.ask(sql.TYPES):
            oid, namespace, name, kind, labels, base, nullable, default, owner, comment, checks, fields, subtype = row
            place = (namespace, name)
            source = None
            if kind == "c":
                source = f"CREATE TYPE {at(place)} AS ({', '.join(fields or [])})"
            elif kind == "r":
                source = f"CREATE TYPE {at(place)} AS RANGE ({subtype})"
            self.types.append(
                NamedType(
                    namespace=namespace,
                    name=name,
                    kind={"e": "enum", "d": "domain", "c": "composite", "r": "range"}[kind],  # type: ignore[arg-type]
                    values=tuple(labels or ()),
                    base=base,
                    nullable=nullable,
                    default=default,
                    checks=tuple(
                        Check(name=n, expression=_inner(e), validated=v == "true") for n, e, v in checks or ()
                    ),
                    source=source,
                    owner=owner,
                    comment=comment,
                )
            )
            if kind == "e":
                self.meanings[oid] = Enum(tuple(labels), f"{namespace}.{name}")
            elif kind == "d":
                self.meanings[oid] = parse(base)

    def _meaning(self, native: str, kind: str, oid: int) -> DataType:
        """Return a column type's meaning; a domain means what its base means."""
        found = self.meanings.get(oid)
        if found is not None:
            return found
        if kind in ("c", "r", "m"):
            return Opaque(native)
        meaning = parse(native)
        if isinstance(meaning, Array) and isinstance(meaning.item, Opaque):
            for type in self.types:
                if type.kind == "enum" and native == f"{_shown(type.namespace)}.{_shown(type.name)}[]":
                    return Array(Enum(type.values, f"{type.namespace}.{type.name}"))
        return meaning

    # ---- sequences

    def _sequences(self) -> dict[int, Sequence]:
        rows = self.ask(sql.SEQUENCES)
        unused = [r for r in rows if r[8] is None and r[18]]
        present = self._present(unused)
        out: dict[int, Sequence] = {}
        for row in rows:
            oid, namespace, name, start, increment, low, high, cycle, last = row[:9]
            native, owner, grants, dep, table_oid, position, tn, tc, ta = row[9:18]
            following = _next(last, increment, low, high, cycle=cycle) if last is not None else present.get(oid, start)
            sequence = Sequence(
                namespace=namespace,
                name=name,
                start=start,
                increment=increment,
                minimum=low,
                maximum=high,
                cycle=cycle,
                next=following,
                owned_by=f"{tc}.{ta}" if dep and tn == namespace else f"{tn}.{tc}.{ta}" if dep else None,
                native=native,
                owner=owner,
                grants=_grants(grants),
            )
            out[oid] = sequence
            if dep:
                self.owned[(table_oid, position)] = sequence
        return out

    def _present(self, rows: Listed[Row]) -> dict[int, int]:
        """Read sequences that were never used: setval(…, false) leaves its value only in the sequence itself."""
        found: dict[int, int] = {}
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            text = " UNION ALL ".join(f"SELECT {r[0]}::bigint, last_value FROM {at((r[1], r[2]))}" for r in part)
            found.update((oid, value) for oid, value in self.link.rows(text, what="reading sequences"))
        return found

    # ---- tables

    def _columns(self, kinds: list[str], sequences: dict[int, Sequence]) -> dict[int, list[Column]]:
        feeds: dict[tuple[int, str], int] = {}
        users: dict[int, int] = defaultdict(int)
        for table, column, sequence in self.ask(sql.FEEDS):
            feeds[(table, column)] = sequence
            users[sequence] += 1
        columns: dict[int, list[Column]] = defaultdict(list)
        for row in self.ask(sql.COLUMNS, kinds):
            table, name, native, required, expression, generated, identity, collation, comment, kind, oid, position = (
                row
            )
            default, numbered = None, None
            computed = None
            if generated:
                computed = Generated(expression=expression or "", stored=generated == "s")
            elif identity:
                numbered = _identity(self.owned.get((table, position)), always=identity == "a")
            elif expression is not None:
                default = _default(expression)
                fed = feeds.get((table, name))
                if fed is not None and default.kind == "sequence" and fed in sequences:
                    sequence = sequences[fed]
                    default = Default(native=expression, kind="sequence", value=f"{sequence.namespace}.{sequence.name}")
                    if users[fed] == 1:
                        numbered = _identity(sequence, always=False)
            columns[table].append(
                Column(
                    name=name,
                    type=self._meaning(native, kind, oid),
                    native=native,
                    nullable=not required,
                    default=default,
                    generated=computed,
                    identity=numbered,
                    collation=collation,
                    comment=comment,
                )
            )
        return columns

    def _tables(self, sequences: dict[int, Sequence]) -> list[Table]:
        columns = self._columns(["r", "p", "f"], sequences)
        constraints = self._constraints()
        self.indexes = indexes = self._indexes()
        triggers = self._triggers()
        rows = self.ask(sql.TABLES)
        bounds: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in rows:
            if row[13]:
                bounds[row[13]].append(
                    (f"{row[1]}.{row[2]}" if row[13].partition(".")[0] != row[1] else row[2], row[12])
                )
        return [self._table(row, columns, constraints, indexes, triggers, bounds) for row in rows]

    def _table(
        self,
        row: Row,
        columns: dict[int, list[Column]],
        constraints: dict[int, dict[str, list[Any]]],
        indexes: dict[int, list[Index]],
        triggers: dict[int, list[Trigger]],
        bounds: dict[str, list[tuple[str, str]]],
    ) -> Table:
        oid, namespace, name, relkind, is_partition, owner, grants, tuples, pages, options, secured, comment = row[:12]
        parent, key, toast = row[13:16]
        kind: TableKind = "partition" if is_partition else {"p": "partitioned", "f": "foreign"}.get(relkind, "table")  # type: ignore[assignment]
        mine = constraints.get(oid, {})
        partitioning = None
        if relkind == "p" and key:
            method, _, columns_text = key.partition(" ")
            partitioning = Partitioning(
                kind=method.lower(),
                key=columns_text.strip()[1:-1],
                partitions=tuple(bounds.get(f"{namespace}.{name}", ())),
            )
        settings = dict(o.split("=", 1) for o in options or ())
        primary = mine.get("p")
        return Table(
            namespace=namespace,
            name=name,
            kind=kind,
            columns=tuple(columns.get(oid, ())),
            primary_key=primary[0] if primary else None,
            uniques=tuple(mine.get("u", ())),
            foreign_keys=tuple(mine.get("f", ())),
            indexes=tuple(indexes.get(oid, [])) + tuple(mine.get("x", ())),
            checks=tuple(mine.get("c", ())),
            triggers=tuple(triggers.get(oid, ())),
            partitioning=partitioning,
            partition_of=parent,
            comment=comment,
            owner=owner,
            grants=_grants(grants),
            rows_estimate=tuples if tuples >= 0 else None,
            bytes=(pages + (toast or 0)) * _PAGE if tuples >= 0 else None,
            options=settings,
            row_security=secured,
        )

    def _constraints(self) -> dict[int, dict[str, list[Any]]]:
        enforced = "con.conenforced" if self.link.number >= 180_000 else "true"
        found: dict[int, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for row in self.ask(sql.CONSTRAINTS.replace("{enforced}", enforced)):
            table, name, kind, columns, fns, ftable, fcolumns, deleted, updated, match = row[:10]
            deferrable, deferred, valid, holds, expression, definition, _, null_equal, inherited, part = row[10:20]
            item: Any
            match kind:
                case "p" | "u":
                    item = Key(
                        name=name,
                        columns=tuple(columns),
                        deferrable=deferrable,
                        initially_deferred=deferred,
                        nulls_distinct=not null_equal,
                    )
                case "f":
                    if part:
                        continue  # the parent's key, repeated for each partition
                    item = ForeignKey(
                        name=name,
                        columns=tuple(columns),
                        table=ftable,
                        referred=tuple(fcolumns),
                        namespace=fns,
                        on_delete=_ACTIONS[deleted],
                        on_update=_ACTIONS[updated],
                        match={"f": "full", "p": "partial"}.get(match, "simple"),
                        deferrable=deferrable,
                        initially_deferred=deferred,
                        validated=valid,
                    )
                case "c":
                    if inherited:
                        continue
                    item = Check(name=name, expression=_inner(expression), enforced=holds, validated=valid or not holds)
                case _:
                    item = Index(
                        name=name, parts=(), kind="exclusion", definition=definition, options={"exclude": definition}
                    )
            found[table][kind].append(item)
        return found

    def _indexes(self) -> dict[int, list[Index]]:
        found: dict[int, list[Index]] = defaultdict(list)
        for row in self.ask(sql.INDEXES):
            table, name, unique, kind, keys, null_equal, where, options, definition = row[:9]
            columns, flags, expressions, classes, collations, comment, valid = row[9:16]
            parts = []
            ordered = kind == "btree"
            for i in range(keys):
                expression = expressions[i] if columns[i] is None and expressions else None
                descending = ordered and bool(flags[i] & 1)
                nulls_first = bool(flags[i] & 2) if ordered else None
                parts.append(
                    IndexPart(
                        column=columns[i],
                        expression=_inner(expression) if expression else None,
                        descending=descending,
                        nulls_first=None if nulls_first == descending else nulls_first,
                        collation=collations[i],
                        opclass=classes[i],
                    )
                )
            found[table].append(
                Index(
                    name=name,
                    parts=tuple(parts),
                    unique=unique,
                    kind=kind,
                    where=_inner(where) if where else None,
                    include=tuple(columns[keys:]),
                    nulls_distinct=not null_equal,
                    visible=valid,
                    options=dict(o.split("=", 1) for o in options or ()),
                    definition=definition,
                    comment=comment,
                )
            )
        return found

    def _triggers(self) -> dict[int, list[Trigger]]:
        found: dict[int, list[Trigger]] = defaultdict(list)
        for table, name, bits, source in self.ask(sql.TRIGGERS):
            timing = "before" if bits & 2 else "instead of" if bits & 64 else "after"
            events = tuple(
                e for bit, e in ((4, "insert"), (8, "delete"), (16, "update"), (32, "truncate")) if bits & bit
            )
            found[table].append(Trigger(name=name, timing=timing, events=events, source=source))
        return found

    # ---- views and routines

    def _views(self) -> list[View]:
        columns: dict[int, list[Column]] = defaultdict(list)
        rows = self.ask(sql.VIEWS)
        if not rows:
            return []
        for row in self.ask(sql.COLUMNS, ["v", "m"]):
            columns[row[0]].append(
                Column(
                    name=row[1],
                    type=self._meaning(row[2], row[9], row[10]),
                    native=row[2],
                    collation=row[7],
                    comment=row[8],
                )
            )
        return [
            View(
                namespace=namespace,
                name=name,
                definition=definition.strip(),
                materialized=materialized,
                columns=tuple(columns.get(oid, ())),
                depends_on=tuple(needs or ()),
                indexes=tuple(self.indexes.get(oid, ())),
                owner=owner,
                grants=_grants(grants),
                comment=comment,
            )
            for oid, namespace, name, materialized, definition, owner, grants, comment, needs in rows
        ]

    def _routines(self) -> list[Routine]:
        out = []
        kinds = {"f": "function", "p": "procedure", "a": "aggregate", "w": "window function"}
        for namespace, name, kind, source, signature, language, owner, grants, aggregate, arguments in self.ask(
            sql.ROUTINES
        ):
            text = source or f"CREATE AGGREGATE {at((namespace, name))}({arguments or '*'}) ({aggregate})"
            out.append(
                Routine(
                    namespace=namespace,
                    name=name,
                    kind=kinds.get(kind, str(kind)),
                    source=text,
                    signature=signature,
                    language=language,
                    owner=owner,
                    grants=_grants(grants),
                )
            )
        return out


def _grants(rows: Listed[Listed[str]] | None) -> tuple[Grant, ...]:
    return tuple(Grant(grantee=g, privilege=p, grantable=o == "true") for g, p, o in rows or ())


def _identity(sequence: Sequence | None, *, always: bool) -> Identity:
    if sequence is None:
        return Identity(always=always)
    return Identity(
        always=always,
        start=sequence.start,
        increment=sequence.increment,
        next=sequence.next,
        sequence=f"{sequence.namespace}.{sequence.name}",
    )


def _next(last: int, increment: int, low: int, high: int, *, cycle: bool) -> int | None:
    """Return what nextval would give; None at the end of a sequence that does not cycle."""
    value = last + increment
    if low <= value <= high:
        return value
    return (low if increment > 0 else high) if cycle else None


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else quote(name)


def _inner(expression: str) -> str:
    """Return an expression without the one pair of parentheses that PostgreSQL puts around all of it."""
    if not (expression.startswith("(") and expression.endswith(")")):
        return expression
    depth = 0
    quoted = ""
    for i, c in enumerate(expression):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0 and i < len(expression) - 1:
                return expression
    return expression[1:-1]


_LITERAL = re.compile(r"""^'((?:[^']|'')*)'(?:::([\w\s."()\[\],]+))?$""", re.DOTALL)
_NUMBER = re.compile(r"^\(?(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\)?(?:::(?:\"?[a-z ]+\"?)(?:\(\d+(?:,\d+)?\))?)?$")
_NOW = frozenset({"now()", "current_timestamp", "transaction_timestamp()", "localtimestamp"})


def _default(expression: str) -> Default:
    """Classify a default as pg_get_expr prints it."""
    low = expression.lower()
    bare = low.partition("::")[0] if low.startswith(("now()", "current_", "local")) else low
    bare = re.sub(r"\(\d\)$", "", bare)
    if low.startswith("null::") or low == "null":
        return Default(native=expression, kind="null")
    if low in ("true", "false"):
        return Default(native=expression, kind="literal", value="1" if low == "true" else "0")
    if bare in _NOW:
        return Default(native=expression, kind="today" if low.endswith("::date") else "now")
    if bare in ("current_date", "('now'::text)::date"):
        return Default(native=expression, kind="today")
    if bare in ("current_time", "localtime"):
        return Default(native=expression, kind="time")
    if low in ("gen_random_uuid()", "uuidv4()"):
        return Default(native=expression, kind="uuid")
    if low.startswith("nextval("):
        match = re.match(r"nextval\('((?:[^']|'')+)'::regclass\)$", expression)
        if match:
            names = re.findall(r'"(?:[^"]|"")+"|[^.]+', match[1].replace("''", "'"))
            return Default(native=expression, kind="sequence", value=".".join(map(unquote, names)))
        return Default(native=expression)
    match = _NUMBER.match(expression)
    if match:
        return Default(native=expression, kind="literal", value=match[1])
    match = _LITERAL.match(expression)
    if match:
        value, cast = match[1].replace("''", "'"), match[2] or ""
        if cast.startswith("timestamp") and value.lower() == "now":
            return Default(native=expression)
        if cast in ("regclass", "regproc"):
            return Default(native=expression)
        return Default(native=expression, kind="literal", value=value)
    return Default(native=expression)
