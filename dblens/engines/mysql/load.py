"""Load blocks into a staged table: LOAD DATA LOCAL, or multi-row INSERT where the server refuses it.

The ledger line is written in the same transaction as the rows, and the run's epoch is read again under a shared lock just before the
commit. LOAD DATA LOCAL turns errors into warnings: so every warning is an error here, and the rows are rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from dblens.engines.base import Block, Chunk, Field, Format, Place
from dblens.engines.mysql import ddl, rowtext
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.infile import REFUSED, Loader
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.errors import Conflict, DBLensError, QueryFailed, Unsupported
from dblens.schema.model import Column
from dblens.schema.types import Binary, Bits, Enum, Geometry, Set, Year
from dblens.values.forms import Form

INSERT_SIZE = 512 * 1024


def formats(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats that can load these fields."""
    return ("rows",) if any(f.form in (Form.BSON, Form.DYNAMIC) for f in fields) else ("mytext", "rows")


def _column(field: Field) -> Column:
    return field.target or field.column


def _value(field: Field, v: str) -> str | None:
    """Return the expression that turns a field's text `v` into what its column stores, None when the text itself is right."""
    column = _column(field)
    match column.type:
        case Binary():
            if field.form == Form.UUID:
                return f"unhex(replace({v}, '-', ''))"
            return f"unhex({v})" if field.form in (Form.BYTES, Form.NATIVE) else None
        case Bits() if column.native.lower().startswith("bit"):
            return (
                f"cast(conv({v}, 2, 10) as unsigned)"
                if field.form in (Form.BITS, Form.NATIVE)
                else f"cast({v} as unsigned)"
            )
        case Geometry():
            if field.form == Form.NATIVE:
                return f"unhex({v})"
            n = f"lpad(hex(cast(substring_index({v}, ':', 1) as unsigned)), 8, '0')"
            srid = f"substr({n}, 7, 2), substr({n}, 5, 2), substr({n}, 3, 2), substr({n}, 1, 2)"
            return f"unhex(concat({srid}, substring_index({v}, ':', -1)))"
        case Set(values=values) if field.form == Form.JSON:
            import json

            parts = ", ".join(
                f"if(json_contains({v}, {literal(json.dumps(m, ensure_ascii=False))}), {literal(m)}, null)"
                for m in values
            )
            return f"if({v} is null, null, concat_ws(',', {parts}))"
        case Year():
            return f"lpad({v}, 4, '0')"
        case Enum(values=values) if "" not in values:
            # MySQL's error value has the number 0; storing it is the one thing that may warn (counted in @dblens_empty).
            return f"if({v} = '', 0 * (@dblens_empty := @dblens_empty + 1), {v})"
    return None


def statement(place: Place, fields: Sequence[Field]) -> str:
    """Return the LOAD DATA statement for a table; its file name is a mere word."""
    names, sets = [], []
    for i, field in enumerate(fields):
        name = quote(_column(field).name)
        value = _value(field, f"@v{i}")
        if value is None:
            names.append(name)
        else:
            names.append(f"@v{i}")
            sets.append(f"{name} = {value}")
    tail = f" set {', '.join(sets)}" if sets else ""
    return (
        f"load data local infile 'dblens' into table {where_is(place)} character set utf8mb4 "
        f"fields terminated by '\\t' escaped by '\\\\' lines terminated by '\\n' ({', '.join(names)}){tail}"
    )


def load(
    loader: Loader,
    place: Place,
    fields: Sequence[Field],
    fmt: Format,
    blocks: Iterable[Block],
    chunk: Chunk,
    *,
    fast: bool,
) -> int:
    """Load blocks in one transaction with their ledger line; return the rows. Raises Conflict for an outdated epoch."""
    if fmt not in ("mytext", "rows"):
        raise Unsupported(f"loading {fmt}", "MySQL loads mytext and rows")
    ledger = where_is(ddl.control(chunk.run, "chunk"))
    key = (chunk.run, chunk.table[0], chunk.table[1], chunk.number)
    match = "run = %s and namespace = %s and name = %s and number = %s"
    if fast:
        # TRUNCATE commits by itself: the ledger line goes first, so that no line ever stands for rows that are not there.
        check_epoch(loader, chunk.run, chunk.epoch)
        loader.run(f"delete from {ledger} where {match}", key)
        loader.run(f"truncate table {where_is(place)}")
    else:
        done = loader.rows(f"select row_count from {ledger} where {match}", key)
        if done:
            return int(done[0][0])
    source = iter(blocks)
    loader.run("start transaction")
    try:
        try:
            rows = _infile(loader, place, fields, fmt, source)
        except _Refused as refused:
            rows = _insert(loader, place, fields, fmt, refused.replay(source))
        loader.run(
            f"insert into {ledger} (run, namespace, name, number, key_range, row_count, epoch) values (%s, %s, %s, %s, %s, %s, %s)",
            (*key, msgspec.json.encode(chunk.keys).decode(), rows, chunk.epoch),
        )
        check_epoch(loader, chunk.run, chunk.epoch)
        loader.run("commit")
    except BaseException:
        rollback(loader)
        raise
    return rows


def rollback(link: Link) -> None:
    """Undo the open transaction; a connection that cannot is closed, which makes the server do it."""
    try:
        link.run("rollback")
    except DBLensError:
        link.close()


def check_epoch(link: Link, run: str, epoch: int) -> None:
    """Refuse a writer that was taken over. Inside a transaction the shared lock holds the epoch until the commit."""
    rows = link.rows(
        f"select epoch, holder from {where_is(ddl.control(run, 'run'))} where id = %s lock in share mode", (run,)
    )
    if not rows:
        raise Conflict(
            f"the run {run} is not known to the target any more", hint="it was closed by someone else; plan again"
        )
    if int(rows[0][0]) != epoch:
        raise Conflict(
            f"the run {run} was taken over by {rows[0][1]} (epoch {rows[0][0]}, ours is {epoch})",
            hint="this process must stop writing; the other one goes on",
        )


# --------------------------------------------------------------------------------------------------------- LOAD DATA LOCAL


class _Refused(Exception):  # noqa: N818 - a signal between two functions, never shown
    """The server refuses LOAD DATA LOCAL; blocks taken from the source meanwhile are given back."""

    def __init__(self, taken: list[Block]) -> None:
        super().__init__("LOAD DATA LOCAL refused")
        self.taken = taken

    def replay(self, rest: Iterator[Block]) -> Iterator[Block]:
        yield from self.taken
        yield from rest


def _infile(loader: Loader, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterator[Block]) -> int:
    counted = 0
    failure: list[BaseException] = []
    encode = rowtext.encoder([_as_target(f) for f in fields]) if fmt == "rows" else None
    ignorable = [f for f in fields if isinstance(t := _column(f).type, Enum) and "" not in t.values]
    if ignorable:
        loader.run("set @dblens_empty = 0, session max_error_count = 65535")

    def stream() -> Iterator[bytes]:
        nonlocal counted
        try:
            for block in blocks:
                data = encode(block.data) if encode is not None else block.data
                counted += block.rows if block.rows is not None else data.count(b"\n")
                if data:
                    yield data
        except BaseException as error:
            failure.append(error)
            raise

    try:
        rows, warnings = loader.load(statement(place, fields), stream())
    except DBLensError as error:
        if failure:
            raise failure[0] from None
        cause = error.__cause__
        if counted == 0 and cause is not None and cause.args and cause.args[0] in REFUSED:
            raise _Refused([]) from None
        raise
    if warnings:
        _refuse_warnings(loader, place, ignorable, warnings)
    if rows != counted:
        raise QueryFailed(
            f"{counted} rows were sent to {place[0]}.{place[1]}, the server stored {rows}",
            hint="rows with equal keys were dropped; check the target's unique keys and collations",
        )
    return rows


def _refuse_warnings(loader: Loader, place: Place, ignorable: Sequence[Field], warnings: int) -> None:
    shown = loader.rows("show warnings")
    if ignorable:
        names = [f"'{_column(f).name}'" for f in ignorable]
        empty = int(loader.one("select @dblens_empty")[0])
        # 1287: MySQL's remark that variables set in expressions are deprecated, which says nothing about the data.
        remarks = [w for w in shown if int(w[1]) == 1287]
        odd = [w for w in shown if w not in remarks and (int(w[1]) != 1265 or not any(n in str(w[2]) for n in names))]
        if not odd and min(empty + len(remarks), 65535) == warnings:
            return
        shown = odd or shown
    level, number, message = shown[0] if shown else ("Warning", 0, "unknown warning")
    raise QueryFailed(
        f"{place[0]}.{place[1]} cannot hold the data exactly: {message} ({level} {number}; {warnings} in all)",
        hint="map the column to a wider type, or accept the loss in the plan; nothing was stored",
    )


def _as_target(field: Field) -> Field:
    """Return a field as `rows` writes it: a binary column of form native holds octets."""
    if field.form == Form.NATIVE and isinstance(_column(field).type, Binary):
        return msgspec.structs.replace(field, form=Form.BYTES)
    return field


# ------------------------------------------------------------------------------------------------------------------ INSERT


def _insert(loader: Link, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterator[Block]) -> int:
    """Load by multi-row INSERT: the same values through the same expressions, about four times slower."""
    encode = rowtext.encoder([_as_target(f) for f in fields])
    names = ", ".join(quote(_column(f).name) for f in fields)
    head = f"insert into {where_is(place)} ({names}) values "
    rows = size = 0
    values: list[str] = []

    def flush() -> None:
        nonlocal values, size
        if values:
            loader.run(head + ", ".join(values))
        values, size = [], 0

    writers = [_inserted(f) for f in fields]
    for block in blocks:
        data = encode(block.data) if fmt == "rows" else block.data
        for row in rowtext.decode(data):
            text = "(" + ", ".join(w(v) for w, v in zip(writers, row, strict=True)) + ")"
            values.append(text)
            rows += 1
            size += len(text)
            if size > INSERT_SIZE:
                flush()
    flush()
    return rows


def _inserted(field: Field) -> Callable[[bytes | None], str]:
    def write(value: bytes | None) -> str:
        if value is None:
            return "NULL"
        text = literal(value.decode("utf-8"))
        return _value(field, text) or text

    return write


# ------------------------------------------------------------------------------------------------------------------ repair


def repair(
    loader: Link,
    place: Place,
    fields: Sequence[Field],
    key: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    delete: Sequence[tuple[Any, ...]],
) -> int:
    """Delete rows by key, replace rows with the same key; one transaction; return how many rows were written or deleted."""
    by_name = {_column(f).name: f for f in fields}
    key_fields = [by_name[k] for k in key]
    positions = [[_column(f).name for f in fields].index(k) for k in key]
    table = where_is(place)
    changed = 0
    keys = [*delete, *(tuple(row[p] for p in positions) for row in rows)]
    encode = rowtext.encoder([_as_target(f) for f in key_fields])
    loader.run("start transaction")
    try:
        for values in rowtext.decode(encode(keys)):
            match = " and ".join(
                f"{quote(_column(f).name)} <=> {_inserted(f)(v)}" for f, v in zip(key_fields, values, strict=True)
            )
            changed += loader.run(f"delete from {table} where {match}")
        if rows:
            block = Block(data=list(rows), size=0, rows=len(rows))
            _insert(loader, place, fields, "rows", iter([block]))
        loader.run("commit")
    except BaseException:
        rollback(loader)
        raise
    return max(changed, len(rows))
