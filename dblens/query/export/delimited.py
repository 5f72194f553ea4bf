"""CSV and TSV, by RFC 4180: whole columns are quoted and joined by Arrow, no cell passes through Python."""

from __future__ import annotations

from typing import Any

from dblens.engines import arrow
from dblens.query.export import cells
from dblens.query.export.model import Losses, Options
from dblens.query.export.sink import Octets, Sink
from dblens.values.forms import Form

_QUOTED = '["\r\n\t,;|]|^$|^[ \u00a0\ufeff]|[ \u00a0]$|^\\x{feff}'
_BLANK = "NULL is an empty text: a line with nothing in it is skipped by many readers"


class Delimited:
    """Cells in lines. NULL is nothing, an empty text is quoted."""

    def __init__(self, schema: Any, sink: Sink, options: Options) -> None:
        self.columns, self.losses, self.keys = arrow.outs(schema), Losses(), ()
        assert options.style is not None
        self._style, self._separator = options.style, options.separator
        self._out, self._rows = Octets(sink, options.compression), 0
        pa = arrow.library()
        names = pa.array([column.name for column in self.columns], pa.utf8())
        if self._style == "safe":
            looks = pa.compute.match_substring_regex(names, cells.FORMULA)
            names = pa.compute.if_else(looks, pa.compute.binary_join_element_wise("'", names, ""), names)
        self._out.write((self._separator.join(_quoted(names).to_pylist()) + "\r\n").encode())

    def batch(self, batch: Any) -> None:
        """Write a batch's rows as lines."""
        pa = arrow.library()
        if not batch.num_rows:
            return
        odds = cells.odds_by_column(batch)
        columns = []
        for number, column in enumerate(self.columns):
            found = cells.texts(
                column, batch.column(number), odds.get(number, {}), self._style, self.losses, self._rows
            )
            # Numbers and moments hold nothing to quote and are never empty, unless an odd cell among them is.
            columns.append(found if column.form in _BARE and number not in odds else _quoted(found))
        if len(columns) == 1 and self._style == "safe":
            self.losses.mask(self.columns[0].name, _BLANK, columns[0].is_null(), self._rows)
            columns[0] = columns[0].fill_null('""')
        nothing = {"null_handling": "replace", "null_replacement": ""}
        lines = pa.compute.binary_join_element_wise(*columns, self._separator, **nothing)
        lines = pa.compute.binary_join_element_wise(lines, "", "\r\n")
        self._rows += batch.num_rows
        self._out.write(_joined(lines))

    def end(self) -> None:
        """Write what the compression holds back."""
        self._out.end()


_BARE = cells.TYPED - {Form.TIMETZ, Form.INTERVAL, Form.BYTES, Form.BITS, Form.BSON}


def _quoted(texts: Any) -> Any:
    compute = arrow.library().compute
    needs = compute.match_substring_regex(texts, _QUOTED).fill_null(False)
    if not needs.true_count:
        return texts
    doubled = compute.replace_substring(texts, '"', '""')
    return compute.if_else(
        needs, compute.binary_join_element_wise('"', compute.binary_join_element_wise(doubled, '"', ""), ""), texts
    )


def _joined(lines: Any) -> Any:
    """Return the texts of an array one behind the other: they lie so in memory."""
    pa = arrow.library()
    offsets = lines.buffers()[1]
    data = lines.buffers()[2]
    first, last = (
        pa.Array.from_buffers(pa.int32(), 1, [None, offsets], offset=at)[0].as_py()
        for at in (lines.offset, lines.offset + len(lines))
    )
    return data.slice(first, last - first)
