"""Export: a table's fields as blocks. The server renders whole lines of text; the client only cuts them into blocks.

A line is one column of the result, so that the driver has one value a row to unpack. Its parts are joined with `concat`, which is NULL
as soon as a part grew beyond the server's `max_allowed_packet`: such rows are read again column by column, never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from dblens.engines.base import ALL, Block, Field, Format, KeyRange
from dblens.engines.mysql import checks, sql
from dblens.engines.mysql.driver import Raw
from dblens.engines.mysql.sql import literal
from dblens.errors import QueryFailed, Unsupported
from dblens.schema.model import Table
from dblens.schema.types import (
    Binary,
    Bits,
    Date,
    Decimal,
    Enum,
    Float,
    Geometry,
    Integer,
    Json,
    Opaque,
    Set,
    Text,
    Time,
    Timestamp,
    Year,
)
from dblens.values import speed
from dblens.values.exchange import shape_rows
from dblens.values.forms import Form

BLOCK = 512 * 1024
Stream = Callable[[str], Iterator[Sequence[Raw]]]
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def formats(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats in which these fields can be exported exactly."""
    # The server writes a float that it computed with a digit less than it sends it.
    computed = any(f.form == Form.FLOAT and f.expression is not None for f in fields)
    if computed or any(f.form in (Form.BSON, Form.DYNAMIC) for f in fields):
        return ("rows",)
    return ("pgtext", "mytext", "rows")


def export(
    stream: Stream,
    table: Table,
    fields: Sequence[Field],
    fmt: Format,
    keys: KeyRange = ALL,
    where: str | None = None,
    columns: bool = False,
) -> Generator[Block]:
    """Stream the fields as blocks of about half a MiB.

    `columns`: the driver unpacks rows so cheaply (mysqlclient) that lines written here in C beat lines rendered by the server.
    """
    place = sql.where_is((table.namespace, table.name))
    tail = f" from {place}{sql.filters(sql.key_condition(table, keys), where)}"
    if fmt == "rows":
        yield from _rows(stream, fields, tail)
    elif fmt in ("pgtext", "mytext"):
        yield from _lines(stream, fields, fmt, place, table, keys, where, columns)
    else:
        raise Unsupported(f"exporting {fmt}", "MySQL exports pgtext, mytext and rows")


# ------------------------------------------------------------------------------------------------------------------ lines


def _lines(
    stream: Stream,
    fields: Sequence[Field],
    fmt: Format,
    place: str,
    table: Table,
    keys: KeyRange,
    where: str | None,
    columns: bool,
) -> Generator[Block]:
    raw = unrendered(fields, fmt) if columns else None
    if raw:
        asked = unrendered_statement(table, raw, where, sql.key_condition(table, keys))
        kinds = "".join(kind for _, kind in raw).encode()
        yield from encoded(stream(asked), kinds, "pgtext" if fmt == "pgtext" else "mytext")
        return
    parts = [_part(field, fmt) for field in fields]
    line = "concat(" + ", '\\t', ".join(parts or ["''"]) + ")"
    condition = sql.key_condition(table, keys)
    oversize = 0
    batches = stream(f"select {line} from {place}{sql.filters(condition, where)}")
    try:
        pieces: list[bytes] = []
        size = rows = 0
        for batch in batches:
            got = [row[0] for row in batch]
            lines = [v for v in got if v is not None]
            oversize += len(got) - len(lines)
            if not lines:
                continue
            piece = b"\n".join(lines) + b"\n"
            pieces.append(piece)
            size += len(piece)
            rows += len(lines)
            if size >= BLOCK:
                yield Block(data=b"".join(pieces), size=size, rows=rows)
                pieces, size, rows = [], 0, 0
        if rows:
            yield Block(data=b"".join(pieces), size=size, rows=rows)
    finally:
        close(batches)
    if oversize:
        yield from _oversize(
            stream, fields, fmt, f" from {place}{sql.filters(condition, where, f'{line} is null')}", oversize
        )


def unrendered(fields: Sequence[Field], fmt: Format) -> list[tuple[str, str]] | None:
    """Return what to select and its kind (`values.speed`) by field where lines can be written here in C, else None."""
    raw = [_raw(field, fmt) for field in fields] if speed.implementation == "c" else []
    known = [r for r in raw if r is not None]
    return known if known and len(known) == len(fields) else None


def unrendered_statement(table: Table, columns: Sequence[tuple[str, str]], where: str | None, keys: str = "") -> str:
    """Return the statement that reads unrendered columns."""
    place = sql.where_is((table.namespace, table.name))
    return f"select {', '.join(e for e, _ in columns)} from {place}{sql.filters(keys, where)}"


def encoded(batches: Iterator[Sequence[Raw]], kinds: bytes, dialect: speed.Dialect) -> Generator[Block]:
    """Write unrendered rows as lines in C: the server only reads, which takes it half the time."""
    try:
        pieces: list[bytes] = []
        size = rows = 0
        for batch in batches:
            piece = speed.encode_rows(batch, kinds, dialect)
            pieces.append(piece)
            size += len(piece)
            rows += len(batch)
            if size >= BLOCK:
                yield Block(data=b"".join(pieces), size=size, rows=rows)
                pieces, size, rows = [], 0, 0
        if rows:
            yield Block(data=b"".join(pieces), size=size, rows=rows)
    finally:
        close(batches)


def _raw(field: Field, fmt: Format) -> tuple[str, str] | None:
    """Return what to select and its kind (`values.speed`), None where a value could outgrow what the server can render."""
    if field.is_constant or field.expression is not None:
        return None
    e, type, form = checks.repaired(field), field.column.type, field.form
    match type:
        case Geometry():
            return (e, "b") if form == Form.NATIVE and fmt == "mytext" else None
        case Binary() if form in (Form.BYTES, Form.NATIVE):
            return e, "b"
        case Float(bits=bits):
            return (f"cast({e} as double)" if bits == 32 else e), "t"
        case Text() | Enum() | Set() if form not in (Form.BYTES, Form.INTERVAL, Form.JSON):
            return e, "r"
        case Text() | Enum() | Set() if form in (Form.BYTES, Form.INTERVAL):
            return None
        case Json() | Opaque():
            return e, "r"
        case Integer() | Decimal() | Date() | Timestamp() if "zerofill" not in field.column.native.lower():
            return e, "t"
        case Time() if form != Form.INTERVAL:
            return e, "t"
        case Binary():
            return None if form != Form.UUID else (_text(field, e, fmt), "t")
        case _:
            return _text(field, e, fmt), "r"


def close(batches: Iterator[Any]) -> None:
    """End a stream early where it can be."""
    close = getattr(batches, "close", None)
    if close is not None:
        close()


def _oversize(stream: Stream, fields: Sequence[Field], fmt: Format, tail: str, expected: int) -> Generator[Block]:
    from dblens.engines.mysql.rowtext import encoder

    found = 0
    encode = encoder(fields, fmt)
    for block in _rows(stream, fields, tail):
        data = encode(block.data)
        found += len(block.data)
        yield Block(data=data, size=len(data), rows=len(block.data))
    if found != expected:
        raise QueryFailed(
            f"{expected} rows are larger than the server's max_allowed_packet, {found} could be read again",
            hint="take a snapshot (the table was written meanwhile), or raise max_allowed_packet on the server",
        )


def _part(field: Field, fmt: Format) -> str:
    """Return the expression for one field of a line: never NULL but for values too large for the server to render."""
    e = checks.repaired(field)
    text = _text(field, e, fmt)
    if _escapable(field):
        for plain, escaped in _ESCAPES:
            text = f"replace({text}, {literal(plain)}, {literal(escaped)})"
    if field.is_constant:
        return "'\\\\N'" if field.constant is None else text
    if not field.column.nullable and not field.repairs and field.expression is None:
        return text
    return f"if({e} is null, '\\\\N', {text})"


def _escapable(field: Field) -> bool:
    """Return whether a field's text can hold a character that the block format escapes."""
    if field.is_constant or field.expression is not None:
        return field.form != Form.BYTES
    match field.column.type:
        case Text() | Enum() | Set():
            return field.form != Form.BYTES
        case Json() | Opaque():
            return True
        case Binary():
            return field.form not in (Form.BYTES, Form.NATIVE, Form.UUID)
        case _:
            return False


def _text(field: Field, e: str, fmt: Format) -> str:
    type, form = field.column.type, field.form
    plain = field.is_constant or field.expression is not None
    if plain:
        return f"cast({e} as char character set utf8mb4)" if form != Form.BYTES else _hex(e, fmt)
    match type:
        case Binary():
            if form == Form.UUID:
                return f"lower(insert(insert(insert(insert(hex({e}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-'))"
            return _hex(e, fmt) if form in (Form.BYTES, Form.NATIVE) else f"convert({e} using utf8mb4)"
        case Float():
            return checks.repaired_float(field)
        case Bits(length=n):
            if form in (Form.BITS, Form.NATIVE, Form.TEXT):
                return f"lpad(bin({e} + 0), {n or 1}, '0')"
            return f"concat({e} + 0)"
        case Year():
            return f"concat({e} + 0)"
        case Geometry():
            if form == Form.NATIVE:
                return _hex(e, "mytext")
            return f"concat(st_srid({e}), ':', lower(substr(hex({e}), 9)))"
        case Set(values=values) if form == Form.JSON:
            return _set_json(e, values)
        case Set() | Enum() | Text():
            if form == Form.BYTES:
                return _hex(f"convert({e} using utf8mb4)", fmt)
            if form == Form.INTERVAL and fmt == "pgtext":
                return (
                    f"concat(substring_index({e}, ' ', 1), ' mons ', substring_index(substring_index({e}, ' ', 2), ' ', -1), "
                    f"' days ', substring_index({e}, ' ', -1), ' microseconds')"
                )
            return f"convert({e} using utf8mb4)"
        case Time() if form == Form.INTERVAL:
            micros = f"concat(if({e} < 0, '-', ''), abs(time_to_sec({e})) * 1000000 + microsecond({e}))"
            return (
                f"concat('0 mons 0 days ', {micros}, ' microseconds')"
                if fmt == "pgtext"
                else f"concat('0 0 ', {micros})"
            )
        case _:
            if "zerofill" in field.column.native.lower():
                return f"concat({e} + 0)"
            return f"cast({e} as char character set utf8mb4)"


def _hex(e: str, fmt: Format) -> str:
    return f"concat('\\\\\\\\x', hex({e}))" if fmt == "pgtext" else f"hex({e})"


def _set_json(e: str, values: Sequence[str]) -> str:
    import json

    text = f"convert({e} using utf8mb4) collate utf8mb4_bin"
    members = ", ".join(
        f"if(find_in_set({literal(v)}, {text}), {literal(json.dumps(v, ensure_ascii=False))}, null)" for v in values
    )
    return f"if({e} is null, null, concat('[', concat_ws(', ', {members}), ']'))"


# ------------------------------------------------------------------------------------------------------------------- rows


def _rows(stream: Stream, fields: Sequence[Field], tail: str) -> Generator[Block]:
    shapes = [_exchange(field) for field in fields]
    batches = stream(f"select {', '.join(e for e, _ in shapes) or '1'}{tail}")
    kinds, singles = "".join(k for _, k in shapes).encode(), tuple(_SINGLES[k] for _, k in shapes)
    try:
        for batch in batches:
            rows = shape_rows(batch, kinds, singles) if shapes else [()] * len(batch)
            size = sum(len(v) for row in batch[:50] for v in row if v is not None) * max(len(batch) // 50, 1)
            yield Block(data=rows, size=size + 8 * len(rows) * len(fields), rows=len(rows))
    finally:
        close(batches)


_INT, _FLOAT, _TEXT, _OCTETS = "I", "F", "R", "-"
"""Kinds of `values.exchange`."""
_SINGLES: dict[str, Callable[[Any], Any]] = {
    _INT: int,
    _FLOAT: float,
    _TEXT: lambda v: bytes(v).decode(),
    _OCTETS: bytes,
}


def _exchange(field: Field) -> tuple[str, str]:
    """Return what to select for a field in `rows`, and the kind that makes its octets exchange values."""
    e, type, form = checks.repaired(field), field.column.type, field.form
    if form == Form.BYTES or (form == Form.NATIVE and isinstance(type, Binary)):
        if isinstance(type, (Text, Enum, Set)):
            return f"cast(convert({e} using utf8mb4) as binary)", _OCTETS
        return e, _OCTETS
    if form == Form.FLOAT and field.expression is not None:
        return f"cast({e} as double)", _FLOAT
    if field.is_constant or field.expression is not None:
        convert = {Form.INT: _INT, Form.FLOAT: _FLOAT}.get(form, _TEXT)
        return f"cast({e} as char character set utf8mb4)", convert
    if form == Form.INT:
        return (
            f"({e} + 0)" if isinstance(type, (Bits, Year)) or "zerofill" in field.column.native.lower() else e
        ), _INT
    if form == Form.FLOAT:
        return (f"cast({e} as double)" if isinstance(type, Float) and type.bits == 32 else e), _FLOAT
    if isinstance(type, (Text, Enum)) or (isinstance(type, Set) and form != Form.JSON):
        return e, _TEXT
    return _text(field, e, "rows"), _TEXT
