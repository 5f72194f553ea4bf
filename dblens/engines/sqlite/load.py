"""Rows into staged tables, strictly: what a column would change or drop is an error before it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from dblens.engines.base import Block, Chunk, Field, Format, KeyRange, Place
from dblens.engines.sqlite.ddl import OWN, quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.errors import InvalidInput, Unsupported
from dblens.values.exchange import shape_rows
from dblens.values.forms import Form

LEDGER = f"{OWN}chunk"
_ANY = frozenset({Form.DYNAMIC, Form.NATIVE})
_TOGETHER = 20
"""Rows an INSERT: a fifth quicker than one, and the interpreter's lock is handed to the reading thread as much less often."""
_PARAMETERS = 999
"""What every build of SQLite takes in one statement."""


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
    convert = converter(fields)
    count = 0
    with db.transaction():
        if fast:
            db.run(f"DELETE FROM {where_is(place)}")
        for block in blocks:
            rows = convert(block.data)
            _put(db, place, fields, rows)
            count += len(rows)
        db.run(
            f"INSERT OR REPLACE INTO main.{quote(LEDGER)} (run, name, number, keys, row_count, epoch) VALUES (?, ?, ?, ?, ?, ?)",
            (chunk.run, place[1], chunk.number, msgspec.json.encode(chunk.keys).decode(), count, chunk.epoch),
        )
        fence()
    return count


def _insert(place: Place, fields: Sequence[Field], octets: Collection[int] = (), rows: int = 1) -> str:
    """Return the INSERT of some rows; the values at the places `octets` are bound as octets of a text."""
    if not fields:
        return f"INSERT INTO {where_is(place)} DEFAULT VALUES"
    names = ", ".join(quote((f.target or f.column).name) for f in fields)
    marks = ", ".join("CAST(? AS TEXT)" if i in octets else "?" for i in range(len(fields)))
    return f"INSERT INTO {where_is(place)} ({names}) VALUES {', '.join([f'({marks})'] * rows)}"


def _put(db: Db, place: Place, fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows. Text that is not UTF-8 comes from another SQLite file only, and is stored octet by octet."""
    verbatim = any(f.form in _ANY for f in fields)
    if verbatim:
        db.run("SAVEPOINT dblens_block")
    step = max(1, min(_TOGETHER, _PARAMETERS // max(len(fields), 1))) if fields else 1
    whole = len(rows) - len(rows) % step if step > 1 else 0
    try:
        groups = (list(chain.from_iterable(rows[i : i + step])) for i in range(0, whole, step))
        db.many(_insert(place, fields, rows=step), groups)
        db.many(_insert(place, fields), rows[whole:])
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


def converter(fields: Sequence[Field]) -> Callable[[Sequence[Sequence[Any]]], Sequence[Sequence[Any]]]:
    """Return what turns rows of exchange values into rows of what is stored."""
    shapes = [_shape(f) for f in fields]
    kinds, singles = "".join(k for k, _ in shapes).encode(), tuple(s for _, s in shapes)
    if not kinds.strip(b"-"):
        return lambda rows: rows
    return lambda rows: shape_rows(rows, kinds, singles)


def _shape(field: Field) -> tuple[str, Callable[[Any], Any]]:
    """Return the kind of `values.exchange` that makes a field's plain values what is stored, and what makes the others."""
    match field.form:
        case Form.FLOAT:
            return "f", partial(_odd_number, (field.target or field.column).name)
        case Form.INT if (field.target or field.column).native.upper() == "TEXT":
            return "d", str
        case Form.TIMESTAMPTZ:
            return "z", lambda v: f"{_short(v)}Z"
        case Form.TIMESTAMP | Form.TIME:
            return "w", _short
        case Form.DECIMAL:
            return "d", lambda v: _decimal(v) if isinstance(v, str) else v
    return "-", lambda v: v


def _short(text: str) -> str:
    """Return a time or timestamp without trailing zeros in its fraction, which ends the text or stands before ` BC`."""
    head, era = (text[:-3], " BC") if text.endswith(" BC") else (text, "")
    return head.rstrip("0").rstrip(".") + era if "." in head else text


def _decimal(text: str) -> str:
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _odd_number(name: str, value: Any) -> Any:
    if isinstance(value, float) and (math.isnan(value) or value == 0):
        shown = "NaN" if math.isnan(value) else "-0.0"
        raise InvalidInput(
            f"column {name!r} cannot hold {shown} in SQLite",
            hint="accept the loss in the plan, or map the column to text by a rule",
        )
    return value


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
    ready = converter(fields)(rows)
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
