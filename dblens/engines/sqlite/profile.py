"""What a table's columns really hold: storage classes by one scan, and declared meanings where every value proves them."""

from __future__ import annotations

import msgspec

from dblens.engines.sqlite.ddl import literal, quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.types import affinity
from dblens.events import Progress, Report
from dblens.schema.model import Column, Table
from dblens.schema.types import (
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Dynamic,
    Float,
    Geometry,
    Integer,
    Interval,
    Json,
    ObjectId,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)

_AT_ONCE = 300
_EXACT = 1 << 53


class _Facts(msgspec.Struct):
    """What the scan saw in one column."""

    integers: int
    reals: int
    texts: int
    blobs: int
    low: int | None
    high: int | None
    longest: int | None

    @property
    def classes(self) -> tuple[str, ...]:
        counts = (("integer", self.integers), ("real", self.reals), ("text", self.texts), ("blob", self.blobs))
        return tuple(name for name, count in counts if count)


def profile(db: Db, table: Table, report: Report) -> Table:
    """Return the table with the types that its rows prove."""
    report(Progress(task=f"profile {table.namespace}.{table.name}", done=0, total=table.rows_estimate))
    facts = _scan(db, table)
    columns = tuple(
        msgspec.structs.replace(column, type=_proven(db, table, column, seen))
        for column, seen in zip(table.columns, facts, strict=True)
    )
    return msgspec.structs.replace(table, columns=columns)


def _scan(db: Db, table: Table) -> list[_Facts]:
    facts = []
    for start in range(0, len(table.columns), _AT_ONCE):
        parts = []
        for column in table.columns[start : start + _AT_ONCE]:
            c = quote(column.name)
            parts += [f"total(typeof({c}) = '{name}')" for name in ("integer", "real", "text", "blob")]
            whole = f"CASE WHEN typeof({c}) = 'integer' THEN {c} END"
            parts += [f"min({whole})", f"max({whole})"]
            bounded = isinstance(column.type, (Text, Binary)) and column.type.length is not None
            parts.append(f"max(length({c}))" if bounded else "NULL")
        row = db.rows(f"SELECT {', '.join(parts)} FROM {where_is((table.namespace, table.name))}")[0]
        for i in range(0, len(row), 7):
            counts = [int(n) for n in row[i : i + 4]]
            facts.append(_Facts(*counts, *row[i + 4 : i + 7]))
    return facts


def _proven(db: Db, table: Table, column: Column, seen: _Facts) -> DataType:
    declared = column.type
    match seen.classes:
        case ():
            return declared
        case ("integer",):
            return _whole(declared, column, seen)
        case ("real",):
            return declared if _fits_scale(db, table, column) else Float(64)
        case ("integer", "real") if affinity(column.native) in ("numeric", "real"):
            # A NUMERIC column keeps 100.0 as the integer 100, so the mixture says nothing; a large integer is no double, though.
            if _fits_scale(db, table, column):
                return declared
            exact = -_EXACT <= (seen.low or 0) and (seen.high or 0) <= _EXACT
            return Float(64) if exact else Dynamic(seen.classes)
        case ("text",):
            return _text(db, table, column, seen)
        case ("blob",):
            return Binary(declared.length) if isinstance(declared, Binary) and _short(declared.length, seen) else Binary()
    return Dynamic(seen.classes)


def _short(length: int | None, seen: _Facts) -> bool:
    return length is not None and (seen.longest or 0) <= length


def _whole(declared: DataType, column: Column, seen: _Facts) -> DataType:
    low, high = seen.low or 0, seen.high or 0
    if isinstance(declared, Boolean) and 0 <= low and high <= 1:
        return declared
    if isinstance(declared, Year) and (low == 0 or low >= 1901) and high <= 2155:
        return declared
    if isinstance(declared, Decimal) and declared.precision is not None:
        whole = declared.precision - (declared.scale or 0)
        if max(abs(low), abs(high)) < 10**whole:
            return declared
    if isinstance(declared, Float) and affinity(column.native) == "real":
        return declared
    return Integer(64)


def _fits_scale(db: Db, table: Table, column: Column) -> bool:
    """Tell whether every number is a value of the declared DECIMAL(p,s) by its shortest digits."""
    declared = column.type
    if not isinstance(declared, Decimal) or declared.precision is None:
        return False
    c = quote(column.name)
    wrong = f"abs({c}) = 9e999 OR dblens_decimal_overflow({c}, {declared.precision}, {declared.scale or 0})"
    return not _any(db, table, f"{c} IS NOT NULL AND ({wrong})")


def _any(db: Db, table: Table, condition: str) -> bool:
    return bool(db.rows(f"SELECT 1 FROM {where_is((table.namespace, table.name))} WHERE {condition} LIMIT 1"))


def _text(db: Db, table: Table, column: Column, seen: _Facts) -> DataType:
    declared = column.type
    c = quote(column.name)
    if isinstance(declared, Text):
        if _short(declared.length, seen) and not _any(db, table, f"instr(CAST({c} AS BLOB), x'00') > 0"):
            return declared
        return Text()
    shape = _shape(declared)
    if shape is None:
        return Text()
    wrong = f"{c} IS NOT NULL AND NOT dblens_fits({literal(shape)}, CAST({c} AS BLOB))"
    if not _any(db, table, wrong):
        if isinstance(declared, Decimal) and _any(db, table, f"dblens_decimal_overflow({c}, {declared.precision or 'NULL'}, "
                                                  f"{'NULL' if declared.scale is None else declared.scale})"):  # fmt: skip
            return Decimal(special=declared.special)
        return declared
    if shape == "timestamp" and not _any(db, table, wrong.replace("'timestamp'", "'timestamptz'")):
        return Timestamp(declared.precision if isinstance(declared, Timestamp) else 6, zone=True)
    if shape == "timestamptz" and not _any(db, table, wrong.replace("'timestamptz'", "'timestamp'")):
        return Timestamp(declared.precision if isinstance(declared, Timestamp) else 6)
    if shape == "time" and not _any(db, table, wrong.replace("'time'", "'span'")):
        return Time(declared.precision if isinstance(declared, Time) else 6, span=True)
    return Text()


def _shape(declared: DataType) -> str | None:
    match declared:
        case Date():
            return "date"
        case Time(zone=zone):
            return "timetz" if zone else "time"
        case Timestamp(zone=zone):
            return "timestamptz" if zone else "timestamp"
        case Uuid():
            return "uuid"
        case Json():
            return "json"
        case Interval():
            return "interval"
        case Bits():
            return "bits"
        case ObjectId():
            return "objectid"
        case Decimal():
            return "decimal"
        case Integer(bits=64, unsigned=True):
            return "uint64"
        case Document():
            return "json"
        case Geometry():
            return None
    return None
