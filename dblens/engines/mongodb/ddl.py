"""DDL as database commands: one JSON (Extended JSON) command document a statement, as `Session.execute` takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dblens.engines.base import Build, Place
from dblens.engines.mongodb import names
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Column, Index, Key, NamedType, Schema, Table

_BSON_NAMES = {
    "object": ["object"],
    "mixed": ["long", "double", "string", "binData"],
    "uuid": ["binData"],
    "date": ["date", "string"],
}
"""What `$type` calls the values of a native, where it is not the native's own name."""


def quote(name: str) -> str:
    """Return a name as a JSON string. Raises InvalidInput for what no collection or field can be called."""
    if "\0" in name:
        raise InvalidInput(f"a MongoDB name cannot hold U+0000: {name!r}")
    if "$" in name:
        raise InvalidInput(f"a MongoDB collection cannot be called {name!r}", hint="its name must not hold a dollar")
    return json.dumps(name, ensure_ascii=False)


def literal(text: str | None) -> str:
    """Return a text as a JSON string, null for None."""
    return "null" if text is None else json.dumps(text, ensure_ascii=False)


def staged(live: Place, run: str) -> Place:
    """Return where a collection is built out of sight."""
    return live[0], names.within(names.area(run), live[1])


def previous(live: Place, run: str) -> Place:
    """Return where a replaced collection is kept until `finalize`."""
    return live[0], names.within(names.area(run, "_prev"), live[1])


def command(**arguments: Any) -> str:
    """Return a command document as JSON, in the order given."""
    return json.dumps(arguments, ensure_ascii=False, separators=(", ", ": "))


def _option(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _dotted(column: Column | None, name: str) -> str:
    if column is None:
        return name  # an index of documents may name fields that no document has yet
    path = column.path or (name,)
    for key in path:
        if "." in key or key.startswith("$") or not key:
            raise Unsupported(
                f"an index on the field {key!r}",
                "MongoDB cannot address a field with a dot, a leading dollar or no name in an index",
                hint="rename the column with a rule",
            )
    return ".".join(path)


def _find(table: Table, name: str) -> Column | None:
    return next((c for c in table.columns if c.name == name), None)


def _unique_options(table: Table, columns: Sequence[str], nulls_distinct: bool) -> dict[str, Any]:
    """Return options of a unique index.

    SQL lets a unique key hold many NULLs, MongoDB only one: only documents whose nullable fields have a value are indexed.
    """
    options: dict[str, Any] = {"unique": True}
    nullable = [c for name in columns if (c := _find(table, name)) is not None and c.nullable]
    if nulls_distinct and nullable:
        options["partialFilterExpression"] = {
            _dotted(c, c.name): {
                "$type": kinds if len(kinds := _BSON_NAMES.get(c.native, [c.native])) > 1 else kinds[0]
            }
            for c in nullable
        }
    return options


def _unique(table: Table, key: Key, number: int) -> dict[str, Any]:
    fields = {_dotted(_find(table, c), c): 1 for c in key.columns}
    return {
        "key": fields,
        "name": key.name or f"unique_{number}",
        **_unique_options(table, key.columns, key.nulls_distinct),
    }


def _index(table: Table, index: Index) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in index.parts:
        direction: Any = part.kind or (index.kind if index.kind in ("text", "2d", "2dsphere", "hashed") else None)
        name = _dotted(_find(table, part.column), part.column) if part.column is not None else part.expression or ""
        fields[name] = direction or (-1 if part.descending else 1)
    spec: dict[str, Any] = {"key": fields, "name": index.name}
    if index.unique and not table.inferred and not index.options and not index.where:
        spec |= _unique_options(table, [p.column for p in index.parts if p.column], index.nulls_distinct)
    elif index.unique:
        spec["unique"] = True
    if index.where:
        spec["partialFilterExpression"] = _option(index.where)
    if not index.visible:
        spec["hidden"] = True
    for option, value in sorted(index.options.items()):
        spec.setdefault(option, _option(value))
    return spec


def build(
    tables: Sequence[Table],
    places: Mapping[Place, Place],
    types: Sequence[NamedType] = (),  # noqa: ARG001 - documents have no named types
    flavour: str = "",  # noqa: ARG001
) -> Build:
    """Render the commands that create collections before loading, and their indexes after it.

    Raises Unsupported for an index that cannot be.
    """
    before, after = [], []
    for table in tables:
        name = places.get((table.namespace, table.name), (table.namespace, table.name))[1]
        before.append(command(create=name, **_options(table)))
        indexes = [_unique(table, key, n) for n, key in enumerate(table.uniques, 1)]
        indexes += [_index(table, index) for index in table.indexes if index.name != "_id_"]
        if indexes:
            after.append(command(createIndexes=name, indexes=indexes))
    return Build(before=tuple(before), after=tuple(after))


def _options(table: Table) -> dict[str, Any]:
    options = {key: _option(value) for key, value in sorted(table.options.items())}
    if table.kind == "capped":
        options.setdefault("capped", True)
    return options


def create(schema: Schema) -> list[str]:
    """Render the whole schema as commands: collections with their indexes, then views."""
    tables = [t for t in schema.tables if not names.own(t.name)]
    parts = build(tables, {})
    views = []
    for view in schema.views:
        definition = _option(view.definition)
        views.append(command(create=view.name, **(definition if isinstance(definition, dict) else {})))
    return [*parts.before, *parts.after, *views]
