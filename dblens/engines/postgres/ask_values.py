"""Values: parameters to the server's texts, and the texts of rows to Python values, exactly.

psycopg's C code reads whole rows; what it cannot (infinity, years before 1 and beyond 9999, 24:00:00) is read again as text and is
`Odd`. What it would read into types that lose something, or that are not the contract's, is read as text and made here, column by column.
"""

from __future__ import annotations

import datetime as dt
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal as Number
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.types.bool import BoolLoader
from psycopg.types.datetime import DateLoader, TimeLoader, TimestampLoader, TimestamptzLoader
from psycopg.types.numeric import FloatLoader, IntLoader
from psycopg.types.string import ByteaLoader, TextLoader

from dblens.engines.asking import Odd
from dblens.engines.postgres.ask_types import Column
from dblens.engines.postgres.link import Link
from dblens.errors import InvalidInput, QueryFailed
from dblens.schema.types import (
    Array,
    Boolean,
    DataType,
    Date,
    Decimal,
    Float,
    Integer,
    Interval,
    Json,
    Time,
    Timestamp,
)
from dblens.values import speed
from dblens.values.codec import canonical
from dblens.values.forms import Form
from dblens.values.jsontext import json_text

Rows = list[tuple[Any, ...]]
Finish = Callable[[Sequence[Any]], Sequence[Any]]

_PLAIN: Final = {
    16: BoolLoader,
    17: ByteaLoader,
    20: IntLoader,
    21: IntLoader,
    23: IntLoader,
    26: IntLoader,
    700: FloatLoader,
    701: FloatLoader,
}
_MOMENTS: Final = {1082: DateLoader, 1083: TimeLoader, 1114: TimestampLoader, 1184: TimestamptzLoader}
_MONEY: Final = 790
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})


# --------------------------------------------------------------------------------------------------------------- parameters


class Given(NamedTuple):
    """Parameters as libpq takes them."""

    values: list[Any]
    types: tuple[int, ...]
    formats: list[Any]


def given(link: Link, params: Sequence[object]) -> Given:
    """Return parameters as the server takes them. Raises InvalidInput for what PostgreSQL has no type for."""
    if not params:
        return Given([], (), [])
    transformer = Transformer(psycopg.Cursor(link.db))
    try:
        values = transformer.dump_sequence([_dumped(value) for value in params], [PyFormat.AUTO] * len(params))
    except (psycopg.Error, ValueError, OverflowError) as error:
        raise InvalidInput(f"a parameter is no value of PostgreSQL: {error}", hint="pass it as text") from error
    return Given(list(values), tuple(transformer.types or ()), list(transformer.formats or ()))


def _dumped(value: object) -> object:
    if isinstance(value, Odd):
        return value.text
    if isinstance(value, Mapping):
        return json_text(dict(value))
    return list(value) if isinstance(value, tuple) else value


# --------------------------------------------------------------------------------------------------------------------- rows


class Reader:
    """Reads the rows of one answer. `minor`: digits of money behind the point."""

    def __init__(self, link: Link, columns: Sequence[Column], minor: int) -> None:
        self._columns = columns
        self._fast, self._texts = _transformer(link, _PLAIN | _MOMENTS), _transformer(link, _PLAIN)
        self._finish = [(i, f) for i, c in enumerate(columns) if (f := _finish(c, minor)) is not None]
        self._moments = [i for i, c in enumerate(columns) if c.oid in _MOMENTS]
        self._first = True

    def rows(self, result: Any) -> Rows:
        """Return the rows of a part of the answer as psycopg reads them."""
        try:
            self._fast.set_pgresult(result, set_loaders=self._first)
            if self._first:
                self._texts.set_pgresult(result)
                self._first = False
            if result.ntuples == 1:
                return [self._fast.load_row(0, tuple)]
            rows: Rows = self._fast.load_rows(0, result.ntuples, tuple)
            return rows
        except (psycopg.DataError, ValueError, OverflowError, NotImplementedError):
            return self._slowly(result)

    def _slowly(self, result: Any) -> Rows:
        """Read moments by their texts: some of them are beyond Python's calendar."""
        self._texts.set_pgresult(result)
        try:
            rows = self._texts.load_rows(0, result.ntuples, tuple)
        except UnicodeDecodeError as error:
            raise QueryFailed(
                f"the answer holds a text that is not UTF-8, octet {error.start + 1} of it is 0x{error.object[error.start]:02x}",
                hint="the database's encoding is SQL_ASCII: convert the column, or read it as bytea",
            ) from error
        found = []
        for row in rows:
            cells = list(row)
            for i in self._moments:
                if cells[i] is not None:
                    cells[i] = _moment(cells[i], self._columns[i].out.form)
            found.append(tuple(cells))
        return found

    def finished(self, rows: Rows) -> Rows:
        """Return rows with the values that the contract wants of what psycopg read as text."""
        if not self._finish or not rows:
            return rows
        sides: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for i, finish in self._finish:
            try:
                sides[i] = finish(sides[i])
            except (ValueError, ArithmeticError) as error:
                out = self._columns[i].out
                raise QueryFailed(
                    f"column {out.name!r} ({out.native}) holds a value that is not read: {error}",
                    hint="cast the column to text in the query",
                ) from error
        return list(zip(*sides, strict=True))


def _transformer(link: Link, loaders: Mapping[int, Any]) -> Any:
    """Return what reads rows: everything as text, but what is listed."""
    cursor = psycopg.Cursor(link.db)
    adapters = AdaptersMap()
    adapters.register_loader(0, TextLoader)
    for oid, loader in loaders.items():
        adapters.register_loader(oid, loader)
    cursor._adapters = adapters
    return Transformer(cursor)


def _moment(text: str, form: Form) -> Any:
    """Return a moment, `Odd` where Python has none."""
    try:
        if form is Form.DATE:
            return dt.date.fromisoformat(text)
        if form is Form.TIME:
            return dt.time.fromisoformat(text)
        found = dt.datetime.fromisoformat(text)
        if form is Form.TIMESTAMPTZ:
            found = found.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return Odd((canonical(form, text) or b"").decode(), form)
    return found


# ------------------------------------------------------------------------------------------------------------------ columns


def _finish(column: Column, minor: int) -> Finish | None:
    type = column.out.type
    match type:
        case Decimal() if column.oid == _MONEY:
            return lambda values: [None if v is None else _money(v, minor) for v in values]
        case Decimal(precision=None):
            return _canonical_numbers
        case Decimal():
            return _numbers
        case Float(bits=32):
            return _singles
        case Interval():
            return _intervals
        case Json():
            return _documents
        case Array():
            write = _item(type.item)
            return lambda values: [None if v is None else json_array(v, write) for v in values]
    return None


def _canonical_numbers(values: Sequence[str | None]) -> Sequence[str | None]:
    return [v if v is None or "." not in v else v.rstrip("0").rstrip(".") for v in values]


def _numbers(values: Sequence[str | None]) -> Sequence[Any]:
    if any(special in values for special in _NOT_FINITE):
        return [Odd(v, Form.DECIMAL) if v in _NOT_FINITE else v for v in values]
    return values


def _singles(values: Sequence[float | None]) -> Sequence[float | None]:
    """Return the singles themselves: their shortest digits, read as a double, are another number."""
    try:
        return array("f", values).tolist()  # type: ignore[type-var]
    except TypeError:
        return [None if v is None else array("f", (v,))[0] for v in values]


def _money(text: str, minor: int) -> str:
    """Return money as plain digits: its text is spelled by the server's locale, with so many digits behind the point."""
    digits = "".join([c for c in text if c.isdigit()])
    number = Number(int(digits)).scaleb(-minor)
    return format(-number if "-" in text or "(" in text else number, "f")


_INTERVAL = re.compile(
    r"(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?",
    re.ASCII,
)


def _intervals(values: Sequence[str | None]) -> Sequence[str | None]:
    return [None if v is None else interval_text(v) for v in values]


def interval_text(text: str) -> str:
    """Return an interval's canonical text for the server's. Raises ValueError for what is none."""
    if text in ("infinity", "-infinity"):
        return text
    found = _INTERVAL.fullmatch(text)
    if found is None or not text:
        raise ValueError(f"not an interval: {text[:80]!r}")
    years, months, days, sign, hours, minutes, seconds, fraction = found.groups()
    micros = (int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) * 1_000_000
    micros += int((fraction or "").ljust(6, "0"))
    return f"{int(years or 0) * 12 + int(months or 0)} {int(days or 0)} {-micros if sign == '-' else micros}"


def _documents(values: Sequence[str | None]) -> Sequence[str | None]:
    texts = speed.render_rows([(value,) for value in values], b"j")
    return [None if text is None else text.decode() for (text,) in texts]


# ------------------------------------------------------------------------------------------------------------------- arrays

Write = Callable[[str], str]
_TOKEN = re.compile(r'[{}]|,|"((?:[^"\\]|\\.)*+)"|((?:[^{},"\\]|\\.)++)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BOUNDS = re.compile(r"(?:\[[+-]?\d+:[+-]?\d+\])+=")


def json_array(text: str, write: Write) -> str:
    """Return the JSON text of an array's literal, as `to_jsonb` writes it. Raises ValueError for what is none."""
    bounds = _BOUNDS.match(text)
    at = bounds.end() if bounds else 0
    pieces: list[str] = []
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"not an array: {text[:80]!r}")
        at = found.end()
        if found[1] is not None:
            pieces.append(write(_ESCAPED.sub(r"\1", found[1])))
        elif found[2] is not None:
            bare = _ESCAPED.sub(r"\1", found[2])
            pieces.append("null" if bare.upper() == "NULL" else write(bare))
        else:
            pieces.append({"{": "[", "}": "]"}.get(found[0], ","))
    return "".join(pieces)


def _item(type: DataType) -> Write:
    match type:
        case Boolean():
            return lambda text: "true" if text == "t" else "false"
        case Integer() | Decimal():
            return lambda text: _string(text) if text in _NOT_FINITE else (json_text(text) if "." in text else text)
        case Float():
            return lambda text: _string(text) if text in _NOT_FINITE else json_text(text)
        case Json():
            return json_text
        case Timestamp(zone=False):
            return lambda text: _string(text.replace(" ", "T", 1) if text[:1].isdigit() else text)
        case Timestamp():
            return _instant
        case Date() | Time():
            return _string
    return _string


def _instant(text: str) -> str:
    if not text[:1].isdigit():
        return _string(text)
    return _string(re.sub(r"([+-]\d\d)( BC)?$", r"\1:00\2", text.replace(" ", "T", 1)))


def _string(text: str) -> str:
    return json_text([text])[1:-1]


def minor_digits(one: str) -> int:
    """Return how many digits money has behind the point, from the text of one unit."""
    return max(0, len([c for c in one if c.isdigit()]) - 1)
