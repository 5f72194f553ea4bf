"""The pure chapters of the MySQL engine: types, DDL, block text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.engines.base import Field, KeyRange
from dblens.engines.mysql import ddl, rowtext, sql, types
from dblens.engines.mysql.driver import translate
from dblens.engines.mysql.sql import literal, quote
from dblens.errors import Conflict, ConnectionFailed, InvalidInput, NotFound, TimedOut, Unsupported
from dblens.schema.model import Column, Default, ForeignKey, Identity, Index, IndexPart, Key, Table
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Dynamic,
    Enum,
    Float,
    Geometry,
    Integer,
    Interval,
    Json,
    ObjectId,
    Opaque,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values.forms import Form

NATIVES = [
    ("tinyint(1)", Integer(8)),
    ("int(10) unsigned zerofill", Integer(32, unsigned=True)),
    ("bigint unsigned", Integer(64, unsigned=True)),
    ("decimal(65,30)", Decimal(65, 30)),
    ("decimal", Decimal(10, 0)),
    ("float", Float(32)),
    ("float(30)", Float(64)),
    ("double(10,2)", Float(64)),
    ("char(5)", Text(5, fixed=True)),
    ("varchar(300)", Text(300)),
    ("longtext", Text(None)),
    ("varbinary(9)", Binary(9)),
    ("datetime(6)", Timestamp(6)),
    ("timestamp", Timestamp(0, zone=True)),
    ("time(3)", Time(3, span=True)),
    ("year(4)", Year()),
    ("bit(64)", Bits(64)),
    ("enum('a','it''s','x,y)')", Enum(("a", "it's", "x,y)"))),
    ("set('a','b')", Set(("a", "b"))),
    ("json", Json()),
    ("point srid 4326", Geometry("point", 4326)),
    ("uuid", Uuid()),
    ("inet6", Opaque("inet6")),
    ("vector(3)", Opaque("vector(3)")),
]


@pytest.mark.parametrize(("native", "type"), NATIVES)
def test_natives_are_understood(native: str, type: DataType) -> None:
    assert types.parse(native) == type


@pytest.mark.parametrize(
    "type",
    [
        Boolean(), Integer(16), Integer(64, unsigned=True), Decimal(10, 2), Decimal(), Decimal(1000, 3), Float(32), Float(), Text(), Text(40),
        Text(5, fixed=True), Text(70_000), Binary(), Binary(16), Date(), Time(), Time(zone=True), Timestamp(), Timestamp(zone=True), Interval(),
        Uuid(), Json(), Enum(("a",)), Enum(("a ",)), Set(("a", "b")), Set(("a,b",)), Bits(5), Bits(100), Bits(None, varying=True), Year(),
        Geometry(), ObjectId(), Array(Integer()), Document(), Dynamic(("text",)), Opaque("inet"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
@pytest.mark.parametrize("indexed", [False, True])
def test_every_type_of_another_engine_has_a_column(type: DataType, flavour: str, indexed: bool) -> None:
    kept = types.store(Column(name="c", type=type, native="?"), "postgresql", indexed=indexed, flavour=flavour)
    assert kept.native
    assert kept.form != Form.NATIVE
    if kept.native not in ("json",):
        again = types.parse(kept.native)
        assert again == kept.type or isinstance(kept.type, Boolean)
    if indexed and isinstance(type, (Text, Opaque)) and kept.native == "varchar(768)":
        assert [c.kind for c in kept.checks] == ["invalid_text", "too_long"]
    if kept.native.startswith(("varchar", "longtext", "enum")):
        assert kept.collation in ("ascii_bin", types.exact_collation(flavour))


def test_only_mariadb_loses_negative_zero() -> None:
    column = Column(name="c", type=Float(), native="double precision")
    assert "negative_zero" in [c.kind for c in types.store(column, "postgresql", flavour="mariadb").checks]
    assert "negative_zero" not in [c.kind for c in types.store(column, "postgresql", flavour="mysql").checks]


def test_collations_are_translated_between_the_servers() -> None:
    column = Column(name="c", type=Text(9), native="varchar(9)", collation="utf8mb4_0900_ai_ci")
    assert types.store(column, "mysql", flavour="mariadb").collation == "utf8mb4_uca1400_nopad_ai_ci"
    assert types.store(column, "mysql", flavour="mysql").collation == "utf8mb4_0900_ai_ci"


@pytest.mark.parametrize("name", ["", "a\0b", "😀", "x" * 65, "trailing "])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        quote(name)


def test_names_and_literals() -> None:
    assert quote("a`b;--") == "`a``b;--`"
    assert literal("it's \\ \n") == "'it''s \\\\ \\n'"
    assert literal(None) == "NULL"
    assert ddl.staged(("shop", "t"), "abc") == ("_dblens_abc", "t")
    assert ddl.previous(("shop", "t"), "abc") == ("_dblens_abc~prev", "t")
    assert len(ddl.previous(("shop", "t"), "r" * 90)[0]) <= 64


def _table(*columns: Column, **more: object) -> Table:
    return Table(namespace="s", name="t", columns=columns, **more)  # type: ignore[arg-type]


def test_a_table_is_rendered_in_phases() -> None:
    table = _table(
        Column(name="id", type=Integer(), native="bigint", nullable=False, identity=Identity()),
        Column(
            name="v",
            type=Text(9),
            native="varchar(9)",
            collation="utf8mb4_bin",
            default=Default(native="", kind="literal", value="it's"),
        ),
        Column(name="j", type=Json(), native="json", default=Default(native="", kind="literal", value="{}")),
        Column(name="at", type=Timestamp(3), native="datetime(3)", default=Default(native="", kind="now")),
        primary_key=Key(name=None, columns=("id",)),
        uniques=(Key(name="u", columns=("v",)),),
        indexes=(Index(name="i", parts=(IndexPart(column="v", descending=True),)),),
        foreign_keys=(ForeignKey(name="f", columns=("id",), table="p", referred=("id",), on_delete="cascade"),),
    )
    build = ddl.build([table], {("s", "t"): ("z", "t"), ("s", "p"): ("z", "p")}, (), "mysql")
    (create,) = build.before
    assert "`id` bigint not null auto_increment" in create
    assert "collate utf8mb4_bin null default 'it''s'" in create
    assert "`j` json null default ('{}')" in create
    assert "default current_timestamp(3)" in create
    assert build.after == ("alter table `z`.`t` add unique key `u` (`v`), add key `i` (`v` desc)",)
    assert build.foreign == (
        "alter table `z`.`t` add constraint `f` foreign key (`id`) references `z`.`p` (`id`) on delete cascade",
    )


def test_what_innodb_cannot_hold_is_said_before() -> None:
    wide = [Column(name=f"c{i}", type=Text(768), native="varchar(768)") for i in range(22)]
    with pytest.raises(Unsupported, match="65535"):
        ddl.build([_table(*wide)], {})
    key = Key(name="k", columns=("c0", "c1"))
    with pytest.raises(Unsupported, match="3072"):
        ddl.build([_table(*wide[:2], uniques=(key,))], {})
    with pytest.raises(Unsupported, match="WHERE"):
        ddl.build([_table(wide[0], indexes=(Index(name="i", parts=(IndexPart(column="c0"),), where="c0 > ''"),))], {})
    with pytest.raises(Unsupported, match="expression"):
        ddl.build(
            [_table(wide[0], indexes=(Index(name="i", parts=(IndexPart(expression="lower(c0)"),)),))], {}, (), "mariadb"
        )


_FIELDS = [Field(column=Column(name=n, type=Text(), native="longtext"), form=Form.TEXT) for n in "ab"]
_TEXT = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))


@given(st.lists(st.tuples(_TEXT, _TEXT)))
def test_block_text_comes_back(rows: list[tuple[str | None, str | None]]) -> None:
    data = rowtext.encoder(_FIELDS)(rows)
    assert rowtext.decode(data) == [tuple(None if v is None else v.encode() for v in row) for row in rows]


def test_composite_key_ranges_are_written_out() -> None:
    table = _table(Column(name="a", type=Integer(), native="int"), Column(name="b", type=Binary(4), native="binary(4)"))
    keys = KeyRange(columns=("a", "b"), lo=("1", "ff"), hi=("2", "00"))
    assert sql.key_condition(table, keys) == (
        "(`a` >= 1 and ((`a` > 1) or (`a` = 1 and `b` > x'ff'))) and (`a` <= 2 and ((`a` < 2) or (`a` = 2 and `b` <= x'00')))"
    )
    for bad in (KeyRange(columns=("a",), lo=("1 or 1",)), KeyRange(columns=("b",), lo=("'",))):
        with pytest.raises(InvalidInput):
            sql.key_condition(table, bad)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(1049, NotFound), (2003, ConnectionFailed), (1205, TimedOut), (1062, Conflict), (2013, ConnectionFailed)],
)
def test_driver_errors_are_named(number: int, kind: type[Exception]) -> None:
    error = translate(Exception(number, "no luck"), "trying")
    assert isinstance(error, kind)
    assert error.hint
    assert f"({number})" in error.message
