"""Rows into staged tables, strictly: what a column would change or drop is an error before it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from dblens.engines.base import Block, Chunk, Field, Format, KeyRange, Place
from dblens.engines.sqlite.ddl import OWN, quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.errors import InvalidInput, Unsupported
from dblens.values.forms import Form

LEDGER = f"{OWN}chunk"
Convert = Callable[[Sequence[Any]], Sequence[Any]]
_ANY = frozenset({Form.DYNAMIC, Form.NATIVE})


def create_ledger(db: Db) -> None:
    """Make the ledger's table."""
    db.run(
        f"CREATE TABLE IF NOT EXISTS main.{quote(LEDGER)} (run TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, "
        "keys TEXT NOT NULL, row_count INTEGER, epoch INTEGER NOT NULL, PRIMARY KEY (run, name, number)) WITHOUT ROWID"
    )


def ledger(db: Db, run: str) -> list[Chunk]:
    """Return the committed chunks of a run."""
    if not db.one("SELECT 1 FROM main.sqlite_schema WHERE name = ?", (LEDGER,)):
        return []
    rows = db.rows(
        f"SELECT name, number, keys, row_count, epoch FROM main.{quote(LEDGER)} WHERE run = ? ORDER BY name, number",
        (run,),
    )
    return [
        Chunk(
            run=run,
            table=("main", name),
            number=number,
            keys=msgspec.json.decode(keys, type=KeyRange),
            rows=count,
            epoch=epoch,
        )
        for name, number, keys, count, epoch in rows
    ]


def forget_chunks(db: Db, run: str, place: Place | None) -> None:
    """Delete ledger lines, of one table or all."""
    if place is None:
        db.run(f"DELETE FROM main.{quote(LEDGER)} WHERE run = ?", (run,))
    else:
        db.run(f"DELETE FROM main.{quote(LEDGER)} WHERE run = ? AND name = ?", (run, place[1]))


def load(
    db: Db,
    place: Place,
    fields: Sequence[Field],
    fmt: Format,
    blocks: Iterable[Block],
    chunk: Chunk,
    *,
    fast: bool,
    fence: Callable[[], None],
) -> int:
    """Load blocks and their ledger line in one transaction; `fence` raises Conflict when the run is no longer ours."""
    if fmt != "rows":
        raise Unsupported(f"loading {fmt} into SQLite", "it takes rows")
    converters = [_converter(f) for f in fields]
    count = 0
    with db.transaction():
        if fast:
            db.run(f"DELETE FROM {where_is(place)}")
        for block in blocks:
            rows = converted(block.data, converters)
            _put(db, place, fields, rows)
            count += len(rows)
        db.run(
            f"INSERT OR REPLACE INTO main.{quote(LEDGER)} (run, name, number, keys, row_count, epoch) VALUES (?, ?, ?, ?, ?, ?)",
            (chunk.run, place[1], chunk.number, msgspec.json.encode(chunk.keys).decode(), count, chunk.epoch),
        )
        fence()
    return count


def _insert(place: Place, fields: Sequence[Field], octets: Collection[int] = ()) -> str:
    """Return the INSERT; the values at the places `octets` are bound as octets of a text."""
    if not fields:
        return f"INSERT INTO {where_is(place)} DEFAULT VALUES"
    names = ", ".join(quote((f.target or f.column).name) for f in fields)
    marks = ", ".join("CAST(? AS TEXT)" if i in octets else "?" for i in range(len(fields)))
    return f"INSERT INTO {where_is(place)} ({names}) VALUES ({marks})"


def _put(db: Db, place: Place, fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows. Text that is not UTF-8 comes from another SQLite file only, and is stored octet by octet."""
    verbatim = any(f.form in _ANY for f in fields)
    if verbatim:
        db.run("SAVEPOINT dblens_block")
    try:
        db.many(_insert(place, fields), rows)
    except InvalidInput as error:
        if not (verbatim and isinstance(error.__cause__, UnicodeEncodeError)):
            raise
        db.run("ROLLBACK TO dblens_block")
        for row in rows:
            odd = {i for i, v in enumerate(row) if isinstance(v, str) and fields[i].form in _ANY and not _encodes(v)}
            values = [v.encode("utf-8", "surrogateescape") if i in odd else v for i, v in enumerate(row)]
            db.run(_insert(place, fields, odd), values)
    if verbatim:
        db.run("RELEASE dblens_block")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def converted(rows: Sequence[Sequence[Any]], converters: Sequence[Convert | None]) -> Sequence[Sequence[Any]]:
    """Return rows of exchange values as rows of what is stored."""
    if not rows or not any(converters):
        return rows
    columns = list(zip(*rows, strict=True))
    for i, convert in enumerate(converters):
        if convert is not None:
            columns[i] = convert(columns[i])  # type: ignore[call-overload]
    return list(zip(*columns, strict=True))


def _converter(field: Field) -> Convert | None:
    """Return what turns a column of exchange values into stored values, None when they are the same."""
    name = (field.target or field.column).name
    match field.form:
        case Form.FLOAT:
            return lambda column: _floats(column, name)
        case Form.INT if (field.target or field.column).native.upper() == "TEXT":
            return lambda column: [None if v is None else str(v) for v in column]
        case Form.TIMESTAMPTZ:
            return lambda column: [None if v is None else f"{_short(v) if '.' in v else v}Z" for v in column]
        case Form.TIMESTAMP | Form.TIME:
            return lambda column: [v if v is None or "." not in v else _short(v) for v in column]
        case Form.DECIMAL:
            return lambda column: [v if v is None or ("." not in v and v[:2] != "-0") else _decimal(v) for v in column]
    return None


def _short(text: str) -> str:
    """Return a time or timestamp without trailing zeros in its fraction, which ends the text or stands before ` BC`."""
    head, era = (text[:-3], " BC") if text.endswith(" BC") else (text, "")
    return head.rstrip("0").rstrip(".") + era if "." in head else text


def _decimal(text: str) -> str:
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _floats(column: Sequence[Any], name: str) -> Sequence[Any]:
    isnan = math.isnan
    for value in column:
        if value is not None and (isnan(value) or (value == 0 and math.copysign(1, value) < 0)):
            shown = "NaN" if isnan(value) else "-0.0"
            raise InvalidInput(
                f"column {name!r} cannot hold {shown} in SQLite",
                hint="accept the loss in the plan, or map the column to text by a rule",
            )
    return column


def repair(
    db: Db,
    place: Place,
    fields: Sequence[Field],
    key: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    delete: Sequence[tuple[Any, ...]],
) -> int:
    """Delete rows by key and put rows in place of those with the same key, in one transaction; return how many were put."""
    by_name = {(f.target or f.column).name: i for i, f in enumerate(fields)}
    converters = [_converter(f) for f in fields]
    ready = converted(rows, converters)
    condition = " AND ".join(f"{quote(k)} IS ?" for k in key)
    wanted = [tuple(stored_key(fields[by_name[k]], text) for k, text in zip(key, keys, strict=True)) for keys in delete]
    own = [tuple(row[by_name[k]] for k in key) for row in ready]
    with db.transaction():
        if key:
            db.many(f"DELETE FROM {where_is(place)} WHERE {condition}", [*wanted, *own])
        _put(db, place, fields, ready)
    return len(ready)


def stored_key(field: Field, text: Any) -> Any:
    """Return a key's canonical text as it is stored."""
    if not isinstance(text, str):
        return text
    native = (field.target or field.column).native.upper()
    match field.form:
        case Form.INT:
            return text if native == "TEXT" else int(text)
        case Form.FLOAT:
            return float(text)
        case Form.BYTES:
            return bytes.fromhex(text)
        case Form.TIMESTAMPTZ:
            return f"{text}Z"
        case Form.DYNAMIC | Form.NATIVE:
            kind, _, rest = text.partition(":")
            readers: dict[str, Callable[[str], Any]] = {"i": int, "r": float, "b": bytes.fromhex}
            return readers.get(kind, str)(rest)
    return text
