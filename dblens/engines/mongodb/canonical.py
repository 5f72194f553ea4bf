"""The verifier: raw documents to canonical texts and digests. Shares no conversion code with `export` and `load`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

from dblens.engines.base import Field
from dblens.engines.mongodb import checks, rawtext
from dblens.schema.model import Column, Table
from dblens.schema.types import Array, Json, Set
from dblens.values.codec import float_text, renderer
from dblens.values.forms import Form

Spot = tuple[int, int, int]
"""BSON type, begin and end of a value within a document."""
Render = Callable[[bytes, Spot], str]
Row = tuple[bytes | None, ...]

_MARK = "$dblensJson"
_NULLS = (0x0A, 0x06)


def _plain_decimal(value: Decimal) -> str:
    if not value.is_finite():
        return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = (
        "".join(map(str, digits)) + "0" * exponent
        if exponent > 0
        else "".join(map(str, digits)).rjust(1 - exponent, "0")
    )
    if exponent < 0:
        text = (text[:exponent] + "." + text[exponent:]).rstrip("0").rstrip(".")
    text = text.lstrip("0") or "0"
    if text.startswith("."):
        text = "0" + text
    return "-" + text if sign and text != "0" else text


def _instant(milliseconds: int) -> str:
    """Civil date from days, by counting years from 0000-03-01 (Howard Hinnant's algorithm)."""
    days, rest = divmod(milliseconds, 86_400_000)
    shifted = days + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    day_of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    turn = (5 * day_of_year + 2) // 153
    month = turn + 3 if turn < 10 else turn - 9
    day = day_of_year - (153 * turn + 2) // 5 + 1
    year = era * 400 + year_of_era + (month <= 2)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, fraction = divmod(rest, 1000)
    text = f"{year if year > 0 else 1 - year:04d}-{month:02d}-{day:02d} {hours:02d}:{minutes:02d}:{seconds:02d}"
    if fraction:
        text += f".{fraction:03d}".rstrip("0")
    return text if year > 0 else text + " BC"


def _number(raw: bytes, spot: Spot) -> int | float | Decimal | str:
    kind, at, _ = spot
    match kind:
        case 0x10:
            return int(struct.unpack_from("<i", raw, at)[0])
        case 0x12:
            return int(struct.unpack_from("<q", raw, at)[0])
        case 0x01:
            return float(struct.unpack_from("<d", raw, at)[0])
        case 0x13:
            return rawtext.decimal(raw, at)
        case 0x08:
            return raw[at]
        case 0x02:
            return rawtext.string(raw, at)
    raise ValueError(f"BSON type 0x{kind:02x} is not a number")


def _int(raw: bytes, spot: Spot) -> str:
    value = _number(raw, spot)
    if isinstance(value, str) or not math.isfinite(value) or int(value) != value:
        raise ValueError("not a whole number")
    return str(int(value))


def _decimal(raw: bytes, spot: Spot) -> str:
    value = _number(raw, spot)
    match value:
        case Decimal():
            return _plain_decimal(value)
        case str():
            return renderer(Form.DECIMAL)(value)
        case float():
            text = float_text(value)
            return "0" if text == "-0" else text
    return str(value)


def _float(raw: bytes, spot: Spot) -> str:
    value = _number(raw, spot)
    if isinstance(value, str):
        raise ValueError("text is not a double")
    if isinstance(value, Decimal) or (isinstance(value, int) and int(float(value)) != value):
        raise ValueError("not a double")
    return float_text(float(value)) if isinstance(value, float) else str(int(value))


def _text(raw: bytes, spot: Spot) -> str:
    kind, at, end = spot
    if kind == 0x02:
        return rawtext.string(raw, at)
    if kind == 0x07:
        return raw[at:end].hex()
    return rawtext.render(raw, kind, at, end)


def _octets(raw: bytes, spot: Spot) -> str:
    kind, at, end = spot
    if kind != 0x05:
        raise ValueError("not binary")
    return raw[at + (9 if raw[at + 4] == 2 else 5) : end].hex()


def _uuid(raw: bytes, spot: Spot) -> str:
    if spot[0] == 0x02:
        return renderer(Form.UUID)(rawtext.string(raw, spot[1]))
    text = _octets(raw, spot)
    if len(text) != 32:
        raise ValueError("not a UUID")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _clock(form: Form) -> Render:
    parse = renderer(form)

    def clock(raw: bytes, spot: Spot) -> str:
        if spot[0] == 0x09:
            return _instant(struct.unpack_from("<q", raw, spot[1])[0])
        if spot[0] != 0x02:
            raise ValueError("neither a date nor text")
        return parse(rawtext.string(raw, spot[1]))

    return clock


def _string(form: Form) -> Render:
    parse = renderer(form)

    def string(raw: bytes, spot: Spot) -> str:
        if spot[0] != 0x02:
            raise ValueError("not text")
        return parse(rawtext.string(raw, spot[1]))

    return string


def _embedded(raw: bytes, spot: Spot) -> str:
    """JSON that was stored as BSON: the reverse of what `load` does, by its definition."""
    kind, at, _ = spot
    match kind:
        case 0x02:
            return rawtext.json_string(rawtext.string(raw, at))
        case 0x03:
            members = [(key, (k, a, e)) for key, k, a, e in rawtext.elements(raw, at)]
            if len(members) == 1 and members[0][0] == _MARK and members[0][1][0] == 0x02:
                return renderer(Form.JSON)(rawtext.string(raw, members[0][1][1]))
            members.sort(key=lambda member: member[0])
            return "{" + ",".join([rawtext.json_string(k) + ":" + _embedded(raw, s) for k, s in members]) + "}"
        case 0x04:
            return "[" + ",".join([_embedded(raw, (k, a, e)) for _, k, a, e in rawtext.elements(raw, at)]) + "]"
        case 0x0A:
            return "null"
        case 0x08:
            return "true" if raw[at] else "false"
        case 0x01:
            text = _float(raw, spot)
            return "0" if text == "-0" else text
        case 0x10 | 0x12:
            return _int(raw, spot)
        case 0x13:
            return _decimal(raw, spot)
    raise ValueError(f"BSON type 0x{kind:02x} is not JSON")


def _json(column: Column) -> Render:
    canonical = renderer(Form.JSON)
    if isinstance(column.type, (Json, Array, Set)):
        return _embedded
    if column.native == "string":
        return lambda raw, spot: canonical(_text(raw, spot))
    return lambda raw, spot: canonical(rawtext.render(raw, *spot))


def _dynamic(raw: bytes, spot: Spot) -> str:
    match spot[0]:
        case 0x10 | 0x12 | 0x08:
            return "i:" + _int(raw, spot)
        case 0x01:
            return "r:" + _float(raw, spot)
        case 0x02:
            return "t:" + rawtext.string(raw, spot[1])
        case 0x05:
            return "b:" + _octets(raw, spot)
    raise ValueError("not a value of SQLite")


def _render(field: Field) -> Render:
    match field.form:
        case Form.INT:
            return _int
        case Form.DECIMAL:
            return _decimal
        case Form.FLOAT:
            return _float
        case Form.TEXT | Form.GEOMETRY:
            return _text
        case Form.BYTES:
            return _octets
        case Form.UUID:
            return _uuid
        case Form.TIMESTAMP | Form.TIMESTAMPTZ:
            return _clock(field.form)
        case Form.JSON:
            return _json(field.column)
        case Form.DYNAMIC:
            return _dynamic
        case Form.DOCUMENT | Form.NATIVE:
            return lambda raw, spot: rawtext.render(raw, *spot)
        case Form.BSON:
            return lambda raw, spot: raw[spot[1] : spot[2]].hex()
    return _string(field.form)


def _repaired(field: Field) -> list[tuple[checks.Predicate, Callable[[str], str | None]]]:
    steps: list[tuple[checks.Predicate, Callable[[str], str | None]]] = []
    for check in field.repairs:
        change = _repair(field.form, check.kind, check.repair, check.limit, check.scale)
        if change is not None:
            steps.append((checks.predicate(check, field.form), change))
    return steps


def _repair(
    form: Form, kind: str, repair: str, limit: int | None, scale: int | None
) -> Callable[[str], str | None] | None:
    match repair:
        case "null":
            return lambda _text: None
        case "strip" | "truncate" | "round" if kind == "negative_zero":
            return lambda _text: "0"
        case "strip":
            if kind in ("nul_character", "json_nul") and form in (Form.JSON, Form.DOCUMENT):
                return lambda text: checks.JSON_NUL.sub(r"\1", text)
            if kind == "nul_character":
                return lambda text: "".join(text.split("\0"))
            if kind == "four_byte_text":
                return lambda text: "".join(c for c in text if ord(c) < 0x10000)
            return lambda text: text.rstrip(" ") if kind == "trailing_space" else text
        case "truncate" if kind == "too_long" and limit is not None:
            return lambda text: text[: 2 * limit if form == Form.BYTES else limit]
        case "truncate" | "round" if scale is not None:
            mode = ROUND_DOWN if repair == "truncate" else ROUND_HALF_EVEN
            return lambda text: _plain_decimal(_quantized(Decimal(text), scale, mode))
    return None


def _quantized(value: Decimal, scale: int, mode: str) -> Decimal:
    from decimal import Context

    return (
        value.quantize(Decimal((0, (1,), -scale)), rounding=mode, context=Context(prec=7000))
        if value.is_finite()
        else value
    )


def _reach(raw: bytes, spots: dict[str, Spot], path: tuple[str, ...]) -> Spot | None:
    """Return the place of a nested value, the last one of a repeated key as for the document's own fields.

    A sub-document is walked once: its members are noted in `spots` behind U+0000, which no key holds.
    """
    if len(path) == 1:
        return spots.get(path[0])
    prefix = "\0".join(path[:-1]) + "\0"
    walked = prefix + "\0"
    if walked not in spots:
        spots[walked] = (0, 0, 0)
        parent = _reach(raw, spots, path[:-1])
        if parent is not None and parent[0] == 0x03:
            spots.update({prefix + name: (k, a, e) for name, k, a, e in rawtext.elements(raw, parent[1])})
    return spots.get(prefix + path[-1])


class Reader:
    """Renders documents as rows of canonical texts of the given fields."""

    def __init__(self, table: Table, fields: Sequence[Field]) -> None:
        self.fields = fields
        self._steps: list[tuple[tuple[str, ...], Callable[[bytes, dict[str, Spot]], str | None]]] = [
            (path_of(f.column), self._step(f)) for f in fields
        ]
        self._table = table

    @staticmethod
    def _step(field: Field) -> Callable[[bytes, dict[str, Spot]], str | None]:
        constant = field.constant
        if field.is_constant:
            return lambda _raw, _spots: constant
        path = path_of(field.column)
        inner: Callable[[bytes, dict[str, Spot]], str | None]
        if not path:
            inner = _whole(field)
        else:
            render = _render(field)

            def inner(raw: bytes, spots: dict[str, Spot]) -> str | None:
                spot = _reach(raw, spots, path)
                return None if spot is None or spot[0] in _NULLS else render(raw, spot)

        repairs = _repaired(field)
        if not repairs:
            return inner

        def repaired(raw: bytes, spots: dict[str, Spot]) -> str | None:
            text = inner(raw, spots)
            for concerned, change in repairs:
                if text is not None and concerned(text):
                    text = change(text)
            return text

        return repaired

    def texts(self, raw: bytes) -> list[str | ValueError | None]:
        """Return a document's texts; what a form cannot hold is the ValueError itself."""
        spots = {key: (kind, at, end) for key, kind, at, end in rawtext.elements(raw)}
        out: list[str | ValueError | None] = []
        for _, step in self._steps:
            try:
                out.append(step(raw, spots))
            except ValueError as error:
                out.append(error)
        return out

    def row(self, raw: bytes) -> Row:
        """Return a document's canonical row. Raises ValueError for a value that its form cannot hold."""
        spots = {key: (kind, at, end) for key, kind, at, end in rawtext.elements(raw)}
        return tuple([None if (t := step(raw, spots)) is None else t.encode("utf-8") for _, step in self._steps])


def _whole(field: Field) -> Callable[[bytes, dict[str, Spot]], str | None]:
    if field.form == Form.BSON:
        return lambda raw, _spots: raw.hex()
    if field.form == Form.JSON:
        canonical = renderer(Form.JSON)
        return lambda raw, _spots: canonical(rawtext.document(raw))
    return lambda raw, _spots: rawtext.document(raw)


def path_of(column: Column) -> tuple[str, ...]:
    """Return where a column lies in a document: `()` is the whole of it."""
    if column.path:
        return column.path
    from dblens.schema.types import Document

    return () if isinstance(column.type, Document) else (column.name,)


def split(batch: bytes) -> Iterator[bytes]:
    """Cut a batch of BSON documents into single ones."""
    at, size = 0, len(batch)
    unpack: Any = struct.Struct("<i").unpack_from
    while at < size:
        end = at + unpack(batch, at)[0]
        yield batch[at:end]
        at = end
