"""The copier's reader: rows of a file to blocks in the target's load format, by whole columns. Shares nothing with `canonical`.

Texts go to the server as they stand in the file wherever it reads them as they are meant; nothing is a double on the way.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Generator, Iterable, Sequence
from decimal import Decimal as Number
from typing import Any, Final, cast

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.engines.base import Block, Field, Format
from dblens.engines.files import checks
from dblens.engines.files.model import Batch
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.types import Boolean, Dynamic
from dblens.values.codec import canonical
from dblens.values.forms import Form

_TEXT_FORMATS: Final = frozenset(
    {Form.INT, Form.FLOAT, Form.DECIMAL, Form.TEXT, Form.BYTES, Form.DATE, Form.TIME, Form.TIMESTAMP, Form.TIMESTAMPTZ}
    | {Form.UUID, Form.JSON, Form.BITS, Form.DOCUMENT}
)  # fmt: skip
_BARE: Final = frozenset(
    {Form.INT, Form.FLOAT, Form.DECIMAL, Form.DATE, Form.TIME, Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.UUID}
)
"""Forms whose texts hold nothing to escape."""
_TRUE: Final = "(?i:^(?:true|t|yes|1)$)"
_UTC: Final = re.compile(
    r"(\d{4,})-(\d\d)-(\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?(\.\d+)?(?:Z|([+-])(\d\d):?(\d\d)?)?( BC)?", re.ASCII
)
_ROWS: Final = 2_000
_SPECIAL: Final = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def formats_out(fields: Sequence[Field]) -> tuple[Format, ...]:
    """Return the formats in which these fields can be exported."""
    plain = {f.form for f in fields} <= _TEXT_FORMATS and not any(isinstance(f.column.type, Dynamic) for f in fields)
    return ("pgtext", "mytext", "rows") if fields and plain else ("rows",)


def export(columns: Sequence[Out], fields: Sequence[Field], fmt: Format, batches: Iterable[Batch]) -> Generator[Block]:
    """Stream fields as blocks. Raises InvalidInput for a value that its form cannot hold, naming line and column."""
    for field in fields:
        if field.expression is not None:
            raise Unsupported(
                f"the expression of {field.column.name!r}", "a file has no language", hint="constant=…, type=…"
            )
    work = _Copier(columns, fields)
    for batch in batches:
        if not batch.rows:
            continue
        if fmt == "rows":
            yield from work.rows(batch)
        elif fmt in ("pgtext", "mytext"):
            yield work.text(batch, fmt)
        else:
            raise Unsupported(f"exporting a file as {fmt}", "it can be pgtext, mytext and rows")


class _Copier:
    def __init__(self, columns: Sequence[Out], fields: Sequence[Field]) -> None:
        self._columns, self._fields = columns, fields
        self._numbers = {column.name: n for n, column in enumerate(columns)}
        self._pa = arrow.library()

    # ---- one column

    def _texts(self, batch: Batch, field: Field) -> Any:
        """Return a column as texts that every target reads as what they are; null for NULL. Odd cells and repairs are in it."""
        pa = self._pa
        if field.is_constant:
            return pa.array([field.constant] * batch.rows, pa.utf8())
        number = self._numbers[field.column.name]
        try:
            found = self._plain(batch.arrays[number], field)
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            raise self._refused(batch, field, error) from error
        changed = self._changed(batch, field, number, found)
        if changed:
            cells = found.to_pylist()
            for row, text in changed.items():
                cells[row] = text
            found = pa.array(cells, pa.utf8())
        return found

    def _changed(self, batch: Batch, field: Field, number: int, found: Any) -> dict[int, str | None]:
        changed: dict[int, str | None] = {
            row: _odd(cells[number], field) for row, cells in batch.odds.items() if number in cells
        }
        if field.repairs:
            texts = [None if v is None else canonical(field.form, _hexed(v, field)) for v in found.to_pylist()]
            for row, odd in changed.items():
                texts[row] = None if odd is None else odd.encode("utf-8", "surrogateescape")
            changed |= checks.changes(field, texts)
        return changed

    def _plain(self, values: Any, field: Field) -> Any:
        pa, form = self._pa, field.form
        types, kind = pa.types, values.type
        if types.is_string(kind):
            return self._spelled(values, field)
        if types.is_boolean(kind):
            return pa.compute.if_else(values, "1", "0")
        if types.is_integer(kind):
            return values.cast(pa.utf8())
        if types.is_floating(kind):
            return self._floats(values)
        if types.is_decimal(kind):
            texts = values.cast(pa.utf8())
            if pa.compute.any(pa.compute.match_substring(texts, "E")).as_py():
                texts = pa.array([None if v is None else format(v, "f") for v in values.to_pylist()], pa.utf8())
            return texts
        if types.is_date(kind):
            days = values.cast(pa.int32())
            if _inside(days, -719_162, 2_932_896):
                return values.cast(pa.utf8())
            return pa.array([None if v is None else _day(v) for v in days.to_pylist()], pa.utf8())
        if types.is_timestamp(kind):
            return self._moments(values)
        if types.is_time(kind):
            return values.cast(pa.utf8())
        if types.is_binary(kind):
            return pa.array([None if v is None else v.hex() for v in values.to_pylist()], pa.utf8())
        raise ValueError(f"{kind} cannot be {form}")

    def _floats(self, values: Any) -> Any:
        pa = self._pa
        texts = values.cast(pa.float64()).cast(pa.utf8())
        if pa.compute.all(pa.compute.is_finite(values)).as_py() is False:
            texts = pa.array([None if v is None else _SPECIAL.get(v, v) for v in texts.to_pylist()], pa.utf8())
        return texts

    def _moments(self, values: Any) -> Any:
        pa = self._pa
        micros = values.cast(pa.int64())
        if _inside(micros, -719_162 * 86_400_000_000, 2_932_897 * 86_400_000_000 - 1):
            return micros.cast(pa.timestamp("us")).cast(pa.utf8())
        found: list[str | None] = []
        for value in micros.to_pylist():
            if value is None:
                found.append(None)
                continue
            days, rest = divmod(value, 86_400_000_000)
            head, _, era = _day(days).partition(" ")
            seconds, micro = divmod(rest, 1_000_000)
            clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{micro:06d}"
            found.append(f"{head} {clock} {era}".rstrip())
        return pa.array(found, pa.utf8())

    def _spelled(self, values: Any, field: Field) -> Any:
        """Return texts of the file as the target reads them."""
        pa, form = self._pa, field.form
        compute = pa.compute
        match form:
            case Form.INT if isinstance(field.column.type, Boolean):
                return compute.if_else(compute.match_substring_regex(values, _TRUE), "1", "0")
            case Form.INT | Form.DECIMAL if compute.any(compute.match_substring_regex(values, "^[+]|[eE.]")).as_py():
                return values if form is Form.DECIMAL and not self._odd_number(values) else self._numbered(values, form)
            case Form.TIMESTAMP:
                return compute.replace_substring(values, "T", " ")
            case Form.TIMESTAMPTZ:
                if (
                    compute.all(
                        compute.match_substring_regex(values, r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z$")
                    ).as_py()
                    is not False
                ):
                    return compute.replace_substring(compute.utf8_rtrim(values, "Z"), "T", " ")
                return pa.array([None if v is None else _utc(v) for v in values.to_pylist()], pa.utf8())
            case Form.UUID:
                return compute.ascii_lower(values)
            case Form.BYTES:
                return compute.ascii_lower(compute.replace_substring_regex(values, r"^\\x", ""))
        return values

    def _odd_number(self, values: Any) -> bool:
        return bool(self._pa.compute.any(self._pa.compute.match_substring_regex(values, "^[+.]|[eE]|[.]$")).as_py())

    def _numbered(self, values: Any, form: Form) -> Any:
        found = []
        for value in values.to_pylist():
            number = None if value is None else Number(value)
            if number is None or not number.is_finite():
                found.append(value)
            elif form is Form.INT and number != int(number):
                raise ValueError(value)
            else:
                found.append(str(int(number)) if form is Form.INT else format(number, "f"))
        return self._pa.array(found, self._pa.utf8())

    # ---- blocks

    def text(self, batch: Batch, fmt: Format) -> Block:
        """Return a batch as COPY or LOAD DATA text."""
        pa = self._pa
        compute = pa.compute
        columns = []
        for field in self._fields:
            texts = self._texts(batch, field)
            if field.form is Form.BYTES and fmt == "pgtext":
                texts = compute.binary_join_element_wise("\\\\x", texts, "")
            elif field.form not in _BARE:
                texts = _escaped(texts, fmt)
            columns.append(texts)
        joined = compute.binary_join_element_wise(*columns, "\t", null_handling="replace", null_replacement="\\N")
        lines = compute.binary_join_element_wise(joined, "", "\n")
        data = lines.buffers()[2]
        first, last = (
            pa.Array.from_buffers(pa.int32(), 1, [None, lines.buffers()[1]], offset=at)[0].as_py()
            for at in (lines.offset, lines.offset + len(lines))
        )
        octets = data.slice(first, last - first).to_pybytes()
        return Block(data=octets, size=len(octets), rows=batch.rows)

    def rows(self, batch: Batch) -> Generator[Block]:
        """Yield a batch as rows of exchange values."""
        sides = [self._exchange(batch, field) for field in self._fields]
        size = sum(array.nbytes for array in batch.arrays) // max(batch.rows, 1) + 16
        data = list(zip(*sides, strict=True)) if sides else [()] * batch.rows
        for at in range(0, len(data), _ROWS):
            part = data[at : at + _ROWS]
            yield Block(data=part, size=size * len(part), rows=len(part))

    def _exchange(self, batch: Batch, field: Field) -> list[Any]:
        form, pa = field.form, self._pa
        if not field.is_constant and isinstance(field.column.type, Dynamic):
            return self._dynamic(batch, field)
        if not field.is_constant and not field.repairs and not batch.odds:
            values = batch.arrays[self._numbers[field.column.name]]
            kind = values.type
            if form is Form.INT and pa.types.is_integer(kind):
                return cast("list[Any]", values.to_pylist())
            if form is Form.FLOAT and pa.types.is_floating(kind):
                return cast("list[Any]", values.cast(pa.float64()).to_pylist())
            if form is Form.BYTES and pa.types.is_binary(kind):
                return cast("list[Any]", values.to_pylist())
        texts = self._texts(batch, field).to_pylist()
        try:
            match form:
                case Form.INT:
                    return [None if v is None else int(v) for v in texts]
                case Form.FLOAT:
                    return [None if v is None else _float(v) for v in texts]
                case Form.BYTES:
                    return [None if v is None else bytes.fromhex(v) for v in texts]
        except ValueError as error:
            raise self._refused(batch, field, error) from error
        return cast("list[Any]", texts)

    def _dynamic(self, batch: Batch, field: Field) -> list[Any]:
        """Return SQLite's values as its driver has them, or their texts where the target has one type."""
        number = self._numbers[field.column.name]
        values, out = batch.arrays[number], self._columns[number]
        if out.form is Form.DYNAMIC:
            found = [None if v is None else _driver(v) for v in values.to_pylist()]
        elif out.form in (Form.INT, Form.FLOAT, Form.BYTES):
            plain = field.__class__(column=_typed(field, out), form=out.form)
            bare = Batch(batch.first, batch.rows, batch.arrays, batch.place)
            found = self._exchange(bare, plain)
        else:
            found = self._texts(
                Batch(batch.first, batch.rows, batch.arrays, batch.place),
                field.__class__(column=_typed(field, out), form=out.form),
            ).to_pylist()
        for row, cells in batch.odds.items():
            if number in cells:
                odd = cells[number]
                found[row] = _driver(odd.text) if odd.form is Form.DYNAMIC else odd.text
        if field.form is Form.DYNAMIC:
            return found
        texts = [None if v is None else _as_text(v) for v in found]
        if field.repairs:
            classed: list[bytes | None] = [
                None if v is None else f"{_class(v)}:{t}".encode("utf-8", "surrogateescape")
                for v, t in zip(found, texts, strict=True)
            ]
            for row, text in checks.changes(field, classed).items():
                texts[row] = text.removeprefix("t:") if text is not None else None
        return texts

    def _refused(self, batch: Batch, field: Field, error: Exception) -> InvalidInput:
        name = field.column.name
        values = batch.arrays[self._numbers[name]]
        for row in range(batch.rows):
            one = Batch(batch.first + row, 1, [], batch.place)
            try:
                self._plain(values.slice(row, 1), field)
                if field.form in (Form.INT, Form.FLOAT, Form.BYTES):
                    text = self._plain(values.slice(row, 1), field)[0].as_py()
                    _ = text is None or {Form.INT: int, Form.FLOAT: float}.get(field.form, bytes.fromhex)(text)
            except (ValueError, ArithmeticError, self._pa.ArrowException):
                line = one.place(row)[0]
                shown = str(values[row].as_py())[:60]
                return InvalidInput(
                    f"line {line}, column {name!r}: {shown!r} is no {field.form}",
                    hint="choose another type with --type",
                )
        return InvalidInput(f"column {name!r}: {error}", hint="choose another type with --type")


def _typed(field: Field, out: Out) -> Any:
    import msgspec

    return msgspec.structs.replace(field.column, type=out.type)


def _inside(numbers: Any, first: int, last: int) -> bool:
    found = arrow.library().compute.min_max(numbers).as_py()
    return found["min"] is None or (first <= found["min"] and found["max"] <= last)


def _day(days: int) -> str:
    """Return a day, counted from 1970, by the civil calendar without end in both directions."""
    days += 719_468
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = day - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year += 400 * era + (month <= 2)
    return f"{year:04d}-{month:02d}-{date:02d}" if year > 0 else f"{1 - year:04d}-{month:02d}-{date:02d} BC"


def _utc(text: str) -> str:
    """Return an instant in UTC without offset."""
    found = _UTC.fullmatch(text)
    if found is None:
        if text.removesuffix("Z") in ("infinity", "-infinity"):
            return text.removesuffix("Z")
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, sign, hours, minutes, era = found.groups()
    shift = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "+" else 1)
    if not shift:
        return f"{year}-{month}-{day} {hour}:{minute}:{second or '00'}{fraction or ''}{era or ''}"
    # Years beyond Python's are moved by whole cycles of the calendar and back.
    number = 1 - int(year) if era else int(year)
    moved = dt.datetime(2000 + number % 400, int(month), int(day), int(hour), int(minute), int(second or 0)) + shift
    number += moved.year - 2000 - number % 400
    head = f"{number:04d}" if number > 0 else f"{1 - number:04d}"
    return f"{head}{moved:-%m-%d %H:%M:%S}{fraction or ''}{'' if number > 0 else ' BC'}"


def _escaped(texts: Any, fmt: Format) -> Any:
    compute = arrow.library().compute
    special = r"[\\\t\n\r]" if fmt == "pgtext" else r"[\\\t\n\r\x00]"
    if not compute.any(compute.match_substring_regex(texts, special)).as_py():
        return texts
    for plain, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        texts = compute.replace_substring(texts, plain, escape)
    return compute.replace_substring(texts, "\0", "\\0") if fmt == "mytext" else texts


def _hexed(value: str, field: Field) -> Any:
    return bytes.fromhex(value) if field.form in (Form.BYTES, Form.BSON) else value


def _odd(odd: Odd, field: Field) -> str | None:
    text = odd.text
    if odd.form is Form.DYNAMIC and field.form is not Form.DYNAMIC:
        return text[2:]
    if field.form is Form.TIMESTAMPTZ:
        return _utc(text)
    return text


def _float(text: str) -> float:
    found = float(text)
    if math.isinf(found) and "inf" not in text.lower():
        raise ValueError(text)
    return found


def _driver(text: str) -> Any:
    """Return a value of SQLite as its driver has it."""
    kind, value = text[:2], text[2:]
    match kind:
        case "i:":
            return int(value)
        case "r:":
            return float(value)
        case "b:":
            return bytes.fromhex(value)
    return value


def _class(value: Any) -> str:
    return {int: "i", float: "r", bytes: "b"}.get(type(value), "t")


def _as_text(value: Any) -> str:
    match value:
        case bytes():
            return value.hex()
        case float():
            if value - value != 0:
                return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
            text = format(Number(repr(value)), "f")
            return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)
