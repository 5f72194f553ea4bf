"""PostgreSQL's type chapter, pure: native spellings to meanings and back, and how columns of other engines are stored.

Decisions that are not obvious:
- unsigned 64-bit numbers become numeric(20,0): no integer type holds them; smaller unsigned ones take the next wider integer.
- a MySQL TIME is a signed duration, so it becomes `interval` (exact up to 838:59:59), not `time`.
- whole BSON documents become `json`, not `jsonb`: json keeps the text as given, with key order and number spelling; jsonb would not.
- geometry becomes `text` holding `<srid>:<WKB hex>`: exact without PostGIS, and castable to it.
- SET becomes text[]; its canonical form is a JSON array on both sides.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dblens.engines.base import Check, Stored
from dblens.engines.postgres.ddl import literal
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

LONGEST_VARCHAR = 10_485_760
LONGEST_BITS = 83_886_080
MOST_DIGITS = 1_000

_SIMPLE: dict[str, DataType] = {
    "boolean": Boolean(),
    "smallint": Integer(16),
    "integer": Integer(32),
    "bigint": Integer(64),
    "oid": Integer(32, unsigned=True),
    "numeric": Decimal(special=True),
    "real": Float(32),
    "double precision": Float(64),
    "money": Decimal(19, 2),
    "text": Text(),
    "character varying": Text(),
    "character": Text(1, fixed=True),
    "bpchar": Text(fixed=True),
    "name": Text(63),
    '"char"': Text(1),
    "citext": Text(),
    "bytea": Binary(),
    "date": Date(),
    "time without time zone": Time(),
    "time with time zone": Time(zone=True),
    "timestamp without time zone": Timestamp(),
    "timestamp with time zone": Timestamp(zone=True),
    "interval": Interval(),
    "uuid": Uuid(),
    "json": Json(normalised=False),
    "jsonb": Json(),
    "bit": Bits(1),
    "bit varying": Bits(None, varying=True),
    "geometry": Geometry(),
    "geography": Geometry("geography"),
}
_ALIASES = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int": "integer",
    "int8": "bigint",
    "serial": "integer",
    "bigserial": "bigint",
    "smallserial": "smallint",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "float": "double precision",
    "varchar": "character varying",
    "char": "character",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varbit": "bit varying",
}
_MODIFIED = re.compile(r"^([a-z\" _0-9]+?)\s*\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?\)\s*(.*)$", re.DOTALL)


@lru_cache(maxsize=4096)
def parse(native: str) -> DataType:
    """Return the meaning of a native spelling as format_type prints it, or as people write it. Unknown ones are Opaque."""
    text = " ".join(native.split())
    if text.endswith("[]"):
        return Array(parse(text[:-2]))
    lower = text if '"' in text and text != '"char"' else text.lower()
    match = _MODIFIED.match(lower)
    base, first, second = lower, None, None
    if match:
        base = f"{match[1]} {match[4]}".strip()
        first, second = int(match[2]), int(match[3]) if match[3] else None
    base = _ALIASES.get(base, base)
    simple = _SIMPLE.get(base)
    if simple is None:
        if base.startswith("interval"):
            return Interval()
        if base.endswith((".geometry", ".geography")):
            return Geometry(base.rpartition(".")[2])
        if base.endswith(".citext"):
            return Text()
        return Opaque(text)
    if first is None:
        return simple
    match simple:
        case Decimal() if base == "numeric":
            return Decimal(first, second or 0, special=True)
        case Text():
            return Text(first, fixed=simple.fixed)
        case Bits():
            return Bits(first, varying=simple.varying)
        case Time():
            return Time(first, zone=simple.zone)
        case Timestamp():
            return Timestamp(first, zone=simple.zone)
        case Float():
            return Float(32) if first <= 24 else Float(64)
    return simple


def spell(type: DataType) -> str:
    """Return the native spelling that stores a type. Raises Unsupported."""
    match type:
        case Boolean():
            return "boolean"
        case Integer(bits=bits, unsigned=unsigned):
            width = bits + 1 if unsigned else bits
            return (
                "smallint"
                if width <= 16
                else "integer"
                if width <= 32
                else "bigint"
                if width <= 64
                else "numeric(20,0)"
            )
        case Decimal(precision=precision, scale=scale):
            if precision is None:
                return "numeric"
            if precision > MOST_DIGITS or not 0 <= (scale or 0) <= MOST_DIGITS:
                return "numeric"
            return f"numeric({precision},{scale or 0})"
        case Float(bits=bits):
            return "real" if bits == 32 else "double precision"
        case Text(length=length, fixed=fixed):
            if length is None or not 0 < length <= LONGEST_VARCHAR:
                return "text"
            return f"character({length})" if fixed else f"character varying({length})"
        case Binary():
            return "bytea"
        case Date():
            return "date"
        case Time(span=True):
            return "interval"
        case Time(precision=precision, zone=zone):
            p = f"({precision})" if 0 <= precision < 6 else ""
            return f"time{p} {'with' if zone else 'without'} time zone"
        case Timestamp(precision=precision, zone=zone):
            p = f"({precision})" if 0 <= precision < 6 else ""
            return f"timestamp{p} {'with' if zone else 'without'} time zone"
        case Interval():
            return "interval"
        case Uuid():
            return "uuid"
        case Json(normalised=normalised):
            return "jsonb" if normalised else "json"
        case Enum(name=name):
            return name or "text"
        case Set():
            return "text[]"
        case Bits(length=length, varying=varying):
            if length is None or not 0 < length <= LONGEST_BITS:
                return "bit varying"
            return f"bit varying({length})" if varying else f"bit({length})"
        case Year():
            return "smallint"
        case Geometry() | Dynamic():
            return "text"
        case ObjectId():
            return "character varying(24)"
        case Array(item=item):
            return f"{spell(item)}[]"
        case Document():
            return "json"
        case Opaque(native=native):
            return native
    raise Unsupported("storing a type in PostgreSQL", f"{type!r} has no spelling")


_NUL = Check(kind="nul_character", repair="strip", why="PostgreSQL text cannot hold U+0000")
_FINITE = Check(kind="infinite_time", repair="block", why="infinite intervals need PostgreSQL 17 or later")
_INVALID = Check(kind="invalid_text", repair="block", why="PostgreSQL text must be valid UTF-8")


def store(column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:
    """Decide how PostgreSQL stores a column of the engine `source`. Raises Unsupported when there is no way at all."""
    if source == "postgresql" and column.native:
        older = flavour.isdigit() and int(flavour) < 17
        checks = (_FINITE,) if older and isinstance(column.type, Interval) else ()
        return Stored(
            type=column.type, native=column.native, form=Form.NATIVE, checks=checks, collation=column.collation
        )
    return _decide(column, column.type, source, indexed)


def _decide(column: Column, type: DataType, source: str, indexed: bool) -> Stored:
    lax = source == "sqlite"
    mixed = (
        (Check(kind="mixed_storage", repair="block", why="values of other storage classes do not fit"),) if lax else ()
    )
    texts = (_NUL, _INVALID) if source != "postgresql" else ()
    match type:
        case Boolean():
            checks = (Check(kind="not_boolean", why="only 0 and 1 fit into boolean"), *mixed)
            return Stored(
                type=type, native="boolean", form=Form.INT, checks=checks if source in ("mysql", "sqlite") else ()
            )
        case Integer():
            return _integer(type, mixed)
        case Year():
            return Stored(type=Integer(16), native="smallint", form=Form.INT, note="year becomes a number")
        case Decimal():
            native = spell(type)
            low = "{c} >= 0" if type.unsigned else None
            note = (
                "" if native != "numeric" or type.precision is None else "precision beyond 1000 digits is not declared"
            )
            return Stored(
                type=Decimal(type.precision, type.scale, special=True),
                native=native,
                form=Form.DECIMAL,
                checks=mixed,
                check_expression=low,
                note=note,
            )
        case Float():
            return Stored(type=type, native=spell(type), form=Form.FLOAT, checks=mixed)
        case Text():
            stored = Text(type.length, type.fixed) if spell(type) != "text" else Text()
            if source == "sqlite" or (type.fixed and source != "mysql"):
                stored = Text()
            if type.fixed and source == "mysql":
                # CHAR(n) never shows its padding in MySQL; varchar keeps what is shown and compares it exactly.
                stored = Text(type.length)
            return Stored(type=stored, native=spell(stored), form=Form.TEXT, checks=(*texts, *mixed))
        case Enum(values=values):
            return _enum(values, source, texts)
        case Set(values=values):
            listed = ", ".join(literal(v) for v in values)
            return Stored(
                type=Array(Text()),
                native="text[]",
                form=Form.JSON,
                check_expression=f"{{c}} <@ ARRAY[{listed}]::text[]" if values else None,
                note="set becomes an array of texts",
            )
        case Binary():
            return Stored(type=Binary(), native="bytea", form=Form.BYTES, checks=mixed)
        case Date() | Timestamp():
            return _moment(type, source, mixed)
        case Time(span=True):
            return Stored(
                type=Interval(),
                native="interval",
                form=Form.TIME,
                note="time is a signed duration there, so it becomes interval",
            )
        case Time(zone=zone):
            form = Form.TIMETZ if zone else Form.TIME
            return Stored(
                type=type,
                native=spell(type),
                form=form,
                checks=(Check(kind="outside_day", why="time ends at 24:00"), *mixed) if lax else (),
            )
        case Interval():
            return Stored(type=type, native="interval", form=Form.INTERVAL)
        case Uuid():
            return Stored(type=type, native="uuid", form=Form.UUID, checks=mixed)
        case Json():
            return _json(mixed)
        case Bits():
            return Stored(type=type, native=spell(type), form=Form.BITS)
        case Geometry():
            return Stored(
                type=Text(),
                native="text",
                form=Form.GEOMETRY,
                note="geometry becomes text: srid, colon, WKB in hexadecimal",
            )
        case ObjectId():
            return Stored(
                type=Text(24),
                native="character varying(24)",
                form=Form.TEXT,
                note="ObjectId becomes 24 hexadecimal digits",
            )
        case Array():
            return _json(mixed, "array becomes jsonb")
        case Document():
            if indexed:
                return Stored(
                    type=Text(), native="text", form=Form.DOCUMENT, checks=(_NUL,), note="json cannot be indexed: text"
                )
            return Stored(
                type=Json(normalised=False),
                native="json",
                form=Form.DOCUMENT,
                checks=(
                    Check(kind="json_nul", repair="none", why="\\u0000 is kept in json, but ->> cannot extract it"),
                )
                if source not in ("", "mongodb")
                else (),
                note="documents become json: key order and number spelling stay as they are",
            )
        case Dynamic():
            return Stored(
                type=Text(),
                native="text",
                form=Form.TEXT,
                checks=(
                    Check(
                        kind="mixed_storage",
                        repair="text",
                        why="storage classes are lost: every value becomes its text",
                    ),
                    *texts,
                ),
                note="column without one storage class becomes text",
            )
        case Opaque():
            return Stored(
                type=Text(),
                native="text",
                form=Form.TEXT,
                checks=texts,
                note=f"{column.native or type.native} becomes text",
            )
    raise Unsupported(f"storing {column.name!r}", f"PostgreSQL has no type for {type!r}")


def _integer(type: Integer, mixed: tuple[Check, ...]) -> Stored:
    native = spell(type)
    if native.startswith("numeric"):
        return Stored(
            type=Decimal(20, 0),
            native=native,
            form=Form.INT,
            checks=mixed,
            check_expression="{c} >= 0 AND {c} <= 18446744073709551615",
            note="unsigned 64-bit numbers become numeric(20,0)",
        )
    bits = {"smallint": 16, "integer": 32, "bigint": 64}[native]
    check = "{c} >= 0" if type.unsigned else None
    return Stored(type=Integer(bits), native=native, form=Form.INT, checks=mixed, check_expression=check)


def _enum(values: tuple[str, ...], source: str, texts: tuple[Check, ...]) -> Stored:
    listed = ", ".join(literal(v) for v in (*values, *(("",) if source == "mysql" and "" not in values else ())))
    empty = (Check(kind="empty_enum", repair="none", why="MySQL's error value '' becomes an ordinary empty text"),)
    return Stored(
        type=Text(),
        native="text",
        form=Form.TEXT,
        checks=empty if source == "mysql" else texts,
        check_expression=f"{{c}} IN ({listed})" if listed else None,
        note="enum becomes text with a check",
    )


def _moment(type: Date | Timestamp, source: str, mixed: tuple[Check, ...]) -> Stored:
    checks: tuple[Check, ...] = ()
    if source == "mysql":
        checks = (Check(kind="zero_date", repair="null", why="PostgreSQL has no zero dates"),)
    elif source == "sqlite":
        checks = (Check(kind="not_this_type", repair="block", why="the text is not a date"), *mixed)
    elif source == "mongodb":
        low, high = ("-4713-01-01", "294276-12-31")
        checks = (Check(kind="outside_dates", low=low, high=high, why="outside PostgreSQL's range"),)
    if isinstance(type, Date):
        return Stored(type=type, native="date", form=Form.DATE, checks=checks)
    form = Form.TIMESTAMPTZ if type.zone else Form.TIMESTAMP
    return Stored(type=type, native=spell(type), form=form, checks=checks)


def _json(mixed: tuple[Check, ...], note: str = "") -> Stored:
    checks = (
        Check(kind="not_json", repair="block", why="not JSON"),
        Check(kind="json_nul", repair="strip", why="jsonb cannot hold \\u0000"),
        Check(kind="json_duplicate_key", repair="none", why="jsonb keeps the last of equal keys"),
        *mixed,
    )
    return Stored(type=Json(), native="jsonb", form=Form.JSON, checks=checks, note=note)
