"""Attack 18: the table of ways around read-only is whole, and PostgreSQL's part of it, live.

Each statement runs as one who may do everything and as one who may read; an independent connection finds nothing changed afterwards. Then,
for those that the server itself refuses, the gate of words is taken away.
"""

from __future__ import annotations

import ast
import importlib
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dblens.engines import address, connect
from dblens.engines.asking import Asks
from dblens.engines.postgres import ask_gate
from dblens.engines.postgres.ask_values import given
from dblens.errors import DBLensError, InvalidInput, PermissionDenied
from tests.attacks.bypasses import ALONE, MONGODB, SECTION_5, Bypass, Try
from tests.servers import Postgres
from tests.servers.process import LOW_USER

REFUSED = "test_postgresql_refuses_and_nothing_is_changed"
ATTEMPTS = sorted({each.statement for bypass in SECTION_5 for each in bypass.tries if each.function == REFUSED})
GATELESS = sorted({each.statement for bypass in SECTION_5 for each in bypass.tries if each.function == ALONE})


# -------------------------------------------------------------------------------------------------------------------- the table


def test_there_are_fifty_four() -> None:
    assert len(SECTION_5) == 54
    assert {engine for each in SECTION_5 for engine in each.engine.split()} == {
        "postgresql",
        "mariadb",
        "mysql",
        "sqlite",
    }
    assert all(each.tries for each in (*SECTION_5, *MONGODB))
    assert len({(each.engine, each.what) for each in (*SECTION_5, *MONGODB)}) == 54 + len(MONGODB)


def parameters(function: Any) -> list[Any]:
    """Return the values with which a test is run, of all of its parameters."""
    marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
    return [
        value for mark in marks for each in mark.args[1] for value in (each if isinstance(each, tuple) else (each,))
    ]


def tried(each: Try) -> bool:
    """Say whether a test is there that tries it: run, not skipped, and with that statement."""
    function = getattr(importlib.import_module(f"tests.attacks.{each.file.removesuffix('.py')}"), each.function, None)
    if function is None or any(
        mark.name in ("skip", "skipif", "xfail", "nightly") for mark in getattr(function, "pytestmark", ())
    ):
        return False
    return not each.statement or each.statement in parameters(function)


@pytest.mark.parametrize("number", range(1, 1 + 54 + len(MONGODB)))
def test_every_attempt_has_a_test_that_tries_it(number: int) -> None:
    bypass: Bypass = (*SECTION_5, *MONGODB)[number - 1]
    for each in bypass.tries:
        assert tried(each), (
            f"{number} ({bypass.what}): tests/attacks/{each.file}::{each.function} does not try {each.statement!r}"
        )


def test_what_is_not_tried_is_noticed() -> None:
    assert not tried(Try("test_read_only_mysql.py", "test_no_such_test"))
    assert not tried(Try("test_read_only_mysql.py", "test_a_way_around_is_refused_and_changes_nothing", "SELECT 1"))


def test_nothing_of_dblens_is_duckdb() -> None:
    """Attack 20: what reads files, installs and copies by SQL in this process is not here; SQLite is the only engine within it."""
    root = Path(__file__).resolve().parents[2]
    found = {
        str(path.relative_to(root))
        for path in (root / "dblens").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] in ("duckdb", "chdb", "datafusion")
    }
    assert found == set()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra, names in project["optional-dependencies"].items() if extra != "dev" for each in names),
    ]
    assert not [each for each in wanted if "duckdb" in each]


# ------------------------------------------------------------------------------------------------------------------- PostgreSQL


class World:
    """A database to be attacked, and what an independent connection sees of it."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.server, self.address = server, server.create_database()
        self.name, self.file = self.address.rpartition("/")[2], folder / "bypass"
        self.db: Any = server.connect(self.name)
        for statement in (
            "create table t (v int)", "insert into t values (1), (2)", "create sequence s",
            "create function writes() returns int language plpgsql security definer as $$ begin insert into t values (9); return 1; end $$",
            f"grant pg_read_all_data to {LOW_USER}",
        ):  # fmt: skip
            self.db.execute(statement)
        with suppress(psycopg.Error):  # without it the function is unknown; its name is refused all the same
            self.db.execute("create extension dblink")
        self.everything = self.session(server.url(self.name))
        self.reader = self.session(server.url(self.name, low=True))

    def session(self, url: str) -> Any:
        return connect(*address.parse(url, allow_password=True))

    def state(self) -> list[Any]:
        """What must be the same afterwards."""
        return [
            self.db.execute(statement).fetchall()
            for statement in (
                "select v, xmin::text, xmax::text from t order by v", "select last_value, is_called from s", "select relname from pg_class where relname in ('made', 't') order by 1",
                "select count(*) from pg_largeobject_metadata", "select count(*) from pg_locks where locktype = 'advisory'",
                "select pg_conf_load_time()", "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 't'::regclass",
            )
        ] + [self.file.exists()]  # fmt: skip

    def close(self) -> None:
        self.everything.close()
        self.reader.close()
        self.db.execute(f"revoke pg_read_all_data from {LOW_USER}")
        self.db.close()
        self.server.drop_database(self.name)


@pytest.fixture(scope="module")
def world(pg15: Postgres) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="dblens-bypass-") as folder:
        Path(folder).chmod(0o777)  # the server's own account writes there
        with closing(World(pg15, Path(folder))) as made:
            yield made


def asks(session: Any) -> Asks:
    found: Asks = session.engine.ask(session)
    return found


def run(session: Any, statement: str) -> list[tuple[Any, ...]]:
    with asks(session).ask(statement) as answer:
        return [row for batch in answer.batches() for row in batch]


def attack(world: World, who: str, statement: str, *kinds: type[DBLensError]) -> None:
    session = getattr(world, who)
    before = world.state()
    with pytest.raises(kinds):
        run(session, statement.replace("{file}", str(world.file)).replace("{dsn}", f"dbname={world.name}"))
    assert world.state() == before
    assert run(session, "SELECT 7") == [(7,)], "the session answers next"
    assert run(session, "SELECT current_setting('transaction_read_only')") == [("on",)]


@pytest.mark.parametrize("who", ["everything", "reader"])
@pytest.mark.parametrize("statement", ATTEMPTS)
def test_postgresql_refuses_and_nothing_is_changed(world: World, who: str, statement: str) -> None:
    attack(world, who, statement, PermissionDenied, InvalidInput)


@pytest.mark.parametrize("who", ["everything", "reader"])
@pytest.mark.parametrize("statement", GATELESS)
def test_postgresql_refuses_without_the_list_of_words(
    world: World, who: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction's own part: with the gate wide open the server still does not write."""
    monkeypatch.setattr(ask_gate, "reading", lambda text: None)
    monkeypatch.setattr(ask_gate, "managed", lambda text, **_: None)
    monkeypatch.setattr(ask_gate, "refuse_volatile", lambda names: None)
    attack(world, who, statement, DBLensError)


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN",
        "BEGIN READ WRITE",
        "COMMIT",
        "ROLLBACK",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "PREPARE TRANSACTION 'x'",
    ],
)
def test_postgresql_leaves_transactions_to_the_session(world: World, statement: str) -> None:
    """Who writes has no statement either that ends or opens a transaction beneath the session."""
    with pytest.raises(InvalidInput, match="manages transactions"):
        asks(world.everything).ask(statement, read_only=False)


@pytest.mark.parametrize("step", ["prepare", "execute"])
def test_postgresql_takes_one_statement_at_a_time(world: World, step: str) -> None:
    """The protocol's own part, at both of its steps: the server refuses a second statement behind the first."""
    wire: Any = asks(world.everything)._connected()  # type: ignore[attr-defined]
    before, text = world.state(), "select 1; delete from t"
    if step == "prepare":
        wire.prepare(text, ())
    else:
        wire.execute(text, given(wire.link, ()), 1)
    with pytest.raises(psycopg.Error, match="multiple commands"):
        wire.all()
    assert world.state() == before
    assert run(world.everything, "select 7") == [(7,)]


def test_postgresql_looks_behind_a_harmless_name(world: World) -> None:
    """A function in C is known by what it is, not by what it is called."""
    world.db.execute("create function innocent(bigint) returns void language internal as 'pg_advisory_lock_int8'")
    attack(world, "everything", "select innocent(5)", PermissionDenied)


def test_postgresql_notices_what_took_a_transaction_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The aftercheck's own part: what was let through by all lists and wrote is told, and was rolled back."""
    monkeypatch.setattr(ask_gate, "reading", lambda text: None)
    monkeypatch.setattr(ask_gate, "refuse_volatile", lambda names: None)
    with pytest.raises(PermissionDenied, match="took the transaction id"):
        run(world.everything, "select pg_current_xact_id()")
    assert run(world.everything, "select 7") == [(7,)]
