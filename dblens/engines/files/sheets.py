"""XLSX: what the cells of a workbook hold (of a formula its last result), as texts with their kinds. A workbook is read as a whole."""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import chain, islice
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Out
from dblens.engines.files import sidecar
from dblens.engines.files.model import BOOLEAN, DAY, MOMENT, NUMBER, STRING, Bad, Batch, Reading, distinct
from dblens.engines.files.octets import Opened
from dblens.engines.files.sniff import header
from dblens.errors import ArchiveCorrupt, InvalidInput, NotFound, Unsupported
from dblens.schema.types import Boolean, Text, Timestamp
from dblens.values.forms import Form

MOST: Final = 512 << 20
"""Octets of a workbook once unpacked."""
ROWS: Final = 4096
_HINT: Final = "save the sheet as CSV"


class Sheet:
    """One sheet; of a workbook that DBLens wrote exactly, all of them."""

    def __init__(self, opened: Opened, reading: Reading) -> None:
        self._opened, self._reading, self._done = opened, reading, 0
        self.bad: list[Bad] = []
        self.kinds: dict[str, int] = {}
        self._book = _book(opened)
        exact = self._told()
        self.told = exact is not None
        names = self._names(exact)
        self._sheets = [[*self._rows(name)] for name in names]
        self._total = sum(map(len, self._sheets))
        first = self._sheets[0][0] if self._sheets[0] else []
        if not first:
            raise InvalidInput(f"the sheet {names[0]!r} is empty", hint="name another with --sheet")
        self._width = max(len(row) for rows in self._sheets for row in rows)
        heading = [_text(cell)[0] for cell in first] + [None] * (self._width - len(first))
        typed = all(isinstance(cell, str) for cell in first)
        named = exact is not None or (typed and header(heading) if reading.header is None else reading.header)
        self._skip = int(named)
        if exact is not None:
            self.columns = exact.columns
            if self._width > len(self.columns) or len(first) != len(self.columns):
                raise InvalidInput("the first sheet is not what the workbook says of it", hint="export it again")
            self._width = len(self.columns)
        else:
            found = [cell or "" for cell in heading] if named else [f"column{n + 1}" for n in range(self._width)]
            self.columns = tuple(Out(name=name, type=Text(), native="text", form=Form.TEXT) for name in found)
        distinct([c.name for c in self.columns], "name each column once in the first row; --no-header: it is a row")
        if exact is None:
            self._look()

    def _told(self) -> sidecar.Sidecar | None:
        if sidecar.HIDDEN not in self._book.sheet_names or self._reading.sheet is not None:
            return None
        rows = self._rows(sidecar.HIDDEN)
        return sidecar.decoded("".join(str(row[0]) for row in rows if row), f"the sheet {sidecar.HIDDEN!r}")

    def _names(self, exact: Any) -> list[str]:
        there = [name for name in self._book.sheet_names if name != sidecar.HIDDEN or exact is None]
        wanted = self._reading.sheet
        if exact is not None:
            return there
        if wanted is None:
            return there[:1]
        if wanted not in there:
            raise NotFound(f"the workbook has no sheet {wanted!r}", hint=f"it has {', '.join(map(repr, there[:20]))}")
        return [wanted]

    def _rows(self, name: str) -> list[list[Any]]:
        try:
            found: list[list[Any]] = self._book.get_sheet_by_name(name).to_python(skip_empty_area=False)
        except Exception as error:
            raise _broken(self._opened, error) from error
        return found

    def _look(self) -> None:
        for rows in self._sheets:
            for row in islice(rows, self._skip, None):
                for column, cell in zip(self.columns, row, strict=False):
                    kind = _text(cell)[1]
                    if kind:
                        self.kinds[column.name] = self.kinds.get(column.name, 0) | kind

    def seen(self) -> tuple[int, int | None]:
        return self._done, self._total

    def batches(self, *, verifier: bool = False) -> Iterator[Batch]:  # noqa: ARG002 - calamine reads for both
        pa, first = arrow.library(), 0
        lines = chain.from_iterable(
            ((n + 1, row) for n, row in islice(enumerate(rows), self._skip, None)) for rows in self._sheets
        )
        while part := list(islice(lines, ROWS)):
            cells = [[*row, *[""] * (self._width - len(row))] for _, row in part]
            arrays = []
            for number, column in enumerate(self.columns):
                mixed = self.kinds.get(column.name) == DAY | MOMENT
                render = partial(_exact, column) if self.told else _moment if mixed else _plain
                arrays.append(pa.array([render(row[number]) for row in cells], pa.utf8()))
            batch = Batch(first, len(part), arrays, partial(_place, part))
            first += len(part)
            self._done = first
            yield sidecar.unmarked(batch, self.columns) if self.told else batch


def _place(part: list[tuple[int, list[Any]]], row: int) -> tuple[int, str]:
    line, cells = part[row]
    return line, "\t".join(_text(cell)[0] or "" for cell in cells)


def _text(cell: Any) -> tuple[str | None, int]:
    match cell:
        case "":
            return None, 0
        case str():
            return cell, STRING
        case bool():
            return ("true" if cell else "false"), BOOLEAN
        case int():
            return str(cell), NUMBER
        case float():
            return (str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)), NUMBER
        case dt.datetime():
            if not (cell.hour or cell.minute or cell.second or cell.microsecond):
                return cell.date().isoformat(), DAY
            return cell.isoformat(" "), MOMENT
        case dt.date():
            return cell.isoformat(), DAY
        case dt.time():
            return cell.isoformat(), STRING
        case dt.timedelta():
            seconds, micros = divmod(cell // dt.timedelta(microseconds=1), 1_000_000)
            return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{micros:06d}", STRING
    return str(cell), STRING


def _plain(cell: Any) -> str | None:
    return _text(cell)[0]


def _moment(cell: Any) -> str | None:
    text, kind = _text(cell)
    return f"{text} 00:00:00" if kind == DAY else text


def _exact(column: Out, cell: Any) -> str | None:
    """Return a cell as the exact style of CSV spells it."""
    if isinstance(cell, float) and not isinstance(column.type, Boolean):
        return repr(cell).removesuffix(".0") if str(cell) != "-0.0" else "-0.0"
    text, kind = _text(cell)
    if text is not None and kind in (DAY, MOMENT) and isinstance(column.type, Timestamp):
        text = text if kind == MOMENT else f"{text} 00:00:00"
        return f"{text}Z" if column.type.zone else text
    return text


def _book(opened: Opened) -> Any:
    """Open a workbook that is not too large once unpacked. Raises InvalidInput, ArchiveCorrupt, Unsupported."""
    try:
        with zipfile.ZipFile(opened.path) as parts:
            size = 0
            for part in parts.infolist():
                size += part.file_size
                if part.flag_bits & 1:
                    raise InvalidInput(f"{str(opened.path)!r} is encrypted", hint="save it without a password")
            if size > MOST:
                raise InvalidInput(
                    f"{str(opened.path)!r} is {size >> 20} MiB unpacked, {MOST >> 20} MiB are read at most", hint=_HINT
                )
            _measured(parts)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise _broken(opened, error) from error
    try:
        calamine = import_module("python_calamine")
    except ImportError:
        raise Unsupported("XLSX", "python-calamine is not installed", hint="pip install 'dblens[query]'") from None
    try:
        return calamine.CalamineWorkbook.from_path(str(opened.path))
    except Exception as error:
        raise _broken(opened, error) from error


def _measured(parts: zipfile.ZipFile) -> None:
    """Unpack every part once and count: what a directory says of sizes need not be so."""
    size = 0
    for part in parts.infolist():
        with parts.open(part) as file:
            while block := file.read(1 << 20):
                size += len(block)
                if size > MOST:
                    raise InvalidInput(f"the workbook is more than {MOST >> 20} MiB unpacked", hint=_HINT)


def _broken(opened: Opened, error: Exception) -> ArchiveCorrupt:
    return ArchiveCorrupt(f"{str(opened.path)!r} is no whole workbook: {error}", hint="save it again")
