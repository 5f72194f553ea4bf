"""The client's half of the canonical codec: a driver's value to its canonical text.

Written from the definition in `forms`, independently of the engines' SQL and of the copier; property tests compare the three.
Everything here raises `ValueError` on a value that the form cannot hold, never guesses.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal

from dblens.values.forms import Form
from dblens.values.jsontext import json_text
from dblens.values.numbers import float_of_text, float_text, plain_number

__all__ = ["canonical", "float_text", "plain_number", "renderer"]

Value = object

_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_LEADING = frozenset("123456789")
_TIMESTAMP = re.compile(
    r"(-infinity|infinity|(\d{4,})-(0\d|1[0-2])-([0-2]\d|3[01])"
    r"(?:[ T]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d+))?)?)?(?: *(Z|[+-]\d\d(?::?[0-5]\d)?(?::[0-5]\d)?))?( BC)?)",
    re.ASCII,
)
_TIME = re.compile(r"(-?)(\d+):([0-5]\d)(?::([0-5]\d)(?:\.(\d+))?)?", re.ASCII)
_INTERVAL = re.compile(r"([+-]?\d+) ([+-]?\d+) ([+-]?\d+)", re.ASCII)


def _int(value: Value) -> str:
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("ascii")
    if isinstance(value, str):
        if value[:1] in _LEADING and value.isascii() and value.isdigit():
            return value
        if _WHOLE.fullmatch(value) is None:
            raise ValueError(f"not a whole number: {value[:80]!r}")
        return plain_number(value)
    if isinstance(value, (Decimal, float)) and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise ValueError(f"not a whole number: {value!r}")


def _decimal(value: Value) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = float_text(value)
        return "0" if text == "-0" else text
    return plain_number(_str(value) if isinstance(value, (str, bytes)) else str(value))


def _float(value: Value) -> str:
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, (bool, int)):
        try:
            number = float(value)
        except OverflowError as error:
            raise ValueError(f"beyond a double: {str(value)[:80]}") from error
        if int(number) != value:
            raise ValueError(f"not a double: {value!r}")
        return float_text(number)
    if isinstance(value, (str, bytes, bytearray)):
        return float_of_text(_str(value))
    raise ValueError(f"not a double: {value!r}")


def _str(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (uuid.UUID, dt.date, dt.time)):
        return str(value)
    raise ValueError(f"not a text: {type(value).__name__}")


def _bytes(value: Value) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, str):
        return value.encode("utf-8").hex()
    raise ValueError(f"not octets: {type(value).__name__}")


def _hexadecimal(value: Value) -> str:
    """Octets, or their hexadecimal text: exchange values in form bson are texts."""
    return bytes.fromhex(value).hex() if isinstance(value, str) else _bytes(value)


def _fraction(text: str | None) -> str:
    digits = (text or "").rstrip("0")
    return f".{digits}" if digits else ""


def _year(digits: str) -> str:
    return digits if len(digits) == 4 else digits.lstrip("0").zfill(4)


def _date(value: Value) -> str:
    if isinstance(value, dt.datetime):
        raise ValueError(f"a timestamp is not a date: {value!r}")
    text = value.isoformat() if isinstance(value, dt.date) else _str(value)
    match = _TIMESTAMP.fullmatch(text)
    if match is None or match[5] is not None or match[9] is not None:
        raise ValueError(f"not a date: {text[:80]!r}")
    return match[1] if match[2] is None else f"{_year(match[2])}-{match[3]}-{match[4]}{match[10] or ''}"


def _time(value: Value) -> str:
    if isinstance(value, dt.timedelta):
        total = value // dt.timedelta(microseconds=1)
        sign, total = ("-", -total) if total < 0 else ("", total)
        seconds, micros = divmod(total, 1_000_000)
        return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(f'{micros:06d}')}"
    text = value.isoformat() if isinstance(value, dt.time) else _str(value)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:80]!r}")
    clock = f"{int(match[2]):02d}:{match[3]}:{match[4] or '00'}{_fraction(match[5])}"
    return clock if clock == "00:00:00" else match[1] + clock


def _timestamp(value: Value) -> str:
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            raise ValueError(f"an instant is not a wall clock: {value!r}")
        text = value.isoformat(" ")
        return text.rstrip("0") if value.microsecond else text
    text = _str(value)
    match = _TIMESTAMP.fullmatch(text)
    if match is None or match[9] is not None:
        raise ValueError(f"not a timestamp: {text[:80]!r}")
    return _clock(match)


def _clock(match: re.Match[str]) -> str:
    if match[2] is None:
        return match[1]
    era = match[10] or ""
    return (
        f"{_year(match[2])}-{match[3]}-{match[4]} {match[5] or '00'}:{match[6] or '00'}:{match[7] or '00'}"
        f"{_fraction(match[8])}{era}"
    )


def _timestamptz(value: Value) -> str:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise ValueError(f"a wall clock is not an instant: {value!r}")
        if not value.utcoffset():
            return _timestamp(value.replace(tzinfo=None))
        # By its text: astimezone() leaves the years 1 to 9999 only with an OverflowError.
        value = value.isoformat(" ")
        if "." in value[-7:]:  # offset with microseconds: no engine has one
            raise ValueError(f"offset finer than seconds: {value}")
    text = _str(value)
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"not an instant: {text[:80]!r}")
    zone = match[9]
    if match[2] is None or zone is None or zone == "Z" or zone.replace(":", "").strip("+-0") == "":
        return _clock(match)
    digits = zone[1:].replace(":", "").ljust(6, "0")
    offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6]))
    # The calendar repeats every 400 years: reckon within 2000..2399, so that years BC and beyond 9999 work too.
    year = 1 - int(match[2]) if match[10] else int(match[2])
    cycles, place = divmod(year, 400)
    clock = dt.datetime.fromisoformat(
        f"{2000 + place}-{match[3]}-{match[4]} {match[5] or '00'}:{match[6] or '00'}:{match[7] or '00'}"
    )
    clock += -offset if zone[0] == "+" else offset
    year = clock.year - 2000 + 400 * cycles
    era = ""
    if year < 1:
        year, era = 1 - year, " BC"
    return f"{year:04d}{clock:-%m-%d %H:%M:%S}{_fraction(match[8])}{era}"


def _interval(value: Value) -> str:
    text = _str(value)
    if text in ("infinity", "-infinity"):
        return text
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError(f"not months, days and microseconds: {text[:80]!r}")
    return " ".join(str(int(p)) for p in match.groups())


def _uuid(value: Value) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray)) and len(value) == 16:
        return str(uuid.UUID(bytes=bytes(value)))
    return str(uuid.UUID(_str(value)))


def _bits(value: Value) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"not bits: {value!r}")  # 101 may be five or a hundred and one
    text = _str(value)
    if text.strip("01"):
        raise ValueError(f"not bits: {text[:80]!r}")
    return text


def _dynamic(value: Value) -> str:
    match value:
        case bool() | int():
            return f"i:{int(value)}"
        case float():
            return f"r:{float_text(value)}"
        case str():
            return f"t:{value}"
        case bytes() | bytearray() | memoryview():
            return f"b:{bytes(value).hex()}"
    raise ValueError(f"not a SQLite value: {type(value).__name__}")


_CODEC: dict[Form, Callable[[Value], str]] = {
    Form.INT: _int,
    Form.DECIMAL: _decimal,
    Form.FLOAT: _float,
    Form.TEXT: _str,
    Form.BYTES: _bytes,
    Form.DATE: _date,
    Form.TIME: _time,
    Form.TIMETZ: _str,
    Form.TIMESTAMP: _timestamp,
    Form.TIMESTAMPTZ: _timestamptz,
    Form.INTERVAL: _interval,
    Form.UUID: _uuid,
    Form.JSON: json_text,
    Form.BITS: _bits,
    Form.GEOMETRY: _str,
    Form.DOCUMENT: _str,
    Form.NATIVE: _str,
    Form.DYNAMIC: _dynamic,
    Form.BSON: _hexadecimal,
}


def canonical(form: Form, value: Value) -> bytes | None:
    """Return a value's canonical text in UTF-8, None for NULL. Raises ValueError when the form cannot hold the value.

    Lone surrogates are refused by the UTF-8 encoder (UnicodeEncodeError is a ValueError), but in form dynamic: there they are how
    Python writes the octets of a text that is not UTF-8, and those octets are the value.
    """
    if value is None:
        return None
    if form is Form.DYNAMIC:
        return _dynamic(value).encode("utf-8", "surrogateescape")
    return _CODEC[form](value).encode("utf-8")


def renderer(form: Form) -> Callable[[Value], str]:
    """Return the function that renders non-NULL values of one form to text, for loops over many rows."""
    return _CODEC[form]
