"""JSON Lines: one object a row, UTF-8; a number only where a double holds it, so that no reader rounds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.query.export import cells
from dblens.query.export.model import Losses, Options
from dblens.query.export.sink import Octets, Sink
from dblens.values.forms import Form
from dblens.values.numbers import plain_number

_WHOLE: Final = 2**53
_JSON_NULL: Final = "null as a JSON value and NULL look the same"


class JsonLines:
    """Objects in lines."""

    def __init__(self, schema: Any, sink: Sink, options: Options) -> None:
        self.columns, self.losses = arrow.outs(schema), Losses()
        assert options.style is not None
        self._style = options.style
        self._out, self._rows = Octets(sink, options.compression), 0
        self.keys = arrow.distinct([column.name for column in self.columns])
        self._before = [
            ("{" if not n else ", ") + json.dumps(key, ensure_ascii=False) + ": " for n, key in enumerate(self.keys)
        ]

    def batch(self, batch: Any) -> None:
        """Write a batch's rows as lines."""
        if not batch.num_rows:
            return
        odds = cells.odds_by_column(batch)
        sides = []
        for number, column in enumerate(self.columns):
            before = self._before[number]
            found = self._column(column, batch.column(number), odds.get(number, {}))
            sides.append([before + text for text in found])
        self._rows += batch.num_rows
        lines = ["".join(parts) for parts in zip(*sides, strict=True)]
        self._out.write(("}\n".join(lines) + "}\n").encode())

    def _column(self, column: Out, values: Any, odds: dict[int, Odd]) -> list[str]:
        types, kind = arrow.library().types, values.type
        if types.is_boolean(kind):
            found = ["null" if v is None else "true" if v else "false" for v in values.to_pylist()]
        elif types.is_integer(kind):
            found = _each(values, lambda v: str(v) if -_WHOLE <= v <= _WHOLE else f'"{v}"')
        elif types.is_floating(kind):
            found = _each(values, _float)
        elif column.form is Form.DECIMAL:
            texts = cells.plain(column, values, self._style)
            found = _each(texts, _decimal)
        elif column.form in (Form.JSON, Form.DOCUMENT) and self._style == "safe":
            found = _each(values, lambda v: v if "\n" not in v and "\r" not in v else json.dumps(v))
            if not types.is_string(kind):
                found = _each(cells.plain(column, values, self._style), encode_basestring)
            nulls = [row for row, text in enumerate(found) if text == "null" and values[row].is_valid]
            if nulls:
                self.losses.add(column.name, _JSON_NULL, len(nulls), self._rows + nulls[0] + 1)
        elif column.form is Form.DYNAMIC and self._style == "safe":
            octets = arrow.library().compute.starts_with(values, "b:").fill_null(False)
            self.losses.mask(column.name, cells.CLASSES, octets, self._rows)
            found = _each(values, _dynamic)
        else:
            found = _each(cells.plain(column, values, self._style), encode_basestring)
        for row, odd in odds.items():
            found[row] = self._odd(column, odd, self._rows + row + 1)
        return found

    def _odd(self, column: Out, odd: Odd, row: int) -> str:
        if self._style == "exact":
            if odd.form is column.form and column.form in cells.TYPED and odd.text.isascii():
                return json.dumps(odd.text)
            return json.dumps({"$dblens": [odd.form.value, odd.text]})
        if odd.form is Form.DYNAMIC and odd.text[:2] in ("i:", "r:"):
            return _dynamic(odd.text)
        return json.dumps(cells.odd_text(column, odd, "safe", self.losses, row), ensure_ascii=False)

    def end(self) -> None:
        """Write what the compression holds back."""
        self._out.end()


def _each(values: Any, render: Callable[[Any], str]) -> list[str]:
    return ["null" if value is None else render(value) for value in values.to_pylist()]


def _float(value: float) -> str:
    if value - value == 0:  # finite
        return repr(value)
    return '"NaN"' if value != value else '"Infinity"' if value > 0 else '"-Infinity"'  # noqa: PLR0124


def _decimal(text: str) -> str:
    if len(text) <= 15 and text[-1] != "y" and text != "NaN":
        return text  # a double holds 15 digits
    if len(text) > 24 or not text[-1].isdigit() or plain_number(repr(float(text))) != text:
        return f'"{text}"'
    return text


def _dynamic(text: str) -> str:
    kind, value = text[0], text[2:]
    if kind == "i":
        return value if -_WHOLE <= int(value) <= _WHOLE else f'"{value}"'
    if kind == "r" and value[-1].isdigit():
        return repr(float(value))
    return encode_basestring(value)
