"""Rows of a query on stdout as they come: JSON, CSV or a table; exact, whatever their type."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from dblens.cli import output


def values(batch: Any) -> Iterator[tuple[Any, ...]]:
    """Yield a batch's rows as JSON has words for them: numbers and booleans as such, any other value as its canonical text."""
    from dblens.engines import arrow

    width = len(arrow.outs(batch.schema))
    plain = [column.to_pylist() if _number(column.type) else None for column in batch.columns[:width]]
    for at, row in enumerate(arrow.canonical_rows(batch)):
        yield tuple(
            cell[at]
            if cell is not None and _exact(cell[at])
            else None
            if text is None
            else text.decode("utf-8", "replace")
            for cell, text in zip(plain, row, strict=True)
        )


def _number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _exact(value: Any) -> bool:
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


class Flat:
    """Answers of documents as a source of flat rows. Raises InvalidInput for an answer of anything else."""

    def __init__(self, results: Any) -> None:
        self.ran = results.ran
        self._tables = [each.flat() for each in results if each.columns]

    def numbered(self) -> Iterator[tuple[int, Any]]:
        """Yield each answer's batches with its number, as a stream does."""
        for number, table in enumerate(self._tables, 1):
            yield from ((number, batch) for batch in table.to_batches() or [_none(table.schema)])


def _none(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=schema)


def as_json(source: Any) -> None:
    """Write one document, `{"results": [{"columns": [...], "rows": [...]}, …]}`, as the rows come."""
    from dblens.engines import arrow

    number, first = 0, True
    output.write('{"results":[')
    for at, batch in source.numbered():
        if at != number:
            output.write("]}" if number else "")
            columns = [{"name": each.name, "type": each.native} for each in arrow.outs(batch.schema)]
            output.write(f'{"," if number else ""}{{"columns":{_json(columns)},"rows":[')
            number, first = at, True
        text = ",".join(_json(row) for row in values(batch))
        if text:
            output.write(text if first else f",{text}")
            first = False
    output.write("]}" if number else "")
    ran = source.ran
    statements = [] if ran is None else [_statement(each) for each in ran.statements]
    output.write(f'],"statements":{_json(statements)}}}\n')


def _statement(each: Any) -> dict[str, Any]:
    names = ("number", "kind", "rows", "affected", "truncated", "seconds", "notices")
    return {name: getattr(each, name) for name in names}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def as_csv(source: Any) -> None:
    """Write CSV (RFC 4180, line ends LF): NULL is nothing, an empty text `""`; a second answer follows an empty line."""
    from dblens.engines import arrow

    number = 0
    for at, batch in source.numbered():
        if at != number:
            output.write("\n" if number else "")
            output.write(_csv([[each.name for each in arrow.outs(batch.schema)]]))
            number = at
        output.write(_csv(values(batch)))


def _csv(rows: Any) -> str:
    return "".join(",".join(_cell(cell) for cell in row) + "\n" for row in rows)


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    if cell is True or cell is False:
        return "true" if cell else "false"
    text = str(cell)
    if text and not any(char in text for char in ',"\r\n') and text == text.strip():
        return text
    return '"' + text.replace('"', '""') + '"'


def as_table(source: Any, *, drawn: bool) -> None:
    """Show each answer as a table; tab-separated lines where nobody reads, unless it is to be drawn."""
    from dblens.engines import arrow

    number, columns, held = 0, list[str](), list[Sequence[Any]]()

    def show() -> None:
        if number:
            (_draw if drawn else output.table)(columns, held)

    for at, batch in source.numbered():
        if at != number:
            show()
            number, columns, held = at, [each.name for each in arrow.outs(batch.schema)], []
        held += [["NULL" if cell is None else cell for cell in row] for row in values(batch)]
    show()


def _draw(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(header_style="bold")
    for name in columns:
        made.add_column(Text(output.safe(name)), overflow="fold")
    for row in rows:
        made.add_row(*(Text(output.safe(cell)) for cell in row))
    held = io.StringIO()
    Console(file=held, width=200).print(made)
    output.write(held.getvalue())
