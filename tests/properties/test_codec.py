"""The canonical codec and the digests, property by property, against independent definitions (decimal, struct, datetime, json)."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import struct
import uuid
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dblens.values.codec import canonical, float_text, plain_number, renderer
from dblens.values.digest import Accumulator, Fingerprint, Sum, bucket_of, line, row_digest
from dblens.values.forms import Form
from dblens.values.jsontext import json_text

FIELDS = st.lists(
    st.none() | st.binary(max_size=12) | st.sampled_from([b"-", b"", b"1:a", b"0:", b"-1:x", b"10:"]), max_size=5
)
NUMBERS = st.from_regex(r"\A[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?\Z")
ZONES = st.integers(-15 * 3600, 15 * 3600).map(lambda s: dt.timezone(dt.timedelta(seconds=s)))


# ------------------------------------------------------------------------------------------------------------- lines and digests


def unline(octets: bytes) -> list[bytes | None]:
    """Read a line back, by its definition alone."""
    fields: list[bytes | None] = []
    while octets:
        if octets.startswith(b"-"):
            fields.append(None)
            octets = octets[1:]
        else:
            size, _, rest = octets.partition(b":")
            fields.append(rest[: int(size)])
            octets = rest[int(size) :]
    return fields


@given(FIELDS)
def test_a_line_can_be_read_back(fields: list[bytes | None]) -> None:
    assert unline(line(fields)) == fields


@given(FIELDS, FIELDS)
def test_lines_are_equal_only_for_equal_rows(a: list[bytes | None], b: list[bytes | None]) -> None:
    assert (line(a) == line(b)) == (a == b)
    assert (row_digest(a) == row_digest(b)) == (a == b)


def test_null_and_its_look_alikes_differ() -> None:
    rows: list[Sequence[bytes | None]] = [
        [None], [b""], [b"-"], [b"NULL"], [b"\\N"], [b"<null>"], [None, None], [b"", b""], [b"a|b", b"c"], [b"a", b"b|c"], [],
    ]  # fmt: skip
    assert len({row_digest(r) for r in rows}) == len(rows)


def test_the_definition_is_pinned() -> None:
    """Version 1 for ever: an executed notebook of today must verify in ten years."""
    assert line([b"1", None, "é".encode(), b""]) == b"1:1-2:\xc3\xa90:"
    assert row_digest([b"1", None, "é".encode(), b""]).hex() == hashlib.sha256(b"1:1-2:\xc3\xa90:").hexdigest()[:32]
    assert bucket_of(bytes.fromhex("abc1" + "00" * 14)) == 0xABC


@given(st.lists(FIELDS, max_size=12), st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list[list[bytes | None]], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, two, parts = Accumulator(), Accumulator(), Accumulator()
    assert one.add_rows(rows) == len(rows)
    for row in mixed:
        two.add_digest(row_digest(row))
    half = Accumulator()
    half.add_rows(rows[::2])
    parts.add_sums(half.fingerprint().buckets)
    parts.add_rows(rows[1::2])
    assert one.fingerprint() == two.fingerprint() == parts.fingerprint()
    total = one.fingerprint().total
    lanes = [int.from_bytes(row_digest(r), "big") for r in rows]
    assert total.count == len(rows)
    assert total.lane0 == sum(v >> 64 for v in lanes) % 2**64
    assert total.lane1 == sum(v % 2**64 for v in lanes) % 2**64


@given(st.lists(FIELDS, min_size=1, max_size=8), st.data())
def test_duplicates_count(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(rows))
    one, two = Accumulator(), Accumulator()
    one.add_rows(rows)
    two.add_rows([*rows, again])
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint().differing(two.fingerprint()) == [bucket_of(row_digest(again))]


def test_an_even_number_of_duplicates_does_not_cancel_out() -> None:
    one, two = Accumulator(), Accumulator()
    one.add_rows([[b"x"]] * 2 + [[b"y"]] * 2)
    two.add_rows([[b"x"]] * 4)
    assert one.fingerprint().total.count == two.fingerprint().total.count
    assert one.fingerprint() != two.fingerprint()


def test_sums_wrap() -> None:
    top = 2**64 - 1
    assert Sum(1, top, top) + Sum(1, 1, 2) == Sum(2, 0, 1)
    assert Fingerprint({1: Sum(1, top, top), 2: Sum(1, 1, 1)}).total == Sum(2, 0, 0)


# ----------------------------------------------------------------------------------------------------------------------- numbers


@given(NUMBERS)
@example("-0.0")
@example("+.50")
@example("1E+3")
@example("000.000e9")
def test_plain_number_is_the_decimal(text: str) -> None:
    plain = plain_number(text)
    exact = Fraction(text)
    assert Fraction(plain) == exact
    assert "e" not in plain.lower()
    assert not plain.startswith("+")
    assert plain != "-0"
    whole, dot, fraction = plain.lstrip("-").partition(".")
    assert whole == "0" or not whole.startswith("0")
    assert bool(dot) == bool(fraction)
    assert not fraction.endswith("0")


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_driver_decimals_and_their_texts_agree(value: Decimal) -> None:
    assume(abs(value.adjusted()) < 10_000)
    assert canonical(Form.DECIMAL, value) == canonical(Form.DECIMAL, format(value, "f"))
    assert Decimal((canonical(Form.DECIMAL, value) or b"").decode()) == value


@pytest.mark.parametrize(
    "text", ["1_000", " 1", "1 ", "1\n", "", ".", "-", "e5", "1e", "0x10", "٣", "1,5", "--1", "1e999999", "1" * 5 + "x"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_number(text)
    for form in (Form.INT, Form.FLOAT, Form.DECIMAL):
        with pytest.raises(ValueError, match=r"."):
            canonical(form, text)


@pytest.mark.parametrize("text", ["NaN", "nan", "-NaN", "sNaN"])
def test_any_nan_is_one(text: str) -> None:
    assert canonical(Form.DECIMAL, Decimal(text)) == canonical(Form.DECIMAL, text) == b"NaN"


@given(st.integers())
def test_integers(value: int) -> None:
    assert canonical(Form.INT, value) == canonical(Form.INT, str(value)) == str(value).encode()
    assert canonical(Form.INT, str(value).encode()) == canonical(Form.INT, f"{value:+05d}")
    assert canonical(Form.INT, Decimal(value)) == str(value).encode()


def test_integers_longer_than_pythons_limit() -> None:
    assert canonical(Form.INT, "1" * 5000) == b"1" * 5000


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        math.inf,
        math.nan,
        Decimal("1.5"),
        Decimal("NaN"),
        Decimal("Infinity"),
        "1.0",
        "1e3",
        b"\xff",
        [],
        None.__class__,
    ],
)
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(Form.INT, value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(9.5e15)
@example(1e16)
@example(-1e-5)
@example(0.0001)
@example(2.0**63)
def test_floats_round_trip_by_their_bits(value: float) -> None:
    text = float_text(value)
    assert struct.pack(">d", float(text)) == struct.pack(">d", value)
    assert "e" not in text
    assert text == ("-0" if text == "-0" else plain_number(repr(value)))
    assert (
        canonical(Form.FLOAT, value)
        == canonical(Form.FLOAT, repr(value))
        == canonical(Form.FLOAT, f"{value:.17g}")
        == text.encode()
    )


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_is_widened_not_reparsed(value: float) -> None:
    assert struct.unpack(">f", struct.pack(">f", float(float_text(value))))[0] == value


@given(st.binary(min_size=8, max_size=8))
def test_any_bits(octets: bytes) -> None:
    (value,) = struct.unpack(">d", octets)
    text = float_text(value)
    if math.isnan(value):
        assert text == "NaN"
    else:
        assert struct.pack(">d", float(text)) == octets


@given(st.integers(-(2**70), 2**70))
def test_an_integer_is_a_double_only_exactly(value: int) -> None:
    if int(float(value)) == value:
        assert canonical(Form.FLOAT, value) == canonical(Form.FLOAT, float(value))
    else:
        with pytest.raises(ValueError, match=r"."):
            canonical(Form.FLOAT, value)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1e-999", 10**400, Decimal("0.1"), "1_0", [], b"\xff"])
def test_what_is_beyond_a_double_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(Form.FLOAT, value)


# ------------------------------------------------------------------------------------------------------------------------- times


@given(st.datetimes(), ZONES)
def test_instants_do_not_depend_on_their_offset(clock: dt.datetime, zone: dt.timezone) -> None:
    value = clock.replace(tzinfo=zone)
    got = canonical(Form.TIMESTAMPTZ, value)
    assert got == canonical(Form.TIMESTAMPTZ, value.isoformat()) == canonical(Form.TIMESTAMPTZ, value.isoformat(" "))
    try:
        utc = value.astimezone(dt.UTC)
    except OverflowError:
        return  # year 0 or 10000: Python has no word for it, the codec has (below)
    text = utc.replace(tzinfo=None).isoformat(" ", "microseconds").rstrip("0").rstrip(".")
    assert got == text.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001-01-01 00:00:00+01", "0001-12-31 23:00:00 BC"),
        ("0001-12-31 23:30:00-01 BC", "0001-01-01 00:30:00"),
        ("0044-03-15 00:00:00.5+00:19:32 BC", "0044-03-14 23:40:28.5 BC"),
        ("9999-12-31 23:00:00.25-02", "10000-01-01 01:00:00.25"),
        ("294276-12-31 23:59:59.999999+00", "294276-12-31 23:59:59.999999"),
        ("12000-02-29 00:00:00+00:01", "12000-02-28 23:59:00"),
        ("0005-03-01 00:00:00+01 BC", "0005-02-29 23:00:00 BC"),
        ("2024-10-27 02:30:00+02:00", "2024-10-27 00:30:00"),
        ("2024-10-27T02:30:00.100Z", "2024-10-27 02:30:00.1"),
        ("2024-01-01 00:00:00 -0530", "2024-01-01 05:30:00"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("0000-00-00 00:00:00", "0000-00-00 00:00:00"),
    ],
)
def test_instants_at_the_edges(text: str, expected: str) -> None:
    assert canonical(Form.TIMESTAMPTZ, text) == expected.encode()


@given(st.datetimes())
def test_wall_clocks(value: dt.datetime) -> None:
    full = value.isoformat(" ", "microseconds")
    assert (
        canonical(Form.TIMESTAMP, value)
        == canonical(Form.TIMESTAMP, full)
        == canonical(Form.TIMESTAMP, full.replace(" ", "T"))
    )
    assert canonical(Form.TIMESTAMP, value) == full.rstrip("0").rstrip(".").encode()
    assert canonical(Form.DATE, value.date()) == full[:10].encode()
    assert canonical(Form.TIME, value.time()) == full[11:].rstrip("0").rstrip(".").encode()


@given(st.timedeltas(dt.timedelta(hours=-839), dt.timedelta(hours=839)))
def test_spans(value: dt.timedelta) -> None:
    text = (canonical(Form.TIME, value) or b"").decode()
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds = text.lstrip("-").split(":")
    assert sign * (int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)) == Fraction(
        value // dt.timedelta(microseconds=1), 10**6
    )
    assert canonical(Form.TIME, text) == text.encode()


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (Form.DATE, "2024-13-01"),
        (Form.DATE, "2024-01-32"),
        (Form.DATE, "2024-01-01\n"),
        (Form.DATE, "2024-01-01 00:00:00"),
        (Form.DATE, "24-01-01"),
        (Form.DATE, "tomorrow"),
        (Form.DATE, dt.datetime(2024, 1, 1)),
        (Form.TIME, "12:60:00"),
        (Form.TIME, "12:00:61"),
        (Form.TIME, "12:00:00\n"),
        (Form.TIME, "12:00:00+01"),
        (Form.TIME, dt.time(1, tzinfo=dt.UTC)),
        (Form.TIMESTAMP, "2024-01-01 25:00:00"),
        (Form.TIMESTAMP, "2024-01-01 00:00:00+01"),
        (Form.TIMESTAMP, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        (Form.TIMESTAMPTZ, dt.datetime(2024, 1, 1)),
        (Form.TIMESTAMPTZ, "2024-02-30 00:00:00+01"),
        (Form.INTERVAL, "1 day"),
        (Form.INTERVAL, "1_0 0 0"),
        (Form.INTERVAL, "1 2 3\n"),
        (Form.UUID, "a0eebc99"),
        (Form.BITS, "012"),
        (Form.BITS, 101),
        (Form.TEXT, [1]),
        (Form.TEXT, "\ud800"),
        (Form.TEXT, b"\xff"),
        (Form.BYTES, 5),
        (Form.DYNAMIC, []),
    ],
)
def test_what_a_form_cannot_hold_is_refused(form: Form, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(form, value)


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (Form.TIME, "-00:00:00", "00:00:00"),
        (Form.TIME, "7:05", "07:05:00"),
        (Form.DATE, "002024-01-01", "2024-01-01"),
        (Form.BITS, b"0101", "0101"),
        (Form.BITS, True, "1"),
        (Form.TEXT, Decimal("1.50"), "1.50"),
        (Form.TEXT, Decimal("1E+3"), "1000"),
        (Form.UUID, b"\xa0" * 16, "a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0"),
        (Form.UUID, uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (Form.INTERVAL, "+1 -0 00", "1 0 0"),
        (Form.DECIMAL, -0.0, "0"),
        (Form.DECIMAL, True, "1"),
        (Form.DYNAMIC, -0.0, "r:-0"),
        (Form.DYNAMIC, memoryview(b"\0"), "b:00"),
        (Form.BYTES, bytearray(b"\xff"), "ff"),
    ],
)
def test_particular_values(form: Form, value: object, expected: str) -> None:
    assert canonical(form, value) == expected.encode()


@pytest.mark.parametrize("form", list(Form))
def test_null_has_no_text(form: Form) -> None:
    assert canonical(form, None) is None
    assert callable(renderer(form))


# -------------------------------------------------------------------------------------------------------------------------- json

JSON_KEYS = st.text(max_size=4) | st.sampled_from(["", "a", "b", "\0", "\x7f", "é", "😀", '"', "\\", "\0#1"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | JSON_KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_KEYS, inner, max_size=4),
    max_leaves=15,
)


def shuffled(value: object) -> object:
    """Return the same JSON value with every object's keys the other way round."""
    match value:
        case dict():
            return {k: shuffled(v) for k, v in reversed(value.items())}
        case list():
            return [shuffled(v) for v in value]
    return value


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_idempotent_and_blind_to_spelling(value: object, escaped: bool, indent: int | None) -> None:
    text = json_text(json.dumps(value, ensure_ascii=escaped, indent=indent))
    assert json_text(text) == text
    assert json_text(json.dumps(shuffled(value))) == text
    assert json_text(value if not isinstance(value, str) else json.dumps(value)) == text
    read = json.JSONDecoder(parse_int=Fraction, parse_float=Fraction).decode
    assert read(text) == read(json.dumps(value))


@given(JSON_VALUES)
def test_both_ways_of_writing_json_agree(value: object) -> None:
    """A text with an escaped NUL takes the exact way; beside it stands the same value read by the quick one."""
    quick = json_text(json.dumps([value, "x"]))
    exact = json_text(json.dumps([value, "x\0"]))
    assert exact == quick[:-2] + '\\u0000"]'


@given(NUMBERS.filter(lambda t: not t.startswith(("+", "."))))
def test_json_numbers_are_plain(text: str) -> None:
    digits = text.removeprefix("-")
    whole = digits.partition(".")[0]
    assume(whole.isdecimal() or "e" in whole.lower())
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            json_text(text)
    else:
        assert json_text(text) == plain_number(text)
        assert json_text(f'["\\u0000",{text}]') == f'["\\u0000",{plain_number(text)}]'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":2}', '{ "b" : 2.0 , "a" : 1e0 }'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('"\\u00e9\\/"', '"é/"'),
        ('"\\ud83d\\ude00"', '"😀"'),
        ("1e400", "1" + "0" * 400),
        ("-0.0", "0"),
        ("1e30000", "10e29999"),
        ("1e30000", "1" + "0" * 30000),
        ("1e-30000", "0." + "0" * 29999 + "1"),
        ("0e99999999", "0"),
        ("[" * 5000 + "]" * 5000, "[ " * 5000 + "] " * 5000),
        ('{"a":' * 3000 + "1.50" + "}" * 3000, '{"a" : ' * 3000 + "1.5" + "}" * 3000),
    ],
    ids=lambda t: t[:20],
)
def test_equal_json(one: str, other: str) -> None:
    assert json_text(one) == json_text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", '"1"'),
        ("9007199254740992", "9007199254740993"),
        ("0.1", "0.1000000000000000000000001"),
        ("1e400", "1e401"),
        ("null", '"null"'),
        ('"\\ud800"', '"\\\\ud800"'),
        ('"\\u0000#1"', "1"),
        ('"\\u0000#1.5"', "1.5"),
        ('"e\\u0301"', '"\\u00e9"'),
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ('{"":1}', "{}"),
    ],
)
def test_different_json(one: str, other: str) -> None:
    assert json_text(one) != json_text(other)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "NaN", "[Infinity]", "-Infinity", "{a:1}", "{'a':1}", "[1,]", "[,1]", "[1 2]", '{"a":1,}', '{"a"}', '{"a":}', "01", "1.", ".5",
        "+1", "nul", "[1]]", "[", "]", "}", "{", '"a', '"\t"', '"\\x"', "1 2", "\ufeff1", "[1}", '{"a":1]', "\xa01", ":", ",",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_text(text)
    with pytest.raises(ValueError, match=r"."):
        json_text(f'["\\u0000",{text}]' if text.strip() else f'["\\u0000",{text} ')


def test_json_of_python_values() -> None:
    assert json_text({"b": [1.0, Decimal("1.50"), -0.0], "a": None}) == '{"a":null,"b":[1,1.5,0]}'
    for bad in (math.nan, math.inf, {1: 2}, {1, 2}, Decimal("NaN")):
        with pytest.raises(ValueError, match=r"."):
            json_text([bad])
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"."):
        json_text(deep)
    while deep:  # take it apart by hand: freeing it at once would recurse
        deep = deep.pop()  # type: ignore[assignment]


def test_a_lone_surrogate_keeps_its_escape() -> None:
    assert canonical(Form.JSON, '"\\ud800 \\uDFFF"') == b'"\\ud800 \\udfff"'


@settings(max_examples=30)
@given(st.text())
def test_texts_are_unchanged(text: str) -> None:
    try:
        octets = text.encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match=r"."):
            canonical(Form.TEXT, text)
    else:
        assert canonical(Form.TEXT, text) == canonical(Form.TEXT, octets) == octets
