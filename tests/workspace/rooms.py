"""A house over a store, with people in it: what the doors of settings, notifications and search are tried with."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import accounts, connections, keys, organizations, runs
from dblens.store.database import Store
from dblens.store.runs import Run
from dblens.workspace import Workspace
from dblens.workspace.house import House
from dblens.workspace.journal import Journal
from dblens.workspace.permissions import SYSTEM_ROLES
from dblens.workspace.principal import Principal

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
LEASE = dt.timedelta(seconds=30)


@dataclass
class Rooms:
    """A house, its organizations and people by name."""

    house: House
    orgs: dict[str, str] = field(default_factory=dict)
    people: dict[tuple[str, str], Principal] = field(default_factory=dict)

    def org(self, name: str) -> str:
        if name not in self.orgs:
            with self.house.store.write() as tx:
                self.orgs[name] = organizations.create_organization(tx, name, now=NOW).id
        return self.orgs[name]

    def person(self, org: str, role: str, name: str | None = None, **more: Any) -> Principal:
        """Return a member of an organization with a role, made at the first time."""
        name = name or f"{org}-{role.replace('_', '-')}"
        known = self.people.get((org, name))
        if known is None:
            org_id, held = self.org(org), SYSTEM_ROLES[role]
            with self.house.store.write() as tx:
                user = accounts.create_user(tx, name, email=f"{name}@example.org", now=NOW)
                if role != "super_admin":
                    found = organizations.find_role(tx, org_id, role)
                    organizations.add_member(tx, org_id, user.id, found.id, now=NOW)
            known = self.people[org, name] = Principal(
                kind="account", user_id=user.id, name=name, org_id=org_id, role=role, rank=held.rank,
                permissions=held.permissions, authenticated_at=NOW,
            )  # fmt: skip
        return msgspec.structs.replace(known, **more)

    def doors(self, org: str, role: str, name: str | None = None, **more: Any) -> Workspace:
        return self.house.workspace(self.person(org, role, name, **more))

    def connection(self, org: str, name: str, owner: str | None, **fields: Any) -> str:
        org_id = self.org(org)
        with self.house.store.write() as tx:
            return connections.create_connection(
                tx, org_id, name=name, engine="postgres", fields={"engine": "postgres", **fields},
                owner_id=owner, now=NOW,
            ).id  # fmt: skip

    def run(self, org: str, who: Principal | None, state: str, connection: str | None = None, **more: Any) -> Run:
        """Return a run that ended."""
        store, org_id = self.house.store, self.org(org)
        with store.write() as tx:
            made = runs.create_run(
                tx, org_id, more.pop("operation", "migration.apply"), user_id=who.user_id if who else None,
                connection_id=connection, now=NOW, **more,
            )  # fmt: skip
            runs.claim_one(tx, made.org_id, made.id, "w", lease=LEASE, now=NOW)
            error = {"code": "engine.query", "message": "row 7 of\nshop", "hint": None} if state == "failed" else None
            return runs.finish(tx, made.org_id, made.id, "w", state, error=error, now=NOW)  # type: ignore[arg-type]


def key(letter: str = "k") -> str:
    """Return a key-encryption key in base64, the same for the same letter."""
    return base64.b64encode(hashlib.sha256(letter.encode()).digest()).decode()


def move_in(store: Store, folder: Path, **more: Any) -> Rooms:
    """Return a house over an empty store."""
    settings = Settings(store_url=store.place, data_folder=folder, **more)
    keyring = keys.parse(Secret(f"k1:{key()}"), "a test")
    with store.write() as tx:
        keys.adopt(tx, keyring)
        organizations.ensure_roles(tx, [(r.name, r.rank, r.permissions) for r in SYSTEM_ROLES.values()], now=NOW)
    return Rooms(House(store, settings, keyring, Journal(store, b"k" * 32), clock=lambda: NOW))
