"""A whole schema as CREATE statements, pure."""

from __future__ import annotations

from collections.abc import Mapping

from dblens.engines.postgres import ddl
from dblens.engines.postgres.ddl import at, literal, quote
from dblens.schema.model import Schema, Sequence, Table, View


def create(schema: Schema) -> list[str]:
    """Render the whole schema as CREATE statements in a runnable order: what others need comes first."""
    out = [f"CREATE SCHEMA IF NOT EXISTS {quote(n)}" for n in schema.namespaces if n != "public"]
    out += [f"CREATE EXTENSION IF NOT EXISTS {quote(n)}" for n, _ in schema.extensions if n != "plpgsql"]
    needed = ddl.used_types(schema.tables, schema.types)
    types = needed + [t for t in schema.types if t not in needed]
    out += [ddl.type_text(t, (t.namespace, t.name)) for t in types]
    for type in types:
        if type.comment:
            word = "DOMAIN" if type.kind == "domain" else "TYPE"
            out.append(f"COMMENT ON {word} {at((type.namespace, type.name))} IS {literal(type.comment)}")
    behind = _identity_sequences(schema)
    sequences = [s for s in schema.sequences if (s.namespace, s.name) not in behind]
    out += [_sequence(s) for s in sequences]
    # Routines may be used by defaults and checks, and may themselves use tables: bodies are checked at call time only.
    routines = [r for r in schema.routines if r.source]
    if routines:
        out.append("SET check_function_bodies = off")
        out += [r.source.rstrip().rstrip(";") for r in routines if r.kind != "aggregate"]
    out += [_table(t) for t in schema.tables if t.kind != "partition"]
    bounds = {
        (t.namespace, t.name, name): bound
        for t in schema.tables
        if t.partitioning
        for name, bound in t.partitioning.partitions
    }
    out += [_table(t, bounds) for t in _partitions(schema)]
    out += [r.source.rstrip().rstrip(";") for r in routines if r.kind == "aggregate"]
    out += [statement for t in schema.tables for statement in _after(t)]
    out += [_owned(s) for s in sequences if s.owned_by]
    for table in schema.tables:
        for key in () if table.kind == "partition" else table.foreign_keys:
            referred = (key.namespace or table.namespace, key.table)
            out.append(f"ALTER TABLE {at((table.namespace, table.name))} ADD {ddl.foreign_text(key, referred)}")
    for view in _ordered(schema.views):
        out += _view(view)
    out += [trigger.source for table in schema.tables for trigger in table.triggers if table.kind != "partition"]
    return out


def _partitions(schema: Schema) -> list[Table]:
    """Return partitions, those that are partitioned themselves before their own."""
    waiting = [t for t in schema.tables if t.kind == "partition"]
    done = {t.name for t in schema.tables if t.kind != "partition"} | {
        f"{t.namespace}.{t.name}" for t in schema.tables if t.kind != "partition"
    }
    order: list[Table] = []
    while waiting:
        ready = [t for t in waiting if t.partition_of in done] or waiting
        order += ready
        done |= {f"{t.namespace}.{t.name}" for t in ready}
        waiting = [t for t in waiting if t not in ready]
    return order


def _table(table: Table, bounds: Mapping[tuple[str, str, str], str] | None = None) -> str:
    place = (table.namespace, table.name)
    if table.kind == "partition" and table.partition_of:
        namespace, _, name = table.partition_of.partition(".")
        known = table.name if table.namespace == namespace else f"{table.namespace}.{table.name}"
        bound = (bounds or {}).get((namespace, name, known), "DEFAULT")
        text = f"CREATE TABLE {at(place)} PARTITION OF {at((namespace, name))} {bound}"
    elif table.kind == "foreign":
        return f"-- foreign table {table.namespace}.{table.name}: its server is not part of the schema"
    else:
        text = ddl.table_text(table, place)
    if table.partitioning:
        text += f" PARTITION BY {table.partitioning.kind.upper()} ({table.partitioning.key})"
    return text


def _after(table: Table) -> list[str]:
    if table.kind in ("partition", "foreign"):
        return []  # keys and indexes come with the parent's
    place = (table.namespace, table.name)
    out = ddl.after_text(table, place)
    if table.row_security:
        out.append(f"ALTER TABLE {at(place)} ENABLE ROW LEVEL SECURITY")
    return out


def _identity_sequences(schema: Schema) -> set[tuple[str, str]]:
    found = set()
    for table in schema.tables:
        for column in table.columns:
            serial = column.default is not None and column.default.kind == "sequence"
            if column.identity and column.identity.sequence and not serial:
                namespace, _, name = column.identity.sequence.rpartition(".")
                found.add((namespace or table.namespace, name))
    return found


def _sequence(sequence: Sequence) -> str:
    low = f"MINVALUE {sequence.minimum}" if sequence.minimum is not None else "NO MINVALUE"
    high = f"MAXVALUE {sequence.maximum}" if sequence.maximum is not None else "NO MAXVALUE"
    return (
        f"CREATE SEQUENCE {at((sequence.namespace, sequence.name))} AS {sequence.native} INCREMENT BY {sequence.increment} "
        f"{low} {high} START WITH {sequence.start} {'CYCLE' if sequence.cycle else 'NO CYCLE'}"
    )


def _owned(sequence: Sequence) -> str:
    table, _, column = (sequence.owned_by or "").rpartition(".")
    table = table.removeprefix(f"{sequence.namespace}.")
    return (
        f"ALTER SEQUENCE {at((sequence.namespace, sequence.name))} "
        f"OWNED BY {at((sequence.namespace, table))}.{quote(column)}"
    )


def _view(view: View) -> list[str]:
    place = at((view.namespace, view.name))
    word = "MATERIALIZED VIEW" if view.materialized else "VIEW"
    out = [f"CREATE {word} {place} AS {view.definition.strip().rstrip(';')}"]
    out += [ddl.index_text((view.namespace, view.name), i) for i in view.indexes]
    if view.comment:
        out.append(f"COMMENT ON {word} {place} IS {literal(view.comment)}")
    return out


def _ordered(views: tuple[View, ...]) -> list[View]:
    """Return views behind those that they select from."""
    waiting = {f"{v.namespace}.{v.name}": v for v in views}
    order: list[View] = []
    while waiting:
        ready = [n for n, v in waiting.items() if not any(d in waiting and d != n for d in v.depends_on)] or list(
            waiting
        )
        order += [waiting.pop(n) for n in ready]
    return order
