"""Attack 19, and SQLite's columns of the table of read-only attempts: nothing is written, nowhere, and the file's octets are the same."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens import engines
from dblens.engines import address
from dblens.engines.asking import Limits
from dblens.errors import Conflict, DBLensError, InvalidInput, PermissionDenied, QueryFailed

STATEMENTS = [
    "INSERT INTO t VALUES (9, 'x')", "INSERT INTO t VALUES (9, 'x') RETURNING a", "REPLACE INTO t VALUES (1, 'x')", "UPDATE t SET b = 'x'", "DELETE FROM t",
    "WITH x AS (SELECT 9) INSERT INTO t SELECT 9, 'x' FROM x", "CREATE TABLE u (a)", "CREATE TABLE u AS SELECT * FROM t", "DROP TABLE t", "ALTER TABLE t RENAME TO u",
    "ALTER TABLE t ADD COLUMN z", "CREATE INDEX i ON t (b)", "DROP INDEX there", "CREATE VIEW w AS SELECT 1", "DROP VIEW v", "REINDEX", "ANALYZE", "VACUUM",
    "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "CREATE VIRTUAL TABLE f USING fts5(a)", "INSERT INTO v VALUES (1)", "INSERT INTO ft VALUES ('x')",
    "INSERT INTO ft (ft) VALUES ('rebuild')", "INSERT INTO ft_data VALUES (1, x'00')", "UPDATE sqlite_schema SET sql = 'x'", "DELETE FROM sqlite_master",
    "CREATE TEMP TABLE q (a)", "CREATE TEMPORARY TABLE q AS SELECT * FROM t", "CREATE TEMP VIEW q AS SELECT 1", "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
    "ATTACH '{other}' AS o", "ATTACH DATABASE 'file:{other}?mode=rwc' AS o", "ATTACH ':memory:' AS o", "ATTACH '' AS o", "DETACH main", "VACUUM INTO '{other}'",
    "PRAGMA user_version = 5", "PRAGMA application_id = 5", "PRAGMA journal_mode = wal", "PRAGMA journal_mode(delete)", "PRAGMA writable_schema = ON", "PRAGMA writable_schema = RESET",
    "PRAGMA query_only = OFF", "PRAGMA main.query_only(0)", "PRAGMA trusted_schema = ON", "PRAGMA schema_version = 99", "PRAGMA temp_store_directory = '/tmp'", "PRAGMA data_store_directory = '/tmp'",
    "PRAGMA auto_vacuum = 1", "PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint", "PRAGMA optimize", "PRAGMA foreign_keys = OFF", "PRAGMA secure_delete = ON", "PRAGMA page_size = 1024",
    "PRAGMA encoding = 'UTF-16'", "PRAGMA mmap_size = 0", "PRAGMA hard_heap_limit = 1000", "EXPLAIN PRAGMA query_only = OFF", "EXPLAIN QUERY PLAN PRAGMA journal_mode = wal",
    "SELECT * FROM pragma_journal_mode('wal')", "SELECT load_extension('{other}')", "SELECT load_extension('{other}', 'init')", "SELECT readfile('/etc/passwd')", "SELECT writefile('{other}', 'x')",
    "SELECT edit('x', 'touch {other}')", "SELECT fts3_tokenizer('simple')", "SELECT fts3_tokenizer('mine', x'4141414141414141')", "SELECT * FROM fsdir('/')",
    "CREATE VIRTUAL TABLE z USING csv(filename='/etc/passwd')", "CREATE VIRTUAL TABLE z USING zipfile('{other}')", "COMMIT", "ROLLBACK", "BEGIN IMMEDIATE", "END", "SAVEPOINT s", "RELEASE s",
    "COMMIT; DELETE FROM t", "SELECT 1; DELETE FROM t", "SELECT 1;\n/* x */ DROP TABLE t", "/* SELECT */ DELETE FROM t", "-- SELECT\nDELETE FROM t", "\ufeffDELETE FROM t", "select 1 \0; DELETE FROM t",
    "SELECT * FROM t; PRAGMA query_only = OFF", "EXPLAIN DELETE FROM t",
]  # fmt: skip
TELL_ONLY = {"EXPLAIN DELETE FROM t"}
"""What runs nothing by itself; it is refused all the same."""


def content(path: Path) -> tuple[str, str]:
    """Return the digests of a file's octets and of all that is in it."""
    with sqlite3.connect(path) as db:
        dump = "\n".join(db.iterdump())
    db.close()
    return hashlib.sha256(path.read_bytes()).hexdigest(), hashlib.sha256(dump.encode()).hexdigest()


def made(path: Path, journal: str) -> Path:
    db = sqlite3.connect(path)
    db.executescript(
        f"PRAGMA journal_mode = {journal}; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX there ON t (b);"
        "INSERT INTO t VALUES (1, 'a'), (2, NULL); CREATE VIEW v AS SELECT * FROM t; CREATE VIRTUAL TABLE ft USING fts5(x); INSERT INTO ft VALUES ('hello');"
    )
    db.close()
    return path


@pytest.fixture(params=["delete", "wal", "mode=ro"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    path = made(tmp_path / "a.db", "wal" if request.param == "wal" else "delete")
    session = engines.get("sqlite").connect(
        address.parse(f"sqlite:///{path}" + ("?mode=ro" if "=" in request.param else ""))[0]
    )
    ask = engines.get("sqlite").ask
    assert ask is not None
    yield ask(session), path
    session.close()


def rows(asks: Any, text: str, **options: Any) -> list[tuple[Any, ...]]:
    with asks.ask(text, **options) as answer:
        return [row for batch in answer.batches() for row in batch]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_reading_only_writes_nowhere(opened: tuple[Any, Path], tmp_path: Path, statement: str) -> None:
    asks, path = opened
    rows(asks, "SELECT 1")  # so that what belongs to the handle is there
    before, beside = content(path), sorted(p.name for p in tmp_path.iterdir())
    other = tmp_path / "other.db"
    with pytest.raises((PermissionDenied, InvalidInput, QueryFailed)):
        rows(asks, statement.format(other=other))
    assert not other.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == beside
    assert content(path) == before
    assert rows(asks, "SELECT a, b FROM t ORDER BY a") == [(1, "a"), (2, None)]
    assert rows(asks, "PRAGMA query_only") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (9, 'x')",
        "UPDATE t SET b = 'x'",
        "DELETE FROM t",
        "CREATE TABLE u (a)",
        "DROP TABLE t",
        "PRAGMA user_version = 5",
    ],
)
@pytest.mark.parametrize("layer", ["authorizer", "query_only", "file", "none"])
def test_each_layer_holds_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, statement: str
) -> None:
    """All layers but one are taken away: that one refuses. Without any of them the transaction that is rolled back still keeps the file, and changed rows are told."""
    from dblens.engines.sqlite import ask, ask_run, driver

    path = made(tmp_path / "a.db", "delete")
    before = content(path)
    if layer != "authorizer":
        monkeypatch.setattr(ask_run, "_STRICT", lambda *_: sqlite3.SQLITE_OK)
    if layer != "file":
        real = driver.Db
        monkeypatch.setattr(ask, "Db", lambda p, **_: real(p))
    if layer != "query_only":
        run = driver.Db.run
        monkeypatch.setattr(
            driver.Db,
            "run",
            lambda self, text, params=(): 0 if text == "PRAGMA query_only = ON" else run(self, text, params),
        )
    session = engines.get("sqlite").connect(address.parse(f"sqlite:///{path}")[0])
    try:
        asks = ask.asks(session)
        if layer == "none" and not statement.startswith(
            ("INSERT", "UPDATE", "DELETE")
        ):  # those the count of changes tells
            with contextlib.suppress(DBLensError):
                rows(asks, statement)
        else:
            with pytest.raises(PermissionDenied):
                rows(asks, statement)
    finally:
        session.close()
    assert content(path) == before


@pytest.mark.parametrize(
    "statement",
    ["ATTACH '{other}' AS o", "ATTACH '' AS o", "VACUUM INTO '{other}'", "DETACH main", "PRAGMA writable_schema = ON", "PRAGMA journal_mode = wal", "SELECT load_extension('x')",
     "SELECT readfile('/etc/passwd')", "PRAGMA temp_store_directory = '/tmp'", "CREATE VIRTUAL TABLE z USING csv(filename='/etc/passwd')", "BEGIN", "COMMIT", "PRAGMA trusted_schema = ON",
     "SELECT fts3_tokenizer('mine', x'4141414141414141')", "SELECT 1; DELETE FROM t"],
)  # fmt: skip
def test_writing_leads_out_of_the_file_neither(tmp_path: Path, statement: str) -> None:
    path = made(tmp_path / "a.db", "delete")
    session = engines.get("sqlite").connect(address.parse(f"sqlite:///{path}")[0])
    asks: Any = engines.get("sqlite").ask(session)  # type: ignore[misc]
    try:
        before, other = content(path), tmp_path / "other.db"
        with pytest.raises((PermissionDenied, InvalidInput, QueryFailed)):
            rows(asks, statement.format(other=other), read_only=False)
        assert not other.exists()
        assert content(path) == before
        rows(asks, "INSERT INTO t VALUES (3, 'c')", read_only=False)
        assert rows(asks, "SELECT count(*) FROM t") == [(3,)]
        rows(asks, "VACUUM", read_only=False)
    finally:
        session.close()


def test_in_memory_the_other_layers_hold(tmp_path: Path) -> None:
    session = engines.get("sqlite").connect(address.parse("sqlite:///:memory:")[0])
    asks: Any = engines.get("sqlite").ask(session)  # type: ignore[misc]
    try:
        rows(asks, "CREATE TABLE t (a, b)", read_only=False)
        rows(asks, "INSERT INTO t VALUES (1, 'a')", read_only=False)
        rows(asks, "CREATE INDEX there ON t (b)", read_only=False)
        assert {layer.name for layer in asks.layers() if layer.active} >= {"authorizer", "transaction", "protocol"}
        assert not next(layer for layer in asks.layers() if layer.name == "file").active
        for statement in STATEMENTS:
            with pytest.raises((PermissionDenied, InvalidInput, QueryFailed, Conflict)):
                rows(asks, statement.format(other=tmp_path / "other.db"), limits=Limits(seconds=5))
        assert rows(asks, "SELECT a, b FROM t") == [(1, "a")]
        assert list(tmp_path.iterdir()) == []
    finally:
        session.close()


def test_the_file_layer_is_asked_of_the_file(opened: tuple[Any, Path]) -> None:
    asks, path = opened
    before = content(path)
    assert all(
        layer.active for layer in asks.layers() if layer.name in ("file", "authorizer", "transaction", "protocol")
    )
    assert content(path) == before


def test_a_file_that_was_exchanged_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dblens.engines.sqlite import ask

    path = made(tmp_path / "a.db", "delete")
    secret = made(tmp_path / "secret.db", "delete")
    session = engines.get("sqlite").connect(address.parse(f"sqlite:///{path}")[0])
    asks = ask.asks(session)
    path.unlink()
    path.symlink_to(secret)
    try:
        with pytest.raises(PermissionDenied, match="exchanged"):
            rows(asks, "SELECT * FROM t")
    finally:
        session.close()
