"""What the literals of mongosh-style text mean: constructors, Extended JSON in values, and parameters.

Whole numbers are int32 where they fit and int64 beyond, exact; numbers with a point or an exponent are doubles. Dates without a zone are
UTC, and finer than milliseconds is refused, because BSON would cut it. JavaScript (`Code`, `$code`) is refused.

A parameter is a value and nothing else: a document in it whose keys begin with `$` would be operators, so it is refused. Where the text
itself asks for a document with operators it says so: `EJSON(:filter)`. See `Given` for text that looks like a field's path.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import BSONError

from dblens.errors import InvalidInput, PermissionDenied

DEPTH: Final = 100
DOCUMENT: Final = "$dblensDocument"
"""The only key of what stands for a document that begins with a key of Extended JSON itself."""
_REGEX_OPTIONS: Final = "imsxlu"
_DATE = re.compile(
    r"([+-]\d{6}|\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Given:
    """A parameter's value in its place, until it is known what stands there.

    In an aggregation expression a string that begins with `$` would be a field's path: there it is wrapped in `$literal`.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


BLANK: Final = Given(None)
"""A parameter of a text that is only looked at: whatever fits its place."""


def whole(number: int) -> int | Int64:
    """Return a whole number as BSON keeps it. Raises ValueError beyond int64."""
    if -(2**31) <= number < 2**31:
        return number
    if not -(2**63) <= number < 2**63:
        raise ValueError("a whole number beyond 64 bits; NumberDecimal('…') holds 34 digits")
    return Int64(number)


def number(spelling: str, *, negative: bool) -> int | Int64 | float:
    """Return the number that a spelling stands for. Raises ValueError."""
    sign = -1 if negative else 1
    if spelling.startswith(("0x", "0X")):
        digits = spelling[2:].removesuffix("n")
        return whole(sign * int(digits, 16))
    if spelling.endswith("n"):
        return Int64(_digits(spelling[:-1], sign))
    if spelling.isdigit():
        return -0.0 if negative and spelling == "0" else whole(_digits(spelling, sign))
    value = float(spelling)
    if math.isinf(value):
        raise ValueError("a number beyond a double; NumberDecimal('…') holds more")
    return sign * value


def _digits(spelling: str, sign: int) -> int:
    value = sign * int(spelling) if len(spelling) < 25 else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number beyond 64 bits; NumberDecimal('…') holds 34 digits")
    return value


def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 of a civil date (Howard Hinnant's algorithm)."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def date(text: str) -> DatetimeMS:
    """Return the instant that an ISO 8601 text names; UTC where it names no zone. Raises ValueError."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a date; write it as 2026-01-31T12:30:00Z")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1] or (month == 2 and day == 29 and not leap):
        raise ValueError("there is no such day")
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("there is no such time of day")
    fraction = (found[7] or "").ljust(3, "0")
    if fraction[3:].strip("0"):
        raise ValueError("finer than milliseconds, which a BSON date cannot hold")
    zone = found[8] or "Z"
    shift = 0
    if zone != "Z":
        shift = (int(zone[1:3]) * 60 + int(zone[3:].lstrip(":") or 0)) * (-1 if zone[0] == "-" else 1)
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + (minute - shift) * 60 + second
    return DatetimeMS(seconds * 1000 + int(fraction[:3]))


def _now() -> DatetimeMS:
    return DatetimeMS(int(dt.datetime.now(dt.UTC).timestamp() * 1000))


def regex(pattern: str, options: str) -> Regex[str]:
    """Return a regular expression. Raises ValueError for options that BSON has not."""
    if "\0" in pattern:
        raise ValueError("a NUL character in a regular expression")
    if len(set(options)) != len(options) or not set(options) <= set(_REGEX_OPTIONS):
        raise ValueError(f"the options {options!r}: MongoDB has i, m, s, x")
    return Regex(pattern, "".join(sorted(options)))


# --------------------------------------------------------------------------------------------------------------- constructors


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it takes a string")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
            raise ValueError("it takes a whole number")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("it takes a whole number")
    return int(value)


def _long(value: Any = 0) -> Int64:
    found = _whole(value)
    if isinstance(value, float) and abs(found) > 2**53:
        raise ValueError("a double beyond 2^53 is not exact; write it as a string")
    if not -(2**63) <= found < 2**63:
        raise ValueError("beyond 64 bits")
    return Int64(found)


def _short(value: Any = 0) -> int:
    found = _whole(value)
    if not -(2**31) <= found < 2**31:
        raise ValueError("beyond 32 bits")
    return found


def _decimal(value: Any) -> Decimal128:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("it takes a string: a double would not be exact")
    return _decimal128(str(value))


def _decimal128(text: str) -> Decimal128:
    try:
        parsed = decimal.Decimal(text)
        if parsed.is_finite() and len(parsed.as_tuple().digits) > 200:
            raise ValueError("more digits than the 34 of Decimal128")
        made = Decimal128(text)
        if parsed.is_finite() and made.to_decimal() != parsed:
            raise ValueError("more digits than the 34 of Decimal128")
    except decimal.DecimalException as error:
        raise ValueError("not a decimal of at most 34 digits") from error
    return made


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it takes a number")
    if isinstance(value, int) and int(float(value)) != value:
        raise ValueError("a double would not be exact")
    return float(value)


def _object_id(value: Any = None) -> ObjectId:
    if value is None:
        return ObjectId()
    if not re.fullmatch(r"[0-9a-fA-F]{24}", _text(value)):
        raise ValueError("it takes 24 hexadecimal digits")
    return ObjectId(value)


def _date(value: Any = None, *more: Any) -> DatetimeMS:
    if more:
        raise ValueError("a date of several numbers depends on a time zone; write ISODate('2026-01-31T12:30:00Z')")
    if value is None:
        return _now()
    if isinstance(value, str):
        return date(value)
    if isinstance(value, DatetimeMS):
        return value
    found = _whole(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError("beyond a BSON date")
    return DatetimeMS(found)


def _uuid(value: Any = None) -> Binary:
    return Binary.from_uuid(uuid.uuid4() if value is None else uuid.UUID(_text(value)))


def _bindata(subtype: Any, data: Any) -> Binary:
    kind = _whole(subtype)
    if not 0 <= kind <= 255 or kind == 2:
        raise ValueError("a subtype from 0 to 255, but the old 2")
    return Binary(base64.b64decode(_text(data), validate=True), kind)


def _hexdata(subtype: Any, data: Any) -> Binary:
    return _bindata(subtype, base64.b64encode(bytes.fromhex(_text(data))).decode())


def _timestamp(*args: Any) -> Timestamp:
    if len(args) == 1 and isinstance(args[0], dict):
        args = (args[0].get("t", 0), args[0].get("i", 0))
    time, inc = (_whole(each) for each in (args or (0, 0)))
    return Timestamp(time, inc)


def _dbref(collection: Any, id: Any, database: Any = None) -> dict[str, Any]:
    found = {"$ref": _text(collection), "$id": id}
    return found if database is None else {**found, "$db": _text(database)}


def _regexp(pattern: Any, options: Any = "") -> Regex[str]:
    return regex(_text(pattern), _text(options))


def _code(*_: Any) -> Any:
    raise PermissionDenied("JavaScript is not sent to the server", hint="DBLens refuses it for everybody; use $expr")


CONSTRUCTORS: Final[dict[str, Callable[..., Any]]] = {
    "ObjectId": _object_id, "ISODate": _date, "Date": _date, "NumberLong": _long, "Long": _long, "NumberInt": _short, "Int32": _short,
    "NumberDecimal": _decimal, "Decimal128": _decimal, "Double": _double, "UUID": _uuid, "BinData": _bindata, "HexData": _hexdata,
    "Timestamp": _timestamp, "MinKey": MinKey, "MaxKey": MaxKey, "DBRef": _dbref, "RegExp": _regexp, "BSONRegExp": _regexp,
    "Code": _code, "Function": _code,
}  # fmt: skip
CONSTRUCTORS["Long.fromString"] = _long


def construct(name: str, args: list[Any]) -> Any:
    """Return what a constructor makes. Raises ValueError with what is wrong, PermissionDenied for JavaScript."""
    if any(each is BLANK for each in args) and CONSTRUCTORS[name] is not _code:
        return BLANK
    plain = [each.value if isinstance(each, Given) else each for each in args]
    try:
        return CONSTRUCTORS[name](*plain)
    except TypeError as error:
        raise ValueError("it takes another number of values") from error
    except (ArithmeticError, BSONError) as error:
        raise ValueError(str(error)) from error


# --------------------------------------------------------------------------------------------------------- Extended JSON values


def _of_date(inner: Any) -> DatetimeMS:
    return date(inner) if isinstance(inner, str) else _date(inner)


def _of_binary(inner: Any) -> Binary:
    return _bindata(int(_text(inner["subType"]), 16), inner["base64"])


def _of_regex(inner: Any) -> Regex[str]:
    return regex(_text(inner["pattern"]), _text(inner.get("options", "")))


def _of_double(inner: Any) -> float:
    names = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    return names[inner] if inner in names else float(_text(inner))


def _deprecated(_: Any) -> Any:
    raise ValueError("a deprecated BSON type, which is read but not written")


def _plain_document(inner: Any) -> Any:
    if not isinstance(inner, dict):
        raise ValueError("it takes a document")
    return inner


_WRAPPERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$oid": lambda inner: _object_id(_text(inner)),
    "$numberInt": lambda inner: _short(_text(inner)),
    "$numberLong": lambda inner: _long(_text(inner)),
    "$numberDouble": _of_double,
    "$numberDecimal": lambda inner: _decimal128(_text(inner)),
    "$date": _of_date,
    "$uuid": lambda inner: _uuid(_text(inner)),
    "$binary": _of_binary,
    "$timestamp": lambda inner: Timestamp(_whole(inner["t"]), _whole(inner["i"])),
    "$regularExpression": _of_regex,
    "$minKey": lambda _: MinKey(),
    "$maxKey": lambda _: MaxKey(),
    "$code": _code,
    "$symbol": _deprecated,
    "$undefined": _deprecated,
    "$dbPointer": _deprecated,
    DOCUMENT: _plain_document,
}


def unwrapped(document: dict[str, Any]) -> Any:
    """Return the value that a document of Extended JSON stands for; any other document as it is. Raises ValueError, PermissionDenied."""
    key = next(iter(document), "")
    known = _WRAPPERS.get(key)
    if known is None:
        return document
    if len(document) != 1 and key != "$code":
        raise ValueError(f"{key!r} beside other keys")
    inner = document[key]
    if inner is BLANK and known is not _code:
        return BLANK
    try:
        return known(inner.value if isinstance(inner, Given) else inner)
    except (TypeError, KeyError, AttributeError, ArithmeticError, BSONError) as error:
        raise ValueError(f"not what {key!r} takes in Extended JSON") from error


# ------------------------------------------------------------------------------------------------------------------- parameters


def given(value: object, number: int) -> Any:
    """Return a parameter's value as BSON. Raises InvalidInput for operators and for what BSON has not."""
    return _given(value, f"the value of parameter {number}", 0, plain=True)


def explicit(value: object, number: int) -> Any:
    """Return a parameter that the text takes as a document, operators and Extended JSON included. Raises InvalidInput, PermissionDenied."""
    return _given(value, f"the value of parameter {number}", 0, plain=False)


def _given(value: object, what: str, depth: int, *, plain: bool) -> Any:
    if depth > DEPTH:
        raise InvalidInput(f"{what} is nested more than {DEPTH} deep")
    match value:
        case Code():  # a kind of str
            raise InvalidInput(f"{what} is JavaScript", hint="parameters are values")
        case (
            None
            | bool()
            | str()
            | float()
            | Int64()
            | ObjectId()
            | Decimal128()
            | DatetimeMS()
            | Timestamp()
            | MinKey()
            | MaxKey()
        ):
            return value
        case Binary():
            return value
        case int():
            try:
                return whole(value)
            except ValueError as error:
                raise InvalidInput(f"{what}: {error}", hint="pass a Decimal") from error
        case bytes() | bytearray() | memoryview():
            return Binary(bytes(value), 0)
        case uuid.UUID():
            return Binary.from_uuid(value)
        case decimal.Decimal():
            try:
                return _decimal128(str(value))
            except ValueError as error:
                raise InvalidInput(f"{what}: {error}") from error
        case dt.datetime():
            return _instant(value, what)
        case list() | tuple():
            return [_given(each, what, depth + 1, plain=plain) for each in value]
        case Mapping():
            return _document(value, what, depth, plain=plain)
    raise InvalidInput(
        f"{what} is of type {type(value).__name__}, which no BSON type holds",
        hint="pass text, a number, a datetime with zone, a list …",
    )


def _instant(value: dt.datetime, what: str) -> DatetimeMS:
    if value.tzinfo is None:
        raise InvalidInput(
            f"{what} is a datetime without zone", hint="a BSON date is an instant: add tzinfo=datetime.UTC"
        )
    if value.microsecond % 1000:
        raise InvalidInput(f"{what} is finer than milliseconds", hint="a BSON date holds milliseconds: round it")
    since = value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return DatetimeMS((since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000)


def _document(value: Mapping[Any, object], what: str, depth: int, *, plain: bool) -> Any:
    for key in value:
        if not isinstance(key, str) or "\0" in key:
            raise InvalidInput(f"{what} has a key that is no text: {str(key)[:40]!r}")
        if plain and key.startswith("$"):
            raise InvalidInput(
                f"{what} holds {key[:40]!r}, which would be an operator: parameters are values",
                hint="write the operator in the text, or take the parameter as a document there: EJSON(:name)",
            )
    inner = value.get(DOCUMENT) if not plain and len(value) == 1 else None
    if isinstance(inner, Mapping):
        return {key: _given(each, what, depth + 2, plain=plain) for key, each in inner.items()}
    made = {key: _given(each, what, depth + 1, plain=plain) for key, each in value.items()}
    try:
        return made if plain else unwrapped(made)
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}") from error
