"""JSON Lines: one object a line. Numbers keep their own digits, and what is no text and no number is JSON as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.engines.files import sidecar
from dblens.engines.files.model import BOOLEAN, NESTED, NUMBER, STRING, Bad, Batch, Reading, distinct
from dblens.engines.files.octets import Opened, utf8
from dblens.engines.files.records import MOST
from dblens.errors import InvalidInput
from dblens.schema.types import Text
from dblens.values.forms import Form

_LINE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_MOST_COLUMNS: Final = 20_000
_Lines = list[tuple[int, str]]
_KINDS: Final = {ord("t"): BOOLEAN, ord("f"): BOOLEAN, ord("{"): NESTED, ord("["): NESTED, ord('"'): STRING}


class JsonLines:
    """Objects in lines. A field that an object does not have is NULL, as `null` is."""

    def __init__(self, opened: Opened, compression: str, reading: Reading) -> None:
        self._opened, self._compression, self._reading = opened, compression, reading
        self.bad: list[Bad] = []
        self._exact = sidecar.beside(opened.path, opened.sha256)
        self.told = self._exact is not None
        self.kinds: dict[str, int] = {}
        self._raw: frozenset[str] = frozenset()
        if self._exact is not None:
            self.columns = self._exact.columns
            self._keys = self._exact.keys or tuple(column.name for column in self.columns)
            distinct([column.name for column in self.columns], "give the columns names of their own in the query")
            return
        self._keys = tuple(self._look())
        if not self._keys:
            raise InvalidInput(f"{str(opened.path)!r} holds no object with a field", hint="one JSON object a line")
        distinct(self._keys, "every field needs a name")
        self.columns = tuple(Out(name=key, type=Text(), native="text", form=Form.TEXT) for key in self._keys)
        # Texts among objects keep their quotes, so that the column is JSON.
        self._raw = frozenset(key for key, kind in self.kinds.items() if kind & NESTED)

    def _look(self) -> dict[str, int]:
        """Return the kinds of each field's values by one reading."""
        kinds = self.kinds
        for lines in self._lines():
            for _, row in self._objects(lines):
                for key, value in row.items():
                    head = bytes(value)[:1]
                    kind = 0 if head == b"n" else _KINDS.get(head[0], NUMBER)
                    kinds[key] = kinds.get(key, 0) | kind
                if len(kinds) > _MOST_COLUMNS:
                    raise InvalidInput(f"more than {_MOST_COLUMNS} different fields", hint="load it as documents")
        return kinds

    def seen(self) -> tuple[int, int | None]:
        return self._opened.position, self._opened.size

    def _lines(self) -> Iterator[_Lines]:
        """Yield lines with their numbers, about a block at once. Raises InvalidInput for what is not UTF-8."""
        held, number = b"", 1
        for block in utf8(self._opened.blocks(self._compression), self._reading.encoding):
            held += block
            if len(held) > MOST and b"\n" not in held:
                raise InvalidInput(f"line {number} is longer than {MOST >> 20} MiB", hint="one JSON object a line")
            whole, newline, held = held.rpartition(b"\n")
            if newline:
                lines = whole.split(b"\n")
                yield self._decoded(lines, number)
                number += len(lines)
        if held:
            yield self._decoded([held], number)

    def _decoded(self, lines: list[bytes], first: int) -> _Lines:
        found = []
        for number, line in enumerate(lines, first):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                wrong = line[error.start : error.start + 4].hex(" ")
                raise InvalidInput(
                    f"line {number} is not UTF-8: octets {wrong}", hint="--encoding names another"
                ) from error
            if text.strip():
                found.append((number, text))
        return found

    def _objects(self, lines: _Lines) -> Iterator[tuple[int, dict[str, Any]]]:
        self._good: _Lines = []
        for number, text in lines:
            try:
                row = _LINE.decode(text)
            except msgspec.DecodeError as error:
                self.bad.append(Bad(line=number, raw=text, reason=f"no JSON object: {error}"))
                continue
            self._good.append((number, text))
            yield number, row

    def batches(self, *, verifier: bool = False) -> Iterator[Batch]:  # noqa: ARG002 - parsed in one way
        self.bad = []
        first, pa = 0, arrow.library()
        known = set(self._keys)
        for lines in self._lines():
            rows = []
            for number, row in self._objects(lines):
                if self.told and not row.keys() <= known:
                    raise InvalidInput(
                        f"line {number} has fields that the sidecar does not know", hint="export it again"
                    )
                rows.append(row)
            batch = Batch(first, len(rows), [], partial(_place, self._good))
            for n, key in enumerate(self._keys):
                raw = key in self._raw
                cells = [self._cell(row.get(key), raw, batch, at, n) for at, row in enumerate(rows)]
                batch.arrays.append(pa.array(cells, pa.utf8()))
            first += len(rows)
            yield batch

    def _cell(self, value: Any, raw: bool, batch: Batch, row: int, column: int) -> str | None:
        if value is None:
            return None
        octets = bytes(value)
        head = octets[:1]
        if head == b"n":
            return None
        if head == b'"' and not raw:
            return _TEXT.decode(octets)
        if self.told and head == b"{":
            form, text = msgspec.json.decode(octets, type=dict[str, tuple[str, str]])["$dblens"]
            return sidecar.put(batch, row, column, self.columns[column], Odd(text, Form(form)))
        return octets.decode()


def _place(lines: _Lines, row: int) -> tuple[int, str]:
    return lines[row]
