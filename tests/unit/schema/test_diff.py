"""What a diff says in cases that matter: risk, meaning between engines, renames, namespaces, order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dblens.errors import InvalidInput
from dblens.schema import changes as c
from dblens.schema import types as t
from dblens.schema.apply import apply_changes
from dblens.schema.compare import Options, Renamed, same_product
from dblens.schema.diff import diff, map_namespaces
from dblens.schema.model import (
    Check,
    Column,
    Default,
    ForeignKey,
    Generated,
    Grant,
    Identity,
    Index,
    IndexPart,
    Key,
    NamedType,
    Schema,
    Sequence,
    Table,
    View,
)
from dblens.schema.risk import widens
from dblens.schema.select import select


def renamed(old: str, new: str, *, table: str | None = None) -> Renamed:
    return Renamed(namespace="public", table=table, old=old, new=new)


def column(name: str = "a", type: t.DataType = t.Integer(bits=32), native: str = "integer", **more: Any) -> Column:
    return Column(name=name, type=type, native=native, **more)


def table(*columns: Column, name: str = "t", **more: Any) -> Table:
    return Table(namespace=more.pop("namespace", "public"), name=name, columns=columns or (column(),), **more)


def schema(*tables: Table, engine: str = "postgresql", **more: Any) -> Schema:
    names = tuple(dict.fromkeys(x.namespace for x in tables))
    return Schema(
        engine=engine, version="15", database="d", namespaces=more.pop("namespaces", names), tables=tables, **more
    )


def one(a: Schema, b: Schema, options: Options = Options()) -> Any:
    changes = diff(a, b, options)
    assert len(changes) == 1, changes
    return changes[0]


def altered(before: Column, after: Column, **options: Any) -> Any:
    return one(schema(table(before)), schema(table(after)), Options(**options))


@pytest.mark.parametrize(
    ("before", "after", "what", "destructive", "blocking"),
    [
        (column(), column(native="bigint", type=t.Integer()), "type", False, True),
        (column(native="bigint", type=t.Integer()), column(), "type", True, True),
        (column(native="text", type=t.Text()), column(native="varchar(9)", type=t.Text(length=9)), "type", True, True),
        (
            column(native="varchar(9)", type=t.Text(length=9)),
            column(native="text", type=t.Text()),
            "type",
            False,
            False,
        ),
        (column(), column(nullable=False), "nullable", False, True),
        (column(nullable=False), column(), "nullable", False, False),
        (column(), column(default=Default(native="1")), "default", False, False),
        (column(), column(generated=Generated(expression="b")), "generated", True, True),
        (column(generated=Generated(expression="b")), column(), "generated", False, False),
        (column(), column(identity=Identity()), "identity", False, False),
        (column(), column(collation="C"), "collation", False, True),
        (column(), column(comment="x"), "comment", False, False),
        (column(), column(invisible=True), "visibility", False, False),
    ],
)
def test_column_aspects(before: Column, after: Column, what: str, destructive: bool, blocking: bool) -> None:
    change = altered(before, after)
    assert isinstance(change, c.AlterColumn)
    assert (change.what, change.destructive, change.blocking) == (what, destructive, blocking)
    assert change.reason


def test_dropping_what_holds_values_is_destructive() -> None:
    full = schema(
        table(column(), column("b")),
        table(name="u", rows_estimate=1234),
        sequences=(Sequence(namespace="public", name="s"),),
    )
    found = {type(x): x for x in diff(full, schema(table(), namespaces=("public",)))}
    assert found[c.DropColumn].destructive
    assert found[c.DropTable].destructive
    assert "1,234 rows" in found[c.DropTable].reason
    assert found[c.DropSequence].destructive


def test_what_changes_by_use_is_no_difference() -> None:
    a = schema(
        table(column(identity=Identity(next=1)), rows_estimate=1, bytes=2),
        sequences=(Sequence(namespace="public", name="s", next=1),),
    )
    b = schema(
        table(column(identity=Identity(next=9)), rows_estimate=7, bytes=9),
        sequences=(Sequence(namespace="public", name="s", next=9),),
    )
    assert diff(a, b) == ()


def test_options_ignore() -> None:
    a = schema(
        table(column(comment="x", collation="C"), owner="me", grants=(Grant(grantee="you", privilege="SELECT"),))
    )
    b = schema(table(column(), owner="you"))
    assert {x.what for x in diff(a, b)} == {"owner", "grants", "comment", "collation"}  # type: ignore[union-attr]
    assert diff(a, b, Options(ignore=frozenset({"owner", "grants", "comment", "collation"}))) == ()
    assert {x.what for x in diff(a, b, Options(ignore=frozenset({"owner"})))} == {"grants", "comment", "collation"}  # type: ignore[union-attr]


def test_tables_option_leaves_the_rest_out() -> None:
    a, b = schema(table(), table(name="u")), schema(table(column("z")), namespaces=("public",))
    assert {type(x) for x in diff(a, b, Options(tables=("public.t",)))} == {c.AddColumn, c.DropColumn}
    assert isinstance(one(a, b, Options(tables=("u*",))), c.DropTable)


# ------------------------------------------------------------------------------------------------------------ other engines


def test_between_engines_meaning_is_compared_not_spelling() -> None:
    post = schema(
        table(
            column(
                "id",
                t.Integer(bits=32),
                "integer",
                nullable=False,
                default=Default(native="nextval('s')", kind="sequence", value="s"),
            ),
            column("at", t.Timestamp(), "timestamp without time zone", default=Default(native="now()", kind="now")),
            column(
                "mood",
                t.Enum(values=("a",), name="public.mood"),
                "mood",
                default=Default(native="'a'::mood", kind="literal", value="a"),
            ),
            primary_key=Key(name="t_pkey", columns=("id",)),
            foreign_keys=(ForeignKey(name="f", columns=("id",), table="t", referred=("id",), on_delete="no action"),),
            checks=(Check(name="c", expression='(("id" > 0))'),),
            owner="me",
        )
    )
    my = schema(
        table(
            column("id", t.Integer(bits=32), "int", identity=Identity()),
            column("at", t.Timestamp(), "datetime(6)", default=Default(native="current_timestamp(6)", kind="now")),
            column("mood", t.Enum(values=("a",)), "enum('a')", default=Default(native="a", kind="literal", value="a")),
            namespace="shop",
            primary_key=Key(name="PRIMARY", columns=("id",)),
            foreign_keys=(ForeignKey(name="g", columns=("id",), table="t", referred=("id",), on_delete="restrict"),),
            checks=(Check(name="d", expression="`id`>0"),),
        ),
        engine="mysql",
    )
    assert diff(post, my) == ()
    assert diff(my, post) == ()


def test_between_engines_a_hook_may_say_that_types_are_the_same() -> None:
    a = schema(table(column("b", t.Boolean(), "boolean")))
    b = schema(table(column("b", t.Integer(bits=8), "tinyint(1)")), engine="mysql")
    assert isinstance(one(a, b), c.AlterColumn)
    assert diff(a, b, same_type=lambda x, y: isinstance(x.type, t.Boolean) and y.native == "tinyint(1)") == ()


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("a > 0", '("a">0)', True),
        ("(a + b) * c", "a + b * c", False),
        ("x = 'A'", "x = 'a'", False),
        ("x = 'a  b'", "x = 'a b'", False),
        ("(a) and (b)", "a) and (b", False),
        ("A > 0", "a > 0", True),
        ("x = 'it''s'", "`x`='it''s'", True),
    ],
)
def test_loose_expressions(ours: str, theirs: str, same: bool) -> None:
    a = schema(table(checks=(Check(name=None, expression=ours),)))
    b = schema(table(checks=(Check(name=None, expression=theirs),)), engine="mysql")
    assert (diff(a, b) == ()) is same


def test_flavours_of_one_engine_are_compared_by_meaning() -> None:
    maria = schema(table(column(native="int(11)")), engine="mysql", flavour="mariadb")
    my = schema(table(column(native="int")), engine="mysql", flavour="mysql")
    assert not same_product(maria, my)
    assert diff(maria, my) == ()
    assert diff(maria, my, Options(by="spelling")) != ()
    assert same_product(schema(flavour="15"), schema(flavour="18"))


def test_a_key_column_is_never_null_between_engines() -> None:
    key = Key(name=None, columns=("a",))
    a = schema(table(column(nullable=True), primary_key=key), engine="sqlite")
    assert diff(a, schema(table(column(nullable=False), primary_key=key))) == ()


# --------------------------------------------------------------------------------------------------- namespaces and renames


def test_a_column_is_told_not_to_be_null_when_the_key_that_kept_it_goes() -> None:
    a = schema(table(column(nullable=True), primary_key=Key(name=None, columns=("a",))))
    b = schema(table(column(nullable=False)), engine="mysql")
    changes = diff(a, b)
    assert [type(x) for x in changes] == [c.DropKey, c.AlterColumn]
    assert diff(apply_changes(a, changes), b) == ()


def test_named_namespace_mapping_moves_references_and_types() -> None:
    mood = NamedType(namespace="two", name="mood", kind="enum", values=("a",))
    enum = column("m", t.Enum(values=("a",), name="two.mood"), "two.mood[]")
    key = ForeignKey(name=None, columns=("m",), table="t", referred=("m",), namespace="two")
    moved = map_namespaces(schema(table(enum, namespace="two", foreign_keys=(key,)), types=(mood,)), {"two": "one"})
    found = moved.table("one", "t")
    assert found.columns[0].native == "one.mood[]"
    assert found.foreign_keys[0].namespace == "one"
    assert moved.types[0].namespace == "one"
    assert moved.namespaces == ("one",)


def test_unknown_namespace_in_the_mapping() -> None:
    with pytest.raises(InvalidInput, match="no namespace 'x'"):
        diff(schema(), schema(), Options(namespaces={"x": "y"}))


def test_renames_are_only_those_that_were_told() -> None:
    a = schema(
        table(
            column("old"),
            primary_key=Key(name="k", columns=("old",)),
            indexes=(Index(name="i", parts=(IndexPart(column="old"),)),),
        )
    )
    b = schema(
        table(
            column("new"),
            name="u",
            primary_key=Key(name="k", columns=("new",)),
            indexes=(Index(name="i", parts=(IndexPart(column="new"),)),),
        )
    )
    assert not any(isinstance(x, (c.RenameTable, c.RenameColumn)) for x in diff(a, b))
    options = Options(renamed=(renamed("t", "u"), renamed("old", "new", table="u")))
    assert [type(x) for x in diff(a, b, options)] == [c.RenameTable, c.RenameColumn]
    assert diff(apply_changes(a, diff(a, b, options)), b) == ()


def test_renames_move_the_references_of_others() -> None:
    key = ForeignKey(name="f", columns=("x",), table="t", referred=("a",))
    a = schema(table(), table(column("x"), name="child", foreign_keys=(key,)))
    changes = (
        c.RenameTable(namespace="public", before="t", after="u"),
        c.RenameColumn(namespace="public", table="u", before="a", after="b"),
    )
    moved = apply_changes(a, changes).table("public", "child").foreign_keys[0]
    assert (moved.table, moved.referred) == ("u", ("b",))


@pytest.mark.parametrize(
    "options",
    [
        Options(renamed=(renamed("nope", "u"),)),
        Options(renamed=(renamed("t", "v"),)),
        Options(renamed=(renamed("nope", "x", table="t"),)),
        Options(renamed=(renamed("a", "b", table="t"),)),
        Options(renamed=(renamed("a", "b", table="nope"),)),
    ],
)
def test_renames_that_cannot_be(options: Options) -> None:
    a = schema(table(column(), column("b")), table(name="v"))
    with pytest.raises(InvalidInput):
        diff(a, a, options)


# ----------------------------------------------------------------------------------------------------------- order and apply


def test_changes_come_in_a_runnable_order() -> None:
    def child(name: str, *refers: str) -> Table:
        keys = tuple(ForeignKey(name=f"{name}_{r}", columns=("a",), table=r, referred=("a",)) for r in refers)
        return table(name=name, foreign_keys=keys)

    views = (
        View(namespace="public", name="a_top", definition="select", depends_on=("public.z_base",)),
        View(namespace="public", name="z_base", definition="select"),
    )
    full = schema(child("a", "z"), table(name="z"), views=views)
    empty = schema(namespaces=("public",))
    made = [c.describe(x)[0] for x in diff(empty, full)]
    assert made == ["public.z", "public.a", "public.z_base", "public.a_top"]
    gone = [c.describe(x)[0] for x in diff(full, empty)]
    assert gone == ["public.a_top", "public.z_base", "public.a", "public.z"]


def test_duplicates_count() -> None:
    twice = (Check(name=None, expression="a > 0"),) * 2
    change = one(schema(table(checks=twice)), schema(table(checks=twice[:1])))
    assert isinstance(change, c.DropCheck)


def test_order_of_options_and_grants_means_nothing() -> None:
    grants = (Grant(grantee="a", privilege="SELECT"), Grant(grantee="b", privilege="SELECT"))
    index = [
        Index(name="i", parts=(IndexPart(column="a"),), options=o) for o in ({"x": "1", "y": "2"}, {"y": "2", "x": "1"})
    ]
    a = schema(table(grants=grants, indexes=(index[0],)))
    b = schema(table(grants=grants[::-1], indexes=(index[1],)))
    assert diff(a, b) == ()


@pytest.mark.parametrize(
    "change",
    [
        c.DropTable(table=table(name="nope")),
        c.AddTable(table=table()),
        c.DropColumn(namespace="public", table="t", column=column("nope")),
        c.AddColumn(namespace="public", table="t", column=column()),
        c.AddColumn(namespace="public", table="nope", column=column()),
        c.DropCheck(namespace="public", table="t", check=Check(name="x", expression="y")),
        c.RenameColumn(namespace="public", table="t", before="nope", after="x"),
        c.RenameTable(namespace="public", before="nope", after="x"),
    ],
)
def test_changes_of_something_else_are_refused(change: c.Change) -> None:
    with pytest.raises(InvalidInput):
        apply_changes(schema(table()), [change])


@pytest.mark.parametrize(
    ("before", "after", "free"),
    [
        (t.Integer(bits=32, unsigned=True), t.Integer(bits=64), True),
        (t.Integer(bits=32, unsigned=True), t.Integer(bits=32), False),
        (t.Integer(bits=32), t.Integer(bits=64, unsigned=True), False),
        (t.Integer(bits=32), t.Decimal(precision=10, scale=0), True),
        (t.Integer(bits=32), t.Decimal(precision=10, scale=2), False),
        (t.Decimal(precision=10, scale=2), t.Decimal(precision=12, scale=2), True),
        (t.Decimal(precision=10, scale=2), t.Decimal(precision=10, scale=3), False),
        (t.Decimal(), t.Decimal(precision=100, scale=2), False),
        (t.Text(length=5), t.Text(length=5, fixed=True), False),
        (t.Timestamp(precision=6), t.Timestamp(precision=3), False),
        (t.Timestamp(), t.Timestamp(zone=True), False),
        (t.Enum(values=("a",)), t.Enum(values=("b", "a")), True),
        (t.Enum(values=("a", "b")), t.Enum(values=("a",)), False),
        (t.Text(), t.Integer(), False),
        (t.Float(bits=64), t.Float(bits=32), False),
    ],
)
def test_widening(before: t.DataType, after: t.DataType, free: bool) -> None:
    assert widens(before, after) is free


def test_select_keeps_what_the_tables_need() -> None:
    mood = NamedType(namespace="public", name="mood", kind="enum", values=("a",))
    other = msgspec.structs.replace(mood, name="other")
    full = schema(
        table(column("m", t.Enum(values=("a",)), "mood")),
        table(name="u", namespace="far"),
        types=(mood, other),
        sequences=(Sequence(namespace="public", name="s", owned_by="t.m"), Sequence(namespace="public", name="z")),
    )
    chosen = select(full, tables=["t"])
    assert [x.name for x in chosen.tables] == ["t"]
    assert chosen.types == (mood,)
    assert [x.name for x in chosen.sequences] == ["s"]
    assert [x.name for x in select(full, namespaces=["far"]).tables] == ["u"]
