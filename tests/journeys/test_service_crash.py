"""kill -9 of the service in the middle of a migration: the run ends crashed, its lock is free, the audit whole, the next run succeeds.

Each round has a service, a store and a target of its own, so that rounds wait for their leases at the same time.
"""

from __future__ import annotations

import concurrent.futures
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import dblens
from dblens.engines.access.spec import from_url
from dblens.migrate.link import Link, link
from dblens.store import audit, locks
from dblens.store.records import now
from dblens.workspace.executor import LEASE
from tests.attacks.served import Served, ended, keep
from tests.servers import Postgres

ROWS = 300_000
CHUNK = 1_000
SWEPT = LEASE.total_seconds() + 30


def fill(path: Path) -> None:
    """Make the source: rows that take some seconds, with text that must come through."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table item (id integer primary key, name text, price real, seen text)")
        db.execute("create table event (id integer primary key, item_id integer not null, note text)")
        db.executemany(
            "insert into item values (?, ?, ?, ?)",
            (
                (i, f"näme {i} 'x' \t {i * 7919}", i / 4 + 0.1, None if i % 5 == 0 else f"{i:x}" * 20)
                for i in range(ROWS)
            ),
        )
        db.executemany("insert into event values (?, ?, ?)", ((i, i // 2, f"note {i % 50}") for i in range(ROWS // 2)))
        db.commit()


class Round:
    """One service that is killed once while it migrates."""

    def __init__(self, folder: Path, source: Path, target_url: str, part: float) -> None:
        folder.mkdir(mode=0o700)
        self.service, self.part = Served(folder), part
        self.source_url, self.target_url = f"sqlite:///{source}", target_url
        self.told: dict[str, Any] = {"part": round(part, 2)}

    def play(self) -> dict[str, Any]:
        try:
            self._play()
        finally:
            self.service.kill()
        return self.told

    def _play(self) -> None:
        with self.service.house() as house:
            owner = house.owner
            for name, url in (("left", self.source_url), ("right", self.target_url)):
                keep(house, owner.org_id or "", owner.user_id, name, url)
        self.service.start()
        with self.service.client() as client:
            # `ledger` keeps what was copied before a kill, so there is something to go on with.
            options = {"mode": "ledger", "chunk_rows": CHUNK}
            planned = ended(client, self.begin(client, "plan", source="left", target="right", options=options))
            assert planned["state"] == "succeeded", planned
            plan = client.get(f"/runs/{planned['id']}/result").json()
            run_id = self.begin(client, "apply", plan=plan["id"], hash=plan["hash"])
            self.told["progress"] = self.wait_for(client, run_id)
        self.service.kill()
        killed = time.monotonic()

        self.service.start()
        with self.service.client() as client:
            crashed = ended(client, run_id, SWEPT)
            self.told["swept after"] = round(time.monotonic() - killed, 1)
            assert crashed["state"] == "crashed", (self.told, crashed)
            assert crashed["error"], crashed
            with self.service.house() as house:
                with house.store.read() as tx:
                    lock = f"connection:{crashed['connection_id']}"
                    assert locks.holder(tx, lock, now=now()) is None
                self.chain(house, run_id)
            notes = [each["run_id"] for each in client.get("/notifications").json()["items"]]
            assert run_id in notes, "nobody was told that the run crashed"

            known = client.get("/migrations/status", params={"target": "right"}).json()
            do: dict[str, Any] = {"plan": plan["id"], "hash": plan["hash"]}
            verb, given = ("resume", {"source": "left", "target": "right"}) if known else ("apply", do)
            self.told["next"] = verb
            done = ended(client, self.begin(client, verb, **given), 120)
            assert done["state"] == "succeeded", (verb, done)
            with self.service.house() as house:
                self.chain(house, None)
        self.right()

    def begin(self, client: httpx.Client, verb: str, **given: Any) -> str:
        answer = client.post(f"/migrations/{verb}", json=given)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def wait_for(self, client: httpx.Client, run_id: str) -> int:
        """Wait until part of the rows was copied, as polling shows it; return how many rows that were."""
        end, done = time.monotonic() + 120, 0
        while time.monotonic() < end:
            run = client.get(f"/runs/{run_id}").json()
            progress = run.get("progress") or {}
            if progress.get("task", "").startswith("copy") or progress.get("done"):
                done = progress.get("done") or 0
                if done >= self.part * ROWS:
                    return int(done)
            assert run["state"] in ("queued", "running"), f"it was over before it could be killed: {run}"
            time.sleep(0.01)
        raise AssertionError("no progress was seen")

    def chain(self, house: Any, run_id: str | None) -> None:
        """The audit is whole, and has the end of the run that crashed."""
        house.journal.flush()
        verdict = house.workspace(house.owner).audit.verify()
        assert verdict.ok, verdict
        if run_id is not None:
            rows = [r for r in dblens_rows(house) if r.run_id == run_id]
            assert [(r.phase, r.outcome) for r in rows] == [("started", None), ("ended", "run.crashed")], rows

    def right(self) -> None:
        """The target holds what the source holds, by counts and by digests of all rows."""
        verdict = dblens.open().migrations.verify(_link(self.source_url), _link(self.target_url))
        assert verdict.equal, verdict
        with closing(_link(self.target_url).connect()) as session:
            assert session.count(_table(session, "item")) == ROWS
            assert session.count(_table(session, "event")) == ROWS // 2


def dblens_rows(house: Any) -> list[audit.Row]:
    from dblens.store.audit_find import Filter, every

    return list(every(house.store, None, Filter()))


def _link(url: str) -> Link:
    return link(url, allow_password=True)


def _table(session: Any, name: str) -> Any:
    return next(t for t in session.inspect().tables if t.name == name)


def rounds(folder: Path, server: Postgres, moments: list[float], at_once: int) -> list[dict[str, Any]]:
    source = folder / "source.sqlite"
    fill(source)
    games = [Round(folder / f"round-{i}", source, server.create_database(), part) for i, part in enumerate(moments)]
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        told = list(pool.map(Round.play, games))
    for game in games:
        server.drop_database(from_url(game.target_url)[0].database or "")
    for line in told:
        print(line)
    return told


@pytest.mark.timeout(420)
def test_a_killed_service_leaves_a_crashed_run_and_the_next_one_succeeds(tmp_path: Path, pg15: Postgres) -> None:
    assert len(rounds(tmp_path, pg15, [0.0, 0.3, 0.6], at_once=3)) == 3


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_twenty_killed_services(tmp_path: Path, pg15: Postgres) -> None:
    moments = [random.random() * 0.7 for _ in range(20)]
    assert len(rounds(tmp_path, pg15, moments, at_once=4)) == 20
