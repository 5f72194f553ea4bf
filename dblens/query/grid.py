"""An answer in other shapes: documents as a flat grid, and one line about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dblens.errors import InvalidInput
from dblens.query import stream
from dblens.values.forms import Form

if TYPE_CHECKING:
    from dblens.query.results import Result


def flat(result: Result, most: int) -> Any:
    """Return documents as a pyarrow.Table of text, a column for each path of keys (`a.b`), exact; see `dblens.values.flat`.

    Each field's metadata says what its cells are: `dblens.cells` is `text` or `json`. What does not fit in `most` columns is in the last
    one. Raises InvalidInput for an answer that is not of documents.
    """
    from dblens.values.flat import flat as made_flat

    if len(result.columns) != 1 or result.columns[0].form is not Form.DOCUMENT:
        raise InvalidInput("the result is not of documents", hint="its rows are flat already: arrow(), df(), rows()")
    columns, rows = made_flat([text for (text,) in result.rows()], most)
    pa = stream.library()
    cells = list(zip(*rows, strict=True)) or [()] * len(columns)
    return pa.Table.from_arrays(
        [pa.array(each, pa.string()) for each in cells],
        schema=pa.schema([pa.field(each.name, pa.string(), metadata={"dblens.cells": each.kind}) for each in columns]),
    )


def told(result: Result) -> str:
    """Return a line that says what came."""
    about = result.about
    if not about.columns:
        changed = "" if about.affected is None else f", {about.affected} rows affected"
        return f"Result({about.kind}{changed}, {about.seconds:.3f} s)"
    cut = f", cut by {about.truncated}" if about.truncated else ""
    return f"Result({about.rows} rows × {len(about.columns)} columns{cut}, {about.seconds:.3f} s)"
