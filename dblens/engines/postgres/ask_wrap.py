"""Cells of a gigabyte: refused by the server, before they are sent.

libpq keeps a whole row in memory, whatever its size. So a query whose columns may hold anything runs within another one that adds up
their octets row by row (for texts and octets without reading what is stored aside) and fails at the row that is too large. Fenced by
OFFSET 0, so that nothing of it moves into the query itself; an order stays as it is. jsonb, arrays and what else has a binary shape are
measured by their text once they are stored in more than `_SMALL` octets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from dblens.engines.postgres.ask_gate import READING, Read, changes
from dblens.engines.postgres.ask_types import Column

ROW: Final = 4
"""A row may hold so many times what a cell may."""
_SMALL: Final = 2000
_SIMPLE: Final = frozenset({17, 25, 1042, 1043})
"""bytea, text, character, character varying: their octets are known without reading them."""
_MARK: Final = "dblens:cells:"
_TOLD = re.compile(re.escape(_MARK) + r"\{([\d,NUL]*)\}")
_HEAD: Final = "SELECT * FROM (SELECT * FROM (\n"


def wraps(text: Read, columns: Sequence[Column]) -> bool:
    """Say whether a statement can run within another, and has to."""
    if text.first not in READING or all(column.width is not None for column in columns):
        return False
    return not changes(text) and not any(t.text == "INTO" and t.kind == "word" for t in text.tokens)


def wrapped(statement: str, columns: Sequence[Column], cell: int) -> tuple[str, int]:
    """Return the statement within another, and at which character of it the statement begins."""
    sizes = [_size(f"c{n}", c) for n, c in enumerate(columns, 1) if c.width is None or c.width > cell]
    total = _sum([f"COALESCE({size}, 0)" for size in sizes])
    greatest = f"GREATEST({', '.join(sizes)})"
    fails = (
        f"CAST(CAST(pg_catalog.textcat('{_MARK}', CAST(ARRAY[{', '.join(sizes)}] AS pg_catalog.text)) "
        "AS pg_catalog.int4) AS pg_catalog.bool)"
    )
    names = ", ".join(f"c{n}" for n in range(1, len(columns) + 1))
    text = (
        f"{_HEAD}{statement}\n) d OFFSET 0) q({names}) WHERE CASE WHEN {total} OPERATOR(pg_catalog.>) {cell} THEN "
        f"CASE WHEN {greatest} OPERATOR(pg_catalog.>) {cell} OR {total} OPERATOR(pg_catalog.>) {cell * ROW} "
        f"THEN {fails} ELSE true END ELSE true END"
    )
    return text, len(_HEAD)


def _size(name: str, column: Column) -> str:
    """Return SQL for the octets of a cell's text."""
    if column.oid in _SIMPLE:
        # The text of octets is hexadecimal, two digits each; what is capped is what people get.
        return f"pg_catalog.octet_length({name})::pg_catalog.int8"
    return (
        f"CASE WHEN pg_catalog.pg_column_size({name}) OPERATOR(pg_catalog.>) {_SMALL} "
        f"THEN pg_catalog.octet_length(CAST({name} AS pg_catalog.text)) ELSE 0 END::pg_catalog.int8"
    )


def _sum(parts: Sequence[str]) -> str:
    """Return SQL for a sum, as a tree that is not deep."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_sum(parts[:half])} OPERATOR(pg_catalog.+) {_sum(parts[half:])})"


def too_large(message: str, columns: Sequence[Column], cell: int) -> tuple[str, int] | None:
    """Return the name and octets of the cell that an error of the wrapped statement tells of; an empty name is a whole row."""
    found = _TOLD.search(message)
    if found is None:
        return None
    guarded = [c for c in columns if c.width is None or c.width > cell]
    sizes = [int(part) if part.isdigit() else 0 for part in found[1].split(",")]
    for column, size in zip(guarded, sizes, strict=False):
        if size > cell:
            return column.out.name, size
    return "", sum(sizes)
