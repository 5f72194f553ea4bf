r"""Canonical JSON text: object keys sorted by code point (last duplicate wins), no white space, plain exact numbers.

Two things that RFC 8259 texts may hold and the general rules do not cover: a lone surrogate stays an escape (`\ud800`), and a
number that would need more than 20,000 added zeros is written `<digits>e<exponent>`, whatever its spelling was.
"""

from __future__ import annotations

import json
import json.decoder
import re
from collections.abc import Callable
from decimal import Decimal

from dblens.values.numbers import NUMBER, float_text, plain_number, written_out

_scan: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_ZEROS = 20_000
_MARK = "\0#"
_MARKED = re.compile(r'"\\u0000#([^"]*)"')
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_TOKEN = re.compile(
    r'[ \t\n\r]*(?:([\[\]{},:])|(")|(true|false|null)|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(\Z))'
)

_Open = tuple[dict[str, str] | list[str], str]


def json_text(value: object) -> str:
    """Return the canonical text of a JSON text, or of JSON read into Python values. Raises ValueError for what is not JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value).decode("utf-8")
    if not isinstance(value, str):
        try:
            return _written(value)
        except RecursionError as error:
            raise ValueError("JSON value nested too deeply") from error
    # json's C code does the work; numbers with a fraction travel through it as marked strings. What it cannot do (nesting of some
    # thousand levels, integers of more than 4,300 digits, texts with the mark's NUL) takes the exact, slower way.
    if "\\u0000" not in value:
        try:
            text = _write(_read(value))
        except (RecursionError, ValueError):
            return _exact(value)
        text = _MARKED.sub(r"\1", text)
        return _SURROGATE.sub(_escaped, text)
    return _exact(value)


def _refuse(word: str) -> object:
    raise ValueError(f"not JSON: {word}")


def _marked(text: str) -> str:
    return _MARK + number_text(text)


_read = json.JSONDecoder(parse_float=_marked, parse_constant=_refuse).decode
_write = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def number_text(text: str) -> str:
    """Return a JSON number's canonical text."""
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"not a JSON number: {text[:80]!r}")
    fraction = match[3] or ""
    significant = (match[2] + fraction).lstrip("0")
    digits = significant.rstrip("0")
    exponent = int(match[4] or 0) - len(fraction) + len(significant) - len(digits)
    return written_out(match[1], digits, exponent, _ZEROS) or f"{match[1]}{digits}e{exponent}"


def _escaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}"


def _string(text: str) -> str:
    return f'"{_ESCAPE.sub(_escaped, text)}"'


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join([f"{_string(k)}:{v}" for k, v in sorted(members.items())]) + "}"


def _exact(text: str) -> str:
    """Read and write without recursion: a container that is complete becomes the text of its canonical form."""
    open_: list[_Open] = []  # containers around this place, each with the key that waits for a value
    at, done = 0, ""
    while True:
        match = _token(text, at)
        start, at = at, match.end()
        sign, quote, word, number = match[1], match[2], match[3], match[4]
        if sign == "{":
            open_.append(({}, ""))
            at, empty = _key(text, at, open_, first=True)
            if not empty:
                continue
            open_.pop()
            done = "{}"
        elif sign == "[":
            open_.append(([], ""))
            match = _token(text, at)
            if match[1] != "]":
                continue
            at = match.end()
            open_.pop()
            done = "[]"
        elif quote:
            string, at = _scan(text, at, True)
            done = _string(string)
        elif word:
            done = word
        elif number:
            done = number_text(number)
        else:
            raise _bad(text, start)
        # A value is complete: hand it to its container, and close those that end here.
        while open_:
            container, key = open_[-1]
            if isinstance(container, dict):
                container[key] = done
            else:
                container.append(done)
            match = _token(text, at)
            start, at = at, match.end()
            if match[1] == ",":
                break
            if match[1] != ("}" if isinstance(container, dict) else "]"):
                raise _bad(text, start)
            open_.pop()
            done = _object(container) if isinstance(container, dict) else f"[{','.join(container)}]"
        else:
            if _token(text, at)[5] is None:
                raise _bad(text, at)
            return done
        if isinstance(open_[-1][0], dict):
            at, _ = _key(text, at, open_, first=False)


def _token(text: str, at: int) -> re.Match[str]:
    match = _TOKEN.match(text, at)
    if match is None:
        raise _bad(text, at)
    return match


def _bad(text: str, at: int) -> ValueError:
    return ValueError(f"not JSON at character {at}: {text[at : at + 40]!r}")


def _key(text: str, at: int, open_: list[_Open], *, first: bool) -> tuple[int, bool]:
    """Read an object's key and colon into the innermost container; at an empty object's end return True instead."""
    match = _token(text, at)
    if first and match[1] == "}":
        return match.end(), True
    if match[2] is None:
        raise _bad(text, at)
    key, at = _scan(text, match.end(), True)
    match = _token(text, at)
    if match[1] != ":":
        raise _bad(text, at)
    open_[-1] = (open_[-1][0], key)
    return match.end(), False


def _written(value: object) -> str:
    match value:
        case str():
            return _string(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return number_text(str(value))
        case float() | Decimal():
            text = float_text(value) if isinstance(value, float) else plain_number(str(value))
            if not text.lstrip("-")[0].isdigit():
                raise ValueError(f"not a JSON number: {text}")
            return number_text(text)
        case list() | tuple():
            return "[" + ",".join([_written(v) for v in value]) + "]"
        case dict():
            members = {k: _written(v) for k, v in value.items() if isinstance(k, str)}
            if len(members) != len(value):
                raise ValueError("JSON object with a key that is not a text")
            return _object(members)
    raise ValueError(f"not JSON: {type(value).__name__}")
