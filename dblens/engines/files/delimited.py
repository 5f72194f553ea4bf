"""CSV and TSV: cells of text, NULL where an unquoted cell is a null value. Arrow parses for the copier, `records` for the verifier."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Out
from dblens.engines.files import sidecar, sniff
from dblens.engines.files.model import Bad, Batch, Reading, distinct
from dblens.engines.files.octets import Opened, utf8
from dblens.engines.files.records import Chunk, Record, chunks, records
from dblens.errors import InvalidInput
from dblens.schema.types import Text
from dblens.values.forms import Form

_SNIFFED: Final = 256 << 10


class Delimited:
    """Cells in lines."""

    def __init__(self, opened: Opened, compression: str, reading: Reading, default: str | None) -> None:
        self._opened, self._compression, self._reading = opened, compression, reading
        self.bad: list[Bad] = []
        self.kinds: dict[str, int] = {}
        self._exact = sidecar.beside(opened.path, opened.sha256) if reading.header is not False else None
        self._nulls = frozenset(("",) if reading.null_values is None else reading.null_values)
        self._delimiter = self._chosen(default)
        self._skip = self._head()
        self._arrow: Any = None

    def _chosen(self, default: str | None) -> str:
        if self._exact is not None:
            return self._exact.separator
        given = self._reading.delimiter or default
        if given is not None:
            return given
        return sniff.delimiter(next(self._blocks(), b"")[:_SNIFFED].decode("utf-8", "replace"))

    def _blocks(self) -> Iterator[bytes]:
        return utf8(self._opened.blocks(self._compression), self._reading.encoding)

    def _head(self) -> int:
        """Learn the columns; return how many octets of the file the heading takes."""
        first = next(chunks(self._blocks(), self._delimiter), None)
        text = self._decoded(first) if first is not None else ""
        record = next(records(text, self._delimiter, frozenset(), 1, blank="\n" not in text.strip("\r\n")), None)
        if record is None:
            raise InvalidInput(
                f"{str(self._opened.path)!r} holds no record", hint="a file of empty lines has no columns"
            )
        named = self._exact is not None or (
            sniff.header(record.cells) if self._reading.header is None else self._reading.header
        )
        self.told = self._exact is not None
        if self._exact is not None:
            self.columns = self._exact.columns
            names = [column.name for column in self.columns]
            if [cell or "" for cell in record.cells] != [_octets(name) for name in names]:
                raise InvalidInput(
                    f"the first line of {str(self._opened.path)!r} is not what its sidecar says", hint="export it again"
                )
        else:
            names = [cell or "" for cell in record.cells]
            if not named:
                names = [f"column{n}" for n in range(1, len(names) + 1)]
            self.columns = tuple(Out(name=name, type=Text(), native="text", form=Form.TEXT) for name in names)
        distinct(names, "name each column once in the first line; --no-header: it is a row")
        if not named:
            return 0
        at = text.index(record.raw) if record.raw else 0
        end = at + len(record.raw)
        end += 2 if text[end : end + 2] == "\r\n" else 1
        return len(text[:end].encode())

    def _decoded(self, chunk: Chunk) -> str:
        try:
            return chunk.octets.decode()
        except UnicodeDecodeError as error:
            line = chunk.line + chunk.octets.count(b"\n", 0, error.start)
            wrong = chunk.octets[error.start : error.start + 4].hex(" ")
            raise InvalidInput(
                f"line {line} is not UTF-8: octets {wrong}",
                hint="--encoding latin-1, windows-1252 or utf-16 reads another one",
            ) from error

    def seen(self) -> tuple[int, int | None]:
        return self._opened.position, self._opened.size

    def batches(self, *, verifier: bool = False) -> Iterator[Batch]:
        self.bad = []
        first, begun = 0, False
        for chunk in chunks(self._blocks(), self._delimiter):
            if not begun:
                begun = True
                skipped = chunk.octets[: self._skip]
                lines = skipped.count(b"\n") or skipped.count(b"\r")
                chunk = Chunk(chunk.octets[self._skip :], chunk.line + lines)  # noqa: PLW2901 - the heading goes
            if not chunk.octets:
                continue
            text = self._decoded(chunk) if verifier or not chunk.octets.isascii() else None
            batch = None if verifier else self._fast(chunk, first)
            if batch is None:
                batch = self._exactly(chunk, first, self._decoded(chunk) if text is None else text)
            if self._exact is not None:
                batch = sidecar.unmarked(batch, self.columns)
            first += batch.rows
            yield batch

    def _fast(self, chunk: Chunk, first: int) -> Batch | None:
        """Return a chunk's rows as Arrow parses them, None when a record is not well-formed."""
        pa, csv = arrow.library(), import_module("pyarrow.csv")
        width = len(self.columns)
        if self._arrow is None:
            names = [str(n) for n in range(width)]
            self._arrow = (
                names,
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.utf8()), null_values=list(self._nulls), strings_can_be_null=True,
                    quoted_strings_can_be_null=False, check_utf8=False,
                ),
            )  # fmt: skip
        names, convert = self._arrow
        try:
            found = csv.read_csv(
                pa.BufferReader(chunk.octets),
                read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(chunk.octets) + 1),
                parse_options=csv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=b'"' in chunk.octets, ignore_empty_lines=width > 1
                ),
                convert_options=convert,
            )
        except pa.ArrowInvalid:
            return None
        arrays = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in found.columns]
        return Batch(first, found.num_rows, arrays, partial(self._place, chunk))

    def _records(self, chunk: Chunk, text: str) -> Iterator[Record]:
        return records(text, self._delimiter, self._nulls, chunk.line, blank=len(self.columns) == 1)

    def _exactly(self, chunk: Chunk, first: int, text: str) -> Batch:
        pa, width = arrow.library(), len(self.columns)
        rows: list[list[str | None]] = []
        for record in self._records(chunk, text):
            if len(record.cells) == width:
                rows.append(record.cells)
            else:
                reason = f"{len(record.cells)} fields, {width} columns"
                self.bad.append(Bad(line=record.line, raw=record.raw, reason=reason))
        columns = zip(*rows, strict=True) if rows else ([] for _ in range(width))
        return Batch(first, len(rows), [pa.array(c, pa.utf8()) for c in columns], partial(self._place, chunk))

    def _place(self, chunk: Chunk, row: int) -> tuple[int, str]:
        width, at = len(self.columns), 0
        for record in self._records(chunk, self._decoded(chunk)):
            if len(record.cells) == width:
                if at == row:
                    return record.line, record.raw
                at += 1
        return chunk.line, ""


def _octets(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
