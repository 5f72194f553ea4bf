"""Hazards of SQLite: any storage class in any column. Literals that SQL cannot spell are bound."""

from __future__ import annotations

from dblens.values.forms import Form
from tests.hazards.model import ASTRAL, DENORMALS, DOUBLES, TEXTS, Hazard, group
from tests.hazards.postgres import DUPLICATES, EXACT_NUMBERS, JSON_TEXT

PRELUDE: tuple[str, ...] = ()


def quoted(text: str) -> str:
    """Return a text as a literal, U+0000 included."""
    return f"CAST(x'{text.encode().hex()}' AS TEXT)"


MIXED: list[tuple[str, str, str | bytes, str]] = [
    ("integer", "42", "i:42", "row-82"),
    ("real", "42.0", "r:42", "row-82"),
    ("text", "'42'", "t:42", "row-82"),
    ("blob", "x'3432'", "b:3432", "row-82"),
    ("empty-text", "''", "t:", "row-78"),
    ("empty-blob", "x''", "b:", "row-78"),
    ("word-null", "'NULL'", "t:NULL", "row-78"),
    ("greatest", "9223372036854775807", "i:9223372036854775807", "row-77"),
    ("min", "-9223372036854775807 - 1", "i:-9223372036854775808", "row-77"),
    ("2-63", "9223372036854775808", "r:9223372036854776000", "row-77"),
    ("infinity", "9e999", "r:Infinity", "row-82 nonfinite"),
    ("minus-infinity", "-9e999", "r:-Infinity", "row-82 nonfinite"),
    ("minus-zero", "-0.0", "r:-0", "row-76 negative-zero"),
    ("sum", "0.1 + 0.2", "r:0.30000000000000004", "row-76"),
    ("fifteen-digits", "123456789012345680.0", "r:123456789012345680", "row-76"),
    ("nul", quoted("a\0b"), "t:a\0b", "row-75 nul"),
    ("text-of-class", "'i:42'", "t:i:42", "row-82"),
    ("number-text", "'9e999'", "t:9e999", "row-82"),
    ("spaced-number", "' 42 '", "t: 42 ", "row-82"),
    ("true", "true", "i:1", "bool"),
    ("julian", "2460310.5", "r:2460310.5", "row-82"),
    ("unix", "1704067200", "i:1704067200", "row-82"),
    ("invalid-utf8", "CAST(x'61ff62' AS TEXT)", "t:a\udcffb".encode("utf-8", "surrogateescape"), "row-75 invalid-text"),
    ("overlong", "CAST(x'c080' AS TEXT)", b"t:\xc0\x80", "row-75 invalid-text"),
    ("surrogate", "CAST(x'eda080' AS TEXT)", b"t:\xed\xa0\x80", "row-75 invalid-text"),
]  # fmt: skip

DYNAMIC: list[Hazard] = [
    *group("", Form.DYNAMIC, "mixed", MIXED, name="none"),
    *group(
        "",
        Form.DYNAMIC,
        "mixed float64",
        [(i, f"{v} + 0.0", f"r:{c}", t) for i, v, c, t in DOUBLES + DENORMALS],
        name="none",
    ),
    *group(
        "INTEGER",
        Form.DYNAMIC,
        "mixed row-82",
        [
            ("text", "'abc'", "t:abc"),
            ("number-text", "'123'", "i:123"),
            ("real", "1.5", "r:1.5"),
            ("whole-real", "2.0", "i:2"),
            ("blob", "x'00ff'", "b:00ff"),
            ("too-big", "'9223372036854775808'", "r:9223372036854776000"),
            ("empty", "''", "t:"),
        ],
    ),
    *group(
        "FLOATING POINT",
        Form.DYNAMIC,
        "mixed row-82",
        [("whole", "1.0", "i:1"), ("half", "1.5", "r:1.5"), ("text", "'x'", "t:x")],
    ),
    *group(
        "DECIMAL(10,2)",
        Form.DYNAMIC,
        "mixed row-82 row-77",
        [
            ("cents", "'0.10'", "r:0.1"),
            ("whole", "'100.00'", "i:100"),
            ("beyond-2-53", "'90071992547409930.12'", "i:90071992547409936"),
            ("no-number", "'12,50'", "t:12,50"),
        ],
    ),
    *group(
        "VARCHAR(3)",
        Form.DYNAMIC,
        "mixed row-82",
        [
            ("longer", "'abcdef'", "t:abcdef"),
            ("integer", "42", "t:42"),
            ("real", "1.0", "t:1.0"),
            ("blob", "x'61'", "b:61"),
        ],
    ),
    *group(
        "BOOLEAN",
        Form.DYNAMIC,
        "mixed row-81 bool",
        [("true", "true", "i:1"), ("five", "5", "i:5"), ("word", "'true'", "t:true")],
    ),
    *group(
        "DATETIME",
        Form.DYNAMIC,
        "mixed row-73 row-82",
        [
            ("iso", "'2024-05-06 07:08:09.123456'", "t:2024-05-06 07:08:09.123456"),
            ("t", "'2024-05-06T07:08:09Z'", "t:2024-05-06T07:08:09Z"),
            ("unix", "1704067200", "i:1704067200"),
            ("julian", "2460310.5", "r:2460310.5"),
            ("word", "'tomorrow'", "t:tomorrow"),
        ],
    ),
]

UNIFORM: list[Hazard] = [
    *group(
        "INTEGER",
        Form.INT,
        "row-77",
        [
            ("max", "9223372036854775807", "9223372036854775807"),
            ("min", "-9223372036854775807 - 1", "-9223372036854775808"),
            ("beyond-2-53", "9007199254740993", "9007199254740993"),
            ("zero", "0", "0"),
        ],
    ),
    *group("REAL", Form.FLOAT, "float64", [(i, v, c, t) for i, v, c, t in DOUBLES + DENORMALS]),
    *group(
        "REAL",
        Form.FLOAT,
        "row-76",
        [("infinity", "9e999", "Infinity", "nonfinite"), ("minus-infinity", "-9e999", "-Infinity", "nonfinite")],
    ),
    *group("TEXT", Form.TEXT, "text", [(i, quoted(t), t, tags) for i, t, tags in TEXTS + ASTRAL]),
    *group("TEXT", Form.TEXT, "text row-75", [("nul", quoted("a\0b"), "a\0b", "nul")]),
    *group(
        "TEXT", Form.TEXT, "text row-79", [("mebibyte", "replace(hex(zeroblob(262144)), '00', 'éé')", "é" * 524288)]
    ),
    *group(
        "BLOB",
        Form.BYTES,
        "bytes row-75",
        [
            ("empty", "x''", ""),
            ("nul", "x'00'", "00"),
            ("all", f"x'{bytes(range(256)).hex()}'", bytes(range(256)).hex()),
        ],
    ),
    *group(
        "DATE", Form.DATE, "row-73", [("first", "'0001-01-01'", "0001-01-01"), ("last", "'9999-12-31'", "9999-12-31")]
    ),
    *group(
        "TIMESTAMP",
        Form.TIMESTAMP,
        "row-73",
        [
            ("microsecond", "'2024-05-06 07:08:09.000001'", "2024-05-06 07:08:09.000001"),
            ("padded", "'2024-05-06 07:08:09.100000'", "2024-05-06 07:08:09.1"),
            ("whole", "'2024-05-06 07:08:09'", "2024-05-06 07:08:09"),
        ],
    ),
    *group(
        "DECIMAL_TEXT",
        Form.DECIMAL,
        "row-77",
        [
            ("thousand-digits", f"'{'1234567890' * 100}'", "1234567890" * 100),
            ("zeros", "'1.50'", "1.5"),
            ("nan", "'NaN'", "NaN", "nonfinite"),
        ],
    ),
    *group(
        "JSON_TEXT",
        Form.JSON,
        "json row-84",
        [(i, quoted(t), c, g) for i, t, c, g in JSON_TEXT + EXACT_NUMBERS + DUPLICATES],
    ),
]

HAZARDS: tuple[Hazard, ...] = (*DYNAMIC, *UNIFORM)
