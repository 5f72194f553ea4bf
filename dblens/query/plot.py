"""A picture of rows, one line away: `ws.query(…).plot("bar")`. Plotly draws it; it is loaded when it is used."""

from __future__ import annotations

import decimal
from typing import Any, Final

from dblens.errors import InvalidInput, Unsupported

KINDS: Final = ("line", "bar", "area", "scatter", "pie", "histogram", "box")


def figure(
    frame: Any, kind: str = "line", *, x: str | None = None, y: str | list[str] | None = None, **more: Any
) -> Any:
    """Return a figure of a DataFrame: `x` the first column, `y` every column of numbers, unless they are named.

    `more` goes to Plotly Express (`color=`, `title=`, …). A picture is no proof: decimals are drawn as doubles.
    Raises Unsupported without Plotly, InvalidInput for a kind, a column or a frame that cannot be drawn.
    """
    if kind not in KINDS:
        raise InvalidInput(f"no kind of picture {kind!r}", hint=f"one of {', '.join(KINDS)}")
    try:
        import plotly.express as px
    except ImportError:
        raise Unsupported("plot()", "Plotly is not installed", hint="pip install plotly") from None
    names = list(frame.columns)
    wanted = [x] if x is not None else []
    wanted += [y] if isinstance(y, str) else list(y or ())
    for name in wanted:
        if name not in names:
            raise InvalidInput(f"the result has no column {name!r}", hint=f"it has {', '.join(map(str, names))}")
    if not names:
        raise InvalidInput("the statement returned no rows to draw", hint="draw a SELECT")
    drawn = frame.copy()
    for name in names:
        if drawn[name].map(lambda value: isinstance(value, decimal.Decimal)).any():
            drawn[name] = drawn[name].astype("float64")
    numbers = [name for name in names if drawn[name].dtype.kind in "iuf"]
    if kind in ("histogram", "box"):
        given = {"x" if kind == "histogram" else "y": x or y or (numbers or names)[0]}
    else:
        across: str | None = x or next((name for name in names if name not in numbers), names[0])
        upward = y or [name for name in numbers if name != across]
        if not upward and x is None and numbers:
            across, upward = None, numbers  # numbers alone are drawn in their order
        if not upward:
            raise InvalidInput(f"no column of numbers to draw beside {across!r}", hint="name it: y='…'")
        if kind == "pie":
            given = {"names": across, "values": upward if isinstance(upward, str) else upward[0]}
        else:
            given = {"x": across, "y": upward}
    return getattr(px, kind)(drawn, **given, **more)
