"""Questions about values (`Check`) as MySQL conditions, and their repairs as MySQL expressions.

The plan's predicates are shared by copier and verifier on purpose: both must agree on *which* values an accepted loss concerns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal as Number

from dblens.engines.base import Check, CheckResult, Field
from dblens.engines.mysql import sql
from dblens.engines.mysql.sql import literal, quote
from dblens.errors import Unsupported
from dblens.schema.model import Table
from dblens.schema.types import (
    Binary,
    Bits,
    Boolean,
    Date,
    Decimal,
    Enum,
    Float,
    Integer,
    Json,
    Set,
    Text,
    Time,
    Timestamp,
    Year,
)
from dblens.values import doubt
from dblens.values.codec import plain_number

SAMPLES = 5


def subject(field: Field) -> str:
    """Return the expression that a field reads, before repairs."""
    if field.is_constant:
        return literal(field.constant)
    return f"({field.expression})" if field.expression is not None else quote(field.column.name)


def repaired(field: Field) -> str:
    """Return the expression that a field reads, after the repairs of its accepted losses."""
    expression = subject(field)
    for check in field.repairs:
        condition = predicate(field, check)
        if condition is not None:
            changed = _repair(expression, field, check)
            if changed != expression:
                expression = f"if({condition}, {changed}, {expression})"
    return expression


def repaired_float(field: Field) -> str:
    """Return a float column's text after repairs, in digits that round-trip.

    MySQL 9 writes the result of a float *expression* with at most 22 characters, which is a digit short for negative numbers; a DOUBLE
    column itself it writes whole. So repairs work on the text here, and a FLOAT is written as its sign and its widened magnitude.
    """
    column = subject(field)
    text = f"concat({column})"
    if isinstance(field.column.type, Float) and field.column.type.bits == 32:
        text = f"concat(if({text} like '-%', '-', ''), abs(cast({column} as double)))"
    for check in field.repairs:
        condition = predicate(field, check)
        if condition is not None:
            changed = "null" if check.repair == "null" else f"trim(leading '-' from {text})"
            if check.repair == "null" or (check.kind == "negative_zero" and check.repair != "block"):
                text = f"if({condition}, {changed}, {text})"
    return text


def _repair(expression: str, field: Field, check: Check) -> str:
    match check.repair:
        case "null":
            return "null"
        case "strip" | "truncate" | "round" if check.kind == "negative_zero":
            return f"abs({expression})"
        case "strip" if check.kind == "nul_character":
            return f"replace({expression}, char(0 using utf8mb4), '')"
        case "strip" if check.kind == "trailing_space":
            return f"trim(trailing ' ' from {expression})"
        case "strip" if check.kind == "json_nul":
            return f"replace(cast({expression} as char), {literal(chr(92) + 'u0000')}, '')"
        case "strip" if check.kind == "four_byte_text":
            return f"regexp_replace({_utf8(expression)}, {literal(_FOUR_BYTES)}, '')"
        case "truncate" if check.kind == "sub_millisecond":
            return f"({expression} - interval (microsecond({expression}) % 1000) microsecond)"
        case "truncate" if check.kind in ("too_long", "oversize") and check.limit is not None:
            return f"left({expression}, {check.limit})"
        case "truncate" if check.kind == "decimal_overflow" and check.scale is not None:
            return f"truncate({expression}, {check.scale})"
        case "round" if check.kind == "decimal_overflow" and check.scale is not None:
            return f"round({expression}, {check.scale})"
        case "none" | "text":
            return expression
        case _:
            raise Unsupported(
                f"repair {check.repair!r} of {check.kind!r} in column {field.column.name!r}",
                "MySQL sources do not know it",
            )


_FOUR_BYTES = r"[\x{10000}-\x{10FFFF}]"


def _utf8(expression: str) -> str:
    return f"convert({expression} using utf8mb4)"


def predicate(field: Field, check: Check) -> str | None:
    """Return the condition that selects the values a check concerns, None when no value of the column's type can be concerned."""
    if field.is_constant:
        return None
    e, type = subject(field), field.column.type
    text = isinstance(type, (Text, Enum, Set)) or field.expression is not None
    number = isinstance(type, (Integer, Decimal, Float, Boolean, Year)) or field.expression is not None
    dated = isinstance(type, (Date, Timestamp))
    match check.kind:
        case "nul_character" if text:
            return f"locate(x'00', cast({_utf8(e)} as binary)) > 0"
        case "invalid_text" if isinstance(type, Binary):
            return f"({e} is not null and hex(convert({e} using utf8mb4)) <> hex({e}))"
        case "negative_zero" if isinstance(type, Float):
            return f"({e} = 0 and concat({e}) like '-%')"
        case "zero_date" if dated:
            # Also 2024-02-31, which ALLOW_INVALID_DATES lets in.
            return f"(month({e}) = 0 or dayofmonth({e}) = 0 or dayofmonth({e}) > dayofmonth(last_day({e})))"
        case "outside_dates" if dated:
            bounds = [f"concat({e}) < {literal(check.low)}"] if check.low else []
            bounds += [f"concat({e}) > {literal(check.high)}"] if check.high else []
            return f"(month({e}) > 0 and dayofmonth({e}) > 0 and ({' or '.join(bounds)}))" if bounds else None
        case "outside_day" if isinstance(type, Time):
            return f"({e} < cast('00:00:00' as time) or {e} >= cast('24:00:00' as time))"
        case "outside_integers" if number or isinstance(type, Bits):
            value = f"({e} + 0)" if isinstance(type, Bits) else e
            bounds = [f"{value} < {_plain(check.low)}"] if check.low else []
            bounds += [f"{value} > {_plain(check.high)}"] if check.high else []
            return f"({' or '.join(bounds)})" if bounds else None
        case "not_boolean" if number or isinstance(type, Bits):
            return f"({e} + 0) not in (0, 1)"
        case "decimal_overflow" if isinstance(type, (Decimal, Integer)):
            scale = check.scale or 0
            parts = [f"{e} <> truncate({e}, {min(scale, 30)})"] if isinstance(type, Decimal) else []
            if check.limit is not None and check.limit - scale < 65:
                parts.append(f"abs({e}) >= 1{'0' * max(check.limit - scale, 0)}")
            return f"({' or '.join(parts)})" if parts else None
        case "too_long" if check.limit is not None and text:
            return f"char_length({e}) > {check.limit}"
        case "too_long" | "oversize" if check.limit is not None:
            return f"length({e}) > {check.limit}"
        case "sub_millisecond" if isinstance(type, (Timestamp, Time)):
            return f"microsecond({e}) % 1000 <> 0"
        case "trailing_space" if text:
            return f"ascii(right({_utf8(e)}, 1)) = 32"
        case "four_byte_text" if text:
            return f"({_utf8(e)} regexp {literal(_FOUR_BYTES)})"
        case "null_key":
            return f"{e} is null"
        case "empty_enum" if isinstance(type, Enum):
            return f"({e} is not null and cast({e} as unsigned) = 0)"
        case "json_nul" if isinstance(type, Json):
            # An odd number of backslashes before u0000: an escaped backslash followed by "u0000" is harmless.
            # The search for octets comes first because it is five times faster than the expression, and nearly always ends the matter.
            e, odd = (
                f"cast({e} as char)",
                literal("(^|[^" + chr(92) * 2 + "])(" + chr(92) * 4 + ")*" + chr(92) * 2 + "u0000"),
            )
            return f"(locate(x'7530303030', cast({e} as binary)) > 0 and {e} regexp {odd})"
        case "not_json" if isinstance(type, Json) and check.limit is not None:
            # A scalar counts as one level here, so that values just at the limit pass; the target has the last word on them.
            return f"json_depth({e}) > {check.limit + 1}"
        case _:
            return None


def _plain(text: str) -> str:
    return plain_number(text)


# ------------------------------------------------------------------------------------------------------- JSON, in the client


_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class _Pairs(list[tuple[str, object]]):
    """Members of a JSON object in order, duplicates kept."""


def _json_questions(flavour: str) -> dict[str, Callable[[str], bool]]:
    """Return the questions about a JSON text that SQL cannot answer. MySQL's own normal form settles two of them."""
    questions: dict[str, Callable[[str], bool]] = {"document_key": _odd_key, "json_nul": _has_nul}
    if flavour == "mariadb":
        questions |= {"not_json": _not_json, "json_number": _odd_number, "json_duplicate_key": _duplicate}
    return questions


def _parse(text: str) -> object:
    def number(digits: str) -> object:
        return Number(digits)

    return json.loads(text, object_pairs_hook=_Pairs, parse_float=number, parse_int=number)


def _walk(value: object) -> Iterator[object]:
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, _Pairs):
            stack += [v for _, v in item]
        elif isinstance(item, list):
            stack += item


def _not_json(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return True
    return False


def _has_nul(text: str) -> bool:
    return _NUL_ESCAPE.search(text) is not None


def _odd_key(text: str) -> bool:
    return any(
        isinstance(item, _Pairs) and any("." in k or k.startswith("$") or "\0" in k for k, _ in item)
        for item in _walk(_parse(text))
    )


def _duplicate(text: str) -> bool:
    return any(isinstance(item, _Pairs) and len({k for k, _ in item}) != len(item) for item in _walk(_parse(text)))


def _odd_number(text: str) -> bool:
    for item in _walk(_parse(text)):
        if isinstance(item, Number):
            exact = item == item.to_integral_value() and -(2**63) <= item < 2**64
            if not exact and (Number(repr(float(item))) != item or str(item).rstrip("0") != str(item)):
                return True
    return False


# ------------------------------------------------------------------------------------------------------------ the full scan

Query = Callable[[str], list[tuple[object, ...]]]


def answer(
    query: Query,
    stream: Callable[[str], Iterator[Sequence[tuple[bytes | None, ...]]]],
    flavour: str,
    table: Table,
    checks: Sequence[tuple[Field, Check]],
    where: str | None,
) -> list[CheckResult]:
    """Answer all checks: one scan for what SQL can ask, one stream for questions inside JSON, one query a unique key."""
    place = sql.where_is((table.namespace, table.name))
    conditions = [predicate(field, check) for field, check in checks]
    questions = _json_questions(flavour)
    inside = _in_stream(checks, conditions, questions)
    for i in inside:
        conditions[i] = None
    asked = [c for c in conditions if c is not None]
    keys = sql.key_columns(table)
    key_text = [sql.bound_text(table.column(k)) for k in keys]
    read: dict[int, tuple[int, list[tuple[str | None, ...]]]] = {}
    if inside:
        # The stream that brings the texts tells of every row whether one of the conditions holds; a scan follows only if so.
        flag = f"coalesce({' or '.join(asked)}, 0)" if asked else "0"
        asked_json = [(subject(checks[i][0]), checks[i][1].kind) for i in inside]
        tail = f"{''.join(', ' + k for k in key_text)} from {place}{sql.filters(where)}"
        flagged, found = _scan_json(stream, flag, tail, asked_json, questions)
        read = dict(zip(inside, found, strict=True))
    counts = dict.fromkeys(asked, 0)
    if asked and (not inside or flagged):
        sums = ", ".join(f"sum({c})" for c in asked)
        row = query(f"select {sums} from {place}{sql.filters(where)}")[0]
        counts = {c: int(str(n or 0)) for c, n in zip(asked, row, strict=True)}
    results = []
    for i, ((field, check), condition) in enumerate(zip(checks, conditions, strict=True)):
        count, samples = 0, []
        if condition is not None and (count := counts[condition]) and keys:
            rows = query(f"select {', '.join(key_text)} from {place}{sql.filters(where, condition)} limit {SAMPLES}")
            samples = [tuple(None if v is None else _text(v) for v in row) for row in rows]
        elif check.kind == "collation_equal" and check.columns:
            count, samples = _equal(query, flavour, table, check, key_text, where)
        elif i in read:
            count, samples = read[i]
        results.append(CheckResult(check=check, column=field.column.name, count=count, samples=tuple(samples)))
    return results


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _in_stream(
    checks: Sequence[tuple[Field, Check]], conditions: Sequence[str | None], questions: Mapping[str, object]
) -> list[int]:
    """Return the positions of checks that a stream of JSON texts answers: those that SQL cannot, and json_nul where one is read anyway."""
    about = [
        i
        for i, (field, check) in enumerate(checks)
        if isinstance(field.column.type, Json) and check.kind in questions and not field.is_constant
    ]
    needed = {subject(checks[i][0]) for i in about if conditions[i] is None}
    return [
        i
        for i in about
        if conditions[i] is None or (checks[i][1].kind == "json_nul" and subject(checks[i][0]) in needed)
    ]


def _scan_json(
    stream: Callable[[str], Iterator[Sequence[tuple[bytes | None, ...]]]],
    flag: str,
    tail: str,
    asked: Sequence[tuple[str, str]],
    questions: Mapping[str, Callable[[str], bool]],
) -> tuple[bool, list[tuple[int, list[tuple[str | None, ...]]]]]:
    """Answer questions (expression, check kind) about JSON texts by one stream, and tell whether `flag` was true of any row.

    Only texts in doubt are parsed in Python.
    """
    texts = list(dict.fromkeys(e for e, _ in asked))
    kinds = "0" + "".join([doubt.json_kind([kind for e, kind in asked if e == text]) for text in texts])
    at, width, flagged = [1 + texts.index(e) for e, _ in asked], 1 + len(texts), False
    counts, samples = [0] * len(asked), [list[tuple[str | None, ...]]() for _ in asked]
    for rows in stream(f"select {flag}, {', '.join([f'cast({t} as char)' for t in texts])}{tail}"):
        for position in doubt.doubtful(rows, kinds):
            row = rows[position]
            flagged = flagged or row[0] != b"0"
            for i, (_, kind) in enumerate(asked):
                value = row[at[i]]
                if value is None or not questions[kind](value.decode("utf-8")):
                    continue
                counts[i] += 1
                if len(row) > width and len(samples[i]) < SAMPLES:
                    samples[i].append(tuple([None if k is None else k.decode("utf-8") for k in row[width:]]))
    return flagged, list(zip(counts, samples, strict=True))


def _equal(
    query: Query, flavour: str, table: Table, check: Check, key_text: Sequence[str], where: str | None
) -> tuple[int, list[tuple[str | None, ...]]]:
    """Count the rows whose key another collation would hold equal to another row's."""
    place = sql.where_is((table.namespace, table.name))
    collation = _collation(check.collation or "", flavour)
    texts = [
        f"{_utf8(quote(c))} collate {collation}" if sql.is_text(table.column(c)) else quote(c) for c in check.columns
    ]
    present = " and ".join(f"{quote(c)} is not null" for c in check.columns)
    groups = f"select count(*) n{''.join(f', {t} k{i}' for i, t in enumerate(texts))} from {place}{sql.filters(where, present)} group by {', '.join(texts)} having count(*) > 1"
    count = int(str(query(f"select coalesce(sum(n), 0) from ({groups}) g")[0][0]))
    if not count or not key_text:
        return count, []
    match = " and ".join(f"{t} = g.k{i}" for i, t in enumerate(texts))
    rows = query(
        f"select {', '.join(key_text)} from {place} join ({groups}) g on {match}{sql.filters(where)} limit {SAMPLES}"
    )
    return count, [tuple(None if v is None else _text(v) for v in row) for row in rows]


def _collation(name: str, flavour: str) -> str:
    """Return our collation for a target's description: a name of ours as it is, else by what it ignores."""
    low = name.lower()
    if low.startswith("utf8mb4_") and low.replace("_", "").isalnum():
        return low
    if "accent" in low or low.endswith("_ai_ci"):
        return "utf8mb4_unicode_ci" if flavour == "mariadb" else "utf8mb4_0900_ai_ci"
    if flavour == "mariadb":
        return "utf8mb4_uca1400_as_ci"
    return "utf8mb4_0900_as_ci"
