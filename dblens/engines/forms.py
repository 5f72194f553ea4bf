"""The canonical form of each type: one table for every engine, for files and for comparisons."""

from __future__ import annotations

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


def form_of(type: DataType) -> Form:
    """Return the canonical form in which a type's values are written on their own."""
    match type:
        case Boolean() | Integer() | Year():
            return Form.INT
        case Decimal():
            return Form.DECIMAL
        case Float():
            return Form.FLOAT
        case Text() | Enum() | ObjectId() | Opaque():
            return Form.TEXT
        case Binary():
            return Form.BYTES
        case Date():
            return Form.DATE
        case Time(zone=True):
            return Form.TIMETZ
        case Time():
            return Form.TIME
        case Timestamp(zone=True):
            return Form.TIMESTAMPTZ
        case Timestamp():
            return Form.TIMESTAMP
        case Interval():
            return Form.INTERVAL
        case Uuid():
            return Form.UUID
        case Json() | Set() | Array():
            return Form.JSON
        case Bits():
            return Form.BITS
        case Geometry():
            return Form.GEOMETRY
        case Document():
            return Form.DOCUMENT
        case Dynamic():
            return Form.DYNAMIC
