r"""Delimited text taken apart: cut between records, and records into cells, by RFC 4180.

A cell that begins with a quote ends at its closing quote, `""` within it is one quote; a quote elsewhere is a character. Lines end with
`\n`, `\r\n` or `\r`. This is the definition, and the verifier's way; the copier's is Arrow's parser, and the digests of both must agree.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

from dblens.errors import InvalidInput

MOST: Final = 64 << 20
"""Octets of one record."""


class Chunk(NamedTuple):
    """Whole records, and the line on which they begin."""

    octets: bytes
    line: int


class Record(NamedTuple):
    """A record's cells (None: an unquoted cell that is one of the null values), the line it begins on, and its text."""

    cells: list[str | None]
    line: int
    raw: str


@cache
def _quoted(delimiter: str) -> re.Pattern[bytes]:
    d = re.escape(delimiter.encode())
    return re.compile(rb"(?:\A|(?<=[\r\n])|(?<=" + d + rb'))"[^"]*(?:""[^"]*)*("|\Z)')


@cache
def _cell(delimiter: str) -> re.Pattern[str]:
    d = re.escape(delimiter)
    return re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"([^{d}\r\n]*)|([^{d}\r\n]*))({d}|\r\n|\n|\r|\Z)')


def chunks(blocks: Iterable[bytes], delimiter: str) -> Iterator[Chunk]:
    """Cut text into chunks of whole records. Raises InvalidInput for a quote that is never closed, naming its line."""
    held, line, wanted, returns = b"", 1, 0, False
    for number, block in enumerate(blocks):
        held = held + block if held else block
        if number == 0:
            returns = b"\n" not in block and b"\r" in block
        if len(held) < wanted:
            continue
        end = cut(held, delimiter, returns)
        if end:
            octets, held, wanted = held[:end], held[end:], 0
            yield Chunk(octets, line)
            line += _lines(octets)
            continue
        if len(held) > MOST:
            raise _too_long(held, delimiter, line)
        wanted = 2 * len(held)
    if held:
        if _open(held, delimiter) is not None:
            raise _too_long(held, delimiter, line)
        yield Chunk(held, line)


def _lines(octets: bytes) -> int:
    return octets.count(b"\n") + (octets.count(b"\r") - octets.count(b"\r\n") if b"\r" in octets else 0)


def _too_long(held: bytes, delimiter: str, line: int) -> InvalidInput:
    start = _open(held, delimiter)
    if start is None:
        return InvalidInput(f"line {line} is longer than {MOST >> 20} MiB", hint="is it a text file of records?")
    return InvalidInput(
        f"the quote opened on line {line + _lines(held[:start])} is never closed: {_shown(held[start:])!r}",
        hint="close it, or double a quote within a quoted cell",
    )


def _shown(octets: bytes) -> str:
    return octets[:60].decode("utf-8", "replace")


def _open(octets: bytes, delimiter: str) -> int | None:
    """Return where a quoted cell begins that does not end, None without one."""
    if b'"' not in octets:
        return None
    for found in _quoted(delimiter).finditer(octets):
        if not found[1]:
            return found.start()
    return None


def cut(octets: bytes, delimiter: str, returns: bool = False) -> int:
    """Return where the last record ends that is surely whole, 0 for none."""
    newline = b"\r" if returns else b"\n"
    at = octets.rfind(newline)
    if b'"' not in octets:
        return at + 1
    starts: list[int] = []
    ends: list[int] = []
    for found in _quoted(delimiter).finditer(octets):
        starts.append(found.start())
        ends.append(found.end() if found[1] else len(octets) + 1)
    while at >= 0:
        span = bisect_right(starts, at) - 1
        if span < 0 or at >= ends[span]:
            return at + 1
        at = octets.rfind(newline, 0, starts[span])
    return 0


def records(text: str, delimiter: str, nulls: frozenset[str], line: int, *, blank: bool = False) -> Iterator[Record]:
    """Yield a chunk's records. `blank`: a line with nothing in it is a record of one cell, else it is passed over."""
    if '"' not in text:
        yield from _plain(text, delimiter, nulls, line, blank)
        return
    match, at, end = _cell(delimiter).match, 0, len(text)
    while at < end:
        start, first = at, line
        cells: list[str | None] = []
        quoted = False
        while True:
            found = match(text, at)
            assert found is not None, "the pattern matches anything"
            inside, behind, bare, stop = found.groups()
            if inside is not None:
                quoted = True
                cell = (inside.replace('""', '"') if '"' in inside else inside) + behind
                cells.append(cell)
                if "\n" in inside or "\r" in inside:
                    line += inside.count("\n") + inside.count("\r") - inside.count("\r\n")
            else:
                cells.append(None if bare in nulls else bare)
            at = found.end()
            if stop != delimiter:
                break
        line += bool(stop)
        if len(cells) == 1 and not quoted and not blank and start + len(stop) == at:
            continue
        yield Record(cells, first, text[start : at - len(stop)])


_BREAK: Final = re.compile(r"\r\n|\n|\r")


def _plain(text: str, delimiter: str, nulls: frozenset[str], line: int, blank: bool) -> Iterator[Record]:
    lines = _BREAK.split(text) if "\r" in text else text.split("\n")
    if not lines[-1]:
        lines.pop()
    some = bool(nulls)
    for each in lines:
        if each or blank:
            cells: list[str | None] = each.split(delimiter)  # type: ignore[assignment]
            if some and not nulls.isdisjoint(cells):
                cells = [None if cell in nulls else cell for cell in cells]
            yield Record(cells, line, each)
        line += 1
