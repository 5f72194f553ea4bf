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
    with pytest.raises(sa.exc.IntegrityError), store.write() as tx:
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
    gone = Store.open("postgresql://me:geheim@127.0.0.1:1/db")
    with pytest.raises(StoreError) as caught, gone.read():
        pass
    assert "geheim" not in str(caught.value) + repr(gone.engine) + gone.place


def test_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)
    assert all(len(i) == 32 and i[12] == "7" and i[16] in "89ab" for i in ids)
