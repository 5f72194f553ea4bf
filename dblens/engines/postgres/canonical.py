"""The verifier's half: canonical texts, row digests and fingerprints, rendered by the server.

Written from `values.forms`, independently of `export`: nothing here is used by the copier. Each field's text is rendered once, in a
subquery that PostgreSQL does not flatten because of a volatile column (a fence that, unlike OFFSET 0, lets workers run in parallel:
1.9 s instead of 3.8 s for 1,000,000 rows of 12 columns on two cores).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import psycopg
from psycopg.types.string import ByteaBinaryLoader

from dblens.engines.base import ALL, Check, Field, KeyRange
from dblens.engines.postgres import scan
from dblens.engines.postgres.checks import predicate
from dblens.engines.postgres.link import Link
from dblens.errors import Unsupported
from dblens.events import Progress, Report
from dblens.schema.model import Table
from dblens.schema.types import Array
from dblens.values.codec import canonical as client_text
from dblens.values.digest import Fingerprint, Sum
from dblens.values.forms import Form

_LANE = (1 << 64) - 1
FETCH = 5_000


def text(field: Field) -> str:
    """Return SQL for a field's canonical text, repairs applied first. Raises Unsupported for a form the type cannot take."""
    value, kind = scan.value(field), scan.kind(field)
    for check in field.repairs:
        value, kind = _repaired(field, check, value, kind)
    if field.is_constant and field.constant is None:
        return "NULL::text"
    return _render(field, value, kind)


def _render(field: Field, v: str, kind: str) -> str:
    array = isinstance(field.column.type, Array)
    match field.form:
        case Form.INT:
            if kind == "boolean":
                return f"CASE {v} WHEN true THEN '1' WHEN false THEN '0' END"
            return f"trim_scale({v})::text" if kind == "numeric" else f"{v}::text"
        case Form.DECIMAL:
            if kind == "numeric":
                return f"trim_scale({v})::text"
            if kind == "money":
                return f"trim_scale({v}::numeric)::text"
            if kind in scan.FLOATS:
                return f"CASE WHEN {v} = 0 THEN '0' ELSE {_float(f'{v}::float8')} END"
            return f"{v}::text"
        case Form.FLOAT:
            if kind in scan.TEXTS:
                return f"{v}::text"
            return _float(v if kind == "double precision" else f"{v}::float8")
        case Form.BYTES:
            if kind == "bytea":
                return f"encode({v}, 'hex')"
            if kind == "uuid":
                return f"replace({v}::text, '-', '')"
            return f"encode(convert_to({v}::text, 'UTF8'), 'hex')"
        case Form.DATE:
            return f"{v}::date::text" if kind.startswith("timestamp") else f"{v}::text"
        case Form.TIMESTAMP | Form.TIMESTAMPTZ:
            if kind == "timestamp with time zone":
                return f"timezone('UTC', {v})::text"
            return f"{v}::timestamp::text" if kind == "date" else f"{v}::text"
        case Form.INTERVAL:
            return _interval(v) if kind == "interval" else f"{v}::text"
        case Form.JSON:
            if array:
                return f"to_json({v})::text" if field.column.native.startswith("json[") else f"to_jsonb({v})::text"
            return f"{v}::text"
        case Form.BITS if kind == "boolean":
            return f"CASE {v} WHEN true THEN '1' WHEN false THEN '0' END"
        case Form.GEOMETRY if kind == "bytea":
            return f"encode({v}, 'hex')"
        case Form.DYNAMIC:
            return _dynamic(v, kind)
        case Form.BSON:
            raise Unsupported(
                "comparing BSON", "PostgreSQL stores no BSON", hint="compare documents in form `document`"
            )
    return _plain(v, kind)


def _plain(v: str, kind: str) -> str:
    """Return SQL for a value as its type prints it. The cast from inet to text adds a mask that inet does not print."""
    return f"CASE WHEN {v} IS NOT NULL THEN concat({v}) END" if kind == "inet" else f"{v}::text"


def _float(v: str) -> str:
    """Return SQL for a double's shortest digits without exponent.

    PostgreSQL's shortest digits lie strictly within the rounding interval, the definition's may lie on its edge (1e23, where
    PostgreSQL prints 9.999999999999999e+22). An edge has at most 17 digits only from 2^54 to about 1e40, so only there fewer digits
    that read back as the same double are looked for.
    """
    # Nearly all real values take the first branch, whose text PostgreSQL writes without exponent.
    return (
        f"CASE WHEN abs({v}) >= 1e-4 AND abs({v}) < 1e15 THEN {v}::text "
        f"WHEN {v} = 0 OR {v} = 'NaN' OR abs({v}) = 'Infinity' THEN {v}::text "
        f"WHEN abs({v}) >= 1e16 AND abs({v}) < 1e42 THEN (SELECT CASE WHEN {v} < 0 THEN '-' ELSE '' END || c::text "
        f"FROM (SELECT abs({v})::text::numeric) a(n) CROSS JOIN generate_series(1, 17) k "
        "CROSS JOIN LATERAL (SELECT ('1' || repeat('0', greatest(length(n::text) - k, 0)))::numeric) b(u) "
        "CROSS JOIN LATERAL (VALUES (div(n, u) * u), (div(n, u) * u + u)) x(c) "
        f"WHERE c::float8 = abs({v}) ORDER BY k, abs(c - n) LIMIT 1) "
        f"ELSE trim_scale({v}::text::numeric)::text END"
    )


def _interval(v: str) -> str:
    return (
        f"CASE WHEN isfinite({v}) THEN concat((extract(year FROM {v}) * 12 + extract(month FROM {v}))::bigint, ' ', "
        f"extract(day FROM {v})::bigint, ' ', "
        f"(extract(hour FROM {v}) * 3600000000 + extract(minute FROM {v}) * 60000000 + extract(microsecond FROM {v}))::bigint)"
        f" WHEN {v} IS NOT NULL THEN {v}::text END"
    )


def _dynamic(v: str, kind: str) -> str:
    if kind in scan.INTEGERS:
        return f"'i:' || {v}::text"
    if kind == "boolean":
        return f"CASE {v} WHEN true THEN 'i:1' WHEN false THEN 'i:0' END"
    if kind in scan.FLOATS:
        return f"'r:' || {_float(f'{v}::float8')}"
    if kind == "bytea":
        return f"'b:' || encode({v}, 'hex')"
    return f"'t:' || {v}::text"


def _repaired(field: Field, check: Check, v: str, kind: str) -> tuple[str, str]:
    """Return the value that an accepted loss leaves. A repair that PostgreSQL's type does not know leaves it as it is."""
    concerned = predicate(field, check)
    if concerned is None or check.repair in ("none", "text", "block"):
        return v, kind
    if check.repair == "null":
        return f"(CASE WHEN {concerned} THEN NULL ELSE {v} END)", kind
    if check.kind == "negative_zero":
        return f"({v} + 0.0)", kind
    if check.repair == "truncate":
        if check.kind == "sub_millisecond":
            if kind == "time without time zone":
                return f"(date_trunc('milliseconds', {v}::interval)::time)", kind
            return f"date_trunc('milliseconds', {v})", kind
        if check.kind == "too_long":
            if kind == "bytea":
                return f"substring({v} FROM 1 FOR {check.limit})", kind
            return f"left({v}::text, {check.limit})", "text"
    if check.repair == "round" and check.kind == "decimal_overflow":
        scale = check.scale or 0
        number = f"{v}::numeric"
        shifted = f"({number} * 1e{scale})"
        # PostgreSQL rounds halves away from zero; halves go to the even neighbour here.
        even = f"2 * round({shifted} * 0.5) * 1e-{scale}"
        half = f"abs({shifted} - trunc({shifted})) = 0.5"
        return (
            f"(CASE WHEN {concerned} THEN CASE WHEN {half} THEN {even} ELSE round({number}, {scale}) END ELSE {number} END)",
            "numeric",
        )
    if check.repair == "strip":
        return _stripped(check, v, kind)
    raise Unsupported(
        f"the repair {check.repair} of {check.kind}", "PostgreSQL does not know it", hint="exclude the column"
    )


def _stripped(check: Check, v: str, kind: str) -> tuple[str, str]:
    if check.kind == "trailing_space":
        return f"rtrim({v}::text, ' ')", "text"
    if check.kind == "four_byte_text":
        return rf"regexp_replace({v}::text, '[\U00010000-\U0010FFFF]', '', 'g')", "text"
    if check.kind == "json_nul":
        return rf"regexp_replace({v}::text, '(\\\\)|\\u0000', '\1', 'g')", kind
    return v, kind


# ----------------------------------------------------------------------------------------------------------------- fingerprint


def _rendered(table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None) -> str:
    columns = ", ".join(f"{text(f)} AS t{i}" for i, f in enumerate(fields))
    fence = "clock_timestamp() AS fence"
    return f"SELECT {fence}{', ' if columns else ''}{columns} FROM {scan.relation(table)}{scan.conditions(table, keys, where)}"


def _line(fields: Sequence[Field], encoding: str) -> str:
    """Return SQL for a row's line. Texts are the server's octets only in a UTF8 database; elsewhere they are converted to count."""
    parts = []
    for i, field in enumerate(fields):
        t = f"t{i}"
        if field.form == Form.INT and scan.kind(field) == "boolean" and not field.is_constant:
            parts.append(f"coalesce('1:' || {t}, '-')")
        elif encoding == "UTF8":
            parts.append(f"coalesce(octet_length({t}) || ':' || {t}, '-')")
        else:
            parts.append(f"coalesce(octet_length(convert_to({t}, 'UTF8')) || ':' || {t}, '-')")
    return " || ".join(parts) or "''"


def _digests(
    link: Link, table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None, extra: str = ""
) -> str:
    line = _line(fields, link.encoding)
    return (
        f"SELECT clock_timestamp() AS fence, encode(sha256(convert_to({line}, 'UTF8')), 'hex') AS h{extra} "
        f"FROM ({_rendered(table, fields, keys, where)}) AS r"
    )


def fingerprint(
    link: Link, table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None, report: Report
) -> Fingerprint:
    """Digest a table in the server: one scan, 4,096 rows back."""
    name = f"{table.namespace}.{table.name}"
    # The bits of a lane are read as a signed number; its sum is the same modulo 2^64.
    sql = (
        "SELECT ('x' || substr(h, 1, 3))::bit(12)::int, count(*), sum(('x' || substr(h, 1, 16))::bit(64)::bigint), "
        f"sum(('x' || substr(h, 17, 16))::bit(64)::bigint) FROM ({_digests(link, table, fields, keys, where)}) AS d GROUP BY 1"
    )
    buckets = {
        bucket: Sum(count, int(high) & _LANE, int(low) & _LANE)
        for bucket, count, high, low in link.rows(sql, what=f"fingerprint of {name}")
    }
    result = Fingerprint(buckets)
    report(Progress(task=f"fingerprint {name}", done=result.total.count, total=result.total.count))
    return result


def rows(
    link: Link,
    table: Table,
    fields: Sequence[Field],
    buckets: frozenset[int] | None,
    keys: KeyRange = ALL,
    where: str | None = None,
    *,
    exact: bool = False,
) -> Generator[tuple[bytes | None, ...], None, None]:
    """Stream rows of canonical texts through a server-side cursor, filtered by bucket in the server."""
    columns = "".join(f", t{i}" for i in range(len(fields)))
    if buckets is None:
        listed = columns.removeprefix(", ")
        sql = f"SELECT {listed or 'NULL::text'} FROM ({_rendered(table, fields, keys, where)}) AS r"
    else:
        wanted = ", ".join(f"'{b:03x}'" for b in sorted(buckets)) or "NULL"
        listed = columns.removeprefix(", ")
        sql = (
            f"SELECT {listed or 'NULL::text'} FROM ({_digests(link, table, fields, keys, where, columns)}) AS d "
            f"WHERE substr(h, 1, 3) IN ({wanted})"
        )
    what = f"reading {table.namespace}.{table.name}"
    json = [i for i, f in enumerate(fields) if exact and f.form == Form.JSON]
    with link.cursor(what) as cursor:
        cursor.adapters.register_loader("text", ByteaBinaryLoader)
        try:
            cursor.execute(sql)
            while page := cursor.fetchmany(FETCH):
                if not fields:
                    yield from (() for _ in page)
                elif json:
                    yield from (_exactly(row, json) for row in page)
                else:
                    yield from page
        except psycopg.Error as error:
            raise link.failed(error, what) from error


def _exactly(row: tuple[bytes | None, ...], json: Sequence[int]) -> tuple[bytes | None, ...]:
    values = list(row)
    for i in json:
        values[i] = client_text(Form.JSON, values[i])
    return tuple(values)
