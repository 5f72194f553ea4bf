"""Sections of a report: titled tables and listings, so that plans, verdicts and the demo look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dblens.cli import output


def section(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str | None = None) -> None:
    """Show a titled table; without rows only the line `empty`, or nothing."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    if cells:
        output.table(columns, cells, title=title)
    elif empty is not None:
        output.lines([(f"{title}: {empty}", "bold")])


def listing(title: str, texts: Iterable[str]) -> None:
    """Show a bold title and one line a text below it."""
    output.lines([(title, "bold"), *((f"  {text}", "") for text in texts)])


def document(value: object) -> None:
    """Write a value as JSON."""
    output.json(value)


def result(value: object, text: str, *, as_json: bool) -> None:
    """Write JSON for programs, or a sentence for people."""
    if as_json:
        output.json(msgspec.to_builtins(value))
    else:
        output.lines([(line, "") for line in text.split("\n")])
