"""Declared types and meanings: SQLite's affinity rules, and every type of another engine kept exactly."""

from __future__ import annotations

import sqlite3

import pytest

from dblens.engines.sqlite import ddl, types
from dblens.errors import InvalidInput
from dblens.schema import types as t
from dblens.schema.model import Column, Default, DefaultKind, Identity, Key, Table
from dblens.values.forms import Form

DECLARED = [
    ("INTEGER", t.Integer(64)),
    ("int unsigned", t.Integer(64, unsigned=True)),
    ("SMALLINT", t.Integer(16)),
    ("VARCHAR(40)", t.Text(40)),
    ("native character(70)", t.Text(70)),
    ("DECIMAL(10,2)", t.Decimal(10, 2)),
    ("NUMERIC", t.Decimal()),
    ("double precision", t.Float(64)),
    ("BLOB", t.Binary()),
    ("BOOLEAN", t.Boolean()),
    ("DATETIME", t.Timestamp(6)),
    ("timestamp(3) with time zone", t.Timestamp(3, zone=True)),
    ("JSON", t.Json(normalised=False)),
    ("", t.Dynamic()),
    ("FLOATING POINT", t.Integer(64)),
    ("STRING", t.Dynamic()),
    ("CHARINT", t.Integer(64)),
]


@pytest.mark.parametrize(("native", "meaning"), DECLARED)
def test_declared_types(native: str, meaning: t.DataType) -> None:
    assert types.parse(native) == meaning


@pytest.mark.parametrize(
    "native", [n for n, _ in DECLARED if "with" not in n] + ["XBLOB", "my text", "REALLY", "money", "x y z"]
)
def test_affinity_is_sqlites_own(native: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE TABLE t (c {native})")
    db.execute("INSERT INTO t VALUES ('1.5'), ('2.0'), (2)")
    stored = [kind for (kind,) in db.execute("SELECT typeof(c) FROM t")]
    db.close()
    expected = {
        "integer": ["real", "integer", "integer"],
        "numeric": ["real", "integer", "integer"],
        "real": ["real", "real", "real"],
        "text": ["text", "text", "text"],
        "blob": ["text", "text", "integer"],
    }
    assert stored == expected[types.affinity(native)]


ELSEWHERE: list[tuple[t.DataType, str, Form]] = [
    (t.Boolean(), "INTEGER", Form.INT),
    (t.Integer(64, unsigned=True), "TEXT", Form.INT),
    (t.Decimal(38, 10), "TEXT", Form.DECIMAL),
    (t.Float(32), "REAL", Form.FLOAT),
    (t.Text(20), "TEXT", Form.TEXT),
    (t.Binary(), "BLOB", Form.BYTES),
    (t.Date(), "TEXT", Form.DATE),
    (t.Time(6, span=True), "TEXT", Form.TIME),
    (t.Timestamp(6), "TEXT", Form.TIMESTAMP),
    (t.Timestamp(6, zone=True), "TEXT", Form.TIMESTAMPTZ),
    (t.Interval(), "TEXT", Form.INTERVAL),
    (t.Uuid(), "TEXT", Form.UUID),
    (t.Json(), "TEXT", Form.JSON),
    (t.Array(t.Integer(32)), "TEXT", Form.JSON),
    (t.Enum(("a", "b")), "TEXT", Form.TEXT),
    (t.Bits(8), "TEXT", Form.BITS),
    (t.Opaque("inet"), "TEXT", Form.TEXT),
    (t.Document(), "TEXT", Form.DOCUMENT),
]


@pytest.mark.parametrize(("type", "native", "form"), ELSEWHERE)
def test_other_engines_types(type: t.DataType, native: str, form: Form) -> None:
    stored = types.store(Column(name="c", type=type, native="x"), "postgresql")
    assert (stored.native, stored.form) == (native, form)
    assert native in types.STRICT_TYPES
    meaning = types.describe(stored.type)
    assert meaning is None or types.parse(meaning) == stored.type


def test_the_same_engine_keeps_everything() -> None:
    stored = types.store(Column(name="c", type=t.Integer(64), native="DATETIME", collation="NOCASE"), "sqlite")
    assert (stored.native, stored.form, stored.checks, stored.collation) == ("DATETIME", Form.DYNAMIC, (), "NOCASE")


def test_only_nan_and_negative_zero_are_lost() -> None:
    checks = types.store(Column(name="c", type=t.Float(64), native="x"), "postgresql").checks
    assert [(c.kind, c.repair, c.low, c.high) for c in checks] == [
        ("nonfinite", "null", "-Infinity", "Infinity"),
        ("negative_zero", "strip", None, None),
    ]


def test_every_default_is_accepted_by_sqlite() -> None:
    cases: list[tuple[DefaultKind, t.DataType, str | None]] = [
        ("literal", t.Text(), "it's \0 ;--"),
        ("literal", t.Integer(), "-5"),
        ("literal", t.Boolean(), "true"),
        ("literal", t.Binary(), "\\x00ff"),
        ("now", t.Timestamp(6, zone=True), None),
        ("now", t.Timestamp(6), None),
        ("today", t.Date(), None),
        ("time", t.Time(), None),
        ("uuid", t.Uuid(), None),
        ("null", t.Text(), None),
    ]
    columns = [
        Column(
            name=f"{kind} {i}", type=type, native=types.spell(type), default=Default(native="", kind=kind, value=value)
        )
        for i, (kind, type, value) in enumerate(cases)
    ]
    table = Table(namespace="main", name="t", columns=tuple(columns))
    db = sqlite3.connect(":memory:")
    for statement in ddl.build([table], {}).before:
        db.execute(statement)
    db.execute("INSERT INTO t DEFAULT VALUES")
    row = dict(zip([c.name for c in columns], db.execute("SELECT * FROM t").fetchone(), strict=True))
    db.close()
    assert row["literal 0"] == "it's \0 ;--"
    assert (row["literal 1"], row["literal 2"], row["literal 3"]) == (-5, 1, b"\x00\xff")
    assert row["now 4"].endswith("Z")
    assert len(row["now 5"]) == 19
    assert row["uuid 8"][14] == "4"
    assert row["null 9"] is None


def test_identity_is_autoincrement_only_on_the_rowid() -> None:
    column = Column(name="id", type=t.Integer(64), native="INTEGER", nullable=False, identity=Identity())
    numbered = Table(namespace="main", name="t", columns=(column,), primary_key=Key(name=None, columns=("id",)))
    (statement,) = ddl.build([numbered], {}).before
    assert "PRIMARY KEY AUTOINCREMENT" in statement
    assert statement.endswith("STRICT")
    other = Table(
        namespace="main",
        name="t",
        columns=(column, Column(name="b", type=t.Text(), native="TEXT")),
        primary_key=Key(name=None, columns=("b",)),
    )
    assert "AUTOINCREMENT" not in ddl.build([other], {}).before[0]


def test_names_that_sqlite_cannot_hold() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(InvalidInput):
            ddl.quote(name)
