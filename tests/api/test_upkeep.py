"""What the service does by itself: dead runs end, what is old goes, and a failure stops neither."""

from __future__ import annotations

import datetime as dt
from typing import Any

import anyio
import pytest

from dblens.api.upkeep import Upkeep
from dblens.errors import StoreError
from dblens.store import runs, sessions
from dblens.store.records import now
from dblens.workspace.house import House
from tests.api.conftest import World


def test_the_run_of_a_dead_worker_ends(house: House, world: World) -> None:
    org, user = world.orgs["acme"], world.user("acme", "developer").id
    long_ago = now() - dt.timedelta(hours=1)
    with house.store.write() as tx:
        run = runs.create_run(tx, org, "migration.apply", user_id=user, lock="connection:x", now=long_ago)
        runs.claim_one(tx, org, run.id, "dead", lease=dt.timedelta(seconds=30), now=long_ago)
    upkeep = Upkeep(house)
    assert not upkeep.alive()
    upkeep.sweep()
    assert upkeep.alive()
    with house.store.read() as tx:
        assert runs.get_run(tx, org, run.id).state == "crashed"


def test_a_login_that_expired_long_ago_goes(house: House, world: World) -> None:
    user = world.user("acme", "viewer")
    with house.store.write() as tx:
        old = sessions.create_session(
            tx, user, kind="api", client="", address="", now=now(), expires_at=now() - dt.timedelta(days=31)
        )
        young = sessions.create_session(
            tx, user, kind="api", client="", address="", now=now(), expires_at=now() - dt.timedelta(days=29)
        )
    Upkeep(house).prune()
    with house.store.read() as tx:
        kept = {
            s.id for s in sessions.list_sessions(tx, user.id, live_at=now() - dt.timedelta(days=60), limit=200).items
        }
    assert old.id not in kept
    assert young.id in kept


def test_a_failure_stops_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def broken() -> Any:
        tried.append(1)
        raise StoreError("away") if len(tried) == 1 else ValueError("canary password=hunter2")

    monkeypatch.setattr(house, "sweep", broken)
    upkeep = Upkeep(house, sweep=0.01, prune=3600)

    async def work() -> None:
        with anyio.move_on_after(2):
            await upkeep.run()

    anyio.run(work)
    assert len(tried) > 3
    assert "away" in caplog.text
    assert "upkeep failed" in caplog.text
    assert not upkeep.alive()
