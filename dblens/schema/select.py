"""Choose a part of a schema: namespaces and tables by name or pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from dblens.schema.model import Schema


def select(schema: Schema, *, namespaces: Sequence[str] = (), tables: Sequence[str] = ()) -> Schema:
    """Return the schema with only these namespaces, and only tables and views whose name or `namespace.name` matches a pattern.

    Table patterns leave out what belongs to no table, except the sequences and types that the chosen tables' columns name.
    """
    replace = msgspec.structs.replace
    if namespaces:
        kept = frozenset(namespaces)
        schema = replace(
            schema,
            namespaces=tuple(n for n in schema.namespaces if n in kept),
            tables=tuple(t for t in schema.tables if t.namespace in kept),
            views=tuple(v for v in schema.views if v.namespace in kept),
            sequences=tuple(s for s in schema.sequences if s.namespace in kept),
            routines=tuple(r for r in schema.routines if r.namespace in kept),
            types=tuple(t for t in schema.types if t.namespace in kept),
        )
    if not tables:
        return schema

    def chosen(namespace: str, name: str) -> bool:
        return any(fnmatchcase(name, p) or fnmatchcase(f"{namespace}.{name}", p) for p in tables)

    picked = tuple(t for t in schema.tables if chosen(t.namespace, t.name))
    spelled = {column.native for table in picked for column in table.columns}
    owners = {f"{table.name}.{column.name}" for table in picked for column in table.columns}
    owners |= {f"{table.namespace}.{table.name}.{column.name}" for table in picked for column in table.columns}
    return replace(
        schema,
        tables=picked,
        views=tuple(v for v in schema.views if chosen(v.namespace, v.name)),
        sequences=tuple(s for s in schema.sequences if s.owned_by in owners),
        routines=(),
        types=tuple(t for t in schema.types if t.name in spelled or f"{t.namespace}.{t.name}" in spelled),
    )
