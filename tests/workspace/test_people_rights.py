"""Every method of the doors to people × who calls it × a token with and without its scope × another organization.

The calls are made for real, each on a store of its own. What is not written down here is denied; a new operation has to be.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dblens.accounts.base import digest, secret
from dblens.errors import DBLensError, NotAuthenticated, NotFound, PermissionDenied
from dblens.redaction import Secret
from dblens.store import invitations, organizations
from dblens.workspace import Workspace, registry
from tests.workspace.people import GOOD, NOW, ROLES, Template, World

NOUNS = {"organization", "team", "role", "user", "account", "token"}
SOMEBODY = {"zoe", *ROLES, "root"}
INSIDE = {*ROLES, "root"}
ADMINS = {"admin", "root"}
LATER = NOW + dt.timedelta(days=2)

Do = Callable[[Workspace, World, str], Any]


def _into_beta(w: World, who: str) -> None:
    if w.role_of(who, w.beta) is not None:
        return
    with w.house.store.write() as tx:
        role = organizations.find_role(tx, w.beta, "viewer")
        organizations.add_member(tx, w.beta, w.user(who).id, role.id, now=NOW)


def _use(ws: Workspace, w: World, who: str) -> Any:
    _into_beta(w, who)
    return ws.organizations.use("beta")


def _leave(ws: Workspace, w: World, who: str) -> Any:
    _into_beta(w, who)
    return ws.organizations.leave("beta")


def _accept(ws: Workspace, w: World, who: str) -> Any:
    fresh = "dbl_inv_" + secret()
    with w.house.store.write() as tx:
        invitations.create_invitation(
            tx, w.beta, email=f"{who}@example.org", role_id=organizations.find_role(tx, w.beta, "viewer").id,
            hash=digest(fresh), created_by=w.user("bea").id, expires_at=LATER, now=NOW,
        )  # fmt: skip
    return ws.organizations.accept(Secret(fresh))


def _revoke(ws: Workspace, w: World, who: str) -> Any:
    w.log_in(who)
    return ws.account.revoke(w.session_of(who))


PASSWORD, NEW = Secret(GOOD), Secret("Schlussstein-8 sitzt")

# (who may, by a token too, the call)
TABLE: dict[str, tuple[set[str], bool, Do]] = {
    "account.read": (SOMEBODY, True, lambda ws, w, who: ws.account.read()),
    "account.update": (SOMEBODY, False, lambda ws, w, who: ws.account.update(display="X")),
    "account.email": (SOMEBODY, False, lambda ws, w, who: ws.account.email("new@example.org", PASSWORD)),
    "account.password": (SOMEBODY, False, lambda ws, w, who: ws.account.password(PASSWORD, NEW)),
    "account.confirm": (SOMEBODY, False, lambda ws, w, who: ws.account.confirm(PASSWORD)),
    "account.sessions": (SOMEBODY, True, lambda ws, w, who: ws.account.sessions()),
    "account.revoke": (SOMEBODY, False, _revoke),
    "account.revoke_others": (SOMEBODY, False, lambda ws, w, who: ws.account.revoke_others()),
    "organization.list": (SOMEBODY, True, lambda ws, w, who: ws.organizations.list()),
    "organization.create": (SOMEBODY, True, lambda ws, w, who: ws.organizations.create("gamma")),
    "organization.use": (SOMEBODY, False, _use),
    "organization.leave": (SOMEBODY, False, _leave),
    "organization.accept": (SOMEBODY, False, _accept),
    "organization.read": (INSIDE, True, lambda ws, w, who: ws.organizations.read(w.acme)),
    "organization.members": (INSIDE - {"viewer"}, True, lambda ws, w, who: ws.organizations.members(w.acme)),
    "organization.update": (ADMINS, False, lambda ws, w, who: ws.organizations.update(w.acme, name="X")),
    "organization.delete": (ADMINS, False, lambda ws, w, who: ws.organizations.delete(w.acme)),
    "organization.invite": (ADMINS, False, lambda ws, w, who: ws.organizations.invite(w.acme, "x@example.org", "viewer")),
    "organization.invitations": (ADMINS, True, lambda ws, w, who: ws.organizations.invitations(w.acme)),
    "organization.revoke_invitation": (ADMINS, True, lambda ws, w, who: ws.organizations.revoke_invitation(w.acme, w.invited)),
    "organization.admit": (ADMINS, False, lambda ws, w, who: ws.organizations.admit(w.acme, "bob@example.org", "viewer")),
    "organization.assign": (ADMINS, False, lambda ws, w, who: ws.organizations.assign(w.acme, "viewer", "analyst")),
    "organization.remove": (ADMINS, False, lambda ws, w, who: ws.organizations.remove(w.acme, "viewer")),
    "team.list": (INSIDE, True, lambda ws, w, who: ws.teams.list()),
    "team.read": (INSIDE, True, lambda ws, w, who: ws.teams.read("crew")),
    "team.members": (INSIDE, True, lambda ws, w, who: ws.teams.members("crew")),
    "team.create": (ADMINS, True, lambda ws, w, who: ws.teams.create("new")),
    "team.update": (ADMINS, True, lambda ws, w, who: ws.teams.update("crew", name="new")),
    "team.delete": (ADMINS, True, lambda ws, w, who: ws.teams.delete("crew")),
    "team.add": (ADMINS, True, lambda ws, w, who: ws.teams.add("crew", "analyst")),
    "team.remove": (ADMINS, True, lambda ws, w, who: ws.teams.remove("crew", "viewer")),
    "role.list": (ADMINS | {"developer", "auditor"}, True, lambda ws, w, who: ws.roles.list()),
    "role.read": (ADMINS | {"developer", "auditor"}, True, lambda ws, w, who: ws.roles.read("helper")),
    "role.permissions": (ADMINS | {"developer", "auditor"}, True, lambda ws, w, who: ws.roles.permissions()),
    "role.create": (ADMINS, False, lambda ws, w, who: ws.roles.create("new", ["catalog.read"])),
    "role.update": (ADMINS, False, lambda ws, w, who: ws.roles.update("helper", rank=11)),
    "role.delete": (ADMINS, False, lambda ws, w, who: ws.roles.delete("spare")),
    "user.list": (ADMINS | {"developer", "auditor"}, True, lambda ws, w, who: ws.users.list()),
    "user.read": (ADMINS, True, lambda ws, w, who: ws.users.read("viewer")),
    "user.create": ({"root"}, False, lambda ws, w, who: ws.users.create("new")),
    "user.update": ({"root"}, False, lambda ws, w, who: ws.users.update("viewer", display="X")),
    "user.approve": ({"root"}, False, lambda ws, w, who: ws.users.approve("viewer")),
    "user.disable": ({"root"}, False, lambda ws, w, who: ws.users.disable("viewer")),
    "user.enable": ({"root"}, False, lambda ws, w, who: ws.users.enable("viewer")),
    "user.delete": ({"root"}, False, lambda ws, w, who: ws.users.delete("viewer")),
    "user.reset": ({"root"}, False, lambda ws, w, who: ws.users.reset("viewer")),
    "user.sessions": ({"root"}, False, lambda ws, w, who: ws.users.sessions("viewer")),
    "user.end_sessions": ({"root"}, False, lambda ws, w, who: ws.users.end_sessions("viewer")),
    "user.super_admin": ({"root"}, False, lambda ws, w, who: ws.users.super_admin("viewer", allowed=True)),
    "token.list": (set(ROLES) - {"viewer"}, True, lambda ws, w, who: ws.tokens.list()),
    "token.create": (set(ROLES) - {"viewer"}, False, lambda ws, w, who: ws.tokens.create("t", ["catalog.read"], LATER)),
    "token.revoke": (set(ROLES) - {"viewer"}, False, lambda ws, w, who: ws.tokens.revoke(w.token_of(who) if who in ROLES else "x")),
    "token.list_all": (ADMINS, True, lambda ws, w, who: ws.tokens.list_all()),
    "token.revoke_all": (ADMINS, True, lambda ws, w, who: ws.tokens.revoke_all("viewer")),
}  # fmt: skip


def _ours() -> list[registry.Operation]:
    return [about for about in registry.load() if about.noun in NOUNS]


@pytest.fixture
def fresh(template: Template, tmp_path: Path) -> Any:
    made: list[World] = []
    numbers = count()

    def make() -> World:
        made.append(template.world(tmp_path, next(numbers)))
        return made[-1]

    yield make
    for world in made:
        world.close()
        world.house.store.close()


def test_every_operation_of_these_nouns_is_written_down() -> None:
    assert {about.name for about in _ours()} == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_who_may(name: str, fresh: Callable[[], World]) -> None:
    allowed, by_token, do = TABLE[name]
    about = registry.load().get(name)
    noun = name.partition(".")[0]
    other = "team" if noun != "team" else "role"
    common = fresh()
    for who in sorted(SOMEBODY):
        world = fresh() if who in allowed and about.mutates else common
        workspace = world.as_(who)
        if who in allowed:
            do(workspace, world, who)
        else:
            with pytest.raises(PermissionDenied):
                do(workspace, world, who)
        row = world.rows(name)[-1]
        assert (row.actor, row.outcome) == (who, "ok" if who in allowed else "permission.denied")
    for who in ("admin", "viewer"):
        for scopes in ((about.permission,), (f"{other}.*", f"{noun}.something_else")):
            may = who in allowed and by_token and scopes[0] != f"{other}.*"
            world = fresh() if may and about.mutates else common
            workspace = world.by_token(who, *scopes)
            if may:
                do(workspace, world, who)
            else:
                with pytest.raises((PermissionDenied, NotAuthenticated)):
                    do(workspace, world, who)


@pytest.mark.parametrize("name", [about.name for about in _ours() if about.on == "organization"])
def test_another_organization_is_not_there(name: str, fresh: Callable[[], World]) -> None:
    """bea, the admin of beta, and a super_admin who acts there, name acme."""
    _, _, do = TABLE[name]
    named = any(p.name == "organization" for p in registry.load().get(name).parameters)
    for who in ("bea", "root"):
        world = fresh()
        workspace = world.as_("bea") if who == "bea" else world.as_("root", organization=world.beta)
        if named:
            with pytest.raises(NotFound):
                do(workspace, world, who)
        else:  # it is about beta then: acme stays as it is
            was = _state(world)
            with contextlib.suppress(DBLensError):
                do(workspace, world, who)
            assert _state(world) == was


def _state(world: World) -> object:
    root = world.as_("root")
    return (
        root.organizations.members(world.acme), root.organizations.invitations(world.acme), root.teams.list(),
        root.teams.members("crew"), root.roles.list(), root.tokens.list_all(ended=True).items[:0],
    )  # fmt: skip


def test_a_super_admin_acts_as_one_by_own_login_only(fresh: Callable[[], World]) -> None:
    world = fresh()
    ordinary = world.as_("root", super_admin=False)
    for attempt in (ordinary.users.list, ordinary.teams.list, lambda: ordinary.users.create("x")):
        with pytest.raises(PermissionDenied):
            attempt()
    with pytest.raises(PermissionDenied, match="only a super_admin acts as one"):
        world.as_("ada", super_admin=True)
