"""MongoDB's value chapters without a server: types, JSON in BSON, times, decimals, checks, commands."""

from __future__ import annotations

import json
from decimal import Decimal as D
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines import mongodb
from dblens.engines.base import Block, Check, Chunk, Field
from dblens.engines.mongodb import canonical, checks, ddl, export, load, times, types
from dblens.engines.mongodb.flatten import Prover, sampled
from dblens.errors import InvalidInput, QueryFailed, Unsupported
from dblens.schema.model import Column, Index, IndexPart, Key, Table
from dblens.schema.types import (
    Array,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Float,
    Integer,
    Json,
    Set,
    Text,
    Timestamp,
    Uuid,
)
from dblens.values.codec import canonical as codec
from dblens.values.forms import Form

CHUNK = Chunk(run="r", table=("db", "t"), number=1)


def column(type: DataType, source: str = "postgresql", **more: Any) -> tuple[Column, Form]:
    """Return a column as documents store it, and its form."""
    stored = types.store(Column(name="v", type=type, native="x"), source, **more)
    return Column(name="v", type=stored.type, native=stored.native, path=("v",)), stored.form


def through(type: DataType, value: Any, **more: Any) -> tuple[Any, bytes | None]:
    """Write a value as the copier does, read it back as the verifier does."""
    target, form = column(type, **more)
    field = Field(column=target, form=form, target=target)
    raw = load.Encoder([field], CHUNK).raw((value,))
    table = Table(namespace="db", name="t", columns=(target,))
    return bson.decode(raw).get("v"), canonical.Reader(table, [field]).row(raw)[0]


@pytest.mark.parametrize(
    ("type", "value", "kept"),
    [
        (Integer(64, unsigned=True), 2**64 - 1, Decimal128("18446744073709551615")),
        (Integer(32), -(2**31), -(2**31)),
        (Integer(32, unsigned=True), 2**32 - 1, Int64(2**32 - 1)),
        (Boolean(), 1, True),
        (Decimal(34, 4), "123.4500", Decimal128("123.4500")),
        (Decimal(10, 2, special=True), "NaN", Decimal128("NaN")),
        (Decimal(), "1" + "0" * 99 + ".5", "1" + "0" * 99 + ".5"),
        (Float(64), -0.0, -0.0),
        (Text(), "a\0b", "a\0b"),
        (Date(), "0044-03-15 BC", "0044-03-15 BC"),
        (Timestamp(6), "infinity", "infinity"),
        (Timestamp(6), "2024-05-06 07:08:09.123456", "2024-05-06 07:08:09.123456"),
        (Timestamp(6, zone=True), "2024-05-06 07:08:09.123400", "2024-05-06T07:08:09.1234Z"),
        (Timestamp(6, zone=True), "0044-03-15 00:00:00 BC", "0044-03-15T00:00:00Z BC"),
        (Timestamp(6, zone=True), "-infinity", "-infinity"),
        (Timestamp(3, zone=True), "infinity", "infinity"),
        (Uuid(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None),
        (Set(("a", "b")), '["b","a"]', ["b", "a"]),
        (Array(Integer()), "[1,[2,null]]", [1, [2, None]]),
        (Json(), "null", {"$dblensJson": "null"}),
        (Json(), '{"$dblensJson":"x"}', {"$dblensJson": '{"$dblensJson":"x"}'}),
        (Json(), '{"$dblensJson":1}', {"$dblensJson": 1}),
        (Json(), "[1e400,1.10,100000000000000000000,0.1]", None),
        (Json(), '{"a.b":1,"$x":{"":null}}', {"a.b": 1, "$x": {"": None}}),
        (Json(), '{"a\\u0000":1}', None),
        (Json(), '["\\ud800"]', None),
        (Json(), "[" * 120 + "]" * 120, None),
        (Json(), "1e99999", None),
    ],
)
def test_values_come_through(type: DataType, value: Any, kept: Any) -> None:
    form = column(type)[1]
    stored, text = through(type, value)
    assert text == codec(form, value)
    if kept is not None:
        assert stored == kept
        assert isinstance(kept, bool) == isinstance(stored, bool)


def test_instants_in_milliseconds_are_dates() -> None:
    target, form = column(Timestamp(3, zone=True))
    raw = load.Encoder([Field(column=target, form=form)], CHUNK).raw(("1969-12-31 23:59:59.999",))
    assert bson.decode(raw)["v"].microsecond == 999000
    assert target.native == "date"


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (Integer(32), 2**31),
        (Integer(64), 2**63),
        (Boolean(), 2),
        (Decimal(34, 0), "12345678901234567890123456789012345"),
        (Text(), 5),
        (Text(), "\ud800"),
        (Uuid(), "no"),
        (Json(), "{"),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_key(type: DataType, value: Any) -> None:
    target, form = column(type)
    key = Column(name="k", type=Integer(), native="long", path=("_id",))
    encoder = load.Encoder([Field(column=key, form=Form.INT), Field(column=target, form=form)], CHUNK)
    with pytest.raises(QueryFailed, match="column 'v' of the row with key 7"):
        list(encoder.raws([Block(data=[(7, value)], size=1, rows=1)], "rows", "loading t"))


def test_a_document_beyond_16_mib_names_its_key() -> None:
    fields = [
        Field(column=Column(name="k", type=Integer(), native="long", path=("_id",)), form=Form.INT),
        Field(column=Column(name="v", type=Text(), native="string", path=("v",)), form=Form.TEXT),
    ]
    block = Block(data=[(41, "x"), (42, "x" * (17 << 20))], size=1, rows=2)
    with pytest.raises(QueryFailed, match="key 42 makes a document of"):
        list(load.Encoder(fields, CHUNK).raws([block], "rows", "loading t"))


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda d: f"§{d}"),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), st.just("$dblensJson")),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)


@given(JSON)
@settings(max_examples=400, deadline=None)
def test_json_through_bson_is_the_same_json(value: Any) -> None:
    text = json.dumps(value)
    assert through(Json(), text)[1] == codec(Form.JSON, text)


@given(st.text(alphabet="0123456789", min_size=1, max_size=45), st.integers(-40, 40), st.booleans())
@settings(max_examples=300, deadline=None)
def test_json_numbers_keep_their_value(digits: str, exponent: int, negative: bool) -> None:
    text = f"{'-' if negative else ''}{int(digits)}e{exponent}"
    assert through(Json(), text)[1] == codec(Form.JSON, text)


@given(st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=500, deadline=None)
def test_both_calendars_agree(milliseconds: int) -> None:
    text = times.render(milliseconds)
    assert canonical._instant(milliseconds) == text
    assert times.parse(text) == milliseconds


@given(st.decimals(allow_nan=False).filter(lambda d: len(d.as_tuple().digits) <= 34 and abs(d.adjusted()) < 6000))
@settings(max_examples=300, deadline=None)
def test_both_decimal_texts_agree(value: D) -> None:
    stored = Decimal128(value)
    raw = bson.encode({"v": stored})
    target = Column(name="v", type=Decimal(special=True), native="decimal", path=("v",))
    field = Field(column=target, form=Form.DECIMAL)
    table = Table(namespace="db", name="t", columns=(target,))
    text = canonical.Reader(table, [field]).row(raw)[0]
    assert text == codec(Form.DECIMAL, str(value))
    exported = export.getter(field)(bson.decode(raw), raw)
    assert codec(Form.DECIMAL, exported) == text


def test_times_that_milliseconds_cannot_tell() -> None:
    for text in (
        "infinity",
        "0000-00-00 00:00:00",
        "2024-02-30 00:00:00",
        "2024-01-01 00:00:60",
        "2024-01-01 00:00:00.0001",
    ):
        assert times.parse(text) is None
    assert times.parse("2024-01-01 00:00:00.100000") == 1704067200100


# ------------------------------------------------------------------------------------------------------------------- profiling


def proven(*documents: dict[str, Any]) -> dict[str, Column]:
    prover = Prover()
    prover.add(documents)
    table = prover.table(Table(namespace="db", name="t", kind="collection"))
    return {c.name: c for c in table.columns}


def test_only_what_the_data_prove_becomes_a_column() -> None:
    found = proven(
        {
            "_id": 1,
            "mixed": 1,
            "whole": 1,
            "number": 1,
            "big": Int64(2**60),
            "nested": {"a": 1},
            "list": [1],
            "some": "x",
        },
        {"_id": 2, "mixed": "1", "whole": Int64(5), "number": 0.5, "big": 0.5, "nested": {}, "list": [], "some": None},
        {"_id": 3, "mixed": 1, "whole": 2},
    )
    assert list(found) == ["_id", "whole", "number", "some", "doc"]
    assert found["whole"].type == Integer(64)
    assert found["number"].type == Float(64)
    assert found["some"].presence == pytest.approx(2 / 3)
    assert {s.name: s.share for s in found["some"].shares} == {"string": 0.5, "null": 0.5}
    assert found["doc"].type == Document()
    assert found["doc"].path == ()


def test_mixed_keys_and_names_that_collide() -> None:
    found = proven({"_id": 1, "doc": "x", "DOC_": "y", "": 1}, {"_id": "a", "doc": "z"})
    assert found["_id"].type == Document()
    assert list(found) == ["_id", "doc", "DOC_", "empty_name", "doc__"]


def test_at_most_200_columns_beside_the_key() -> None:
    found = proven({"_id": 1, **{f"f{n}": n for n in range(500)}})
    assert len(found) == 202


def test_a_sample_shows_nested_fields() -> None:
    fields = {c.name: c for c in sampled([{"_id": 1, "a": {"b": [1, 2], "c": None}}, {"_id": 2, "a": {"c": "x"}}])}
    assert fields["a.b"].type == Array(Integer(32))
    assert fields["a.c"].path == ("a", "c")
    assert fields["a.c"].presence == 1.0


# ---------------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("check", "form", "good", "bad"),
    [
        (Check(kind="nul_character"), Form.TEXT, "a", "a\0"),
        (Check(kind="json_nul"), Form.DOCUMENT, '"\\\\u0000"', '"\\\\\\u0000"'),
        (
            Check(kind="outside_dates", low="0001-01-01", high="9999-12-31"),
            Form.TIMESTAMPTZ,
            "9999-12-31 23:59:59.999",
            "10000-01-01 00:00:00",
        ),
        (
            Check(kind="outside_dates", low="0001-01-01", high="9999-12-31"),
            Form.TIMESTAMPTZ,
            "0001-01-01 00:00:00",
            "0001-12-31 00:00:00 BC",
        ),
        (
            Check(kind="outside_dates", low="-4713-01-01"),
            Form.TIMESTAMPTZ,
            "4000-12-31 00:00:00 BC",
            "5000-12-31 00:00:00 BC",
        ),
        (Check(kind="decimal_overflow", limit=5, scale=2), Form.DECIMAL, "123.45", "1234.5"),
        (Check(kind="decimal_overflow", limit=5, scale=2), Form.DECIMAL, "-0.01", "0.001"),
        (Check(kind="too_long", limit=2), Form.BYTES, "aabb", "aabbcc"),
        (Check(kind="json_number"), Form.DOCUMENT, '{"a":0.1,"b":9007199254740992}', '{"a":9007199254740993}'),
        (Check(kind="json_duplicate_key"), Form.DOCUMENT, '{"a":{"b":1},"b":1}', '{"a":{"b":1,"b":2}}'),
        (Check(kind="document_key"), Form.DOCUMENT, '{"a":{"$oid":"00112233445566778899aabb"}}', '{"a":[{"b.c":1}]}'),
        (Check(kind="oversize", limit=3), Form.TEXT, "abc", "éé"),
    ],
)
def test_questions(check: Check, form: Form, good: str, bad: str) -> None:
    ask = checks.predicate(check, form)
    assert not ask(good)
    assert ask(bad)


def test_an_unknown_question_is_refused() -> None:
    with pytest.raises(Unsupported):
        checks.predicate(Check(kind="unknown"), Form.TEXT)


@pytest.mark.parametrize(
    ("check", "form", "type", "value", "text"),
    [
        (Check(kind="nul_character", repair="strip"), Form.TEXT, Text(), "a\0b\0", b"ab"),
        (Check(kind="nul_character", repair="null"), Form.TEXT, Text(), "a\0b\0", None),
        (Check(kind="nonfinite", repair="null"), Form.FLOAT, Float(), float("nan"), None),
        (Check(kind="negative_zero", repair="strip"), Form.FLOAT, Float(), -0.0, b"0"),
        (Check(kind="too_long", limit=2, repair="truncate"), Form.TEXT, Text(), "abc", b"ab"),
        (Check(kind="too_long", limit=2, repair="truncate"), Form.BYTES, Document(), b"abc", b"6162"),
        (
            Check(kind="decimal_overflow", scale=1, limit=9, repair="round"),
            Form.DECIMAL,
            Decimal(),
            Decimal128("0.25"),
            b"0.2",
        ),
        (
            Check(kind="decimal_overflow", scale=1, limit=9, repair="truncate"),
            Form.DECIMAL,
            Decimal(),
            Decimal128("-0.29"),
            b"-0.2",
        ),
        (
            Check(kind="json_nul", repair="strip"),
            Form.DOCUMENT,
            Document(),
            {"a": ["\0x", "\\u0000"]},
            b'{"a":["x","\\\\u0000"]}',
        ),
        (Check(kind="four_byte_text", repair="strip"), Form.TEXT, Text(), "a😀b", b"ab"),
        (Check(kind="trailing_space", repair="strip"), Form.TEXT, Text(), "a \t  ", b"a \t"),
    ],
)
def test_repairs_are_the_same_on_both_ways(
    check: Check, form: Form, type: DataType, value: Any, text: bytes | None
) -> None:
    source = Column(name="v", type=type, native="x", path=("v",))
    field = Field(column=source, form=form, repairs=(check,))
    raw = bson.encode({"v": value})
    assert canonical.Reader(Table(namespace="db", name="t", columns=(source,)), [field]).row(raw) == (text,)
    exported = export.getter(field)(next(export.documents([raw]))[0], raw)
    assert codec(form, exported) == text


# -------------------------------------------------------------------------------------------------------------------- commands


def test_commands_of_a_table() -> None:
    table = Table(
        namespace="db",
        name='o"rders 😀',
        columns=(
            Column(name="id", type=Integer(), native="long", nullable=False, path=("_id", "id")),
            Column(name="mail", type=Text(), native="string", path=("mail",)),
        ),
        uniques=(Key(name="u", columns=("mail",)),),
        indexes=(Index(name="i", parts=(IndexPart(column="id", descending=True),)),),
    )
    place = ddl.staged(("db", table.name), "r1")
    build = ddl.build([table], {("db", table.name): place})
    assert place == ("db", '_dblens_r1.o"rders 😀')
    assert json.loads(build.before[0]) == {"create": place[1]}
    assert json.loads(build.after[0])["indexes"] == [
        {"key": {"mail": 1}, "name": "u", "unique": True, "partialFilterExpression": {"mail": {"$type": "string"}}},
        {"key": {"_id.id": -1}, "name": "i"},
    ]


def test_long_names_keep_apart() -> None:
    names = {ddl.staged(("db", "n" * 140 + tail), "run")[1] for tail in ("a", "b")}
    assert len(names) == 2
    assert all(len(name.encode()) <= 150 for name in names)


def test_fields_that_cannot_be_indexed_are_refused() -> None:
    table = Table(
        namespace="db",
        name="t",
        columns=(Column(name="a.b", type=Text(), native="string", path=("a.b",)),),
        indexes=(Index(name="i", parts=(IndexPart(column="a.b"),)),),
    )
    with pytest.raises(Unsupported, match=r"a\.b"):
        ddl.build([table], {})


@pytest.mark.parametrize("name", ["a\0b", "a$b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidInput):
        ddl.quote(name)


@pytest.mark.parametrize(
    "option", ["tlsInsecure", "tlsAllowInvalidCertificates", "authMechanismProperties", "tlsCertificateKeyFile", "x"]
)
def test_options_that_are_not_accepted(option: str) -> None:
    from dblens.engines.base import Url

    url = Url(scheme="mongodb", host="127.0.0.1", port=1, database="d", options={option: "true"})
    with pytest.raises(InvalidInput, match="not accepted"):
        mongodb.connect(url)


def test_generated_keys_are_the_same_for_the_same_chunk() -> None:
    field = Field(column=Column(name="v", type=Integer(), native="long", path=("v",)), form=Form.INT)
    blocks = [Block(data=[(1,), (1,)], size=1, rows=2)]
    first, again = (list(load.Encoder([field], CHUNK).raws(blocks, "rows", "")) for _ in range(2))
    assert first == again
    ids = [bson.decode(raw)["_id"] for raw in first]
    assert len(set(ids)) == 2
    bounds = load.generated(load.Encoder([field], CHUNK).prefix)["_id"]
    assert all(bounds["$gte"] <= i <= bounds["$lte"] for i in ids)
    assert all(isinstance(i, ObjectId) for i in ids)
