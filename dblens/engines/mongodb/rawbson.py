"""BSON octet by octet, for the documents that the driver's dictionaries cannot hold.

A `dict` drops repeated keys, and the driver replaces deprecated types (undefined, symbol, dbPointer) by their successors. Such
documents are rare, so `load_document` decodes with the driver's C code first and only walks the octets when encoding the result
again does not give the same octets.
"""

from __future__ import annotations

import struct
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS
)
"""Dates stay milliseconds (any year), binary stays `Binary` with its subtype, UUIDs too."""

_FIXED = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}


class Pairs(list[tuple[str, Any]]):
    """A document as a list of pairs, because a key is repeated or a value needs it."""


class Undefined:
    """BSON type 6, deprecated."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Undefined)

    def __hash__(self) -> int:
        return 6


class Symbol(str):
    """BSON type 14, deprecated."""

    __slots__ = ()


class DBPointer(tuple[str, bytes]):
    """BSON type 12, deprecated: namespace and the 12 octets of an ObjectId."""

    __slots__ = ()


class RawRegex(tuple[str, str]):
    """A regular expression as pattern and option letters, in their stored order."""

    __slots__ = ()


class ScopedCode(tuple[str, Any]):
    """JavaScript with its scope document."""

    __slots__ = ()


class RawDouble(bytes):
    """The 8 octets of a double whose NaN bits are not the usual ones."""

    __slots__ = ()


class RawBinary(bytes):
    """Subtype octet and data of a binary that the driver would store in another way (old subtype 2)."""

    __slots__ = ()


def element_end(raw: bytes, kind: int, at: int) -> int:
    """Return where a value of a BSON type that starts at `at` ends. Raises ValueError for an unknown type."""
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return at + fixed
    if kind in (0x02, 0x0D, 0x0E):
        return at + 4 + int.from_bytes(raw[at : at + 4], "little")
    if kind in (0x03, 0x04, 0x0F):
        return at + int.from_bytes(raw[at : at + 4], "little")
    if kind == 0x05:
        return at + 5 + int.from_bytes(raw[at : at + 4], "little")
    if kind == 0x0B:
        return raw.index(b"\0", raw.index(b"\0", at) + 1) + 1
    if kind == 0x0C:
        return at + 16 + int.from_bytes(raw[at : at + 4], "little")
    raise ValueError(f"unknown BSON type 0x{kind:02x}")


def _string(raw: bytes, at: int) -> str:
    return raw[at + 4 : at + 3 + int.from_bytes(raw[at : at + 4], "little")].decode("utf-8")


def _value(raw: bytes, kind: int, at: int, end: int) -> Any:
    match kind:
        case 0x03:
            return parse(raw, at)
        case 0x04:
            return [value for _, value in parse(raw, at)]
        case 0x06:
            return Undefined()
        case 0x0B:
            middle = raw.index(b"\0", at)
            return RawRegex((raw[at:middle].decode(), raw[middle + 1 : end - 1].decode()))
        case 0x0C:
            return DBPointer((_string(raw, at), raw[end - 12 : end]))
        case 0x0E:
            return Symbol(_string(raw, at))
        case 0x0F:
            code = _string(raw, at + 4)
            return ScopedCode((code, parse(raw, at + 8 + int.from_bytes(raw[at + 4 : at + 8], "little"))))
        case 0x05 if raw[at + 4] == 2:
            return RawBinary(raw[at + 4 : end])
        case 0x01 if struct.unpack_from("<d", raw, at)[0] != struct.unpack_from("<d", raw, at)[0]:
            return RawDouble(raw[at:end])
    body = bytes((kind, 0)) + raw[at:end]
    return bson.decode(struct.pack("<i", len(body) + 5) + body + b"\0", OPTIONS)[""]


def parse(raw: bytes, start: int = 0) -> Pairs:
    """Return a document as pairs, every key and type as stored. Raises ValueError for broken BSON."""
    stop = start + int.from_bytes(raw[start : start + 4], "little") - 1
    at = start + 4
    pairs = Pairs()
    while at < stop:
        kind = raw[at]
        zero = raw.index(b"\0", at + 1)
        end = element_end(raw, kind, zero + 1)
        if end > stop:
            raise ValueError("a BSON value reaches beyond its document")
        pairs.append((raw[at + 1 : zero].decode("utf-8"), _value(raw, kind, zero + 1, end)))
        at = end
    return pairs


def load_document(raw: bytes) -> dict[str, Any] | Pairs:
    """Return a document as a dictionary, or as pairs when a dictionary would not be the same document."""
    document = bson.decode(raw, OPTIONS)
    if bson.encode(document, codec_options=OPTIONS) == raw:
        return document
    return parse(raw)


def get(document: dict[str, Any] | Pairs, key: str) -> Any:
    """Return a top-level value, the last one of a repeated key, None when it is missing."""
    return document.get(key) if isinstance(document, dict) else dict(document).get(key)


def _length(body: bytes) -> bytes:
    return struct.pack("<i", len(body) + 4)


def _text(text: str) -> bytes:
    octets = text.encode("utf-8")
    return struct.pack("<i", len(octets) + 1) + octets + b"\0"


def _element(key: str, value: Any) -> bytes:
    name = key.encode("utf-8") + b"\0"
    if b"\0" in name[:-1]:
        raise ValueError(f"a BSON key cannot hold U+0000: {key!r}")
    match value:
        case dict() | Pairs():
            return b"\x03" + name + build(value)
        case list():
            return b"\x04" + name + build(Pairs((str(i), item) for i, item in enumerate(value)))
        case Undefined():
            return b"\x06" + name
        case RawRegex():
            return b"\x0b" + name + value[0].encode() + b"\0" + value[1].encode() + b"\0"
        case DBPointer():
            return b"\x0c" + name + _text(value[0]) + value[1]
        case Symbol():
            return b"\x0e" + name + _text(value)
        case ScopedCode():
            body = _text(value[0]) + build(value[1])
            return b"\x0f" + name + _length(body) + body
        case RawBinary():
            return b"\x05" + name + struct.pack("<i", len(value) - 1) + bytes(value)
        case RawDouble():
            return b"\x01" + name + bytes(value)
    return bson.encode({key: value}, codec_options=OPTIONS)[4:-1]


def build(document: dict[str, Any] | Pairs) -> bytes:
    """Return the octets of a document. Raises ValueError for a key that BSON cannot hold."""
    items = document.items() if isinstance(document, dict) else document
    body = b"".join([_element(key, value) for key, value in items]) + b"\0"
    return _length(body) + body
