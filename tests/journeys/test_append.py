"""Appending to live tables with each rule for key conflicts, and undoing it; schema only; data only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pymongo import MongoClient

import dblens
from dblens.errors import Conflict, DBLensError, InvalidInput, Irreversible
from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan
from tests.faults.steady import live_tables, open_link, plan, run_sql, states
from tests.servers.fixtures import require

New = Callable[..., str]
PAIRS = [
    ("pg15", "mariadb"),
    ("mariadb", "pg15"),
    ("pg15", "sqlite"),
    ("sqlite", "pg15"),
    ("pg15", "pg15"),
    ("pg15", "mongo"),
]
pairs = pytest.mark.parametrize(("left", "right"), PAIRS)

THERE = [(1, "old one", 10), (2, "old two", None), (3, "same", 30)]
COMING = [(2, "new two", 22), (3, "same", 30), (4, "new four", None), (5, "it's %s", 50)]


def make(url: str, rows: list[tuple[Any, ...]]) -> None:
    if url.startswith("mongodb"):
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with closing(client):
            client.get_default_database()["item"].insert_many({"_id": i, "name": name, "n": n} for i, name, n in rows)
        return
    values = ", ".join(
        "("
        + ", ".join(
            "null" if v is None else "'" + v.replace("'", "''") + "'" if isinstance(v, str) else str(v) for v in row
        )
        + ")"
        for row in rows
    )
    run_sql(url, "create table item (id int primary key, name varchar(40), n int)", f"insert into item values {values}")


def found(url: str) -> list[tuple[Any, ...]]:
    if url.startswith("mongodb"):
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with closing(client):
            return [(d["_id"], d["name"], d["n"]) for d in client.get_default_database()["item"].find().sort("_id")]
    return run_sql(url, "select id, name, n from item order by id")


@pytest.fixture
def databases(left: str, right: str, new_database: New) -> tuple[str, str]:
    source, target = new_database(require(left)), new_database(require(right))
    make(source, COMING)
    make(target, THERE)
    return source, target


Two = tuple[str, str]


def append(source: str, target: str, **options: object) -> tuple[Plan, Outcome]:
    made = plan(source, target, existing="append", **options)
    assert [t.append for t in made.tables] == [True]
    ws = dblens.open()
    return made, ws.migrations.apply(made, source=open_link(source), target=open_link(target), accept=["all"])


def undo(target: str, run: str, *, discard_changes: bool = False) -> None:
    dblens.open().migrations.rollback(open_link(target), run, discard_changes=discard_changes)
    assert found(target) == THERE
    assert states(target) == {}


@pairs
def test_a_conflict_is_an_error_and_writes_nothing(databases: Two, left: str, right: str) -> None:
    source, target = databases
    with pytest.raises(Conflict) as refused:
        append(source, target)
    assert refused.value.hint
    assert found(target) == THERE
    run = next(iter(states(target)), None)
    if run is not None:
        undo(target, run)


@pairs
def test_without_conflicts_everything_is_appended(databases: Two, left: str, right: str) -> None:
    source, target = databases
    if left != "mongo":
        run_sql(source, "delete from item where id < 4")
    made, outcome = append(source, target)
    assert outcome.merged == {made.tables[0].name: {"inserted": 2, "updated": 0, "skipped": 0}}
    assert found(target) == [*THERE, *COMING[2:]]
    undo(target, made.id)


@pairs
def test_skip_keeps_what_was_there(databases: Two, left: str, right: str) -> None:
    source, target = databases
    made, outcome = append(source, target, conflict="skip")
    assert outcome.equal
    (counts,) = outcome.merged.values()
    assert (counts["inserted"], counts["updated"], counts["skipped"]) == (2, 0, 2)
    assert found(target) == [*THERE, *COMING[2:]]
    undo(target, made.id)


@pairs
def test_update_takes_what_comes(databases: Two, left: str, right: str) -> None:
    source, target = databases
    made, outcome = append(source, target, conflict="update")
    (counts,) = outcome.merged.values()
    assert counts["inserted"] == 2
    assert counts["updated"] + counts["skipped"] == 2
    assert found(target) == [THERE[0], *COMING]
    undo(target, made.id)


@pairs
def test_an_append_that_was_written_over_is_not_undone_silently(databases: Two, left: str, right: str) -> None:
    source, target = databases
    made, _ = append(source, target, conflict="update")
    if right == "mongo":
        client: MongoClient[dict[str, Any]] = MongoClient(target)
        with closing(client):
            client.get_default_database()["item"].update_one({"_id": 2}, {"$set": {"name": "mine"}})
    else:
        run_sql(target, "update item set name = 'mine' where id = 2")
    with pytest.raises(Irreversible) as refused:
        dblens.open().migrations.rollback(open_link(target), made.id)
    assert "--discard-changes" in str(refused.value.hint)
    assert (2, "mine", 22) in found(target)
    undo(target, made.id, discard_changes=True)


@pairs
def test_twice_and_finalized(databases: Two, left: str, right: str) -> None:
    source, target = databases
    made, _ = append(source, target, conflict="skip")
    dblens.open().migrations.finalize(open_link(target), made.id)
    again, outcome = append(source, target, conflict="skip")
    (counts,) = outcome.merged.values()
    assert (counts["inserted"], counts["skipped"]) == (0, 4)
    assert found(target) == [*THERE, *COMING[2:]]
    dblens.open().migrations.rollback(open_link(target), again.id)
    assert found(target) == [*THERE, *COMING[2:]]


# ------------------------------------------------------------------------------------------------- schema only, data only


@pytest.mark.parametrize(
    ("left", "right"), [("pg15", "mariadb"), ("mariadb", "pg15"), ("pg15", "sqlite"), ("sqlite", "pg15")]
)
def test_schema_first_and_data_later(left: str, right: str, new_database: New) -> None:
    source, target = new_database(require(left)), new_database(require(right))
    make(source, COMING)
    run_sql(source, "create index by_name on item (name)")
    ws = dblens.open()
    a, b = open_link(source), open_link(target)
    first = plan(source, target, content="schema")
    assert first.rows == 0
    outcome = ws.migrations.apply(first, source=a, target=b, accept=["all"])
    assert outcome.state == "swapped"
    assert found(target) == []
    with closing(b.connect(read_only=True)) as session:
        (table,) = session.inspect().tables
    assert table.primary_key
    assert [i.name for i in table.indexes] == ["by_name"]
    ws.migrations.finalize(b, first.id)
    second = plan(source, target, content="data")
    outcome = ws.migrations.apply(second, source=a, target=b, accept=["all"])
    assert outcome.equal
    assert found(target) == COMING
    with closing(b.connect(read_only=True)) as session:
        (after,) = session.inspect().tables
    assert [i.name for i in after.indexes] == ["by_name"]
    ws.migrations.rollback(b, second.id)
    assert found(target) == []
    assert live_tables(target) == {"item"}


def test_data_for_a_table_that_is_not_there(new_database: New) -> None:
    source, target = new_database(require("pg15")), new_database(require("mariadb"))
    make(source, COMING)
    with pytest.raises(InvalidInput, match="item"):
        plan(source, target, content="data")


def test_data_that_a_live_column_cannot_hold(new_database: New) -> None:
    """The live column is narrower than the source's: refused or listed, never cut silently."""
    source, target = new_database(require("pg15")), new_database(require("mariadb"))
    make(source, [(1, "x" * 40, 5)])
    run_sql(
        target,
        "create table item (id int primary key, name varchar(10), n int)",
        "insert into item values (7, 'mine', 7)",
    )
    ws = dblens.open()
    try:
        made = plan(source, target, existing="append")
        if made.losses:
            assert made.losses[0].kind == "too_long"
            return
        ws.migrations.apply(made, source=open_link(source), target=open_link(target))
    except (DBLensError, AssertionError):
        pass
    assert found(target) == [(7, "mine", 7)]
