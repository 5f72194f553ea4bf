"""Attack 18 on MySQL and MariaDB: every way around read-only that is known, live; as one who may do everything and as one who may read.

Each is refused, and an independent connection finds nothing changed afterwards. What no server enforces for a login is said by `layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dblens.engines import connect
from dblens.engines.address import parse
from dblens.engines.asking import Layer
from dblens.engines.mysql import ask_gate
from dblens.engines.mysql.ask import MySQLAsks
from dblens.engines.mysql.session import MySQLSession
from dblens.errors import DBLensError, InvalidInput, PermissionDenied
from tests.servers.fixtures import require
from tests.servers.mysql import PASSWORD, _MySQLFamily

ATTEMPTS: tuple[str, ...] = (
    # what §5.1 tried
    "INSERT INTO t VALUES (9)",
    "INSERT INTO my VALUES (9)",
    "SET SESSION TRANSACTION READ WRITE",
    "SET @@session.tx_read_only = 0",
    "SET @@session.transaction_read_only = 0",
    "COMMIT",
    "COMMIT; INSERT INTO t VALUES (9)",
    "SELECT 1; INSERT INTO t VALUES (9)",
    "CREATE TABLE made (a int)",
    "DROP TABLE IF EXISTS t",
    "DROP TABLE IF EXISTS nothing_there",
    "SELECT 1 INTO OUTFILE '{file}'",
    "SELECT 1 INTO DUMPFILE '{file}'",
    "SET GLOBAL max_connect_errors = 4711",
    "FLUSH TABLES",
    "SELECT GET_LOCK('dblens_bypass', 0)",
    # writing statements, and what hides them
    "UPDATE t SET v = 9",
    "DELETE FROM t",
    "REPLACE INTO t VALUES (9)",
    "TRUNCATE TABLE t",
    "WITH x AS (SELECT 1) DELETE FROM t",
    "WITH x AS (SELECT 1) UPDATE t SET v = 9",
    "ALTER TABLE t ADD w int",
    "RENAME TABLE t TO u",
    "CREATE TEMPORARY TABLE made (a int)",
    "CREATE USER bypass",
    "GRANT SELECT ON *.* TO CURRENT_USER",
    "/*! INSERT INTO t VALUES (9) */",
    "/*!50000 DROP TABLE t */",
    "/*M! DELETE FROM t */",
    "SELECT 1 /*! INTO OUTFILE '{file}' */",
    "SELECT 1 /*!32302 FOR UPDATE */ FROM t",
    "/* x */ -- y\n # z\n DELETE FROM t",
    "(DELETE FROM t)",
    "EXPLAIN ANALYZE DELETE FROM t",
    "ANALYZE FORMAT=JSON DELETE FROM t",
    "ANALYZE DELETE FROM t",
    "ANALYZE TABLE t",
    "DELETE FROM t RETURNING v",
    # variables, files, programs
    "SELECT v INTO @bypass FROM t LIMIT 1",
    "SELECT 1.5INTO @bypass",
    "SELECT 1e5INTO @bypass",
    "SELECT 1 INTO @bypass",
    "SELECT @bypass := 1",
    "SET @bypass = 1",
    "SELECT LOAD_FILE('/etc/hostname')",
    "SELECT `load_file` ('/etc/hostname')",
    "SELECT load_file/* x */('/etc/hostname')",
    "LOAD DATA INFILE '/etc/hostname' INTO TABLE t",
    "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE t",
    "SELECT * FROM t INTO OUTFILE '{file}' FIELDS TERMINATED BY ','",
    "TABLE t INTO OUTFILE '{file}'",
    "SELECT sys_exec('touch {file}')",
    # locks
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR SHARE",
    "SELECT * FROM t LOCK IN SHARE MODE",
    "SELECT `get_lock`('dblens_bypass', 0)",
    "SELECT GeT_LoCk /**/ ('dblens_bypass', 0)",
    "SELECT RELEASE_ALL_LOCKS()",
    "LOCK TABLES t READ",
    "LOCK TABLE t WRITE",
    "FLUSH TABLES WITH READ LOCK",
    "BACKUP STAGE START",
    "LOCK INSTANCE FOR BACKUP",
    # other statements
    "HANDLER t OPEN",
    "CALL p()",
    "DO GET_LOCK('dblens_bypass', 0)",
    "PREPARE s FROM 'INSERT INTO t VALUES (9)'",
    "EXECUTE s",
    "EXECUTE IMMEDIATE 'INSERT INTO t VALUES (9)'",
    "BEGIN NOT ATOMIC INSERT INTO t VALUES (9); END",
    "SET STATEMENT max_statement_time = 1 FOR DELETE FROM t",
    "KILL 1",
    "KILL QUERY 1",
    "SHUTDOWN",
    "RESET MASTER",
    "PURGE BINARY LOGS BEFORE now()",
    "INSTALL PLUGIN x SONAME 'x.so'",
    "INSTALL SONAME 'x'",
    "CREATE FUNCTION sys_eval RETURNS string SONAME 'udf.so'",
    "XA START 'a'",
    "START TRANSACTION READ WRITE",
    "BEGIN",
    "ROLLBACK",
    "SAVEPOINT a",
    "SET ROLE ALL",
    "SET PASSWORD = 'x'",
    "USE mysql",
    "OPTIMIZE TABLE t",
    "REPAIR TABLE my",
    "CHECK TABLE my",
    "CHANGE MASTER TO master_host = 'x'",
    "SELECT NEXTVAL(s)",
    "SELECT NEXT VALUE FOR s",
    "SELECT SETVAL(s, 500)",
    "SELECT /*+ SET_VAR(time_zone = '+05:00') */ now()",
    "SELECT writes()",
    "SELECT group_replication_set_as_primary('x')",
    "SELECT 1 PROCEDURE ANALYSE()",
)  # fmt: skip
SEEN_BY_THE_SERVER = ("SELECT writes()",)
"""What no list of words sees: here the read-only transaction refuses it."""
READS = (
    "SELECT replace('insert', 'into', 'update'), insert('abc', 1, 1, 'x')",
    "SELECT 'INSERT INTO t; DELETE' AS `delete`, \"FOR UPDATE\" -- INTO OUTFILE",
    "(SELECT 1) UNION (SELECT 2) ORDER BY 1",
    "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
    "SHOW TABLES",
    "SHOW CREATE TABLE t",
    "DESCRIBE t",
    "EXPLAIN SELECT * FROM t",
    "VALUES (1), (2)",
    "SELECT @@version",
    "SELECT truncate(1.55, 1), 10 % 3",
    "SELECT 1 /* FOR UPDATE */ # INTO",
)


@pytest.fixture(params=["mariadb", "mysql"], scope="module")
def server(request: pytest.FixtureRequest) -> _MySQLFamily:
    found = require(request.param)
    assert isinstance(found, _MySQLFamily)
    return found


class World:
    """A database to be attacked, and what an independent connection sees of it and of the server."""

    def __init__(self, server: _MySQLFamily) -> None:
        self.server = server
        self.maria = server.name == "mariadb"
        self.address = server.create_database()
        self.name = self.address.rpartition("/")[2]
        self.file = f"/tmp/dblens_bypass_{self.name}"
        self.db = server.connect(self.name)
        self.sessions: list[MySQLSession] = []
        self.reader = f"r_{self.name}"[:30]
        self.run("create table t (v int)")
        self.run("create table my (v int) engine = MyISAM")
        self.run("insert into t values (1), (2)")
        self.run("create procedure p() insert into t values (9)")
        self.run(
            "create function writes() returns int deterministic modifies sql data begin insert into t values (9); return 1; end"
        )
        if self.maria:
            self.run("create sequence s")
        self.run(f"create user {self.reader}@'%' identified by '{PASSWORD}'")
        self.run(f"grant select, show view on `{self.name}`.* to {self.reader}@'%'")

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with self.db.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def state(self) -> list[Any]:
        """What must be the same afterwards."""
        return [
            sorted(self.run("select v from t")), self.run("select v from my"), sorted(self.run("show tables")), self.run("show create table t"),
            self.run("select @@global.max_connect_errors, @@global.read_only"), self.run("select is_free_lock('dblens_bypass')"),
            sorted(self.run("select user, host from mysql.user")), sorted(self.run("show databases")),
            sorted(self.run("select routine_name from information_schema.routines where routine_schema = database()")),
            self.run("select next_not_cached_value from s") if self.maria else [], self.run(f"select load_file('{self.file}') is null"),
            self.run("select count(*) from information_schema.plugins"),
        ]  # fmt: skip

    def asks(self, user: str | None = None) -> MySQLAsks:
        url, password = parse(
            self.address if user is None else self.address.replace("//dblens:", f"//{user}:"), allow_password=True
        )
        session = connect(url, password)
        assert isinstance(session, MySQLSession)
        self.sessions.append(session)
        assert session.engine.ask is not None
        found = session.engine.ask(session)
        assert isinstance(found, MySQLAsks)
        return found

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.run(f"drop user {self.reader}@'%'")
        self.db.close()
        self.server.drop_database(self.name)


@pytest.fixture(scope="module")
def world(server: _MySQLFamily) -> Iterator[World]:
    made = World(server)
    yield made
    made.close()


@pytest.fixture(params=["everything", "select"], scope="module")
def attacker(world: World, request: pytest.FixtureRequest) -> MySQLAsks:
    return world.asks(world.reader if request.param == "select" else None)


def run(asks: MySQLAsks, statement: str) -> list[tuple[Any, ...]]:
    with asks.ask(statement) as answer:
        return [row for batch in answer.batches() for row in batch]


@pytest.mark.parametrize("statement", ATTEMPTS)
def test_a_way_around_is_refused_and_changes_nothing(world: World, attacker: MySQLAsks, statement: str) -> None:
    before = world.state()
    with pytest.raises((PermissionDenied, InvalidInput) if statement not in SEEN_BY_THE_SERVER else DBLensError):
        run(attacker, statement.format(file=world.file))
    assert world.state() == before
    assert run(attacker, "SELECT 7") == [(7,)], "the session answers next"
    assert attacker._simple("do 0").in_transaction is False


@pytest.mark.parametrize("statement", READS)
def test_what_reads_is_let_through(world: World, attacker: MySQLAsks, statement: str) -> None:
    if statement.startswith("VALUES") and not world.maria:
        statement = "VALUES ROW(1), ROW(2)"
    assert run(attacker, statement)


GATELESS = (
    "INSERT INTO t VALUES (9)", "INSERT INTO my VALUES (9)", "UPDATE t SET v = 9", "DELETE FROM t", "CREATE TABLE made (a int)", "DROP TABLE t",
    "DROP TABLE IF EXISTS nothing_there", "CALL p()", "SELECT writes()", "TRUNCATE TABLE t", "ALTER TABLE t ADD w int", "REPLACE INTO t VALUES (9)",
)  # fmt: skip


@pytest.mark.parametrize("statement", GATELESS)
def test_the_server_refuses_without_the_list_of_words(
    world: World, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction's own part: with the gate wide open the server still does not write."""
    monkeypatch.setattr(ask_gate, "reading", lambda text: None)
    asks = world.asks()
    before = world.state()
    with pytest.raises(PermissionDenied):
        run(asks, statement)
    assert world.state() == before


@pytest.mark.parametrize(
    "statement", ["SET SESSION TRANSACTION READ WRITE", "COMMIT", "BEGIN", "SET autocommit = 1", "/*! COMMIT */"]
)
def test_the_gate_of_transactions_stands_alone(world: World, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_gate, "reading", lambda text: None)
    with pytest.raises(InvalidInput):
        world.asks().ask(statement)


@pytest.mark.parametrize("statement", ["COMMIT", "FLUSH TABLES", "UNLOCK TABLES"])
def test_the_aftercheck_sees_a_transaction_that_ended(
    world: World, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both gates open a statement that commits is still told, though it raised nothing."""
    monkeypatch.setattr(ask_gate, "reading", lambda text: None)
    monkeypatch.setattr(ask_gate, "managed", lambda text, **_: None)
    asks = world.asks()
    if statement == "UNLOCK TABLES":
        return  # commits only when tables are locked
    try:
        run(asks, statement)
    except PermissionDenied:
        return
    assert (statement, world.maria) == ("FLUSH TABLES", True), "MariaDB flushes tables within a transaction"


def test_the_protocol_takes_one_statement(world: World) -> None:
    """Without the gates the second statement does not run either: the server reads the text as one."""
    asks = world.asks()
    before = world.state()
    with pytest.raises(DBLensError, match="1064"):
        asks._simple("select 1; insert into t values (9)")
    assert world.state() == before


def layers(asks: MySQLAsks) -> dict[str, Layer]:
    return {layer.name: layer for layer in asks.layers()}


def test_the_layers_tell_what_holds(world: World) -> None:
    every = layers(world.asks())
    assert not every["login"].active
    assert "ALL PRIVILEGES" in every["login"].why or "INSERT" in every["login"].why
    assert all(every[name].active for name in ("transaction", "protocol", "allow_list", "aftercheck"))
    reader = layers(world.asks(world.reader))
    assert reader["login"].active, reader["login"].why
    world.run(f"grant execute on `{world.name}`.* to {world.reader}@'%'")
    try:
        told = layers(world.asks(world.reader))["login"]
        assert not told.active
        assert "EXECUTE" in told.why
    finally:
        world.run(f"revoke execute on `{world.name}`.* from {world.reader}@'%'")


def test_a_function_of_the_server_is_said_to_act(world: World) -> None:
    """A stored function takes a lock inside of the server: no list of words sees that, so `layers` says it."""
    assert "makers' rights" in layers(world.asks())["allow_list"].why
