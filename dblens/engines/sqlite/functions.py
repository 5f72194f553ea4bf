"""SQL functions that the plan's predicates and repairs use (`checks.py`). They tell which values a loss concerns; they render nothing.

Texts come as octets (`CAST(x AS BLOB)`), because the driver refuses to hand over text that is not UTF-8.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import unicodedata
from collections.abc import Callable
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from typing import Any

Value = int | float | str | bytes | None

_DATE = r"\d{4,}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_ZONE = r"(?:Z|[+-]\d\d:?[0-5]\d)"
SHAPES: dict[str, re.Pattern[str]] = {
    "date": re.compile(rf"{_DATE}(?: BC)?|-?infinity", re.ASCII),
    "time": re.compile(rf"{_CLOCK}|24:00:00", re.ASCII),
    "span": re.compile(r"-?\d{2,3}:[0-5]\d:[0-5]\d(?:\.\d{1,6})?", re.ASCII),
    "timetz": re.compile(rf"(?:{_CLOCK}|24:00:00)[+-]\d\d(?::[0-5]\d){{0,2}}", re.ASCII),
    "timestamp": re.compile(rf"{_DATE}[ T]{_CLOCK}(?: BC)?|-?infinity", re.ASCII),
    "timestamptz": re.compile(rf"{_DATE}[ T]{_CLOCK}{_ZONE}(?: BC)?|{_DATE} {_CLOCK} BCZ|-?infinityZ?", re.ASCII),
    "uuid": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII),
    "interval": re.compile(r"-?\d+ -?\d+ -?\d+", re.ASCII),
    "bits": re.compile(r"[01]*", re.ASCII),
    "decimal": re.compile(r"-?\d+(?:\.\d+)?|NaN|-?Infinity", re.ASCII),
    "uint64": re.compile(r"\d{1,20}", re.ASCII),
    "objectid": re.compile(r"[0-9a-f]{24}", re.ASCII),
}
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FRACTION = re.compile(r"\.(\d{3})(\d+)", re.ASCII)


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    for name, (arguments, function) in _FUNCTIONS.items():
        connection.create_function(f"dblens_{name}", arguments, _null_of_null(name, function), deterministic=True)


def _null_of_null(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function answer NULL to NULL: SQLite does not always skip the right side of AND."""
    position = -1 if name in ("fits", "unfit") else 0

    def answer(*arguments: Value) -> Any:
        return None if arguments[position] is None else function(*arguments)

    return answer


def _text(value: Value) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else str(value)


def _is_date(text: str) -> bool:
    """Tell whether a text that has a date's shape names a day that exists."""
    if text.startswith(("infinity", "-infinity")):
        return True
    year, month, day = text.split(" ", maxsplit=1)[0].split("T", maxsplit=1)[0].split("-")
    number = int(year)
    if number == 0 or int(day) > _DAYS[int(month) - 1]:
        return False
    if text.endswith(("BC", "BCZ")):
        number = number - 1
    leap = number % 4 == 0 and (number % 100 != 0 or number % 400 == 0)
    return not (month == "02" and day == "29" and not leap)


def fits(shape: str, octets: bytes) -> bool:
    """Tell whether a text is a value of a shape, exactly."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    if shape == "json":
        return is_json(text)
    pattern = SHAPES[shape]
    if pattern.fullmatch(text) is None:
        return False
    return shape not in ("date", "timestamp", "timestamptz") or _is_date(text)


def is_json(text: str) -> bool:
    """Tell whether a text is RFC 8259 JSON."""
    try:
        json.loads(text, parse_constant=_refuse, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(word: str) -> object:
    raise ValueError(word)


def _unfit(shape: str, kind: str, octets: bytes) -> int:
    return int(kind != "text" or not fits(shape, octets))


def _invalid(octets: bytes) -> int:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return 1
    return 0


def _negative_zero(value: Value) -> int:
    return int(isinstance(value, float) and value == 0 and math.copysign(1, value) < 0)


def _characters(octets: bytes) -> int:
    return len(octets.decode("utf-8", "surrogateescape"))


def number(value: Value) -> Decimal | None:
    """Return the number that a value is by its shortest digits, None for what is none."""
    try:
        found = Decimal(repr(value) if isinstance(value, float) else _text(value))
    except InvalidOperation:
        return None
    return found


def _outside_integers(value: Value, low: str | None, high: str | None) -> int:
    found = number(value)
    if found is None or not found.is_finite():
        return 0
    return int((low is not None and found < Decimal(low)) or (high is not None and found > Decimal(high)))


def _decimal_overflow(value: Value, limit: int | None, scale: int | None) -> int:
    found = number(value)
    if found is None or not found.is_finite():
        return 0
    _, digits, exponent = found.as_tuple()
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    exponent += len(significant) - len(stripped)
    if not stripped:
        return 0
    fraction = max(0, -exponent)
    whole = max(0, len(stripped) + exponent)
    if scale is not None and fraction > scale:
        return 1
    return int(limit is not None and whole > limit - (scale or 0))


def _rescaled(value: Value, scale: int, rounding: str) -> str | None:
    found = number(value)
    if found is None:
        return None
    with localcontext() as context:
        context.prec = max(1, len(found.as_tuple().digits) + abs(found.adjusted()) + scale + 2)
        return format(found.quantize(Decimal(1).scaleb(-scale), rounding), "f")


def _outside_dates(octets: bytes, low: str | None, high: str | None) -> int:
    text = octets.decode("utf-8", "surrogateescape").replace("T", " ").rstrip("Z")
    if text.endswith("infinity"):
        return 0
    if text.endswith("BC"):
        return int(low is not None)
    year = text.partition("-")[0]
    if len(year) > 4:
        return int(high is not None)
    bound = high if high is None or len(text) > 10 or len(high) <= 10 else high[:10]
    return int((low is not None and text < low) or (bound is not None and text > bound))


def _outside_day(octets: bytes) -> int:
    text = octets.decode("utf-8", "surrogateescape")
    hours = text.partition(":")[0]
    return int(text.startswith("-") or (hours.isdigit() and int(hours) >= 24))


def _finer(octets: bytes) -> int:
    match = _FRACTION.search(octets.decode("utf-8", "surrogateescape"))
    return int(match is not None and match[2].strip("0") != "")


def _to_milliseconds(octets: bytes) -> str:
    return _FRACTION.sub(r".\1", octets.decode())


def _four_bytes(octets: bytes) -> int:
    return int(max(octets, default=0) >= 0xF0)


def _without(octets: bytes, what: str) -> str:
    r"""Return a text without U+0000, without what is not UTF-8, without characters beyond the basic plane, or without \\u0000 in JSON."""
    match what:
        case "nul":
            return octets.replace(b"\0", b"").decode()
        case "invalid":
            return octets.decode("utf-8", "ignore")
        case "astral":
            return "".join(c for c in octets.decode() if ord(c) < 0x10000)
        case _:
            return re.sub(r"(?<!\\)((?:\\\\)*)\\u0000", r"\1", octets.decode())


def _head(octets: bytes, characters: int) -> str:
    return octets.decode()[:characters]


def _as_text(value: Value) -> str | None:
    """Return any value's text: numbers in plain digits, octets in hexadecimal."""
    match value:
        case None:
            return None
        case float():
            found = (
                format(Decimal(repr(value)), "f")
                if math.isfinite(value)
                else ("Infinity" if value > 0 else "-Infinity")
            )
            return found[:-2] if found.endswith(".0") else found
        case bytes():
            return value.hex()
    return str(value)


def _json_question(octets: bytes, what: str) -> int:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return int(what == "not_json")
    if what == "not_json":
        return int(not is_json(text))
    if what == "json_nul":
        return int(re.search(r"(?<!\\)(?:\\\\)*\\u0000", text) is not None)
    found = False

    def pairs(members: list[tuple[str, object]]) -> None:
        nonlocal found
        found = found or len({k for k, _ in members}) < len(members)

    def inexact(digits: str) -> str:
        nonlocal found
        exact = Decimal(digits)
        value = float(digits)
        found = (
            found
            or not math.isfinite(value)
            or Decimal(repr(value)) != exact
            or ("." in digits and digits.endswith("0"))
        )
        return digits

    try:
        if what == "json_duplicate_key":
            json.loads(text, object_pairs_hook=pairs)
        else:
            json.loads(text, parse_float=inexact, parse_int=_wide(inexact))
    except (ValueError, RecursionError, InvalidOperation):
        return int(found)
    return int(found)


def _wide(inexact: Callable[[str], str]) -> Callable[[str], str]:
    """Whole numbers of 64 bits are exact everywhere; only longer ones go through a double."""
    return lambda digits: digits if len(digits) < 19 else inexact(digits)


def folded(value: Value, trailing: int, accents: int, case: int) -> Value:
    """Return what a value is under a collation that ignores trailing spaces, accents, or case."""
    if not isinstance(value, (str, bytes)):
        return value
    text = _text(value)
    if trailing:
        text = text.rstrip(" ")
    if accents:
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if case:
        text = text.casefold()
    return text.encode("utf-8", "surrogateescape")


_FUNCTIONS: dict[str, tuple[int, Callable[..., object]]] = {
    "unfit": (3, _unfit),
    "fits": (2, lambda shape, octets: int(fits(shape, octets))),
    "invalid": (1, _invalid),
    "negative_zero": (1, _negative_zero),
    "characters": (1, _characters),
    "outside_integers": (3, _outside_integers),
    "decimal_overflow": (3, _decimal_overflow),
    "outside_dates": (3, _outside_dates),
    "outside_day": (1, _outside_day),
    "finer": (1, _finer),
    "milliseconds": (1, _to_milliseconds),
    "four_bytes": (1, _four_bytes),
    "without": (2, _without),
    "head": (2, _head),
    "as_text": (1, _as_text),
    "json": (2, _json_question),
    "truncated": (2, lambda value, scale: _rescaled(value, scale, ROUND_DOWN)),
    "rounded": (2, lambda value, scale: _rescaled(value, scale, ROUND_HALF_EVEN)),
    "folded": (4, folded),
}
