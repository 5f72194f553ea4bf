"""The verifier's rendering of BSON: from octets straight to canonical texts, written apart from the copier's `extjson`.

`document` gives the hybrid Extended JSON of a raw document; `elements` gives its top-level values for rendering one by one.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal

from dblens.engines.mongodb.rawbson import element_end

_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_DOUBLE = struct.Struct("<d").unpack_from
_I32 = struct.Struct("<i").unpack_from
_I64 = struct.Struct("<q").unpack_from
_TS = struct.Struct("<II").unpack_from
_LAST_COEFFICIENT = 10**34 - 1
_RESERVED = {
    "$oid", "$numberLong", "$numberDouble", "$numberDecimal", "$binary", "$date", "$timestamp", "$regularExpression",
    "$code", "$symbol", "$undefined", "$dbPointer", "$minKey", "$maxKey", "$dblensDocument",
}  # fmt: skip


def json_string(text: str) -> str:
    """Return a text as a JSON string, only what must be escaped escaped."""
    if _ESCAPE.search(text) is None:
        return f'"{text}"'
    return '"' + _ESCAPE.sub(lambda m: _SHORT.get(m[0]) or f"\\u{ord(m[0]):04x}", text) + '"'


def string(raw: bytes, at: int) -> str:
    """Return the string value at a place."""
    return raw[at + 4 : at + 3 + _I32(raw, at)[0]].decode("utf-8")


def decimal(raw: bytes, at: int) -> Decimal:
    """Return the Decimal128 value at a place, from its own bits (binary integer encoding)."""
    low = int.from_bytes(raw[at : at + 8], "little")
    high = int.from_bytes(raw[at + 8 : at + 16], "little")
    sign = high >> 63
    top = (high >> 58) & 0x1F
    if top == 0x1F:
        return Decimal("NaN")
    if top == 0x1E:
        return Decimal("-Infinity" if sign else "Infinity")
    if (high >> 61) & 3 == 3:
        exponent, coefficient = (high >> 47) & 0x3FFF, 0
    else:
        exponent, coefficient = (high >> 49) & 0x3FFF, ((high & ((1 << 49) - 1)) << 64) | low
    if coefficient > _LAST_COEFFICIENT:
        coefficient = 0
    return Decimal((sign, tuple(map(int, str(coefficient))), exponent - 6176))


def _double(raw: bytes, at: int, _end: int) -> str:
    value = _DOUBLE(raw, at)[0]
    text = repr(value)
    if math.isnan(value):
        text = "NaN"
    elif math.isinf(value):
        text = "Infinity" if value > 0 else "-Infinity"
    elif value != math.floor(value):
        return text
    return '{"$numberDouble":"' + text + '"}'


def _long(raw: bytes, at: int, _end: int) -> str:
    value = _I64(raw, at)[0]
    return f'{{"$numberLong":"{value}"}}' if -2147483648 <= value <= 2147483647 else str(value)


def _bin(raw: bytes, at: int, end: int) -> str:
    subtype = raw[at + 4]
    data = raw[at + (9 if subtype == 2 else 5) : end]
    coded = binascii.b2a_base64(data, newline=False).decode("ascii")
    return '{"$binary":{"base64":"' + coded + '","subType":"' + format(subtype, "02x") + '"}}'


def _regex(raw: bytes, at: int, end: int) -> str:
    pattern, options = raw[at : end - 1].split(b"\0")
    return (
        '{"$regularExpression":{"pattern":'
        + json_string(pattern.decode())
        + ',"options":'
        + json_string(options.decode())
        + "}}"
    )


def _stamp(raw: bytes, at: int, _end: int) -> str:
    increment, seconds = _TS(raw, at)
    return f'{{"$timestamp":{{"t":{seconds},"i":{increment}}}}}'


def _scoped(raw: bytes, at: int, _end: int) -> str:
    scope = at + 8 + _I32(raw, at + 4)[0]
    return '{"$code":' + json_string(string(raw, at + 4)) + ',"$scope":' + document(raw, scope) + "}"


def _pointer(raw: bytes, at: int, end: int) -> str:
    return (
        '{"$dbPointer":{"$ref":'
        + json_string(string(raw, at))
        + ',"$id":{"$oid":"'
        + raw[end - 12 : end].hex()
        + '"}}}'
    )


_RENDER: dict[int, Callable[[bytes, int, int], str]] = {
    0x01: _double,
    0x02: lambda raw, at, _end: json_string(string(raw, at)),
    0x03: lambda raw, at, _end: document(raw, at),
    0x04: lambda raw, at, _end: "[" + ",".join([render(raw, k, a, e) for _, k, a, e in elements(raw, at)]) + "]",
    0x05: _bin,
    0x06: lambda _raw, _at, _end: '{"$undefined":true}',
    0x07: lambda raw, at, end: '{"$oid":"' + raw[at:end].hex() + '"}',
    0x08: lambda raw, at, _end: "true" if raw[at] else "false",
    0x09: lambda raw, at, _end: f'{{"$date":{{"$numberLong":"{_I64(raw, at)[0]}"}}}}',
    0x0A: lambda _raw, _at, _end: "null",
    0x0B: _regex,
    0x0C: _pointer,
    0x0D: lambda raw, at, _end: '{"$code":' + json_string(string(raw, at)) + "}",
    0x0E: lambda raw, at, _end: '{"$symbol":' + json_string(string(raw, at)) + "}",
    0x0F: _scoped,
    0x10: lambda raw, at, _end: str(_I32(raw, at)[0]),
    0x11: _stamp,
    0x12: _long,
    0x13: lambda raw, at, _end: '{"$numberDecimal":"' + str(decimal(raw, at)) + '"}',
    0x7F: lambda _raw, _at, _end: '{"$maxKey":1}',
    0xFF: lambda _raw, _at, _end: '{"$minKey":1}',
}


def elements(raw: bytes, start: int = 0) -> Iterator[tuple[str, int, int, int]]:
    """Give key, type, begin and end of every element of the document or array at a place, in stored order."""
    stop = start + _I32(raw, start)[0] - 1
    at = start + 4
    find = raw.index
    while at < stop:
        kind = raw[at]
        zero = find(b"\0", at + 1)
        end = element_end(raw, kind, zero + 1)
        yield raw[at + 1 : zero].decode("utf-8"), kind, zero + 1, end
        at = end


def render(raw: bytes, kind: int, at: int, end: int) -> str:
    """Return one value as hybrid Extended JSON."""
    return _RENDER[kind](raw, at, end)


def document(raw: bytes, start: int = 0) -> str:
    """Return the document at a place as hybrid Extended JSON."""
    parts: list[str] = []
    wrap = False
    for key, kind, at, end in elements(raw, start):
        if not parts and key in _RESERVED:
            wrap = True
        parts.append(json_string(key) + ":" + _RENDER[kind](raw, at, end))
    text = "{" + ",".join(parts) + "}"
    return '{"$dblensDocument":' + text + "}" if wrap else text
