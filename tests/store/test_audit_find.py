"""Looking into the audit: filter, pages, statistics, export in order."""

from __future__ import annotations

import datetime as dt

import pytest

from dblens.errors import InvalidInput
from dblens.store import audit as chain
from dblens.store import audit_find
from dblens.store.audit import Entry
from dblens.store.audit_find import Count, Filter
from dblens.store.database import Store

KEY = b"k" * 32
AT = dt.datetime(2026, 11, 22, 23, 0, tzinfo=dt.UTC)
ACTIONS = ["query.run", "query.cancel", "queryx.run", "backup.create"]


@pytest.fixture
def filled(store: Store) -> Store:
    """40 calls, half an hour apart, over two organizations; every fifth fails; writes are two rows."""
    rows = []
    for n in range(40):
        about = {
            "at": AT + dt.timedelta(minutes=30 * n),
            "action": ACTIONS[n % 4],
            "actor": f"user {n % 3}",
            "actor_id": str(n % 3) * 32,
            "org_id": "a" if n % 2 else "b",
            "connection_id": f"c{n % 5}",
            "run_id": f"r{n}",
        }
        write = n % 4 == 3
        if write:
            rows.append(Entry(phase="started", **about))
        outcome = "permission.denied" if n % 5 == 0 else "ok"
        phase = "denied" if n % 5 == 0 else "ended" if write else "read"
        rows.append(Entry(phase=phase, outcome=outcome, microseconds=n, **about))
    with store.write() as tx:
        chain.append(tx, KEY, rows)
    return store


def numbers(store: Store, org_id: str | None, **which: object) -> list[str]:
    with store.read() as tx:
        found = audit_find.find(tx, org_id, Filter(**which), limit=1000).items  # type: ignore[arg-type]
    return [row.run_id or "" for row in found]


def runs(condition: object) -> list[str]:
    twice = [n for n in range(39, -1, -1) for _ in range(2 if n % 4 == 3 else 1) if condition(n)]  # type: ignore[operator]
    return [f"r{n}" for n in twice]


def test_each_filter_and_the_organization(filled: Store) -> None:
    assert numbers(filled, None) == runs(lambda n: True)
    assert numbers(filled, "a") == runs(lambda n: n % 2)
    assert numbers(filled, "a", actor_id="1" * 32) == runs(lambda n: n % 2 and n % 3 == 1)
    assert numbers(filled, None, actor="user 2") == runs(lambda n: n % 3 == 2)
    assert numbers(filled, None, connection_id="c4") == runs(lambda n: n % 5 == 4)
    assert numbers(filled, None, action="query.run") == runs(lambda n: n % 4 == 0)
    assert numbers(filled, None, action="query.*") == runs(lambda n: n % 4 < 2)
    assert numbers(filled, None, phase="denied") == [f"r{n}" for n in range(35, -1, -5)]
    assert numbers(filled, None, outcome="permission.denied") == [f"r{n}" for n in range(35, -1, -5)]
    assert numbers(filled, None, run_id="r3") == ["r3", "r3"]
    assert numbers(filled, None, since=AT + dt.timedelta(hours=1), until=AT + dt.timedelta(hours=2)) == [
        "r3",
        "r3",
        "r2",
    ]
    assert numbers(filled, "none") == []
    assert numbers(filled, None, action="%.*") == []


def test_pages_are_bounded_and_without_gaps(filled: Store) -> None:
    seen, after = [], None
    while True:
        with filled.read() as tx:
            page = audit_find.find(tx, None, Filter(), limit=7, after=after)
        assert len(page.items) <= 7
        seen += [row.number for row in page.items]
        after = page.after
        if after is None:
            break
    assert seen == list(range(50, 0, -1))
    for limit in (0, 1001, True, "5"):
        with pytest.raises(InvalidInput, match="limit is"), filled.read() as tx:
            audit_find.find(tx, None, Filter(), limit=limit)  # type: ignore[arg-type]
    for bad in ("x", "-1", "1" * 30, "٣"):
        with pytest.raises(InvalidInput, match="after is"), filled.read() as tx:
            audit_find.find(tx, None, Filter(), after=bad)


def test_a_time_without_zone_is_refused_by_name(filled: Store) -> None:
    with pytest.raises(InvalidInput, match="since has no time zone"), filled.read() as tx:
        audit_find.find(tx, None, Filter(since=AT.replace(tzinfo=None)))


def test_statistics_count_calls_once(filled: Store) -> None:
    with filled.read() as tx:
        by = {key: audit_find.statistics(tx, None, Filter(), by=key) for key in ("action", "actor", "outcome", "day")}
        ours = audit_find.statistics(tx, "a", Filter(actor="user 1"), by="actor")
    assert {row.key: row.calls for row in by["action"]} == dict.fromkeys(ACTIONS, 10)
    assert [row.key for row in by["actor"]] == ["user 0", "user 1", "user 2"]
    assert by["outcome"] == [
        Count(key="ok", calls=32, failed=0, microseconds=sum(n for n in range(40) if n % 5)),
        Count(key="permission.denied", calls=8, failed=8, microseconds=sum(range(0, 40, 5))),
    ]
    assert [(row.key, row.calls) for row in by["day"]] == [("2026-11-22", 2), ("2026-11-23", 38)]
    assert [(row.key, row.calls) for row in ours] == [("user 1", 7)]
    assert sum(row.failed for row in by["actor"]) == 8
    with pytest.raises(InvalidInput, match="by is"), filled.read() as tx:
        audit_find.statistics(tx, None, Filter(), by="number")  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1, 7, 25, 50, 1000])
def test_every_row_comes_once_and_in_order_while_others_are_added(filled: Store, step: int) -> None:
    seen = []
    for row in audit_find.every(filled, None, Filter(), step=step):
        seen.append(row.number)
        if row.number == 10:
            with filled.write() as tx:
                chain.append(tx, KEY, [Entry(at=AT, phase="read", action="late.row")])
    assert seen == list(range(1, 51))
    assert [row.run_id for row in audit_find.every(filled, "a", Filter(phase="denied"), step=1)] == [
        "r5",
        "r15",
        "r25",
        "r35",
    ]
