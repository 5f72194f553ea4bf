"""The copier's reader: stored values to blocks in the target's load format. Shares nothing with `canonical`.

Texts are fetched as str, which keeps them apart from blobs; load text is written by `values.speed`.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from dblens.engines.base import Block, Field, Format, KeyRange
from dblens.engines.sqlite.checks import repaired
from dblens.engines.sqlite.ddl import where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.keys import range_condition
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Table
from dblens.values import speed
from dblens.values.forms import Form

_MOST_ROWS = 1000
_BATCH_OCTETS = 512 * 1024
_BLOCK = 192 * 1024
_NULL = type(None)
_TEXT_FORMATS = frozenset(
    {Form.INT, Form.FLOAT, Form.DECIMAL, Form.TEXT, Form.BYTES, Form.DATE, Form.TIME, Form.TIMESTAMP, Form.TIMESTAMPTZ}
    | {Form.UUID, Form.JSON, Form.BITS, Form.DOCUMENT}
)  # fmt: skip
_ANY = frozenset({Form.DYNAMIC, Form.NATIVE})
_OFFSET = re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d:\d\d(?::\d\d)?)(\.\d+)?([+-]\d\d:?\d\d)", re.ASCII)


def formats_out(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats that these fields can be exported in."""
    forms = {f.form for f in fields}
    if forms <= _TEXT_FORMATS and fields:
        return ("pgtext", "mytext", "rows")
    return ("rows",)


def export(
    db: Db, table: Table, fields: Sequence[Field], fmt: Format, keys: KeyRange, where: str | None
) -> Generator[Block]:
    """Stream a table's fields as blocks. Raises InvalidInput for a value that its form cannot hold, naming the column."""
    bound, params = range_condition(keys)
    conditions = [c for c in (bound, f"({where})" if where else "") if c]
    statement = f"SELECT {', '.join(map(repaired, fields)) or 'NULL'} FROM {where_is((table.namespace, table.name))}"
    if conditions:
        statement += " WHERE " + " AND ".join(conditions)
    match fmt:
        case "pgtext" | "mytext":
            yield from _text_blocks(db, statement, params, fields, fmt)
        case "rows":
            yield from _row_blocks(db, statement, params, fields)
        case _:
            raise Unsupported(f"exporting from SQLite as {fmt}", "it knows pgtext, mytext and rows")


# ----------------------------------------------------------------------------------------------------------------- single values


def _refused(field: Field, value: object) -> InvalidInput:
    shown = value[:40] if isinstance(value, (bytes, str)) else value
    return InvalidInput(
        f"column {field.column.name!r} holds {shown!r}, which is no {field.form}",
        hint="the data changed since the plan, or a loss was not accepted: plan again",
    )


def _digits(value: float) -> str:
    """Return a finite double's shortest digits without exponent."""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text.removesuffix(".0")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    point = len(whole) + int(exponent)
    digits = whole + fraction
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}".rstrip("0")
    return sign + (digits.ljust(point, "0") if point >= len(digits) else f"{digits[:point]}.{digits[point:]}")


def _utc(text: str) -> str:
    """Return an instant in UTC without offset: `Z` is dropped, an offset reckoned in."""
    if text.endswith("Z"):
        return text[:-1].replace("T", " ")
    match = _OFFSET.fullmatch(text)
    if match is None:
        return text
    cut = match[6].replace(":", "")
    offset = dt.timedelta(hours=int(cut[1:3]), minutes=int(cut[3:5])) * (1 if cut[0] == "+" else -1)
    moment = dt.datetime.fromisoformat(f"{match[1]}-{match[2]}-{match[3]} {match[4]}") - offset
    return f"{moment.year:04d}{moment:-%m-%d %H:%M:%S}{match[5] or ''}"


def spelled(field: Field, value: Any) -> str:
    """Return any value as the text of its form. Raises InvalidInput."""
    form = field.form
    try:
        if isinstance(value, str) and form != Form.BYTES:
            if form == Form.TIMESTAMPTZ:
                return _utc(value)
            return value.replace("T", " ", 1) if form == Form.TIMESTAMP else value
        if isinstance(value, int) and form not in (Form.BYTES, Form.DATE, Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.TIME):
            return str(value)
        if isinstance(value, float):
            if form in (Form.FLOAT, Form.DECIMAL, Form.TEXT):
                if math.isinf(value):
                    return "Infinity" if value > 0 else "-Infinity"
                if form == Form.DECIMAL and value == 0:
                    return "0"
                return _digits(value)
            if form in (Form.INT, Form.JSON) and value == int(value):
                return str(int(value))
    except (OverflowError, ValueError) as error:
        raise _refused(field, value) from error
    raise _refused(field, value)


# ------------------------------------------------------------------------------------------------------------------ text blocks


_KINDS = {
    Form.INT: "i",
    Form.FLOAT: "f",
    Form.DECIMAL: "N",
    Form.BYTES: "b",
    Form.TIMESTAMP: "W",
    Form.TIMESTAMPTZ: "Z",
}
"""Kinds of `values.speed` that take what a form plainly is, text where none is named; other values are spelled out by `_single`."""


def _single(field: Field, fmt: Format) -> Callable[[Any], bytes]:
    """Return what writes one value of a field that is out of the ordinary."""
    # A null character is for the target to refuse, with its own words.
    escapes = [(b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r")]
    if fmt == "mytext":
        escapes.append((b"\0", b"\\0"))

    def write(value: Any) -> bytes:
        octets = spelled(field, value).encode()
        for plain, escaped in escapes:
            octets = octets.replace(plain, escaped)
        return octets

    return write


def _text_blocks(
    db: Db, statement: str, params: Sequence[object], fields: Sequence[Field], fmt: Format
) -> Generator[Block]:
    kinds = "".join(_KINDS.get(f.form, "S") for f in fields).encode()
    singles = tuple(_single(f, fmt) for f in fields)
    dialect: speed.Dialect = "mytext" if fmt == "mytext" else "pgtext"
    parts: list[bytes] = []
    size = count = 0
    for rows in db.batches(statement, params, str, _MOST_ROWS, _BATCH_OCTETS):
        octets = speed.encode_rows(rows, kinds, dialect, singles)
        parts.append(octets)
        size += len(octets)
        count += len(rows)
        if size >= _BLOCK:
            yield Block(data=b"".join(parts), size=size, rows=count)
            parts, size, count = [], 0, 0
    if parts:
        yield Block(data=b"".join(parts), size=size, rows=count)


# ------------------------------------------------------------------------------------------------------------------- row blocks


def _row_blocks(db: Db, statement: str, params: Sequence[object], fields: Sequence[Field]) -> Generator[Block]:
    anything = any(f.form in _ANY for f in fields)
    # Between two SQLite files text may be any octets; the loader binds what is not UTF-8 as such.
    text: Any = partial(str, encoding="utf-8", errors="surrogateescape") if anything else str
    converters = [_converter(f) for f in fields]
    for rows in db.batches(statement, params, text, _MOST_ROWS, _BATCH_OCTETS):
        data = rows
        if fields and any(converters):
            columns = [
                convert(values) if convert else values
                for convert, values in zip(converters, zip(*rows, strict=True), strict=True)
            ]
            data = list(zip(*columns, strict=True))
        elif not fields:
            data = [()] * len(rows)
        sample = rows[:: max(1, len(rows) // 8)]
        width = sum(len(v) if isinstance(v, (str, bytes)) else 8 for row in sample for v in row) // len(sample)
        yield Block(data=data, size=(width + 8) * len(rows), rows=len(rows))


def _converter(field: Field) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """Return what turns a column of driver values into exchange values, None when they are the same."""
    form = field.form
    if form in _ANY:
        return None
    wanted: set[type] = {{Form.INT: int, Form.FLOAT: float, Form.BYTES: bytes}.get(form, str), _NULL}
    moments = form in (Form.TIMESTAMP, Form.TIMESTAMPTZ)

    def convert(column: Sequence[Any]) -> Sequence[Any]:
        if set(map(type, column)) <= wanted and not moments:
            return column
        return [None if v is None else _exchange(field, v) for v in column]

    return convert


def _exchange(field: Field, value: Any) -> Any:
    form = field.form
    if form == Form.INT:
        try:
            return value if isinstance(value, int) else int(spelled(field, value))
        except ValueError as error:
            raise _refused(field, value) from error
    if form == Form.FLOAT:
        if isinstance(value, int) and int(float(value)) == value:
            return float(value)
        if isinstance(value, float):
            return value
        raise _refused(field, value)
    if form == Form.BYTES:
        if isinstance(value, bytes):
            return value
        raise _refused(field, value)
    return spelled(field, value)
