"""The engine-neutral data types: what a column means, whatever its engine calls it.

A `DataType` is a frozen value; match on its class and attributes:
`match column.type: case Integer(bits=64, unsigned=True): …`.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Type(msgspec.Struct, frozen=True, tag=True):
    """Common shape of every data type: comparable, hashable, serialisable."""


class Boolean(_Type, frozen=True, tag=True):
    """True or false."""


class Integer(_Type, frozen=True, tag=True):
    """Whole number of `bits` (8, 16, 24, 32, 64)."""

    bits: int = 64
    unsigned: bool = False


class Decimal(_Type, frozen=True, tag=True):
    """Exact decimal; `precision` None is unbounded. `special` admits NaN and infinities (PostgreSQL numeric, Decimal128)."""

    precision: int | None = None
    scale: int | None = None
    unsigned: bool = False
    special: bool = False


class Float(_Type, frozen=True, tag=True):
    """IEEE-754 binary floating point of 32 or 64 bits."""

    bits: int = 64


class Text(_Type, frozen=True, tag=True):
    """Unicode text; `length` counts characters (None: unbounded); `fixed` is CHAR(n) with blank padding."""

    length: int | None = None
    fixed: bool = False


class Binary(_Type, frozen=True, tag=True):
    """Octets; `length` in octets (None: unbounded)."""

    length: int | None = None
    fixed: bool = False


class Date(_Type, frozen=True, tag=True):
    """Calendar day."""


class Time(_Type, frozen=True, tag=True):
    """Time of day; `span` marks MySQL's TIME, a signed duration up to 838:59:59; `zone` an offset beside it."""

    precision: int = 6
    zone: bool = False
    span: bool = False


class Timestamp(_Type, frozen=True, tag=True):
    """Date and time; `zone` True is an instant (UTC), False a wall clock. `precision` = fractional digits (3: milliseconds)."""

    precision: int = 6
    zone: bool = False


class Interval(_Type, frozen=True, tag=True):
    """Months, days and microseconds."""


class Uuid(_Type, frozen=True, tag=True):
    """128-bit UUID."""


class Json(_Type, frozen=True, tag=True):
    """JSON; `normalised` when the engine stores its own form (jsonb, MySQL JSON) instead of the text as given."""

    normalised: bool = True


class Enum(_Type, frozen=True, tag=True):
    """One of `values`; `name` is the named type where the engine has one (namespace-qualified by a dot)."""

    values: tuple[str, ...]
    name: str | None = None


class Set(_Type, frozen=True, tag=True):
    """Any subset of `values` (MySQL SET)."""

    values: tuple[str, ...]


class Bits(_Type, frozen=True, tag=True):
    """Bit string of `length` bits (None: unbounded)."""

    length: int | None = 1
    varying: bool = False


class Year(_Type, frozen=True, tag=True):
    """MySQL YEAR: 0000 or 1901..2155."""


class Geometry(_Type, frozen=True, tag=True):
    """Spatial value."""

    kind: str = "geometry"
    srid: int | None = None


class ObjectId(_Type, frozen=True, tag=True):
    """MongoDB's 12-octet identifier."""


class Array(_Type, frozen=True, tag=True):
    """Array of `item`."""

    item: DataType


class Document(_Type, frozen=True, tag=True):
    """A whole BSON document, sub-document, array or a field of mixed BSON types."""


class Dynamic(_Type, frozen=True, tag=True):
    """SQLite column whose values differ in storage class; `classes` = those present (integer, real, text, blob)."""

    classes: tuple[str, ...] = ()


class Opaque(_Type, frozen=True, tag=True):
    """A type with no neutral meaning (inet, tsvector, range, composite, xml …): its text is the value."""

    native: str
    kind: Literal["text"] = "text"


DataType = (
    Boolean
    | Integer
    | Decimal
    | Float
    | Text
    | Binary
    | Date
    | Time
    | Timestamp
    | Interval
    | Uuid
    | Json
    | Enum
    | Set
    | Bits
    | Year
    | Geometry
    | ObjectId
    | Array
    | Document
    | Dynamic
    | Opaque
)
