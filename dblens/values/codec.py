"""The client's half of the canonical codec: a driver's value to its canonical text.

Written from the definition in `forms`, independently of the engines' SQL and of the copier; property tests compare the three.
Everything here raises `ValueError` on a value that the form cannot hold, never guesses.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal

from dblens.values.forms import Form

Value = object

_NUMBER = re.compile(r"^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$", re.ASCII)
_SPECIAL = {
    "nan": "NaN",
    "inf": "Infinity",
    "infinity": "Infinity",
    "+inf": "Infinity",
    "+infinity": "Infinity",
    "-inf": "-Infinity",
    "-infinity": "-Infinity",
}
_TIMESTAMP = re.compile(
    r"^(-infinity|infinity|(\d{4,})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?( BC)?)$",
    re.ASCII,
)
_TIME = re.compile(r"^(-?)(\d{1,}):(\d\d)(?::(\d\d)(?:\.(\d+))?)?$", re.ASCII)


def plain_number(text: str) -> str:
    """Return a number's canonical plain text from any decimal spelling (`1E+3`, `.50`, `-0.0`)."""
    special = _SPECIAL.get(text.strip().lower())
    if special is not None:
        return special
    match = _NUMBER.match(text.strip())
    if match is None or not (match[2] or match[3]):
        raise ValueError(f"not a number: {text[:80]!r}")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    if abs(exponent) > 20_000:
        raise ValueError(f"number too large to write out: {text[:80]!r}")
    digits = whole + fraction
    point = len(whole) + exponent
    if point <= 0:
        digits, point = "0" * (1 - point) + digits, 1
    elif point > len(digits):
        digits = digits + "0" * (point - len(digits))
    left, right = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    number = f"{left}.{right}" if right else left
    return f"-{number}" if sign == "-" and number != "0" else number


def float_text(value: float) -> str:
    """Return a double's canonical text: its shortest round-trip digits without exponent, `-0` kept."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    text = repr(value)
    if "e" in text:
        return plain_number(text)
    return text[:-2] if text.endswith(".0") else text


def _int(value: Value) -> str:
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, bytes):
        value = value.decode("ascii")
    if isinstance(value, str):
        return str(int(value))
    if isinstance(value, (Decimal, float)) and value == int(value):
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
    if isinstance(value, (str, bytes)):
        return float_text(float(_str(value)))
    if isinstance(value, int) and not isinstance(value, bool):
        if int(float(value)) != value:
            raise ValueError(f"not a double: {value!r}")
        return str(value)
    if isinstance(value, (float, bool)):
        return float_text(float(value))
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
    return str(value)


def _bytes(value: Value) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, str):
        return value.encode("utf-8").hex()
    raise ValueError(f"not octets: {type(value).__name__}")


def _fraction(text: str | None) -> str:
    digits = (text or "").rstrip("0")
    return f".{digits}" if digits else ""


def _date(value: Value) -> str:
    if isinstance(value, dt.datetime):
        raise ValueError(f"a timestamp is not a date: {value!r}")
    text = value.isoformat() if isinstance(value, dt.date) else _str(value)
    match = _TIMESTAMP.match(text)
    if match is None or match[5] is not None or match[9] is not None:
        raise ValueError(f"not a date: {text[:80]!r}")
    return text


def _time(value: Value) -> str:
    if isinstance(value, dt.timedelta):
        total = value // dt.timedelta(microseconds=1)
        sign, total = ("-", -total) if total < 0 else ("", total)
        seconds, micros = divmod(total, 1_000_000)
        return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(f'{micros:06d}')}"
    text = value.isoformat() if isinstance(value, dt.time) else _str(value)
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"not a time: {text[:80]!r}")
    return f"{match[1]}{int(match[2]):02d}:{match[3]}:{match[4] or '00'}{_fraction(match[5])}"


def _timestamp(value: Value) -> str:
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            raise ValueError(f"an instant is not a wall clock: {value!r}")
        value = value.isoformat(" ")
    text = _str(value)
    match = _TIMESTAMP.match(text)
    if match is None or match[9] is not None:
        raise ValueError(f"not a timestamp: {text[:80]!r}")
    return _clock(match)


def _clock(match: re.Match[str]) -> str:
    if match[2] is None:
        return match[1]
    era = match[10] or ""
    return (
        f"{match[2]}-{match[3]}-{match[4]} {match[5] or '00'}:{match[6] or '00'}:{match[7] or '00'}"
        f"{_fraction(match[8])}{era}"
    )


def _timestamptz(value: Value) -> str:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise ValueError(f"a wall clock is not an instant: {value!r}")
        return _timestamp(value.astimezone(dt.UTC).replace(tzinfo=None))
    text = _str(value)
    match = _TIMESTAMP.match(text)
    if match is None:
        raise ValueError(f"not an instant: {text[:80]!r}")
    zone = match[9]
    if match[2] is None or zone is None or zone == "Z" or zone.replace(":", "").strip("+-0") == "":
        return _clock(match)
    if match[10] or int(match[2]) > 9999:
        raise ValueError(f"instant outside years 1..9999 with an offset: {text[:80]!r}")
    digits = zone[1:].replace(":", "").ljust(6, "0")
    offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6]))
    clock = dt.datetime.fromisoformat(f"{match[2]}-{match[3]}-{match[4]} {match[5] or '00'}:{match[6] or '00'}:00")
    clock += -offset if zone[0] == "+" else offset
    return f"{clock.year:04d}{clock:-%m-%d %H:%M}:{match[7] or '00'}{_fraction(match[8])}"


def _interval(value: Value) -> str:
    text = _str(value)
    parts = text.split(" ")
    if len(parts) != 3:
        raise ValueError(f"not months, days and microseconds: {text[:80]!r}")
    return " ".join(str(int(p)) for p in parts)


def _uuid(value: Value) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray)) and len(value) == 16:
        return str(uuid.UUID(bytes=bytes(value)))
    return str(uuid.UUID(_str(value)))


def _bits(value: Value) -> str:
    text = _str(value)
    if text.strip("01"):
        raise ValueError(f"not bits: {text[:80]!r}")
    return text


class _Number(str):
    """A JSON number kept as its text."""

    __slots__ = ()


def _json_parse(text: str) -> object:
    return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)


_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _json_string(text: str) -> str:
    return '"' + _ESCAPE.sub(lambda m: _ESCAPES.get(m[0]) or f"\\u{ord(m[0]):04x}", text) + '"'


def _json_write(value: object) -> str:
    match value:
        case _Number():
            return _json_number(value)
        case str():
            return _json_string(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return float_text(value)
        case list() | tuple():
            return "[" + ",".join(map(_json_write, value)) + "]"
        case dict():
            return "{" + ",".join(f"{_json_string(k)}:{_json_write(v)}" for k, v in sorted(value.items())) + "}"
    raise ValueError(f"not JSON: {type(value).__name__}")


def _json_number(text: str) -> str:
    try:
        return plain_number(text)
    except ValueError:
        # Beyond any engine's range (1e400000): keep significand and exponent, both normalised.
        match = _NUMBER.match(text)
        if match is None:
            raise
        digits = (match[2] + (match[3] or "")).lstrip("0")
        exponent = int(match[4] or 0) - len(match[3] or "") + len(digits) - len(digits.rstrip("0"))
        return f"{match[1]}{digits.rstrip('0')}e{exponent}" if digits else "0"


def _json(value: Value) -> str:
    if isinstance(value, (str, bytes, bytearray)):
        return _json_write(_json_parse(_str(value)))
    return _json_write(value)


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
    Form.JSON: _json,
    Form.BITS: _bits,
    Form.GEOMETRY: _str,
    Form.DOCUMENT: _str,
    Form.NATIVE: _str,
    Form.DYNAMIC: _dynamic,
    Form.BSON: _bytes,
}


def canonical(form: Form, value: Value) -> bytes | None:
    """Return a value's canonical text in UTF-8, None for NULL. Raises ValueError when the form cannot hold the value.

    Lone surrogates are refused by the UTF-8 encoder (UnicodeEncodeError is a ValueError).
    """
    if value is None:
        return None
    return _CODEC[form](value).encode("utf-8")


def renderer(form: Form) -> Callable[[Value], str]:
    """Return the function that renders non-NULL values of one form to text, for loops over many rows."""
    return _CODEC[form]
