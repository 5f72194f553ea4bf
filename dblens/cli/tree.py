"""A schema as indented lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from dblens.cli.output import Style
from dblens.schema.diff import used_namespaces
from dblens.schema.model import Column, ForeignKey, Index, Schema, Table, View

Line = tuple[str, Style]


def tree(schema: Schema) -> Iterator[Line]:
    """Return a schema as lines: namespaces, tables with columns and keys, then everything else."""
    yield f"{schema.engine} {schema.version} · {schema.database}", "bold"
    for namespace in used_namespaces(schema):
        yield "", ""
        yield namespace, "cyan"
        for table in schema.tables:
            if table.namespace == namespace:
                yield from _table(table)
        for view in schema.views:
            if view.namespace == namespace:
                yield from _view(view)
        yield from _rest(schema, namespace)
    if schema.extensions:
        yield "", ""
        yield "extensions: " + ", ".join(f"{name} {version}" for name, version in schema.extensions), ""


def _table(table: Table) -> Iterator[Line]:
    facts: list[str] = [table.kind]
    if table.inferred:
        facts.append(f"sampled from {table.sampled} documents" if table.sampled is not None else "sampled")
    if table.partition_of:
        facts.append(f"of {table.partition_of}")
    if table.rows_estimate is not None:
        facts.append(f"about {table.rows_estimate:,} rows")
    if table.bytes is not None:
        facts.append(_size(table.bytes))
    if table.row_security:
        facts.append("row security")
    yield "", ""
    yield f"  {table.name}  ({', '.join(facts)})" + (f"  — {table.comment}" if table.comment else ""), "bold"
    width = max((len(column.name) for column in table.columns), default=0)
    spelled = max((len(column.native) for column in table.columns), default=0)
    for column in table.columns:
        text = f"    {column.name:<{width}}  {column.native:<{spelled}}  {_facts(column, table)}"
        yield text.rstrip(), ""
    if table.partitioning is not None:
        yield f"    partitioned by {table.partitioning.kind} ({table.partitioning.key})", "dim"
    for key in table.uniques:
        yield f"    unique ({', '.join(key.columns)}){_name(key)}", "dim"
    for reference in table.foreign_keys:
        yield f"    {_foreign(reference)}", "dim"
    for index in table.indexes:
        yield f"    {_index(index)}", "dim"
    for check in table.checks:
        yield f"    check {check.expression}{_name(check)}", "dim"
    for trigger in table.triggers:
        yield f"    trigger {trigger.name} {trigger.timing} {' or '.join(trigger.events)}".rstrip(), "dim"


def _facts(column: Column, table: Table) -> str:
    facts: list[str] = []
    if table.primary_key is not None and column.name in table.primary_key.columns:
        facts.append("primary key")
    if not column.nullable:
        facts.append("not null")
    if column.identity is not None:
        facts.append("numbered")
    if column.default is not None:
        facts.append(f"default {column.default.native}")
    if column.generated is not None:
        facts.append(f"{'stored' if column.generated.stored else 'virtual'} as {column.generated.expression}")
    if column.collation:
        facts.append(f"collate {column.collation}")
    if column.invisible:
        facts.append("invisible")
    if column.presence is not None and column.presence < 1:
        facts.append(f"in {column.presence:.1%}")
    if len(column.shares) > 1:
        facts.append("mixed: " + ", ".join(f"{share.name} {share.share:.1%}" for share in column.shares))
    if column.comment:
        facts.append(f"— {column.comment}")
    return ", ".join(facts)


def _name(thing: object) -> str:
    name = getattr(thing, "name", None)
    return f"  {name}" if name else ""


def _foreign(key: ForeignKey) -> str:
    target = f"{key.namespace}.{key.table}" if key.namespace else key.table
    text = f"foreign key ({', '.join(key.columns)}) → {target} ({', '.join(key.referred)})"
    if key.on_delete != "no action":
        text += f" on delete {key.on_delete}"
    if key.on_update != "no action":
        text += f" on update {key.on_update}"
    return text + (" deferrable" if key.deferrable else "") + ("" if key.validated else " not validated") + _name(key)


def _index(index: Index) -> str:
    parts = [
        (part.column or f"({part.expression})")
        + (f"({part.prefix})" if part.prefix else "")
        + (" desc" if part.descending else "")
        for part in index.parts
    ]
    kind = "" if index.kind == "btree" else f" {index.kind}"
    text = f"{'unique ' if index.unique else ''}index{kind} ({', '.join(parts)})"
    if index.include:
        text += f" include ({', '.join(index.include)})"
    return text + (f" where {index.where}" if index.where else "") + f"  {index.name}"


def _view(view: View) -> Iterator[Line]:
    kind = "materialised view" if view.materialized else "view"
    yield "", ""
    yield f"  {view.name}  ({kind})" + (f"  — {view.comment}" if view.comment else ""), "bold"
    width = max((len(column.name) for column in view.columns), default=0)
    for column in view.columns:
        yield f"    {column.name:<{width}}  {column.native}", ""


def _rest(schema: Schema, namespace: str) -> Iterator[Line]:
    groups = {
        "sequences": [s.name for s in schema.sequences if s.namespace == namespace],
        "types": [
            f"{t.name} ({t.kind}{': ' + ', '.join(t.values) if t.values else ''})"
            for t in schema.types
            if t.namespace == namespace
        ],
        "routines": [
            f"{r.name}({r.signature.strip('()')}) {r.kind}" for r in schema.routines if r.namespace == namespace
        ],
    }
    for title, names in groups.items():
        if names:
            yield "", ""
            yield f"  {title}", "bold"
            for name in names:
                yield f"    {name}", ""


def _size(octets: int) -> str:
    size = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
