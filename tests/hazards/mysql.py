"""Hazards of MySQL and MariaDB. Inserted with an empty sql_mode but for ALLOW_INVALID_DATES: what old servers let in is still there."""

from __future__ import annotations

from dblens.values.forms import Form
from tests.hazards.model import ASTRAL, DENORMALS, DOUBLES, TEXTS, Hazard, group
from tests.hazards.postgres import JSON_TEXT

PRELUDE = (
    "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
    "SET SESSION time_zone = '+00:00'",
)


def quoted(text: str) -> str:
    """Return a text as a literal that no escape or character set changes."""
    return f"_utf8mb4 X'{text.encode().hex()}'" if text else "_utf8mb4 ''"


UTF8 = "CHARACTER SET utf8mb4"

NUMBERS: list[Hazard] = [
    *group(
        "tinyint(1)",
        Form.INT,
        "row-81 bool",
        [("five", "5", "5"), ("one", "1", "1"), ("zero", "0", "0"), ("min", "-128", "-128")],
    ),
    *group("tinyint unsigned", Form.INT, "row-77", [("max", "255", "255")]),
    *group("smallint", Form.INT, "row-77", [("min", "-32768", "-32768")]),
    *group("smallint unsigned", Form.INT, "row-77", [("max", "65535", "65535")]),
    *group("mediumint", Form.INT, "row-77", [("min", "-8388608", "-8388608"), ("max", "8388607", "8388607")]),
    *group("mediumint unsigned", Form.INT, "row-77", [("max", "16777215", "16777215")]),
    *group("int", Form.INT, "row-77", [("min", "-2147483648", "-2147483648"), ("max", "2147483647", "2147483647")]),
    *group("int unsigned", Form.INT, "row-77", [("max", "4294967295", "4294967295")]),
    *group("int(5) unsigned zerofill", Form.INT, "row-77", [("padded", "42", "42"), ("zero", "0", "0")]),
    *group(
        "bigint",
        Form.INT,
        "row-77",
        [
            ("min", "-9223372036854775808", "-9223372036854775808"),
            ("max", "9223372036854775807", "9223372036854775807"),
            ("beyond-2-53", "9007199254740993", "9007199254740993"),
        ],
    ),
    *group(
        "bigint unsigned",
        Form.INT,
        "row-77",
        [
            ("max", "18446744073709551615", "18446744073709551615"),
            ("2-63", "9223372036854775808", "9223372036854775808"),
            ("zero", "0", "0"),
        ],
    ),
    *group(
        "decimal(65,30)",
        Form.DECIMAL,
        "row-77",
        [
            ("full", "-" + "9" * 35 + "." + "9" * 30, "-" + "9" * 35 + "." + "9" * 30),
            ("least", "0." + "0" * 29 + "1", "0." + "0" * 29 + "1"),
            ("padded", "1.5", "1.5"),
            ("minus-zero", "-0.0", "0"),
        ],
    ),
    *group(
        "decimal(65,0)",
        Form.DECIMAL,
        "row-77",
        [("full", "9" * 65, "9" * 65), ("zeros", "1" + "0" * 64, "1" + "0" * 64)],
    ),
    *group("decimal(10,2) unsigned", Form.DECIMAL, "row-77", [("cents", "0.10", "0.1"), ("whole", "100", "100")]),
    *group(
        "float",
        Form.FLOAT,
        "row-76 float32",
        [
            ("tenth", "0.1", "0.10000000149011612"),
            ("max", "3.4028234663852886e38", "34028234663852886" + "0" * 22),
            ("beyond-2-24", "16777217", "16777216"),
            ("seven-digits", "1234567.8", "1234567.75"),
            ("minus-zero", "-0e0", "-0", "negative-zero", "mysql"),  # MariaDB stores 0
            ("least-normal", "1.1754943508222875e-38", "0." + "0" * 37 + "11754943508222875"),
            ("least-denormal", "1.401298464324817e-45", "0." + "0" * 44 + "1401298464324817", "denormal"),
        ],
    ),
    *group("double", Form.FLOAT, "float64", [(i, v, c, t) for i, v, c, t in DOUBLES + DENORMALS]),
    *group(
        "double",
        Form.FLOAT,
        "row-76 float64",
        [("minus-zero", "-0e0", "-0", "negative-zero", "mysql"), ("sum", "1e-1 + 2e-1", "0.30000000000000004")],
    ),
    *group("bit(1)", Form.BITS, "row-81 bits", [("one", "b'1'", "1"), ("zero", "b'0'", "0")]),
    *group(
        "bit(10)", Form.BITS, "row-81 bits", [("mixed", "b'1010101010'", "1010101010"), ("short", "b'1'", "0000000001")]
    ),
    *group(
        "bit(64)",
        Form.BITS,
        "row-81 bits",
        [("ones", "0xFFFFFFFFFFFFFFFF", "1" * 64), ("top", "1 << 63", "1" + "0" * 63)],
    ),
    *group(
        "year",
        Form.INT,
        "row-81 row-73 year",
        [("zero", "0000", "0"), ("first", "1901", "1901"), ("last", "2155", "2155")],
    ),
]

TEXT: list[Hazard] = [
    *group(
        f"varchar(300) {UTF8} COLLATE utf8mb4_bin",
        Form.TEXT,
        "text",
        [(i, quoted(t), t, tags) for i, t, tags in TEXTS + ASTRAL],
        name="varchar-bin",
    ),
    *group(
        f"varchar(300) {UTF8} COLLATE utf8mb4_bin",
        Form.TEXT,
        "text row-75",
        [("nul", quoted("a\0b"), "a\0b", "nul"), ("only-nul", quoted("\0"), "\0", "nul")],
        name="varchar-bin",
    ),
    *group(
        f"varchar(20) {UTF8} COLLATE utf8mb4_unicode_ci",
        Form.TEXT,
        "text row-80 collation",
        [(f"fold-{n}", quoted(t), t) for n, t in enumerate(("a", "A", "á", "a ", "e\u0301", "ß", "ss"))],
        name="varchar-ci",
    ),
    *group(
        f"longtext {UTF8}", Form.TEXT, "text row-79", [("mebibyte", "repeat(_utf8mb4 X'c3a9', 524288)", "é" * 524288)]
    ),
    *group(
        f"longtext {UTF8}", Form.TEXT, "text row-78", [("empty", "''", ""), ("trailing", "'ab  '", "ab  ", "trailing")]
    ),
    *group(
        f"char(5) {UTF8}",
        Form.TEXT,
        "text row-78 padded",
        [("padded", "'ab   '", "ab"), ("spaces", "'   '", ""), ("leading", "'  a'", "  a"), ("tab", "X'6109'", "a\t")],
    ),
    *group(
        "varchar(20) CHARACTER SET latin1",
        Form.TEXT,
        "text row-75 latin1",
        [
            ("accent", "_latin1 X'e9'", "é"),
            ("euro", "_latin1 X'80'", "€"),
            ("undefined", "_latin1 X'81'", "\x81"),
            ("mojibake", "_latin1 X'c3a9'", "Ã©"),
            ("all-high", "_latin1 X'a0ffbfd8'", "\xa0ÿ¿Ø"),
        ],
    ),
    *group("varchar(20) CHARACTER SET utf8mb3", Form.TEXT, "text row-75", [("cjk", quoted("日本"), "日本")]),
    *group("varchar(20) CHARACTER SET utf16", Form.TEXT, "text row-75", [("emoji", quoted("😀x"), "😀x", "four-byte")]),
    *group("varchar(20) CHARACTER SET ascii", Form.TEXT, "text row-75", [("plain", "'a\\\\b'", "a\\b")]),
    *group(
        f"enum('x','it''s','é','','NULL') {UTF8}",
        Form.TEXT,
        "row-81 enum",
        [
            ("error-value", "0", "", "enum-error"),
            ("own-empty", "4", ""),
            ("quote", "'it''s'", "it's"),
            ("accent", quoted("é"), "é"),
            ("null", "'NULL'", "NULL"),
        ],
        name="enum",
    ),
    *group(
        f"set('a','b','c d','é') {UTF8}",
        Form.TEXT,
        "row-81 set",
        [("none", "''", ""), ("duplicate", "'a,a'", "a"), ("order", quoted("é,a"), "a,é"), ("all", "15", "a,b,c d,é")],
        name="set",
    ),
    *group(
        "binary(4)",
        Form.BYTES,
        "bytes padded",
        [("padded", "X'61'", "61000000"), ("spaces", "X'20202020'", "20202020")],
    ),
    *group(
        "varbinary(300)",
        Form.BYTES,
        "bytes row-75",
        [
            ("empty", "''", ""),
            ("nul", "X'00'", "00"),
            ("invalid-utf8", "X'fffec080'", "fffec080"),
            ("trailing-space", "X'6120'", "6120"),
            ("all", f"X'{bytes(range(256)).hex()}'", bytes(range(256)).hex()),
        ],
    ),
    *group(
        "longblob",
        Form.BYTES,
        "bytes row-75",
        [("empty", "''", ""), ("escapes", "X'5c4e5c09090a0d1a27'", "5c4e5c09090a0d1a27")],
    ),
]

TIMES: list[Hazard] = [
    *group(
        "date",
        Form.DATE,
        "row-73",
        [
            ("zero", "'0000-00-00'", "0000-00-00", "zero-date"),
            ("zero-month", "'2024-00-10'", "2024-00-10", "zero-date"),
            ("zero-day", "'2024-01-00'", "2024-01-00", "zero-date"),
            ("no-such-day", "'2024-02-31'", "2024-02-31", "invalid-date"),
            ("year-one", "'0001-01-01'", "0001-01-01"),
            ("first", "'1000-01-01'", "1000-01-01"),
            ("last", "'9999-12-31'", "9999-12-31"),
            ("leap-day", "'2000-02-29'", "2000-02-29"),
        ],
    ),
    *group(
        "datetime(6)",
        Form.TIMESTAMP,
        "row-73",
        [
            ("zero", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00", "zero-date"),
            ("zero-day", "'2024-01-00 12:00:00.5'", "2024-01-00 12:00:00.5", "zero-date"),
            ("no-such-day", "'2023-02-30 01:02:03'", "2023-02-30 01:02:03", "invalid-date"),
            ("last", "'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"),
            ("first", "'1000-01-01 00:00:00'", "1000-01-01 00:00:00"),
            ("microsecond", "'2024-05-06 07:08:09.000001'", "2024-05-06 07:08:09.000001"),
            ("tenth", "'2024-05-06 07:08:09.1'", "2024-05-06 07:08:09.1"),
            ("gap-clock", "'2024-03-31 02:30:00'", "2024-03-31 02:30:00", "row-74"),
        ],
    ),
    *group("datetime(3)", Form.TIMESTAMP, "row-73", [("tenth", "'2024-05-06 07:08:09.100'", "2024-05-06 07:08:09.1")]),
    *group(
        "datetime",
        Form.TIMESTAMP,
        "row-73",
        [
            ("rounded", "'2024-12-31 23:59:59.6'", "2025-01-01 00:00:00", "", "mysql"),
            ("cut-off", "'2024-12-31 23:59:59.6'", "2024-12-31 23:59:59", "", "mariadb"),
        ],
    ),
    *group(
        "timestamp(6) NULL",
        Form.TIMESTAMPTZ,
        "row-74",
        [
            ("first", "'1970-01-01 00:00:01'", "1970-01-01 00:00:01"),
            ("last", "'2038-01-19 03:14:07.999999'", "2038-01-19 03:14:07.999999"),
            ("gap", "'2024-03-31 02:30:00'", "2024-03-31 02:30:00", "dst"),
            ("overlap-first", "'2024-10-27 00:30:00'", "2024-10-27 00:30:00", "dst"),
            ("overlap-second", "'2024-10-27 01:30:00'", "2024-10-27 01:30:00", "dst"),
            ("zero", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00", "row-73 zero-date"),
        ],
        name="timestamp",
    ),
    *group(
        "time(6)",
        Form.TIME,
        "row-73",
        [
            ("greatest", "'838:59:59'", "838:59:59"),
            ("lowest", "'-838:59:59'", "-838:59:59"),
            ("minus-microsecond", "'-00:00:00.000001'", "-00:00:00.000001"),
            ("24h", "'24:00:00'", "24:00:00"),
            ("tenth", "'12:00:00.100'", "12:00:00.1"),
            ("hundred-hours", "'100:00:00'", "100:00:00"),
            ("zero", "'00:00:00'", "00:00:00"),
        ],
    ),
    *group("time", Form.TIME, "row-73", [("minus", "'-01:02:03'", "-01:02:03")]),
]

POINT = "0101000000000000000000f03f0000000000000040"  # POINT(1 2), little endian
TEN = "010100000000000000000024400000000000002440"  # POINT(10 10)

OTHERS: list[Hazard] = [
    *group(
        "json",
        Form.JSON,
        "json row-84",
        [(i, quoted(t), c, g, None if i != "deep" else "mysql") for i, t, c, g in JSON_TEXT],
    ),
    *group(
        "json",
        Form.JSON,
        "json row-84",
        [
            ("deep-31", "'" + "[" * 31 + "]" * 31 + "'", "[" * 31 + "]" * 31, "row-79"),
            ("duplicate-keys", """'{"a": 1, "b": 2, "a": 3}'""", '{"a":3,"b":2}', "json-duplicate"),
            ("nul", quoted(r'{"k\u0000": "a\u0000b"}'), r'{"k\u0000":"a\u0000b"}', "json-nul"),
            ("1e400", "'1e400'", "1" + "0" * 400, "json-number", "mariadb"),
            ("many-digits", "'3.14159265358979323846'", "3.14159265358979323846", "json-number", "mariadb"),
            ("decimal", "JSON_ARRAY(CAST(1.10 AS DECIMAL(4,2)))", "[1.1]", "json-number"),
            ("date", "CAST(CAST('2024-01-02' AS DATE) AS JSON)", '"2024-01-02"', "", "mysql"),
        ],
    ),
    *group(
        "geometry",
        Form.GEOMETRY,
        "geometry",
        [
            ("point", "ST_GeomFromText('POINT(1 2)')", f"0:{POINT}"),
            ("srid", "ST_GeomFromText('POINT(10 10)', 4326)", f"4326:{TEN}"),
            (
                "line",
                "ST_GeomFromText('LINESTRING(0 0,1 1)')",
                "0:010200000002000000" + "0" * 32 + "000000000000f03f" * 2,
            ),
            ("nothing", "ST_GeomFromText('GEOMETRYCOLLECTION EMPTY')", "0:010700000000000000"),
        ],
    ),
    *group(
        "uuid",
        Form.UUID,
        "uuid",
        [("upper", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")],
        only="mariadb",
    ),
    *group("inet6", Form.TEXT, "network", [("short", "'2001:db8::1'", "2001:db8::1")], only="mariadb"),
    *group("inet4", Form.TEXT, "network", [("plain", "'10.0.0.1'", "10.0.0.1")], only="mariadb"),
    *group(
        "binary(16)",
        Form.UUID,
        "uuid",
        [("octets", "X'a0eebc999c0b4ef8bb6d6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")],
    ),
]

HAZARDS: tuple[Hazard, ...] = (*NUMBERS, *TEXT, *TIMES, *OTHERS)
