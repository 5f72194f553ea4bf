"""The copier's reader: stored values to blocks in the target's load format. Shares nothing with `canonical`.

A batch of rows is turned on its side, each column converted or escaped as a whole (one search over all its texts finds out that nothing
has to be escaped), and lines are put together by one format: 2.5 µs a row of 12 columns. Texts are fetched as bytearray, which keeps
them apart from blobs.
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
        case "pgtext":
            yield from _text_blocks(db, statement, params, [_PgText(f) for f in fields])
        case "mytext":
            yield from _text_blocks(db, statement, params, [_MyText(f) for f in fields])
        case "rows":
            yield from _row_blocks(db, statement, params, fields)
        case _:
            raise Unsupported(f"exporting from SQLite as {fmt}", "it knows pgtext, mytext and rows")


# ----------------------------------------------------------------------------------------------------------------- single values


def _refused(field: Field, value: object) -> InvalidInput:
    shown = bytes(value[:40]) if isinstance(value, (bytes, bytearray)) else value
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
        if isinstance(value, (bytearray, str)):
            text = value.decode() if isinstance(value, bytearray) else value
            if form == Form.TIMESTAMPTZ:
                return _utc(text)
            return text.replace("T", " ", 1) if form == Form.TIMESTAMP else text
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
    except (UnicodeDecodeError, OverflowError, ValueError) as error:
        raise _refused(field, value) from error
    raise _refused(field, value)


# ------------------------------------------------------------------------------------------------------------------ text blocks


class _PgText:
    """Converts a column for COPY text: `format` and `feed` give what a row's format string takes."""

    escapes: tuple[tuple[bytes, bytes], ...] = ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r"))
    hexadecimal = b"\\\\x"

    def __init__(self, field: Field) -> None:
        self.field = field

    def feed(self, column: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
        """Return the conversion in the row's format and the column as it takes it."""
        kinds = set(map(type, column))
        form = self.field.form
        if kinds == {int} and form in (Form.INT, Form.DECIMAL, Form.TEXT):
            return b"%d", column
        if kinds == {float} and form == Form.FLOAT:
            return b"%a", column
        holes = _NULL in kinds
        kinds.discard(_NULL)
        if kinds == {bytearray} and form not in (Form.BYTES, Form.FLOAT):
            return b"%b", self._texts(column, holes)
        if kinds == {bytes} and form == Form.BYTES:
            prefix = self.hexadecimal
            return b"%b", [b"\\N" if v is None else prefix + v.hex().encode() for v in column]
        if kinds == {int} and form in (Form.INT, Form.DECIMAL, Form.TEXT):
            return b"%b", [b"\\N" if v is None else b"%d" % v for v in column]
        if kinds == {float} and form == Form.FLOAT:
            return b"%b", [b"\\N" if v is None else b"%a" % v for v in column]
        return b"%b", [b"\\N" if v is None else self._single(v) for v in column]

    def _texts(self, column: Sequence[Any], holes: bool) -> Sequence[Any]:
        if self.field.form in (Form.TIMESTAMPTZ, Form.TIMESTAMP):
            column = [None if v is None else self._moment(v) for v in column]
        # 0xFF is in no UTF-8 text, so it keeps values apart while all of them are searched and replaced at once.
        joined = b"\xff".join([v for v in column if v is not None] if holes else column)
        if any(plain in joined for plain, _ in self.escapes):
            for plain, escaped in self.escapes:
                joined = joined.replace(plain, escaped)
            values = joined.split(b"\xff")
            if len(values) != len(column) - (column.count(None) if holes else 0):
                return [b"\\N" if v is None else bytes(v) for v in column]  # not UTF-8: `_check_text` says where
            if not holes:
                column = values
            else:
                found = iter(values)
                column = [None if v is None else next(found) for v in column]
        return [b"\\N" if v is None else v for v in column] if holes else column

    def _moment(self, value: bytearray) -> bytearray | bytes:
        if self.field.form == Form.TIMESTAMP:
            return value.replace(b"T", b" ", 1) if value[10:11] == b"T" else value
        if value[-1:] == b"Z" and value[10:11] == b" ":
            return value[:-1]
        return spelled(self.field, value).encode()

    def _single(self, value: Any) -> bytes:
        if isinstance(value, bytes) and self.field.form == Form.BYTES:
            return self.hexadecimal + value.hex().encode()
        octets = spelled(self.field, value).encode()
        for plain, escaped in self.escapes:
            octets = octets.replace(plain, escaped)
        return octets


class _MyText(_PgText):
    """Converts a column for LOAD DATA."""

    escapes = (*_PgText.escapes, (b"\0", b"\\0"))
    hexadecimal = b""


def _text_blocks(db: Db, statement: str, params: Sequence[object], columns: Sequence[_PgText]) -> Generator[Block]:
    parts: list[bytes] = []
    size = count = 0
    for rows in db.batches(statement, params, bytearray, _MOST_ROWS, _BATCH_OCTETS):
        fed = [c.feed(values) for c, values in zip(columns, zip(*rows, strict=True), strict=True)]
        line = b"\t".join(conversion for conversion, _ in fed) + b"\n"
        octets = b"".join(map(line.__mod__, zip(*(values for _, values in fed), strict=True)))
        _check_text(octets, rows, columns)
        parts.append(octets)
        size += len(octets)
        count += len(rows)
        if size >= _BLOCK:
            yield Block(data=b"".join(parts), size=size, rows=count)
            parts, size, count = [], 0, 0
    if parts:
        yield Block(data=b"".join(parts), size=size, rows=count)


def _check_text(octets: bytes, rows: Sequence[tuple[Any, ...]], columns: Sequence[_PgText]) -> None:
    """Refuse text that is not UTF-8, before the target sees it."""
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        for row in rows:
            for column, value in zip(columns, row, strict=True):
                if isinstance(value, bytearray):
                    try:
                        value.decode()
                    except UnicodeDecodeError:
                        raise InvalidInput(
                            f"column {column.field.column.name!r} holds text that is not UTF-8: {bytes(value[:40])!r}",
                            hint="clean the value, or map the column to octets by a rule (expression: CAST(col AS BLOB))",
                        ) from error
        raise AssertionError("the block is not UTF-8, its values are") from error


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
