"""Predicates of the data checks, as SQL over a PostgreSQL column, and their answers by one scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dblens.engines.base import ALL, Check, CheckResult, Field
from dblens.engines.postgres import scan
from dblens.engines.postgres.ddl import literal, quote
from dblens.engines.postgres.link import Link
from dblens.errors import Unsupported
from dblens.schema.model import Table
from dblens.schema.types import Array

_NUL_ESCAPE = r"(^|[^\\])(\\\\)*\\u0000"


def predicate(field: Field, check: Check) -> str | None:
    """Return SQL that is true for the values concerned, None where the kind cannot occur in the column's type.

    Raises Unsupported for what PostgreSQL cannot answer about its own values.
    """
    make = _MAKERS.get(check.kind)
    if make is not None:
        return make(scan.value(field), scan.kind(field), check, field)
    if check.kind in _NEVER:
        return None
    raise Unsupported(f"the check {check.kind}", "PostgreSQL cannot answer it about its own values")


_NEVER = frozenset({"nul_character", "invalid_text", "zero_date", "mixed_storage", "missing_field", "empty_enum"})
"""Never occur in PostgreSQL values, whatever the type."""


def _nonfinite(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    type = "float8" if kind in scan.FLOATS else "numeric" if kind == "numeric" else None
    if type is None:
        return None
    if check.low == "-Infinity" and check.high == "Infinity":
        return f"{v} = 'NaN'::{type}"
    return f"{v} IN ('NaN'::{type}, 'Infinity'::{type}, '-Infinity'::{type})"


def _negative_zero(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return f"({v} = 0 AND {v}::text = '-0')" if kind in scan.FLOATS else None


def _dated(kind: str) -> bool:
    return kind == "date" or kind.startswith("timestamp")


def _infinite_time(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return f"NOT isfinite({v})" if _dated(kind) or kind == "interval" else None


def _outside_dates(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if not _dated(kind):
        return None
    parts = []
    if check.low is not None:
        parts.append(f"{v} < {literal(check.low)}::{kind}")
    if check.high is not None:
        high = check.high if len(check.high) > 10 or kind == "date" else f"{check.high} 23:59:59.999999"
        parts.append(f"{v} > {literal(high)}::{kind}")
    return f"(isfinite({v}) AND ({' OR '.join(parts)}))" if parts else None


def _outside_day(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if kind == "time without time zone":
        return f"{v} = '24:00:00'::time"
    if kind == "time with time zone":
        return f"{v}::time = '24:00:00'::time"
    if kind == "interval":
        return f"({v} < interval '0' OR {v} >= interval '24 hours')"
    return None


def _outside_integers(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if kind not in scan.INTEGERS and kind not in ("numeric", "money") and kind not in scan.FLOATS:
        return None
    number = f"{v}::numeric"
    parts = [f"{number} < {literal(check.low)}::numeric"] if check.low is not None else []
    parts += [f"{number} > {literal(check.high)}::numeric"] if check.high is not None else []
    return f"({' OR '.join(parts)})" if parts else None


def _not_boolean(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return f"{v} NOT IN (0, 1)" if kind in scan.INTEGERS or kind == "numeric" else None


def _decimal_overflow(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if kind not in scan.INTEGERS and kind not in ("numeric", "money"):
        return None
    number = f"{v}::numeric"
    parts = []
    if check.scale is not None:
        parts.append(f"min_scale({number}) > {check.scale}")
    if check.limit is not None:
        parts.append(f"abs({number}) >= {'1' + '0' * (check.limit - (check.scale or 0))}::numeric")
    # NaN and infinities are another check's business; NaN would otherwise count as the greatest number.
    return f"({number} NOT IN ('NaN', 'Infinity', '-Infinity') AND ({' OR '.join(parts)}))" if parts else None


def _too_long(v: str, kind: str, check: Check, field: Field) -> str | None:
    if check.limit is None or kind in scan.INTEGERS or kind == "boolean":
        return None
    if kind == "bytea":
        return f"octet_length({v}) > {check.limit}"
    text = f"to_json({v})::text" if isinstance(field.column.type, Array) else f"{v}::text"
    return f"char_length({text}) > {check.limit}"


def _sub_millisecond(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if kind.startswith("timestamp"):
        return f"(isfinite({v}) AND date_trunc('milliseconds', {v}) <> {v})"
    if kind == "time without time zone":
        return f"date_trunc('milliseconds', {v}::interval) <> {v}::interval"
    return None


def _textual(v: str, kind: str, field: Field) -> str | None:
    known = kind in scan.TEXTS or kind in ("json", "jsonb", "xml") or kind not in scan.BUILT_IN
    if not known:
        return None
    return f"to_json({v})::text" if isinstance(field.column.type, Array) else f"{v}::text"


def _trailing_space(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    text = _textual(v, kind, field)
    return None if text is None else f"{text} LIKE '% '"


def _four_byte(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    text = _textual(v, kind, field)
    return None if text is None else rf"{text} ~ '[\U00010000-\U0010FFFF]'"


def _json_text(v: str, kind: str, field: Field) -> str | None:
    if kind in ("json", "jsonb"):
        return f"{v}::text"
    return f"to_json({v})::text" if isinstance(field.column.type, Array) else None


def _json_number(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    text = _json_text(v, kind, field)
    if text is None:
        return None
    # Strings are taken out first; what is left of digits are numbers. More than 15 digits, or a magnitude beyond a double's.
    bare = rf"""regexp_replace({text}, '"([^"\\]|\\.)*"', '""', 'g')"""
    return (
        rf"({bare} ~ '[0-9]{{16}}' OR {bare} ~ '[0-9]\.[0-9]*0([^0-9]|$)' OR "
        rf"{bare} ~ '[0-9.]{{17}}' OR {bare} ~ '[eE][+-]?[0-9]{{3}}')"
    )


def _json_nul(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return f"{v}::text ~ {literal(_NUL_ESCAPE)}" if kind == "json" else None


def _json_duplicate(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if kind != "json":
        return None
    # At any depth: objects among all values of the tree. Members are compared by their unescaped names, in which PostgreSQL
    # cannot have U+0000: a noncharacter stands for it.
    text = rf"regexp_replace({v}::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffe', 'g')"
    return (
        f"EXISTS (WITH RECURSIVE tree(j) AS (SELECT {text}::json UNION ALL SELECT c.j FROM tree t CROSS JOIN LATERAL ("
        "SELECT e.value FROM json_each(CASE WHEN json_typeof(t.j) = 'object' THEN t.j ELSE '{}' END) e UNION ALL "
        "SELECT a.value FROM json_array_elements(CASE WHEN json_typeof(t.j) = 'array' THEN t.j ELSE '[]' END) a) c(j)) "
        "SELECT 1 FROM tree t WHERE json_typeof(t.j) = 'object' AND (SELECT count(*) <> count(DISTINCT k) "
        "FROM json_object_keys(CASE WHEN json_typeof(t.j) = 'object' THEN t.j ELSE '{}' END) k))"
    )


def _document_key(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return rf"""{v}::text ~ '"([^"\\]*\.[^"\\]*|\$[^"\\]*)"\s*:'""" if kind in ("json", "jsonb") else None


def _oversize(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    if check.limit is None:
        return None
    octets = f"octet_length({v})" if kind == "bytea" else f"octet_length({v}::text)"
    return f"{octets} > {check.limit}"


def _null_key(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return f"{v} IS NULL"


def _not_json(v: str, kind: str, check: Check, field: Field) -> str | None:
    if isinstance(field.column.type, Array):
        return None
    if kind in ("json", "jsonb"):
        if check.limit is None:
            return None
        # `**{n}` counts levels below the root, so a container there is nested n + 1 deep. jsonb cannot hold \\u0000, which json can.
        text = rf"regexp_replace({v}::text, '(\\\\)|\\u0000', '\1', 'g')" if kind == "json" else f"{v}::text"
        path = f'strict $.**{{{check.limit} to last}} ? (@.type() == "array" || @.type() == "object")'
        return f"jsonb_path_exists({text}::jsonb, {literal(path)}::jsonpath)"
    raise Unsupported("the check not_json", "only PostgreSQL 16 and later can test a text for JSON")


def _not_this_type(v: str, kind: str, check: Check, field: Field) -> str | None:  # noqa: ARG001
    return None


_MAKERS: dict[str, Callable[[str, str, Check, Field], str | None]] = {
    "nonfinite": _nonfinite,
    "negative_zero": _negative_zero,
    "infinite_time": _infinite_time,
    "outside_dates": _outside_dates,
    "outside_day": _outside_day,
    "outside_integers": _outside_integers,
    "not_boolean": _not_boolean,
    "decimal_overflow": _decimal_overflow,
    "too_long": _too_long,
    "sub_millisecond": _sub_millisecond,
    "trailing_space": _trailing_space,
    "four_byte_text": _four_byte,
    "json_number": _json_number,
    "json_nul": _json_nul,
    "json_duplicate_key": _json_duplicate,
    "document_key": _document_key,
    "oversize": _oversize,
    "null_key": _null_key,
    "not_json": _not_json,
    "not_this_type": _not_this_type,
}


def check(link: Link, table: Table, checks: Sequence[tuple[Field, Check]], where: str | None) -> list[CheckResult]:
    """Count what each check concerns by one scan, then fetch up to five keys where a count is not 0."""
    predicates = [None if c.kind == "collation_equal" else predicate(f, c) for f, c in checks]
    counted = [(i, p) for i, p in enumerate(predicates) if p]
    counts = [0] * len(checks)
    what = f"checking {table.namespace}.{table.name}"
    tail = scan.conditions(table, ALL, where)
    # PostgreSQL's target lists end at 1,664 entries.
    for start in range(0, len(counted), 1_000):
        part = counted[start : start + 1_000]
        sums = ", ".join(f"count(*) FILTER (WHERE {p})" for _, p in part)
        row = link.one(f"SELECT {sums} FROM {scan.relation(table)}{tail}", what=what)
        for (i, _), n in zip(part, row, strict=True):
            counts[i] = n
    results = []
    for i, (field, item) in enumerate(checks):
        text = predicates[i]
        samples: tuple[tuple[str | None, ...], ...] = ()
        if item.kind == "collation_equal":
            counts[i], samples = _collation_equal(link, table, field, item, where, what)
        elif counts[i] and text:
            samples = _samples(link, table, text, where, what)
        results.append(CheckResult(check=item, column=field.column.name, count=counts[i], samples=samples))
    return results


def _collation_equal(
    link: Link, table: Table, field: Field, item: Check, where: str | None, what: str
) -> tuple[int, tuple[tuple[str | None, ...], ...]]:
    """Count rows whose key values the target's collation may hold equal.

    PostgreSQL does not have MySQL's collations, so values are folded at least as much as those fold them: compatibility
    decomposition, accents and case dropped, trailing spaces dropped. It may name a pair that the target would keep apart, and
    never misses one of the Latin, Greek and Cyrillic scripts.
    """
    columns = item.columns or (field.column.name,)
    folded = ", ".join(_fold(quote(c), item.collation or "") for c in columns)
    present = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns)
    tail = scan.conditions(table, ALL, where)
    keys = key_columns(table) or columns
    shown = ", ".join(f"{quote(c)}::text" for c in keys)
    inner = (
        f"SELECT {shown}, count(*) OVER (PARTITION BY {folded}) AS dblens_n FROM {scan.relation(table)}"
        f"{tail} {'AND' if tail else 'WHERE'} {present}"
    )
    names = ", ".join(f"k{i}" for i in range(len(keys)))
    among = f"FROM ({inner}) AS d({names}, n) WHERE n > 1"
    count = link.one(f"SELECT count(*) {among}", what=what)[0]
    samples = tuple(link.rows(f"SELECT {names} {among} LIMIT 5", what=what)) if count else ()
    return count, samples


def _fold(quoted: str, collation: str) -> str:
    text, low = f"{quoted}::text", collation.lower()
    if low == "nocase":
        return f"translate({text}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')"
    if low in ("binary", "utf8mb4_0900_bin"):
        return text
    if low == "rtrim" or low.endswith("_bin"):
        return f"rtrim({text}, ' ')"
    if low.endswith("_cs"):
        return f"rtrim(normalize({text}, NFC), ' ')"
    plain = f"regexp_replace(normalize({text}, NFKD), '[\u0300-\u036f]', '', 'g')"
    # lower() knows more than ASCII only under a collation that does; upper first folds ß-like pairs apart, so it is replaced.
    return f"""rtrim(replace(lower({plain} COLLATE "unicode"), 'ß', 'ss'), ' ')"""


def _samples(link: Link, table: Table, text: str, where: str | None, what: str) -> tuple[tuple[str | None, ...], ...]:
    columns = key_columns(table)
    shown = ", ".join(f"{quote(c)}::text" for c in columns) if columns else "ctid::text"
    tail = scan.conditions(table, ALL, where)
    joined = f"{tail} AND ({text})" if tail else f" WHERE ({text})"
    return tuple(link.rows(f"SELECT {shown} FROM {scan.relation(table)}{joined} LIMIT 5", what=what))


def key_columns(table: Table) -> tuple[str, ...]:
    """Return the columns of the primary key, else of a unique constraint over columns that are never NULL, else nothing."""
    if table.primary_key:
        return table.primary_key.columns
    bound = {c.name for c in table.columns if not c.nullable}
    for key in table.uniques:
        if set(key.columns) <= bound and not key.deferrable:
            return key.columns
    return ()
