"""Columns of an answer: what they mean, and how the octets of their values become Python values, exactly.

The octets are those of the text protocol, in utf8mb4 and UTC. A whole column of a batch is converted at once; only where that fails,
value by value, and what is then still no value of its column's type is `Odd`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from pymysql.constants import FIELD_TYPE, FLAG

from dblens.engines.asking import Odd, Out
from dblens.engines.mysql.ask_wire import Column
from dblens.engines.mysql.driver import Raw
from dblens.schema.types import (
    Binary,
    Bits,
    DataType,
    Date,
    Decimal,
    Float,
    Geometry,
    Integer,
    Json,
    Text,
    Time,
    Timestamp,
    Year,
)
from dblens.values.codec import canonical
from dblens.values.forms import Form

Values = Sequence[bytes | None]
Convert = Callable[[Values], Sequence[Any]]
BINARY: Final = 63
"""The character set of octets."""
_VECTOR: Final = 242
_WHOLE = {
    FIELD_TYPE.TINY: (8, "tinyint"), FIELD_TYPE.SHORT: (16, "smallint"), FIELD_TYPE.INT24: (24, "mediumint"),
    FIELD_TYPE.LONG: (32, "int"), FIELD_TYPE.LONGLONG: (64, "bigint"),
}  # fmt: skip
_SIZES = (("tiny", 255), ("", 65_535), ("medium", 16_777_215))


def described(column: Column) -> tuple[Out, Convert]:
    """Return a column as people are told of it, and what converts its values."""
    type, native, form, convert = _meaning(column)
    stored = bool(column.table and column.origin)
    out = Out(
        name=column.name,
        type=type,
        native=native,
        form=form,
        namespace=column.namespace if stored else None,
        table=column.table if stored else None,
        column=column.origin if stored else None,
    )
    return out, convert


def rows_of(raw: Sequence[Raw], converts: Sequence[Convert]) -> list[tuple[Any, ...]]:
    """Return rows of values for rows of octets."""
    sides = [convert(side) for convert, side in zip(converts, zip(*raw, strict=True), strict=True)]
    return list(zip(*sides, strict=True))


def _meaning(column: Column) -> tuple[DataType, str, Form, Convert]:
    kind, flags = column.type, column.flags
    unsigned = bool(flags & FLAG.UNSIGNED)
    behind = column.decimals if column.decimals <= 6 else 6
    precise = f"({column.decimals})" if 0 < column.decimals <= 6 else ""
    if kind in _WHOLE:
        bits, native = _WHOLE[kind]
        sign = " unsigned" if unsigned else ""
        if not column.table and bits < 64:
            bits, native = 64, "bigint"  # what an expression yields may outgrow what it was announced as
        return Integer(bits, unsigned), native + sign, Form.INT, _whole(bits, unsigned)
    match kind:
        case FIELD_TYPE.DECIMAL | FIELD_TYPE.NEWDECIMAL:
            scale = column.decimals
            digits = max(column.length - (scale > 0) - (not unsigned), scale, 1)
            spelled = f"decimal({digits},{scale})" + (" unsigned" if unsigned else "")
            return Decimal(digits, scale, unsigned), spelled, Form.DECIMAL, _decimal(digits, scale)
        case FIELD_TYPE.FLOAT:
            return Float(32), "float", Form.FLOAT, _floats
        case FIELD_TYPE.DOUBLE:
            return Float(64), "double", Form.FLOAT, _floats
        case FIELD_TYPE.YEAR:
            return Year(), "year", Form.INT, _whole(16, unsigned=True)
        case FIELD_TYPE.DATE | FIELD_TYPE.NEWDATE:
            return Date(), "date", Form.DATE, _dates
        case FIELD_TYPE.DATETIME:
            return Timestamp(behind), f"datetime{precise}", Form.TIMESTAMP, _clocks
        case FIELD_TYPE.TIMESTAMP:
            return Timestamp(behind, zone=True), f"timestamp{precise}", Form.TIMESTAMPTZ, _instants
        case FIELD_TYPE.TIME:
            return Time(behind, span=True), f"time{precise}", Form.TIME, _times
        case FIELD_TYPE.BIT:
            return Bits(column.length or 1), f"bit({column.length or 1})", Form.BITS, _bits(column.length or 1)
        case FIELD_TYPE.JSON:
            return Json(), "json", Form.JSON, _documents
        case FIELD_TYPE.GEOMETRY:
            return Geometry(), "geometry", Form.GEOMETRY, _shapes
        case FIELD_TYPE.NULL:
            return Text(), "null", Form.TEXT, _texts
    if kind == _VECTOR:
        return Binary(), "vector", Form.BYTES, _octets
    return _string(column)


def _string(column: Column) -> tuple[DataType, str, Form, Convert]:
    fixed = column.type == FIELD_TYPE.STRING
    blob = column.type in (FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.BLOB)
    if column.charset == BINARY and not column.flags & (FLAG.ENUM | FLAG.SET):
        if blob:
            return (
                Binary(),
                next((n for n, size in _SIZES if column.length <= size), "long") + "blob",
                Form.BYTES,
                _octets,
            )
        length = column.length
        return Binary(length, fixed), f"{'' if fixed else 'var'}binary({length})", Form.BYTES, _octets
    if column.flags & (FLAG.ENUM | FLAG.SET):
        return Text(), "enum" if column.flags & FLAG.ENUM else "set", Form.TEXT, _texts
    if blob:
        return Text(), next((n for n, size in _SIZES if column.length <= 4 * size), "long") + "text", Form.TEXT, _texts
    length = column.length // 4
    return Text(length or None, fixed), f"{'' if fixed else 'var'}char({length})", Form.TEXT, _texts


# ------------------------------------------------------------------------------------------------------------ whole columns


def _one_by_one(values: Values, convert: Callable[[bytes], Any], odd: Callable[[bytes], Odd]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        try:
            found.append(convert(value))
        except ValueError:
            found.append(odd(value))
    return found


def _whole(bits: int, unsigned: bool) -> Convert:
    width = 32 if bits == 24 else bits
    low, high = (0, 2**width - 1) if unsigned else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)

    def within(value: bytes) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    def convert(values: Values) -> Sequence[Any]:
        try:
            found = [None if v is None else int(v) for v in values] if None in values else list(map(int, values))  # type: ignore[arg-type]
            present = [v for v in found if v is not None]
            if not present or (min(present) >= low and max(present) <= high):
                return found
        except ValueError:
            pass
        return _one_by_one(values, within, lambda v: Odd(canonical(Form.DECIMAL, v.decode()).decode(), Form.DECIMAL))  # type: ignore[union-attr]

    return convert


def _plain(values: Values) -> list[Any]:
    """Return texts of ASCII without line ends."""
    if None in values:
        return [None if v is None else v.decode() for v in values]
    return b"\n".join(values).decode().split("\n")  # type: ignore[arg-type]


def _decimal(digits: int, scale: int) -> Convert:
    def fits(value: bytes) -> str:
        whole, _, fraction = value.lstrip(b"-").partition(b".")
        if len(whole.lstrip(b"0")) > digits - scale or len(fraction.rstrip(b"0")) > scale:
            raise ValueError(value)
        return value.decode()

    longest = digits + (scale > 0)  # with a sign, or zeros in front, one more: looked at one by one

    def convert(values: Values) -> Sequence[Any]:
        if max((len(v) for v in values if v is not None), default=0) > longest:
            return _one_by_one(
                values, fits, lambda v: Odd((canonical(Form.DECIMAL, v.decode()) or b"").decode(), Form.DECIMAL)
            )
        return _plain(values)

    return convert


def _floats(values: Values) -> Sequence[Any]:
    if None in values:
        return [None if v is None else float(v) for v in values]
    return list(map(float, values))  # type: ignore[arg-type]


def _octets(values: Values) -> Sequence[Any]:
    return values


def _texts(values: Values) -> Sequence[Any]:
    try:
        if None in values:
            return [None if v is None else v.decode() for v in values]
        return list(map(bytes.decode, values))  # type: ignore[arg-type]
    except UnicodeDecodeError:
        return _one_by_one(values, bytes.decode, lambda v: Odd(v.hex(), Form.BYTES))


def _moments(read: Callable[[str], Any], form: Form, behind: str = "") -> Convert:
    def one(value: bytes) -> Any:
        return read(value.decode() + behind)

    def odd(value: bytes) -> Odd:
        text = value.decode()
        return Odd(text.rstrip("0").rstrip(".") if "." in text else text, form)

    def convert(values: Values) -> Sequence[Any]:
        try:
            if None in values:
                return [None if v is None else read(v.decode() + behind) for v in values]
            return list(map(read, ((behind + "\n").join(_plain(values)) + behind).split("\n")))
        except ValueError:
            return _one_by_one(values, one, odd)

    return convert


_dates = _moments(dt.date.fromisoformat, Form.DATE)
_clocks = _moments(dt.datetime.fromisoformat, Form.TIMESTAMP)
_instants = _moments(dt.datetime.fromisoformat, Form.TIMESTAMPTZ, "+00:00")


def _times(values: Values) -> Sequence[Any]:
    return [None if v is None else (v.rstrip(b"0").rstrip(b".") if b"." in v else v).decode() for v in values]


def _bits(length: int) -> Convert:
    def convert(values: Values) -> Sequence[Any]:
        return [None if v is None else f"{int.from_bytes(v, 'big'):0{length}b}" for v in values]

    return convert


def _documents(values: Values) -> Sequence[Any]:
    return [None if v is None else (canonical(Form.JSON, v.decode()) or b"").decode() for v in values]


def _shapes(values: Values) -> Sequence[Any]:
    return [None if v is None else f"{int.from_bytes(v[:4], 'little')}:{v[4:].hex()}" for v in values]
