"""The verifier's reading: canonical lines rendered by the server, or its columns finished in C; hashed by the client.

Written from the definition of the forms, apart from the copier's `export`: the two share no conversion. A row's line has its length
prefixes already when it leaves the server; hashing it in the client overlaps with the server's work. What SQL cannot render exactly
(JSON in canonical form, values larger than the server can join) goes through the client's codec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dblens.engines.base import ALL, Field, KeyRange
from dblens.engines.mysql import sql
from dblens.engines.mysql.checks import repaired, repaired_float
from dblens.engines.mysql.driver import Raw
from dblens.errors import QueryFailed
from dblens.events import Progress, Report, silent
from dblens.schema.model import Table
from dblens.schema.types import (
    Binary,
    Bits,
    Date,
    Decimal,
    Enum,
    Float,
    Geometry,
    Integer,
    Json,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values import speed
from dblens.values.codec import canonical as by_codec
from dblens.values.codec import plain_number
from dblens.values.digest import Accumulator, Fields, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

Stream = Callable[[str], Iterator[Sequence[Raw]]]
Finish = Callable[[bytes], bytes]


def canonical_sql(field: Field) -> str:
    """Return the expression whose text is the field's canonical text."""
    e = repaired(field)
    if field.expression is not None and field.form == Form.FLOAT:
        return f"cast({e} as double)"  # sent as a number, finished by the client
    if field.is_constant or field.expression is not None:
        return _of_text(f"cast({e} as char character set utf8mb4)", field.form, computed=True, raw=e)
    type, form = field.column.type, field.form
    match type:
        case Float():
            return _float_sql(repaired_float(field), signed_zero=form not in (Form.DECIMAL, Form.INT))
        case Bits(length=n) if form in (Form.BITS, Form.NATIVE, Form.TEXT):
            return f"right(concat(repeat('0', {n or 1}), conv(cast({e} as unsigned), 10, 2)), {n or 1})"
        case Bits():
            return f"concat(cast({e} as unsigned))"
        case Binary():
            if form == Form.UUID:
                h = f"lower(hex({e}))"
                parts = ", '-', ".join(f"substr({h}, {a}, {n})" for a, n in _UUID)
                return f"concat({parts})"
            return f"lower(hex({e}))" if form in (Form.BYTES, Form.NATIVE) else f"convert({e} using utf8mb4)"
        case Year():
            return f"concat(cast({e} as unsigned))"
        case Integer() if form in (Form.INT, Form.DECIMAL, Form.TEXT, Form.NATIVE, Form.FLOAT):
            kind = "unsigned" if type.unsigned else "signed"
            return f"concat(cast({e} as {kind}))" if "zerofill" in field.column.native.lower() else f"concat({e})"
        case Decimal():
            number = f"({e} + 0)" if "zerofill" in field.column.native.lower() else e
            return (
                _trimmed(f"concat({number})", dotted=(type.scale or 0) > 0)
                if form != Form.NATIVE
                else f"concat({number})"
            )
        case Timestamp(precision=p) | Time(precision=p) if form not in (Form.INTERVAL,):
            return _trimmed(f"concat({e})", dotted=p > 0)
        case Time(precision=p):
            return f"concat('0 0 ', if({e} < 0, '-', ''), hour({e}) * 3600000000 + minute({e}) * 60000000 + second({e}) * 1000000 + microsecond({e}))"
        case Date():
            return f"concat({e}, ' 00:00:00')" if form in (Form.TIMESTAMP, Form.TIMESTAMPTZ) else f"concat({e})"
        case Geometry():
            h = f"lower(hex({e}))"
            return (
                h
                if form == Form.NATIVE
                else f"concat(conv(concat(substr({h}, 7, 2), substr({h}, 5, 2), substr({h}, 3, 2), substr({h}, 1, 2)), 16, 10), ':', substr({h}, 9))"
            )
        case Set(values=values) if form == Form.JSON:
            return _members(e, values)
        case Text() | Enum() | Set():
            return _of_text(f"convert({e} using utf8mb4)", form)
        case Uuid():
            return f"lower(concat({e}))"
        case Json():
            return f"cast({e} as char character set utf8mb4)"
        case _:
            return f"cast({e} as char character set utf8mb4)"


_UUID = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


def _of_text(e: str, form: Form, *, computed: bool = False, raw: str = "") -> str:
    """Return canonical text of a value that the server holds as text."""
    if form == Form.BYTES:
        return f"lower(hex({raw or e}))"
    if form == Form.UUID:
        return f"lower({e})"
    if computed and form in (Form.DECIMAL, Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.TIME):
        return f"if(locate('.', {e}) > 0, trim(trailing '.' from trim(trailing '0' from {e})), {e})"
    if form == Form.FLOAT:
        return _float_sql(e, signed_zero=True)
    return e


def _trimmed(text: str, *, dotted: bool) -> str:
    """Return a number or clock without trailing fractional zeros; every value of such a column has the dot."""
    return f"trim(trailing '.' from trim(trailing '0' from {text}))" if dotted else text


def _float_sql(t: str, *, signed_zero: bool) -> str:
    """Return plain digits of a double from the server's text: the shortest that round-trip, but with an exponent beyond 1e±15."""
    mantissa = f"substring_index({t}, 'e', 1)"
    digits = f"replace(replace({mantissa}, '-', ''), '.', '')"
    exponent = f"cast(substring_index({t}, 'e', -1) as signed)"
    sign = f"if({t} like '-%', '-', '')"
    small = f"concat({sign}, '0.', repeat('0', -1 - {exponent}), {digits})"
    whole = f"concat({sign}, {digits}, repeat('0', {exponent} + 1 - length({digits})))"
    split = f"concat({sign}, left({digits}, {exponent} + 1), '.', substr({digits}, {exponent} + 2))"
    expanded = f"if({exponent} < 0, {small}, if({exponent} + 1 >= length({digits}), {whole}, {split}))"
    plain = t if signed_zero else f"if({t} = '-0', '0', {t})"
    return f"if(locate('e', {t}) > 0, {expanded}, {plain})"


def _members(e: str, values: Sequence[str]) -> str:
    """Return a SET as a JSON array of its members in the order of their definition, by the bits of its number."""
    import json

    parts = []
    for i, value in enumerate(values):
        text = json.dumps(value, ensure_ascii=False)
        parts.append(f"if((cast({e} as unsigned) >> {i}) & 1, {sql.literal(text)}, null)")
    return f"if({e} is null, null, concat('[', concat_ws(', ', {', '.join(parts)}), ']'))"


def _needs_client(field: Field) -> Finish | None:
    """Return how the client finishes a text that SQL leaves unfinished, None when SQL's is final."""
    if isinstance(field.column.type, (Text, Enum)) and field.expression is None and not field.is_constant:
        # Numbers, instants and the like that were stored as text: our own spelling is canonical already, another's is not.
        if field.form in (
            Form.INT,
            Form.DECIMAL,
            Form.FLOAT,
            Form.TIMESTAMP,
            Form.TIMESTAMPTZ,
            Form.TIME,
            Form.DATE,
            Form.INTERVAL,
            Form.BITS,
        ):
            form = field.form
            return lambda v: _by_codec(form, v)
        return None
    if field.form == Form.FLOAT and (isinstance(field.column.type, Decimal) or field.expression is not None):
        return lambda v: _by_codec(Form.FLOAT, v)
    if field.form == Form.DECIMAL and (field.expression is not None or field.is_constant):
        return lambda v: plain_number(v.decode()).encode()
    return None


def _by_codec(form: Form, value: bytes) -> bytes:
    try:
        return by_codec(form, value.decode("utf-8")) or b""
    except ValueError:
        return value  # not of this form: its own octets, so that the verdict shows the difference


def _length_prefixed(field: Field) -> str:
    text = canonical_sql(field)
    part = f"concat(length({text}), ':', {text})"
    if field.is_constant:
        return "'-'" if field.constant is None else part
    if not field.column.nullable and not field.repairs and field.expression is None:
        return part
    return f"if({repaired(field)} is null, '-', {part})"


def fingerprint(
    stream: Stream,
    table: Table,
    fields: Sequence[Field],
    keys: KeyRange = ALL,
    where: str | None = None,
    report: Report = silent,
    columns: bool = False,
    exact: bool = False,
) -> Fingerprint:
    """Digest a table's fields: lines from the server, SHA-256 and sums in the client.

    `columns`: the driver unpacks rows so cheaply (mysqlclient) that unrendered columns, finished in C, are the faster way.
    `exact`: JSON in canonical form.
    """
    sums = Accumulator()
    done = 0
    task = f"verify {table.namespace}.{table.name}"
    place = sql.where_is((table.namespace, table.name))
    condition = sql.key_condition(table, keys)
    exact = exact and any(f.form == Form.JSON for f in fields)
    raw = [_raw(f, exact) for f in fields] if columns and speed.implementation == "c" else [None]
    rendered = not (raw and all(r is not None for r in raw))
    if rendered and (exact or any(_needs_client(f) for f in fields)):
        kinds = bytes(ord("j" if exact and f.form == Form.JSON else "r") for f in fields)
        for batch in _texts(stream, fields, f" from {place}{sql.filters(condition, where)}"):
            done += speed.digest_rows(batch, kinds, sums)
            report(Progress(task=task, done=done, total=table.rows_estimate))
        return sums.fingerprint()
    if not rendered:
        # Unrendered columns, finished and hashed in C: half the time of lines that the server renders, and no limit on their size.
        selected = ", ".join(r[0] for r in raw if r)
        kinds = "".join(r[1] for r in raw if r).encode()
        for rows in stream(f"select {selected} from {place}{sql.filters(condition, where)}"):
            done += speed.digest_rows(rows, kinds, sums)
            report(Progress(task=task, done=done, total=table.rows_estimate))
        return sums.fingerprint()
    line = "concat(" + ", ".join(map(_length_prefixed, fields) if fields else ["''"]) + ")"
    oversize = 0
    for rows in stream(f"select {line} from {place}{sql.filters(condition, where)}"):
        lines = [row[0] for row in rows]
        good = [v for v in lines if v is not None]
        oversize += len(lines) - len(good)
        done += sums.add_lines(good)
        report(Progress(task=task, done=done, total=table.rows_estimate))
    if oversize:
        found = 0
        for batch in _texts(
            stream, fields, f" from {place}{sql.filters(condition, where, f'{line} is null')}", large=True
        ):
            found += sums.add_rows(batch)
        if found != oversize:
            raise QueryFailed(
                f"{oversize} rows of {task.partition(' ')[2]} are larger than max_allowed_packet, {found} could be read again",
                hint="verify inside a snapshot, or raise max_allowed_packet on the server",
            )
    return sums.fingerprint()


def _raw(field: Field, exact: bool) -> tuple[str, str] | None:
    """Return what to select and the kind (`values.speed`) that makes its octets canonical, None where the server must render."""
    if field.is_constant or field.expression is not None or _needs_client(field):
        return None
    e, type, form = repaired(field), field.column.type, field.form
    zerofill = "zerofill" in field.column.native.lower()
    match type:
        case Geometry():
            return None
        case Integer() if form in (Form.INT, Form.DECIMAL, Form.TEXT, Form.NATIVE, Form.FLOAT) and not zerofill:
            return e, "r"
        case Float(bits=bits) if form in (Form.FLOAT, Form.NATIVE, Form.TEXT):
            return (f"cast({e} as double)" if bits == 32 else e), "f"
        case Binary() if form in (Form.BYTES, Form.NATIVE):
            return e, "b"
        case Decimal() if form == Form.DECIMAL and not zerofill:
            return e, "d"
        case Timestamp() if form in (Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.NATIVE):
            return e, "z"
        case Time() if form in (Form.TIME, Form.NATIVE):
            return e, "k"
        case Text() | Enum() | Set() if form in (Form.TEXT, Form.NATIVE, Form.DOCUMENT):
            return e, "r"
        case Json():
            return e, "j" if exact and form == Form.JSON else "r"
        case _:
            return canonical_sql(field), "j" if exact and form == Form.JSON else "r"


def _texts(stream: Stream, fields: Sequence[Field], tail: str, *, large: bool = False) -> Iterator[list[Fields]]:
    """Yield batches of rows of canonical texts, column by column."""
    selected = []
    finishers: list[Finish | None] = []
    for field in fields:
        finish = _needs_client(field)
        text = canonical_sql(field)
        if (
            large
            and isinstance(field.column.type, Binary)
            and field.form in (Form.BYTES, Form.NATIVE)
            and not field.is_constant
        ):
            text, finish = repaired(field), lambda v: v.hex().encode()
        selected.append(text)
        finishers.append(finish)
    plain = all(f is None for f in finishers)
    for rows in stream(f"select {', '.join(selected) or '1'}{tail}"):
        if not selected:
            yield [()] * len(rows)
        elif plain:
            yield list(rows)
        else:
            yield [
                tuple(v if v is None or f is None else f(v) for v, f in zip(row, finishers, strict=True))
                for row in rows
            ]


def canonical_rows(
    stream: Stream,
    table: Table,
    fields: Sequence[Field],
    buckets: frozenset[int] | None = None,
    keys: KeyRange = ALL,
    where: str | None = None,
    exact: bool = False,
) -> Iterator[tuple[bytes | None, ...]]:
    """Stream rows of canonical texts, those of some buckets or all; `exact`: JSON in canonical form."""
    place = sql.where_is((table.namespace, table.name))
    tail = f" from {place}{sql.filters(sql.key_condition(table, keys), where)}"
    json = [i for i, f in enumerate(fields) if exact and f.form == Form.JSON]
    for batch in _texts(stream, fields, tail):
        for row in batch:
            if buckets is not None and bucket_of(row_digest(row)) not in buckets:
                continue
            if not json:
                yield tuple(row)
                continue
            values = list(row)
            for i in json:
                value = values[i]
                values[i] = None if value is None else _by_codec(Form.JSON, value)
            yield tuple(values)
