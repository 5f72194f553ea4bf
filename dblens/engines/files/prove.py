"""Which type texts have: proven by every value of the file, never guessed from a few; and whether texts fit a type that was told.

Whole columns are asked by Arrow; a column that Arrow does not answer for is asked value by value by `fits`, which is the definition.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from dblens.engines import arrow
from dblens.engines.files.model import BOOLEAN, DAY, MOMENT, NESTED, NUMBER, STRING
from dblens.engines.forms import form_of
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Enum,
    Float,
    Integer,
    Json,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
)
from dblens.values.codec import canonical
from dblens.values.forms import Form
from dblens.values.numbers import float_text, plain_number

TRUE: Final = frozenset({"true", "t", "yes", "1"})
FALSE: Final = frozenset({"false", "f", "no", "0"})
WORDS: Final = "(?i:true|false)"
_DECIMAL: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
_FLOAT: Final = rf"(?:{_DECIMAL}(?:[eE][+-]?[0-9]{{1,3}})?|NaN|-?Infinity)"
_DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_ZONE: Final = r"(?:Z|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
_UUID: Final = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_SHAPES: Final[dict[str, str]] = {
    "boolean": WORDS,
    "decimal": _DECIMAL,
    "float": _FLOAT,
    "date": _DAY,
    "timestamp": rf"{_DAY}[ T]{_CLOCK}",
    "timestamptz": rf"{_DAY}[ T]{_CLOCK}{_ZONE}",
    "time": _CLOCK,
    "uuid": _UUID,
}
_PYTHON: Final = {name: re.compile(shape, re.ASCII) for name, shape in _SHAPES.items()}
_MOST_DIGITS: Final = 1000


def _all(values: Any, shape: str) -> bool:
    """Return whether every text that is not null has a shape."""
    compute = arrow.library().compute
    found = compute.all(compute.match_substring_regex(values, f"^(?:{shape})$")).as_py()
    # `$` of RE2 without flags is the very end, so a text that ends in a line break does not match.
    return found is not False


# ------------------------------------------------------------------------------------------------------------ told types


def fits(kind: DataType, text: str) -> bool:
    """Return whether a text is a value of a type."""
    try:
        return _fits(kind, text)
    except (ValueError, OverflowError, ArithmeticError):
        return False


def _fits(kind: DataType, text: str) -> bool:
    match kind:
        case Boolean():
            return text.lower() in TRUE or text.lower() in FALSE
        case Integer(bits, unsigned):
            number = int(canonical(Form.INT, text) or b"")
            low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            return bool(low <= number <= high)
        case Decimal(precision, scale, unsigned):
            plain = plain_number(text)
            if plain in ("NaN", "Infinity", "-Infinity"):
                return kind.special
            whole, _, fraction = plain.lstrip("-").partition(".")
            if unsigned and plain.startswith("-"):
                return False
            behind = scale or 0
            if precision is None:
                return True
            if len(fraction) > max(behind, 0):
                return False
            if behind < 0 and whole != "0" and not whole.endswith("0" * -behind):
                return False
            return whole == "0" or len(whole) <= precision - behind
        case Text(length) if length is not None:
            return len(text) <= length
        case Enum(values):
            return text in values
        case Binary(length):
            digits = text.removeprefix("\\x")
            octets = bytes.fromhex(digits)
            return len(octets) * 2 == len(digits) and (length is None or len(octets) <= length)
        case Bits(length, varying):
            return not text.strip("01") and (
                length is None or (len(text) <= length if varying else len(text) == length)
            )
        case Json():
            return is_json(text)
        case Array() | Set():
            return text.startswith("[") and is_json(text)
        case Date():
            return _exists(text, canonical(Form.DATE, text))
        case Timestamp(precision, zone):
            found = canonical(form_of(kind), text)
            bare = re.search(r"(Z|[+-]\d\d(:?[0-5]\d)?)$", text[10:]) is None
            return (bool(zone) != bare or "infinity" in text) and _exists(text, found) and _digits(found, precision)
        case Time(precision, zone, span):
            found = canonical(form_of(kind), text)
            return (zone or span or text <= "24:00:00") and (zone or _digits(found, precision))
    canonical(form_of(kind), text)
    return True


def _digits(found: bytes | None, most: int) -> bool:
    return len((found or b"").removesuffix(b" BC").partition(b".")[2]) <= most


def _exists(text: str, found: bytes | None) -> bool:
    """Return whether the day is one of the calendar: the codec knows no lengths of months, because MySQL has days of zero."""
    day = (found or b"").decode()
    if "infinity" in day:
        return True
    year, month, rest = day.split("-", 2)
    number = 1 - int(year) if day.endswith(" BC") else int(year)
    dt.date(2000 + number % 400, int(month), int(rest[:2]))
    return bool(text)


def is_json(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def quick(kind: DataType, values: Any) -> bool:
    """Return whether all texts surely fit; False only means that each is to be asked."""
    pa = arrow.library()
    compute = pa.compute
    try:
        match kind:
            case Text(length):
                return length is None or (compute.max(compute.utf8_length(values)).as_py() or 0) <= length
            case Integer(bits, unsigned) if bits != 24:
                numbers = values.cast(getattr(pa, f"{'u' if unsigned else ''}int{bits}")())
                return compute.all(compute.equal(numbers.cast(pa.utf8()), values)).as_py() is not False
            case Decimal(precision, scale) if precision is not None and 0 <= (scale or 0) <= precision:
                # Zeros behind are no digits, so what is too long here may still fit.
                before, behind = digits(values)
                return _all(values, _DECIMAL) and behind <= (scale or 0) and before <= precision - (scale or 0)
            case Decimal(precision=None):
                return _all(values, _DECIMAL)
            case Boolean():
                return _all(values, "(?i:true|false|t|f|yes|no|0|1)")
            case Float():
                return _all(values, _DECIMAL) and (compute.max(compute.binary_length(values)).as_py() or 0) < 300
            case Date():
                return _all(values, _SHAPES["date"]) and _moments(values, pa.date32())
            case Timestamp(precision=6, zone=False):
                return _all(values, _SHAPES["timestamp"]) and _moments(values, pa.timestamp("us"))
            case Timestamp(precision=6, zone=True):
                return _all(values, _SHAPES["timestamptz"]) and _moments(values, pa.timestamp("us", "UTC"))
            case Time(precision=6, zone=False, span=False):
                return _all(values, _SHAPES["time"])
            case Uuid():
                return _all(values, _SHAPES["uuid"])
    except pa.ArrowException:
        return False
    return False


def _moments(values: Any, kind: Any) -> bool:
    """Return True where Arrow reads all of them; it raises for days that do not exist, and so for year 0."""
    pa = arrow.library()
    numbers = values.cast(kind).cast(pa.int32() if kind == pa.date32() else pa.int64())
    least = pa.compute.min(numbers).as_py()
    first = -719_162 * (1 if kind == pa.date32() else 86_400_000_000)
    return least is None or least >= first


def unfit(kind: DataType, values: Any) -> list[int]:
    """Return the rows whose text does not fit, in order."""
    if quick(kind, values):
        return []
    return [row for row, text in enumerate(values.to_pylist()) if text is not None and not fits(kind, text)]


# ---------------------------------------------------------------------------------------------------------- proven types


def digits(values: Any) -> tuple[int, int]:
    """Return the most digits before and behind the point in plain decimals."""
    compute = arrow.library().compute
    length = compute.binary_length(values)
    point = compute.find_substring(values, ".")
    none = compute.less(point, 0)
    sign = compute.cast(compute.starts_with(values, "-"), "int32")
    before = compute.subtract(compute.if_else(none, length, point), sign)
    behind = compute.if_else(none, 0, compute.subtract(compute.subtract(length, point), 1))
    return compute.max(before).as_py() or 0, compute.max(behind).as_py() or 0


_Test = Callable[["Proof", Any], bool]


class Proof:
    """What the texts of one column have been until now; `kind` is the type that all of them have."""

    def __init__(self, kinds: int | None) -> None:
        """`kinds`: those of its values, where the format has kinds."""
        self._open = [name for name in _TESTS if kinds is None or _allowed(name, kinds)]
        self._any_json = kinds is not None
        self._before = self._behind = 0
        self.values = 0
        self.again = False
        """Whether earlier texts must be read once more: they were not asked about what is left."""
        self.nul = False
        self.longest = 0
        self.nulls = 0

    def add(self, values: Any) -> None:
        """Ask a batch of texts what they are not."""
        compute = arrow.library().compute
        self.nulls += values.null_count
        first = next((v.as_py() for v in values if v.is_valid), None) if values.null_count < len(values) else None
        if first is None:
            return
        self.longest = max(self.longest, compute.max(compute.binary_length(values)).as_py() or 0)
        if not self.nul:
            self.nul = bool(compute.any(compute.match_substring(values, "\0")).as_py())
        if len(self._open) > 1 or self._open == ["decimal"]:
            self._open = [name for name in self._open if not _excluded(name, first)]
        while self._open and not self._holds(self._open[0], values):
            gone = self._open.pop(0)
            if not self.values or (gone == "integer" and self._open[:1] == ["decimal"]):
                continue
            # Earlier texts were asked about `gone` only. Plain decimals may be doubles too; of nothing else both can be true.
            self.again = gone == "decimal" and self._open[:1] == ["float"]
            if not self.again:
                self._open = []
        self.values += len(values) - values.null_count

    def _holds(self, name: str, values: Any) -> bool:
        pa = arrow.library()
        try:
            return _TESTS[name](self, values)
        except pa.ArrowException:
            return False

    def _integer(self, values: Any) -> bool:
        pa = arrow.library()
        numbers = values.cast(pa.int64())
        if pa.compute.all(pa.compute.equal(numbers.cast(pa.utf8()), values)).as_py() is False:
            return False
        found = pa.compute.min_max(numbers).as_py()
        self._before = max(self._before, len(str(abs(found["min"]))), len(str(abs(found["max"]))))
        return True

    def _decimal(self, values: Any) -> bool:
        if not _all(values, _DECIMAL):
            return False
        before, behind = digits(values)
        self._before, self._behind = max(self._before, before), max(self._behind, behind)
        return self._before + self._behind <= _MOST_DIGITS

    def _float(self, values: Any) -> bool:
        return _all(values, _FLOAT) and all(_is_double(v) for v in values.to_pylist() if v is not None)

    def _json(self, values: Any) -> bool:
        found = (v for v in values.to_pylist() if v is not None)
        return all((self._any_json or v[:1] in ("{", "[")) and is_json(v) for v in found)

    def doubles(self, values: Any) -> None:
        """Ask texts that came before whether they are doubles too."""
        if not self._float(values):
            self._open = []

    @property
    def kind(self) -> DataType:
        """Return the type."""
        if not self.values:
            return Text()
        name = self._open[0] if self._open else "text"
        if name == "decimal":
            return Decimal(max(self._before + self._behind, 1), self._behind)
        return _TYPES.get(name, Text())


def _shaped(name: str, kind: DataType | None = None) -> _Test:
    def test(_proof: Proof, values: Any) -> bool:
        if kind is None:
            return _all(values, _SHAPES[name])
        return quick(kind, values)

    return test


_TESTS: Final[dict[str, _Test]] = {
    "boolean": _shaped("boolean"),
    "integer": Proof._integer,
    "decimal": Proof._decimal,
    "float": Proof._float,
    "date": _shaped("date", Date()),
    "timestamp": _shaped("timestamp", Timestamp()),
    "timestamptz": _shaped("timestamptz", Timestamp(zone=True)),
    "time": _shaped("time"),
    "uuid": _shaped("uuid"),
    "json": Proof._json,
}
"""Integers are decimals, so the one is asked before the other."""
_TYPES: Final[dict[str, DataType]] = {
    "boolean": Boolean(),
    "integer": Integer(64),
    "float": Float(64),
    "date": Date(),
    "timestamp": Timestamp(),
    "timestamptz": Timestamp(zone=True),
    "time": Time(),
    "uuid": Uuid(),
    "json": Json(normalised=False),
}


def _excluded(name: str, first: str) -> bool:
    """Return whether one text says that a column is not of a type: cheaper than to ask them all."""
    shape = _PYTHON.get(name)
    return shape is not None and shape.fullmatch(first) is None


def _is_double(text: str) -> bool:
    """Return whether a double is the number that stands there, to its last digit."""
    if text[-1] in "yN":
        return True
    number = float(text)
    return number - number == 0 and float_text(number) in (plain_number(text), f"-{plain_number(text)}")


def _allowed(name: str, kinds: int) -> bool:
    """Return whether values of these kinds can be of a type: a text of digits in JSON is no number."""
    wanted = {
        "boolean": BOOLEAN, "integer": NUMBER, "decimal": NUMBER, "float": NUMBER, "json": NESTED | STRING | NUMBER | BOOLEAN,
        "date": STRING | DAY, "timestamp": STRING | MOMENT | DAY,
    }.get(name, STRING)  # fmt: skip
    return kinds & ~wanted == 0 and (name != "json" or bool(kinds & NESTED))
