"""Which canonical form two existing columns share, when no plan decided it (verify, append, data only)."""

from __future__ import annotations

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


def shared_form(source: Column, target: Column, *, same_engine: bool) -> Form:
    """Return the form for comparing two columns.

    The same native type of one engine compares by the engine's own text. Otherwise the narrower meaning decides: text on one side
    takes the other side's form, because engines without a type store its canonical text.
    """
    if same_engine and source.native == target.native:
        return form_of(source.type) if isinstance(source.type, (Float, Integer)) else Form.NATIVE
    left, right = form_of(source.type), form_of(target.type)
    if left == right:
        return left
    numbers = [Form.INT, Form.DECIMAL, Form.FLOAT]
    if left in numbers and right in numbers:
        return max(left, right, key=numbers.index)
    if right in (Form.TEXT, Form.DYNAMIC):
        return left
    if left in (Form.TEXT, Form.DYNAMIC):
        return right
    if Form.DOCUMENT in (left, right) and Form.JSON in (left, right):
        return Form.DOCUMENT
    if {left, right} <= {Form.TIMESTAMP, Form.TIMESTAMPTZ}:
        return Form.TIMESTAMP
    return Form.TEXT
