"""Results as people see them: HTML for notebooks, plain text for terminals. Both are bounded, and say what they leave out.

A cell is text and nothing else: it is escaped, cannot turn the direction of its neighbours, and is cut visibly. Numbers, moments and
octets are shown by their canonical texts, so no digit is lost; NULL is not an empty text.
"""

from __future__ import annotations

import html as markup
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dblens.values.forms import Form

if TYPE_CHECKING:
    from dblens.engines.asking import Out
    from dblens.query.results import Result, Results

ROWS: Final = 100
COLUMNS: Final = 200
CHARS: Final = 500
"""Rows and columns of a result, and characters of a cell, that HTML shows."""
OCTETS: Final = 512 * 1024
"""Octets of HTML in all: a notebook keeps what it shows."""
LINES: Final = 20
WIDE: Final = 40
"""Rows, and characters of a cell, that plain text shows."""
_NUMBERS: Final = frozenset({Form.INT, Form.DECIMAL, Form.FLOAT})
_MARKS: Final = dict.fromkeys(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)))
"""Characters that turn the direction of what follows: shown by number."""

_STYLE: Final = """<style>
.dblens{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:var(--jp-ui-font-size1,13px);color:var(--jp-ui-font-color1,inherit);margin:2px 0 8px}
.dblens.dblens .grid{max-height:28em;overflow:auto;border:1px solid var(--jp-border-color2,rgba(128,128,128,.35));width:fit-content;max-width:100%}
.dblens.dblens table{border-collapse:separate;border-spacing:0;margin:0;font-size:inherit}
.dblens.dblens th,.dblens.dblens td{padding:3px 10px;text-align:left;vertical-align:top;border:0;border-bottom:1px solid var(--jp-border-color3,rgba(128,128,128,.2));border-right:1px solid var(--jp-border-color3,rgba(128,128,128,.2));background:none;max-width:36em}
.dblens.dblens thead th{position:sticky;top:0;z-index:1;background:var(--jp-layout-color2,Canvas);font-weight:600;white-space:nowrap}
.dblens.dblens th small{display:block;font-weight:400;color:var(--jp-ui-font-color2,GrayText)}
.dblens.dblens tbody th{font-weight:400;text-align:right;color:var(--jp-ui-font-color2,GrayText);user-select:none}
.dblens.dblens td{font-family:var(--jp-code-font-family,ui-monospace,monospace);white-space:pre-wrap;overflow-wrap:anywhere}
.dblens.dblens .n{text-align:right;white-space:nowrap}
.dblens i,.dblens .more{color:var(--jp-ui-font-color2,GrayText)}
.dblens p{margin:4px 0;color:var(--jp-ui-font-color2,GrayText)}
.dblens p.warn{color:var(--jp-warn-color0,#b45309)}
</style>"""


def html(what: Result | Results) -> str:
    """Return a result, or each of several, as HTML of at most about `OCTETS`."""
    results = _each(what)
    layers = getattr(what, "layers", ())
    kept = ", ".join(layer.name for layer in layers if layer.active)
    parts, room = [], OCTETS
    for number, result in enumerate(results, 1):
        head = f"<p>statement {number}</p>" if len(results) > 1 else ""
        made = _block(result, room)
        room = max(0, room - len(made))
        parts.append(head + made)
    if kept:
        parts.append(f"<p>kept from writing by: {markup.escape(kept)}</p>")
    return f'{_STYLE}<div class="dblens">{"".join(parts)}</div>'


def text(what: Result | Results) -> str:
    """Return a result, or each of several, as plain text: a table of its first rows, then what there is to say."""
    return "\n\n".join(_plain(result) for result in _each(what)) or "no statement"


def _each(what: Result | Results) -> Sequence[Result]:
    from dblens.query.results import Results

    return tuple(what) if isinstance(what, Results) else (what,)


# -------------------------------------------------------------------------------------------------------------------------- HTML


def _block(result: Result, room: int) -> str:
    if not result.columns:
        return _foot(result, 0, 0)
    columns = result.columns[:COLUMNS]
    head = "".join(
        f"<th{' class=n' if column.form in _NUMBERS else ''}><bdi>{_words(column.name)}</bdi><small>{markup.escape(column.native)}</small></th>"
        for column in columns
    )
    body, used, shown = [], len(head), 0
    for number, row in enumerate(_rows(result, ROWS), 1):
        line = f"<tr><th>{number}</th>{''.join(map(_cell, columns, row))}</tr>"
        used += len(line)
        if used > room and shown:
            break
        body.append(line)
        shown = number
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="grid" tabindex="0" role="region" aria-label="rows">{table}</div>{_foot(result, shown, len(columns))}'


def _cell(column: Out, octets: bytes | None) -> str:
    if octets is None:
        return "<td><i>NULL</i></td>"
    value, more = _value(column, octets, CHARS)
    inside = _words(value) if value else "<i>empty</i>"
    tail = f' <span class="more">{markup.escape(more)}</span>' if more else ""
    if column.form in _NUMBERS:
        return f'<td class="n">{inside}{tail}</td>'
    return f'<td><bdi dir="auto">{inside}</bdi>{tail}</td>'


def _words(value: str) -> str:
    """Return a text as HTML in which nothing is invisible: control characters and marks of direction are shown by number."""
    return markup.escape("".join(map(_visible, value)))


def _visible(char: str) -> str:
    if char in "\n\t":
        return char
    if char in _MARKS or not (char.isprintable() or char == " " or unicodedata.category(char) in ("Zs", "Cf")):
        return f"⟨U+{ord(char):04X}⟩"
    return char


def _foot(result: Result, shown: int, columns: int) -> str:
    told = [f"<p>{markup.escape(line)}</p>" for line in _said(result, shown, columns)]
    told += [f'<p class="warn">{_words(line)}</p>' for line in _warned(result)]
    return "".join(told)


# -------------------------------------------------------------------------------------------------------------------------- text


def _plain(result: Result) -> str:
    from rich.cells import cell_len

    lines = list[str]()
    shown = 0
    if result.columns:
        columns = result.columns[:LINES]
        found = _rows(result, LINES)
        grid = [[_line(column.name) for column in columns]]
        grid += [[_short(column, cell) for column, cell in zip(columns, row, strict=False)] for row in found]
        shown = len(grid) - 1
        widths = [max(cell_len(texts[at]) for texts in grid) for at in range(len(columns))]
        for number, texts in enumerate(grid):
            cells = []
            for column, cell, width in zip(columns, texts, widths, strict=True):
                space = " " * (width - cell_len(cell))
                cells.append(space + cell if column.form in _NUMBERS else cell + space)
            lines.append("  ".join(cells).rstrip())
            if not number:
                lines.append("  ".join("─" * width for width in widths))
    lines += _said(result, shown, min(len(result.columns), LINES))
    lines += [_line(line) for line in _warned(result)]
    return "\n".join(lines)


def _short(column: Out, octets: bytes | None) -> str:
    if octets is None:
        return "NULL"
    value, more = _value(column, octets, WIDE)
    return _line(value) + (f" {more}" if more else "")


def _line(value: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in value)


# ------------------------------------------------------------------------------------------------------------------------- parts


def _rows(result: Result, most: int) -> Iterator[tuple[bytes | None, ...]]:
    from dblens.engines import arrow

    return islice(arrow.canonical_rows(result.arrow(raw=True).slice(0, most)), most)


def _value(column: Out, octets: bytes, most: int) -> tuple[str, str]:
    """Return a value's characters, and what is said of those that are left out."""
    if column.form in (Form.BYTES, Form.GEOMETRY, Form.BSON):
        whole = octets.decode("ascii")
        size = len(whole.rpartition(":")[2]) // 2
        value = ("0x" if column.form is not Form.GEOMETRY else "") + whole
        return (value, "") if len(value) <= most else (f"{value[:most]}…", f"({size:,} octets)")
    if column.form is Form.INT and column.native.lower().startswith("bool"):
        return ("true" if octets == b"1" else "false"), ""
    # A cell may be large: no more of it is decoded than is shown, but its length is counted whole.
    if len(octets) <= most:
        return octets.decode("utf-8", "backslashreplace"), ""
    value = octets.decode("utf-8", "backslashreplace")
    return (value, "") if len(value) <= most else (f"{value[:most]}…", f"({len(value):,} characters)")


def _said(result: Result, shown: int, columns: int) -> Iterator[str]:
    about = result.about
    if not result.columns:
        done = about.kind if about.affected is None else f"{about.affected:,} row{_s(about.affected)} affected"
        yield f"{done}, {about.seconds:.3f} s"
        return
    count = f"{about.rows:,} row{_s(about.rows)} × {len(result.columns):,} column{_s(len(result.columns))}"
    if shown < about.rows:
        count += f", the first {shown:,} shown"
    if columns < len(result.columns):
        count += f", of the columns the first {columns:,}"
    yield f"{count}, {about.seconds:.3f} s"


def _warned(result: Result) -> Iterator[str]:
    about = result.about
    if about.truncated == "rows":
        yield f"There are more rows than these {about.rows:,}: ask with a higher limit."
    elif about.truncated:
        yield "There are more rows: these are all that fit into the bound of octets."
    yield from about.notices
    for warning in about.warnings:
        yield f"warning: {warning.text}"


def _s(count: int | Any) -> str:
    return "" if count == 1 else "s"
