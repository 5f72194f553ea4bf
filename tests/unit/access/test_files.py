"""Which SQLite files may be opened, and what SQL may do inside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from dblens.engines.access.files import check_file, sqlite_authorizer
from dblens.engines.access.guard import TEAM, Policy
from dblens.errors import DBLensError, InvalidInput, NotFound, PermissionDenied


def make(path: Path) -> Path:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
        db.execute("CREATE INDEX tx ON t (a)")
    db.close()
    return path


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    make(root / "in.db")
    make(tmp_path / "out.db")
    make(root / "store.db")
    (tmp_path / "rooted").mkdir()
    make(tmp_path / "rooted" / "x.db")
    (root / "link.db").symlink_to(tmp_path / "out.db")
    (root / "loop.db").symlink_to(root / "loop.db")
    (root / "folder").symlink_to(tmp_path)
    (root / "fine.db").symlink_to(root / "in.db")
    os.link(root / "store.db", root / "hard.db")
    os.mkfifo(root / "fifo.db")
    return root


def policy(root: Path) -> Policy:
    return Policy(sqlite_roots=(str(root),), denied_files=(str(root / "store.db"),))


BAD = [
    "../out.db", "sub/../../out.db", "{out}", "/etc/passwd", "link.db", "folder/out.db", "loop.db", "/proc/self/environ", "/proc/self/fd/0",
    "/proc/{pid}/root{root}/in.db", "/dev/stdin", "/dev/zero", "file:in.db?mode=ro", "FILE:in.db", "file:///etc/passwd", ":memory:", "",
    "in.db\0.txt", "store.db", "store.db-wal", "sub/../store.db", "hard.db", "fifo.db", "sub", ".", "..", "/", "{root}", "../rooted/x.db",
    "missing.db", "missing/../../out.db",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD)
def test_bad_paths(roots: Path, path: str) -> None:
    path = path.format(out=roots.parent / "out.db", pid=os.getpid(), root=roots)
    with pytest.raises((InvalidInput, PermissionDenied, NotFound)) as caught:
        check_file(path, policy(roots))
    assert caught.value.hint


def test_good_paths(roots: Path) -> None:
    for path in ("in.db", "./in.db", "sub/../in.db", str(roots / "in.db"), "fine.db"):
        assert check_file(path, policy(roots)).path == str(roots / "in.db")
    assert check_file("new.db", policy(roots), create=True).identity is None
    assert check_file(str(roots.parent / "out.db"), Policy()).path == str(roots.parent / "out.db")


def test_whether_a_file_exists_outside_is_not_told(roots: Path) -> None:
    said = set()
    for path in ("/etc/passwd", "/etc/no-such-file"):
        with pytest.raises(PermissionDenied) as caught:
            check_file(path, policy(roots))
        said.add(caught.value.message.replace(path, ""))
    assert len(said) == 1


def test_no_roots_no_files(roots: Path) -> None:
    with pytest.raises(PermissionDenied):
        check_file(str(roots / "in.db"), TEAM)


def test_without_roots_the_store_and_proc_are_still_out(roots: Path) -> None:
    anywhere = Policy(denied_files=(str(roots / "store.db"),))
    for path in (str(roots / "store.db"), str(roots / "hard.db"), str(roots / "store.db-wal"), "/proc/self/environ"):
        with pytest.raises(PermissionDenied):
            check_file(path, anywhere)


def test_a_file_exchanged_while_it_was_opened_is_found(roots: Path) -> None:
    checked = check_file("in.db", policy(roots))
    checked.recheck()
    other = make(roots / "other.db")
    (roots / "in.db").rename(roots / "was.db")
    other.rename(roots / "in.db")
    with pytest.raises(PermissionDenied):
        checked.recheck()
    (roots / "in.db").unlink()
    (roots / "in.db").symlink_to(roots.parent / "out.db")
    with pytest.raises(PermissionDenied):
        checked.recheck()
    fresh = check_file("new.db", policy(roots), create=True)
    fresh.recheck()
    (roots / "new.db").symlink_to(roots.parent / "out.db")
    with pytest.raises(PermissionDenied):
        fresh.recheck()


def test_the_last_link_is_not_followed_even_when_it_comes_late(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dblens.engines.access import files

    monkeypatch.setattr(files.os.path, "realpath", lambda path, **_: os.fspath(path))  # as if the link came just after
    with pytest.raises(DBLensError):
        check_file(str(roots / "link.db"), Policy(sqlite_roots=(str(roots),)))


DENIED = [
    "ATTACH '{out}' AS o", "ATTACH ':memory:' AS o", "DETACH main", "VACUUM INTO '{copy}'", "SELECT load_extension('x')",
    "PRAGMA writable_schema = ON", "PRAGMA journal_mode = OFF", "PRAGMA temp_store_directory = '/tmp'", "PRAGMA data_store_directory='/'",
    "PRAGMA trusted_schema = ON", "PRAGMA query_only = OFF", "PRAGMA mmap_size = 1", "PRAGMA wal_checkpoint", "PRAGMA encoding='UTF-16'",
    "CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')", "CREATE VIRTUAL TABLE v USING fts3tokenize('x')",
    "SELECT readfile('/etc/passwd')", "SELECT writefile('/tmp/x', 'y')", "SELECT fts3_tokenizer('simple')",
]  # fmt: skip
WRITES = [
    "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t", "CREATE TABLE u (a)", "DROP TABLE t", "ALTER TABLE t ADD b",
    "CREATE INDEX i ON t (a)", "CREATE VIEW v AS SELECT 1", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "REINDEX", "ANALYZE",
    "PRAGMA user_version = 7", "WITH c AS (SELECT 1) INSERT INTO t SELECT * FROM c", "REPLACE INTO t VALUES (1)",
    "CREATE VIRTUAL TABLE v USING fts5(a)", "INSERT INTO t VALUES (1) RETURNING a", "CREATE TABLE u AS SELECT * FROM t",
]  # fmt: skip
READS = [
    "SELECT * FROM t",
    "PRAGMA table_info(t)",
    "PRAGMA user_version",
    "SELECT abs(1), lower('A')",
    "EXPLAIN QUERY PLAN SELECT 1",
]


def guarded(roots: Path, *, read_only: bool) -> sqlite3.Connection:
    db = sqlite3.connect(roots / "in.db", isolation_level=None)
    if hasattr(db, "enable_load_extension"):
        db.enable_load_extension(True)  # even so
    db.set_authorizer(sqlite_authorizer(read_only=read_only))
    return db


@pytest.mark.parametrize("statement", DENIED)
@pytest.mark.parametrize("read_only", [True, False])
def test_the_authorizer_denies(roots: Path, statement: str, read_only: bool) -> None:
    db = guarded(roots, read_only=read_only)
    copy = roots / "copy.db"
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|authoriz|prohibited|no such (function|module)"):
        db.execute(statement.format(out=roots.parent / "out.db", copy=copy)).fetchall()
    db.close()
    assert not copy.exists()


@pytest.mark.parametrize("statement", WRITES)
def test_a_reader_cannot_write(roots: Path, statement: str) -> None:
    before = (roots / "in.db").read_bytes()
    db = guarded(roots, read_only=True)
    with pytest.raises(sqlite3.DatabaseError, match="authoriz"):
        db.execute(statement).fetchall()
    db.close()
    assert (roots / "in.db").read_bytes() == before
    writer = guarded(roots, read_only=False)
    writer.execute(statement).fetchall()
    writer.close()


@pytest.mark.parametrize("statement", READS)
def test_a_reader_can_read(roots: Path, statement: str) -> None:
    db = guarded(roots, read_only=True)
    db.execute(statement).fetchall()
    db.close()
