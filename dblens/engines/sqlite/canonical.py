"""The verifier's reader: stored values to canonical texts and digests by `values.speed`. Shares nothing with `export`.

Texts are fetched as str, which keeps them apart from blobs without asking SQLite for typeof(); what is not UTF-8 comes as bytearray,
in a second reading. With the fetch about 2.5 µs a row of 12 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from dblens.engines.base import ALL, Field, KeyRange
from dblens.engines.sqlite.checks import repaired
from dblens.engines.sqlite.ddl import where_is
from dblens.engines.sqlite.driver import Db, NotUtf8
from dblens.engines.sqlite.keys import range_condition
from dblens.events import Progress, Report
from dblens.schema.model import Table
from dblens.values import speed
from dblens.values.codec import canonical, float_text
from dblens.values.digest import Accumulator, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

_MOST_ROWS = 1000
_BATCH_OCTETS = 1 << 20
_AS_IS = frozenset({Form.TEXT, Form.TIMETZ, Form.GEOMETRY, Form.DOCUMENT, Form.JSON})
_KINDS = {
    Form.INT: "i",
    Form.FLOAT: "F",
    Form.DECIMAL: "D",
    Form.TEXT: "S",
    Form.TIMETZ: "S",
    Form.GEOMETRY: "S",
    Form.DOCUMENT: "S",
    # The text as stored is SQLite's own form of JSON, which keeps every text verbatim.
    Form.JSON: "S",
    Form.BYTES: "b",
    Form.BSON: "b",
    Form.DATE: "A",
    Form.TIME: "K",
    Form.TIMESTAMP: "W",
    Form.TIMESTAMPTZ: "Z",
    Form.UUID: "U",
    Form.DYNAMIC: "y",
    Form.NATIVE: "y",
}
"""Kinds of `values.speed` that take what a form plainly is; every other value goes to `_one`."""


def _foreign(value: object) -> bytes:
    """Return a text for a value that its form cannot hold; it begins with an octet that no UTF-8 text has, so it equals nothing else."""
    return b"\xff" + _dynamic(value)


def _dynamic(value: object) -> bytes:
    match value:
        case int():
            return b"i:%d" % value
        case float():
            return b"r:" + float_text(value).encode()
        case str():
            return b"t:" + value.encode()
        case bytearray():
            return b"t:" + bytes(value)
        case bytes():
            return b"b:" + value.hex().encode()
    raise AssertionError(f"SQLite stores no {type(value).__name__}")


def _one(form: Form, exact: bool, value: object) -> bytes:
    """Render a single value by the codec: the slow way, for what is out of the ordinary."""
    if form in (Form.DYNAMIC, Form.NATIVE):
        return _dynamic(value)
    octets = form in (Form.BYTES, Form.BSON)
    if isinstance(value, bytes) != octets and isinstance(value, (bytes, bytearray, str)):
        return _foreign(value)
    if isinstance(value, (bytearray, str)):
        raw = value.encode() if isinstance(value, str) else bytes(value)
        if form in _AS_IS and not (exact and form == Form.JSON):
            return raw
        if form == Form.TIMESTAMPTZ and raw[-1:] == b"Z" and raw[:-1].endswith((b"BC", b"infinity")):
            raw = raw[:-1]
        value = raw
    try:
        text = canonical(form, value)
    except ValueError:
        return _foreign(value)
    assert text is not None, "NULL has no text"
    return text


class _Reader:
    """Streams a table's fields in batches, with what `values.speed` must know of them."""

    def __init__(
        self, db: Db, table: Table, fields: Sequence[Field], keys: KeyRange, where: str | None, exact: bool
    ) -> None:
        self.db = db
        bound, self.params = range_condition(keys)
        conditions = [c for c in (bound, f"({where})" if where else "") if c]
        self.statement = (
            f"SELECT {', '.join(map(repaired, fields)) or 'NULL'} FROM {where_is((table.namespace, table.name))}"
        )
        if conditions:
            self.statement += " WHERE " + " AND ".join(conditions)
        self.width = len(fields)
        kinds = ["J" if exact and f.form == Form.JSON else _KINDS.get(f.form, "o") for f in fields]
        self.kinds = "".join(kinds).encode()
        self.singles: tuple[Callable[[Any], bytes], ...] = tuple(partial(_one, f.form, exact) for f in fields)

    def batches(self, text: Any) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows with texts as `text`."""
        for rows in self.db.batches(self.statement, self.params, text, _MOST_ROWS, _BATCH_OCTETS):
            yield rows if self.width else [()] * len(rows)


def _lenient(octets: bytes) -> str | bytearray:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return bytearray(octets)


def fingerprint(
    db: Db,
    table: Table,
    fields: Sequence[Field],
    keys: KeyRange,
    where: str | None,
    report: Report,
    exact: bool = False,
) -> Fingerprint:
    """Digest a table's fields; `exact`: JSON in canonical form."""
    reader = _Reader(db, table, fields, keys, where, exact)
    task = f"digest {table.namespace}.{table.name}"

    def digest(text: Any) -> Fingerprint:
        sums, done, said = Accumulator(), 0, 0
        for rows in reader.batches(text):
            done += speed.digest_rows(rows, reader.kinds, sums, reader.singles)
            if done - said >= 50_000:
                said = done
                report(Progress(task=task, done=done, total=table.rows_estimate))
        return sums.fingerprint()

    try:
        return digest(str)
    except NotUtf8:
        return digest(_lenient)


def canonical_rows(
    db: Db,
    table: Table,
    fields: Sequence[Field],
    buckets: frozenset[int] | None,
    keys: KeyRange = ALL,
    where: str | None = None,
    exact: bool = False,
) -> Iterator[tuple[bytes | None, ...]]:
    """Stream rows of canonical texts, of all buckets or of some (of the digest without `exact`)."""
    exact = exact and any(f.form == Form.JSON for f in fields)
    shown = _Reader(db, table, fields, keys, where, exact)
    digested = _Reader(db, table, fields, keys, where, False) if exact and buckets is not None else shown
    for rows in shown.batches(_lenient):
        texts = speed.render_rows(rows, shown.kinds, shown.singles)
        if buckets is None:
            yield from texts
            continue
        plain = texts if digested is shown else speed.render_rows(rows, digested.kinds, digested.singles)
        for row, out in zip(plain, texts, strict=True):
            if bucket_of(row_digest(row)) in buckets:
                yield out


__all__ = ["canonical_rows", "fingerprint"]
