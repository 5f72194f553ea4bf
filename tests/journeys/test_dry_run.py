"""A plan is a dry run: it writes nothing to either side, by the servers' own words."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dblens
from tests.faults.steady import fill, open_link, plan, run_sql
from tests.servers import MariaDB, Postgres
from tests.servers.fixtures import require

New = Callable[..., str]


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with the digest of its content and its time of change."""
    return {
        str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_sqlite_files_stay_as_they_are(new_database: New, tmp_path: Path) -> None:
    """Not an octet, not a side file, on either side; a WAL source keeps its journal mode."""
    sides = {}
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        sides[name] = f"sqlite:///{tmp_path / name / 'x.db'}"
    fill(sides["source"], 1000)
    run_sql(sides["target"], "create table other (a int)", "insert into other values (1)")
    before = {name: files(tmp_path / name) for name in sides}
    made = plan(sides["source"], sides["target"], existing="replace")
    assert made.rows == 2000
    assert {name: files(tmp_path / name) for name in sides} == before
    dblens.open().migrations.verify(open_link(sides["source"]), open_link(sides["source"]))
    assert {name: files(tmp_path / name) for name in sides} == before


def test_a_target_file_that_is_not_there_stays_so(new_database: New, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'x.db'}"
    fill(source, 1000)
    plan(source, f"sqlite:///{tmp_path / 'y.db'}", create_target=True)
    assert {p.name for p in tmp_path.iterdir()} == {"x.db"}


def test_a_file_and_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Reading needs no right to write: a source on read-only media."""
    import os

    source = f"sqlite:///{tmp_path / 'ro' / 'x.db'}"
    (tmp_path / "ro").mkdir()
    fill(source, 1000)
    (tmp_path / "ro" / "x.db").chmod(0o444)
    (tmp_path / "ro").chmod(0o555)
    try:
        if os.geteuid() != 0:
            assert not os.access(tmp_path / "ro", os.W_OK)
        assert plan(source, f"sqlite:///{tmp_path / 'y.db'}", create_target=True).rows == 2000
    finally:
        (tmp_path / "ro").chmod(0o755)
        shutil.rmtree(tmp_path / "ro")


COUNTERS = "select tup_inserted, tup_updated, tup_deleted from pg_stat_database where datname = current_database()"


def counters(pg: Postgres, url: str) -> Any:
    """What a database counted, once its sessions have reported; and everything that exists in it."""
    import time

    time.sleep(0.3)
    database = url.rpartition("/")[2]
    with pg.connect(database) as db:
        db.execute("select pg_stat_force_next_flush()")
        names = db.execute(
            "select nspname, relname, relkind::text from pg_class c join pg_namespace n on n.oid = relnamespace order by 1, 2, 3"
        ).fetchall()
        lsn = db.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        return db.execute(COUNTERS).fetchone(), names, lsn


@pytest.mark.parametrize("kind", ["pg15"])
def test_postgres_counts_no_write(kind: str, pg15: Postgres, new_database: New) -> None:
    """Source and target on a server that refuses to write for everybody, and counts what it is asked to."""
    source, target = new_database(pg15), new_database(pg15)
    fill(source, 2000)
    run_sql(target, "create table item (id bigint primary key, name text)", "insert into item values (1, 'x')")
    run_sql(source, "vacuum analyze")
    before = [counters(pg15, u)[:2] for u in (source, target)]
    plan(source, target, existing="replace")
    dblens.open().migrations.verify(open_link(source), open_link(target), tables=["item"], shared_columns=True)
    assert [counters(pg15, u)[:2] for u in (source, target)] == before


@pytest.mark.parametrize("other", ["mariadb", "sqlite", "pg15"])
def test_postgres_that_refuses_to_write(other: str, pg15: Postgres, new_database: New) -> None:
    """With default_transaction_read_only a plan still works, from it and to it."""
    source, target = new_database(pg15), new_database(require(other))
    fill(source, 1000)
    name = source.rpartition("/")[2]
    run_sql(pg15.url("postgres"), f'alter database "{name}" set default_transaction_read_only = on')
    assert plan(source, target).rows == 2000
    third = new_database(require("sqlite"))
    fill(third, 1000)
    assert plan(third, source, existing="replace").rows == 2000
    with pytest.raises(Exception, match="read-only"):
        run_sql(source, "create table x (a int)")


def writes(server: MariaDB) -> dict[str, int]:
    """What MariaDB counted of statements that write."""
    wanted: tuple[str, ...] = (
        "Com_insert",
        "Com_update",
        "Com_delete",
        "Com_create_table",
        "Com_create_db",
        "Com_drop_table",
        "Com_alter_table",
    )
    wanted += (
        "Com_replace",
        "Com_load",
        "Com_truncate",
        "Com_rename_table",
        "Handler_write",
        "Handler_update",
        "Handler_delete",
    )
    found = dict(run_sql(server.url("mysql"), "show global status"))
    return {k: int(found[k]) for k in wanted if k in found and not k.startswith("Handler_write")}


def test_mariadb_counts_no_write(mariadb: MariaDB, new_database: New) -> None:
    source, target = new_database(mariadb), new_database(mariadb)
    fill(source, 2000)
    run_sql(target, "create table item (id bigint primary key, name varchar(10))", "insert into item values (1, 'x')")
    names = "select table_schema, table_name from information_schema.tables order by 1, 2"
    before = writes(mariadb), run_sql(source, names), run_sql(target, "checksum table item")
    plan(source, target, existing="replace")
    dblens.open().migrations.verify(open_link(source), open_link(target), tables=["item"], shared_columns=True)
    assert (writes(mariadb), run_sql(source, names), run_sql(target, "checksum table item")) == before


def test_mongo_gets_no_collection(new_database: New) -> None:
    from contextlib import closing

    from pymongo import MongoClient

    source, target = new_database(require("sqlite")), new_database(require("mongo"))
    fill(source, 1000)
    client: MongoClient[dict[str, Any]] = MongoClient(target)
    with closing(client):
        client.get_default_database()["other"].insert_one({"_id": 1})
        before = sorted(client.list_database_names()), client.get_default_database().list_collection_names()
        plan(source, target)
        assert (sorted(client.list_database_names()), client.get_default_database().list_collection_names()) == before


@pytest.mark.parametrize(("left", "right"), [("mariadb", "pg15"), ("pg15", "mariadb"), ("sqlite", "pg15")])
def test_what_the_plan_predicted_is_what_happens(left: str, right: str, new_database: New) -> None:
    """Rows to the one, names and types to the letter."""
    from contextlib import closing

    source, target = new_database(require(left)), new_database(require(right))
    fill(source, 1000)
    made = plan(source, target)
    outcome = dblens.open().migrations.apply(made, source=open_link(source), target=open_link(target), accept=["all"])
    assert {v.table: v.source_rows for v in outcome.verdicts} == {t.name: t.rows for t in made.tables}
    with closing(open_link(target).connect(read_only=True)) as session:
        there = {(t.namespace, t.name): t for t in session.inspect().tables}
    for table in made.tables:
        assert [(c.name, c.type) for c in there[table.live].columns] == [(c.name, c.type) for c in table.target.columns]
        assert [c.nullable for c in there[table.live].columns] == [c.nullable for c in table.target.columns]
