"""Questions about values (`Check`) as SQLite conditions, and their repairs as SQLite expressions.

Copier and verifier share them on purpose: both must agree on *which* values an accepted loss concerns and what becomes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dblens.engines.base import ALL, Check, CheckResult, Field, KeyRange
from dblens.engines.sqlite.ddl import literal, quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.functions import SHAPES
from dblens.engines.sqlite.keys import key_columns, range_condition
from dblens.engines.sqlite.prove import Proof, doubtful, inexact, not_text
from dblens.errors import Unsupported
from dblens.schema.model import Table
from dblens.schema.types import Date, Decimal, Float, Timestamp
from dblens.values import doubt
from dblens.values.forms import Form

SAMPLES = 5
_AT_ONCE = 400
"""Conditions in one scan: SQLite gives at most 2,000 result columns."""
_CLASSES: dict[Form, tuple[str, ...]] = {
    Form.INT: ("integer",),
    Form.FLOAT: ("real",),
    Form.DECIMAL: ("integer", "real"),
    Form.BYTES: ("blob",),
    Form.BSON: ("blob",),
    Form.DYNAMIC: ("integer", "real", "text", "blob"),
    Form.NATIVE: ("integer", "real", "text", "blob"),
}
_SHAPES: dict[Form, str] = {
    Form.DECIMAL: "decimal",
    Form.DATE: "date",
    Form.TIME: "time",
    Form.TIMETZ: "timetz",
    Form.TIMESTAMP: "timestamp",
    Form.TIMESTAMPTZ: "timestamptz",
    Form.INTERVAL: "interval",
    Form.UUID: "uuid",
    Form.JSON: "json",
    Form.BITS: "bits",
}

_DOUBTS = {
    "date": "d",
    "time": "k",
    "timestamp": "s",
    "timestamptz": "z",
    "uuid": "u",
    "json": doubt.json_kind(["not_json"]),
}


def subject(field: Field) -> str:
    """Return the expression that a field reads, before repairs."""
    if field.is_constant:
        return literal(field.constant)
    return f"({field.expression})" if field.expression is not None else quote(field.column.name)


def repaired(field: Field) -> str:
    """Return the expression that a field reads, after the repairs of its accepted losses."""
    expression = subject(field)
    for check in field.repairs:
        condition = predicate(field, check, expression)
        changed = _repair(expression, field, check)
        if condition is not None and changed != expression:
            expression = f"CASE WHEN {condition} THEN {changed} ELSE {expression} END"
    return expression


def _octets(expression: str) -> str:
    return f"CAST({expression} AS BLOB)"


def _repair(e: str, field: Field, check: Check) -> str:
    octets = _octets(e)
    match check.repair, check.kind:
        case "null", _:
            return "NULL"
        case (("strip" | "truncate" | "round"), "negative_zero"):
            return f"abs({e})"
        case "strip", "nul_character":
            return f"dblens_without({octets}, 'nul')"
        case "strip", "invalid_text":
            return f"dblens_without({octets}, 'invalid')"
        case "strip", "four_byte_text":
            return f"dblens_without({octets}, 'astral')"
        case "strip", "json_nul":
            return f"dblens_without({octets}, 'json')"
        case "strip", "trailing_space":
            return f"rtrim({e}, ' ')"
        case "truncate", "sub_millisecond":
            return f"dblens_milliseconds({octets})"
        case "truncate", "too_long" | "oversize" if check.limit is not None:
            return f"CASE typeof({e}) WHEN 'blob' THEN substr({e}, 1, {check.limit}) ELSE dblens_head({octets}, {check.limit}) END"
        case "truncate", "decimal_overflow" if check.scale is not None:
            return f"dblens_truncated({e}, {check.scale})"
        case "round", "decimal_overflow" if check.scale is not None:
            return f"dblens_rounded({e}, {check.scale})"
        case "text", _:
            return f"dblens_as_text({e})"
        case (("none" | "block"), _):
            return e
    raise Unsupported(
        f"repair {check.repair!r} of {check.kind!r} in column {field.column.name!r}", "SQLite sources do not know it"
    )


def predicate(field: Field, check: Check, expression: str | None = None) -> str | None:
    """Return the condition that selects the values a check concerns, None when none can be."""
    if field.is_constant:
        return None
    e = expression or subject(field)
    kind, octets = f"typeof({e})", _octets(e)
    text = f"{kind} = 'text'"
    # SQLite evaluates both sides of AND, and the driver refuses a call with text that is not UTF-8.
    plain = f"CASE {kind} WHEN 'text' THEN {octets} ELSE {e} END"
    type = field.column.type
    low, high = literal(check.low), literal(check.high)
    dated = isinstance(type, (Date, Timestamp)) or field.form in (Form.DATE, Form.TIMESTAMP, Form.TIMESTAMPTZ)
    match check.kind:
        case "nul_character":
            return f"({text} AND instr({octets}, x'00') > 0)"
        case "invalid_text":
            return f"({text} AND dblens_invalid({octets}))"
        case "nonfinite":
            # SQLite holds no NaN in a number; a decimal kept as text may say so. Bounds that are infinite admit infinities.
            words = (
                ["nan"] if check.low == "-Infinity" and check.high == "Infinity" else ["nan", "infinity", "-infinity"]
            )
            listed = ", ".join(map(literal, words))
            spelled = f"({text} AND lower({e}) IN ({listed}))" if isinstance(type, (Decimal, Float)) else "0"
            return spelled if len(words) == 1 else f"({spelled} OR ({kind} = 'real' AND {e} IN (9e999, -9e999)))"
        case "negative_zero":
            return f"({kind} = 'real' AND {e} = 0 AND dblens_negative_zero(CASE {kind} WHEN 'real' THEN {e} END))"
        case "infinite_time":
            return f"({text} AND rtrim({e}, 'Z') IN ('infinity', '-infinity'))" if dated else None
        case "zero_date":
            return f"({text} AND ({e} GLOB '????-00-*' OR {e} GLOB '????-??-00*'))" if dated else None
        case "outside_dates":
            return f"({text} AND dblens_outside_dates({octets}, {low}, {high}))" if dated else None
        case "outside_day":
            return f"({text} AND dblens_outside_day({octets}))"
        case "outside_integers":
            return f"({kind} IN ('integer', 'real', 'text') AND dblens_outside_integers({plain}, {low}, {high}))"
        case "not_boolean":
            return f"({e} IS NOT NULL AND NOT ({kind} = 'integer' AND {e} IN (0, 1)))"
        case "decimal_overflow":
            limit, scale = ("NULL" if n is None else str(n) for n in (check.limit, check.scale))
            return f"({kind} <> 'blob' AND {e} IS NOT NULL AND dblens_decimal_overflow({plain}, {limit}, {scale}))"
        case "too_long" if check.limit is not None:
            # length() of a text stops at U+0000, so texts that hold one are counted by ourselves.
            hidden = f"({text} AND instr({octets}, x'00') > 0 AND dblens_characters({octets}) > {check.limit})"
            return f"(length({e}) > {check.limit} OR {hidden})"
        case "oversize" if check.limit is not None:
            return f"(length({octets}) > {check.limit})"
        case "sub_millisecond":
            return f"({text} AND dblens_finer({octets}))"
        case "trailing_space":
            return f"({text} AND substr({e}, -1) = ' ')"
        case "four_byte_text":
            return f"({text} AND dblens_four_bytes({octets}))"
        case "mixed_storage":
            allowed = _CLASSES.get(field.form, ("text",))
            return f"({e} IS NOT NULL AND {kind} NOT IN ({', '.join(map(literal, allowed))}))"
        case "not_this_type":
            return _not_this_type(e, field.form)
        case "not_json" | "json_number" | "json_nul" | "json_duplicate_key":
            return f"({text} AND dblens_json({octets}, {literal(check.kind)}))"
        case "null_key":
            return f"({e} IS NULL)"
        case "empty_enum":
            return f"({text} AND {e} = '')"
    return None


def _not_this_type(e: str, form: Form) -> str | None:
    kind = f"typeof({e})"
    plain = _CLASSES.get(form, ())
    shape = _SHAPES.get(form)
    if shape is None:
        wanted = plain or ("text",)
        return f"({e} IS NOT NULL AND {kind} NOT IN ({', '.join(map(literal, wanted))}))"
    assert shape == "json" or shape in SHAPES
    given = f"AND {kind} NOT IN ({', '.join(map(literal, plain))}) " if plain else ""
    return f"({e} IS NOT NULL {given}AND dblens_unfit({literal(shape)}, {kind}, {_octets(e)}))"


def _settled(field: Field, check: Check, proof: Proof | None) -> bool:
    """Tell whether a proof of a column answers a check with nothing."""
    if proof is None or field.expression is not None:
        return False
    held, plain, shape = set(proof.classes), _CLASSES.get(field.form, ()), _SHAPES.get(field.form)
    if check.kind == "mixed_storage":
        return held <= set(plain or ("text",))
    if check.kind == "not_this_type":
        return held <= set(plain) or (shape == proof.shape if shape else held <= set(plain or ("text",)))
    return check.kind in proof.nothing


def _suspect(field: Field, check: Check, condition: str) -> str | tuple[str, str]:
    """Return what is true of every row that `condition` selects and is cheaper to ask: a condition, or an expression and a kind of doubt."""
    e = subject(field)
    if check.kind in ("nul_character", "invalid_text"):
        return e, "t"
    if check.kind in doubt.JSON_QUESTIONS:
        return e, doubt.json_kind([check.kind])
    shape = _SHAPES.get(field.form, "")
    if check.kind == "not_this_type" and shape in _DOUBTS and not _CLASSES.get(field.form):
        # What is no text becomes octets that no shape has.
        return f"CASE WHEN {not_text(e)} THEN x'' ELSE {e} END", _DOUBTS[shape]
    if (
        check.kind == "outside_integers"
        and check.low
        and check.high
        and (check.low + check.high).replace("-", "").isdigit()
    ):
        return f"(typeof({e}) <> 'integer' OR {e} NOT BETWEEN {check.low} AND {check.high})"
    if check.kind == "decimal_overflow":
        return inexact(e, check.limit, check.scale) or condition
    if check.kind == "outside_dates" and check.low and check.high:
        day = f"substr({e}, 1, 10) COLLATE BINARY"
        inside = f"{day} > {literal(check.low[:10])} AND {day} < {literal(check.high[:10])}"
        return f"NOT coalesce({e} GLOB '[0-9][0-9][0-9][0-9]-*[^C]' AND {inside}, 0)"
    return condition


def run(
    db: Db,
    table: Table,
    checks: Sequence[tuple[Field, Check]],
    where: str | None,
    proofs: Mapping[str, Proof] = MappingProxyType({}),
) -> list[CheckResult]:
    """Answer all checks by one scan, and fetch sample keys for those that found something.

    The scan looks exactly only at rows that a cheaper condition suspects. Proofs are of the rows as they are now.
    """
    place = where_is((table.namespace, table.name))
    conditions = [
        predicate(field, check)
        if check.kind != "collation_equal" and not _settled(field, check, proofs.get(field.column.name))
        else None
        for field, check in checks
    ]
    counts = dict.fromkeys(range(len(checks)), 0)
    asked = [(i, c) for i, c in enumerate(conditions) if c is not None]
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        suspects = [_suspect(*checks[i], c) for i, c in part]
        cheap = [s for s in suspects if isinstance(s, str)] + doubtful(
            db, [s for s in suspects if not isinstance(s, str)]
        )
        sums = ", ".join([f"coalesce(sum({c}), 0)" for _, c in part])
        among = f"({' OR '.join(dict.fromkeys(cheap))})" + (f" AND ({where})" if where else "")
        found = db.rows(f"SELECT {sums} FROM {place} WHERE {among}")[0]
        counts.update(zip([i for i, _ in part], found, strict=True))
    results = []
    for i, (field, check) in enumerate(checks):
        if check.kind == "collation_equal":
            results.append(_collation_equal(db, table, field, check, where))
            continue
        samples: tuple[tuple[str | None, ...], ...] = ()
        if counts[i]:
            samples = _samples(db, table, f"({conditions[i]})" + (f" AND ({where})" if where else ""))
        results.append(CheckResult(check=check, column=field.column.name, count=counts[i], samples=samples))
    return results


def _samples(db: Db, table: Table, condition: str, keys: KeyRange = ALL) -> tuple[tuple[str | None, ...], ...]:
    columns = ", ".join(f"dblens_as_text({c})" for c in key_columns(table)) or "NULL"
    bound, params = range_condition(keys)
    both = f"({condition}) AND ({bound})" if bound else condition
    rows = db.rows(
        f"SELECT {columns} FROM {where_is((table.namespace, table.name))} WHERE {both} LIMIT {SAMPLES}", params
    )
    return tuple(tuple(None if v is None else str(v) for v in row) for row in rows)


def _collation_equal(db: Db, table: Table, field: Field, check: Check, where: str | None) -> CheckResult:
    """Count rows whose key values differ here and are equal under the target's collation, as far as its name tells.

    Accents and case are folded by Unicode, which holds more equal than any single collation: a false alarm is possible, a miss is not
    to be expected for the usual collations.
    """
    name = (check.collation or "").lower()
    case = int("_cs" not in name and "bin" not in name)
    accents = int("_as" not in name and "bin" not in name)
    trailing = int("nopad" not in name and "0900" not in name)
    columns = check.columns or (field.column.name,)
    fold = ", ".join(f"dblens_folded(CASE typeof({quote(c)}) WHEN 'text' THEN CAST({quote(c)} AS BLOB) ELSE {quote(c)} END, "
                     f"{trailing}, {accents}, {case})" for c in columns)  # fmt: skip
    held = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns) + (f" AND ({where})" if where else "")
    place = where_is((table.namespace, table.name))
    groups = f"SELECT {fold} FROM {place} WHERE {held} GROUP BY {fold} HAVING count(*) > 1"
    count = db.one(f"SELECT count(*) FROM {place} WHERE {held} AND ({fold}) IN ({groups})")
    samples = _samples(db, table, f"{held} AND ({fold}) IN ({groups})") if count else ()
    return CheckResult(check=check, column=field.column.name, count=count, samples=samples)
