"""Rows of an answer as Arrow and back to what they are, octet by octet.

A cell that its column's Arrow type cannot hold (`asking.Odd`) is null there and lies in one extra column at the end, `dblens:odd`: null,
or JSON `{"<number of the column>": ["<form>", "<text>"]}`. So nothing is rounded, cut or lost on the way, and a reader that does not
know the extra column sees null, never a wrong value. `promoted` makes of such a column one of texts, for people.

Every field tells what it is: `dblens.type` (JSON of DataType), `dblens.native`, `dblens.form`, and `dblens.origin` (JSON of namespace,
table and column) where it is known.

Arrow is loaded when first used: `import dblens` does without it.
"""

from __future__ import annotations

import datetime as dt
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal as Number
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import Any, Final

import msgspec

from dblens.engines.asking import Odd, Out
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.types import (
    Binary,
    Boolean,
    DataType,
    Date,
    Decimal,
    Dynamic,
    Float,
    Integer,
    Text,
    Time,
    Timestamp,
    Year,
)
from dblens.values import speed
from dblens.values.codec import canonical
from dblens.values.forms import CODEC_VERSION, Form

ODD: Final = "dblens:odd"
TYPE: Final = b"dblens.type"
NATIVE: Final = b"dblens.native"
FORM: Final = b"dblens.form"
ORIGIN: Final = b"dblens.origin"
NAME: Final = b"dblens.name"
"""A column's name where its field could not have it: Parquet's readers want no two alike."""
PROMOTED: Final = b"dblens.promoted"
"""Set on a column that `promoted` turned to texts: `canonical`, or `escaped` where some of them are not Unicode and show `\\udcff`."""
CODEC: Final = b"dblens.codec"
WIDEST: Final = 76
"""Digits that Arrow's widest decimal holds."""

Texts = Sequence[bytes | None]
_Row = tuple[Any, ...]


@cache
def library() -> Any:
    """Return pyarrow. Raises Unsupported when it is not installed."""
    try:
        import_module("pyarrow.compute")
        return import_module("pyarrow")
    except ImportError:
        raise Unsupported("Arrow", "pyarrow is not installed", hint="pip install 'dblens[query]'") from None


# ------------------------------------------------------------------------------------------------------------------ schemas


def type_of(kind: DataType) -> Any:
    """Return the Arrow type that holds the values of a data type, by the table of `asking`."""
    pa = library()
    match kind:
        case Boolean():
            return pa.bool_()
        case Integer(bits, unsigned):
            width = 32 if bits == 24 else bits
            return getattr(pa, f"{'u' if unsigned else ''}int{width}")()
        case Year():
            return pa.int16()
        case Decimal(precision, scale) if precision is not None and scale is not None:
            # Scales outside 0..precision are PostgreSQL's (numeric(2, -3)), but not Parquet's.
            digits, behind = max(precision - min(scale, 0), scale), max(scale, 0)
            if digits <= WIDEST:
                return pa.decimal128(digits, behind) if digits <= 38 else pa.decimal256(digits, behind)
        case Float(bits):
            return pa.float32() if bits == 32 else pa.float64()
        case Binary():
            return pa.binary()
        case Date():
            return pa.date32()
        case Time(zone=False, span=False):
            return pa.time64("us")
        case Timestamp(zone=zone):
            return pa.timestamp("us", tz="UTC" if zone else None)
    return pa.utf8()


def schema_of(columns: Sequence[Out]) -> Any:
    """Return the Arrow schema of an answer: its columns, then `dblens:odd`."""
    pa = library()
    fields = [_field(column) for column in columns]
    if fields:
        fields.append(pa.field(ODD, pa.utf8(), metadata={FORM: b"odd"}))
    return pa.schema(fields, metadata={CODEC: str(CODEC_VERSION).encode()})


def _field(column: Out, kind: Any = None, extra: dict[bytes, bytes] | None = None) -> Any:
    told = {
        TYPE: msgspec.json.encode(column.type),
        NATIVE: _octets(column.native),
        FORM: column.form.value.encode(),
    }
    if column.table is not None:
        told[ORIGIN] = json.dumps([column.namespace, column.table, column.column]).encode()
    name = _octets(column.name).decode()
    return library().field(name, kind or type_of(column.type), metadata={**told, **(extra or {})})


def _octets(text: str) -> bytes:
    """Names are for people: what is not Unicode in them is shown with escapes."""
    return text.encode("utf-8", "backslashreplace")


def is_odd(field: Any) -> bool:
    """Return whether a field is the extra column."""
    return bool(field.name == ODD and (field.metadata or {}).get(FORM) == b"odd")


def outs(schema: Any) -> tuple[Out, ...]:
    """Return the columns that a schema tells of, without the extra one; a field that tells nothing is taken by its Arrow type."""
    return tuple([_out(field) for field in schema if not is_odd(field)])


def _out(field: Any) -> Out:
    told = field.metadata or {}
    if TYPE not in told or FORM not in told:
        kind, form = _guessed(field.type)
        return Out(name=field.name, type=kind, native=str(field.type), form=form)
    namespace, table, column = json.loads(told[ORIGIN]) if ORIGIN in told else (None, None, None)
    return Out(
        name=told[NAME].decode() if NAME in told else field.name,
        type=msgspec.json.decode(told[TYPE], type=DataType),
        native=told.get(NATIVE, b"").decode(),
        form=Form(told[FORM].decode()),
        namespace=namespace,
        table=table,
        column=column,
    )


def _guessed(kind: Any) -> tuple[DataType, Form]:
    types = library().types
    if types.is_dictionary(kind):
        return _guessed(kind.value_type)
    if types.is_boolean(kind):
        return Boolean(), Form.INT
    if types.is_integer(kind):
        return Integer(bits=kind.bit_width, unsigned=types.is_unsigned_integer(kind)), Form.INT
    if types.is_floating(kind):
        return Float(bits=max(kind.bit_width, 32)), Form.FLOAT
    if types.is_decimal(kind):
        return Decimal(precision=kind.precision, scale=kind.scale), Form.DECIMAL
    if types.is_date(kind):
        return Date(), Form.DATE
    if types.is_time(kind):
        return Time(), Form.TIME
    if types.is_timestamp(kind):
        return Timestamp(zone=kind.tz is not None), Form.TIMESTAMP if kind.tz is None else Form.TIMESTAMPTZ
    if any(t(kind) for t in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)):
        return Binary(), Form.BYTES
    return Text(), Form.TEXT


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are alike: the second `n` is `n_2`."""
    taken, found = set(names), dict[str, None]()
    for name in names:
        key, number = name, 2
        while key in found or (key != name and key in taken):
            key, number = f"{name}_{number}", number + 1
        found[key] = None
    return tuple(found)


def distinctly(schema: Any) -> Any:
    """Return a schema of which no two fields are alike; those renamed tell their columns' names."""
    fields = []
    for field, name in zip(schema, distinct(schema.names), strict=True):
        told = {**(field.metadata or {}), NAME: field.name.encode()}
        fields.append(field if name == field.name else field.with_name(name).with_metadata(told))
    return library().schema(fields, metadata=schema.metadata)


# ------------------------------------------------------------------------------------------------------------ rows to Arrow


class Writer:
    """Makes record batches of the rows of one answer."""

    def __init__(self, columns: Sequence[Out]) -> None:
        self.columns = tuple(columns)
        self.schema = schema_of(columns)
        self._pa = library()
        self._steps = [_Step(column, field.type) for column, field in zip(self.columns, self.schema, strict=False)]

    def batch(self, rows: Sequence[Sequence[Any]]) -> Any:
        """Return rows as one batch. Raises InvalidInput for a value that is neither its column's nor `Odd`."""
        steps, pa = self._steps, self._pa
        if not rows or not steps:
            return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in self.schema], schema=self.schema)
        if len(rows[0]) != len(steps):
            raise ValueError(f"a row of {len(rows[0])} values for {len(steps)} columns")
        odd: dict[int, dict[str, tuple[str, str]]] = {}
        arrays = []
        for number, (step, column) in enumerate(zip(steps, zip(*rows, strict=True), strict=True)):
            try:
                arrays.append(step.fast(column))
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                values, odds = step.exact(column)
                arrays.append(values)
                for row, value in odds.items():
                    odd.setdefault(row, {})[str(number)] = (value.form.value, value.text)
        if odd:
            arrays.append(pa.array([json.dumps(odd[i]) if i in odd else None for i in range(len(rows))], pa.utf8()))
        else:
            arrays.append(pa.nulls(len(rows), pa.utf8()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _Step:
    """One column's way into Arrow: as a whole and fast, or value by value."""

    def __init__(self, column: Out, kind: Any) -> None:
        self._column, self._type, self._pa = column, kind, library()
        self.fast: Callable[[_Row], Any] = getattr(self, f"_{_family(self._pa, kind)}")
        types = self._pa.types
        self._code = {8: "b", 16: "h", 32: "i", 64: "q"}[kind.bit_width] if types.is_integer(kind) else ""
        if types.is_unsigned_integer(kind):
            self._code = self._code.upper()
        self._moment: Any = dt.datetime if types.is_timestamp(kind) else dt.date if types.is_date(kind) else dt.time
        self._zone = getattr(kind, "tz", None) is not None

    # Arrow cuts 1.5 to 1 where an integer is wanted, takes 5 for a moment, a moment for its day, and one with a zone for one
    # without: those are seen here.

    def _plain(self, column: _Row) -> Any:
        return self._pa.array(column, self._type)

    def _whole(self, column: _Row) -> Any:
        if self._code:
            try:  # no NULL among them: only whole numbers become an array
                octets = self._pa.py_buffer(array(self._code, column))
                return self._pa.Array.from_buffers(self._type, len(column), [None, octets])
            except TypeError:
                self._code = ""
        if type(sum(filter(None, column))) is not int:  # the sum of whole numbers, and of nothing else, is one
            raise TypeError("not whole numbers")
        return self._pa.array(column, self._type)

    def _single(self, column: _Row) -> Any:
        wide = self._pa.array(column, self._pa.float64())
        compute = self._pa.compute
        narrow = compute.cast(wide, self._type, safe=False)
        if compute.any(compute.and_(compute.is_inf(narrow), compute.invert(compute.is_inf(wide)))).as_py():
            raise ValueError("beyond a single")
        return narrow

    def _decimal(self, column: _Row) -> Any:
        if type(next(filter(None, column), None)) is str:
            return self._pa.array(column, self._pa.utf8()).cast(self._type)
        return self._pa.array(column, self._type)

    def _temporal(self, column: _Row) -> Any:
        first = next((value for value in column if value is not None), None)
        if first is not None and not self._fits(first):
            raise TypeError("not a moment of this column")
        return self._pa.array(column, self._type)

    def _fits(self, value: Any) -> bool:
        if type(value) is not self._moment:
            return False
        return type(value) is dt.date or (value.tzinfo is not None) == self._zone

    def exact(self, column: _Row) -> tuple[Any, dict[int, Odd]]:
        """Return the column with nulls for what it cannot hold, and that by row."""
        values: list[Any] = list(column)
        odds: dict[int, Odd] = {}
        for row, value in enumerate(column):
            if value is None:
                continue
            if type(value) is Odd:
                values[row], odds[row] = None, value
                continue
            held = values[row] = self._held(value)
            if held is None:
                odds[row] = self._odd(value)
        return self._pa.array(values, self._type), odds

    def _held(self, value: Any) -> Any:
        """Return the value as Arrow takes it without a change, None when it cannot."""
        types, kind = self._pa.types, self._type
        if types.is_string(kind):
            text = value if isinstance(value, str) else self._odd(value).text
            return text if _is_unicode(text) else None
        if types.is_boolean(kind):
            return bool(value) if isinstance(value, int) and value in (0, 1) else None
        if types.is_decimal(kind) and isinstance(value, str):
            try:
                value = Number(value)
            except ArithmeticError:
                return None
        if types.is_integer(kind) and not isinstance(value, int):
            return None
        if types.is_temporal(kind) and not self._fits(value):
            return None
        try:
            return value if self.fast((value,)).is_valid()[0].as_py() else None
        except (self._pa.ArrowException, ValueError, TypeError, OverflowError):
            return None

    def _odd(self, value: Any) -> Odd:
        form = self._column.form
        try:
            if isinstance(value, str) and self._pa.types.is_string(self._type):
                return Odd(value, form)  # it is a canonical text already
            text = canonical(form, value)
        except (ValueError, ArithmeticError) as error:
            what = f"column {self._column.name!r} ({self._column.native}) holds a value that is not one of its own"
            raise InvalidInput(f"{what}: {error}", hint="cast the column to text in the query") from error
        return Odd((text or b"").decode("utf-8", "surrogateescape"), form)


def _family(pa: Any, kind: Any) -> str:
    types = pa.types
    if types.is_integer(kind):
        return "whole"
    if types.is_float32(kind):
        return "single"
    if types.is_decimal(kind):
        return "decimal"
    return "temporal" if types.is_temporal(kind) else "plain"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------- and back, as they are


def odds_of(batch: Any) -> dict[int, dict[int, Odd]]:
    """Return the cells that lie in the extra column, by row and column; a batch or a table."""
    last = batch.num_columns - 1
    if last < 0 or not is_odd(batch.schema.field(last)):
        return {}
    texts = batch.column(last)
    if texts.null_count == len(texts):
        return {}
    found: dict[int, dict[int, Odd]] = {}
    for row, text in enumerate(texts.to_pylist()):
        if text is not None:
            cells = json.loads(text)
            found[row] = {int(number): Odd(text, Form(form)) for number, (form, text) in cells.items()}
    return found


def octets_of(odd: Odd) -> bytes:
    """Return an odd cell's canonical text in octets: those that SQLite stores for a text that is not UTF-8, too."""
    return odd.text.encode("utf-8", "surrogateescape" if odd.form is Form.DYNAMIC else "surrogatepass")


def canonical_rows(batch: Any) -> Iterator[tuple[bytes | None, ...]]:
    """Yield the canonical texts of each row of a batch or table, by `values.forms`: what digests compare."""
    if not isinstance(batch, library().RecordBatch):
        for part in batch.to_batches():
            yield from canonical_rows(part)
        return
    columns = outs(batch.schema)
    odd = odds_of(batch)
    if not columns:
        yield from repeat((), batch.num_rows)
        return
    kinds, sides = zip(*[_side(column, batch.column(number)) for number, column in enumerate(columns)], strict=True)
    rows = speed.render_rows(list(zip(*sides, strict=True)), "".join(kinds).encode())
    if not odd:
        yield from rows
        return
    for number, row in enumerate(rows):
        cells = odd.get(number)
        yield (
            row if cells is None else tuple([octets_of(cells[i]) if i in cells else text for i, text in enumerate(row)])
        )


def canonical_column(column: Out, values: Any) -> list[bytes | None]:
    """Return the canonical texts of one column's array, without what the extra column holds."""
    kind, side = _side(column, values)
    return [row[0] for row in speed.render_rows([(value,) for value in side], kind.encode())]


def _side(column: Out, values: Any) -> tuple[str, list[Any]]:
    """Return a column's values as `values.speed` takes them, and their kind there; as a whole where Arrow can write them."""
    pa = library()
    types, kind, form = pa.types, values.type, column.form
    if types.is_dictionary(kind):
        return _side(column, values.dictionary_decode())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "r", values.cast(pa.binary() if types.is_string(kind) else pa.large_binary()).to_pylist()
    if types.is_boolean(kind) and form is Form.INT:
        return "v", values.to_pylist()
    if types.is_floating(kind) and form in _NUMBERS:
        return _NUMBERS[form], values.cast(pa.float64()).to_pylist()
    if types.is_integer(kind) and form in _NUMBERS:
        return _NUMBERS[form], values.to_pylist()
    if types.is_decimal(kind) and form is Form.DECIMAL:
        return "d", values.cast(pa.utf8()).to_pylist()
    if types.is_date(kind) and form is Form.DATE:
        return "r", _dates(values.cast(pa.date32()))
    if types.is_time(kind) and form is Form.TIME:
        return "r", _trimmed(_fine(values, "time64"))
    if types.is_timestamp(kind) and form in (Form.TIMESTAMP, Form.TIMESTAMPTZ):
        return "r", _moments(values)
    if form is Form.BYTES:
        return "b", values.to_pylist()
    return "r", [canonical(form, value) for value in values.to_pylist()]


_NUMBERS = {Form.INT: "i", Form.FLOAT: "f", Form.DECIMAL: "d", Form.DYNAMIC: "y"}
_DAY = 86_400
_CYCLE = 146_097
"""Days of 400 years."""
_FIRST, _LAST = dt.date.min.toordinal() - 719_163, dt.date.max.toordinal() - 719_163
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _fine(values: Any, kind: str) -> Any:
    """Return times of day or moments in microseconds, in nanoseconds where they are."""
    pa = library()
    return values.cast(getattr(pa, kind)("ns" if values.type.unit == "ns" else "us"))


def _trimmed(values: Any) -> list[Any]:
    """Return what has a point and six or nine digits behind it as text, without trailing zeros."""
    pa = library()
    texts = pa.compute.utf8_rtrim(pa.compute.utf8_rtrim(values.cast(pa.utf8()), "0"), ".")
    return _list(texts.cast(pa.binary()))


def _list(values: Any) -> list[Any]:
    found: list[Any] = values.to_pylist()
    return found


def _dates(values: Any) -> list[Any]:
    pa = library()
    days = values.cast(pa.int32())
    if _within(days, _FIRST, _LAST):
        return _list(values.cast(pa.utf8()).cast(pa.binary()))
    return [None if day is None else _day(day).encode() for day in days.to_pylist()]


def _moments(values: Any) -> list[Any]:
    pa = library()
    second = _TICKS[values.type.unit]
    ticks = values.cast(pa.int64())
    if _within(ticks, _FIRST * _DAY * second, (_LAST + 1) * _DAY * second - 1):
        return _trimmed(_fine(ticks.cast(pa.timestamp(values.type.unit)), "timestamp"))
    return [None if tick is None else _moment(tick, second) for tick in ticks.to_pylist()]


def _within(numbers: Any, first: int, last: int) -> bool:
    found = library().compute.min_max(numbers).as_py()
    return found["min"] is None or (first <= found["min"] and found["max"] <= last)


def _day(day: int) -> str:
    """Return a day's canonical text: the calendar repeats every 400 years, so that years before 1 and beyond 9999 work too."""
    cycles, place = divmod(day, _CYCLE)
    date = dt.date(1970, 1, 1) + dt.timedelta(days=place)
    year = date.year + 400 * cycles
    return f"{year:04d}{date:-%m-%d}" if year > 0 else f"{1 - year:04d}{date:-%m-%d} BC"


def _moment(tick: int, second: int) -> bytes:
    seconds, part = divmod(tick, second)
    day, clock = divmod(seconds, _DAY)
    date, _, era = _day(day).partition(" ")
    fraction = f"{part:0{len(str(second)) - 1}d}".rstrip("0") if part else ""
    text = f"{date} {clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}{'.' if fraction else ''}{fraction}"
    return f"{text} {era}".rstrip().encode()


# --------------------------------------------------------------------------------------------------------------- for people


def promoted(table: Any) -> Any:
    """Return a table without the extra column: a column with odd cells becomes one of canonical texts, and its field says so.

    Where SQLite's other storage classes are among them, each text of the column tells its own (`i:5`, `t:five`).
    """
    pa = library()
    if not table.num_columns or not is_odd(table.schema.field(table.num_columns - 1)):
        return table
    by_column: dict[int, dict[int, Odd]] = {}
    for row, cells in odds_of(table).items():
        for number, odd in cells.items():
            by_column.setdefault(number, {})[row] = odd
    arrays, fields = [], []
    for number, column in enumerate(outs(table.schema)):
        values, field = table.column(number), table.schema.field(number)
        if number in by_column:
            values, field = _texts(column, values, by_column[number])
        arrays.append(values)
        fields.append(field)
    return pa.table(arrays, schema=pa.schema(fields, metadata=table.schema.metadata))


def _texts(column: Out, values: Any, odds: dict[int, Odd]) -> tuple[Any, Any]:
    pa = library()
    form = Form.DYNAMIC if any(odd.form is Form.DYNAMIC for odd in odds.values()) else column.form
    if form is column.form:
        texts = canonical_column(column, values)
    else:
        texts = [None if value is None else canonical(form, value) for value in values.to_pylist()]
    told, shown = b"canonical", []
    for row, text in enumerate(texts):
        octets = octets_of(odds[row]) if row in odds else text
        try:
            shown.append(None if octets is None else octets.decode())
        except UnicodeDecodeError:
            told = b"escaped"
            shown.append((octets or b"").decode("utf-8", "backslashreplace"))
    kept = Out(
        name=column.name,
        type=Dynamic() if form is Form.DYNAMIC else column.type,
        native=column.native,
        form=form,
        namespace=column.namespace,
        table=column.table,
        column=column.column,
    )
    return pa.array(shown, pa.utf8()), _field(kept, pa.utf8(), {PROMOTED: told})
