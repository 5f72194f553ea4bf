"""Rendered changes as text: what no server of the tests can show, and that every change says why."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from dblens.engines.base import Rendered
from dblens.errors import DBLensError
from dblens.schema import changes as c
from dblens.schema import types as t
from dblens.schema.compare import Options
from dblens.schema.diff import diff, used_namespaces
from dblens.schema.model import (
    Check,
    Column,
    ForeignKey,
    Identity,
    Index,
    IndexPart,
    Key,
    NamedType,
    Partitioning,
    Schema,
    Sequence,
    Table,
    View,
)
from tests.properties.schemas import schemas


def chapter(engine: str) -> ModuleType:
    return importlib.import_module(f"dblens.engines.{engine}.alter")


def column(name: str = "a", native: str = "integer", **more: object) -> Column:
    return Column(name=name, type=t.Integer(bits=32), native=native, **more)  # type: ignore[arg-type]


def schema(*tables: Table, engine: str = "postgresql", **more: object) -> Schema:
    return Schema(engine=engine, version="1", database="d", namespaces=("n",), tables=tables, **more)  # type: ignore[arg-type]


def table(name: str = "t", *columns: Column, **more: object) -> Table:
    return Table(namespace="n", name=name, columns=columns or (column(),), **more)  # type: ignore[arg-type]


def render(engine: str, a: Schema, b: Schema, **more: str) -> list[Rendered]:
    found: list[Rendered] = chapter(engine).render(diff(a, b), schema=a, **more)
    return found


def texts(rendered: list[Rendered]) -> list[str]:
    return [text for step in rendered for text in step.statements]


@pytest.mark.parametrize("engine", ["postgres", "mysql", "sqlite", "mongodb"])
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(a=schemas(), b=schemas())
def test_everything_can_be_rendered_or_says_why(engine: str, a: Schema, b: Schema) -> None:
    changes = diff(a, b, Options(namespaces={name: name for name in used_namespaces(b)}))
    try:
        rendered = chapter(engine).render(changes, schema=a)
    except DBLensError:
        return  # a name or a default that this engine can never hold: one clear refusal
    for step in rendered:
        assert step.reason
        assert all(isinstance(text, str) and text for text in step.statements)
        if step.destructive:
            assert step.undo is None
    lost = any(change.destructive for change in changes if not isinstance(change, c.DropNamespace))
    if lost and engine in ("postgres",):
        assert any(step.destructive for step in rendered)


def test_postgres_adds_constraints_without_blocking_writers() -> None:
    key = ForeignKey(name="f", columns=("a",), table="t", referred=("a",))
    check = Check(name="c", expression="a > 0")
    rendered = render("postgres", schema(table()), schema(table(foreign_keys=(key,), checks=(check,))))
    assert not any(step.blocking for step in rendered)
    assert texts(rendered) == [
        'ALTER TABLE "n"."t" ADD CONSTRAINT "c" CHECK (a > 0) NOT VALID',
        'ALTER TABLE "n"."t" VALIDATE CONSTRAINT "c"',
        'ALTER TABLE "n"."t" ADD CONSTRAINT "f" FOREIGN KEY ("a") REFERENCES "n"."t" ("a") NOT VALID',
        'ALTER TABLE "n"."t" VALIDATE CONSTRAINT "f"',
    ]


def test_postgres_partitioned_tables_take_no_unvalidated_constraints() -> None:
    parts = Partitioning(kind="range", key="a")
    key = ForeignKey(name="f", columns=("a",), table="t", referred=("a",))
    a = schema(table(kind="partitioned", partitioning=parts))
    b = schema(table(kind="partitioned", partitioning=parts, foreign_keys=(key,)))
    rendered = render("postgres", a, b)
    assert rendered[0].blocking
    assert "NOT VALID" not in texts(rendered)[0]


def test_postgres_an_identity_brings_its_own_sequence() -> None:
    sequence = Sequence(namespace="n", name="t_a_seq", owned_by="t.a")
    made = schema(table("t", column(identity=Identity(sequence="n.t_a_seq"))), sequences=(sequence,))
    assert not any("SEQUENCE" in text for text in texts(render("postgres", schema(), made)))
    assert not any("SEQUENCE" in text for text in texts(render("postgres", made, schema())))


def test_postgres_rebuilds_an_enum_that_loses_a_value() -> None:
    def with_mood(*values: str) -> Schema:
        mood = NamedType(namespace="n", name="mood", kind="enum", values=values)
        kind = t.Enum(values=values, name="n.mood")
        return schema(table("t", Column(name="m", type=kind, native="n.mood")), types=(mood,))

    more = texts(render("postgres", with_mood("a"), with_mood("z", "a", "b")))
    assert more == [
        """ALTER TYPE "n"."mood" ADD VALUE 'z' BEFORE 'a'""",
        """ALTER TYPE "n"."mood" ADD VALUE 'b' AFTER 'a'""",
    ]
    fewer = render("postgres", with_mood("a", "b"), with_mood("b"))[0]
    assert fewer.destructive
    assert any("::text::" in text for text in fewer.statements)
    assert fewer.statements[-1] == 'DROP TYPE "n"."mood_dblens_old"'


def test_mysql_changes_one_table_in_one_statement() -> None:
    a = schema(table("t", column(), column("b"), primary_key=Key(name="PRIMARY", columns=("a",))), engine="mysql")
    index = Index(name="i", parts=(IndexPart(column="z"),))
    b = schema(
        table(
            "t", column(native="bigint"), column("z"), primary_key=Key(name="PRIMARY", columns=("z",)), indexes=(index,)
        ),
        engine="mysql",
    )
    rendered = render("mysql", a, b)
    assert len(rendered) == 1
    assert rendered[0].destructive
    assert rendered[0].undo is None
    assert texts(rendered)[0].count("ALTER TABLE") == 1
    assert "DROP PRIMARY KEY" in texts(rendered)[0]


def test_sqlite_simple_columns_need_no_rebuild() -> None:
    a, b = schema(table("t", column())), schema(table("t", column(), column("b")))
    assert [text.split("(")[0] for text in texts(render("sqlite", a, b))] == [
        'ALTER TABLE "n"."t" ADD COLUMN "b" integer'
    ]
    strict = schema(table("t", column(), column("b", nullable=False)))
    assert any("BEGIN" in text for text in texts(render("sqlite", a, strict)))


def test_mongodb_commands_are_json() -> None:
    def collection(*indexes: Index, **options: str) -> Schema:
        return schema(table("c", indexes=indexes, options=options, inferred=True, kind="collection"), engine="mongodb")

    index = Index(
        name="i",
        parts=(IndexPart(column="a"), IndexPart(column="b.c", descending=True)),
        unique=True,
        where='{"a": {"$gt": 1}}',
        options={"expireAfterSeconds": "60"},
    )
    rendered = render("mongodb", collection(), collection(index, validator='{"a": {"$type": "int"}}'))
    commands = [json.loads(text) for text in texts(rendered)]
    assert commands == [
        {"collMod": "c", "validator": {"a": {"$type": "int"}}},
        {
            "createIndexes": "c",
            "indexes": [
                {
                    "key": {"a": 1, "b.c": -1},
                    "name": "i",
                    "unique": True,
                    "partialFilterExpression": {"a": {"$gt": 1}},
                    "expireAfterSeconds": 60,
                }
            ],
        },
    ]
    assert [json.loads(text) for step in rendered for text in step.undo or ()] == [
        {"collMod": "c", "validator": {}},
        {"dropIndexes": "c", "index": "i"},
    ]


def test_mongodb_fields_of_a_sample_are_not_altered() -> None:
    a = schema(table("c", column(), inferred=True, kind="collection"), engine="mongodb")
    b = schema(table("c", column("b"), inferred=True, kind="collection"), engine="mongodb")
    rendered = render("mongodb", a, b)
    assert texts(rendered) == []
    assert not any(step.destructive for step in rendered)


def test_mongodb_views() -> None:
    view = View(namespace="n", name="v", definition='{"viewOn": "c", "pipeline": [{"$match": {}}]}')
    made = render("mongodb", schema(engine="mongodb"), schema(engine="mongodb", views=(view,)))
    assert json.loads(texts(made)[0]) == {"create": "v", "viewOn": "c", "pipeline": [{"$match": {}}]}


def test_rendered_is_serialisable() -> None:
    rendered = render("postgres", schema(), schema(table()))
    assert msgspec.json.decode(msgspec.json.encode(rendered), type=list[Rendered]) == rendered
