"""Native spellings <-> meanings, and how MySQL or MariaDB stores a column of another engine."""

from __future__ import annotations

import re

from dblens.engines.base import Check, Stored
from dblens.engines.mysql.sql import literal
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

_NATIVE = re.compile(
    r"^\s*([a-z][a-z0-9]*(?:\s+(?:precision|varying))?)\s*(?:\((.*)\))?\s*([a-z0-9_ ]*)$", re.IGNORECASE | re.DOTALL
)
_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_TEXTS = {"tinytext": 255, "text": None, "mediumtext": None, "longtext": None}
_BLOBS = {"tinyblob": 255, "blob": None, "mediumblob": None, "longblob": None}
_SHAPES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection",
)  # fmt: skip
INDEX_TEXT = 768
"""Characters of utf8mb4 that fit into InnoDB's index limit of 3,072 octets."""
ROW_TEXT = 768
"""Longest VARCHAR kept in the row (65,535 octets for all columns together); longer texts lie outside it as LONGTEXT."""


def members(text: str) -> tuple[str, ...]:
    """Return the members of an ENUM's or SET's bracket (`'a','it''s'`)."""
    found = re.findall(r"'((?:[^'\\]|''|\\.)*)'", text, re.DOTALL)
    return tuple(re.sub(r"''|\\(.)", lambda m: m[1] or "'", f, flags=re.DOTALL) for f in found)


def parse(native: str) -> DataType:
    """Return the meaning of a native spelling."""
    match = _NATIVE.match(native)
    if match is None:
        return Opaque(native)
    word, inside, tail = " ".join(match[1].lower().split()), match[2], match[3].lower()
    numbers = [int(n) for n in re.findall(r"\d+", inside or "")] if word not in ("enum", "set") else []
    unsigned = "unsigned" in tail or "zerofill" in tail
    first = numbers[0] if numbers else None
    if word in _INTEGERS:
        return Integer(_INTEGERS[word], unsigned)
    if word in _SHAPES:
        srid = re.search(r"srid (\d+)", tail)
        return Geometry("geometrycollection" if word == "geomcollection" else word, int(srid[1]) if srid else None)
    match word:
        case "bool" | "boolean":
            return Integer(8)
        case "decimal" | "numeric" | "dec" | "fixed":
            return Decimal(first or 10, numbers[1] if len(numbers) > 1 else 0, unsigned)
        case "float":
            return Float(64 if first is not None and len(numbers) == 1 and first > 24 else 32)
        case "double" | "double precision" | "real":
            return Float(64)
        case "char":
            return Text(first or 1, fixed=True)
        case "varchar":
            return Text(first)
        case "tinytext" | "text" | "mediumtext" | "longtext":
            return Text(first or _TEXTS[word])
        case "binary":
            return Binary(first or 1, fixed=True)
        case "varbinary":
            return Binary(first)
        case "tinyblob" | "blob" | "mediumblob" | "longblob":
            return Binary(first or _BLOBS[word])
        case "date":
            return Date()
        case "time":
            return Time(first or 0, span=True)
        case "datetime":
            return Timestamp(first or 0)
        case "timestamp":
            return Timestamp(first or 0, zone=True)
        case "year":
            return Year()
        case "bit":
            return Bits(first or 1)
        case "enum":
            return Enum(members(inside or ""))
        case "set":
            return Set(members(inside or ""))
        case "json":
            return Json(normalised=True)
        case "uuid":
            return Uuid()
        case "inet4" | "inet6":
            return Opaque(word)
        case _:
            return Opaque(native)


def spell(type: DataType) -> str:
    """Return the native spelling that stores a type. Raises Unsupported."""
    match type:
        case Boolean():
            return "tinyint(1)"
        case Integer(bits=bits, unsigned=unsigned):
            names = {8: "tinyint", 16: "smallint", 24: "mediumint", 32: "int", 64: "bigint"}
            return names[bits] + (" unsigned" if unsigned else "")
        case Decimal(precision=p, scale=s, unsigned=unsigned):
            if p is None or p > 65 or not 0 <= (s or 0) <= min(30, p):
                return "longtext"
            return f"decimal({p},{s or 0})" + (" unsigned" if unsigned else "")
        case Float(bits=bits):
            return "float" if bits == 32 else "double"
        case Text(length=n, fixed=fixed):
            if fixed and n is not None and n <= 255:
                return f"char({n})"
            return f"varchar({n})" if n is not None and n <= ROW_TEXT else "longtext"
        case Binary(length=n, fixed=fixed):
            if fixed and n is not None and n <= 255:
                return f"binary({n})"
            return f"varbinary({n})" if n is not None and n <= 4 * ROW_TEXT else "longblob"
        case Date():
            return "date"
        case Time(precision=p):
            return f"time({min(p, 6)})" if p else "time"
        case Timestamp(precision=p):
            return f"datetime({min(p, 6)})" if p else "datetime"
        case Interval():
            return "varchar(64)"
        case Uuid():
            return "char(36)"
        case Json() | Array():
            return "json"
        case Enum(values=values):
            return "enum(" + ",".join(map(literal, values)) + ")"
        case Set(values=values):
            return "set(" + ",".join(map(literal, values)) + ")"
        case Bits(length=n, varying=varying):
            if n is None or n > 64 or varying:
                return f"varchar({n})" if n is not None and n <= ROW_TEXT else "longtext"
            return f"bit({n})"
        case Year():
            return "year"
        case Geometry(kind=kind):
            return kind if kind in _SHAPES else "geometry"
        case ObjectId():
            return "char(24)"
        case Document() | Dynamic() | Opaque():
            return "longtext"
    raise Unsupported(f"storing {type!r} in MySQL", "no type of MySQL holds it")


def exact_collation(flavour: str) -> str:
    """Return the collation under which texts that differ stay different: by octets, trailing spaces kept."""
    return "utf8mb4_nopad_bin" if flavour == "mariadb" else "utf8mb4_0900_bin"


_DATES = Check(
    kind="outside_dates",
    repair="null",
    low="0001-01-01",
    high="9999-12-31 23:59:59.999999",
    why="MySQL holds years 0000 to 9999",
)
_INFINITE = Check(kind="infinite_time", repair="null", why="MySQL has no infinite dates")
_NONFINITE = Check(kind="nonfinite", repair="null", why="MySQL has neither NaN nor infinities")
_JSON = (
    Check(kind="not_json", repair="block", why="MySQL refuses texts that are not JSON"),
    Check(
        kind="json_number",
        repair="block",
        why="MySQL keeps JSON numbers as 64-bit integers and doubles; a rule type=longtext keeps the text",
    ),
    Check(kind="json_duplicate_key", repair="none", why="MySQL keeps the last of equal keys"),
)

_DEEP = Check(
    kind="not_json",
    repair="block",
    limit=31,
    why="MariaDB takes no JSON of more than 31 levels; map the column to longtext",
)


_INVALID = Check(
    kind="invalid_text", repair="block", why="MySQL text must be valid UTF-8; a rule type=longblob keeps the octets"
)


def _text(length: int | None, flavour: str, *, indexed: bool, note: str = "", form: Form = Form.TEXT) -> Stored:
    collation = exact_collation(flavour)
    checks: tuple[Check, ...] = (_INVALID,)
    if indexed and (length is None or length > INDEX_TEXT):
        checks = (
            _INVALID,
            Check(
                kind="too_long",
                repair="block",
                limit=INDEX_TEXT,
                why=f"an indexed text in MySQL holds at most {INDEX_TEXT} characters",
            ),
        )
        length = INDEX_TEXT
    if length is not None and length <= ROW_TEXT:
        # CHAR drops trailing spaces when read, VARCHAR keeps them: never CHAR for another engine's text.
        type: DataType = Text(max(length, 1))
        native = f"varchar({max(length, 1)})"
    else:
        type, native = Text(None), "longtext"
    return Stored(type=type, native=native, form=form, checks=checks, note=note, collation=collation)


def store(column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:
    """Decide how MySQL (`flavour` mysql) or MariaDB (mariadb) stores a column of engine `source`."""
    type = column.type
    if source == "mysql":
        return _same_engine(column, flavour)
    maria = flavour == "mariadb"
    # PostgreSQL compares texts by octets for equality; MySQL's sources keep theirs, everything else is case-sensitive too.
    match type:
        case Boolean():
            return Stored(type=Boolean(), native="tinyint(1)", form=Form.INT, check_expression="{c} in (0,1)")
        case Integer():
            return Stored(type=type, native=spell(type), form=Form.INT)
        case Decimal():
            return _decimal(type, flavour, indexed)
        case Float(bits=bits):
            checks = (
                (_NONFINITE, Check(kind="negative_zero", repair="strip", why="MariaDB stores -0.0 as 0"))
                if maria
                else (_NONFINITE,)
            )
            # Single floats are stored as doubles: MySQL's FLOAT reads back through 6 digits in too many clients.
            note = "stored as DOUBLE: every single-precision value is exact in it" if bits == 32 else ""
            return Stored(type=Float(64), native="double", form=Form.FLOAT, checks=checks, note=note)
        case Text(length=length):
            return _text(length, flavour, indexed=indexed)
        case Binary(length=length):
            return _binary(length, indexed)
        case Date():
            return Stored(type=Date(), native="date", form=Form.DATE, checks=(_DATES, _INFINITE))
        case Time(zone=True):
            return _text(32, flavour, indexed=indexed, note="time with zone kept as text", form=Form.TIMETZ)
        case Time(precision=precision):
            return Stored(type=Time(precision, span=True), native=spell(type), form=Form.TIME)
        case Timestamp(precision=precision, zone=zone):
            native = f"datetime({min(precision, 6)})" if precision else "datetime"
            return Stored(
                type=Timestamp(min(precision, 6)), native=native, form=Form.TIMESTAMPTZ if zone else Form.TIMESTAMP,
                checks=(_DATES, _INFINITE), note="instant stored as DATETIME in UTC" if zone else "",
            )  # fmt: skip
        case Interval():
            return Stored(
                type=Text(64), native="varchar(64)", form=Form.INTERVAL, collation="ascii_bin",
                note="interval kept as text: months, days, microseconds",
            )  # fmt: skip
        case Uuid():
            return Stored(type=Text(36, fixed=True), native="char(36)", form=Form.UUID, collation="ascii_bin")
        case ObjectId():
            return Stored(type=Text(24, fixed=True), native="char(24)", form=Form.TEXT, collation="ascii_bin")
        case Json() | Array():
            note = "array kept as JSON" if isinstance(type, Array) else ""
            if maria:
                return Stored(
                    type=Json(normalised=False), native="json", form=Form.JSON, checks=(*_JSON[:1], _DEEP), note=note
                )
            return Stored(type=Json(), native="json", form=Form.JSON, checks=_JSON, note=note)
        case Document():
            return Stored(
                type=Text(None), native="longtext", form=Form.DOCUMENT, collation=exact_collation(flavour),
                check_expression="json_valid({c})", note="document kept as Extended JSON text",
            )  # fmt: skip
        case Enum(values=values):
            return _enum(values, flavour, indexed)
        case Set(values=values):
            if len(values) <= 64 and not any("," in v for v in values):
                return Stored(type=type, native=spell(type), form=Form.JSON, collation=exact_collation(flavour))
            return Stored(type=Json(), native="json", form=Form.JSON, note="set kept as a JSON array")
        case Bits(length=length, varying=varying):
            if length is not None and length <= 64 and not varying:
                return Stored(type=type, native=f"bit({length})", form=Form.BITS)
            return _text(length, flavour, indexed=indexed, note="bit string kept as text of 0 and 1", form=Form.BITS)
        case Year():
            return Stored(type=Integer(16), native="smallint", form=Form.INT)
        case Geometry(kind=kind):
            return Stored(
                type=Geometry(kind if kind in _SHAPES else "geometry"), native=spell(type), form=Form.GEOMETRY
            )
        case Dynamic():
            kept = _text(None, flavour, indexed=indexed, note="mixed storage classes kept as text")
            mixed = Check(kind="mixed_storage", repair="text", why="one column of MySQL has one type")
            return Stored(
                type=kept.type,
                native=kept.native,
                form=Form.TEXT,
                checks=(mixed, *kept.checks),
                note=kept.note,
                collation=kept.collation,
            )
        case Opaque(native=native):
            return _text(None, flavour, indexed=indexed, note=f"{native} kept as text: its operators are not there")
    raise Unsupported(f"storing {type!r} in MySQL", "no type of MySQL holds it")


def _same_engine(column: Column, flavour: str) -> Stored:
    """Keep the native type; between the two servers translate what only one of them knows."""
    maria = flavour == "mariadb"
    word = column.native.split("(")[0].split(" ")[0].lower()
    if isinstance(column.type, Json) and column.type.normalised is maria and flavour:
        # MySQL's normal form is verbatim text to MariaDB; MariaDB's verbatim text is normalised by MySQL.
        return Stored(
            type=Json(normalised=not maria), native="json", form=Form.JSON, checks=(_DEEP,) if maria else _JSON
        )
    collation = column.collation
    if collation is not None and flavour:
        collation = known_collation(collation, flavour)
    if not maria and flavour and word in ("uuid", "inet4", "inet6"):
        length = {"uuid": 36, "inet4": 15, "inet6": 45}[word]
        return Stored(
            type=Text(length),
            native=f"varchar({length})",
            form=Form.NATIVE,
            collation="ascii_bin",
            note=f"{word} kept as text",
        )
    if maria and word == "vector":
        return Stored(type=Binary(None), native="longblob", form=Form.NATIVE, note="vector kept as octets")
    if maria and isinstance(column.type, Geometry):
        return Stored(type=Geometry(column.type.kind), native=column.type.kind, form=Form.NATIVE)
    checks: tuple[Check, ...] = ()
    if maria and isinstance(column.type, Float):
        checks = (Check(kind="negative_zero", repair="strip", why="MariaDB stores -0.0 as 0"),)
    # MySQL prints decimals inside JSON with their zeros and reads them back as doubles: equal in value, not in text.
    form = Form.JSON if isinstance(column.type, Json) and column.type.normalised else Form.NATIVE
    return Stored(type=column.type, native=column.native, form=form, checks=checks, collation=collation)


_TO_MARIA = {
    "utf8mb4_0900_ai_ci": "utf8mb4_uca1400_nopad_ai_ci", "utf8mb4_0900_as_ci": "utf8mb4_uca1400_nopad_as_ci",
    "utf8mb4_0900_as_cs": "utf8mb4_uca1400_nopad_as_cs", "utf8mb4_0900_bin": "utf8mb4_nopad_bin",
}  # fmt: skip


def known_collation(name: str, flavour: str) -> str:
    """Return a collation that the target knows and that holds no more values equal than the source's."""
    if flavour == "mariadb":
        if name in _TO_MARIA:
            return _TO_MARIA[name]
        return "utf8mb4_nopad_bin" if "_0900_" in name else name
    if "uca1400" in name:
        strength = next((s for s in ("as_cs", "as_ci", "ai_ci") if name.endswith(s)), "as_cs")
        return f"utf8mb4_0900_{strength}"
    if "nopad" in name:
        return "utf8mb4_0900_bin" if name.endswith("bin") else "utf8mb4_0900_ai_ci"
    return name


def _decimal(type: Decimal, flavour: str, indexed: bool) -> Stored:
    precision, scale = type.precision, type.scale or 0
    checks: tuple[Check, ...] = (_NONFINITE,) if type.special else ()
    if precision is not None and scale < 0:
        precision, scale = precision - scale, 0
    if precision is not None and scale > precision:
        precision = scale
    if precision is not None and precision <= 65 and scale <= 30:
        kept = Decimal(precision, scale, type.unsigned)
        return Stored(type=kept, native=f"decimal({precision},{scale})", form=Form.DECIMAL, checks=checks)
    return _text(
        None, flavour, indexed=indexed, form=Form.DECIMAL,
        note="unbounded decimal kept exactly as text: DECIMAL holds 65 digits, 30 of them fractional",
    )  # fmt: skip


def _binary(length: int | None, indexed: bool) -> Stored:
    if indexed and (length is None or length > 4 * INDEX_TEXT):
        limit = 4 * INDEX_TEXT
        check = Check(
            kind="too_long", repair="block", limit=limit, why=f"an indexed value in MySQL holds at most {limit} octets"
        )
        return Stored(type=Binary(limit), native=f"varbinary({limit})", form=Form.BYTES, checks=(check,))
    if length is not None and length <= 4 * ROW_TEXT:
        return Stored(type=Binary(max(length, 1)), native=f"varbinary({max(length, 1)})", form=Form.BYTES)
    return Stored(type=Binary(None), native="longblob", form=Form.BYTES)


def _enum(values: tuple[str, ...], flavour: str, indexed: bool) -> Stored:
    fits = (
        values and all(len(v) <= 255 and "\0" not in v and not v.endswith(" ") for v in values) and len(values) <= 65535
    )
    if not fits:
        return _text(max(map(len, values), default=1), flavour, indexed=indexed, note="enum kept as text")
    kept = Enum(values)
    return Stored(type=kept, native=spell(kept), form=Form.TEXT, collation=exact_collation(flavour))
