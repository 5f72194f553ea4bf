"""The verifier's short way between two PostgreSQL servers: rows hashed octet by octet as `COPY … BINARY` sends them.

Costs a third of rendering and hashing canonical texts in the server (1.1 instead of 3.5 µs a row of 12 columns and side), and no more
network than the copy. Written independently of `export`; a row's message has a length before each field, so two rows with the same
octets are the same row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from dblens.engines.base import ALL, Block, Field
from dblens.engines.postgres import scan
from dblens.engines.postgres.ddl import at, literal, quote
from dblens.engines.postgres.link import Link
from dblens.errors import DBLensError, EngineError
from dblens.events import Progress, Report, silent
from dblens.schema.model import Table
from dblens.values.digest import Accumulator, Fingerprint
from dblens.values.forms import Form
from dblens.values.packed import Packed
from dblens.values.speed import digest_lines

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"
LARGE = 64 << 20
"""Octets of a table from which a second reader pays."""


def forms(fields: Sequence[Field]) -> tuple[str, ...] | None:
    """Return the types of fields that are stored columns as they are, of built-in types only; else None."""
    if not fields:
        return None
    for field in fields:
        if field.form != Form.NATIVE or field.repairs or field.expression is not None or field.is_constant:
            return None
        if scan.base_type(field.column) not in scan.BUILT_IN:
            return None
    return tuple(scan.base_type(f.column) for f in fields)


def statement(table: Table, fields: Sequence[Field], where: str | None) -> str:
    """Return the statement that reads a table's images."""
    columns = ", ".join(quote(f.column.name) for f in fields)
    return f"COPY (SELECT {columns} FROM {scan.relation(table)}{scan.conditions(table, ALL, where)}) TO STDOUT (FORMAT binary)"


def messages(link: Link, sql: str, name: str) -> Generator[tuple[Packed, Packed], None, None]:
    """Stream a binary COPY as its rows' messages, without and with header and trailer. Raises EngineError for another stream."""
    last, begun = b"", False
    with contextlib.closing(link.copy_rows(sql, f"reading {name}")) as lists:
        for sent in lists:
            rows = sent
            if not begun:
                if not sent.data.startswith(_SIGNATURE) or len(sent[0]) < _HEADER:
                    raise EngineError(f"the server sent no binary COPY for {name}")
                rows, begun = sent.without(_HEADER), True
            last = bytes(rows[-1][:3])
            yield (rows[:-1] if last == _TRAILER else rows), sent
    if last != _TRAILER:
        raise EngineError(f"the reading of {name} ended early", hint="check server and network")


def blocks(
    link: Link, table: Table, fields: Sequence[Field], where: str | None, sums: Accumulator
) -> Generator[Block, None, None]:
    """Stream a table as blocks of binary COPY and add its rows to `sums`."""
    sql = statement(table, fields, where)
    with contextlib.closing(messages(link, sql, f"{table.namespace}.{table.name}")) as lists:
        for rows, sent in lists:
            yield Block(data=sent.data, size=len(sent.data), rows=digest_lines(rows, sums))


def fingerprint(link: Link, table: Table, fields: Sequence[Field], where: str | None, report: Report) -> Fingerprint:
    """Digest a table's rows by their images; a large table is read in two halves at the same time, at one instant."""
    pages = _pages(link, table) if where is None else 0
    if pages:
        with _two(link) as other:
            if other is not None:
                return _halves(link, other, table, fields, pages // 2, report)
    done = [0]
    return _read(link, table, fields, where, done, report).fingerprint()


def _read(
    link: Link,
    table: Table,
    fields: Sequence[Field],
    where: str | None,
    done: list[int],
    report: Report,
    place: int = 0,
) -> Accumulator:
    sums = Accumulator()
    for block in blocks(link, table, fields, where, sums):
        done[place] += block.rows or 0
        report(Progress(task=f"digest {table.namespace}.{table.name}", done=sum(done), total=table.rows_estimate))
    return sums


# ------------------------------------------------------------------------------------------------------------------- two readers


def _pages(link: Link, table: Table) -> int:
    """Return a table's pages where two readers pay their second connection, else 0. Before 14 half a table costs a whole scan."""
    if link.number < 140_000 or table.kind != "table" or table.partitioning is not None:
        return 0
    name = literal(at((table.namespace, table.name)))
    octets, block = link.one(f"SELECT pg_relation_size({name}::regclass), current_setting('block_size')::int")
    return int(octets) // int(block) if int(octets) >= LARGE else 0


@contextlib.contextmanager
def _two(link: Link) -> Generator[Link | None, None, None]:
    """Lend a second connection that sees what the first one sees; None where there is none to be had."""
    began = not link.in_transaction
    if began:
        link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", what="opening a snapshot")
    try:
        other = _joined(link)
        try:
            yield other
        finally:
            if other is not None:
                other.close()
    finally:
        if began and not link.db.closed:
            link.run("ROLLBACK", what="closing the snapshot")


def _joined(link: Link) -> Link | None:
    if link.one("SHOW transaction_isolation")[0] not in ("repeatable read", "serializable"):
        return None  # its next statement may see other rows: nothing to share
    if link.one("SELECT pg_is_in_recovery()")[0]:
        return None  # a standby cannot share
    name = str(link.one("SELECT pg_export_snapshot()", what="sharing a snapshot")[0])
    try:
        other = link.again()
    except EngineError:  # no room for one more connection: one reader does it too
        return None
    try:
        other.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", what="joining a snapshot")
        other.run(f"SET TRANSACTION SNAPSHOT {literal(name)}", what="joining a snapshot")
    except BaseException:
        other.close()
        raise
    return other


def _halves(link: Link, other: Link, table: Table, fields: Sequence[Field], middle: int, report: Report) -> Fingerprint:
    done = [0, 0]
    with ThreadPoolExecutor(1, thread_name_prefix="dblens-image") as pool:
        upper = pool.submit(_read, other, table, fields, f"ctid >= '({middle},0)'", done, silent, 1)
        try:
            sums = _read(link, table, fields, f"ctid < '({middle},0)'", done, report)
            sums.add_sums(upper.result().fingerprint().buckets)
        except BaseException:
            with contextlib.suppress(DBLensError):
                other.cancel()
            raise
    return sums.fingerprint()
