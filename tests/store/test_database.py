"""The store's database: private file, transactions, time."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from dblens.errors import InvalidInput, StoreError
from dblens.store.database import Store
from dblens.store.records import new_id, now
from dblens.store.tables import organizations


def _add(tx: sa.Connection, name: str, at: dt.datetime) -> None:
    tx.execute(organizations.insert().values(id=new_id(), name=name, slug=name, created_at=at))


def test_a_transaction_is_kept_or_undone(store: Store) -> None:
    at = dt.datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    with store.write() as tx:
        _add(tx, "kept", at)
    with pytest.raises(sa.exc.IntegrityError), store.write() as tx:  # noqa: PT012
        _add(tx, "undone", at)
        _add(tx, "kept", at)
    with store.read() as tx:
        rows = tx.execute(sa.select(organizations.c.name, organizations.c.created_at)).all()
    assert rows == [("kept", at)]
    assert rows[0][1].tzinfo is dt.UTC


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(sa.exc.StatementError, match="a time without zone"), store.write() as tx:
        _add(tx, "x", now().replace(tzinfo=None))


def test_a_file_is_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    before = os.umask(0)
    try:
        opened = Store.open(f"sqlite:///{path}")
        opened.create_all()
        with opened.write() as tx:
            _add(tx, "a", now())
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
        opened.close()
    finally:
        os.umask(before)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="can be read by others"):
        Store.open(f"sqlite:///{path}")


def test_bad_places(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no store: 'mysql'"):
        Store.open("mysql://me:geheim@host/db")
    with pytest.raises(StoreError, match="no store at"):
        Store.open(f"sqlite:///{tmp_path / 'none.sqlite'}", create=False)
    with pytest.raises(StoreError, match="is a folder"):
        Store.open(f"sqlite:///{tmp_path}")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="no store can be at"):
        Store.open(f"sqlite:///{tmp_path / 'file' / 'store'}")
    gone = Store.open("postgresql://me:geheim@127.0.0.1:1/db")
    with pytest.raises(StoreError) as caught, gone.read():
        pass
    assert "geheim" not in str(caught.value) + repr(gone.engine) + gone.place


def test_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(len(i) == 32 and i[12] == "7" and i[16] in "89ab" for i in ids)


def test_a_path_is_not_read_as_an_address(tmp_path: Path) -> None:
    path = tmp_path / "a%20b?mode=ro&x#y"
    opened = Store.open(f"sqlite:///{path}")
    opened.create_all()
    opened.close()
    assert path.stat().st_size > 0
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(path.name)] == []


def test_a_value_that_the_engine_refuses_is_bad_input(store: Store) -> None:
    with pytest.raises(InvalidInput, match="cannot be kept"), store.write() as tx:
        _add(tx, "lone \udc80", now())
    if store.engine.dialect.name == "postgresql":  # SQLite keeps these two
        for name in ("nul \0", "x" * 300):
            with pytest.raises(InvalidInput, match="cannot be kept"), store.write() as tx:
                _add(tx, name, now())


def test_a_snapshot_reads_one_instant_and_writes_nothing(store: Store) -> None:
    with store.snapshot() as tx:
        before = tx.execute(sa.select(sa.func.count()).select_from(organizations)).scalar()
        with store.write() as other:
            _add(other, "later", now())
        assert tx.execute(sa.select(sa.func.count()).select_from(organizations)).scalar() == before == 0
    with store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(organizations)).scalar() == 1


def test_ids_sort_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr("dblens.store.records.time.time_ns", lambda: 0)
    ids = [first, *(new_id() for _ in range(100))]
    assert ids == sorted(ids)
    assert all(len(i) == 32 and i[12] == "7" and i[16] in "89ab" for i in ids)
