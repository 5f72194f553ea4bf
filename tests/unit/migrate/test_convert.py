"""Converting tables: names, keys, indexes, rules, and the list of what does not come along."""

from __future__ import annotations

from typing import Any

import pytest

from dblens.engines.base import Engine
from dblens.errors import InvalidInput, Unsupported
from dblens.migrate.convert import Converted, Converter, Side
from dblens.migrate.options import Options, Rule, RuleBook
from dblens.schema.model import (
    Check,
    Column,
    Default,
    ForeignKey,
    Generated,
    Identity,
    Index,
    IndexPart,
    Key,
    Partitioning,
    Sequence,
    Table,
    Trigger,
)
from dblens.schema.types import Integer, Opaque, Text, Timestamp
from dblens.transfer.mask import Mask
from dblens.values.forms import Form
from tests.unit.migrate.fakes import column, engine, table

INT = Integer()


def convert(
    *tables: Table,
    rules: tuple[Rule, ...] = (),
    source: Engine | None = None,
    target: Engine | None = None,
    flavours: tuple[str, str] = ("1", "1"),
    existing: Table | None = None,
    into: str | None = None,
    sequences: dict[str, int] | None = None,
) -> list[Converted]:
    options = Options(rules=rules, into=into)
    book = RuleBook(options)
    converter = Converter(
        Side(source or engine("there"), flavours[0], "home"),
        Side(target or engine(), flavours[1], "live"),
        options,
        book,
        {s: Sequence(namespace="home", name=s, start=1, next=next) for s, next in (sequences or {}).items()},
    )
    several = len({t.namespace for t in tables}) > 1
    found = [converter.place(t, several)[1] for t in tables]
    made = [converter.convert(t, r, existing) for t, r in zip(tables, found, strict=True)]
    book.check()
    return made


def one(shape: Table, **more: Any) -> Converted:
    return convert(shape, **more)[0]


def said(made: Converted) -> set[tuple[str, str]]:
    return {(e.kind, e.name) for e in made.exclusions}


# ---------------------------------------------------------------------------------------------------------------------- names


def test_a_plain_table() -> None:
    made = one(table("t", column("id", INT, nullable=False), "name", key=("id",), comment="c"))
    assert (made.target.namespace, made.target.name, made.target.comment) == ("live", "t", "c")
    assert [c.name for c in made.target.columns] == ["id", "name"]
    assert made.target.primary_key == Key(name=None, columns=("id",))
    assert [f.form for f in made.fields] == [Form.INT, Form.TEXT]
    assert [(f.column.name, c.kind) for f, c in made.checks] == [("name", "nul_character")]
    assert made.exclusions == []


def test_columns_that_collide_in_the_target() -> None:
    made = one(
        table("t", column("Id", INT), column("id", INT), "x" * 70, key=("Id", "id")), target=engine(folds_case=True)
    )
    names = [c.name for c in made.target.columns]
    assert names[0] == "Id"
    assert len({n.lower() for n in names}) == 3
    assert all(len(n) <= 63 for n in names)
    assert made.target.primary_key
    assert made.target.primary_key.columns == (names[0], names[1])
    assert [f.target.name for f in made.fields if f.target] == names
    assert sum("named" in t for t in made.transforms) == 2


def test_namespaces_become_prefixes_where_the_target_has_none() -> None:
    a, b = convert(table("t", "x"), table("t", "x", namespace="other"))
    assert (a.target.namespace, a.target.name) == ("live", "t")
    assert (b.target.namespace, b.target.name) == ("live", "other__t")
    alone = one(table("t", "x", namespace="other"))
    assert alone.target.name == "t"


def test_namespaces_stay_where_both_have_them() -> None:
    made = one(table("t", "x", namespace="other"), source=engine("there", schemas=True), target=engine(schemas=True))
    assert (made.target.namespace, made.target.name) == ("other", "t")
    made = one(
        table("t", "x", namespace="other"),
        source=engine("there", schemas=True),
        target=engine(schemas=True),
        into="new",
    )
    assert made.target.namespace == "new"


def test_index_names_are_unique_in_the_namespace_or_in_the_table() -> None:
    index = Index(name="idx", parts=(IndexPart(column="x"),))
    shapes = [table(name, "x", indexes=(index,)) for name in ("a", "b", "idx")]
    names = [m.target.indexes[0].name for m in convert(*shapes)]
    assert len(set(names)) == 3
    assert "idx" not in names  # a table has that name already
    names = [m.target.indexes[0].name for m in convert(*shapes, target=engine(indexes_per_table=True))]
    assert names == ["idx", "idx", "idx"]


# ----------------------------------------------------------------------------------------------------------------------- keys


def test_foreign_keys_follow_renamed_tables_and_columns() -> None:
    parent = table("parent", column("id", INT), key=("id",))
    key = ForeignKey(name="fk", columns=("pid",), table="parent", referred=("id",), on_delete="cascade")
    child = table("child", column("pid", INT), foreign_keys=(key,))
    rules = (
        Rule(match="parent", rename="eltern"),
        Rule(match="parent.id", rename="nr"),
        Rule(match="child.pid", rename="eltern_nr"),
    )
    _, made = convert(parent, child, rules=rules)
    (found,) = made.target.foreign_keys
    assert (found.table, found.referred, found.columns) == ("eltern", ("nr",), ("eltern_nr",))
    assert found.namespace == "live"
    assert found.on_delete == "cascade"


def test_foreign_keys_follow_columns_that_the_target_renames() -> None:
    """Not only rules rename: limits and folded case do, and the reference must follow."""
    parent = table("parent", column("Id", INT), column("id", INT), column("y" * 70, INT), key=("id",))
    keys = (
        ForeignKey(name="fk", columns=("pid",), table="parent", referred=("id",)),
        ForeignKey(name="fk2", columns=("pid",), table="parent", referred=("y" * 70,)),
    )
    child = table("child", column("pid", INT), foreign_keys=keys)
    for order in ((parent, child), (child, parent)):
        made = {m.source.name: m.target for m in convert(*order, target=engine(folds_case=True))}
        names = [c.name for c in made["parent"].columns]
        assert [k.referred for k in made["child"].foreign_keys] == [(names[1],), (names[2],)]


def test_a_key_loses_what_does_not_come_along_and_says_so() -> None:
    parent = table("parent", column("id", INT), key=("id",))
    shape = table(
        "child",
        column("a", INT),
        column("b", INT),
        key=("a", "b"),
        uniques=(Key(name="u", columns=("b",)),),
        indexes=(Index(name="i", parts=(IndexPart(column="b"),)),),
        foreign_keys=(
            ForeignKey(name="gone", columns=("a",), table="parent", referred=("id",)),
            ForeignKey(name="self", columns=("b",), table="child", referred=("a",)),
        ),
    )
    made = one(shape, rules=(Rule(match="child.b", exclude=True),))
    assert parent.name
    assert made.target.primary_key is None
    assert len([*made.target.uniques, *made.target.indexes, *made.target.foreign_keys]) == 0
    assert [f.column.name for f in made.fields] == ["a"]
    kinds = sorted(kind for kind, _ in said(made))
    assert kinds == ["column", "foreign key", "foreign key", "index", "primary key", "unique constraint"]
    assert all(e.reason for e in made.exclusions)


def test_a_reference_to_a_column_that_is_left_out_is_left_out_too() -> None:
    """Else the target would be told to refer to a column that it does not have."""
    parent = table(
        "parent", column("id", INT), column("code", INT), key=("id",), uniques=(Key(name="u", columns=("code",)),)
    )
    key = ForeignKey(name="fk", columns=("c",), table="parent", referred=("code",))
    child = table("child", column("c", INT), foreign_keys=(key,))
    _, made = convert(parent, child, rules=(Rule(match="parent.code", exclude=True),))
    assert made.target.foreign_keys == ()
    assert ("foreign key", "home.child.fk") in said(made)


def test_two_tables_keys_of_one_name() -> None:
    """PostgreSQL allows it, MySQL does not."""
    parent = table("parent", column("id", INT), key=("id",))
    key = ForeignKey(name="fk", columns=("c",), table="parent", referred=("id",))
    shapes = (
        parent,
        table("a", column("c", INT), foreign_keys=(key,)),
        table("b", column("c", INT), foreign_keys=(key,)),
    )
    assert [k.name for m in convert(*shapes) for k in m.target.foreign_keys] == ["fk", "fk"]
    made = convert(*shapes, target=engine(constraints_per_table=False))
    names = [k.name for m in made for k in m.target.foreign_keys]
    assert names[0] == "fk"
    assert names[1] != "fk"
    assert any(repr(names[1]) in t for t in made[2].transforms)


def test_a_document_store_has_ids_instead_of_keys() -> None:
    made = one(table("t", column("a", INT), "b", key=("a",)), target=engine(documents=True))
    assert [c.path for c in made.target.columns] == [("_id",), ("b",)]
    assert [f.target.path for f in made.fields if f.target] == [("_id",), ("b",)]
    made = one(table("t", column("a", INT), "b", "c", key=("a", "b")), target=engine(documents=True))
    assert [c.path for c in made.target.columns] == [("_id", "a"), ("_id", "b"), ("c",)]


# ------------------------------------------------------------------------------------------------- what does not come along


def test_nothing_is_dropped_silently() -> None:
    shape = table(
        "t",
        column("id", INT),
        column("made", INT, generated=Generated(expression="id * 2")),
        column("at", Timestamp(), on_update="CURRENT_TIMESTAMP"),
        column("d", default=Default(native="gen()", kind="expression")),
        triggers=(Trigger(name="tr", timing="before", events=("insert",), source="create trigger …"),),
        checks=(Check(name="c", expression="id > 0"),),
        indexes=(
            Index(name="partial", parts=(IndexPart(column="id"),), where="id > 5"),
            Index(name="expr", parts=(IndexPart(expression="lower(x)"),)),
            Index(name="gin", parts=(IndexPart(column="id"),), kind="gin"),
            Index(name="prefix", parts=(IndexPart(column="d", prefix=5),), unique=True),
        ),
        partitioning=Partitioning(kind="range", key="id"),
    )
    made = one(shape)
    assert said(made) == {
        ("trigger", "home.t.tr"),
        ("check", "home.t.c"),
        ("on update", "home.t.at"),
        ("default", "home.t.d"),
        ("index", "home.t.partial"),
        ("index", "home.t.expr"),
        ("index", "home.t.gin"),
        ("index", "home.t.prefix"),
    }
    assert all(e.source for e in made.exclusions)
    assert any("computed column" in t for t in made.transforms)
    assert any("partitioned" in t for t in made.transforms)
    assert "made" in [f.column.name for f in made.fields]  # its values are copied


def test_the_same_engine_keeps_them() -> None:
    shape = table(
        "t",
        column("id", INT),
        column("made", INT, generated=Generated(expression="id * 2")),
        checks=(Check(name="c", expression="id > 0"),),
        indexes=(Index(name="partial", parts=(IndexPart(column="id"),), where="id > 5"),),
        options={"engine": "InnoDB"},
    )
    made = one(shape, source=engine("same"), target=engine("same"))
    assert made.exclusions == []
    assert made.target.checks
    assert made.target.indexes[0].where == "id > 5"
    assert made.target.options == {"engine": "InnoDB"}
    assert [f.column.name for f in made.fields] == ["id"]  # the target computes the other one
    assert made.fields[0].form == Form.NATIVE


def test_two_flavours_of_one_engine_are_not_twins() -> None:
    shape = table("t", column("id", INT), checks=(Check(name="c", expression="id > 0"),))
    made = one(shape, source=engine("same"), target=engine("same"), flavours=("mariadb", "mysql"))
    assert ("check", "home.t.c") in said(made)
    assert made.fields[0].form == Form.INT


def test_an_impossible_type_and_too_many_columns() -> None:
    with pytest.raises(Unsupported, match="weird"):
        one(table("t", column("x", Opaque(native="weird"), native="weird")))
    with pytest.raises(Unsupported, match="5 columns"):
        one(table("t", *"abcde"), target=engine(max_columns=4))
    with pytest.raises(Unsupported, match="no columns left"):
        one(table("t", "a"), rules=(Rule(match="t.a", exclude=True),))


# ---------------------------------------------------------------------------------------------------------------------- rules


def test_column_rules() -> None:
    shape = table("t", column("id", INT), "name", "note", column("n", INT))
    made = one(
        shape,
        rules=(
            Rule(match="t", rename="neu", filter="id > 5"),
            Rule(match="t.name", rename="bezeichnung"),
            Rule(match="t.note", constant=""),
            Rule(match="t.n", expression="n + 1"),
            Rule(match="t.n", type="int(8)"),
            Rule(match="t.id", type="int(4)"),
        ),
    )
    by_name = {f.target.name: f for f in made.fields if f.target}
    assert made.target.name == "neu"
    assert made.where == "id > 5"
    assert list(by_name) == ["id", "bezeichnung", "note", "n"]
    assert by_name["note"].is_constant
    assert by_name["note"].constant == ""
    assert by_name["n"].expression == "n + 1"
    assert made.target.column("n").type == INT
    assert made.target.column("id").native == "int(4)"
    assert not [c for f, c in made.checks if f.target and f.target.name == "note"]


def test_masks_by_rule() -> None:
    shape = table("t", column("id", INT), "email", column("at", Timestamp(), nullable=False), key=("id",))
    rules = (
        Rule(match="*.email", mask=Mask("redact")),
        Rule(match="t.at", mask=Mask("null")),
        Rule(match="t.id", mask=Mask("hash", "12345678")),
    )
    made = one(shape, rules=rules)
    assert made.masks == {"email": Mask("redact"), "at": Mask("null"), "id": Mask("hash", "12345678")}
    assert made.target.column("at").nullable
    assert isinstance(made.target.column("id").type, Integer)
    assert isinstance(made.target.column("email").type, Text)
    assert made.checks == []  # a masked value is not the one that would be checked


def test_a_rule_that_matches_nothing() -> None:
    with pytest.raises(InvalidInput, match=r"t\.nmae"):
        one(table("t", "name"), rules=(Rule(match="t.nmae", rename="x"),))


# --------------------------------------------------------------------------------------------------------- append and data only


def test_an_existing_table_decides_the_type() -> None:
    existing = table("t", column("id", INT, native="bigint"), column("name", native="varchar(5)"))
    made = one(table("t", column("id", INT), "name"), existing=existing)
    assert [c.native for c in made.target.columns] == ["bigint", "varchar(5)"]
    with pytest.raises(InvalidInput, match="other"):
        one(table("t", "other"), existing=existing)


def test_identity_and_defaults() -> None:
    shape = table(
        "t",
        column("id", INT, identity=Identity(next=7, sequence="t_id_seq"), default=Default(native="x", kind="sequence")),
        column("s", default=Default(native="'a'", kind="literal", value="a")),
        column("at", Timestamp(), default=Default(native="now()", kind="now")),
    )
    made = one(shape)
    columns: dict[str, Column] = {c.name: c for c in made.target.columns}
    assert columns["id"].identity == Identity(next=7)
    assert columns["id"].default is None
    assert columns["s"].default == Default(native="", kind="literal", value="a")
    assert columns["at"].default == Default(native="", kind="now")


def test_a_column_fed_by_a_sequence_is_numbered_by_the_target() -> None:
    fed = Default(native="nextval('s')", kind="sequence", value="s")
    made = one(table("t", column("id", INT, default=fed), column("code", default=fed)), sequences={"s": 42})
    assert made.target.column("id").identity == Identity(start=1, increment=1, next=42)
    assert made.target.column("code").identity is None
    assert said(made) == {("default", "home.t.code")}
