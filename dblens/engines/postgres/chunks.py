"""Cutting a table into key ranges."""

from __future__ import annotations

from itertools import pairwise

from dblens.engines.base import ALL, KeyRange
from dblens.engines.postgres import scan
from dblens.engines.postgres.checks import key_columns
from dblens.engines.postgres.ddl import quote
from dblens.engines.postgres.link import Link
from dblens.schema.model import Table


def chunks(link: Link, table: Table, rows: int, where: str | None) -> list[KeyRange]:
    """Cut a table into key ranges of about `rows` rows; `[ALL]` without a usable key.

    Only keys of built-in types are used: operators of others need the search path of whoever defined them. A dense integer key is cut
    by arithmetic (two index look-ups), any other by numbering its rows (one index scan).
    """
    columns = key_columns(table)
    usable = columns and all(scan.base_type(table.column(c)) in scan.BUILT_IN - {"json", "xml"} for c in columns)
    if not usable or rows < 1:
        return [ALL]
    what = f"cutting {table.namespace}.{table.name}"
    if len(columns) == 1 and scan.base_type(table.column(columns[0])) in scan.INTEGERS and not where:
        cut = _dense(link, table, columns[0], rows, what)
        if cut is not None:
            return cut
    listed = ", ".join(quote(c) for c in columns)
    shown = ", ".join(f"{quote(c)}::text AS k{i}" for i, c in enumerate(columns))
    names = ", ".join(f"k{i}" for i in range(len(columns)))
    sql = (
        f"SELECT {names} FROM (SELECT {shown}, row_number() OVER (ORDER BY {listed}) AS dblens_n "
        f"FROM {scan.relation(table)}{scan.conditions(table, ALL, where)}) AS d "
        f"WHERE dblens_n % {int(rows)} = 0 ORDER BY dblens_n"
    )
    return _ranges(columns, [tuple(row) for row in link.rows(sql, what=what)])


def _dense(link: Link, table: Table, column: str, rows: int, what: str) -> list[KeyRange] | None:
    c = quote(column)
    low, high = link.one(f"SELECT min({c})::numeric, max({c})::numeric FROM {scan.relation(table)}", what=what)
    if low is None:
        return [ALL]
    low, high = int(low), int(high)
    span = high - low + 1
    known = table.rows_estimate if table.rows_estimate and table.rows_estimate > 0 else None
    count = known if known is not None else int(link.one(f"SELECT count(*) FROM {scan.relation(table)}", what=what)[0])
    if span > 2 * max(count, 1):
        return None
    parts = max(1, -(-count // rows))
    step = -(-span // parts)
    return _ranges((column,), [(str(low + step * i - 1),) for i in range(1, parts) if low + step * i - 1 < high])


def _ranges(columns: tuple[str, ...], cuts: list[tuple[str, ...]]) -> list[KeyRange]:
    """Return ranges between cuts, the last one open, so that every row falls into exactly one."""
    if not cuts:
        return [ALL]
    edges: list[tuple[str, ...] | None] = [None, *cuts, None]
    return [KeyRange(columns=columns, lo=lo, hi=hi) for lo, hi in pairwise(edges)]
