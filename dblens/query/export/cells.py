"""Columns as texts of a file: by whole columns where Arrow can, and what differs between the two styles."""

from __future__ import annotations

import json
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.query.export.model import Losses, Style
from dblens.values.forms import Form

MARK: Final = "'["
TYPED: Final = frozenset(
    {Form.INT, Form.DECIMAL, Form.FLOAT, Form.BYTES, Form.DATE, Form.TIME, Form.TIMETZ, Form.TIMESTAMP, Form.TIMESTAMPTZ}
    | {Form.INTERVAL, Form.UUID, Form.BITS, Form.BSON}
)  # fmt: skip
"""Forms whose texts are digits, signs and a few words: none of them is a formula that does anything."""
FORMULA: Final = (
    r"^(?:[\t\r\n]|[\x00-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}-\x{206f}\x{3000}\x{feff}]*"
    r"[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"
)
"""The wide signs too: spreadsheets of East Asia take them."""
GUARDED: Final = "begins with ' because a spreadsheet would take it for a formula"
NOT_TEXT: Final = "octets that are not UTF-8 are shown as escapes"
CLASSES: Final = "SQLite's storage class is not told"


def mark(form: Form, text: str) -> str:
    """Return a marked cell: ASCII only, so that every format and reader holds it."""
    return "'" + json.dumps([form.value, text])


def odds_by_column(batch: Any) -> dict[int, dict[int, Odd]]:
    """Return a batch's odd cells by column and row."""
    found: dict[int, dict[int, Odd]] = {}
    for row, cells in arrow.odds_of(batch).items():
        for number, odd in cells.items():
            found.setdefault(number, {})[row] = odd
    return found


def texts(column: Out, values: Any, odds: dict[int, Odd], style: Style, losses: Losses, base: int) -> Any:
    """Return a column as an Arrow array of texts, null for NULL; what they do not tell any more is counted in `losses`."""
    pa = arrow.library()
    found = plain(column, values, style)
    if column.form is Form.DYNAMIC and style == "safe":
        losses.mask(column.name, CLASSES, found.is_valid(), base)
        found = pa.compute.utf8_slice_codeunits(found, 2)
    if style == "exact" and column.form not in TYPED:
        begins = pa.compute.starts_with(found, MARK)
        if begins.true_count:
            found = pa.array(
                [mark(column.form, v) if v is not None and v.startswith(MARK) else v for v in found.to_pylist()],
                pa.utf8(),
            )
    if odds:
        cells = found.to_pylist()
        for row, odd in odds.items():
            cells[row] = odd_text(column, odd, style, losses, base + row + 1)
        found = pa.array(cells, pa.utf8())
    if style == "safe" and (column.form not in TYPED or odds):
        only = {row for row, odd in odds.items() if odd.form is not column.form} if column.form in TYPED else None
        found = guarded(column, found, losses, base, only)
    return found


def guarded(column: Out, found: Any, losses: Losses, base: int, only: set[int] | None) -> Any:
    """Return texts of which none is a formula; `only` names the rows to look at, in a column of numbers or moments."""
    pa = arrow.library()
    looks = pa.compute.match_substring_regex(found, FORMULA)
    if only is not None:  # -Infinity and the like stay what they are
        looks = pa.array([row in only and bool(v) for row, v in enumerate(looks.to_pylist())], pa.bool_())
    looks = looks.fill_null(False)
    if not looks.true_count:
        return found
    losses.mask(column.name, GUARDED, looks, base)
    return pa.compute.if_else(looks, pa.compute.binary_join_element_wise("'", found, ""), found)


def odd_text(column: Out, odd: Odd, style: Style, losses: Losses, row: int) -> str:
    """Return an odd cell as text: marked where it must come back and its column's type does not tell what it is."""
    octets = arrow.octets_of(odd)
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        if style == "exact":
            return mark(odd.form, odd.text)
        losses.add(column.name, NOT_TEXT, 1, row)
        text = octets.decode("utf-8", "backslashreplace")
    if odd.form is column.form and column.form in TYPED:
        return text
    if style == "exact":
        return mark(odd.form, odd.text)
    if odd.form is Form.DYNAMIC:
        losses.add(column.name, CLASSES, 1, row)
        return text[2:]
    return text


def plain(column: Out, values: Any, style: Style) -> Any:
    """Return a column's texts: Booleans as words, floats by their shortest digits, instants with `Z`, all else canonical."""
    pa = arrow.library()
    types, compute = pa.types, pa.compute
    kind = values.type
    if types.is_string(kind):
        return values
    if types.is_boolean(kind) or types.is_integer(kind):
        return values.cast(pa.utf8())
    if types.is_floating(kind):
        found = (values.cast(pa.float64()) if style == "exact" else values).cast(pa.utf8())
        strange = compute.invert(compute.is_finite(values)).fill_null(False)
        if strange.true_count:
            for arrows, ours in (("nan", "NaN"), ("-inf", "-Infinity"), ("inf", "Infinity")):
                found = compute.if_else(compute.equal(found, arrows), ours, found)
        return found
    found = pa.array(arrow.canonical_column(column, values), pa.binary()).cast(pa.utf8())
    if types.is_timestamp(kind) and kind.tz is not None:
        return compute.binary_join_element_wise(found, "Z", "")
    return found
