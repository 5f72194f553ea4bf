"""Hazards of PostgreSQL 15 and 18."""

from __future__ import annotations

from dblens.values.forms import Form
from tests.hazards.model import ASTRAL, DENORMALS, DOUBLES, TEXTS, Hazard, group


def quoted(text: str) -> str:
    """Return a text as a standard-conforming literal."""
    return "'" + text.replace("'", "''") + "'"


PRELUDE = (
    "CREATE TYPE h_enum AS ENUM ('a', '', 'it''s', 'NULL', '😀', 'A')",
    "CREATE TYPE h_pair AS (n integer, t text)",
    "CREATE DOMAIN h_positive AS integer CHECK (VALUE > 0)",
    "CREATE DOMAIN h_code AS varchar(8)",
)

NUMBERS: list[Hazard] = [
    *group("boolean", Form.INT, "bool", [("true", "true", "1"), ("false", "false", "0")]),
    *group("smallint", Form.INT, "row-77", [("min", "-32768", "-32768"), ("max", "32767", "32767")]),
    *group("integer", Form.INT, "row-77", [("min", "-2147483648", "-2147483648"), ("max", "2147483647", "2147483647")]),
    *group(
        "bigint",
        Form.INT,
        "row-77",
        [
            ("min", "-9223372036854775808", "-9223372036854775808"),
            ("max", "9223372036854775807", "9223372036854775807"),
            ("beyond-2-53", "9007199254740993", "9007199254740993"),
            ("zero", "0", "0"),
        ],
    ),
    *group("oid", Form.INT, "row-77", [("max", "4294967295", "4294967295")]),
    *group(
        "numeric",
        Form.DECIMAL,
        "row-77",
        [
            ("nan", "'NaN'", "NaN", "nonfinite"),
            ("infinity", "'Infinity'", "Infinity", "nonfinite"),
            ("minus-infinity", "'-Infinity'", "-Infinity", "nonfinite"),
            ("thousand-digits", "1234567890" * 100, "1234567890" * 100),
            ("thousand-fraction", "-0." + "1234567890" * 100, "-0." + "1234567890" * 99 + "123456789"),
            ("both-sides", "9" * 500 + "." + "9" * 500, "9" * 500 + "." + "9" * 500),
            ("scale-16383", "'1e-16383'", "0." + "0" * 16382 + "1"),
            ("uint64", "18446744073709551615", "18446744073709551615"),
            ("2-64", "18446744073709551616", "18446744073709551616"),
            ("minus-zero", "-0.0", "0"),
            ("zeros", "0.000", "0"),
            ("trailing-zeros", "1.500", "1.5"),
            ("whole-zeros", "100.00", "100"),
            ("many-zeros", "1000000000000000000000", "1000000000000000000000"),
            ("exponent", "1.5e3", "1500"),
            ("tenths", "0.1+0.2", "0.3"),
            ("small", "0.0000001", "0.0000001"),
        ],
    ),
    *group(
        "numeric(10,4)",
        Form.DECIMAL,
        "row-77",
        [
            ("padded", "1.5", "1.5"),
            ("zero", "0", "0"),
            ("nan", "'NaN'", "NaN", "nonfinite"),
            ("full", "-999999.9999", "-999999.9999"),
        ],
    ),
    *group("numeric(5,-2)", Form.DECIMAL, "row-77", [("negative-scale", "1234567", "1234600"), ("zero", "0", "0")]),
    *group(
        "money",
        Form.DECIMAL,
        "money",
        [
            ("least", "'-92233720368547758.08'", "-92233720368547758.08"),
            ("thousands", "1234567.89", "1234567.89"),
            ("cents", "0.10", "0.1"),
        ],
    ),
    *group(
        "real",
        Form.FLOAT,
        "row-76 float32",
        [
            ("tenth", "0.1", "0.10000000149011612"),
            ("max", "3.4028235e38", "34028234663852886" + "0" * 22),
            ("least-denormal", "1e-45", "0." + "0" * 44 + "1401298464324817", "denormal"),
            ("least-normal", "1.17549435e-38", "0." + "0" * 37 + "11754943508222875"),
            ("beyond-2-24", "16777217", "16777216"),
            ("nan", "'NaN'", "NaN", "nonfinite"),
            ("infinity", "'Infinity'", "Infinity", "nonfinite"),
            ("minus-infinity", "'-Infinity'", "-Infinity", "nonfinite"),
            ("minus-zero", "'-0'", "-0", "negative-zero"),
            ("third", "1.0/3", "0.3333333432674408"),
            ("whole", "1e10", "10000000000"),
        ],
    ),
    *group("double precision", Form.FLOAT, "float64", [(i, f"'{v}'", c, t) for i, v, c, t in DOUBLES + DENORMALS]),
    *group(
        "double precision",
        Form.FLOAT,
        "row-76 float64",
        [
            ("nan", "'NaN'", "NaN", "nonfinite"),
            ("infinity", "'Infinity'", "Infinity", "nonfinite"),
            ("minus-infinity", "'-Infinity'", "-Infinity", "nonfinite"),
            ("minus-zero", "'-0'", "-0", "negative-zero"),
            ("sum", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
        ],
    ),
]

TEXT: list[Hazard] = [
    *group("text", Form.TEXT, "text", [(i, quoted(t), t, tags) for i, t, tags in TEXTS + ASTRAL]),
    *group("text", Form.TEXT, "text row-79", [("mebibyte", "repeat('é', 524288)", "é" * 524288)]),
    *group(
        "varchar(10)",
        Form.TEXT,
        "text row-78",
        [
            ("empty", "''", ""),
            ("trailing", "'ab   '", "ab   ", "trailing"),
            ("ten-astral", "'😀😀😀😀😀😀😀😀😀😀'", "😀" * 10, "four-byte"),
        ],
    ),
    *group(
        "char(5)",
        Form.TEXT,
        "text row-78 padded",
        [("padded", "'ab'", "ab"), ("empty", "''", ""), ("full", "'abcde'", "abcde"), ("leading", "'  a'", "  a")],
    ),
    *group(
        "h_enum",
        Form.TEXT,
        "enum row-81",
        [
            ("plain", "'a'", "a"),
            ("empty", "''", ""),
            ("quote", "'it''s'", "it's"),
            ("null", "'NULL'", "NULL"),
            ("emoji", "'😀'", "😀"),
        ],
    ),
    *group("h_code", Form.TEXT, "domain", [("trailing", "'x '", "x ")]),
    *group("h_positive", Form.INT, "domain", [("one", "1", "1")]),
    *group(
        "bytea",
        Form.BYTES,
        "bytes row-75",
        [
            ("empty", "''", ""),
            ("nul", "'\\x00'", "00"),
            ("invalid-utf8", "'\\xfffec080'", "fffec080"),
            ("backslash", "'\\x5c4e'", "5c4e"),
            ("all", "'\\x" + bytes(range(256)).hex() + "'", bytes(range(256)).hex()),
            ("hex-alike", "'\\x5c78303061'", "5c78303061"),
        ],
    ),
]

TIMES: list[Hazard] = [
    *group(
        "date",
        Form.DATE,
        "row-73",
        [
            ("first", "'0001-01-01'", "0001-01-01"),
            ("9999", "'9999-12-31'", "9999-12-31"),
            ("five-digits", "'10000-01-01'", "10000-01-01"),
            ("last", "'5874897-12-31'", "5874897-12-31"),
            ("earliest", "'4713-11-24 BC'", "4713-11-24 BC", "bc"),
            ("bc", "'0044-03-15 BC'", "0044-03-15 BC", "bc"),
            ("year-one-bc", "'0001-12-31 BC'", "0001-12-31 BC", "bc"),
            ("infinity", "'infinity'", "infinity", "infinite"),
            ("minus-infinity", "'-infinity'", "-infinity", "infinite"),
            ("leap-day", "'2000-02-29'", "2000-02-29"),
        ],
    ),
    *group(
        "time",
        Form.TIME,
        "row-73",
        [
            ("midnight-end", "'24:00:00'", "24:00:00"),
            ("midnight", "'00:00:00'", "00:00:00"),
            ("last", "'23:59:59.999999'", "23:59:59.999999"),
            ("tenth", "'12:00:00.100'", "12:00:00.1"),
            ("microsecond", "'00:00:00.000001'", "00:00:00.000001"),
        ],
    ),
    *group(
        "time with time zone",
        Form.TIMETZ,
        "row-73",
        [
            ("plain", "'12:00:00+02'", "12:00:00+02"),
            ("half-hour", "'04:05:06.789+05:30'", "04:05:06.789+05:30"),
            ("extreme", "'24:00:00-15:59:59'", "24:00:00-15:59:59"),
            ("utc", "'00:00:00+00'", "00:00:00+00"),
        ],
    ),
    *group(
        "timestamp",
        Form.TIMESTAMP,
        "row-73",
        [
            ("infinity", "'infinity'", "infinity", "infinite"),
            ("minus-infinity", "'-infinity'", "-infinity", "infinite"),
            ("earliest", "'4713-11-24 00:00:00 BC'", "4713-11-24 00:00:00 BC", "bc"),
            ("bc", "'0001-01-01 00:00:00.5 BC'", "0001-01-01 00:00:00.5 BC", "bc"),
            ("last", "'294276-12-31 23:59:59.999999'", "294276-12-31 23:59:59.999999"),
            ("leap-second", "'2016-12-31 23:59:60'", "2017-01-01 00:00:00"),
            ("tenth", "'2024-05-06 07:08:09.100'", "2024-05-06 07:08:09.1"),
            ("microsecond", "'2024-05-06 07:08:09.000001'", "2024-05-06 07:08:09.000001"),
            ("gap-clock", "'2024-03-31 02:30:00'", "2024-03-31 02:30:00", "row-74"),
            ("24h", "'2024-01-01 24:00:00'", "2024-01-02 00:00:00"),
            ("before-epoch", "'1969-12-31 23:59:59.999999'", "1969-12-31 23:59:59.999999"),
        ],
    ),
    *group(
        "timestamp(3)", Form.TIMESTAMP, "row-73", [("rounded", "'2024-01-01 00:00:00.9996'", "2024-01-01 00:00:01")]
    ),
    *group(
        "timestamp with time zone",
        Form.TIMESTAMPTZ,
        "row-74 dst",
        [
            ("overlap-first", "'2024-10-27 02:30:00+02'", "2024-10-27 00:30:00"),
            ("overlap-second", "'2024-10-27 02:30:00+01'", "2024-10-27 01:30:00"),
            ("gap", "'2024-03-31 02:30:00 Europe/Berlin'", "2024-03-31 01:30:00"),
            ("offset-seconds", "'1880-01-01 00:00:00+00:19:32'", "1879-12-31 23:40:28"),
            ("into-bc", "'0001-01-01 00:00:00+01'", "0001-12-31 23:00:00 BC", "row-73 bc"),
            ("into-10000", "'9999-12-31 23:00:00.25-02'", "10000-01-01 01:00:00.25", "row-73"),
            ("infinity", "'infinity'", "infinity", "row-73 infinite"),
            ("minus-infinity", "'-infinity'", "-infinity", "row-73 infinite"),
            ("last", "'294276-12-31 23:59:59.999999+00'", "294276-12-31 23:59:59.999999", "row-73"),
            ("kathmandu", "'2024-01-01 00:00:00.000010+05:45'", "2023-12-31 18:15:00.00001"),
            ("epoch", "'1970-01-01 00:00:00Z'", "1970-01-01 00:00:00"),
        ],
    ),
    *group(
        "interval",
        Form.INTERVAL,
        "interval",
        [
            ("mixed-signs", "'1 mon -1 day +00:00:00.000001'", "1 -1 1"),
            ("mixed-signs-2", "'-1 mons +1 day -00:00:01'", "-1 1 -1000000"),
            ("all", "'1 year 2 mons 3 days 04:05:06.789'", "14 3 14706789000"),
            ("zero", "'0'", "0 0 0"),
            ("day", "'1 day'", "0 1 0"),
            ("24-hours", "'24:00:00'", "0 0 86400000000"),
            ("month", "'1 mon'", "1 0 0"),
            ("30-days", "'30 days'", "0 30 0"),
            ("greatest", "'178000000 years'", "2136000000 0 0"),
            ("lowest", "'-178000000 years'", "-2136000000 0 0"),
            ("minus-microsecond", "'-00:00:00.000001'", "0 0 -1"),
            ("infinity", "'infinity'", "infinity", "infinite", "17"),
            ("minus-infinity", "'-infinity'", "-infinity", "infinite", "17"),
            ("long-hours", "'2562047788:00:54.775807'", "0 0 9223372036854775807"),
        ],
    ),
]

JSON_TEXT: list[tuple[str, str, str, str]] = [
    ("object", '{"b": 1, "a": [true, false, null]}', '{"a":[true,false,null],"b":1}', ""),
    ("order-by-length", '{"bb": 1, "a": 2, "c": 3}', '{"a":2,"bb":1,"c":3}', ""),
    ("nested-order", '{"z": {"y": 1, "x": 2}, "é": 0, "Z": 1}', '{"Z":1,"z":{"x":2,"y":1},"é":0}', ""),
    ("empty-object", "{}", "{}", ""),
    ("empty-array", "[ ]", "[]", ""),
    ("empty-key", '{"": ""}', '{"":""}', ""),
    ("null", "null", "null", "row-78"),
    ("string-null", '"null"', '"null"', "row-78"),
    ("empty-string", '""', '""', "row-78"),
    ("escapes", r'"\"\\\/\b\f\n\r\té"', r'"\"\\/\b\f\n\r\té"', ""),
    ("surrogate-pair", r'"\ud83d\ude00 😀"', '"😀 😀"', "four-byte"),
    ("delete", '"\x7f\u2028"', '"\x7f\u2028"', ""),
    ("beyond-2-53", "[9007199254740993, -9007199254740993]", "[9007199254740993,-9007199254740993]", ""),
    ("uint64", "18446744073709551615", "18446744073709551615", ""),
    ("whole-fraction", "[1.0, 100, -1.50]", "[1,100,-1.5]", ""),
    ("exponent", "[1e2, 1E-7, 1.5e+3]", "[100,0.0000001,1500]", ""),
    ("digits-as-text", '{"10": 1, "9": 2}', '{"10":1,"9":2}', ""),
    ("deep", "[" * 100 + "]" * 100, "[" * 100 + "]" * 100, "row-79"),
]
EXACT_NUMBERS: list[tuple[str, str, str, str]] = [
    ("1e400", "1e400", "1" + "0" * 400, "json-number"),
    ("many-digits", "3.14159265358979323846264338327950288", "3.14159265358979323846264338327950288", "json-number"),
    ("2-64", "18446744073709551616", "18446744073709551616", "json-number"),
    ("1e-400", "1e-400", "0." + "0" * 399 + "1", "json-number"),
    ("minus-zero", "[-0, -0.0]", "[0,0]", "json-number"),
]
DUPLICATES: list[tuple[str, str, str, str]] = [
    ("duplicate-keys", '{"a": 1, "b": 2, "a": 3}', '{"a":3,"b":2}', "json-duplicate"),
    ("duplicate-nested", '[{"x": {"k": 1, "k": {"k": 2}}}]', '[{"x":{"k":{"k":2}}}]', "json-duplicate"),
]

OTHERS: list[Hazard] = [
    *group(
        "uuid",
        Form.UUID,
        "uuid",
        [
            ("upper", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("nil", "'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000"),
            ("max", "'{ffffffff-ffff-ffff-ffff-ffffffffffff}'", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ],
    ),
    *group(
        "json",
        Form.JSON,
        "json row-84",
        [(i, quoted(t), c, g) for i, t, c, g in JSON_TEXT + EXACT_NUMBERS + DUPLICATES],
    ),
    *group(
        "json",
        Form.JSON,
        "json row-84",
        [("nul", quoted(r'{"k\u0000": "a\u0000b"}'), r'{"k\u0000":"a\u0000b"}', "json-nul")],
    ),
    *group(
        "jsonb",
        Form.JSON,
        "json row-84",
        [(i, quoted(t), c, g) for i, t, c, g in JSON_TEXT + EXACT_NUMBERS + DUPLICATES],
    ),
    *group(
        "integer[]",
        Form.JSON,
        "array",
        [
            ("null-inside", "'{1,NULL,-3}'", "[1,null,-3]"),
            ("empty", "'{}'", "[]"),
            ("two-dimensions", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
        ],
    ),
    *group(
        "text[]",
        Form.JSON,
        "array",
        [
            (
                "nulls",
                "ARRAY['NULL', NULL, '', 'a,b', '\"q\"', E'\\\\', '{}']",
                '["NULL",null,"","a,b","\\"q\\"","\\\\","{}"]',
            ),
            ("empty", "'{}'", "[]"),
            ("emoji", "ARRAY['😀', 'e\u0301']", '["😀","e\u0301"]'),
        ],
    ),
    *group(
        "integer[]", Form.NATIVE, "array", [("bounds", "'[2:3]={7,8}'", "[2:3]={7,8}"), ("null", "'{NULL}'", "{NULL}")]
    ),
    *group(
        "double precision[]",
        Form.NATIVE,
        "array row-76",
        [("special", "'{NaN,Infinity,-0,1e-7}'", "{NaN,Infinity,-0,1e-07}")],
    ),
    *group("text[]", Form.NATIVE, "array", [("nulls", "ARRAY['NULL', NULL, '', 'a b']", '{"NULL",NULL,"","a b"}')]),
    *group(
        "inet",
        Form.TEXT,
        "network",
        [
            ("host", "'10.0.0.1'", "10.0.0.1"),
            ("mask", "'192.168.1.1/24'", "192.168.1.1/24"),
            ("v6", "'2001:DB8::1'", "2001:db8::1"),
            ("v6-mask", "'::1/64'", "::1/64"),
        ],
    ),
    *group(
        "cidr", Form.TEXT, "network", [("net", "'10.0.0.0/8'", "10.0.0.0/8"), ("host", "'10.0.0.1'", "10.0.0.1/32")]
    ),
    *group("macaddr", Form.TEXT, "network", [("dashes", "'08-00-2B-01-02-03'", "08:00:2b:01:02:03")]),
    *group(
        "int4range",
        Form.TEXT,
        "range",
        [
            ("empty", "'empty'", "empty"),
            ("closed", "'[1,5]'", "[1,6)"),
            ("open", "'(,)'", "(,)"),
            ("half", "'[3,)'", "[3,)"),
        ],
    ),
    *group("numrange", Form.TEXT, "range", [("zeros", "'[1.50,2.0)'", "[1.50,2.0)")]),
    *group(
        "tstzrange",
        Form.TEXT,
        "range row-74",
        [
            (
                "utc",
                "'[2024-01-01 00:00:00+02,infinity]'",
                '["2023-12-31 22:00:00+00",infinity]',
            )
        ],
    ),
    *group("int4multirange", Form.TEXT, "range", [("two", "'{[1,3),[5,9)}'", "{[1,3),[5,9)}"), ("none", "'{}'", "{}")]),
    *group(
        "h_pair",
        Form.TEXT,
        "composite",
        [
            ("quoted", "ROW(1, 'a,\"b')", '(1,"a,""b")'),
            ("nulls", "ROW(NULL, NULL)", "(,)"),
            ("empty", "ROW(NULL, '')", '(,"")'),
        ],
    ),
    *group(
        "xml",
        Form.TEXT,
        "xml",
        [("content", "'<a b=\"1\">é&amp;</a>'", '<a b="1">é&amp;</a>'), ("empty", "''", "")],
        only="xml",
    ),
    *group(
        "tsvector", Form.TEXT, "tsvector", [("weights", "'b:2A a:1 ''it''''s'''::tsvector", "'a':1 'b':2A 'it''s'")]
    ),
    *group("tsquery", Form.TEXT, "tsvector", [("phrase", "'a & !b <-> c'::tsquery", "'a' & !'b' <-> 'c'")]),
    *group(
        "point",
        Form.TEXT,
        "geometric",
        [("floats", "'(0.1,1e-7)'", "(0.1,1e-07)"), ("special", "'(NaN,-0)'", "(NaN,-0)")],
    ),
    *group("polygon", Form.TEXT, "geometric", [("triangle", "'((0,0),(1,0),(0,1))'", "((0,0),(1,0),(0,1))")]),
    *group(
        "bit(8)", Form.BITS, "bits row-81", [("mixed", "B'00000101'", "00000101"), ("zeros", "B'00000000'", "00000000")]
    ),
    *group("bit(1)", Form.BITS, "bits row-81", [("one", "B'1'", "1")]),
    *group(
        "bit varying",
        Form.BITS,
        "bits row-81",
        [
            ("empty", "B''", ""),
            ("leading-zeros", "B'0001'", "0001"),
            ("long", "repeat('10', 50)::bit varying", "10" * 50),
        ],
    ),
    *group("pg_lsn", Form.TEXT, "opaque", [("high", "'16/B374D848'", "16/B374D848")]),
]

HAZARDS: tuple[Hazard, ...] = (*NUMBERS, *TEXT, *TIMES, *OTHERS)
