"""Hazards of MongoDB: BSON values by type, mixed fields, and whole documents that no driver would write."""

from __future__ import annotations

import datetime as dt
import struct
import uuid

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UuidRepresentation

from dblens.values.forms import Form
from tests.hazards.model import ASTRAL, DENORMALS, DOUBLES, MISSING, TEXTS, Hazard, Raw, group

OID = ObjectId("00112233445566778899aabb")


def _doc(*elements: bytes) -> bytes:
    """Return a BSON document from raw elements."""
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _int(name: bytes, value: int) -> bytes:
    return b"\x10" + name + b"\0" + struct.pack("<i", value)


NAN = float("nan")
INF = float("inf")

TYPED: list[Hazard] = [
    *group(
        "int",
        Form.INT,
        "row-77",
        [("min", -2147483648, "-2147483648"), ("max", 2147483647, "2147483647"), ("zero", 0, "0")],
    ),
    *group(
        "long",
        Form.INT,
        "row-77",
        [
            ("min", Int64(-(2**63)), "-9223372036854775808"),
            ("max", Int64(2**63 - 1), "9223372036854775807"),
            ("beyond-2-53", Int64(9007199254740993), "9007199254740993"),
            ("small", Int64(1), "1"),
        ],
    ),
    *group("bool", Form.INT, "bool", [("true", True, "1"), ("false", False, "0")]),
    *group("double", Form.FLOAT, "float64", [(i, float(v), c, t) for i, v, c, t in DOUBLES + DENORMALS]),
    *group(
        "double",
        Form.FLOAT,
        "row-76 float64",
        [
            ("nan", NAN, "NaN", "nonfinite"),
            ("infinity", INF, "Infinity", "nonfinite"),
            ("minus-infinity", -INF, "-Infinity", "nonfinite"),
            ("minus-zero", -0.0, "-0", "negative-zero"),
        ],
    ),
    *group(
        "decimal",
        Form.DECIMAL,
        "row-77 row-83",
        [
            ("nan", Decimal128("NaN"), "NaN", "nonfinite"),
            ("minus-nan", Decimal128.from_bid(bytes(15) + b"\xfc"), "NaN", "nonfinite"),
            ("infinity", Decimal128("Infinity"), "Infinity", "nonfinite"),
            ("minus-infinity", Decimal128("-Infinity"), "-Infinity", "nonfinite"),
            ("34-digits", Decimal128("1234567890123456789012345678901234"), "1234567890123456789012345678901234"),
            ("greatest", Decimal128("9.999999999999999999999999999999999E+6144"), "9" * 34 + "0" * 6111),
            ("least", Decimal128("1E-6176"), "0." + "0" * 6175 + "1"),
            ("minus-zero", Decimal128("-0"), "0", "negative-zero"),
            ("scaled-zero", Decimal128("0E+10"), "0"),
            ("trailing-zeros", Decimal128("1.500"), "1.5"),
            ("exponent", Decimal128("1E+3"), "1000"),
            ("uint64", Decimal128("18446744073709551615"), "18446744073709551615"),
        ],
    ),
    *group("string", Form.TEXT, "text", [(i, t, t, tags) for i, t, tags in TEXTS + ASTRAL]),
    *group("string", Form.TEXT, "text row-75", [("nul", "a\0b", "a\0b", "nul")]),
    *group("string", Form.TEXT, "text row-79", [("mebibyte", "é" * 524288, "é" * 524288)]),
    *group(
        "binData",
        Form.BYTES,
        "bytes row-75",
        [("empty", b"", ""), ("all", bytes(range(256)), bytes(range(256)).hex()), ("nul", b"\0", "00")],
    ),
    *group(
        "uuid",
        Form.UUID,
        "uuid",
        [
            (
                "standard",
                Binary.from_uuid(uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), UuidRepresentation.STANDARD),
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            )
        ],
    ),
    *group(
        "objectId",
        Form.TEXT,
        "objectid",
        [("plain", OID, "00112233445566778899aabb"), ("zeros", ObjectId(bytes(12)), "0" * 24)],
    ),
    *group(
        "date",
        Form.TIMESTAMPTZ,
        "row-73 row-74",
        [
            ("epoch", DatetimeMS(0), "1970-01-01 00:00:00"),
            ("before-epoch", DatetimeMS(-1), "1969-12-31 23:59:59.999"),
            ("millisecond", DatetimeMS(1714979289001), "2024-05-06 07:08:09.001"),
            ("year-one", DatetimeMS(-62135596800000), "0001-01-01 00:00:00"),
            ("year-one-bc", DatetimeMS(-62135596800001), "0001-12-31 23:59:59.999 BC", "bc", "mongod"),
            ("year-10000", DatetimeMS(253402300800000), "10000-01-01 00:00:00", "", "mongod"),
            ("greatest", DatetimeMS(2**63 - 1), "292278994-08-17 07:12:55.807", "", "mongod"),
            ("lowest", DatetimeMS(-(2**63)), "292275056-05-16 16:47:04.192 BC", "bc", "mongod"),
            ("leap-day", dt.datetime(2000, 2, 29, tzinfo=dt.UTC), "2000-02-29 00:00:00"),
        ],
    ),
]

MIXED: list[Hazard] = [
    *group(
        "mixed",
        Form.DOCUMENT,
        "mixed row-83",
        [
            ("int", 1, "1"),
            ("long", Int64(1), '{"$numberLong":"1"}'),
            ("long-beyond-int", Int64(2**31), "2147483648"),
            ("double-fraction", 0.1, "0.1"),
            ("double-minus-zero", -0.0, '{"$numberDouble":"-0.0"}', "negative-zero"),
            ("date", DatetimeMS(-1), '{"$date":{"$numberLong":"-1"}}'),
            ("binary", Binary(b"\0\xff", 5), '{"$binary":{"base64":"AP8=","subType":"05"}}'),
            ("wrapper-alike", {"$oid": "x"}, '{"$dblensDocument":{"$oid":"x"}}', "document-key"),
            ("controls", "\x01\x7f\u2028\\", '"\\u0001\x7f\u2028\\\\"'),
            ("double-whole", 1.0, '{"$numberDouble":"1.0"}'),
            ("nan", NAN, '{"$numberDouble":"NaN"}', "nonfinite"),
            ("decimal", Decimal128("1.0"), '{"$numberDecimal":"1.0"}'),
            ("decimal-nan", Decimal128("NaN"), '{"$numberDecimal":"NaN"}', "nonfinite"),
            ("string", "1", '"1"'),
            ("empty", "", '""', "row-78"),
            ("true", True, "true"),
            ("oid", OID, '{"$oid":"00112233445566778899aabb"}'),
            ("missing", MISSING, None, "missing"),
            ("null", None, None, "null"),
            ("min-key", MinKey(), '{"$minKey":1}'),
            ("max-key", MaxKey(), '{"$maxKey":1}'),
            ("timestamp", Timestamp(1, 2), '{"$timestamp":{"t":1,"i":2}}'),
            ("regex", Regex("a.*", "i"), '{"$regularExpression":{"pattern":"a.*","options":"i"}}'),
            ("code", Code("f()"), '{"$code":"f()"}'),
            ("array", [1, "a", None, []], '[1,"a",null,[]]'),
            ("order", {"b": 1, "a": {"z": 1, "y": 2}}, '{"b":1,"a":{"z":1,"y":2}}'),
            ("empty-object", {}, "{}"),
            ("dotted-key", {"a.b": 1, "": 2}, '{"a.b":1,"":2}', "document-key"),
            ("nul-text", "a\0b", '"a\\u0000b"', "nul"),
            (
                "deep",
                {"a": {"a": {"a": {"a": {"a": {"a": [[[[1]]]]}}}}}},
                '{"a":{"a":{"a":{"a":{"a":{"a":[[[[1]]]]}}}}}}',
                "row-79",
            ),
        ],
    ),
]

# Whole documents: the expected octets are put together element by element; `_id` is the hazard's place in this list.
WHOLE: list[Hazard] = [
    *group(
        "document",
        Form.BSON,
        "row-83 raw",
        [
            ("missing", Raw(b""), _doc(_int(b"_id", 1)).hex(), "missing"),
            ("null", Raw(b"\x0av\0"), _doc(_int(b"_id", 2), b"\x0av\0").hex()),
            (
                "nan-payload",
                Raw(b"\x01v\0\x01\0\0\0\0\0\xf8\xff"),
                _doc(_int(b"_id", 3), b"\x01v\0\x01\0\0\0\0\0\xf8\xff").hex(),
                "nonfinite",
            ),
            (
                "old-binary",
                Raw(b"\x05v\0\x06\0\0\0\x02\x02\0\0\0ab"),
                _doc(_int(b"_id", 4), b"\x05v\0\x06\0\0\0\x02\x02\0\0\0ab").hex(),
            ),
            (
                "bool-and-long",
                Raw(b"\x08v\0\x01\x12w\0" + b"\xff" * 8),
                _doc(_int(b"_id", 5), b"\x08v\0\x01\x12w\0" + b"\xff" * 8).hex(),
            ),
            (
                "dotted-key",
                Raw(_int(b"a.b", 1) + _int(b"$c", 2)),
                _doc(_int(b"_id", 6), _int(b"a.b", 1), _int(b"$c", 2)).hex(),
                "document-key",
            ),
            (
                "decimal-exponent",
                Raw(b"\x13v\0" + bytes(15) + b"\x30"),
                _doc(_int(b"_id", 7), b"\x13v\0" + bytes(15) + b"\x30").hex(),
            ),
            (
                "duplicate-keys",
                Raw(_int(b"v", 1) + _int(b"v", 2)),
                _doc(_int(b"_id", 8), _int(b"v", 1), _int(b"v", 2)).hex(),
                "",
                "mongod",
            ),
            (
                "symbol",
                Raw(b"\x0ev\0\x02\0\0\0s\0"),
                _doc(_int(b"_id", 9), b"\x0ev\0\x02\0\0\0s\0").hex(),
                "deprecated",
                "mongod",
            ),
            ("undefined", Raw(b"\x06v\0"), _doc(_int(b"_id", 10), b"\x06v\0").hex(), "deprecated", "mongod"),
        ],
    )
]

HAZARDS: tuple[Hazard, ...] = (*TYPED, *MIXED, *WHOLE)
