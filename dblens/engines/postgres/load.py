"""The copier's writing half: COPY into staged tables, with the ledger line in the same transaction.

Octets in PostgreSQL's own formats pass through untouched. Exchange values are encoded column by column: a page's texts are joined
with NUL (which PostgreSQL text cannot hold anyway), escaped at once at C speed, and split again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from dblens.engines.base import Block, Chunk, Field, Format, Place
from dblens.engines.postgres import scan
from dblens.engines.postgres.ddl import CONTROL, at, columns_text, quote
from dblens.engines.postgres.link import Link
from dblens.errors import Conflict, NotFound, QueryFailed, Unsupported
from dblens.schema.model import Column
from dblens.values.forms import Form

Encoder = Callable[[Sequence[Any]], list[str]]


def stored(field: Field) -> Column:
    """Return the column as the target stores it."""
    return field.target or field.column


def formats(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats that can load these fields, cheapest first."""
    if any(f.form == Form.BSON for f in fields):
        return ("bson",) if not fields else ()
    if any(_only_rows(f) for f in fields):
        return ("rows",)
    if fields and all(_same_binary(f) for f in fields):
        return ("pgbinary", "pgtext", "rows")
    return ("pgtext", "rows")


def _same_binary(field: Field) -> bool:
    column = field.target
    same = field.form == Form.NATIVE and column is not None and column.native == field.column.native
    plain = not field.repairs and field.expression is None and not field.is_constant
    return same and plain and scan.base_type(field.column) in scan.BUILT_IN


def _only_rows(field: Field) -> bool:
    """Tell whether the canonical spelling is not the type's own input, so that the client has to rewrite it."""
    native = stored(field).native
    if field.form == Form.JSON:
        return native.endswith("[]")
    if field.form == Form.INTERVAL:
        return native.startswith("interval")
    return field.form == Form.DYNAMIC or (field.form == Form.BYTES and native == "uuid")


# ------------------------------------------------------------------------------------------------------------------- encoding


def _present(texts: Callable[[Any], str]) -> Encoder:
    """Return an encoder for values whose text needs no escaping."""

    def encode(values: Sequence[Any]) -> list[str]:
        if None in values:
            return ["\\N" if v is None else texts(v) for v in values]
        return list(map(texts, values))

    return encode


def _escaped(values: Sequence[Any]) -> list[str]:
    r"""Encode texts: NULL is `\\N`; backslash, tab and line breaks are escaped."""
    nulls = None in values
    joined = "\0".join(["" if v is None else v for v in values] if nulls else values)
    if joined.count("\0") != len(values) - 1:
        raise QueryFailed(
            "a text holds U+0000, which PostgreSQL cannot store", hint="plan again: the check nul_character finds it"
        )
    if "\\" in joined:
        joined = joined.replace("\\", "\\\\")
    for raw, escape in (("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        if raw in joined:
            joined = joined.replace(raw, escape)
    texts = joined.split("\0")
    if nulls:
        for i, value in enumerate(values):
            if value is None:
                texts[i] = "\\N"
    return texts


def _octets(value: Any) -> str:
    return "\\\\x" + bytes(value).hex()


def _dynamic(value: Any) -> str:
    match value:
        case bool() | int():
            return str(int(value))
        case float():
            return repr(value)
        case str():
            return value
    return bytes(value).hex()


def _array(text: str) -> str:
    """Return a JSON array as an array literal of PostgreSQL."""

    def one(item: Any) -> str:
        if item is None:
            return "NULL"
        if isinstance(item, list):
            return "{" + ",".join(map(one, item)) + "}"
        shown = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'

    parsed = json.loads(text, parse_float=str, parse_int=str)
    if not isinstance(parsed, list):
        raise QueryFailed(f"not a JSON array: {text[:80]!r}")
    return one(parsed)


def _interval(text: str) -> str:
    parts = text.split(" ")
    if len(parts) != 3:
        return text
    return f"{parts[0]} mons {parts[1]} days {parts[2]} microseconds"


def _through(change: Callable[[Any], str]) -> Encoder:
    return lambda values: _escaped([None if v is None else change(v) for v in values])


def encoder(field: Field) -> Encoder:
    """Return the function that turns a column of exchange values into COPY texts."""
    native = stored(field).native
    match field.form:
        case Form.INT:
            return _present(int.__repr__)
        case Form.FLOAT:
            return _present(float.__repr__)
        case Form.BYTES if native == "uuid":
            return _present(lambda v: bytes(v).hex())
        case Form.BYTES:
            return _present(_octets)
        case Form.JSON if native.endswith("[]"):
            return _through(_array)
        case Form.INTERVAL if native.startswith("interval"):
            return _through(_interval)
        case Form.DYNAMIC:
            return _through(_dynamic)
    return _escaped


def as_text(field: Field) -> Encoder:
    """Return an encoder that also takes values of other classes than the form promises, by their text."""
    strict = encoder(field)
    loose = _through(_dynamic)

    def encode(values: Sequence[Any]) -> list[str]:
        try:
            return strict(values)
        except TypeError:
            return loose(values)

    return encode


def lines(rows: Sequence[tuple[Any, ...]], encoders: Sequence[Encoder]) -> bytes:
    """Return rows as COPY text."""
    if not encoders:
        return b"\n" * len(rows)
    columns = [encode(values) for encode, values in zip(encoders, zip(*rows, strict=True), strict=True)]
    try:
        return ("\n".join(map("\t".join, zip(*columns, strict=True))) + "\n").encode("utf-8")
    except UnicodeEncodeError as error:
        raise QueryFailed(
            f"a text holds a lone surrogate, which is no valid UTF-8: {error.object[error.start : error.end]!r}",
            hint="plan again: the check invalid_text finds it",
        ) from error


def _payload(blocks: Iterable[Block], fields: Sequence[Field], fmt: Format) -> Iterator[bytes]:
    if fmt == "rows":
        encoders = [as_text(f) for f in fields]
        for block in blocks:
            if block.data:
                yield lines(block.data, encoders)
    elif fmt in ("pgbinary", "pgtext"):
        for block in blocks:
            yield block.data
    else:
        raise Unsupported(f"loading {fmt}", "PostgreSQL does not read it")


# --------------------------------------------------------------------------------------------------------------------- loading


def copy_statement(place: Place, fields: Sequence[Field], fmt: Format, *, freeze: bool) -> str:
    """Return the COPY that loads fields into a table."""
    options = [f"FORMAT {'binary' if fmt == 'pgbinary' else 'text'}", "ENCODING 'UTF8'"]
    if freeze:
        options.append("FREEZE")
    columns = f" ({columns_text(stored(f).name for f in fields)})" if fields else ""
    return f"COPY {at(place)}{columns} FROM STDIN WITH ({', '.join(options)})"


def check_epoch(link: Link, run: str, epoch: int) -> None:
    """Hold the run's record for this transaction. Raises Conflict when another worker has taken the run over."""
    row = link.one(f"SELECT epoch FROM {quote(CONTROL)}.run WHERE id = $1 FOR SHARE", [run], what="the epoch check")
    if not row:
        raise NotFound(f"the target does not know the run {run}", hint="`dblens migrate status` lists its runs")
    if row[0] != epoch:
        raise Conflict(
            f"the run {run} was taken over: its epoch is {row[0]}, this worker's {epoch}",
            hint="let the newer worker go on; nothing was written",
        )


def load(
    link: Link, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterable[Block], chunk: Chunk, *, fast: bool
) -> int:
    """Load blocks and the chunk's ledger line in one transaction. A connection lost at COMMIT raises ConnectionFailed."""
    name = ".".join(place)
    with link.transaction(f"loading {name}"):
        check_epoch(link, chunk.run, chunk.epoch)
        if fast:
            # Truncated in this transaction, so rows can be written frozen: visible to all without a later vacuum.
            link.run(f"TRUNCATE {at(place)}", what=f"emptying {name}")
        count = link.copy_in(
            copy_statement(place, fields, fmt, freeze=fast), _payload(blocks, fields, fmt), f"loading {name}"
        )
        note(link, chunk, count, replace=fast)
    return count


def note(link: Link, chunk: Chunk, rows: int, *, replace: bool) -> None:
    """Write a chunk's ledger line. `replace`: a fast load starts its table anew, so older lines of it are gone."""
    if replace:
        link.run(
            f"DELETE FROM {quote(CONTROL)}.chunk WHERE run = $1 AND namespace = $2 AND name = $3 AND number >= 0",
            [chunk.run, *chunk.table],
            what="the ledger",
        )
    try:
        link.run(
            f"INSERT INTO {quote(CONTROL)}.chunk (run, namespace, name, number, keys, rows, epoch) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                chunk.run,
                *chunk.table,
                chunk.number,
                msgspec.json.encode(chunk.keys).decode(),
                rows,
                chunk.epoch,
            ],
            what="the ledger",
        )
    except QueryFailed as error:
        if "duplicate key" not in error.message:
            raise
        raise Conflict(
            f"chunk {chunk.number} of {'.'.join(chunk.table)} was loaded already", hint="read the ledger again"
        ) from error


def repair(
    link: Link,
    place: Place,
    fields: Sequence[Field],
    key: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    delete: Sequence[tuple[Any, ...]],
) -> int:
    """Delete rows by key and put others in the place of those with the same key, in one transaction; return the rows written."""
    by_name = {stored(f).name: f for f in fields}
    missing = [k for k in key if k not in by_name]
    if missing or not key:
        raise Unsupported(f"repairing {'.'.join(place)}", f"the key columns {missing or 'are unknown'}")
    positions = [i for i, f in enumerate(fields) if stored(f).name in key]
    names = [stored(fields[i]).name for i in positions]
    columns = [stored(fields[i]) for i in positions]
    with link.transaction(f"repairing {'.'.join(place)}"):
        typed = ", ".join(f"{quote(c.name)} {c.native}" for c in columns)
        link.run(f"CREATE TEMPORARY TABLE dblens_gone ({typed}) ON COMMIT DROP", what="repairing")
        gone = [tuple(d[list(key).index(n)] for n in names) for d in delete]
        gone += [tuple(row[i] for i in positions) for row in rows]
        encoders = [_loose(fields[i]) for i in positions]
        link.copy_in(
            f"COPY pg_temp.dblens_gone ({columns_text(names)}) FROM STDIN",
            iter([lines(gone, encoders)] if gone else []),
            "repairing",
        )
        match = " AND ".join(f"t.{quote(n)} IS NOT DISTINCT FROM g.{quote(n)}" for n in names)
        link.run(f"DELETE FROM {at(place)} t USING pg_temp.dblens_gone g WHERE {match}", what="repairing")
        written = link.copy_in(
            copy_statement(place, fields, "rows", freeze=False),
            iter([lines(rows, [as_text(f) for f in fields])] if rows else []),
            "repairing",
        )
        link.run("DROP TABLE pg_temp.dblens_gone", what="repairing")
    return written


def _loose(field: Field) -> Encoder:
    """Return an encoder for keys, which come as canonical texts or as exchange values."""
    strict = encoder(field)

    def one(value: Any) -> str:
        if value is None:
            return "\\N"
        if isinstance(value, str):
            if field.form == Form.BYTES:
                return "\\\\x" + value if stored(field).native != "uuid" else value
            if field.form in (Form.INT, Form.FLOAT):
                return value
        return strict([value])[0]

    return lambda values: [one(v) for v in values]
