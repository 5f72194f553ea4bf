"""Exchange rows as text blocks, and text blocks as rows again: what `rows` needs on its way into LOAD DATA, and back for INSERT."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from dblens.engines.base import Field, Format
from dblens.errors import QueryFailed
from dblens.values.forms import Form

_SPECIAL = re.compile(r"[\\\t\n\r\0\x08]")
_WRITE = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0", "\b": "\\b"}
_READ = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"0": b"\0", b"b": b"\b", b"\\": b"\\", b"Z": b"\x1a"}


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda m: _WRITE[m[0]], text) if _SPECIAL.search(text) else text


def _number(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise QueryFailed(f"{value!r} cannot be stored", hint="MySQL has neither NaN nor infinities; accept a repair in the plan")
        return repr(value)
    return str(int(value)) if isinstance(value, bool) else str(value)


def _float(value: Any) -> str:
    return _number(float(value)) if isinstance(value, (int, str)) and not isinstance(value, bool) else _number(value)


def encoder(fields: Sequence[Field], fmt: Format = "mytext") -> Callable[[Sequence[tuple[Any, ...]]], bytes]:
    """Return the function that writes exchange rows as lines of `fmt` (mytext or pgtext)."""
    hexadecimal = "\\\\x" if fmt == "pgtext" else ""

    def octets(value: Any) -> str:
        return hexadecimal + bytes(value).hex()

    def text(value: Any) -> str:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return octets(value)
        return _escape(value if isinstance(value, str) else _number(value))

    writers: list[Callable[[Any], str]] = []
    for field in fields:
        writers.append({Form.INT: _number, Form.FLOAT: _float, Form.BYTES: octets}.get(field.form, text))

    def encode(rows: Sequence[tuple[Any, ...]]) -> bytes:
        lines = [
            "\t".join(["\\N" if v is None else w(v) for w, v in zip(writers, row, strict=True)]) for row in rows
        ]
        return ("\n".join(lines) + "\n").encode("utf-8") if lines else b""

    return encode


_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def decode(data: bytes) -> list[tuple[bytes | None, ...]]:
    """Return the fields of mytext lines, unescaped, NULL as None. Lines end in a bare newline; escaped ones hold none."""
    rows = []
    for line in data.split(b"\n")[:-1]:
        rows.append(
            tuple(
                None if f == b"\\N" else (_ESCAPED.sub(lambda m: _READ.get(m[1], m[1]), f) if b"\\" in f else f)
                for f in line.split(b"\t")
            )
        )
    return rows
