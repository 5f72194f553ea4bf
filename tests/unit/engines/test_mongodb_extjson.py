"""Hybrid Extended JSON: reversible, deterministic, and the same from both implementations."""

from __future__ import annotations

import datetime as dt
import math
import struct
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.dbref import DBRef
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines.mongodb import extjson, rawtext
from dblens.engines.mongodb.rawbson import (
    DBPointer,
    Pairs,
    RawRegex,
    ScopedCode,
    Symbol,
    Undefined,
    build,
    load_document,
    parse,
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
KEYS = st.one_of(
    st.sampled_from([*sorted(extjson.WRAPPERS), "$ref", "$id", "a.b", "", "$x", "_id", "a"]),
    TEXTS.filter(lambda text: "\0" not in text),
)
OIDS = st.binary(min_size=12, max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    INT64.map(Int64),
    st.integers(-5, 5).map(Int64),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324, math.inf, -math.inf, float("nan")]),
    TEXTS,
    OIDS.map(ObjectId),
    INT64.map(DatetimeMS),
    st.tuples(st.binary(max_size=20), st.sampled_from([0, 1, 3, 4, 5, 6, 7, 8, 9, 128, 255])).map(lambda t: Binary(*t)),
    st.decimals(allow_nan=False)
    .filter(lambda d: len(d.as_tuple().digits) <= 34 and abs(d.adjusted()) < 6000)
    .map(Decimal128),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0E+10", "1.500", "1E-6176"]).map(Decimal128),
    st.tuples(KEYS.filter(lambda k: "\0" not in k), st.sampled_from(["", "i", "imsx", "xi", "z"])).map(RawRegex),
    TEXTS.map(Code),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda t: Timestamp(*t)),
    st.just(MinKey()),
    st.just(MaxKey()),
    st.just(Undefined()),
    TEXTS.map(Symbol),
    st.tuples(TEXTS, OIDS).map(DBPointer),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.tuples(KEYS, inner), max_size=4).map(Pairs),
        st.tuples(TEXTS, st.lists(st.tuples(KEYS, inner), max_size=2).map(Pairs)).map(ScopedCode),
    ),
    max_leaves=12,
)
DOCUMENTS = st.lists(st.tuples(KEYS, VALUES), max_size=6).map(Pairs)


@given(DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_octets_come_back(pairs: Pairs) -> None:
    raw = build(pairs)
    text = extjson.encode_raw(raw)
    assert extjson.decode_raw(text) == raw
    assert extjson.encode_raw(extjson.decode_raw(text)) == text


@given(DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_copier_and_verifier_write_the_same_text(pairs: Pairs) -> None:
    raw = build(pairs)
    assert rawtext.document(raw) == extjson.encode_raw(raw) == extjson.encode(parse(raw))


@given(DOCUMENTS)
@settings(max_examples=200, deadline=None)
def test_walking_equals_the_driver(pairs: Pairs) -> None:
    raw = build(pairs)
    assert build(parse(raw)) == raw
    assert build(load_document(raw)) == raw


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (Int64(1), '{"$numberLong":"1"}'),
        (Int64(2**31), "2147483648"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (1.0, '{"$numberDouble":"1.0"}'),
        (-0.0, '{"$numberDouble":"-0.0"}'),
        (1e300, '{"$numberDouble":"1e+300"}'),
        ("é\n\x01\x7f😀", '"é\\n\\u0001\x7f😀"'),
        (DatetimeMS(-1), '{"$date":{"$numberLong":"-1"}}'),
        (dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC), '{"$date":{"$numberLong":"1000"}}'),
        (Binary(b"\0\xff", 5), '{"$binary":{"base64":"AP8=","subType":"05"}}'),
        (Regex("a", "xi"), '{"$regularExpression":{"pattern":"a","options":"ix"}}'),
        (Code("f", {"a": 1}), '{"$code":"f","$scope":{"a":1}}'),
        (DBRef("c", 1, "d"), '{"$ref":"c","$id":1,"$db":"d"}'),
        ({"$oid": "x"}, '{"$dblensDocument":{"$oid":"x"}}'),
        ({"$ref": "x"}, '{"$ref":"x"}'),
        ({"a": 1, "$oid": 2}, '{"a":1,"$oid":2}'),
        ({"$dblensDocument": {}}, '{"$dblensDocument":{"$dblensDocument":{}}}'),
        (Pairs([("a", 1), ("a", 2)]), '{"a":1,"a":2}'),
    ],
)
def test_spelling(value: Any, text: str) -> None:
    assert extjson.encode(value) == text
    assert rawtext.document(build(Pairs([("v", value)]))) == f'{{"v":{text}}}'
    assert extjson.encode(extjson.decode(text)) == text


def test_a_hundred_levels() -> None:
    value: Any = 1
    for level in range(180):
        value = {"a": value} if level % 2 else [value]
    raw = build({"v": value})
    assert extjson.decode_raw(extjson.encode_raw(raw)) == raw
    assert rawtext.document(raw) == extjson.encode_raw(raw)


def test_old_binary_subtype() -> None:
    raw = bson.encode({"v": Binary(b"abc", 2)})
    assert extjson.encode_raw(raw) == '{"v":{"$binary":{"base64":"YWJj","subType":"02"}}}' == rawtext.document(raw)
    assert extjson.decode_raw(extjson.encode_raw(raw)) == raw


def test_nan_payload_keeps_its_meaning_not_its_bits() -> None:
    body = b"\x01v\0" + bytes.fromhex("010000000000f8ff") + b"\0"
    raw = struct.pack("<i", len(body) + 4) + body
    assert extjson.encode_raw(raw) == '{"v":{"$numberDouble":"NaN"}}' == rawtext.document(raw)
    assert build(parse(raw)) == raw


@pytest.mark.parametrize(
    "text",
    [
        '{"$oid":"x"}',
        '{"$numberLong":"a"}',
        '{"$date":5}',
        "9223372036854775808",
        "NaN",
        '{"$oid":"a","b":1}',
        '{"$binary":{}}',
    ],
)
def test_wrong_shapes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not hybrid|JSON"):
        extjson.decode(text)
