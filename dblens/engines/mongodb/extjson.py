r"""Hybrid Extended JSON: BSON as JSON text that reads naturally and comes back as the same BSON.

| BSON | text |
|---|---|
| int32 | number |
| int64 | number; `{"$numberLong":"5"}` where an int32 would do |
| double | shortest digits; `{"$numberDouble":"1.0"}` for whole values, `-0.0`, `NaN`, `Infinity` |
| string, bool, null, array, document | as in JSON, keys in stored order, a repeated key repeated |
| everything else | canonical Extended JSON: `$oid`, `$date`, `$numberDecimal`, `$binary`, `$regularExpression`, `$code`, … |
| document that begins with one of these keys | `{"$dblensDocument":{…}}` |

Text has no white space and keeps every character but `"`, `\\` and U+0000..U+001F. Not kept: sign and payload of a NaN, and Decimal128
encodings that break its own rules (they mean 0). This module serves the copier; the verifier renders the same text in `rawtext`.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import json.encoder
import math
import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from dblens.engines.mongodb.rawbson import (
    DBPointer,
    Pairs,
    RawBinary,
    RawDouble,
    RawRegex,
    ScopedCode,
    Symbol,
    Undefined,
    build,
    load_document,
)

WRAPPERS = frozenset(
    [
        "$oid",
        "$numberLong",
        "$numberDouble",
        "$numberDecimal",
        "$binary",
        "$date",
        "$timestamp",
        "$regularExpression",
        "$code",
        "$symbol",
        "$undefined",
        "$dbPointer",
        "$minKey",
        "$maxKey",
        "$dblensDocument",
    ]
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FLAGS = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (32, "u"), (64, "x"))

quote: Callable[[str], str] = json.encoder.encode_basestring


def _int(value: int) -> str:
    if isinstance(value, Int64):
        # Not `in range(...)`: a range walks its numbers one by one for a subclass of int.
        return f'{{"$numberLong":"{int(value)}"}}' if -(2**31) <= value < 2**31 else str(int(value))
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"beyond a BSON integer: {value}")
    return str(value)


def _float(value: float) -> str:
    if math.isfinite(value) and not value.is_integer():
        return repr(value)
    name = (
        "NaN" if math.isnan(value) else "Infinity" if value == math.inf else "-Infinity" if value == -math.inf else None
    )
    return f'{{"$numberDouble":"{name or repr(value)}"}}'


def _binary(subtype: int, data: bytes) -> str:
    return f'{{"$binary":{{"base64":"{base64.b64encode(data).decode()}","subType":"{subtype:02x}"}}}}'


def _date(milliseconds: int) -> str:
    return f'{{"$date":{{"$numberLong":"{milliseconds}"}}}}'


def _regex(value: Regex[Any]) -> str:
    pattern = value.pattern.decode() if isinstance(value.pattern, bytes) else value.pattern
    options = "".join(letter for bit, letter in _FLAGS if value.flags & bit)
    return f'{{"$regularExpression":{{"pattern":{quote(pattern)},"options":"{options}"}}}}'


def _code(text: str, scope: Any) -> str:
    return f'{{"$code":{quote(text)}}}' if scope is None else f'{{"$code":{quote(text)},"$scope":{encode(scope)}}}'


def _document(value: dict[str, Any] | Pairs) -> str:
    items = value.items() if isinstance(value, dict) else value
    text = "{" + ",".join([f"{quote(k)}:{encode(v)}" for k, v in items]) + "}"
    first = next(iter(items), None)
    return f'{{"$dblensDocument":{text}}}' if first is not None and first[0] in WRAPPERS else text


def _old_binary(value: RawBinary) -> str:
    return f'{{"$binary":{{"base64":"{base64.b64encode(value[5:]).decode()}","subType":"02"}}}}'


_ENCODERS: dict[type, Callable[[Any], str]] = {
    str: quote,
    int: _int,
    Int64: _int,
    float: _float,
    bool: lambda v: "true" if v else "false",
    type(None): lambda _v: "null",
    dict: _document,
    Pairs: _document,
    list: lambda v: "[" + ",".join([encode(item) for item in v]) + "]",
    ObjectId: lambda v: f'{{"$oid":"{v}"}}',
    DatetimeMS: lambda v: _date(int(v)),
    dt.datetime: lambda v: _date(int(DatetimeMS(v))),
    Decimal128: lambda v: f'{{"$numberDecimal":"{v}"}}',
    Binary: lambda v: _binary(v.subtype, bytes(v)),
    bytes: lambda v: _binary(0, v),
    UUID: lambda v: _binary(4, v.bytes),
    Regex: _regex,
    RawRegex: lambda v: f'{{"$regularExpression":{{"pattern":{quote(v[0])},"options":{quote(v[1])}}}}}',
    Code: lambda v: _code(str(v), v.scope),
    ScopedCode: lambda v: _code(v[0], v[1]),
    Timestamp: lambda v: f'{{"$timestamp":{{"t":{v.time},"i":{v.inc}}}}}',
    MinKey: lambda _v: '{"$minKey":1}',
    MaxKey: lambda _v: '{"$maxKey":1}',
    Symbol: lambda v: f'{{"$symbol":{quote(v)}}}',
    Undefined: lambda _v: '{"$undefined":true}',
    DBPointer: lambda v: f'{{"$dbPointer":{{"$ref":{quote(v[0])},"$id":{{"$oid":"{v[1].hex()}"}}}}}}',
    DBRef: lambda v: _document(dict(v.as_doc())),
    RawBinary: _old_binary,
    RawDouble: lambda v: _float(struct.unpack("<d", v)[0]),
    RawBSONDocument: lambda v: _document(load_document(bytes(v.raw))),
}


def encode(value: Any) -> str:
    """Return a BSON value (as the driver decodes it) as text. Raises ValueError for what BSON does not know."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        for kind, known in _ENCODERS.items():
            if isinstance(value, kind):
                encoder = known
                break
        else:
            raise ValueError(f"not a BSON value: {type(value).__name__}")
    return encoder(value)


def encode_raw(raw: bytes) -> str:
    """Return a raw document as text."""
    return encode(load_document(raw))


# ------------------------------------------------------------------------------------------------------------------- decoding


class _Object(list[tuple[str, Any]]):
    """A JSON object before it is known whether it is a document or a wrapper."""


def _wrapped(pairs: _Object) -> Any:
    key, inner = pairs[0]
    try:
        if key == "$code":
            return Code(inner) if len(pairs) == 1 else ScopedCode((inner, _natural(pairs[1][1])))
        if len(pairs) != 1:
            raise ValueError
        match key:
            case "$dblensDocument":
                return _document_of(inner)
            case "$oid":
                return ObjectId(inner)
            case "$numberLong":
                return Int64(inner)
            case "$numberDouble":
                return float(inner)
            case "$numberDecimal":
                return Decimal128(inner)
            case "$date":
                return DatetimeMS(int(inner[0][1]))
            case "$symbol":
                return Symbol(inner)
            case "$undefined":
                return Undefined()
            case "$minKey":
                return MinKey()
            case "$maxKey":
                return MaxKey()
        parts = dict(inner)
        match key:
            case "$binary":
                return _binary_of(base64.b64decode(parts["base64"], validate=True), int(parts["subType"], 16))
            case "$timestamp":
                return Timestamp(parts["t"], parts["i"])
            case "$regularExpression":
                return RawRegex((parts["pattern"], parts["options"]))
        return DBPointer((parts["$ref"], bytes.fromhex(parts["$id"][0][1])))
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, BSONError) as error:
        raise ValueError(f"not hybrid Extended JSON: a {key} object of another shape") from error


def _binary_of(data: bytes, subtype: int) -> Any:
    if subtype == 2:
        return RawBinary(b"\x02" + struct.pack("<i", len(data)) + data)
    return Binary(data, subtype)


def _document_of(pairs: _Object) -> Any:
    items = Pairs((key, _natural(value)) for key, value in pairs)
    as_dict = dict(items)
    return as_dict if len(as_dict) == len(items) else items


def _natural(value: Any) -> Any:
    if isinstance(value, _Object):
        return _wrapped(value) if value and value[0][0] in WRAPPERS else _document_of(value)
    if isinstance(value, list):
        return [_natural(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"not hybrid Extended JSON: beyond a BSON integer: {value}")
        return value if -(2**31) <= value < 2**31 else Int64(value)
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"not hybrid Extended JSON: {name}")


def decode(text: str) -> Any:
    """Return the BSON value that a text stands for. Raises ValueError."""
    return _natural(json.loads(text, object_pairs_hook=_Object, parse_constant=_constant))


def decode_raw(text: str) -> bytes:
    """Return the octets of the document that a text stands for. Raises ValueError."""
    value = decode(text)
    if not isinstance(value, (dict, Pairs)):
        raise ValueError("not hybrid Extended JSON of a document")
    return build(value)
