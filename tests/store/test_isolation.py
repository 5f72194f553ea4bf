"""No organization reaches into another: each function of each chapter, called with the other's id, finds nothing and changes nothing.

Attack 1 of the threat model (IDOR). A function that is new must be put into the table below, or the test says its name.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import NotFound
from dblens.store import (
    connections,
    idempotency,
    invitations,
    locks,
    notifications,
    organizations,
    plans,
    queries,
    runs,
    settings,
    teams,
)
from dblens.store import tables as t
from dblens.store.database import Store, Transaction
from dblens.store.rows import Page
from tests.store.filled import content
from tests.store.world import AT, LEASE, World, after, asked_by, make_world

CHAPTERS = (
    organizations,
    teams,
    invitations,
    connections,
    settings,
    runs,
    plans,
    queries,
    notifications,
    idempotency,
    locks,
)

# Not of one organization, and why.
ACROSS = {
    "organizations.create_organization": "makes one",
    "organizations.find_organization": "by its own name, for the door to judge",
    "organizations.list_organizations": "for administrators of the instance",
    "organizations.ensure_roles": "system roles",
    "organizations.has_roles": "system roles",
    "organizations.list_memberships": "a user's own",
    "organizations.get_current": "a user's own",
    "organizations.sole_holder_of": "a user's own",
    "organizations.share_organization": "two users' own, only whether",
    "invitations.find_invitation": "by its secret",
    "invitations.accept_invitation": "by its secret",
    "runs.claim": "workers serve the instance",
    "runs.sweep": "workers serve the instance",
    "runs.any_dead": "workers serve the instance",
    "runs.renew_queued": "a worker serves the instance",
    "runs.held": "an error, which looks at nothing",
    "runs.prune": "retention of the instance",
    "notifications.prune": "retention of the instance",
    "idempotency.begin": "keys belong to a user",
    "idempotency.finish": "keys belong to a user",
    "idempotency.forget": "keys belong to a user",
    "idempotency.prune": "retention of the instance",
    "locks.take": "names are of the instance; only runs call it",
    "locks.prolong": "names are of the instance; only runs call it",
    "locks.release": "names are of the instance; only runs call it",
    "locks.holder": "names are of the instance; only runs call it",
}

Call = Callable[[Transaction, str, World], Any]
CALLS: dict[str, Call] = {
    "organizations.get_organization": lambda tx, org, w: organizations.get_organization(tx, org),
    "organizations.rename_organization": lambda tx, org, w: organizations.rename_organization(tx, org, name="N"),
    "organizations.delete_organization": lambda tx, org, w: organizations.delete_organization(tx, org, now=AT),
    "organizations.purge_organization": lambda tx, org, w: organizations.purge_organization(tx, org),
    "organizations.create_role": lambda tx, org, w: organizations.create_role(tx, org, "r", [], rank=1, now=AT),
    "organizations.get_role": lambda tx, org, w: organizations.get_role(tx, org, w.role),
    "organizations.find_role": lambda tx, org, w: organizations.find_role(tx, org, "own"),
    "organizations.list_roles": lambda tx, org, w: _only(organizations.list_roles(tx, org), w.role),
    "organizations.update_role": lambda tx, org, w: organizations.update_role(tx, org, w.role, rank=99),
    "organizations.delete_role": lambda tx, org, w: organizations.delete_role(tx, org, w.role),
    "organizations.add_member": lambda tx, org, w: organizations.add_member(tx, org, w.extra, w.role, now=AT),
    "organizations.get_member": lambda tx, org, w: organizations.get_member(tx, org, w.user),
    "organizations.list_members": lambda tx, org, w: _only(organizations.list_members(tx, org), w.user),
    "organizations.set_member_role": lambda tx, org, w: organizations.set_member_role(
        tx, org, w.user, w.admin, must_remain=()
    ),
    "organizations.remove_member": lambda tx, org, w: organizations.remove_member(tx, org, w.user, must_remain=()),
    "organizations.role_of": lambda tx, org, w: organizations.role_of(tx, org, w.user),
    "organizations.set_current": lambda tx, org, w: organizations.set_current(tx, w.user, org),
    "teams.create_team": lambda tx, org, w: teams.create_team(tx, org, "t", now=AT),
    "teams.get_team": lambda tx, org, w: teams.get_team(tx, org, w.team),
    "teams.find_team": lambda tx, org, w: teams.find_team(tx, org, "crew"),
    "teams.list_teams": lambda tx, org, w: _only(teams.list_teams(tx, org), w.team),
    "teams.rename_team": lambda tx, org, w: teams.rename_team(tx, org, w.team, "new"),
    "teams.delete_team": lambda tx, org, w: teams.delete_team(tx, org, w.team),
    "teams.add_to_team": lambda tx, org, w: teams.add_to_team(tx, org, w.team, w.boss),
    "teams.remove_from_team": lambda tx, org, w: teams.remove_from_team(tx, org, w.team, w.user),
    "teams.list_team_members": lambda tx, org, w: teams.list_team_members(tx, org, w.team),
    "teams.teams_of": lambda tx, org, w: _some(tx.execute(teams.teams_of(org, w.user)).all()),
    "invitations.create_invitation": lambda tx, org, w: invitations.create_invitation(
        tx, org, email="e@x", role_id=w.role, hash=b"1" * 32, created_by=None, expires_at=AT, now=AT
    ),
    "invitations.get_invitation": lambda tx, org, w: invitations.get_invitation(tx, org, w.invitation),
    "invitations.list_invitations": lambda tx, org, w: _only(invitations.list_invitations(tx, org), w.invitation),
    "invitations.revoke_invitation": lambda tx, org, w: invitations.revoke_invitation(tx, org, w.invitation),
    "connections.create_connection": lambda tx, org, w: connections.create_connection(
        tx, org, name="n", engine="mysql", fields={}, owner_id=w.user, now=AT
    ),
    "connections.get_connection": lambda tx, org, w: connections.get_connection(tx, org, w.connection),
    "connections.find_connection": lambda tx, org, w: connections.find_connection(tx, org, "shop"),
    "connections.list_connections": lambda tx, org, w: _only(connections.list_connections(tx, org), w.connection),
    "connections.list_shared": lambda tx, org, w: _some(connections.list_shared(tx, org, w.user).items),
    "connections.get_shared": lambda tx, org, w: connections.get_shared(tx, org, w.connection, w.user),
    "connections.update_connection": lambda tx, org, w: connections.update_connection(
        tx, org, w.connection, version=1, read_only=True, now=AT
    ),
    "connections.delete_connection": lambda tx, org, w: connections.delete_connection(tx, org, w.connection),
    "connections.duplicate_connection": lambda tx, org, w: connections.duplicate_connection(
        tx, org, w.connection, name="copy", owner_id=None, now=AT
    ),
    "connections.transfer": lambda tx, org, w: connections.transfer(tx, org, w.boss, to=w.user, now=AT),
    "connections.give": lambda tx, org, w: connections.give(tx, org, w.connection, to=w.user, now=AT),
    "connections.grant": lambda tx, org, w: connections.grant(
        tx, org, w.connection, kind="user", grantee_id=w.user, level="manage", now=AT
    ),
    "connections.revoke": lambda tx, org, w: connections.revoke(tx, org, w.connection, kind="user", grantee_id=w.user),
    "connections.list_grants": lambda tx, org, w: connections.list_grants(tx, org, w.connection),
    "settings.put_setting": lambda tx, org, w: settings.put_setting(tx, org, "k", 1, now=AT),
    "settings.get_setting": lambda tx, org, w: settings.get_setting(tx, org, "theme"),
    "settings.list_settings": lambda tx, org, w: _some(settings.list_settings(tx, org).items),
    "runs.prune_own": lambda tx, org, w: _some(
        runs.request_cancel(tx, org, w.queued, now=AT) and runs.prune_own(tx, org, before=after(1))
    ),
    "notifications.prune_own": lambda tx, org, w: _some(
        notifications.mark_read(tx, org, w.user, now=AT) and notifications.prune_own(tx, org, before=after(1))
    ),
    "settings.find_settings": lambda tx, org, w: _some(settings.find_settings(tx, org, ["theme"])),
    "settings.list_newest": lambda tx, org, w: _some(settings.list_newest(tx, org, "th")),
    "settings.keep_newest": lambda tx, org, w: _some(settings.keep_newest(tx, org, "th", keep=0)),
    "settings.delete_setting": lambda tx, org, w: settings.delete_setting(tx, org, "theme"),
    "runs.create_run": lambda tx, org, w: runs.create_run(tx, org, "o", user_id=None, parent_id=w.run, now=AT),
    "runs.get_run": lambda tx, org, w: runs.get_run(tx, org, w.run),
    "runs.list_runs": lambda tx, org, w: _only(runs.list_runs(tx, org), w.run),
    "runs.claim_one": lambda tx, org, w: runs.claim_one(tx, org, w.queued, "w", lease=LEASE, now=AT),
    "runs.heartbeat": lambda tx, org, w: runs.heartbeat(tx, org, w.run, w.worker, lease=LEASE, now=AT),
    "runs.set_progress": lambda tx, org, w: runs.set_progress(tx, org, w.run, w.worker, {"rows": 1}, now=AT),
    "runs.add_log": lambda tx, org, w: runs.add_log(tx, org, w.run, "text", now=AT),
    "runs.read_log": lambda tx, org, w: runs.read_log(tx, org, w.run),
    "runs.request_cancel": lambda tx, org, w: runs.request_cancel(tx, org, w.run, now=AT),
    "runs.refuse": lambda tx, org, w: runs.refuse(tx, org, w.queued, {"code": "x"}, now=AT),
    "runs.finish": lambda tx, org, w: runs.finish(tx, org, w.run, w.worker, "succeeded", now=AT),
    "plans.save_plan": lambda tx, org, w: plans.save_plan(
        tx, org, "p", hash="h", document=b"", source_id="s", target_id="t", created_by=None, now=AT
    ),
    "plans.get_plan": lambda tx, org, w: plans.get_plan(tx, org, w.plan),
    "plans.read_plan": lambda tx, org, w: plans.read_plan(tx, org, w.plan),
    "plans.list_plans": lambda tx, org, w: _only(plans.list_plans(tx, org), w.plan),
    "plans.delete_plan": lambda tx, org, w: plans.delete_plan(tx, org, w.plan),
    "plans.create_template": lambda tx, org, w: plans.create_template(
        tx, org, name="t", kind="k", body={}, created_by=None, now=AT
    ),
    "plans.get_template": lambda tx, org, w: plans.get_template(tx, org, w.template),
    "plans.find_template": lambda tx, org, w: plans.find_template(tx, org, "nightly"),
    "plans.list_templates": lambda tx, org, w: _only(plans.list_templates(tx, org), w.template),
    "plans.update_template": lambda tx, org, w: plans.update_template(tx, org, w.template, name="x", now=AT),
    "plans.delete_template": lambda tx, org, w: plans.delete_template(tx, org, w.template),
    "queries.add_history": lambda tx, org, w: queries.add_history(tx, org, [asked_by(org, w.user, w.connection)]),
    "queries.list_history": lambda tx, org, w: _only(queries.list_history(tx, org), w.asked),
    "queries.get_history": lambda tx, org, w: queries.get_history(tx, org, w.asked),
    "queries.delete_history": lambda tx, org, w: _some(queries.delete_history(tx, org, id=w.asked)),
    "queries.prune_own": lambda tx, org, w: _some(
        queries.get_history(tx, org, w.asked) and queries.prune_own(tx, org, before=after(1))
    ),
    "queries.save_query": lambda tx, org, w: queries.save_query(tx, org, name="q", text="t", created_by=None, now=AT),
    "queries.get_saved": lambda tx, org, w: queries.get_saved(tx, org, w.saved),
    "queries.find_saved": lambda tx, org, w: queries.find_saved(tx, org, "recent"),
    "queries.list_saved": lambda tx, org, w: _only(queries.list_saved(tx, org), w.saved),
    "queries.update_saved": lambda tx, org, w: queries.update_saved(tx, org, w.saved, name="x", now=AT),
    "queries.delete_saved": lambda tx, org, w: queries.delete_saved(tx, org, w.saved),
    "notifications.add_notification": lambda tx, org, w: notifications.add_notification(
        tx, org, w.user, kind="k", text="t", now=AT
    ),
    "notifications.get_notification": lambda tx, org, w: notifications.get_notification(
        tx, org, w.user, w.notification
    ),
    "notifications.list_notifications": lambda tx, org, w: _some(
        notifications.list_notifications(tx, org, w.user).items
    ),
    "notifications.count_unread": lambda tx, org, w: _some(range(notifications.count_unread(tx, org, w.user))),
    "notifications.mark_read": lambda tx, org, w: _some(range(notifications.mark_read(tx, org, w.user, now=AT))),
}
# What these make belongs to the organization that they are called with: with a bare one of another they meet NotFound only
# when that organization does not exist (below).
NAMES_ONLY = {
    "organizations.get_organization", "organizations.rename_organization", "organizations.delete_organization",
    "organizations.purge_organization", "organizations.create_role", "teams.create_team", "settings.put_setting",
    "plans.save_plan", "plans.create_template", "queries.add_history", "queries.save_query",
}  # fmt: skip


def _some(found: Any) -> Any:
    if not found:
        raise NotFound("empty")
    return found


def _only(found: Page[Any], wanted: str) -> Any:
    ids = [getattr(item, "id", getattr(item, "user_id", None)) for item in found.items]
    if wanted not in ids:
        raise NotFound("not in the list")
    return found


def _public(chapter: ModuleType) -> list[str]:
    name = chapter.__name__.rpartition(".")[2]
    return [
        f"{name}.{n}"
        for n, f in inspect.getmembers(chapter, inspect.isfunction)
        if f.__module__ == chapter.__name__ and not n.startswith("_") and n not in ("members_of", "granted")
    ]


def _two(store: Store) -> tuple[World, World]:
    with store.write() as tx:
        first, second = make_world(tx, "first"), make_world(tx, "second")
        # The other organization has none of the names that the calls look for.
        for table, name in (
            (t.roles, "own"),
            (t.teams, "crew"),
            (t.connections, "shop"),
            (t.templates, "nightly"),
            (t.queries_saved, "recent"),
        ):
            tx.execute(table.update().where(table.c.org_id == second.org, table.c.name == name).values(name="other"))
        tx.execute(t.settings.delete().where(t.settings.c.scope == second.org))
    return first, second


def test_every_function_is_in_the_table() -> None:
    public = {name for chapter in CHAPTERS for name in _public(chapter)}
    assert public == set(CALLS) | set(ACROSS)
    for chapter in CHAPTERS:
        for name in _public(chapter):
            wanted = name not in ACROSS
            parameters = inspect.signature(getattr(chapter, name.partition(".")[2])).parameters
            assert ("org_id" in parameters or "scope" in parameters) == wanted, name


def test_another_organization_finds_nothing_and_changes_nothing(store: Store) -> None:
    first, second = _two(store)
    before = content(store)
    for name, call in CALLS.items():
        if name in NAMES_ONLY:
            continue
        with pytest.raises(NotFound):
            _call(store, call, second.org, first)
        assert content(store) == before, name


def test_an_organization_that_is_not_there(store: Store) -> None:
    first, _ = _two(store)
    before = content(store)
    for name, call in CALLS.items():
        with pytest.raises(NotFound):
            _call(store, call, "f" * 32, first)
        assert content(store) == before, name


ORG_TABLES = {table.name for table in t.metadata.tables.values() if "org_id" in table.c} | {"settings"}


def test_every_statement_names_the_organization(store: Store) -> None:
    """In the own organization all work, and no statement on its tables lacks `org_id` in WHERE."""
    first, _ = _two(store)
    seen: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    for name, call in CALLS.items():
        if name == "organizations.purge_organization":
            continue
        seen.clear()
        with pytest.raises(Undo):
            _call(store, call, first.org, first, undo=True)
        for statement in seen:
            _checked(name, statement)


class Undo(Exception):
    pass


def _call(store: Store, call: Call, org: str, world: World, *, undo: bool = False) -> None:
    with store.write() as tx:
        call(tx, org, world)
        if undo:
            raise Undo


def _checked(name: str, statement: str) -> None:
    text = " ".join(statement.split())
    touched = set(re.findall(r"(?:FROM|JOIN|UPDATE|DELETE FROM) (\w+)", text)) & ORG_TABLES
    if not touched or text.startswith("INSERT"):
        return
    where = text.partition(" WHERE ")[2]
    by = {"org_id", "scope"} if "settings" in touched else {"org_id"}
    if touched == {"roles"} and "roles.org_id IS NULL" in where:
        return  # system roles
    assert any(word in where for word in by), f"{name}: {text}"


def test_a_deleted_organization_is_gone(store: Store) -> None:
    first, second = _two(store)
    with store.write() as tx:
        organizations.set_current(tx, first.user, first.org)
        organizations.delete_organization(tx, first.org, now=AT)
    with store.write() as tx:
        for gone in (
            lambda: organizations.get_organization(tx, first.org),
            lambda: organizations.role_of(tx, first.org, first.user),
            lambda: organizations.get_member(tx, first.org, first.user),
            lambda: organizations.add_member(tx, first.org, second.user, first.viewer, now=AT),
            lambda: organizations.set_current(tx, first.user, first.org),
        ):
            with pytest.raises(NotFound):
                gone()
        assert organizations.get_current(tx, first.user) is None
        assert organizations.list_memberships(tx, first.user).items == ()
        organizations.create_organization(tx, "first", now=AT)  # its short name is free again
        with pytest.raises(NotFound):
            organizations.purge_organization(tx, second.org)  # only what was deleted
    before = content(store)
    with store.write() as tx:
        tx.execute(t.data_keys.insert().values(id="k", org_id=first.org, kek="x", wrapped=b"", uses=0, created_at=AT))
        tx.execute(
            t.secrets.insert().values(
                org_id=first.org, record_id="r", field="f", kind="inline", key_id="k", value=b"", updated_at=AT
            )
        )
        organizations.purge_organization(tx, first.org)
    left = content(store)
    for name in ORG_TABLES - {"settings"}:
        assert first.org not in str(left[name]), name
        assert [row for row in left[name] if second.org in row] == [row for row in before[name] if second.org in row]


def test_an_invitation_is_only_as_good_as_its_secret(store: Store) -> None:
    first, _ = _two(store)
    with store.read() as tx:
        found = invitations.find_invitation(tx, hashlib.sha256(b"first").digest(), now=AT)
        assert found.id == first.invitation
        with pytest.raises(NotFound):
            invitations.find_invitation(tx, hashlib.sha256(b"guess").digest(), now=AT)
