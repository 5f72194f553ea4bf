"""PostgreSQL's pure chapters: names, literals, types, staging, encoders."""

from __future__ import annotations

import pytest

from dblens.engines.base import Field
from dblens.engines.postgres import ddl, load, types
from dblens.engines.postgres.export import _for_mysql
from dblens.engines.postgres.inspect import _default, _inner
from dblens.errors import InvalidInput, QueryFailed
from dblens.schema.model import Column, Default, ForeignKey, Index, IndexPart, Key, NamedType, Table
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Enum,
    Float,
    Integer,
    Json,
    Opaque,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)  # fmt: skip
from dblens.values.forms import Form


def col(native: str, type: DataType | None = None, **more: object) -> Column:
    return Column(name="c", type=type or types.parse(native), native=native, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ['a"b', "new\nline", "😀", ";--", "%s", "{}", "x" * 63])
def test_quote(name: str) -> None:
    assert ddl.quote(name) == '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_unquotable(name: str) -> None:
    with pytest.raises(InvalidInput):
        ddl.quote(name)


@pytest.mark.parametrize(
    ("native", "type"),
    [
        ("numeric(12,2)", Decimal(12, 2, special=True)),
        ("numeric", Decimal(special=True)),
        ("timestamp(3) without time zone", Timestamp(3)),
        ("timestamp with time zone", Timestamp(zone=True)),
        ("character varying(40)", Text(40)),
        ("character(3)", Text(3, fixed=True)),
        ("bit(3)", Bits(3)),
        ("bit varying(5)", Bits(5, varying=True)),
        ("integer[]", Array(Integer(32))),
        ("varchar(3)[]", Array(Text(3))),
        ("inet", Opaque("inet")),
        ('"Odd".mood', Opaque('"Odd".mood')),
        ("time(0) with time zone", Time(0, zone=True)),
        ("jsonb", Json()),
        ("json", Json(normalised=False)),
    ],
)
def test_parse(native: str, type: DataType) -> None:
    assert types.parse(native) == type


@pytest.mark.parametrize(
    ("type", "source", "native", "form"),
    [
        (Integer(64, unsigned=True), "mysql", "numeric(20,0)", Form.INT),
        (Integer(32, unsigned=True), "mysql", "bigint", Form.INT),
        (Integer(24), "mysql", "integer", Form.INT),
        (Integer(8), "mysql", "smallint", Form.INT),
        (Boolean(), "mysql", "boolean", Form.INT),
        (Timestamp(6), "mysql", "timestamp without time zone", Form.TIMESTAMP),
        (Timestamp(0, zone=True), "mysql", "timestamp(0) with time zone", Form.TIMESTAMPTZ),
        (Time(6, span=True), "mysql", "interval", Form.TIME),
        (Year(), "mysql", "smallint", Form.INT),
        (Enum(("a", "b")), "mysql", "text", Form.TEXT),
        (Set(("a", "b")), "mysql", "text[]", Form.JSON),
        (Bits(1), "mysql", "bit(1)", Form.BITS),
        (Json(), "mysql", "jsonb", Form.JSON),
        (Float(64), "sqlite", "double precision", Form.FLOAT),
        (Text(10), "sqlite", "text", Form.TEXT),
        (Binary(10), "mysql", "bytea", Form.BYTES),
        (Date(), "mysql", "date", Form.DATE),
        (Uuid(), "mongodb", "uuid", Form.UUID),
    ],
)
def test_store(type: DataType, source: str, native: str, form: Form) -> None:
    stored = types.store(col("", type), source)
    assert (stored.native, stored.form) == (native, form)


def test_store_keeps_its_own() -> None:
    stored = types.store(col("shop.mood", Enum(("a",), "shop.mood")), "postgresql")
    assert (stored.native, stored.form, stored.checks) == ("shop.mood", Form.NATIVE, ())


def test_enum_check_quotes_values() -> None:
    stored = types.store(col("", Enum(("it's", "b"))), "mysql")
    assert stored.check_expression == "{c} IN ('it''s', 'b', '')"


def test_names_in_expressions_move_but_literals_stay() -> None:
    names = {("shop", "mood"): ("_dblens_r", "mood"), ("Odd", 'a"b'): ("_dblens_r_1", 'a"b')}
    assert ddl.moved("'shop.mood'::shop.mood", names) == '\'shop.mood\'::"_dblens_r"."mood"'
    assert ddl.moved('x::"Odd"."a""b"[]', names) == 'x::"_dblens_r_1"."a""b"[]'
    assert ddl.moved("other.mood", names) == "other.mood"


def test_staging_keeps_namespaces_apart() -> None:
    assert ddl.staged(("public", "t"), "ab") == ("_dblens_ab", "t")
    assert ddl.staged(("shop", "t"), "ab") != ddl.staged(("public", "t"), "ab")
    assert ddl.previous(("public", "t"), "ab") == ("_dblens_ab_prev", "t")
    assert len(ddl.previous(("é" * 31, "t"), "0123456789")[0]) <= 63


def test_build_refers_to_staged_tables_and_types() -> None:
    mood = NamedType(namespace="shop", name="mood", kind="enum", values=("ok", "it's"))
    a = Table(
        namespace="shop", name="a", primary_key=Key(name="a_pk", columns=("c",)),
        columns=(col("shop.mood", Enum(mood.values, "shop.mood"), default=Default(native="'ok'::shop.mood"), nullable=False),),
    )  # fmt: skip
    b = Table(
        namespace="public", name="b", columns=(col("shop.mood"),),
        foreign_keys=(ForeignKey(name="f", columns=("c",), table="a", referred=("c",), namespace="shop", on_delete="cascade"),),
        indexes=(Index(name="i", parts=(IndexPart(column="c", descending=True),), where="c = 'ok'::shop.mood"),),
    )  # fmt: skip
    places = {(t.namespace, t.name): ddl.staged((t.namespace, t.name), "r1") for t in (a, b)}
    build = ddl.build([a, b], places, [mood])
    stage = places[("shop", "a")][0]
    assert f"CREATE TYPE \"{stage}\".\"mood\" AS ENUM ('ok', 'it''s')" in build.before
    assert any(f'"c" "{stage}"."mood" DEFAULT \'ok\'::"{stage}"."mood" NOT NULL' in s for s in build.before)
    assert build.foreign == (
        f'ALTER TABLE "_dblens_r1"."b" ADD CONSTRAINT "f" FOREIGN KEY ("c") REFERENCES "{stage}"."a" ("c") ON DELETE CASCADE',
    )
    assert (
        f'CREATE INDEX "i" ON "_dblens_r1"."b" USING btree ("c" DESC) WHERE c = \'ok\'::"{stage}"."mood"' in build.after
    )


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("'it''s'::text", "literal", "it's"),
        ("5", "literal", "5"),
        ("'-1'::integer", "literal", "-1"),
        ("(-1.5)", "literal", "-1.5"),
        ("true", "literal", "1"),
        ("NULL::character varying", "null", None),
        ("now()", "now", None),
        ("CURRENT_TIMESTAMP(3)", "now", None),
        ("CURRENT_DATE", "today", None),
        ("gen_random_uuid()", "uuid", None),
        ("nextval('shop.\"My seq\"'::regclass)", "sequence", "shop.My seq"),
        ("lower('X'::text)", "expression", None),
        ("'a'::text || 'b'::text", "expression", None),
    ],
)
def test_defaults(text: str, kind: str, value: str | None) -> None:
    assert (_default(text).kind, _default(text).value) == (kind, value)


def test_inner_parentheses() -> None:
    assert _inner("(a > 0)") == "a > 0"
    assert _inner("(a > 0) AND (b > 0)") == "(a > 0) AND (b > 0)"
    assert _inner("(a = ')'::text)") == "a = ')'::text"


def test_rows_become_copy_text() -> None:
    fields = [
        Field(column=Column(name=n, type=types.parse(t), native=t), form=f)
        for n, t, f in [
            ("i", "bigint", Form.INT), ("f", "double precision", Form.FLOAT), ("t", "text", Form.TEXT), ("b", "bytea", Form.BYTES),
            ("s", "text[]", Form.JSON), ("v", "interval", Form.INTERVAL),
        ]
    ]  # fmt: skip
    rows = [
        (1, 0.1, "a\tb\\\n\r", b"\x00\xff", '["x","a\\"b",null]', "1 -2 3"),
        (None,) * 6,
        (True, float("nan"), "", b"", "[]", None),
    ]
    assert load.lines(rows, [load.as_text(f) for f in fields]).decode().splitlines() == [
        '1\t0.1\ta\\tb\\\\\\n\\r\t\\\\x00ff\t{"x","a\\\\"b",NULL}\t1 mons -2 days 3 microseconds',
        "\t".join(["\\N"] * 6),
        "1\tnan\t\t\\\\x\t{}\t\\N",
    ]


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_text_that_cannot_be_stored_is_refused(bad: str) -> None:
    field = Field(column=Column(name="t", type=Text(), native="text"), form=Form.TEXT)
    with pytest.raises(QueryFailed):
        load.lines([(bad,), ("x",)], [load.as_text(field)])


def test_mytext_knows_no_form_feed() -> None:
    assert _for_mysql(rb"a\fb\\f\v\\\v\n" + b"\n") == b"a\fb\\\\f\x0b\\\\\x0b\\n\n"
