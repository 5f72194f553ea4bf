"""What is older than the settings say goes once a day, and nothing else; the audit's chain says so."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblens.store import notifications, runs
from dblens.store.audit import Entry
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.workspace.retention import Retained, retain_due
from tests.store.conftest import store
from tests.workspace.rooms import NOW, Rooms, move_in

__all__ = ["store"]


@pytest.fixture
def rooms(store: Store, tmp_path: Path) -> Iterator[Rooms]:
    made = move_in(store, tmp_path)
    yield made
    made.house.close()


def later(rooms: Rooms, **more: float) -> None:
    rooms.house.clock = lambda: NOW + dt.timedelta(**more)


def left(rooms: Rooms, org: str) -> int:
    with rooms.house.store.read() as tx:
        return len(runs.list_runs(tx, rooms.orgs[org]).items)


def test_it_is_done_once_a_day_by_one_process(rooms: Rooms) -> None:
    assert retain_due(rooms.house) == Retained()
    assert retain_due(rooms.house) is None
    later(rooms, hours=22)
    assert retain_due(rooms.house) is None
    later(rooms, hours=24)
    assert retain_due(rooms.house) == Retained()


def test_runs_and_read_notifications_go_by_the_shorter_rule(rooms: Rooms) -> None:
    for org in ("acme", "beta"):
        who = rooms.person(org, "admin")
        rooms.house.deliverer.ended(rooms.run(org, who, "succeeded"))
        rooms.doors(org, "admin").notifications.mark()
    rooms.doors("acme", "admin").settings.update("history", {"run_days": 10, "notification_days": 5})
    later(rooms, days=9)
    assert retain_due(rooms.house) == Retained(notifications=1)
    later(rooms, days=11)
    assert retain_due(rooms.house) == Retained(runs=1)
    assert (left(rooms, "acme"), left(rooms, "beta")) == (0, 1)
    later(rooms, days=366)
    assert retain_due(rooms.house) == Retained(runs=1, notifications=1)


def test_what_was_not_read_and_what_still_runs_stays(rooms: Rooms) -> None:
    who = rooms.person("acme", "admin")
    with rooms.house.store.write() as tx:
        runs.create_run(tx, rooms.orgs["acme"], "migration.apply", user_id=who.user_id, now=NOW)
        notifications.add_notification(tx, rooms.orgs["acme"], who.user_id, kind="run.ended", text="x", now=NOW)
    later(rooms, days=4000)
    assert retain_due(rooms.house) == Retained()
    assert left(rooms, "acme") == 1


def test_the_audit_is_kept_for_ever_until_somebody_says_how_long(rooms: Rooms) -> None:
    journal = rooms.house.journal
    journal.write(*[Entry(at=NOW, phase="read", action="a.b", actor="ann") for _ in range(3)])
    later(rooms, days=400)
    assert retain_due(rooms.house) == Retained()
    assert len(list(every(rooms.house.store, None, Filter()))) == 3
    rooms.doors("acme", "super_admin", authenticated_at=NOW + dt.timedelta(days=400)).settings.update(
        "retention", {"audit_days": 365}
    )
    later(rooms, days=402)
    done = retain_due(rooms.house)
    assert done is not None
    assert done.audit_through == 3
    rows = list(every(rooms.house.store, None, Filter()))
    assert (rows[-1].phase, rows[-1].action, rows[-1].actor) == ("checkpoint", "audit.retain", "retention")
    assert journal.verify().ok
