"""Rows of a table by key: its row identifier, key ranges, and cutting it into chunks."""

from __future__ import annotations

from dblens.engines.base import ALL, KeyRange
from dblens.engines.sqlite.ddl import quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.schema.model import Table


def rowid(table: Table) -> str | None:
    """Return the name under which a table's rowid can be read, None for WITHOUT ROWID or when columns hide all its names."""
    if table.options.get("without_rowid") == "yes":
        return None
    taken = {c.name.lower() for c in table.columns}
    return next((name for name in ("_rowid_", "rowid", "oid") if name not in taken), None)


def key_columns(table: Table) -> tuple[str, ...]:
    """Return what names a row to a person: the primary key, else the rowid; quoted."""
    if table.primary_key is not None:
        return tuple(map(quote, table.primary_key.columns))
    alias = rowid(table)
    return (alias,) if alias else ()


def _value(bound: str) -> object:
    kind, _, text = bound.partition(":")
    match kind:
        case "i":
            return int(text)
        case "r":
            return float.fromhex(text)
        case "b":
            return bytes.fromhex(text)
    return text


def _bound(value: object) -> str:
    match value:
        case int():
            return f"i:{value}"
        case float():
            return f"r:{value.hex()}"
        case bytes():
            return f"b:{value.hex()}"
    return f"t:{value}"


def range_condition(keys: KeyRange) -> tuple[str, list[object]]:
    """Return the condition of a key range with its parameters, an empty text for the whole table."""
    if keys.lo is None and keys.hi is None:
        return "", []
    names = [c if c in ("_rowid_", "rowid", "oid") else quote(c) for c in keys.columns]
    left = names[0] if len(names) == 1 else f"({', '.join(names)})"
    marks = "?" if len(names) == 1 else f"({', '.join('?' * len(names))})"
    parts, params = [], list[object]()
    if keys.lo is not None:
        parts.append(f"{left} > {marks}")
        params.extend(map(_value, keys.lo))
    if keys.hi is not None:
        parts.append(f"{left} <= {marks}")
        params.extend(map(_value, keys.hi))
    return " AND ".join(parts), params


def chunks(db: Db, table: Table, rows: int, where: str | None) -> list[KeyRange]:
    """Cut a table into ranges of `rows` rows, by rowid, or by the primary key where there is no rowid."""
    alias = rowid(table)
    if alias is not None:
        columns: tuple[str, ...] = (alias,)
    elif table.primary_key is not None:
        columns = table.primary_key.columns
    else:
        return [ALL]
    place = where_is((table.namespace, table.name))
    names = ", ".join([alias] if alias else map(quote, columns))
    order = names if alias else ", ".join(map(quote, columns))
    found: list[KeyRange] = []
    lo: tuple[str, ...] | None = None
    while True:
        bound, params = range_condition(KeyRange(columns=columns, lo=lo))
        conditions = [c for c in (bound, f"({where})" if where else "") if c]
        filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        row = db.rows(f"SELECT {names} FROM {place}{filtered} ORDER BY {order} LIMIT 1 OFFSET {rows - 1}", params)
        if not row:
            break
        hi = tuple(map(_bound, row[0]))
        found.append(KeyRange(columns=columns, lo=lo, hi=hi, rows=rows))
        lo = hi
    found.append(KeyRange(columns=columns, lo=lo))
    return found if len(found) > 1 else [ALL]
