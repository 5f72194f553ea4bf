"""Audit rows as lines of CSV and of JSON: one row is one line, whatever names hold."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator

from dblens.store.audit import Row

_COLUMNS = (
    "number",
    "at",
    "phase",
    "actor",
    "action",
    "outcome",
    "connection_id",
    "target",
    "microseconds",
    "client",
    "address",
    "run_id",
    "org_id",
    "actor_id",
    "detail",
    "previous",
    "mac",
)
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # the wide ones too: spreadsheets of East Asia take them
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield each row as a JSON object on a line, ASCII only: no character of a name can end the line."""
    for row in rows:
        yield json.dumps({name: _plain(row, name) for name in _COLUMNS}).encode() + b"\n"


def csv_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield a heading and each row as CSV, UTF-8.

    A cell that a spreadsheet would take for a formula begins with `'`; control characters and those that break or turn lines are
    written out as escapes.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    for cells in _chain(_COLUMNS, rows):
        writer.writerow(cells)
        yield buffer.getvalue().encode("utf-8", "backslashreplace")
        buffer.seek(0)
        buffer.truncate()


def _chain(heading: Iterable[str], rows: Iterable[Row]) -> Iterator[Iterable[str]]:
    yield heading
    for row in rows:
        yield [_cell(row, name) for name in _COLUMNS]


def _plain(row: Row, name: str) -> object:
    value = getattr(row, name)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if name == "at" else value


def _cell(row: Row, name: str) -> str:
    value = _plain(row, name)
    text = "" if value is None else json.dumps(value, sort_keys=True) if name == "detail" else str(value)
    bare = text.lstrip()
    formula = text[:1] in ("\t", "\r", "\n") or bare.startswith(tuple(_FORMULA))
    return ("'" if formula else "") + "".join(map(_visible, text))


def _visible(char: str) -> str:
    if " " <= char < "\x7f":
        return char
    if char in _SHORT:
        return _SHORT[char]
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{ord(char):04x}"
    return char
