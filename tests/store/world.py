"""An organization with one of everything in it."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

from dblens.store import connections, invitations, notifications, organizations, plans, queries, runs, settings, teams
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.records import new_id

AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LEASE = dt.timedelta(seconds=30)
ROLES = (("admin", 90, ["*"]), ("viewer", 10, ["connection.view"]))


def after(seconds: float) -> dt.datetime:
    return AT + dt.timedelta(seconds=seconds)


def add_user(tx: Transaction, name: str, *, active: bool = True) -> str:
    """Put a user into the table: the accounts' chapter is another's."""
    user_id = new_id()
    tx.execute(
        t.users.insert().values(
            id=user_id, name=name, folded=name, display=name.title(), email=f"{name}@example.org", active=active,
            email_folded=f"{name}@example.org", created_at=AT,
        )
    )  # fmt: skip
    return user_id


@dataclass
class World:
    """The ids of what is in it. `boss` is its admin, `user` has the role `viewer`."""

    org: str
    boss: str
    user: str
    admin: str
    viewer: str
    role: str
    team: str
    connection: str
    run: str
    queued: str
    plan: str
    template: str
    notification: str
    invitation: str
    worker: str
    extra: str
    """A user who is no member."""
    asked: str = ""
    saved: str = ""


def make_world(tx: Transaction, name: str) -> World:
    """Make an organization with one of everything."""
    admin, viewer = (role.id for role in organizations.ensure_roles(tx, ROLES, now=AT))
    org = organizations.create_organization(tx, name, now=AT).id
    boss, user = add_user(tx, f"{name}-boss"), add_user(tx, f"{name}-user")
    organizations.add_member(tx, org, boss, admin, now=AT)
    organizations.add_member(tx, org, user, viewer, now=AT)
    role = organizations.create_role(tx, org, "own", ["run.read"], rank=20, now=AT).id
    team = teams.create_team(tx, org, "crew", now=AT).id
    teams.add_to_team(tx, org, team, user)
    connection = connections.create_connection(
        tx, org, name="shop", engine="postgres", fields={"host": "h"}, owner_id=boss, now=AT
    ).id
    connections.grant(tx, org, connection, kind="user", grantee_id=user, level="view", now=AT)
    connections.grant(tx, org, connection, kind="team", grantee_id=team, level="use", now=AT)
    settings.put_setting(tx, org, "theme", {"dark": True}, now=AT)
    queued = runs.create_run(tx, org, "migration.apply", user_id=user, lock=f"{name}-x", now=AT).id
    run = runs.create_run(tx, org, "backup.create", user_id=user, connection_id=connection, lock=name, now=AT).id
    runs.claim_one(tx, org, run, f"{name}-worker", lease=LEASE, now=AT)
    runs.add_log(tx, org, run, "started", now=AT)
    plan = plans.save_plan(
        tx, org, new_id()[-10:], hash="h" * 64, document=b"{}", source_id=connection, target_id=connection,
        created_by=user, now=AT,
    ).id  # fmt: skip
    template = plans.create_template(tx, org, name="nightly", kind="migration", body={}, created_by=user, now=AT).id
    notification = notifications.add_notification(tx, org, user, kind="run.ended", text="done", run_id=run, now=AT).id
    invitation = invitations.create_invitation(
        tx, org, email="new@example.org", role_id=viewer, hash=hashlib.sha256(name.encode()).digest(),
        created_by=boss, expires_at=after(3600), now=AT,
    ).id  # fmt: skip
    asked = asked_by(org, user, connection)
    queries.add_history(tx, org, [asked])
    saved = queries.save_query(tx, org, name="recent", text="select 1", created_by=user, now=AT).id
    return World(
        org, boss, user, admin, viewer, role, team, connection, run, queued, plan, template, notification, invitation,
        f"{name}-worker", add_user(tx, f"{name}-extra"), asked.id, saved,
    )  # fmt: skip


def asked_by(org: str, user: str | None, connection_id: str, **more: Any) -> queries.Asked:
    """Return a query of the history."""
    given: dict[str, Any] = {
        "id": new_id(), "org_id": org, "user_id": user, "user": "ann", "connection_id": connection_id, "connection": "shop",
        "operation": "run", "kind": "read", "text": "select 1", "statements": 1, "rows": 1, "affected": None,
        "microseconds": 7, "outcome": "ok", "error": None, "client": "", "notebook": "", "cell": "", "started_at": AT,
    }  # fmt: skip
    return queries.Asked(**given | more)
