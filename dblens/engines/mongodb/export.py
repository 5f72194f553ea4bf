"""The copier's reading side: documents to exchange values, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import bson
from bson import Binary, DatetimeMS, Decimal128, ObjectId

from dblens.engines.base import Block, Check, Field, Format
from dblens.engines.mongodb import checks, extjson, times
from dblens.engines.mongodb.rawbson import OPTIONS, Pairs, parse
from dblens.errors import QueryFailed
from dblens.schema.model import Column
from dblens.schema.types import Document
from dblens.values.codec import float_text
from dblens.values.forms import Form

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_ROWS = 1000
MOST_OCTETS = 1 << 20


def whole(column: Column) -> bool:
    """Tell whether a column is the whole document."""
    return isinstance(column.type, Document) and not column.path


def formats(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return what these fields can leave as: the raw documents when one field is the whole document in form BSON."""
    return ("bson", "rows") if any(whole(f.column) and f.form == Form.BSON for f in fields) else ("rows",)


# ---------------------------------------------------------------------------------------------------------------------- values


def _int(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    if isinstance(number, (float, Decimal)) and number == int(number):
        return int(number)
    raise ValueError("not a whole number")


def _float(value: Any) -> Any:
    if isinstance(value, (bool, Decimal128)) or not isinstance(value, (int, float)):
        raise ValueError("not a double")
    if isinstance(value, int) and int(float(value)) != value:
        raise ValueError("a double would change it")
    return float(value)


def decimal_text(value: Decimal) -> str:
    """Return a decimal without exponent and without negative zero."""
    if not value.is_finite():
        return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
    return f"{value:f}" if value else "0"


def _decimal(value: Any) -> Any:
    match value:
        case Decimal128():
            return decimal_text(value.to_decimal())
        case bool():
            return str(int(value))
        case int():
            return str(int(value))
        case float():
            return decimal_text(Decimal(float_text(value)))
        case str():
            return value
    raise ValueError("not a decimal")


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value) if isinstance(value, ObjectId) else extjson.encode(value)


def _octets(value: Any) -> Any:
    if isinstance(value, bytes):
        return bytes(value)
    raise ValueError("not binary")


def _uuid(value: Any) -> Any:
    if isinstance(value, str):
        return str(UUID(value))
    if isinstance(value, bytes) and len(value) == 16:
        return str(UUID(bytes=bytes(value)))
    raise ValueError("not a UUID")


def _clock(value: Any) -> Any:
    if isinstance(value, DatetimeMS):
        return times.render(int(value))
    if isinstance(value, str):
        return value.replace("T", " ").replace("Z", "")
    raise ValueError("not a date")


def _string(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise ValueError("not text")


def _dynamic(value: Any) -> Any:
    if isinstance(value, Binary):
        return bytes(value)
    if isinstance(value, (int, float, str, bytes)):
        return value
    raise ValueError("not a value of SQLite")


_VALUES: dict[Form, Callable[[Any], Any]] = {
    Form.INT: _int,
    Form.FLOAT: _float,
    Form.DECIMAL: _decimal,
    Form.TEXT: _text,
    Form.GEOMETRY: _text,
    Form.BYTES: _octets,
    Form.UUID: _uuid,
    Form.TIMESTAMP: _clock,
    Form.TIMESTAMPTZ: _clock,
    Form.JSON: extjson.encode,
    Form.DOCUMENT: extjson.encode,
    Form.NATIVE: extjson.encode,
    Form.DYNAMIC: _dynamic,
}


def _canonical_like(value: Any) -> str:
    """Return the text that a check's predicate judges."""
    match value:
        case float():
            return float_text(value)
        case bytes():
            return value.hex()
    return str(value)


def _change(check: Check, form: Form) -> Callable[[Any], Any] | None:
    """Return how a repair changes an exchange value."""
    limit, scale = check.limit, check.scale
    match check.repair, check.kind:
        case "null", _:
            return lambda _v: None
        case (("strip" | "truncate" | "round"), "negative_zero"):
            return abs
        case "strip", ("nul_character" | "json_nul"):
            if form in (Form.JSON, Form.DOCUMENT):
                return _without_nul
            return lambda v: v.replace("\0", "")
        case "strip", "trailing_space":
            return lambda v: v.rstrip(" ")
        case "strip", "four_byte_text":
            return lambda v: "".join([c for c in v if c <= "\uffff"])
        case "truncate", "too_long":
            return lambda v: v[:limit]
        case (("truncate" | "round"), _) if scale is not None:
            unit = Decimal(1).scaleb(-scale)
            rounding = ROUND_DOWN if check.repair == "truncate" else ROUND_HALF_EVEN
            return lambda v: decimal_text(Decimal(v).quantize(unit, rounding=rounding, context=Context(prec=7000)))
    return None


def _without_nul(text: Any) -> Any:
    """Drop U+0000 from every string of Extended JSON, keys included, by rebuilding the value."""

    def clean(value: Any) -> Any:
        match value:
            case str() if type(value) is str:
                return value.replace("\0", "")
            case dict():
                return {k: clean(v) for k, v in value.items()}
            case Pairs():
                return Pairs((k, clean(v)) for k, v in value)
            case list():
                return [clean(v) for v in value]
        # Symbols, code and patterns: rare, by their text.
        written = extjson.encode(value)
        return extjson.decode(checks.JSON_NUL.sub(r"\1", written)) if "\\u0000" in written else value

    return extjson.encode(clean(extjson.decode(text)))


def getter(field: Field) -> Callable[[dict[str, Any] | Pairs, bytes], Any]:
    """Return the function that takes a field's exchange value out of a document."""
    if field.is_constant:
        constant = field.constant
        return lambda _document, _raw: constant
    convert = _VALUES.get(field.form, _string)
    column = field.column
    from dblens.engines.mongodb.canonical import path_of

    path = path_of(column)
    base: Callable[[dict[str, Any] | Pairs, bytes], Any]
    if not path:
        if field.form == Form.BSON:
            base = lambda _document, raw: raw.hex()  # noqa: E731
        else:
            base = lambda document, _raw: extjson.encode(document)  # noqa: E731
    else:

        def base(document: dict[str, Any] | Pairs, _raw: bytes) -> Any:
            value: Any = document
            for key in path:
                if isinstance(value, Pairs):
                    value = dict(value)
                if not isinstance(value, dict):
                    return None
                value = value.get(key)
            if value is None or type(value).__name__ == "Undefined":
                return None
            return convert(value)

    steps = [
        (checks.predicate(check, field.form), change)
        for check in field.repairs
        if (change := _change(check, field.form)) is not None
    ]
    if not steps:
        return base

    def repaired(document: dict[str, Any] | Pairs, raw: bytes) -> Any:
        value = base(document, raw)
        for concerned, change in steps:
            if value is not None and concerned(_canonical_like(value)):
                value = change(value)
        return value

    return repaired


def documents(raws: Iterable[bytes]) -> Iterator[tuple[dict[str, Any] | Pairs, bytes]]:
    """Decode raw documents, octet-exactly."""
    for raw in raws:
        decoded = bson.decode(raw, OPTIONS)
        same = bson.encode(decoded, codec_options=OPTIONS) == raw
        yield (decoded if same else parse(raw)), raw


def key_text(raw: bytes) -> str:
    """Return a document's `_id` as Extended JSON, for messages."""
    return next((extjson.encode(v) for k, v in parse(raw) if k == "_id"), "(no _id)")


def rows(batches: Iterator[list[bytes]], fields: Sequence[Field], label: str) -> Generator[Block]:
    """Turn batches of raw documents into blocks of rows. Raises QueryFailed for a value that its field's form cannot hold."""
    getters = [getter(field) for field in fields]
    for batch in batches:
        out: list[tuple[Any, ...]] = []
        size = 0
        for document, raw in documents(batch):
            try:
                out.append(tuple([get(document, raw) for get in getters]))
            except (ValueError, ArithmeticError) as error:
                raise _unfit(document, raw, fields, getters, label) from error
            size += len(raw)
            if size >= MOST_OCTETS:
                yield Block(data=out, size=size, rows=len(out))
                out, size = [], 0
        if out:
            yield Block(data=out, size=size, rows=len(out))


def _unfit(document: Any, raw: bytes, fields: Sequence[Field], getters: Sequence[Any], label: str) -> QueryFailed:
    for field, get in zip(fields, getters, strict=True):
        try:
            get(document, raw)
        except (ValueError, ArithmeticError) as error:
            return QueryFailed(
                f"{label}: field {field.column.name!r} of document {key_text(raw)} is no {field.form.value}: {error}",
                hint="the collection changed since it was looked at: plan again",
            )
    return QueryFailed(f"{label}: document {key_text(raw)} cannot be read", hint="plan again")


def raw_blocks(batches: Iterator[list[bytes]]) -> Generator[Block]:
    """Turn batches of raw documents into blocks of them."""
    for batch in batches:
        out: list[bytes] = []
        size = 0
        for raw in batch:
            out.append(raw)
            size += len(raw)
            if size >= MOST_OCTETS:
                yield Block(data=out, size=size, rows=len(out))
                out, size = [], 0
        if out:
            yield Block(data=out, size=size, rows=len(out))
