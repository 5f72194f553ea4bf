"""Read a database's collections: options, indexes, views, and fields from a bounded sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dblens.engines.mongodb import extjson, names
from dblens.engines.mongodb.errors import guard
from dblens.engines.mongodb.flatten import sampled
from dblens.schema.model import Index, IndexPart, Key, Schema, Table, TableKind, TableRef, View

if TYPE_CHECKING:
    from dblens.engines.mongodb.session import MongoSession

SAMPLE = 1000
"""Documents looked at in each collection, the first in natural order, so that two looks see the same."""

_DROPPED = ("uuid", "flags")


def _visible(entry: dict[str, Any]) -> bool:
    return not (names.system(entry["name"]) or names.own(entry["name"]))


def entries(session: MongoSession, namespace: str) -> list[dict[str, Any]]:
    """Return listCollections without the server's and DBLens' own, by name."""
    with guard(f"listing collections of {namespace!r}"):
        found = list(session.client[namespace].list_collections(session=session.lsid))
    return sorted((e for e in map(dict, found) if _visible(e)), key=lambda e: str(e["name"]))


def _kind(entry: dict[str, Any]) -> TableKind:
    options = entry.get("options", {})
    if entry.get("type") == "timeseries" or "timeseries" in options:
        return "timeseries"
    return "capped" if options.get("capped") else "collection"


def list_tables(session: MongoSession, namespace: str) -> list[TableRef]:
    """Return collections and views in one round trip."""
    return [
        TableRef(namespace=namespace, name=e["name"], kind="view" if e.get("type") == "view" else _kind(e))
        for e in entries(session, namespace)
    ]


def read(session: MongoSession, namespaces: list[str]) -> Schema:
    """Read collections and views of some databases."""
    tables: list[Table] = []
    views: list[View] = []
    for namespace in namespaces:
        for entry in entries(session, namespace):
            if entry.get("type") == "view":
                views.append(_view(namespace, entry))
            else:
                tables.append(_table(session, namespace, entry))
    return Schema(
        engine="mongodb",
        version=session.version,
        database=session.database,
        namespaces=tuple(namespaces),
        tables=tuple(tables),
        views=tuple(views),
    )


def _view(namespace: str, entry: dict[str, Any]) -> View:
    options = {k: v for k, v in entry["options"].items() if k in ("viewOn", "pipeline", "collation")}
    return View(
        namespace=namespace,
        name=entry["name"],
        definition=extjson.encode(options),
        depends_on=(f"{namespace}.{options['viewOn']}",) if "viewOn" in options else (),
    )


def _table(session: MongoSession, namespace: str, entry: dict[str, Any]) -> Table:
    collection = session.client[namespace][entry["name"]]
    kind = _kind(entry)
    with guard(f"reading {namespace}.{entry['name']}"):
        specs = [dict(spec) for spec in collection.list_indexes(session=session.lsid)]
        estimate, octets = _size(session, namespace, entry["name"])
        fields = sampled(collection.find(session=session.lsid).limit(SAMPLE))
    options = {k: extjson.encode(v) for k, v in entry.get("options", {}).items() if k not in _DROPPED}
    return Table(
        namespace=namespace,
        name=entry["name"],
        kind=kind,
        columns=fields,
        primary_key=Key(name=None, columns=("_id",))
        if any(c.name == "_id" for c in fields) and kind != "timeseries"
        else None,
        indexes=tuple(_index(spec) for spec in specs if spec["name"] != "_id_"),
        rows_estimate=estimate,
        bytes=octets,
        options=options,
        inferred=True,
        sampled=min(estimate, SAMPLE) if estimate is not None else SAMPLE,
    )


def _size(session: MongoSession, namespace: str, name: str) -> tuple[int | None, int | None]:
    from pymongo.errors import OperationFailure

    try:
        stats = session.client[namespace].command("collStats", name)
    except OperationFailure:
        # Views of time series and logins without collStats: the number is only an estimate, so do without.
        return None, None
    return int(stats.get("count", 0)), int(stats.get("size", 0))


def _index(spec: dict[str, Any]) -> Index:
    parts, kind = [], "btree"
    for field, direction in spec["key"].items():
        if isinstance(direction, str):
            kind = direction
        elif "$**" in field:
            kind = "wildcard"
        parts.append(
            IndexPart(
                column=field,
                descending=not isinstance(direction, str) and direction < 0,
                kind=direction if isinstance(direction, str) else None,
            )
        )
    known = ("v", "key", "name", "ns", "unique", "partialFilterExpression", "hidden", "background")
    return Index(
        name=spec["name"],
        parts=tuple(parts),
        unique=bool(spec.get("unique")),
        kind=kind,
        where=extjson.encode(spec["partialFilterExpression"]) if "partialFilterExpression" in spec else None,
        nulls_distinct=False,
        visible=not spec.get("hidden"),
        options={k: extjson.encode(v) for k, v in spec.items() if k not in known},
        definition=extjson.encode({k: v for k, v in spec.items() if k not in ("v", "ns")}),
    )
