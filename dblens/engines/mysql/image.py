"""The verifier's short way between two servers of one flavour: rows hashed octet by octet as the server sends them as text.

Nothing is rendered on either side, and the source's rows are hashed while the copier has them in hand. A FLOAT has no image: the
server sends fewer digits of it than it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from dblens.engines.base import Block, Field
from dblens.engines.mysql import export, sql
from dblens.engines.mysql.driver import Raw
from dblens.engines.mysql.sql import quote
from dblens.events import Progress, Report
from dblens.schema.model import Table
from dblens.schema.types import Float
from dblens.values import speed
from dblens.values.digest import Accumulator, Fingerprint
from dblens.values.forms import Form

Stream = Callable[[str], Iterator[Sequence[Raw]]]
_EXACT = frozenset({Form.NATIVE, Form.JSON})
"""MySQL's JSON is sent in its normal form: equal octets are equal documents."""


def forms(fields: Sequence[Field], flavour: str) -> tuple[str, ...] | None:
    """Return the flavour and the types of fields that are stored columns as they are; else None."""
    for field in fields:
        if field.form not in _EXACT or field.repairs or field.expression is not None or field.is_constant:
            return None
        if isinstance(field.column.type, Float) and field.column.type.bits == 32:
            return None
    return (flavour, *(f.column.native.lower() for f in fields)) if fields else None


def statement(table: Table, fields: Sequence[Field], where: str | None) -> str:
    """Return the statement that reads a table's images."""
    columns = ", ".join(quote(f.column.name) for f in fields)
    return f"select {columns} from {sql.where_is((table.namespace, table.name))}{sql.filters(where)}"


def _watched(rows: Iterator[Sequence[Raw]], width: int, sums: Accumulator) -> Generator[Sequence[Raw], None, None]:
    kinds = b"r" * width
    try:
        for batch in rows:
            speed.digest_rows(batch, kinds, sums)
            yield batch
    finally:
        export.close(rows)


def blocks(
    stream: Stream, table: Table, fields: Sequence[Field], where: str | None, sums: Accumulator
) -> Generator[Block, None, None] | None:
    """Stream a table for LOAD DATA and add its rows to `sums`; None where the copier would ask for anything else."""
    asked = statement(table, fields, where)
    columns = export.unrendered(fields, "mytext")
    if columns is None or asked != export.unrendered_statement(table, columns, where):
        return None
    kinds = "".join(kind for _, kind in columns).encode()
    return export.encoded(_watched(stream(asked), len(fields), sums), kinds, "mytext")


def fingerprint(
    stream: Stream, table: Table, fields: Sequence[Field], where: str | None, report: Report
) -> Fingerprint:
    """Digest a table's rows by their images."""
    sums, done = Accumulator(), 0
    for batch in _watched(stream(statement(table, fields, where)), len(fields), sums):
        done += len(batch)
        report(Progress(task=f"digest {table.namespace}.{table.name}", done=done, total=table.rows_estimate))
    return sums.fingerprint()
