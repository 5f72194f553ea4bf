"""A team's house with the true clock, people of two organizations, and SQLite databases as stored connections: for work that runs."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from dblens.settings import Settings
from dblens.store import accounts, connections, organizations, runs
from dblens.store.audit import Row
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.store.keys import Kek, Keyring
from dblens.store.records import now
from dblens.store.runs import Run
from dblens.workspace import Workspace
from dblens.workspace.house import House
from dblens.workspace.journal import Journal
from dblens.workspace.permissions import SYSTEM_ROLES
from dblens.workspace.principal import Principal, local

PEOPLE = {
    "ann": ("acme", "developer"),
    "bob": ("acme", "developer"),
    "ada": ("acme", "admin"),
    "aud": ("acme", "auditor"),
    "vic": ("acme", "viewer"),
    "eve": ("beta", "admin"),
}


class Desk:
    """ann owns `src` and `dst` (SQLite files) and shares nothing with the others until a test says so."""

    def __init__(self, folder: Path, *, url: str | None = None, size: int = 2) -> None:
        self.folder, self.url = folder, url or f"sqlite:///{folder / 'store.sqlite'}"
        fresh = not (folder / "store.sqlite").exists()
        store = Store.open(self.url)
        if fresh:
            store.create_all()
        settings = Settings(store_url=self.url, data_folder=folder, mode="team", sqlite_roots=(folder,))
        self.house = House(
            store, settings, Keyring((Kek("k1", b"1" * 32),)), Journal(store, b"k" * 32, age=30), size=size
        )
        if fresh:
            self._fill()
        self.orgs, self.ids = {}, {}
        with store.read() as tx:
            for org in ("acme", "beta"):
                self.orgs[org] = organizations.find_organization(tx, org).id
            for name in PEOPLE:
                self.ids[name] = accounts.find_user(tx, name).id

    def _fill(self) -> None:
        with self.house.store.write() as tx:
            organizations.ensure_roles(tx, [(r.name, r.rank, r.permissions) for r in SYSTEM_ROLES.values()], now=now())
            orgs = {n: organizations.create_organization(tx, n, now=now()).id for n in ("acme", "beta")}
            for name, (org, role) in PEOPLE.items():
                user = accounts.create_user(tx, name, now=now())
                organizations.add_member(
                    tx, orgs[org], user.id, organizations.find_role(tx, orgs[org], role).id, now=now()
                )

    def principal(self, name: str, **more: Any) -> Principal:
        org, role = PEOPLE[name]
        known = SYSTEM_ROLES[role]
        return msgspec.structs.replace(
            Principal(
                kind="account", user_id=self.ids[name], name=name, org_id=self.orgs[org], role=role, rank=known.rank,
                permissions=known.permissions, authenticated_at=now(),
            ),
            **more,
        )  # fmt: skip

    def as_(self, name: str, *, background: bool = False, report: Any = None, **more: Any) -> Workspace:
        given = {} if report is None else {"report": report}
        return self.house.workspace(self.principal(name, **more), background=background, **given)

    def at_home(self) -> Workspace:
        return self.house.workspace(local("ann", self.ids["ann"], self.orgs["acme"]))

    def connection(
        self, name: str, *, owner: str = "ann", rows: int | None = None, read_only: bool = False, **fields: Any
    ) -> str:
        """Return a connection to a SQLite file of that name, with a table of rows; or to what the fields say."""
        path = self.folder / f"{name}.db"
        if rows is not None:
            with closing(sqlite3.connect(path)) as db:
                db.execute("create table t (id integer primary key, x text not null)")
                db.executemany("insert into t values (?, ?)", [(i, f"value {i}") for i in range(rows)])
                db.commit()
        elif not fields:
            sqlite3.connect(path).close()
            path.touch()
        given = fields or {"engine": "sqlite", "path": str(path)}
        with self.house.store.write() as tx:
            return connections.create_connection(
                tx, self.orgs[PEOPLE[owner][0]], name=name, engine=given["engine"], fields=given, read_only=read_only,
                owner_id=self.ids[owner], now=now(),
            ).id  # fmt: skip

    def share(self, connection_id: str, name: str, level: str) -> None:
        with self.house.store.write() as tx:
            connections.grant(
                tx, self.orgs["acme"], connection_id, kind="user", grantee_id=self.ids[name], level=level, now=now()
            )

    def run(self, run_id: str, org: str = "acme") -> Run:
        with self.house.store.read() as tx:
            return runs.get_run(tx, self.orgs[org], run_id)

    def rows(self, action: str) -> list[Row]:
        self.house.journal.flush()
        return [row for row in every(self.house.store, None, Filter()) if row.action == action]

    def close(self) -> None:
        self.house.close()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


class Gate:
    """A listener that stops a run at its first event until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, event: object) -> None:
        self.reached.set()
        assert self.go.wait(30)


SHORT = dt.timedelta(seconds=2)
