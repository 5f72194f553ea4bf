"""The verifier's reader: stored values to canonical texts, column by column over batches of rows. Shares nothing with `export`.

A batch is turned on its side, each column rendered at once by a rule for the classes it holds (whole columns that are canonical already
are recognised by one pattern over all of them), and the row lines are put together by one format: about 3 µs a row of 12 columns.
Texts are fetched as bytearray, which keeps them apart from blobs without asking SQLite for typeof().
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dblens.engines.base import ALL, Field, KeyRange
from dblens.engines.sqlite.checks import repaired
from dblens.engines.sqlite.ddl import where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.keys import range_condition
from dblens.events import Progress, Report
from dblens.schema.model import Table
from dblens.values.codec import canonical, float_text
from dblens.values.digest import Accumulator, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

Texts = Sequence[bytes | bytearray | None]
Column = Sequence[object]
Render = Callable[[Column, frozenset[type]], Texts]

_MOST_ROWS = 1000
_BATCH_OCTETS = 1 << 20
_NULL = type(None)
_ZERO = ord("0")
_TEXT = frozenset({bytearray, _NULL})
_WHOLE = frozenset({int, _NULL})
_REAL = frozenset({float, _NULL})
_BLOB = frozenset({bytes, _NULL})
_CLOCK = rb"\d\d:[0-5]\d:[0-5]\d(?:\.\d++)?+"
_PATTERNS = {
    Form.INT: rb"(?:0|-?+[1-9]\d*+)",
    Form.DECIMAL: rb"(?!-0(?:\.0*+)?+(?:\n|\Z))-?+(?:0|[1-9]\d*+)(?:\.\d++)?+",
    Form.DATE: rb"\d{4}-\d\d-\d\d",
    Form.TIME: _CLOCK,
    Form.TIMESTAMP: rb"\d{4}-\d\d-\d\d " + _CLOCK,
    Form.TIMESTAMPTZ: rb"\d{4}-\d\d-\d\d " + _CLOCK + rb"Z",
    Form.INTERVAL: rb"(?:0|-?+[1-9]\d*+) (?:0|-?+[1-9]\d*+) (?:0|-?+[1-9]\d*+)",
    Form.UUID: rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    Form.BITS: rb"[01]*+",
}
"""Texts that are canonical but for zeros that end a fraction. Possessive, so that nothing is tried twice."""
_WHOLE_COLUMN = {form: re.compile(rb"(?:" + p + rb"\n)*+" + p) for form, p in _PATTERNS.items()}
_FRACTIONS = frozenset({Form.DECIMAL, Form.TIME, Form.TIMESTAMP, Form.TIMESTAMPTZ})
_AS_IS = frozenset({Form.TEXT, Form.TIMETZ, Form.GEOMETRY, Form.DOCUMENT})


def _foreign(value: object) -> bytes:
    """Return a text for a value that its form cannot hold; it begins with an octet that no UTF-8 text has, so it equals nothing else."""
    return b"\xff" + _dynamic(value)


def _tagged_real(value: float) -> bytes:
    text = repr(value)
    if text[-2:] == ".0":
        return b"r:" + text[:-2].encode()
    return b"r:" + (float_text(value) if "e" in text or "n" in text else text).encode()


_TAGGED: dict[type, Callable[[Any], bytes]] = {
    int: b"i:%d".__mod__,
    bytearray: b"t:%b".__mod__,
    float: _tagged_real,
    bytes: lambda v: b"b:" + v.hex().encode(),
}


def _dynamic(value: object) -> bytes:
    return _TAGGED[type(value)](value)


def _one(form: Form, value: object) -> bytes | None:
    """Render a single value by the codec: the slow way, for what a column's rule does not cover."""
    if value is None:
        return None
    if isinstance(value, bytes) and form not in (Form.BYTES, Form.BSON):
        return _foreign(value)
    if isinstance(value, bytearray):
        if form in (Form.BYTES, Form.BSON):
            return _foreign(value)
        if form in _AS_IS:
            return bytes(value)
        if form == Form.TIMESTAMPTZ and value[-1:] == b"Z" and value[:-1].endswith((b"BC", b"infinity")):
            value = value[:-1]
    try:
        return canonical(form, bytes(value) if isinstance(value, bytearray) else value)
    except ValueError:
        return _foreign(value)


def _each(form: Form) -> Callable[[Column], Texts]:
    return lambda column: [_one(form, v) for v in column]


def _renderer(form: Form, exact: bool) -> Render:
    """Return the rule that renders a column of a form, told the classes it holds."""
    slow = _each(form)

    def whole(column: Column, kinds: frozenset[type]) -> Texts:
        if kinds == {int}:
            return [b"%d" % v for v in column]  # type: ignore[str-format]
        if kinds <= _WHOLE:
            return [None if v is None else b"%d" % v for v in column]  # type: ignore[str-format]
        return patterned(column, kinds)

    def real(column: Column, kinds: frozenset[type]) -> Texts:
        if not kinds <= _REAL:
            return slow(column)
        texts: list[bytes | None] = []
        add = texts.append
        for value in column:
            if value is None:
                add(None)
                continue
            text = repr(value)
            if text[-2:] == ".0":
                add(text[:-2].encode())
            elif "e" in text or "n" in text:
                add(float_text(value).encode())  # type: ignore[arg-type] # floats only: `kinds` says so
            else:
                add(text.encode())
        return texts

    def patterned(column: Column, kinds: frozenset[type]) -> Texts:
        if not kinds <= _TEXT:
            return whole(column, kinds) if form == Form.DECIMAL and kinds <= _WHOLE else slow(column)
        given: list[bytearray] = [v for v in column if v is not None] if _NULL in kinds else column  # type: ignore[assignment,misc]
        joined = b"\n".join(given)
        if joined.count(b"\n") != len(given) - 1 or not _WHOLE_COLUMN[form].fullmatch(joined):
            return slow(column)
        texts: Texts = column  # type: ignore[assignment]
        if form == Form.TIMESTAMPTZ:
            texts = [None if v is None else v[:-1] for v in texts]
        if form in _FRACTIONS and b"." in joined:
            texts = [v if v is None or v[-1] != _ZERO or b"." not in v else v.rstrip(b"0").rstrip(b".") for v in texts]
        return texts

    def as_is(column: Column, kinds: frozenset[type]) -> Texts:
        return column if kinds <= _TEXT else slow(column)  # type: ignore[return-value]

    def parsed(column: Column, kinds: frozenset[type]) -> Texts:  # noqa: ARG001 - each value by itself
        return slow(column)

    def octets(column: Column, kinds: frozenset[type]) -> Texts:
        if kinds == {bytes}:
            return [v.hex().encode() for v in column]  # type: ignore[attr-defined]
        if kinds <= _BLOB:
            return [None if v is None else v.hex().encode() for v in column]  # type: ignore[attr-defined]
        return slow(column)

    def dynamic(column: Column, kinds: frozenset[type]) -> Texts:
        for kind, tagged in _TAGGED.items():
            if kinds == {kind}:
                return [tagged(v) for v in column]
            if kinds == {kind, _NULL}:
                return [None if v is None else tagged(v) for v in column]
        return [None if v is None else _dynamic(v) for v in column]

    match form:
        case Form.INT:
            return whole
        case Form.FLOAT:
            return real
        case Form.BYTES | Form.BSON:
            return octets
        case Form.DYNAMIC | Form.NATIVE:
            return dynamic
        case Form.JSON:
            # Not `exact`: the text as stored is SQLite's own form of JSON, which keeps every text verbatim.
            return parsed if exact else as_is
    if form in _PATTERNS:
        return patterned
    return as_is


def lines(columns: Sequence[Texts], nulls: Sequence[bool]) -> Iterable[bytes]:
    """Return the row lines of rendered columns; `nulls` tells which of them hold any."""
    parts: list[bytes] = []
    feeds: list[Iterable[object]] = []
    for texts, holes in zip(columns, nulls, strict=True):
        if holes:
            parts.append(b"%b")
            feeds.append([b"-" if v is None else b"%d:%b" % (len(v), v) for v in texts])  # type: ignore[str-format]
        else:
            parts.append(b"%d:%b")
            feeds.append(map(len, texts))  # type: ignore[arg-type] # no holes
            feeds.append(texts)
    return map(b"".join(parts).__mod__, zip(*feeds, strict=False))


class _Reader:
    """Streams a table's fields as rendered columns."""

    def __init__(
        self, db: Db, table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None, exact: bool = False
    ) -> None:
        self.db, self.forms = db, [f.form for f in fields]
        bound, self.params = range_condition(keys)
        conditions = [c for c in (bound, f"({where})" if where else "") if c]
        self.statement = (
            f"SELECT {', '.join(map(repaired, fields)) or 'NULL'} FROM {where_is((table.namespace, table.name))}"
        )
        if conditions:
            self.statement += " WHERE " + " AND ".join(conditions)
        self.width = len(fields)
        self.renderers = [_renderer(form, False) for form in self.forms]
        self.exact = [_renderer(form, True) for form in self.forms] if exact and Form.JSON in self.forms else None

    def batches(self) -> Iterator[tuple[list[Column], list[frozenset[type]], int]]:
        """Yield columns with the classes in them and the row count."""
        for rows in self.db.batches(self.statement, self.params, bytearray, _MOST_ROWS, _BATCH_OCTETS):
            turned: list[Column] = list(zip(*rows, strict=True))
            columns = turned[: self.width]
            yield columns, [frozenset(map(type, c)) for c in columns], len(rows)

    def rendered(self) -> Iterator[tuple[list[Texts], list[bool], list[Texts] | None, int]]:
        """Yield columns as texts, which of them hold NULL, and the exact texts where they differ."""
        for columns, kinds, count in self.batches():
            texts = [r(c, k) for r, c, k in zip(self.renderers, columns, kinds, strict=True)]
            exact = [r(c, k) for r, c, k in zip(self.exact, columns, kinds, strict=True)] if self.exact else None
            yield texts, [_NULL in k for k in kinds], exact, count


def fingerprint(
    db: Db, table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None, report: Report
) -> Fingerprint:
    """Digest a table's fields."""
    sums = Accumulator()
    task, done, said = f"digest {table.namespace}.{table.name}", 0, 0
    for texts, nulls, _, count in _Reader(db, table, fields, keys, where).rendered():
        if texts:
            sums.add_lines(lines(texts, nulls))
        else:
            sums.add_lines([b""] * count)
        done += count
        if done - said >= 50_000:
            said = done
            report(Progress(task=task, done=done, total=table.rows_estimate))
    return sums.fingerprint()


def canonical_rows(
    db: Db,
    table: Table,
    fields: Sequence[Field],
    buckets: frozenset[int] | None,
    keys: KeyRange = ALL,
    where: str | None = None,
    exact: bool = False,
) -> Iterator[tuple[bytes | None, ...]]:
    """Stream rows of canonical texts, of all buckets or of some."""
    for texts, _, precise, count in _Reader(db, table, fields, keys, where, exact).rendered():
        if not texts:
            yield from [()] * count
            continue
        digested = zip(*map(_octets, texts), strict=True)
        if precise is None and buckets is None:
            yield from digested
            continue
        shown = zip(*map(_octets, precise), strict=True) if precise is not None else None
        for row in digested:
            out = next(shown) if shown is not None else row
            if buckets is None or bucket_of(row_digest(row)) in buckets:
                yield out


def _octets(texts: Texts) -> list[bytes | None]:
    return [v if v is None or type(v) is bytes else bytes(v) for v in texts]


__all__ = ["canonical_rows", "fingerprint", "lines"]
