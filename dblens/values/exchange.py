"""Batches of exchange values: what drivers and binary COPY hand over, made Python values, and those made what a loader stores.

The copier's half: nothing here is used to verify. The functions define the result; `_exchange.h` does the same faster and calls the
column's own function for each value out of the ordinary.

| kind of `shape_rows` | takes | gives |
|---|---|---|
| - | anything | the same |
| f | float, neither NaN nor -0 | the same |
| d | str: a plain decimal | without zeros that end a fraction |
| w | str: a time or timestamp | without zeros that end a fraction |
| z | the same in UTC | and `Z` behind it |
| I | bytes: digits, at most 18 characters | int |
| F | bytes: a number | float |
| R | bytes: UTF-8 | str |

Every kind keeps None; any other value goes to the column's function. Kinds of `read_messages` are r (str), b (bytes), v (0 or 1),
i (integer of 2, 4 or 8 octets) and f (double), of rows as `values.binary` describes them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from dblens.values import speed

Rows = Sequence[Sequence[Any]]
Singles: TypeAlias = "tuple[Callable[[Any], Any], ...]"
Row = tuple[Any, ...]
_ASK = object()


def _shortened(text: str) -> Any:
    if "." not in text:
        return text
    return text.rstrip("0").removesuffix(".") if text[-1] in "0123456789" else _ASK


def _real(value: object) -> Any:
    if not isinstance(value, float) or math.isnan(value) or (value == 0 and math.copysign(1, value) < 0):
        return _ASK
    return value


def _whole(value: object) -> Any:
    if not isinstance(value, bytes) or not 0 < len(value) <= 18:
        return _ASK
    return int(value) if value.removeprefix(b"-").isdigit() else _ASK


_SHAPES: dict[int, Callable[[Any], Any]] = {
    ord("-"): lambda v: v,
    ord("f"): _real,
    ord("d"): lambda v: _shortened(v) if isinstance(v, str) and v[:2] != "-0" else _ASK,
    ord("w"): lambda v: _shortened(v) if isinstance(v, str) else _ASK,
    ord("z"): lambda v: f"{_shortened(v)}Z" if isinstance(v, str) and _shortened(v) is not _ASK else _ASK,
    ord("I"): _whole,
    ord("F"): lambda v: float(v) if isinstance(v, bytes) else _ASK,
    ord("R"): lambda v: v.decode() if isinstance(v, bytes) else _ASK,
}


def _shape_rows(rows: Rows, kinds: bytes, singles: Singles) -> list[Row]:
    shapes = [_SHAPES[k] for k in kinds]
    out = []
    for row in rows:
        if len(row) != len(kinds):
            raise ValueError(f"a row of {len(row)} values for {len(kinds)} columns")
        made = [None if v is None else shape(v) for shape, v in zip(shapes, row, strict=True)]
        out.append(tuple([s(v) if m is _ASK else m for s, m, v in zip(singles, made, row, strict=True)]))
    return out


def _sized(raw: bytes, *sizes: int) -> bytes:
    if len(raw) not in sizes:
        raise ValueError(f"a field of {len(raw)} octets")
    return raw


_FIELDS: dict[int, Callable[[bytes], Any]] = {
    ord("r"): bytes.decode,
    ord("b"): bytes,
    ord("v"): lambda raw: int(_sized(raw, 1) != b"\0"),
    ord("i"): lambda raw: int.from_bytes(_sized(raw, 2, 4, 8), "big", signed=True),
    ord("f"): lambda raw: struct.unpack(">d", _sized(raw, 8))[0],
}


def _read_messages(messages: speed.Lines, kinds: bytes) -> list[Row]:
    return [_read(bytes(m), [_FIELDS[k] for k in kinds]) for m in messages]


def _read(data: bytes, steps: Sequence[Callable[[bytes], Any]]) -> Row:
    if len(data) < 2 or int.from_bytes(data[:2], "big", signed=True) != len(steps):
        raise ValueError("a row of another width")
    at, row = 2, list[Any]()
    for step in steps:
        size = int.from_bytes(data[at : at + 4], "big", signed=True) if len(data) >= at + 4 else -2
        at += 4
        if size < -1 or at + size > len(data):
            raise ValueError("a row that ends early")
        row.append(None if size < 0 else step(data[at : at + size]))
        at += max(size, 0)
    if at != len(data):
        raise ValueError("a row with more behind its last field")
    return tuple(row)


def _known(kinds: bytes, table: dict[int, Callable[[Any], Any]]) -> None:
    for kind in kinds:
        if kind not in table:
            raise ValueError(f"unknown kind of column: {kind}")


def shape_rows(rows: Rows, kinds: bytes, singles: Singles) -> list[Row]:
    """Return rows as their kinds make them; `singles`, one a column, make the rest. Raises ValueError, and what `singles` raise."""
    _known(kinds, _SHAPES)
    if len(singles) != len(kinds):
        raise ValueError(f"{len(singles)} functions for {len(kinds)} columns")
    if speed.module is None:
        return _shape_rows(rows, kinds, singles)
    return cast("list[Row]", speed.module.shape_rows(rows, kinds, singles))


def read_messages(messages: speed.Lines, kinds: bytes) -> list[Row]:
    """Return rows of binary COPY as exchange values. Raises ValueError for a message of another width or shape."""
    _known(kinds, _FIELDS)
    if speed.module is None:
        return _read_messages(messages, kinds)
    return cast("list[Row]", speed.module.read_messages(messages, kinds))
