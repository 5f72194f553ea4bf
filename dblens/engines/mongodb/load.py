"""The copier's writing side: exchange values to documents, in calls of 5,000."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
from bson import Binary, Decimal128, Int64, ObjectId
from bson import DatetimeMS as Milliseconds
from bson.errors import BSONError

from dblens.engines.base import Block, Chunk, Field, Format
from dblens.engines.mongodb import extjson, rawtext, times
from dblens.engines.mongodb.export import whole
from dblens.engines.mongodb.rawbson import build
from dblens.errors import QueryFailed
from dblens.schema.model import Column
from dblens.values.codec import float_text, plain_number
from dblens.values.forms import Form

CALL = 5000
MOST_OCTETS = 16 * 1024 * 1024
_CALL_OCTETS = 16 * 1024 * 1024
_MARK = "$dblensJson"
_DEEPEST = 80


# ------------------------------------------------------------------------------------------------------------------------ JSON


class _Token(str):
    __slots__ = ()


def _kept(text: str) -> dict[str, str]:
    return {_MARK: text}


def _number(token: str) -> Any:
    """Return the BSON number whose text is the same as the token's, else the token itself, kept as text."""
    try:
        plain = plain_number(token)
    except ValueError:
        return _kept(token)
    if "." not in plain:
        number = int(plain) if len(plain) <= 40 else None
        if number is not None and -(2**31) <= number < 2**31:
            return number
        if number is not None and -(2**63) <= number < 2**63:
            return Int64(number)
    else:
        double = float(plain)
        if float_text(double) == plain:
            return double
    exact = Decimal(plain)
    digits = "".join(map(str, exact.as_tuple().digits)).strip("0")
    if len(digits) <= 34 and abs(exact.adjusted()) < 6000:
        sign, _, exponent = exact.as_tuple()
        assert isinstance(exponent, int)
        full = "".join(map(str, exact.as_tuple().digits))
        exponent += len(full) - len(full.rstrip("0"))
        return Decimal128(Decimal((sign, tuple(map(int, full.rstrip("0").lstrip("0") or "0")), exponent)))
    return _kept(token)


def _write(value: Any) -> str:
    """Return parsed JSON as JSON text, numbers as they were written."""
    match value:
        case _Token():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{_write(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(value)


def _lone(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _bson(value: Any, depth: int = 0) -> Any:
    match value:
        case _Token():
            return _number(value)
        case str():
            return _kept(json.dumps(value)) if _lone(value) else value
        case dict() | list() if depth > _DEEPEST:
            return _kept(_write(value))
        case dict():
            marked = (
                len(value) == 1
                and _MARK in value
                and isinstance(value[_MARK], str)
                and not isinstance(value[_MARK], _Token)
            )
            if marked or any("\0" in key or _lone(key) for key in value):
                return _kept(_write(value))
            return {key: _bson(item, depth + 1) for key, item in value.items()}
        case list():
            return [_bson(item, depth + 1) for item in value]
    return value


def json_value(text: Any) -> Any:
    """Return JSON text as BSON.

    What BSON cannot hold (a top-level null, numbers beyond Decimal128, keys with U+0000, lone surrogates, very deep nesting) stands
    as `{"$dblensJson": text}`.
    """
    value = (
        json.loads(text, parse_int=_Token, parse_float=_Token, parse_constant=_Token)
        if isinstance(text, (str, bytes))
        else text
    )
    return _kept("null") if value is None else _bson(value)


# ---------------------------------------------------------------------------------------------------------------------- values


def _int(value: Any) -> Any:
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError("beyond 32 bits")
    return number


def _long(value: Any) -> Any:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("beyond 64 bits")
    return Int64(number)


def _bool(value: Any) -> Any:
    if value in (0, 1, "0", "1"):
        return bool(int(value))
    raise ValueError("neither 0 nor 1")


def _decimal(value: Any) -> Any:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if number.is_nan():
        return Decimal128("NaN")
    sign, digits, exponent = number.as_tuple()
    if isinstance(exponent, int) and len(digits) > 34:
        text = "".join(map(str, digits))
        short = text.rstrip("0")
        number = Decimal((sign, tuple(map(int, short or "0")), exponent + len(text) - len(short)))
    return Decimal128(number)  # traps every rounding


def _string(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise ValueError(f"{type(value).__name__} where text is expected")


def _zoned(value: Any) -> Any:
    """Return an instant's text as ISO 8601 in UTC; what is not a date and time stays as it is."""
    text = _string(value)
    body = text.removesuffix(" BC")
    if len(body) < 19 or not body[0].isdigit():
        return text
    clock = body.replace(" ", "T", 1).removesuffix("+00").removesuffix("Z")
    if "." in clock:
        clock = clock.rstrip("0").rstrip(".")
    return clock + "Z" + text[len(body) :]


def _date(value: Any) -> Any:
    milliseconds = times.parse(_string(value))
    return value if milliseconds is None else Milliseconds(milliseconds)


def _octets(value: Any) -> Any:
    return bytes(value)


def _uuid(value: Any) -> Any:
    return Binary(UUID(_string(value)).bytes if isinstance(value, str) else bytes(value), 4)


def _mixed(value: Any) -> Any:
    match value:
        case bool() | float() | str():
            return value
        case int():
            return _long(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value)
    raise ValueError(f"{type(value).__name__} is no value of SQLite")


_BY_NATIVE: dict[str, Callable[[Any], Any]] = {
    "int": _int,
    "long": _long,
    "bool": _bool,
    "double": float,
    "decimal": _decimal,
    "string": _string,
    "date": _date,
    "binData": _octets,
    "uuid": _uuid,
    "objectId": ObjectId,
    "object": json_value,
    "array": json_value,
    "mixed": _mixed,
    "document": extjson.decode,
}


def _converter(column: Column, form: Form) -> Callable[[Any], Any]:
    if form == Form.NATIVE:
        return extjson.decode
    if column.native == "string" and form == Form.TIMESTAMPTZ:
        return _zoned
    if column.native == "document" and form not in (Form.DOCUMENT, Form.NATIVE):
        return json_value if form == Form.JSON else _mixed
    return _BY_NATIVE.get(column.native, _string)


class Encoder:
    """Turns rows of exchange values into raw documents.

    Rows without a key get an `_id` made of run, chunk and place, so that a chunk written twice is the same documents.
    """

    def __init__(self, fields: Sequence[Field], chunk: Chunk) -> None:
        self.columns = [field.target or field.column for field in fields]
        self._document = next(
            (i for i, f in enumerate(fields) if f.form == Form.BSON and whole(f.target or f.column)), None
        )
        self._told = next(
            (i for i, f in enumerate(fields) if f.form == Form.DOCUMENT and whole(f.target or f.column)), None
        )
        self._convert = [_converter(c, f.form) for c, f in zip(self.columns, fields, strict=True)]
        self._paths = [c.path or (c.name,) for c in self.columns]
        self._flat = all(len(path) == 1 for path in self._paths)
        self.keyed = (
            self._document is not None or self._told is not None or any(path[0] == "_id" for path in self._paths)
        )
        self.prefix = _prefix(chunk)
        self._next = 0

    def document(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return a row as a document. Raises ValueError for a value that its field cannot hold exactly."""
        values = [None if v is None else convert(v) for v, convert in zip(row, self._convert, strict=True)]
        document: dict[str, Any] = {}
        if not self.keyed:
            document["_id"] = ObjectId(self.prefix + struct.pack(">I", self._next))
            self._next += 1
        if self._flat:
            for path, value in zip(self._paths, values, strict=True):
                document[path[0]] = value
            return document
        for path, value in zip(self._paths, values, strict=True):
            inner = document
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
        return document

    def raw(self, row: Sequence[Any]) -> bytes:
        """Return a row as a raw document."""
        if self._document is not None:
            value = row[self._document]
            return bytes.fromhex(value) if isinstance(value, str) else bytes(value)
        if self._told is not None:
            return _identified(row[self._told])
        document = self.document(row)
        if any(isinstance(c.native, str) and c.native == "document" for c in self.columns):
            return build(document)
        return bson.encode(document)

    def raws(self, blocks: Iterable[Block], fmt: Format, label: str) -> Iterator[bytes]:
        """Return the raw documents of blocks. Raises QueryFailed naming the row that does not fit."""
        for block in blocks:
            if fmt == "bson":
                assert isinstance(block.data, list)
                for raw in block.data:
                    assert isinstance(raw, bytes)
                    yield raw
                continue
            for row in block.data:
                assert isinstance(row, tuple)
                try:
                    raw = self.raw(row)
                except (ValueError, TypeError, ArithmeticError, BSONError) as error:
                    raise self._unfit(row, label, error) from error
                if len(raw) > MOST_OCTETS:
                    raise QueryFailed(
                        f"{label}: the row with key {self._key(row)} makes a document of {len(raw)} octets, MongoDB holds {MOST_OCTETS}",
                        hint="exclude or shorten its large columns with a rule",
                    )
                yield raw

    def _key(self, row: Sequence[Any]) -> str:
        keys = [str(v)[:80] for v, path in zip(row, self._paths, strict=True) if path[0] == "_id"]
        return ", ".join(keys) if keys else "(none)"

    def _unfit(self, row: Sequence[Any], label: str, error: Exception) -> QueryFailed:
        for value, convert, column in zip(row, self._convert, self.columns, strict=True):
            try:
                if value is not None:
                    bson.encode({"v": convert(value)})
            except (ValueError, TypeError, ArithmeticError, BSONError) as reason:
                return QueryFailed(
                    f"{label}: column {column.name!r} of the row with key {self._key(row)} does not fit {column.native}: {reason}",
                    hint="plan again with a text type for the column, or accept its loss",
                )
        return QueryFailed(f"{label}: the row with key {self._key(row)} does not fit: {error}", hint="plan again")


def _identified(text: Any) -> bytes:
    """Return a whole document from its text. Raises ValueError without an `_id`: the server would make one up, and the proof fail."""
    if text is None:
        raise ValueError("there is no document")
    raw = extjson.decode_raw(text)
    if not any(key == "_id" for key, *_ in rawtext.elements(raw)):
        raise ValueError("the document has no _id")
    return raw


def _prefix(chunk: Chunk) -> bytes:
    """Return the first 8 octets of the generated `_id`s of a chunk: 5 of run and table, 3 of the chunk's number."""
    seed = f"{chunk.run}\0{chunk.table[0]}\0{chunk.table[1]}".encode()
    return hashlib.sha256(seed).digest()[:5] + (chunk.number & 0xFFFFFF).to_bytes(3, "big")


def generated(prefix: bytes) -> dict[str, Any]:
    """Return the filter of a chunk's generated `_id`s."""
    return {"_id": {"$gte": ObjectId(prefix + bytes(4)), "$lte": ObjectId(prefix + b"\xff" * 4)}}


def calls(raws: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group raw documents into calls of at most 5,000 documents and 16 MiB."""
    out: list[bytes] = []
    size = 0
    for raw in raws:
        if out and (len(out) >= CALL or size + len(raw) > _CALL_OCTETS):
            yield out
            out, size = [], 0
        out.append(raw)
        size += len(raw)
    if out:
        yield out
