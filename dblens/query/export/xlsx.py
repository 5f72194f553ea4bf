"""Workbooks for Excel and its kin, row by row on disk: typed cells where Excel holds them, texts where it would round.

No cell is a formula, a link or rich text. Beyond 1,048,576 rows the table goes on in another sheet, each with the heading.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tempfile
from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from typing import Any, Final

import msgspec

from dblens.engines import arrow
from dblens.engines.asking import Out
from dblens.errors import InvalidInput, Unsupported
from dblens.query.export import cells
from dblens.query.export.model import Losses, Options, Sidecar
from dblens.query.export.sink import Sink
from dblens.values.forms import CODEC_VERSION, Form

ROWS: Final = 1_048_576
COLUMNS: Final = 16_384
CHARACTERS: Final = 32_767
"""UTF-16 units in a cell."""
HIDDEN: Final = "dblens"
_PIECE: Final = 30_000
_FIRST_DAY: Final = dt.date(1900, 3, 1)
"""Excel counts a 29 February 1900, so days before are told as text."""
_CUT: Final = f"cut after {CHARACTERS} characters"
_SHOWN: Final = "characters that a workbook cannot hold are shown as escapes"
_RICH: Final = "begins with ' because it would be taken for the workbook's own markup"
_STRANGE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]|_x[0-9A-Fa-f]{4}_")
"""What XML cannot hold or a workbook writes in another way; its readers do not agree on it."""
_LINE_END: Final = "\r\n"


class Xlsx:
    """Cells in sheets. NULL is no cell."""

    def __init__(self, schema: Any, sink: Sink, options: Options) -> None:
        self.columns, self.losses, self.keys = arrow.outs(schema), Losses(), ()
        if len(self.columns) > COLUMNS:
            raise InvalidInput(f"{len(self.columns)} columns: a workbook holds {COLUMNS}", hint="choose csv or parquet")
        assert options.style is not None
        self._style, self._sink, self._rows = options.style, sink, 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end
        self._book = _library().Workbook(self._file, _OPTIONS)
        self._heading = self._book.add_format({"bold": True})
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._moment = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
        self._next()

    def _next(self) -> None:
        """Begin another sheet."""
        self._sheet = self._book.add_worksheet(f"Sheet{len(self._book.worksheets()) + 1}")
        self._line = 1
        for number, column in enumerate(self.columns):
            name = self._heading_of(column.name)
            self._sheet.write_string(0, number, name[: CHARACTERS // 2], self._heading)
        self._sheet.freeze_panes(1, 0)

    def _heading_of(self, name: str) -> str:
        pa = arrow.library()
        strange = _STRANGE.search(name) is not None
        shown = _STRANGE.sub(_escape, name) if strange else name
        looks = pa.compute.match_substring_regex(pa.array([shown]), cells.FORMULA)[0].as_py()
        return f"'{shown}" if (looks and self._style == "safe") or _is_rich(shown) else shown

    def batch(self, batch: Any) -> None:
        """Write a batch's rows."""
        if not batch.num_rows:
            return
        odds = cells.odds_by_column(batch)
        sides: list[list[Any]] = []
        for number, column in enumerate(self.columns):
            values, odd = batch.column(number), odds.get(number, {})
            texts = cells.texts(column, values, odd, self._style, self.losses, self._rows)
            sides.append(self._cells(column, values, texts.to_pylist(), set(odd)))
        for row in zip(*sides, strict=True):
            if self._line == ROWS:
                self._next()
            for number, cell in enumerate(row):
                if cell is not None:
                    self._put(number, cell)
            self._line += 1
        self._rows += batch.num_rows

    def _put(self, number: int, cell: Any) -> None:
        sheet, line = self._sheet, self._line
        match cell:
            case str():
                sheet.write_string(line, number, cell)
            case bool():
                sheet.write_boolean(line, number, cell)
            case dt.datetime():
                sheet.write_datetime(line, number, cell, self._moment)
            case dt.date():
                sheet.write_datetime(line, number, cell, self._day)
            case _:
                sheet.write_number(line, number, cell)

    def _cells(self, column: Out, values: Any, texts: list[Any], odd: set[int]) -> list[Any]:
        """Return a column's cells: a number, a Boolean or a day where Excel holds it, else the text."""
        types, kind = arrow.library().types, values.type
        plain = values.to_pylist()
        native: Callable[[Any], Any] | None = None
        if types.is_boolean(kind):
            native = bool
        elif types.is_integer(kind):
            native = _whole
        elif types.is_floating(kind):
            native = _double
        elif types.is_decimal(kind):
            native = _number
        elif self._style == "safe" and types.is_date(kind):
            native = _date
        elif self._style == "safe" and types.is_timestamp(kind) and kind.tz is None:
            native = _timestamp
        if native is not None:
            held = [None if value is None else native(value) for value in plain]
            return [texts[row] if cell is None else cell for row, cell in enumerate(held)]
        short = column.form in cells.TYPED and column.form not in (Form.BYTES, Form.BITS, Form.DECIMAL, Form.BSON)
        if short and not odd:
            return texts
        return [None if text is None else self._text(column, text, row) for row, text in enumerate(texts)]

    def _text(self, column: Out, text: str, row: int) -> str:
        """Return a text as its cell holds it."""
        made, at = text, self._rows + row + 1
        strange = _STRANGE.search(text) is not None
        if self._style == "exact":
            if not text or strange or _is_rich(text):
                made = cells.mark(column.form, text).replace("_x", "\\u005fx")
        else:
            if strange and _STRANGE.search(text.replace(_LINE_END, "\n")):
                self.losses.add(column.name, _SHOWN, 1, at)
                made = _STRANGE.sub(_escape, text)
            if _is_rich(made):
                self.losses.add(column.name, _RICH, 1, at)
                made = f"'{made}"
        if len(made) <= CHARACTERS // 2 or len(made.encode("utf-16-le")) // 2 <= CHARACTERS:
            return made
        if self._style == "exact":
            raise InvalidInput(
                f"column {column.name!r}, row {at}: {len(made)} characters, a workbook's cell holds {CHARACTERS}",
                hint="choose csv, jsonl or parquet",
            )
        self.losses.add(column.name, _CUT, 1, at)
        return made.encode("utf-16-le")[: 2 * CHARACTERS].decode("utf-16-le", "ignore")

    def end(self) -> None:
        """Write the hidden sheet of an exact workbook, and pass the whole on."""
        if self._style == "exact":
            told = Sidecar(codec=CODEC_VERSION, format="xlsx", columns=self.columns, rows=self._rows)
            text = json.dumps(msgspec.to_builtins(told)).replace("_x", "\\u005fx")
            sheet = self._book.add_worksheet(HIDDEN)
            for line in range(0, len(text), _PIECE):
                sheet.write_string(line // _PIECE, 0, text[line : line + _PIECE])
            sheet.very_hidden()
        self._book.close()
        with self._file as file:
            file.seek(0)
            while part := file.read(1 << 20):
                self._sink.write(part)


_OPTIONS: Final = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
}


def _library() -> Any:
    try:
        return import_module("xlsxwriter")
    except ImportError:
        raise Unsupported("XLSX", "xlsxwriter is not installed", hint="pip install 'dblens[query]'") from None


def _is_rich(text: str) -> bool:
    """Return whether the library would take a text for markup and write it as it stands."""
    return text.startswith("<r>") and text.endswith("</r>")


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    return f"\\u005f{text[1:]}" if len(text) > 1 else f"\\u{ord(text):04x}"


# Numbers: those that Excel's 15 digits tell whole.


def _whole(value: int) -> int | None:
    return value if abs(value) < 10**15 else None


def _double(value: float) -> float | None:
    return value if value - value == 0 and float(f"{value:.16G}") == value and str(value) != "-0.0" else None


def _number(value: Decimal) -> float | None:
    if len(value.as_tuple().digits) > 15 or (value != 0 and not -300 < value.adjusted() < 300):
        return None
    return float(value)


def _date(value: dt.date) -> dt.date | None:
    return value if value >= _FIRST_DAY else None


def _timestamp(value: dt.datetime) -> dt.datetime | None:
    return value if value.date() >= _FIRST_DAY and value.microsecond % 1000 == 0 else None
