"""What the columns of an answer are, and their values as the contract's Python values.

SQLite binds no type to a column. The declared type is taken where the first rows hold nothing that contradicts it; without one, the storage class
of the first rows is. A value that does not fit its column is `Odd`, never converted: a text is a date only when it is spelled as DBLens writes dates.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from decimal import Decimal as Exact
from typing import Any

from dblens.engines.asking import Odd, Out
from dblens.engines.sqlite import types
from dblens.errors import InvalidInput
from dblens.schema.types import (
    Binary,
    Boolean,
    DataType,
    Date,
    Decimal,
    Dynamic,
    Float,
    Integer,
    Json,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values.codec import canonical
from dblens.values.forms import Form

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:\.(\d{1,6}))?", re.ASCII)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z?)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
Reader = Callable[[Any], Any]
"""From a stored value to the contract's; raises ValueError for one that the column's type does not hold exactly."""


class Column:
    """One column of an answer and how its values are read."""

    def __init__(self, name: str, native: str, head: Sequence[Any]) -> None:
        found = {type(value) for value in head} - {type(None)}
        self.type, self.form, self._class, self._reader = _declared(native)
        if self.form is Form.DYNAMIC or (found and not self._holds(head)):
            self.type, self.form, self._class, self._reader = _by_class(found)
        self.out = Out(name=name, type=self.type, native=native, form=self.form)

    def _holds(self, head: Sequence[Any]) -> bool:
        """Say whether a declared type fits: any value for a plain one, all values for one that gives texts or numbers a meaning."""
        if self._reader is None:
            return any(type(value) is self._class and not _broken(value) for value in head)
        return all(value is None or not isinstance(self._read(value), Odd) for value in head)

    def _read(self, value: Any) -> Any:
        if value is None:
            return None
        if type(value) is self._class and self._reader is None and not _broken(value):
            return value
        if _broken(value):
            return Odd(f"t:{value}", Form.DYNAMIC)  # its octets stay lone surrogates, as everywhere in that form
        if self.form is Form.DYNAMIC:
            return _dynamic(value)
        try:
            if self._reader is not None:
                return self._reader(value)
        except (ValueError, ArithmeticError):
            pass  # it is odd, which the next line says
        return Odd(_dynamic(value), Form.DYNAMIC)

    def values(self, stored: Sequence[Any], cell: int, row: int) -> Sequence[Any]:
        """Return a batch's values. Raises InvalidInput for a cell of more than `cell` octets; `row` is the number of the first one."""
        classes = set(map(type, stored))
        if str in classes:
            texts = [v for v in stored if type(v) is str]
            try:
                long = len("".join(texts).encode()) > cell
                clean = True
            except UnicodeEncodeError:
                clean, long = False, True
        else:
            clean, long = True, False
        if long or (bytes in classes and sum(len(v) for v in stored if type(v) is bytes) > cell):
            self._measure(stored, cell, row)
        if clean and self._reader is None and classes <= {self._class, type(None)}:
            return stored
        if clean and self._reader is not None:
            read = self._reader
            try:
                return [None if value is None else read(value) for value in stored]
            except (ValueError, ArithmeticError):
                pass  # some are odd: which, is seen one by one
        return [self._read(value) for value in stored]

    def _measure(self, stored: Sequence[Any], cell: int, row: int) -> None:
        for number, value in enumerate(stored, row):
            octets = len(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0  # fmt: skip
            if octets > cell:
                raise InvalidInput(
                    f"the cell of column {self.out.name!r} in row {number} has {octets} octets; at most {cell} are shown",
                    hint="take a part of it: substr(column, 1, 1000)",
                )


def _broken(value: Any) -> bool:
    """Say whether a text is not UTF-8: its octets came as lone surrogates."""
    if type(value) is not str or value.isascii():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _dynamic(value: Any) -> str:
    text = canonical(Form.DYNAMIC, value)
    assert text is not None, "NULL is no odd value"
    return text.decode()


def _by_class(found: set[type]) -> tuple[DataType, Form, type | None, Reader | None]:
    if found == {int}:
        return Integer(64), Form.INT, int, None
    if found == {float}:
        return Float(64), Form.FLOAT, float, None
    if found == {str}:
        return Text(), Form.TEXT, str, None
    if found == {bytes}:
        return Binary(), Form.BYTES, bytes, None
    names = {int: "integer", float: "real", str: "text", bytes: "blob"}
    return Dynamic(tuple(name for kind, name in names.items() if kind in found)), Form.DYNAMIC, None, None


def _declared(native: str) -> tuple[DataType, Form, type | None, Reader | None]:
    """Return what a declared type means, the class of its values where they are stored as they are, and the reader of others."""
    type = types.parse(native)
    match type:
        case Integer():
            return Integer(64), Form.INT, int, None  # no length binds: a TINYINT holds 64 bits
        case Float():
            return Float(64), Form.FLOAT, float, None
        case Text():
            return type, Form.TEXT, str, None
        case Json():
            return type, Form.TEXT, str, None  # the text as it is stored
        case Binary():
            return type, Form.BYTES, bytes, None
        case Boolean():
            return type, Form.INT, None, _boolean
        case Year():
            return type, Form.INT, int, None
        case Date():
            return type, Form.DATE, None, _date
        case Time(zone=False):
            return type, Form.TIME, None, _time
        case Timestamp(zone=zone):
            return type, Form.TIMESTAMPTZ if zone else Form.TIMESTAMP, None, _instant if zone else _timestamp
        case Uuid():
            return type, Form.UUID, None, _uuid
        case Decimal(precision=None):
            return type, Form.DECIMAL, None, _plain
        case Decimal(precision=p, scale=s) if p is not None and p <= 76:
            return type, Form.DECIMAL, None, lambda value: _decimal(value, p, s or 0)
    return Dynamic(), Form.DYNAMIC, None, None


def _boolean(value: Any) -> bool:
    if type(value) is int and value in (0, 1):
        return value == 1
    raise ValueError(value)


def _date(value: Any) -> dt.date:
    if type(value) is str and _DATE.fullmatch(value):
        return dt.date.fromisoformat(value)
    raise ValueError(value)


def _time(value: Any) -> dt.time:
    match = _TIME.fullmatch(value) if type(value) is str else None
    if match is None or (match[1] or "1").endswith("0"):
        raise ValueError(value)
    return dt.time.fromisoformat(_six(value, match[1]))


def _six(text: str, fraction: str | None) -> str:
    return text + "0" * (6 - len(fraction)) if fraction else text


def _stamp(value: Any, zone: str) -> dt.datetime:
    match = _STAMP.fullmatch(value) if type(value) is str else None
    if match is None or match[2] != zone or (match[1] or "1").endswith("0"):
        raise ValueError(value)
    return dt.datetime.fromisoformat(_six(value.removesuffix("Z"), match[1]))


def _timestamp(value: Any) -> dt.datetime:
    return _stamp(value, "")


def _instant(value: Any) -> dt.datetime:
    return _stamp(value, "Z").replace(tzinfo=dt.UTC)


def _uuid(value: Any) -> str:
    if type(value) is str and _UUID.fullmatch(value):
        return value
    raise ValueError(value)


def _number(value: Any) -> Exact:
    """Return the number that a value of a numeric column is, by its shortest digits: column's affinity gives the same value back."""
    if type(value) is int:
        return Exact(value)
    if type(value) is not float or str(value) in ("-0.0", "inf", "-inf"):
        raise ValueError(value)
    return Exact(repr(value))


def _decimal(value: Any, precision: int, scale: int) -> Exact:
    number = _number(value)
    if number.adjusted() >= precision - scale or number != round(number, scale):
        raise ValueError(value)
    return number


def _plain(value: Any) -> str:
    if type(value) is float:
        text = repr(value)  # the shortest digits, and no more zeros than one behind the point
        if "e" not in text and "n" not in text and text != "-0.0":
            return text[:-2] if text.endswith(".0") else text
    text = format(_number(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
