"""The copier's reading half: which formats a table can leave in, and its blocks.

Written independently of `canonical`, which the verifier uses. `COPY` renders rows in the server; the client joins what arrives into
blocks and touches single values only for `rows`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

from dblens.engines.base import Block, Check, Field, Format, KeyRange
from dblens.engines.postgres import scan
from dblens.engines.postgres.checks import predicate
from dblens.engines.postgres.link import Link
from dblens.errors import Unsupported
from dblens.schema.model import Table
from dblens.schema.types import Array
from dblens.values.exchange import read_messages
from dblens.values.forms import Form

_HEADER = 19
"""Octets before the first row of binary COPY: signature, flags, length of an extension that no version has."""
_TRAILER = b"\xff\xff"
"""The message that ends it: a row of -1 columns."""


def plain(field: Field) -> bool:
    """Tell whether a field is the stored column itself, untouched."""
    return not field.repairs and field.expression is None and not field.is_constant and field.form == Form.NATIVE


def formats(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats in which fields leave exactly, cheapest first."""
    if any(f.form == Form.BSON for f in fields):
        raise Unsupported("exporting BSON", "PostgreSQL stores no BSON")
    if fields and all(plain(f) and _binary(f) for f in fields):
        return ("pgbinary", "pgtext", "mytext", "rows")
    return ("pgtext", "mytext", "rows")


def _binary(field: Field) -> bool:
    if scan.base_type(field.column) not in scan.BUILT_IN:
        return False
    return field.target is None or field.target.native == field.column.native


def export(
    link: Link, table: Table, fields: Sequence[Field], fmt: Format, keys: KeyRange, where: str | None
) -> Generator[Block, None, None]:
    """Stream a table's fields. Closing the iterator early cancels the reading on the server."""
    what = f"reading {table.namespace}.{table.name}"
    tail = f"FROM {scan.relation(table)}{scan.conditions(table, keys, where)}"
    match fmt:
        case "rows":
            return _rows(link, fields, tail, what)
        case "pgbinary":
            return _binary_blocks(link, binary_statement(table, fields, keys, where), what)
        case "pgtext":
            columns = ", ".join(_text(f, bytes_as="bytea") for f in fields)
            return _text_blocks(link, f"COPY (SELECT {columns} {tail}) TO STDOUT", what)
        case "mytext":
            columns = ", ".join(_text(f, bytes_as="hex") for f in fields)
            return _text_blocks(link, f"COPY (SELECT {columns} {tail}) TO STDOUT", what, _for_mysql)
    raise Unsupported(f"exporting as {fmt}", "PostgreSQL does not produce it")


def binary_statement(table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None) -> str:
    """Return the statement of a binary copy."""
    columns = ", ".join(scan.value(f) for f in fields)
    tail = f"FROM {scan.relation(table)}{scan.conditions(table, keys, where)}"
    return f"COPY (SELECT {columns} {tail}) TO STDOUT (FORMAT binary)"


# ------------------------------------------------------------------------------------------------------------------ values


def _value(field: Field) -> tuple[str, str]:
    """Return SQL for the field's value after repairs, and its base type."""
    sql, kind = scan.value(field), scan.kind(field)
    for item in field.repairs:
        sql, kind = _repair(field, item, sql, kind)
    return sql, kind


def _repair(field: Field, item: Check, sql: str, kind: str) -> tuple[str, str]:
    hit = predicate(field, item)
    if hit is None:
        return sql, kind
    match item.repair, item.kind:
        case (("none" | "text" | "block"), _):
            return sql, kind
        case "null", _:
            return f"CASE WHEN {hit} THEN NULL ELSE {sql} END", kind
        case _, "negative_zero":
            return f"CASE WHEN {hit} THEN 0 ELSE {sql} END", kind
        case "truncate", "sub_millisecond":
            cut = f"date_trunc('milliseconds', {sql})"
            return (f"{cut}::time" if kind.startswith("time ") else cut), kind
        case "truncate", "too_long":
            return (
                (f"substr({sql}, 1, {item.limit})", kind)
                if kind == "bytea"
                else (f"left(({sql})::text, {item.limit})", "text")
            )
        case "round", "decimal_overflow":
            return _half_even(sql, hit, item.scale or 0), "numeric"
        case "strip", "trailing_space":
            return f"regexp_replace(({sql})::text, ' +$', '')", "text"
        case "strip", "four_byte_text":
            return rf"regexp_replace(({sql})::text, '[\U00010000-\U0010FFFF]+', '', 'g')", "text"
        case "strip", "json_nul":
            return rf"regexp_replace(({sql})::text, '(\\\\)|\\u0000', '\1', 'g')", kind
        case "strip", _:
            return sql, kind
    raise Unsupported(
        f"the repair {item.repair} of {item.kind}", "PostgreSQL does not know it", hint="exclude the column"
    )


def _half_even(sql: str, hit: str, scale: int) -> str:
    """Round half to even: PostgreSQL's round() goes away from zero, so a tie that it made odd goes back by one unit."""
    number, unit = f"({sql})::numeric", f"1e-{scale}::numeric"
    rounded = f"round({number}, {scale})"
    tie = f"abs({number} - trunc({number}, {scale})) * 2 = {unit}"
    odd = f"mod(abs({rounded}) * 1e{scale}::numeric, 2) = 1"
    return (
        f"CASE WHEN {hit} THEN CASE WHEN {tie} AND {odd} THEN {rounded} - sign({number}) * {unit} ELSE {rounded} END "
        f"ELSE {number} END"
    )


def _text(field: Field, *, bytes_as: str) -> str:
    r"""Return SQL whose COPY text is the field's value in its form. `bytes_as` bytea: `\\x…`, hex: bare digits, raw: octets."""
    if field.is_constant and field.constant is None:
        return "NULL"
    sql, kind = _value(field)
    array = isinstance(field.column.type, Array)
    match field.form:
        case Form.NATIVE:
            return sql
        case Form.INT | Form.BITS if kind == "boolean":
            return f"({sql})::int"
        case Form.FLOAT if kind == "real":
            return f"({sql})::float8"
        case Form.DECIMAL if kind == "money":
            return f"({sql})::numeric"
        case Form.DECIMAL if kind in scan.FLOATS:
            return f"({sql})::float8::text::numeric"
        case Form.BYTES:
            return _octets(sql, kind, bytes_as)
        case Form.TEXT if kind in ("character", "bpchar"):
            return f"({sql})::text"
        case Form.TIMESTAMP | Form.TIMESTAMPTZ if kind == "timestamp with time zone":
            return f"({sql}) AT TIME ZONE 'UTC'"
        case Form.TIMESTAMP | Form.TIMESTAMPTZ if kind == "date":
            return f"({sql})::timestamp"
        case Form.DATE if kind.startswith("timestamp"):
            return f"({sql})::date"
        case Form.INTERVAL if kind == "interval":
            months = f"extract(year FROM {sql}) * 12 + extract(month FROM {sql})"
            clock = f"make_interval(months => -({months})::int, days => -extract(day FROM {sql})::int)"
            micros = f"extract(epoch FROM {sql} + {clock}) * 1000000"
            parts = f"({months})::bigint || ' ' || extract(day FROM {sql})::bigint || ' ' || ({micros})::bigint"
            return f"CASE WHEN isfinite({sql}) THEN {parts} ELSE ({sql})::text END"
        case Form.JSON if array:
            return f"array_to_json({sql})::text"
        case Form.GEOMETRY if kind == "bytea":
            return f"encode({sql}, 'hex')"
        case Form.DYNAMIC if kind == "boolean":
            return f"({sql})::int"
    return sql


def _octets(sql: str, kind: str, bytes_as: str) -> str:
    if kind == "uuid":
        sql = f"decode(replace(({sql})::text, '-', ''), 'hex')"
    elif kind != "bytea":
        sql = f"convert_to(({sql})::text, 'UTF8')"
    return f"encode({sql}, 'hex')" if bytes_as == "hex" else sql


# ------------------------------------------------------------------------------------------------------------------- blocks


def _binary_blocks(link: Link, sql: str, what: str) -> Generator[Block, None, None]:
    for data in link.copy_out(sql, what):
        yield Block(data=data, size=len(data))


def _text_blocks(
    link: Link, sql: str, what: str, change: Callable[[bytes], bytes] | None = None
) -> Generator[Block, None, None]:
    for data in link.copy_out(sql, what):
        # COPY writes line breaks inside values as \n, so each real one ends a row.
        out = change(data) if change else data
        yield Block(data=out, size=len(out), rows=data.count(b"\n"))


_ESCAPED = re.compile(rb"\\([\\fv])")
_PLAIN = {b"f": b"\f", b"v": b"\v", b"\\": b"\\\\"}


def _for_mysql(data: bytes) -> bytes:
    r"""Write `\f` and `\v` as the characters themselves: LOAD DATA would read them as the letters f and v."""
    if b"\\f" not in data and b"\\v" not in data:
        return data
    return _ESCAPED.sub(lambda m: _PLAIN[m[1]], data)


def _row_column(field: Field) -> tuple[str, str]:
    """Return SQL for an exchange value, and the kind of `values.exchange` that reads it."""
    sql, kind = _value(field)
    if field.is_constant and field.constant is None:
        return "NULL::text", "r"
    match field.form:
        case Form.INT if kind in scan.INTEGERS:
            return f"({sql})::int8", "i"
        case Form.INT if kind == "boolean":
            return f"({sql})::bool", "v"
        case Form.INT:
            return f"trunc(({sql})::numeric)::text", "I"
        case Form.FLOAT:
            return f"({sql})::float8", "f"
        case Form.BYTES:
            return _octets(sql, kind, "raw"), "b"
        case Form.DYNAMIC:
            if kind in scan.INTEGERS:
                return f"({sql})::int8", "i"
            if kind == "boolean":
                return f"({sql})::bool", "v"
            if kind in scan.FLOATS:
                return f"({sql})::float8", "f"
            return (sql, "b") if kind == "bytea" else (f"({sql})::text", "r")
    text = _text(field, bytes_as="hex")
    # inet's cast to text adds a mask; format() prints values as they print themselves.
    if kind == "inet":
        return f"CASE WHEN {text} IS NULL THEN NULL ELSE format('%s', {text}) END", "r"
    return f"({text})::text", "r"


def _rows(link: Link, fields: Sequence[Field], tail: str, what: str) -> Generator[Block, None, None]:
    """Stream rows as binary COPY sends them and make them Python values in C: half of what a cursor costs."""
    columns = [_row_column(f) for f in fields]
    # A whole number of any size comes as a text.
    large = [i for i, (_, kind) in enumerate(columns) if kind == "I"]
    kinds = "".join(kind for _, kind in columns).replace("I", "r").encode()
    sql = f"COPY (SELECT {', '.join(sql for sql, _ in columns)} {tail}) TO STDOUT (FORMAT binary)"
    first = True
    with contextlib.closing(link.copy_rows(sql, what)) as lists:
        for sent in lists:
            messages, first = (sent.without(_HEADER) if first else sent), False
            if messages[-1] == _TRAILER:
                messages = messages[:-1]
            rows = read_messages(messages, kinds)
            if large:
                rows = [_numbered(row, large) for row in rows]
            yield Block(data=rows, size=len(sent.data), rows=len(rows))


def _numbered(row: tuple[Any, ...], columns: Sequence[int]) -> tuple[Any, ...]:
    values = list(row)
    for i in columns:
        if values[i] is not None:
            values[i] = int(values[i])
    return tuple(values)
