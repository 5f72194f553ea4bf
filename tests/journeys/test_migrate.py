"""Real databases moved between real engines: verdict equal, every exclusion listed, then rolled back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import dblens
from dblens.migrate.apply import Outcome
from dblens.migrate.link import Link, link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options
from dblens.schema.model import Schema
from dblens.schema.stable import schema_hash
from tests import samples
from tests.servers import MariaDB, Mongo, MySQL, Postgres

New = Callable[..., str]


def _link(url: str) -> Link:
    return link(url, allow_password=True)


def _schema(side: Link) -> Schema:
    with closing(side.connect(read_only=True)) as session:
        return session.inspect()


def migrate(source: str, target: str, **options: object) -> tuple[Plan, Outcome]:
    """Plan and apply with every loss accepted; the verdict must be equal."""
    ws = dblens.open()
    left, right = _link(source), _link(target)
    plan = ws.migrations.plan(left, right, msgspec.convert(options, Options))
    assert not plan.blocks, plan.blocks
    outcome = ws.migrations.apply(plan, source=left, target=right, accept=["all"])
    assert outcome.equal
    assert outcome.state == "swapped"
    assert {v.table for v in outcome.verdicts} == {t.name for t in plan.tables}
    assert outcome.rows == plan.rows
    return plan, outcome


def roll_back(target: str, before: Schema, run: str) -> None:
    """Roll back and see the target's schema as before, with nothing of ours left."""
    side = _link(target)
    assert dblens.open().migrations.rollback(side, run) == run
    if side.url.scheme == "sqlite" and not before.tables:
        return
    assert schema_hash(_schema(side)) == schema_hash(before)
    assert dblens.open().migrations.status(side) == []


def everything_is_said(plan: Plan, schema: Schema) -> None:
    """No view, routine or trigger of the source may be missing from the exclusions."""
    said = {(e.kind, e.name) for e in plan.exclusions}
    names = {name for _, name in said}
    for view in schema.views:
        assert f"{view.namespace}.{view.name}" in names
    for routine in schema.routines:
        assert f"{routine.namespace}.{routine.name}" in names
    for table in schema.tables:
        for trigger in table.triggers:
            if table.kind != "partition":
                assert f"{table.namespace}.{table.name}.{trigger.name}" in names
    for exclusion in plan.exclusions:
        if exclusion.kind in ("view", "materialized view", "trigger"):
            assert exclusion.source


@pytest.fixture(scope="module")
def sakila(mariadb: MariaDB) -> str:
    url = mariadb.create_database()
    samples.sakila(mariadb, url)
    return url


def _go(source: str, target: str, **options: object) -> Outcome:
    before = (
        _schema(_link(target)) if not target.startswith("sqlite") else Schema(engine="sqlite", version="", database="")
    )
    plan, outcome = migrate(source, target, **options)
    everything_is_said(plan, _schema(_link(source)))
    roll_back(target, before, plan.id)
    return outcome


def test_sakila_to_postgres(sakila: str, pg15: Postgres, new_database: New) -> None:
    outcome = _go(sakila, new_database(pg15))
    rows = {v.table.partition(".")[2]: v.source_rows for v in outcome.verdicts}
    assert rows["film"] == 1000
    assert rows["rental"] == 16044


def test_sakila_to_sqlite(sakila: str, tmp_path: Path) -> None:
    _go(sakila, f"sqlite:///{tmp_path / 'sakila.db'}", create_target=True)
    assert not (tmp_path / "sakila.db").exists()


def test_sakila_to_mongodb(sakila: str, mongo: Mongo, new_database: New) -> None:
    _go(sakila, new_database(mongo))


def test_sakila_from_mysql_9(mysql: MySQL, pg18: Postgres, new_database: New) -> None:
    source = new_database(mysql)
    samples.sakila(mysql, source)
    _go(source, new_database(pg18))


def test_chinook_round_trip(pg15: Postgres, mariadb: MariaDB, new_database: New, tmp_path: Path) -> None:
    start = samples.chinook_sqlite(tmp_path)
    in_pg, in_my = new_database(pg15), new_database(mariadb)
    back = f"sqlite:///{tmp_path / 'back.db'}"
    plan_pg, _ = migrate(start, in_pg)
    plan_my, _ = migrate(in_pg, in_my)
    migrate(in_my, back, create_target=True)
    ws = dblens.open()
    comparison = ws.migrations.verify(_link(start), _link(back))
    assert comparison.equal, comparison
    assert sum(v.source_rows for v in comparison.verdicts) == 15607
    assert ws.migrations.rollback(_link(in_my), plan_my.id)
    assert ws.migrations.rollback(_link(in_pg), plan_pg.id)
    assert not _schema(_link(in_my)).tables
    assert not _schema(_link(in_pg)).tables


def test_pagila_to_mysql(pg15: Postgres, mariadb: MariaDB, new_database: New) -> None:
    source = new_database(pg15)
    samples.pagila(pg15, source)
    _go(source, new_database(mariadb))


def test_pagila_to_newer_postgres(pg15: Postgres, pg18: Postgres, new_database: New) -> None:
    source = new_database(pg15)
    samples.pagila(pg15, source)
    _go(source, new_database(pg18))


def test_northwind_to_sqlite_and_mongodb(pg15: Postgres, mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source = new_database(pg15)
    samples.northwind(pg15, source)
    _go(source, f"sqlite:///{tmp_path / 'northwind.db'}", create_target=True)
    _go(source, new_database(mongo))


@pytest.mark.parametrize("kind", ["pg15", "mariadb"])
def test_replace_keeps_the_old_until_finalize(
    kind: str, request: pytest.FixtureRequest, new_database: New, tmp_path: Path
) -> None:
    server = request.getfixturevalue(kind)
    start = samples.chinook_sqlite(tmp_path)
    target = new_database(server)
    first, _ = migrate(start, target)
    ws = dblens.open()
    assert ws.migrations.finalize(_link(target), first.id) == first.id
    before = _schema(_link(target))
    second, _ = migrate(start, target, existing="replace")
    roll_back(target, before, second.id)
    assert ws.migrations.verify(_link(start), _link(target)).equal
    third, _ = migrate(start, target, existing="replace")
    ws.migrations.finalize(_link(target), third.id)
    assert ws.migrations.status(_link(target)) == []
    assert ws.migrations.verify(_link(start), _link(target)).equal
