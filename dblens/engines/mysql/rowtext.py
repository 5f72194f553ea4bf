"""Exchange rows as text blocks, and text blocks as rows again: what `rows` needs on its way into LOAD DATA, and back for INSERT."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from dblens.engines.base import Field, Format
from dblens.errors import QueryFailed
from dblens.values import speed
from dblens.values.forms import Form

_READ = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"0": b"\0", b"b": b"\b", b"\\": b"\\", b"Z": b"\x1a"}


def encoder(fields: Sequence[Field], fmt: Format = "mytext") -> Callable[[Sequence[tuple[Any, ...]]], bytes]:
    """Return the function that writes exchange rows as lines of `fmt` (mytext or pgtext)."""
    dialect: speed.Dialect = "pgtext" if fmt == "pgtext" else "mytext"
    kinds = "".join([_KINDS.get(field.form, "s") for field in fields]).encode()

    def encode(rows: Sequence[tuple[Any, ...]]) -> bytes:
        try:
            return speed.encode_rows(rows, kinds, dialect)
        except ValueError as error:
            raise QueryFailed(
                f"a value cannot be stored: {error}",
                hint="MySQL has neither NaN nor infinities; accept a repair in the plan, or map the column to text",
            ) from error

    return encode


# Numbers of kind n: sources may hand over ints, floats or their texts; everything that is not a number or octets is text.
_KINDS = {Form.INT: "n", Form.FLOAT: "n", Form.DECIMAL: "n", Form.BYTES: "b"}


_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def decode(data: bytes) -> list[tuple[bytes | None, ...]]:
    """Return the fields of mytext lines, unescaped, NULL as None. Lines end in a bare newline; escaped ones hold none."""
    return [
        tuple(
            [
                None if f == b"\\N" else (_ESCAPED.sub(lambda m: _READ.get(m[1], m[1]), f) if b"\\" in f else f)
                for f in line.split(b"\t")
            ]
        )
        for line in data.split(b"\n")[:-1]
    ]
