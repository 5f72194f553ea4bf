"""BSON types as `DataType`s, and how documents store columns of SQL engines without loss.

Natives: int, long, double, decimal, string, binData, uuid (binData 4), bool, date, objectId, object (embedded JSON), array, mixed (any
BSON type by value), document (a whole document or a field of several types).
"""

from __future__ import annotations

from dblens.engines.base import Check, Stored
from dblens.errors import Unsupported
from dblens.schema.model import Column
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Dynamic,
    Enum,
    Float,
    Geometry,
    Integer,
    Interval,
    Json,
    ObjectId,
    Opaque,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values.forms import Form

MOST_OCTETS = 16 * 1024 * 1024
"""A document's limit; one value has to leave room for the rest of its row."""

_NATIVE: dict[str, DataType] = {
    "int": Integer(32),
    "long": Integer(64),
    "double": Float(64),
    "decimal": Decimal(special=True),
    "string": Text(),
    "binData": Binary(),
    "uuid": Uuid(),
    "bool": Boolean(),
    "date": Timestamp(3, zone=True),
    "objectId": ObjectId(),
    "object": Json(normalised=False),
    "array": Array(Document()),
    "mixed": Dynamic(),
    "document": Document(),
}
_OVERSIZE = Check(
    kind="oversize",
    repair="block",
    limit=MOST_OCTETS - 64 * 1024,
    why="a document holds 16 MiB; the value has to fit into one",
)
_INVALID = Check(kind="invalid_text", repair="strip", why="BSON strings are UTF-8")
_DECIMAL_DIGITS = 34


def parse(native: str) -> DataType:
    """Return the meaning of a native name. Raises Unsupported."""
    if native in _NATIVE:
        return _NATIVE[native]
    raise Unsupported(f"the BSON type {native!r}", "DBLens does not know it", hint=f"one of {', '.join(_NATIVE)}")


def spell(type: DataType) -> str:
    """Return the native name that stores a type."""
    if type == _NATIVE["decimal"]:
        return "decimal"  # what Decimal128 means on its own; `store` cannot know that 34 digits are enough
    return _stored(Column(name="", type=type, native=""), indexed=False).native


def store(column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:  # noqa: ARG001
    """Decide how a document stores a column of the engine `source`."""
    if source == "mongodb":
        whole = isinstance(column.type, Document) and not column.path
        return Stored(type=column.type, native=column.native, form=Form.BSON if whole else Form.NATIVE)
    return _stored(column, indexed=indexed)


def _text(form: Form, note: str = "", *, checks: tuple[Check, ...] = ()) -> Stored:
    return Stored(type=Text(), native="string", form=form, note=note, checks=checks)


def _plain(native: str, form: Form, note: str = "", *, checks: tuple[Check, ...] = ()) -> Stored:
    return Stored(type=_NATIVE[native], native=native, form=form, note=note, checks=checks)


def _stored(column: Column, *, indexed: bool) -> Stored:
    match column.type:
        case Boolean():
            return _plain("bool", Form.INT)
        case Integer(bits=64, unsigned=True):
            return _plain("decimal", Form.INT, "as Decimal128, because BSON has no unsigned 64-bit integer")
        case Integer(bits=bits, unsigned=unsigned):
            return _plain("long" if bits == 64 or (bits == 32 and unsigned) else "int", Form.INT)
        case Year():
            return _plain("int", Form.INT)
        case Decimal(precision=precision) if precision is not None and precision <= _DECIMAL_DIGITS:
            return _plain("decimal", Form.DECIMAL)
        case Decimal():
            return _text(Form.DECIMAL, "as text, because Decimal128 holds 34 digits", checks=(_OVERSIZE,))
        case Float(bits=bits):
            return _plain("double", Form.FLOAT, "widened to 64 bits" if bits == 32 else "")
        case Text(length=length, fixed=fixed):
            checks = (_INVALID,) if length is not None and length * 4 < MOST_OCTETS // 4 else (_INVALID, _OVERSIZE)
            return _text(Form.TEXT, "blank padding is not added" if fixed else "", checks=checks)
        case Enum():
            return _text(Form.TEXT, "the list of values is not enforced")
        case Opaque(native=native):
            return _text(Form.TEXT, f"the text of {native}", checks=(_OVERSIZE,))
        case Binary(length=length):
            return _plain(
                "binData", Form.BYTES, checks=() if length is not None and length < MOST_OCTETS // 4 else (_OVERSIZE,)
            )
        case Date():
            return _text(Form.DATE, "as ISO text, because a BSON date is an instant")
        case Time(zone=True):
            return _text(Form.TIMETZ, "as text")
        case Time():
            return _text(Form.TIME, "as text")
        case Timestamp(zone=True, precision=precision) if precision <= 3:
            return _plain(
                "date", Form.TIMESTAMPTZ, "values that a BSON date cannot hold (infinity, zero dates) stay text"
            )
        case Timestamp(zone=True):
            return _text(Form.TIMESTAMPTZ, "as ISO text in UTC, because a BSON date drops microseconds")
        case Timestamp():
            return _text(Form.TIMESTAMP, "as ISO text, because a BSON date is an instant in milliseconds")
        case Interval():
            return _text(Form.INTERVAL, "as text: months, days, microseconds")
        case Uuid():
            return _plain("uuid", Form.UUID)
        case Bits():
            return _text(Form.BITS, "as text of 0 and 1")
        case Geometry():
            return _text(Form.GEOMETRY, "as text: SRID and hexadecimal WKB", checks=(_OVERSIZE,))
        case Json() | Set() | Array() | Document():
            if indexed:
                return _text(Form.JSON, "as JSON text, because it is part of a key or an index", checks=(_OVERSIZE,))
            if isinstance(column.type, (Set, Array)):
                return _plain("array", Form.JSON, checks=(_OVERSIZE,))
            if isinstance(column.type, Document):
                return _plain("document", Form.DOCUMENT, checks=(_OVERSIZE,))
            return _plain(
                "object", Form.JSON, 'what BSON cannot hold stands as {"$dblensJson": text}', checks=(_OVERSIZE,)
            )
        case Dynamic():
            return _plain("mixed", Form.DYNAMIC, "each value keeps its own type", checks=(_INVALID, _OVERSIZE))
        case ObjectId():
            return _plain("objectId", Form.TEXT)
