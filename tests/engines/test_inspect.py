"""Reading a schema: what every engine knows about the sample."""

from __future__ import annotations

import msgspec

from dblens.schema.model import Schema
from tests.engines.support import Case, home, table_of


def schema_of(case: Case) -> Schema:
    return case.open(case.sample()).inspect()


def test_tables_and_views(engine_case: Case) -> None:
    schema = schema_of(engine_case)
    assert {t.name for t in schema.tables} == {"person", "purchase", "plain"}
    assert [v.name for v in schema.views] == ["rich"]
    assert schema.engine == engine_case.harness.engine
    assert schema.version


def test_namespaces_and_listing(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    namespaces = session.namespaces()
    assert home(session) in namespaces
    refs = session.list_tables(home(session))
    assert {"person", "purchase", "plain", "rich"} <= {r.name for r in refs}
    assert all(r.namespace == home(session) for r in refs)


def test_one_namespace_can_be_named(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    assert session.inspect(namespaces=[home(session)]).tables == session.inspect().tables


def test_keys(engine_case: Case) -> None:
    schema = schema_of(engine_case)
    person = table_of(schema, "person")
    assert person.primary_key is not None
    assert len(person.primary_key.columns) == 1
    unique = [k.columns for k in person.uniques] + [
        tuple(p.column for p in i.parts) for i in person.indexes if i.unique
    ]
    assert ("email",) in unique
    if not schema.tables[0].inferred:
        purchase = table_of(schema, "purchase")
        assert purchase.primary_key is not None
        assert purchase.primary_key.columns == ("person_id", "line")
        (key,) = purchase.foreign_keys
        assert (key.columns, key.table, key.referred, key.on_delete) == (("person_id",), "person", ("id",), "cascade")
        assert table_of(schema, "plain").primary_key is None


def test_columns_in_order(engine_case: Case) -> None:
    person = table_of(schema_of(engine_case), "person")
    names = [c.name for c in person.columns]
    if person.inferred:
        assert {"_id", "name", "email", "score", "balance"} <= set(names)
    else:
        assert names[:5] == ["id", "name", "email", "score", "balance"]
        assert not person.column("name").nullable
        assert person.column("email").nullable
        default = person.column("balance").default
        assert default is not None
        assert (default.kind, default.value) == ("literal", "1.50")
        assert person.column("id").identity is not None
    assert all(c.native or c.name == "any_of" for c in person.columns), (
        "only a column declared without a type has no spelling"
    )


def test_a_default_with_a_quote(engine_case: Case) -> None:
    purchase = table_of(schema_of(engine_case), "purchase")
    if not purchase.inferred:
        default = purchase.column("label").default
        assert default is not None
        assert (default.kind, default.value) == ("literal", "it's")


def test_descending_index(engine_case: Case) -> None:
    person = table_of(schema_of(engine_case), "person")
    index = next(i for i in person.indexes if i.name == "person_name")
    assert [(p.column, p.descending) for p in index.parts] == [("name", True)]
    assert not index.unique


def test_check_constraint(engine_case: Case) -> None:
    person = table_of(schema_of(engine_case), "person")
    if not person.inferred:
        assert [c.name for c in person.checks] == ["positive"]
        assert "balance" in person.checks[0].expression


def test_a_view_keeps_its_text(engine_case: Case) -> None:
    (view,) = schema_of(engine_case).views
    assert view.definition.strip()
    assert not view.materialized


def test_it_is_repeatable_and_serialisable(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    schema = session.inspect()
    assert session.inspect() == schema
    assert msgspec.json.decode(msgspec.json.encode(schema), type=Schema) == schema


def test_an_empty_database(engine_case: Case) -> None:
    schema = engine_case.open(engine_case.database()).inspect()
    assert (schema.tables, schema.views, schema.sequences) == ((), (), ())


def test_counts(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    schema = session.inspect()
    assert [session.count(table_of(schema, n)) for n in ("person", "purchase", "plain")] == [5, 3, 3]
