"""Declared types <-> meanings, and how SQLite stores a column of another engine. Pure.

SQLite's declared types only give an affinity, and a wrong one changes values: DECIMAL or TIMESTAMP would turn '1.10' into 1.1. So
whatever is exact only as text is declared TEXT, and its meaning stands beside it in a comment that the schema keeps (`TEXT /* timestamp(6) */`).
"""

from __future__ import annotations

import re
from typing import Literal

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

Affinity = Literal["integer", "text", "blob", "real", "numeric"]
STRICT_TYPES = frozenset({"INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"})
_SPELLING = re.compile(r"([^()]*)(?:\(([^()]*)\))?([^()]*)", re.DOTALL)
_INTEGERS = {
    "int": 64, "integer": 64, "bigint": 64, "int8": 64, "big int": 64, "tinyint": 8, "smallint": 16, "int2": 16,
    "mediumint": 24, "int4": 32,
}  # fmt: skip
_DECIMALS = frozenset({"decimal", "numeric", "dec", "number", "money"})
_FLOATS = frozenset({"real", "float", "double", "double precision", "float8"})
_TEXTS = frozenset(
    {
        "text", "char", "character", "nchar", "native character", "varchar", "varying character", "character varying", "nvarchar",
        "clob", "tinytext", "mediumtext", "longtext", "bpchar",
    }
)  # fmt: skip
_BINARIES = frozenset({"blob", "binary", "varbinary", "bytea", "tinyblob", "mediumblob", "longblob", "image"})


def affinity(native: str) -> Affinity:
    """Return the affinity that SQLite gives a column declared so."""
    word = native.upper()
    if "INT" in word:
        return "integer"
    if "CHAR" in word or "CLOB" in word or "TEXT" in word:
        return "text"
    if "BLOB" in word or not word.strip():
        return "blob"
    if "REAL" in word or "FLOA" in word or "DOUB" in word:
        return "real"
    return "numeric"


def parse(native: str) -> DataType:
    """Return the meaning of a declared type: by its name, else by its affinity."""
    match = _SPELLING.fullmatch(native)
    if match is None:
        return _by_affinity(native)
    numbers = [int(n) for n in re.findall(r"\d+", match[2] or "")]
    first = numbers[0] if numbers else None
    word = " ".join(f"{match[1]} {match[3]}".lower().split())
    unsigned = "unsigned" in word.split()
    bare = " ".join(w for w in word.split() if w not in ("unsigned", "signed", "zerofill"))
    if bare in _INTEGERS:
        return Integer(_INTEGERS[bare], unsigned)
    if bare in _DECIMALS:
        return Decimal(first, (numbers[1] if len(numbers) > 1 else 0) if first is not None else None, unsigned)
    if bare in _FLOATS:
        return Float(64)
    if bare in _TEXTS:
        return Text(first)
    if bare in _BINARIES:
        return Binary(first)
    precision = min(first, 6) if first is not None else 6
    match word:
        case "":
            return Dynamic()
        case "any":
            return Dynamic()
        case "bool" | "boolean":
            return Boolean()
        case "date":
            return Date()
        case "time" | "time without time zone":
            return Time(precision)
        case "timetz" | "time with time zone":
            return Time(precision, zone=True)
        case "datetime" | "timestamp" | "timestamp without time zone":
            return Timestamp(precision)
        case "timestamptz" | "timestamp with time zone" | "datetimeoffset":
            return Timestamp(precision, zone=True)
        case "interval":
            return Interval()
        case "uuid" | "guid" | "uniqueidentifier":
            return Uuid()
        case "json":
            return Json(normalised=False)
        case "jsonb":
            return Json()
        case "bits":
            return Bits(first)
        case "varbits":
            return Bits(first, varying=True)
        case "year":
            return Year()
        case "geometry":
            return Geometry()
        case "objectid":
            return ObjectId()
        case "document":
            return Document()
    return _by_affinity(native)


def _by_affinity(native: str) -> DataType:
    match affinity(native):
        case "integer":
            return Integer(64)
        case "text":
            return Text()
        case "blob":
            return Binary()
        case "real":
            return Float(64)
        case _:
            return Dynamic()


def describe(type: DataType) -> str | None:
    """Return a spelling that `parse` reads as this very type, None when there is none. It never holds `*/`."""
    match type:
        case Decimal(precision=None):
            word = "decimal"
        case Decimal(precision=p, scale=s):
            word = f"decimal({p},{s or 0})"
        case Integer(bits=64, unsigned=True):
            word = "bigint unsigned"
        case Text(length=n) if n is not None:
            word = f"varchar({n})"
        case Binary(length=n) if n is not None:
            word = f"varbinary({n})"
        case Time(precision=p, zone=zone):
            word = f"{'timetz' if zone else 'time'}({p})"
        case Timestamp(precision=p, zone=zone):
            word = f"{'timestamptz' if zone else 'timestamp'}({p})"
        case Json(normalised=normalised):
            word = "jsonb" if normalised else "json"
        case Bits(length=n, varying=varying):
            word = ("varbits" if varying else "bits") + (f"({n})" if n is not None else "")
        case Boolean() | Date() | Interval() | Uuid() | Year() | Geometry() | ObjectId() | Document():
            word = type.__class__.__name__.lower()
        case _:
            return None
    return word if parse(word) == type else None


def spell(type: DataType) -> str:
    """Return the declared type whose affinity stores a type's values exactly."""
    match type:
        case Boolean() | Year():
            return "INTEGER"
        case Integer(bits=bits, unsigned=unsigned):
            return "TEXT" if unsigned and bits == 64 else "INTEGER"
        case Float():
            return "REAL"
        case Binary():
            return "BLOB"
        case Dynamic():
            return ""
        case _:
            return "TEXT"


_NAN = Check(
    kind="nonfinite",
    repair="null",
    low="-Infinity",
    high="Infinity",
    why="SQLite stores NaN as NULL (infinities are kept)",
)
_NEGATIVE_ZERO = Check(kind="negative_zero", repair="strip", why="a REAL column of SQLite stores -0.0 as 0")


def store(column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:  # noqa: ARG001 - the protocol's
    """Decide how SQLite stores a column of engine `source`."""
    type = column.type
    if source == "sqlite":
        return Stored(type=type, native=column.native, form=Form.DYNAMIC, collation=column.collation)
    match type:
        case Boolean():
            return Stored(type=type, native="INTEGER", form=Form.INT, check_expression="{c} in (0,1)")
        case Integer(bits=64, unsigned=True):
            return Stored(
                type=type, native="TEXT", form=Form.INT, note="beyond 63 bits: kept as text, which sorts as text"
            )
        case Integer():
            return Stored(type=Integer(64), native="INTEGER", form=Form.INT)
        case Decimal():
            return Stored(
                type=type, native="TEXT", form=Form.DECIMAL, note="decimal kept exactly as text, which sorts as text"
            )
        case Float():
            return Stored(type=Float(64), native="REAL", form=Form.FLOAT, checks=(_NAN, _NEGATIVE_ZERO))
        case Text(length=n):
            limit = f"length({{c}}) <= {n}" if n is not None else None
            return Stored(type=Text(n), native="TEXT", form=Form.TEXT, check_expression=limit)
        case Binary(length=n):
            return Stored(type=Binary(n), native="BLOB", form=Form.BYTES)
        case Date():
            return Stored(type=type, native="TEXT", form=Form.DATE)
        case Time(precision=p, zone=zone):
            return Stored(type=Time(min(p, 6), zone=zone), native="TEXT", form=Form.TIMETZ if zone else Form.TIME)
        case Timestamp(precision=p, zone=zone):
            note = "instant kept as UTC text with a trailing Z" if zone else ""
            form = Form.TIMESTAMPTZ if zone else Form.TIMESTAMP
            return Stored(type=Timestamp(min(p, 6), zone=zone), native="TEXT", form=form, note=note)
        case Interval():
            return Stored(
                type=type, native="TEXT", form=Form.INTERVAL, note="interval kept as text: months, days, microseconds"
            )
        case Uuid():
            return Stored(type=type, native="TEXT", form=Form.UUID)
        case Json() | Array() | Set():
            note = {Array: "array kept as JSON", Set: "set kept as a JSON array"}.get(type.__class__, "")
            kept = type if isinstance(type, Json) else Json(normalised=False)
            return Stored(
                type=kept, native="TEXT", form=Form.JSON, note=note, check_expression="{c} is null or json_valid({c})"
            )
        case Enum(values=values):
            return _enum(values, source)
        case Bits():
            return Stored(type=type, native="TEXT", form=Form.BITS, note="bit string kept as text of 0 and 1")
        case Year():
            return Stored(type=type, native="INTEGER", form=Form.INT)
        case Geometry():
            return Stored(
                type=Geometry(), native="TEXT", form=Form.GEOMETRY, note="geometry kept as srid:hex of its WKB"
            )
        case ObjectId():
            return Stored(type=type, native="TEXT", form=Form.TEXT)
        case Document():
            return Stored(type=type, native="TEXT", form=Form.DOCUMENT, note="document kept as Extended JSON text")
        case Dynamic():
            return Stored(type=type, native="", form=Form.DYNAMIC)
        case Opaque(native=native):
            return Stored(
                type=Text(), native="TEXT", form=Form.TEXT, note=f"{native} kept as text: its operators are not there"
            )
    raise Unsupported(f"storing {type!r} in SQLite", "no type of SQLite holds it")


def _enum(values: tuple[str, ...], source: str) -> Stored:
    """Keep an enum as text; MySQL's error value '' stays allowed, because its tables may hold it."""
    from dblens.engines.sqlite.ddl import literal

    allowed = (*values, "") if source == "mysql" and "" not in values else values
    expression = None
    if allowed and not any("\0" in v or "{c}" in v for v in allowed):
        expression = "{c} in (" + ", ".join(map(literal, allowed)) + ")"
    return Stored(type=Text(), native="TEXT", form=Form.TEXT, check_expression=expression, note="enum kept as text")
