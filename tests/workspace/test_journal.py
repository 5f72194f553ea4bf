"""The audit's writer: bounded, batched, never in the caller's way for long."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import StoreError
from dblens.store.audit import Entry
from dblens.store.database import Store
from dblens.store.tables import audit
from dblens.workspace.journal import Journal

KEY = b"k" * 32
AT = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def entry(n: int = 0) -> Entry:
    return Entry(at=AT, phase="read", action="a.b", run_id=str(n))


class Slow:
    """A store whose writes wait for a gate, and may fail."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open = threading.Event()
        self.open.set()
        self.fails = False
        self.writes = 0

    @contextmanager
    def write(self) -> Iterator[Any]:
        self.open.wait(30)
        self.writes += 1
        if self.fails:
            raise StoreError("the disk is full")
        with self.store.write() as tx:
            yield tx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    opened = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}")
    opened.create_all()
    made = Slow(opened)
    yield made
    made.open.set()
    opened.close()


def count(slow: Slow) -> int:
    with slow.store.read() as tx:
        return tx.scalar(sa.select(sa.func.count()).select_from(audit)) or 0


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def read(journal: Journal, n: int = 0) -> None:
    journal.reserve()
    journal.note(entry(n))


def test_many_reads_are_few_transactions(slow: Slow) -> None:
    journal = Journal(slow, KEY, size=100, age=30)  # type: ignore[arg-type]
    for n in range(1000):
        read(journal, n)
    journal.close()
    assert count(slow) == 1000
    assert slow.writes <= 11
    with slow.store.read() as tx:
        assert list(tx.scalars(sa.select(audit.c.run_id).order_by(audit.c.number))) == [str(n) for n in range(1000)]
    assert journal.verify().ok


def test_a_full_batch_or_an_old_one_is_written_by_itself(slow: Slow) -> None:
    journal = Journal(slow, KEY, size=10, age=30)  # type: ignore[arg-type]
    for n in range(10):
        read(journal, n)
    until(lambda: count(slow) == 10)
    journal.close()
    journal = Journal(slow, KEY, size=1000, age=0.05)  # type: ignore[arg-type]
    read(journal)
    until(lambda: count(slow) == 11)
    journal.close()


def test_a_slow_store_does_not_hold_a_reader_up_until_the_buffer_is_full(slow: Slow) -> None:
    journal = Journal(slow, KEY, size=5, age=0.01, room=50, patience=0.3)  # type: ignore[arg-type]
    slow.open.clear()
    begun = time.monotonic()
    for n in range(50):
        read(journal, n)
    assert time.monotonic() - begun < 0.3
    begun = time.monotonic()
    with pytest.raises(StoreError, match="50 reads behind"):
        journal.reserve()
    assert 0.25 < time.monotonic() - begun < 2
    assert journal.waiting <= 50
    slow.open.set()
    until(lambda: journal.waiting == 0)
    read(journal)
    journal.close()
    assert count(slow) == 51


def test_what_runs_counts_as_much_as_what_waits(slow: Slow) -> None:
    journal = Journal(slow, KEY, age=30, room=3, patience=0.05)  # type: ignore[arg-type]
    for _ in range(3):
        journal.reserve()
    with pytest.raises(StoreError, match="3 reads behind"):
        journal.reserve()
    journal.release()
    journal.reserve()
    journal.close()


def test_after_a_failure_nothing_is_lost_and_it_mends_itself(slow: Slow) -> None:
    journal = Journal(slow, KEY, size=3, age=0.05)  # type: ignore[arg-type]
    slow.fails = True
    for n in range(3):
        read(journal, n)
    until(lambda: slow.writes)
    until(lambda: journal._failure is not None)
    with pytest.raises(StoreError, match="nothing runs") as refused:
        journal.reserve()
    assert isinstance(refused.value.__cause__, StoreError)
    with pytest.raises(StoreError, match="cannot be written"):
        journal.write(entry(9))
    slow.fails = False
    until(lambda: journal.waiting == 0)
    read(journal, 3)
    journal.close()
    with slow.store.read() as tx:
        assert list(tx.scalars(sa.select(audit.c.run_id).order_by(audit.c.number))) == ["0", "1", "2", "3"]


def test_a_change_goes_after_the_reads_before_it(slow: Slow) -> None:
    journal = Journal(slow, KEY, age=30)  # type: ignore[arg-type]
    read(journal, 1)
    read(journal, 2)
    journal.write(entry(3), entry(4))
    assert slow.writes == 1
    with slow.store.read() as tx:
        assert list(tx.scalars(sa.select(audit.c.run_id).order_by(audit.c.number))) == ["1", "2", "3", "4"]
    journal.close()


def test_closed_it_takes_nothing_more(slow: Slow) -> None:
    journal = Journal(slow, KEY, age=30)  # type: ignore[arg-type]
    read(journal)
    journal.close()
    assert count(slow) == 1
    with pytest.raises(StoreError, match="closed"):
        journal.reserve()


def test_many_threads_lose_nothing(slow: Slow) -> None:
    journal = Journal(slow, KEY, size=20, age=0.02, room=60, patience=20)  # type: ignore[arg-type]

    def work(name: int) -> None:
        for n in range(100):
            if n % 20 == 0:
                journal.write(entry(name * 1000 + n))
            else:
                read(journal, name * 1000 + n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert journal.verify().rows == 600
    with slow.store.read() as tx:
        assert len(set(tx.scalars(sa.select(audit.c.run_id)))) == 600


def test_the_key_is_in_no_repr(slow: Slow) -> None:
    journal = Journal(slow, b"canary-canary-canary-canary-canary")  # type: ignore[arg-type]
    assert "canary" not in repr(journal)
    journal.close()
