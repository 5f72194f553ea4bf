"""Rows → batch → IPC → canonical texts: what went in, octet by octet, odd values too."""

from __future__ import annotations

import datetime as dt
import gc
import io
import math
import time
from collections.abc import Sequence
from decimal import Decimal as Number
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.errors import InvalidInput
from dblens.schema import types as t
from dblens.values.codec import canonical
from dblens.values.forms import Form

pa = pytest.importorskip("pyarrow")
UTC = dt.UTC


def out(kind: t.DataType, form: Form, name: str = "c", **more: Any) -> Out:
    return Out(name=name, type=kind, native="native", form=form, **more)


def through(batch: Any) -> Any:
    """Write it as an IPC stream and read it again."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def texts(column: Out, values: Sequence[Any]) -> list[bytes | None]:
    return [row[0] for row in arrow.canonical_rows(through(arrow.Writer([column]).batch([(v,) for v in values])))]


def expected(form: Form, value: Any) -> bytes | None:
    return arrow.octets_of(value) if isinstance(value, Odd) else canonical(form, value)


def odds(form: Form, *some: str) -> st.SearchStrategy[Odd]:
    return st.sampled_from([Odd(text, form) for text in some])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HOSTILE = st.sampled_from(["", "NULL", "\0", "a\0b", "=1+1", "🦜", "\r\n", "\\N", "ß" * 50])
DYNAMIC = st.sampled_from(
    [
        Odd("t:five", Form.DYNAMIC),
        Odd("b:00ff", Form.DYNAMIC),
        Odd("r:1.5", Form.DYNAMIC),
        Odd("t:\udcff\udc80", Form.DYNAMIC),
    ]
)
DIGITS = st.integers(-(10**76) + 1, 10**76 - 1)
MOMENTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999))
OFFSETS = st.sampled_from([UTC, dt.timezone(dt.timedelta(hours=5, minutes=45)), dt.timezone(-dt.timedelta(hours=12))])

CASES: dict[str, tuple[Out, st.SearchStrategy[Any]]] = {
    "boolean": (out(t.Boolean(), Form.INT), st.booleans() | st.sampled_from([0, 1]) | DYNAMIC),
    "int8": (out(t.Integer(8), Form.INT), st.integers(-128, 127) | DYNAMIC),
    "uint8": (out(t.Integer(8, True), Form.INT), st.integers(0, 255)),
    "int16": (out(t.Integer(16), Form.INT), st.integers(-(2**15), 2**15 - 1)),
    "int24": (out(t.Integer(24), Form.INT), st.integers(-(2**23), 2**23 - 1)),
    "uint24": (out(t.Integer(24, True), Form.INT), st.integers(0, 2**24 - 1)),
    "int32": (out(t.Integer(32), Form.INT), st.integers(-(2**31), 2**31 - 1) | DYNAMIC),
    "int64": (out(t.Integer(), Form.INT), st.integers(-(2**63), 2**63 - 1) | DYNAMIC | odds(Form.INT, str(2**63))),
    "uint64": (out(t.Integer(64, True), Form.INT), st.integers(0, 2**64 - 1) | st.just(2**64 - 1)),
    "int64 beyond": (out(t.Integer(), Form.INT), st.integers(-(2**70), 2**70)),
    "year": (out(t.Year(), Form.INT), st.sampled_from([0, 1901, 2155])),
    "decimal": (
        out(t.Decimal(38, 10), Form.DECIMAL),
        st.decimals(-(10**27), 10**27, places=10, allow_nan=False)
        | st.sampled_from([Number("NaN"), Number("Infinity"), Number("-Infinity"), Number("-0.00"), Number("1E+5")])
        | odds(Form.DECIMAL, "NaN", "Infinity", "-Infinity", "9" * 90),
    ),
    "decimal texts": (
        out(t.Decimal(12, 4), Form.DECIMAL),
        st.decimals(-(10**7), 10**7, places=4, allow_nan=False).map(lambda n: format(n, "f")) | st.just("NaN"),
    ),
    "decimal of 76": (out(t.Decimal(76, 0), Form.DECIMAL), DIGITS.map(Number) | DIGITS.map(str) | DIGITS),
    "decimal of 76, all behind": (out(t.Decimal(76, 76), Form.DECIMAL), DIGITS.map(lambda n: f"{'-' * (n < 0)}0.{abs(n):076d}")),
    "decimal too fine": (out(t.Decimal(10, 2), Form.DECIMAL), st.sampled_from([Number("1.005"), "0.001", Number(10) ** 9])),
    "numeric(2, -3)": (out(t.Decimal(2, -3), Form.DECIMAL), st.integers(-99, 99).map(lambda n: Number(n * 1000))),
    "numeric(3, 5)": (out(t.Decimal(3, 5), Form.DECIMAL), st.integers(-999, 999).map(lambda n: Number(n).scaleb(-5))),
    "decimal of 77": (out(t.Decimal(77, 2), Form.DECIMAL), st.sampled_from(["1", "9" * 75 + ".99", "NaN"])),
    "numeric": (out(t.Decimal(special=True), Form.DECIMAL), DIGITS.map(str) | st.sampled_from(["NaN", "0." + "0" * 500 + "1"])),
    "float": (out(t.Float(), Form.FLOAT), st.floats() | st.sampled_from([-0.0, 5e-324, math.nan, math.inf]) | DYNAMIC),
    "text": (out(t.Text(), Form.TEXT), TEXT | HOSTILE | st.just(Odd("\ud800x", Form.TEXT)) | DYNAMIC),
    "binary": (out(t.Binary(), Form.BYTES), st.binary(max_size=9) | DYNAMIC),
    "date": (
        out(t.Date(), Form.DATE),
        st.dates() | odds(Form.DATE, "infinity", "-infinity", "4713-01-01 BC", "10000-01-01", "0000-00-00", "2020-02-30"),
    ),
    "time": (out(t.Time(), Form.TIME), st.times() | odds(Form.TIME, "24:00:00", "838:59:59")),
    "span": (out(t.Time(span=True), Form.TIME), st.sampled_from(["-838:59:59", "00:00:00", "12:00:00.5"])),
    "timetz": (out(t.Time(zone=True), Form.TIMETZ), st.sampled_from(["12:00:00+02", "24:00:00-15:59"])),
    "timestamp": (
        out(t.Timestamp(), Form.TIMESTAMP),
        MOMENTS | odds(Form.TIMESTAMP, "infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "0000-00-00 00:00:00"),
    ),
    "timestamptz": (
        out(t.Timestamp(zone=True), Form.TIMESTAMPTZ),
        st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59), timezones=OFFSETS)
        | odds(Form.TIMESTAMPTZ, "-infinity", "0044-03-15 12:00:00 BC"),
    ),
    "interval": (out(t.Interval(), Form.INTERVAL), st.sampled_from(["0 0 0", "-1 3 -86400000000", "infinity"])),
    "uuid": (out(t.Uuid(), Form.UUID), st.uuids().map(str)),
    "json": (out(t.Json(), Form.JSON), st.sampled_from(['{"a":1}', "null", '"\\u0000"', '"\\ud800"', "12345678901234567890.1"])),
    "bits": (out(t.Bits(8), Form.BITS), st.sampled_from(["", "0", "10101010"])),
    "enum": (out(t.Enum(("a", "ü")), Form.TEXT), st.sampled_from(["a", "ü", ""])),
    "array": (out(t.Array(t.Integer()), Form.NATIVE), st.sampled_from(["{}", "{1,NULL,3}"])),
    "geometry": (out(t.Geometry(), Form.GEOMETRY), st.just("4326:0101000000")),
    "object id": (out(t.ObjectId(), Form.DOCUMENT), st.just('{"$oid":"0123456789abcdef01234567"}')),
    "document": (out(t.Document(), Form.DOCUMENT), st.just('{"a":{"$numberDecimal":"NaN"}}')),
    "opaque": (out(t.Opaque("inet"), Form.NATIVE), st.just("::1/128")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip(case: str, data: st.DataObject) -> None:
    column, values = CASES[case]
    rows = data.draw(st.lists(values | st.none(), max_size=8))
    assert texts(column, rows) == [expected(column.form, value) for value in rows]


def test_dynamic_columns_hold_their_canonical_texts() -> None:
    column = out(t.Dynamic(), Form.DYNAMIC)
    rows = ["i:5", "t:", "t:NULL", "b:00", "r:-0", None, "t:\udcff"]
    assert texts(column, rows) == [None if v is None else v.encode("utf-8", "surrogateescape") for v in rows]


def test_a_single_is_its_widened_double_and_never_infinite_by_mistake() -> None:
    column = out(t.Float(32), Form.FLOAT)
    assert texts(column, [0.1, math.inf, None, math.nan]) == [b"0.10000000149011612", b"Infinity", None, b"NaN"]
    assert texts(column, [1.0, 1e300]) == [b"1", canonical(Form.FLOAT, 1e300)]


@pytest.mark.parametrize(
    ("kind", "form", "value"),
    [
        (t.Integer(), Form.INT, 1.5),
        (t.Integer(), Form.INT, Number("1.5")),
        (t.Integer(), Form.INT, "abc"),
        (t.Date(), Form.DATE, dt.datetime(2020, 1, 1, 5)),
        (t.Timestamp(), Form.TIMESTAMP, dt.datetime(2020, 1, 1, tzinfo=UTC)),
        (t.Timestamp(zone=True), Form.TIMESTAMPTZ, dt.datetime(2020, 1, 1)),
        (t.Time(), Form.TIME, 5),
        (t.Date(), Form.DATE, 5),
    ],
)
@pytest.mark.parametrize("beside", [(), (None,)])
def test_what_arrow_would_bend_is_refused_or_kept(
    kind: t.DataType, form: Form, value: Any, beside: tuple[Any, ...]
) -> None:
    with pytest.raises(InvalidInput, match="column 'c'"):
        arrow.Writer([out(kind, form)]).batch([(v,) for v in (*beside, value, *beside)])


def test_the_extra_column_says_where() -> None:
    columns = [out(t.Integer(), Form.INT, "a"), out(t.Date(), Form.DATE, "b")]
    batch = arrow.Writer(columns).batch([(1, dt.date(2020, 1, 1)), (2, Odd("infinity", Form.DATE))])
    assert batch.schema.names == ["a", "b", "dblens:odd"]
    assert batch.column(2).to_pylist() == [None, '{"1": ["date", "infinity"]}']
    assert batch.column(1).to_pylist() == [dt.date(2020, 1, 1), None]


def test_fields_tell_what_they_are() -> None:
    columns = (
        out(t.Decimal(12, 2), Form.DECIMAL, "price", namespace="public", table="o", column="p"),
        out(t.Enum(("a", "b"), "mood"), Form.TEXT, "price"),
        out(t.Text(), Form.TEXT, "dblens:odd"),
        out(t.Text(), Form.TEXT, 'a "\0 🦜'),
    )
    schema = through(arrow.Writer(columns).batch([])).schema
    assert arrow.outs(schema) == columns
    assert arrow.outs(arrow.Writer([out(t.Text(), Form.TEXT, "\ud800")]).schema)[0].name == "\\ud800"
    assert arrow.Writer([]).batch([]).num_columns == 0


def test_foreign_arrow_is_taken_by_its_types() -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.uint16()),
            "d": pa.array([Number("1.50"), None]),
            "s": pa.array(["a", None]).dictionary_encode(),
            "l": pa.array(["ä", None], pa.large_utf8()),
            "v": pa.array(["ä", None], pa.string_view()),
            "b": pa.array([b"\0", None], pa.large_binary()),
            "ns": pa.array([1, None], pa.timestamp("ns")),
            "far": pa.array([-(10**12), 10**12], pa.timestamp("s", "Europe/Berlin")),
            "ms": pa.array([1500, None], pa.time32("ms")),
            "day": pa.array([-800_000, 3_000_000], pa.date32()),
            "h": pa.array([1.5, None], pa.float16()),
        }
    )
    first, second = arrow.canonical_rows(table)
    assert first == (
        b"1", b"1.5", b"a", "ä".encode(), "ä".encode(), b"00", b"1970-01-01 00:00:00.000000001", b"29720-04-05 22:13:20 BC",
        b"00:00:01.5", b"0222-09-04 BC", b"1.5",
    )  # fmt: skip
    assert second[7] == b"33658-09-27 01:46:40"
    assert second[9] == b"10183-09-21"


def test_promoted_columns_are_texts_and_say_so() -> None:
    columns = [
        out(t.Integer(), Form.INT, "i"),
        out(t.Date(), Form.DATE, "d"),
        out(t.Text(), Form.TEXT, "s"),
        out(t.Integer(), Form.INT, "n"),
    ]
    rows = [
        (5, dt.date(2020, 1, 1), "b:00", 1),
        (Odd("t:five", Form.DYNAMIC), Odd("infinity", Form.DATE), Odd("t:\udcff", Form.DYNAMIC), 2),
        (None, None, None, None),
    ]  # fmt: skip
    table = arrow.promoted(through(arrow.Writer(columns).batch(rows)))
    assert table.to_pylist() == [
        {"i": "i:5", "d": "2020-01-01", "s": "t:b:00", "n": 1},
        {"i": "t:five", "d": "infinity", "s": "t:\\xff", "n": 2},
        {"i": None, "d": None, "s": None, "n": None},
    ]
    told = [(field.metadata or {}).get(arrow.PROMOTED) for field in table.schema]
    assert told == [b"canonical", b"canonical", b"escaped", None]
    assert [column.form for column in arrow.outs(table.schema)] == [Form.DYNAMIC, Form.DATE, Form.DYNAMIC, Form.INT]
    assert table.schema.field(3) == arrow.Writer(columns).schema.field(3)
    assert next(arrow.canonical_rows(table)) == (b"i:5", b"2020-01-01", b"t:b:00", b"1")
    again = arrow.promoted(table)
    assert again is table


def test_rows_of_another_width_are_refused() -> None:
    writer = arrow.Writer([out(t.Integer(), Form.INT)])
    with pytest.raises(ValueError, match="2 values for 1"):
        writer.batch([(1, 2)])
    with pytest.raises(ValueError, match="argument"):
        writer.batch([(1,), (1, 2)])
    with pytest.raises(ValueError, match="argument"):
        writer.batch([(1,), ()])


def _best(work: Any, times: int = 15) -> float:
    found = []
    gc.disable()
    try:
        for _ in range(times):
            begun = time.process_time()
            work()
            found.append(time.process_time() - begun)
    finally:
        gc.enable()
    return min(found)


def test_costs_no_more_than_arrow_itself() -> None:
    number = 8192
    kinds: list[tuple[t.DataType, Form, list[Any]]] = [
        (t.Integer(), Form.INT, list(range(10**12, 10**12 + number))),
        (t.Integer(32), Form.INT, [n if n % 9 else None for n in range(number)]),
        (t.Float(), Form.FLOAT, [n * 1.1 for n in range(number)]),
        (t.Decimal(12, 2), Form.DECIMAL, [Number(n) / 100 for n in range(number)]),
        (t.Text(), Form.TEXT, [f"name {n}" for n in range(number)]),
        (t.Text(), Form.TEXT, [None if n % 3 else "x" * 40 for n in range(number)]),
        (t.Timestamp(zone=True), Form.TIMESTAMPTZ, [dt.datetime(2020, 1, 1, tzinfo=UTC) + dt.timedelta(seconds=n) for n in range(number)]),
        (t.Boolean(), Form.INT, [bool(n % 2) for n in range(number)]),
    ]  # fmt: skip
    writer = arrow.Writer([out(kind, form, str(at)) for at, (kind, form, _) in enumerate(kinds)])
    rows = list(zip(*[values for _, _, values in kinds], strict=True))
    types = [field.type for field in writer.schema][:-1]
    ratios = []
    for _ in range(5):
        plain = _best(
            lambda: [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
        )
        ratios.append(_best(lambda: writer.batch(rows)) / plain)
    print(f"writer / plain pa.array: {min(ratios):.3f}")
    assert min(ratios) < 1.1
