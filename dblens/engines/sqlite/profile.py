"""What a table's columns really hold: storage classes by one scan, and declared meanings where every value proves them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.sqlite import prove
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

_AT_ONCE = 250
_CLASSES = ("integer", "real", "text", "blob")
_EXACT = 1 << 53


class _Facts(msgspec.Struct):
    """What the scan saw in one column."""

    classes: tuple[str, ...]
    low: int | None
    high: int | None
    longest: int | None


def profile(db: Db, table: Table, report: Report) -> tuple[Table, dict[str, prove.Proof]]:
    """Return the table with the types that its rows prove, and what else was proven on the way, by column."""
    report(Progress(task=f"profile {table.namespace}.{table.name}", done=0, total=table.rows_estimate))
    guesses = _guesses(db, table)
    proofs = prove.prove(db, table, guesses)
    rest = [(c, g) for c, g in zip(table.columns, guesses, strict=True) if c.name not in proofs]
    closer = msgspec.structs.replace(table, columns=tuple([c for c, _ in rest]))
    facts = {c.name: f for c, f in zip(closer.columns, _scan(db, closer, [g for _, g in rest]), strict=True)}
    columns = [
        msgspec.structs.replace(
            c, type=proofs[c.name].type if c.name in proofs else _proven(db, table, c, facts[c.name])
        )
        for c in table.columns
    ]
    return msgspec.structs.replace(table, columns=tuple(columns)), proofs


def _guesses(db: Db, table: Table) -> list[str]:
    """Return the storage class of each column's first value among the first rows, `null` where there is none."""
    place = where_is((table.namespace, table.name))
    names = [quote(c.name) for c in table.columns]
    guesses: list[str] = []
    for start in range(0, len(names), _AT_ONCE):
        kinds = ", ".join(f"typeof({c})" for c in names[start : start + _AT_ONCE])
        sample = db.rows(f"SELECT {kinds} FROM {place} LIMIT 50")
        columns = zip(*sample, strict=True) if sample else [("null",)] * len(names[start : start + _AT_ONCE])
        guesses.extend(next((v for v in values if v != "null"), "null") for values in columns)
    return guesses


def _scan(db: Db, table: Table, guesses: Sequence[str]) -> list[_Facts]:
    """Look at every value. Columns that hold one class throughout, as nearly all do, cost one comparison a value; only the others are
    looked at class by class, in a second scan.
    """
    place = where_is((table.namespace, table.name))
    names = [quote(c.name) for c in table.columns]
    facts: dict[str, _Facts] = {}
    mixed = []
    for start in range(0, len(names), _AT_ONCE):
        parts = []
        for column, guess in zip(table.columns[start : start + _AT_ONCE], guesses[start:], strict=False):
            c = quote(column.name)
            bounds = f"min({c}), max({c})" if guess == "integer" and _bounded(column) else "NULL, NULL"
            parts.append(f"count({c}), total(typeof({c}) NOT IN ('null', '{guess}')), {bounds}, {_longest(column)}")
        row = db.rows(f"SELECT {', '.join(parts)} FROM {place}")[0]
        for i, column in enumerate(table.columns[start : start + _AT_ONCE]):
            held, others, low, high, longest = row[5 * i : 5 * i + 5]
            guess = guesses[start + i]
            if others:
                mixed.append(column)
            else:
                facts[column.name] = _Facts((guess,) if held else (), low, high, longest)
    for start in range(0, len(mixed), _AT_ONCE):
        parts = []
        for column in mixed[start : start + _AT_ONCE]:
            c = quote(column.name)
            parts += [f"max(typeof({c}) = '{name}')" for name in _CLASSES]
            whole = f"CASE WHEN typeof({c}) = 'integer' THEN {c} END"
            parts += [f"min({whole})", f"max({whole})", _longest(column)]
        row = db.rows(f"SELECT {', '.join(parts)} FROM {place}")[0]
        for i, column in enumerate(mixed[start : start + _AT_ONCE]):
            seen = row[7 * i : 7 * i + 7]
            facts[column.name] = _Facts(
                tuple(n for n, there in zip(_CLASSES, seen[:4], strict=True) if there), *seen[4:]
            )
    return [facts[c.name] for c in table.columns]


def _bounded(column: Column) -> bool:
    """Tell whether a column's meaning depends on its least and greatest number."""
    return isinstance(column.type, (Boolean, Year, Decimal, Dynamic, Float))


def _longest(column: Column) -> str:
    bounded = isinstance(column.type, (Text, Binary)) and column.type.length is not None
    return f"max(length({quote(column.name)}))" if bounded else "NULL"


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
            exact = (seen.low or 0) >= -_EXACT and (seen.high or 0) <= _EXACT
            return Float(64) if exact else Dynamic(seen.classes)
        case ("text",):
            return _text(db, table, column, seen)
        case ("blob",):
            return (
                Binary(declared.length) if isinstance(declared, Binary) and _short(declared.length, seen) else Binary()
            )
    return Dynamic(seen.classes)


def _short(length: int | None, seen: _Facts) -> bool:
    return length is not None and (seen.longest or 0) <= length


def _whole(declared: DataType, column: Column, seen: _Facts) -> DataType:
    low, high = seen.low or 0, seen.high or 0
    if isinstance(declared, Boolean) and low >= 0 and high <= 1:
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
    wrong = f"{c} IN (9e999, -9e999) OR dblens_decimal_overflow({c}, {declared.precision}, {declared.scale or 0})"
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
