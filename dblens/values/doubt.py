"""Whether values are beyond doubt: what a plan asks of every text, answered "certainly not" quickly, or "look closer".

A value in doubt is looked at by the engine's exact predicate; one beyond doubt is not. So a needless doubt costs time only, and a
missed one would hide a loss: everything out of the ordinary is in doubt. `_doubt.h` does the same in C. NULL is beyond doubt; a value
is given as octets, anything else is in doubt.

| kind | beyond doubt |
|---|---|
| t | UTF-8 without U+0000 |
| d, s, z, k | a date, timestamp, timestamp with offset, time of day in ISO form: years 0001 to 9999, days that exist, at most 6 decimals |
| 0 | the text `0`: what a server's own condition answers for a row without a finding |
| u | a UUID in lower case with hyphens |
| `json(…)` | JSON of RFC 8259 about which none of the questions has to be asked |
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

_INVALID, _TWICE, _NUL, _NUMBER, _KEY = 1, 2, 4, 8, 16
_ALL = 31
JSON_QUESTIONS = {
    "not_json": _INVALID,
    "json_duplicate_key": _TWICE,
    "json_nul": _NUL,
    "json_number": _NUMBER,
    "document_key": _KEY,
}
"""Check kinds about JSON texts: validity, members of one name, `\\u0000`, numbers that a double may not hold as written, and keys
that a document may not have."""


def json_kind(questions: Sequence[str]) -> str:
    """Return the kind for some of `JSON_QUESTIONS`."""
    return chr(0x40 + sum({JSON_QUESTIONS[q] for q in questions}))


_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_SHAPES = {
    "d": re.compile(rb"(\d{4}-\d\d-\d\d)"),
    "k": re.compile(_CLOCK.encode()),
    "s": re.compile(rf"(\d{{4}}-\d\d-\d\d)[ T]{_CLOCK}".encode()),
    "z": re.compile(rf"(\d{{4}}-\d\d-\d\d)[ T]{_CLOCK}(?:Z|[+-]\d\d:?[0-5]\d)".encode()),
    "u": re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
_DEPTH = 64


def _is_text(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in octets


def _is_shape(kind: str, octets: bytes) -> bool:
    match = _SHAPES[kind].fullmatch(octets)
    if match is None:
        return False
    if kind in "dsz":
        try:
            dt.date.fromisoformat(match[1].decode())
        except ValueError:
            return False
    return True


def _refuse(word: str) -> object:
    raise ValueError(word)


def json_doubts(octets: bytes) -> int:
    """Return the questions that have to be asked about a text, as a sum of `JSON_QUESTIONS`."""
    found = 0

    def members(pairs: list[tuple[str, object]]) -> None:
        nonlocal found
        keys = {k for k, _ in pairs}
        if len(keys) < len(pairs):
            found |= _TWICE
        if any("." in k or k.startswith("$") or "\0" in k for k in keys):
            found |= _KEY

    def whole(digits: str) -> None:
        nonlocal found
        if len(digits) > 15:
            found |= _NUMBER

    def real(digits: str) -> None:
        nonlocal found
        if len(digits) > 16 or "e" in digits.lower() or digits.endswith("0"):
            found |= _NUMBER

    if octets.count(b"[") + octets.count(b"{") > _DEPTH or not _is_text(octets):
        return _ALL
    try:
        json.loads(
            octets.decode(), object_pairs_hook=members, parse_int=whole, parse_float=real, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        return _ALL
    return found | (_NUL if b"\\u0000" in octets else 0)


def _in_doubt(kind: str, value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bytes):
        return True
    if kind == "t":
        return not _is_text(value)
    if kind == "0":
        return value != b"0"
    if kind in _SHAPES:
        return not _is_shape(kind, value)
    return bool(json_doubts(value) & (ord(kind) & _ALL)) if "@" < kind < "`" else True


def _doubt(kinds: bytes) -> Callable[..., int]:
    letters = kinds.decode()

    def doubt(*values: object) -> int:
        return int(len(values) != len(letters) or any(map(_in_doubt, letters, values)))

    return doubt


def _doubtful(rows: Sequence[Sequence[Any]], kinds: bytes) -> list[int]:
    letters, width = kinds.decode(), len(kinds)
    return [i for i, row in enumerate(rows) if len(row) < width or any(map(_in_doubt, letters, row))]


def _choose() -> tuple[Callable[[bytes], Callable[..., int]], Callable[[Sequence[Sequence[Any]], bytes], list[int]]]:
    if os.environ.get("DBLENS_PURE") != "1":
        try:
            native = cast("Any", importlib.import_module("dblens.values._speed"))
            return native.doubt, native.doubtful
        except (ImportError, AttributeError):
            pass  # not built, or built from an older source: the Python functions are the definition
    return _doubt, _doubtful


_kit = _choose()


def doubt(kinds: str) -> Callable[..., int]:
    """Return the function that answers 1 when any of its arguments, one for each kind, is in doubt, and 0 otherwise."""
    return _kit[0](kinds.encode())


def doubtful(rows: Sequence[Sequence[Any]], kinds: str) -> list[int]:
    """Return the positions of rows in which any of the first columns, one for each kind, is in doubt."""
    return _kit[1](rows, kinds.encode())
