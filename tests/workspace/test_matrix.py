"""Every operation × role × grant × scope × organization, against a table written by hand: what is not in it is denied."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from dblens.errors import NotAuthenticated, NotFound, PermissionDenied
from dblens.workspace import registry
from dblens.workspace.context import Context
from dblens.workspace.matrix import render
from dblens.workspace.operation import operation
from dblens.workspace.permissions import NOUNS, SYSTEM_ROLES, known
from dblens.workspace.policy import Decision, decide, effective, refusal
from dblens.workspace.principal import Principal, local
from dblens.workspace.registry import Operation, Table

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)

SELF = {
    "account.read", "account.update", "account.password", "account.sessions", "account.revoke",
    "audit.own", "notification.list", "notification.read", "search.find",
    "organization.list", "organization.create", "organization.use", "organization.accept", "organization.leave",
}  # fmt: skip
VIEWER = {
    "connection.list", "connection.read", "catalog.read", "snapshot.list", "snapshot.read", "monitor.read",
    "template.list", "template.read", "run.list", "run.read", "organization.read", "team.list",
}  # fmt: skip
TOKENS = {"token.list", "token.create", "token.revoke"}
ANALYST = VIEWER | TOKENS | {
    "connection.test", "catalog.compare", "query.run", "query.cancel", "query.history", "query.export", "query.save",
    "query.saved", "verify.run",
    "snapshot.diff", "run.log", "run.cancel", "organization.members",
}  # fmt: skip
AUDITOR = TOKENS | {
    "audit.read", "audit.export", "audit.verify", "organization.read", "organization.members", "team.list", "role.list",
    "user.list", "run.list", "run.read", "run.log",
}  # fmt: skip
DEVELOPER = ANALYST | {
    "connection.create", "connection.update", "connection.delete", "connection.duplicate", "connection.share",
    "connection.import", "connection.export", "connection.pool", "connection.create_database", "query.write",
    "migration.list", "migration.read", "migration.plan", "migration.apply", "migration.verify", "migration.cancel",
    "migration.rollback", "migration.finalize", "migration.clone", "backup.list", "backup.read", "backup.create",
    "backup.check", "backup.restore", "backup.drill", "backup.delete", "snapshot.create", "snapshot.delete",
    "schedule.list", "schedule.read", "schedule.create", "schedule.update", "schedule.delete", "schedule.run",
    "monitor.advise", "monitor.kill", "template.create", "template.update", "template.delete", "role.list", "user.list",
}  # fmt: skip
ADMIN = DEVELOPER | {
    "organization.update", "organization.delete", "organization.invite", "organization.admit", "organization.remove",
    "organization.assign", "organization.connections", "team.create", "team.update", "team.delete", "role.create",
    "role.update", "role.delete", "token.list_all", "token.revoke_all", "audit.read", "audit.export", "audit.verify",
    "user.read", "settings.read", "settings.update",
}  # fmt: skip
SUPER = {
    "organization.read", "organization.list", "organization.create", "organization.update", "organization.delete",
    "organization.members", "organization.invite", "organization.admit", "organization.remove", "organization.assign",
    "organization.connections", "team.list", "team.create", "team.update", "team.delete", "role.list", "role.create",
    "role.update", "role.delete", "user.list", "user.read", "user.create", "user.update", "user.disable", "user.delete",
    "user.reset", "token.list_all", "token.revoke_all", "audit.read", "audit.export", "audit.verify", "audit.retain",
    "audit.instance", "settings.read", "settings.update", "settings.instance", "store.check", "store.upgrade", "store.backup", "store.restore",
    "store.rotate", "run.list", "run.read", "run.cancel",
}  # fmt: skip
HAND: dict[str | None, set[str]] = {
    None: SELF,
    "viewer": SELF | VIEWER,
    "analyst": SELF | ANALYST,
    "auditor": SELF | AUDITOR,
    "developer": SELF | DEVELOPER,
    "admin": SELF | ADMIN,
    "super_admin": SELF | SUPER,
}
GRANTS = ("none", "view", "use", "manage", "owner")
SCOPES = ("no token", "all", "matching", "noun", "other", "empty")

# What doors will look like; the real ones are added below as they come.
REPRESENTATIVE: list[tuple[str, dict[str, Any]]] = [
    ("account.password", {"mutates": True}),
    ("audit.own", {}),
    ("audit.statistics", {"permission": "audit.read"}),
    ("backup.create", {"on": "connection", "level": "use", "mutates": True}),
    ("backup.restore", {"on": "connection", "level": "manage", "mutates": True}),
    ("catalog.read", {"on": "connection", "level": "view"}),
    ("connection.create", {"on": "organization", "mutates": True}),
    ("connection.delete", {"on": "connection", "level": "manage", "mutates": True}),
    ("connection.read", {"on": "connection", "level": "view"}),
    ("connection.share", {"on": "connection", "level": "manage", "mutates": True}),
    ("connection.test", {"on": "connection", "level": "use"}),
    ("migration.apply", {"on": "connection", "level": "manage", "mutates": True}),
    ("migration.plan", {"on": "connection", "level": "use"}),
    ("monitor.kill", {"on": "connection", "level": "manage", "mutates": True}),
    ("organization.delete", {"on": "organization", "mutates": True, "step_up": True}),
    ("organization.read", {"on": "organization"}),
    ("query.run", {"on": "connection", "level": "use"}),
    ("query.write", {"on": "connection", "level": "use", "mutates": True}),
    ("role.create", {"on": "organization", "mutates": True, "step_up": True}),
    ("run.cancel", {"on": "organization", "mutates": True}),
    ("settings.update", {"mutates": True, "step_up": True}),
    ("snapshot.list", {"on": "organization"}),
    ("store.rotate", {"mutates": True, "step_up": True}),
    ("team.list", {"on": "organization"}),
    ("template.read", {"on": "organization"}),
    ("token.create", {"on": "organization", "mutates": True}),
    ("user.disable", {"mutates": True, "step_up": True}),
    ("verify.run", {"on": "connection", "level": "view"}),
    # Nobody wrote these down: no role but one with the whole noun may, and nobody by accident.
    ("query.unheard_of", {"on": "connection", "level": "use"}),
    ("settings.unheard_of", {}),
    ("connection.unheard_of", {"on": "connection", "level": "view"}),
]
WHOLE_NOUNS = {
    "query.unheard_of": {"admin", "developer"},
    "settings.unheard_of": {"super_admin"},
    "connection.unheard_of": {"admin"},
}


def _method(self: Any, connection: str = "", organization: str = "") -> int:
    """Do it."""
    return 1


def _operations() -> list[Operation]:
    table = Table()
    for name, options in REPRESENTATIVE:
        operation(name, table=table, **options)(_method)
    real = {about.name: about for about in registry.load()}
    return [*(about for about in table if about.name not in real), *real.values()]


OPERATIONS = {about.name: about for about in _operations()}


def principal(role: str | None, scopes: tuple[str, ...] | None) -> Principal:
    known_role = SYSTEM_ROLES.get(role or "")
    return Principal(
        kind="account",
        user_id="u",
        name="ann",
        org_id="acme",
        role=role,
        rank=known_role.rank if known_role else 0,
        permissions=known_role.permissions if known_role else (),
        scopes=scopes,
        authenticated_at=NOW - dt.timedelta(minutes=1),
    )


def scoped(kind: str, permission: str) -> tuple[str, ...] | None:
    noun = permission.partition(".")[0]
    other = "team" if noun != "team" else "query"
    return {
        "no token": None,
        "all": ("*.*",),
        "matching": (permission,),
        "noun": (f"{noun}.*",),
        "other": (f"{other}.*", f"{noun}.something_else"),
        "empty": (),
    }[kind]


def expected(about: Operation, role: str | None, grant: str, scope: str, own: bool) -> type[Exception] | None:
    """Say what must happen, from the table by hand and the words of the rule alone."""
    if about.on is not None and not own:
        return NotFound
    if about.on == "connection":
        if role == "super_admin":
            return PermissionDenied
        if role == "admin":
            grant = "owner"
        if grant == "none":
            return NotFound
    has = about.permission in HAND[role] or role in WHOLE_NOUNS.get(about.name, ())
    if not has or scope in ("other", "empty"):
        return PermissionDenied
    if about.on == "connection":
        enough = {
            "view": {"view", "use", "manage", "owner"},
            "use": {"use", "manage", "owner"},
            "manage": {"manage", "owner"},
        }
        needed = set(about.connections.values()) or {about.level}
        if not all(grant in enough[level] for level in needed):
            return PermissionDenied
    return None


def judged(about: Operation, who: Principal, grant: Any, own: bool) -> type[Exception] | None:
    """Return what the policy says, as `operation` asks it: once for each connection."""
    org_id = "acme" if own else "beta"
    answers = [
        decide(who, about, org_id=org_id, connection_grant=effective(who, "c", grant), level=level, now=NOW)
        for level in about.connections.values() or [None]
    ]
    denied = next((answer for answer in answers if not answer.allowed), None)
    return None if denied is None else type(refusal(denied, about, what="x"))


def test_every_operation_there_is_is_in_the_matrix() -> None:
    assert all(OPERATIONS[about.name] is about for about in registry.load())


@pytest.mark.parametrize("role", HAND, ids=str)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_matrix(name: str, role: str | None) -> None:
    about = OPERATIONS[name]
    for scope in SCOPES:
        who = principal(role, scoped(scope, about.permission))
        for grant in GRANTS:
            for own in (True, False):
                case = (name, role, grant, scope, "own" if own else "other")
                assert judged(about, who, grant, own) == expected(about, role, grant, scope, own), case


@pytest.mark.parametrize("role", [role for role in HAND if role], ids=str)
def test_a_role_has_the_permissions_written_here_and_no_other(role: str) -> None:
    has = set()
    for permission in known():
        table = Table()
        operation(permission, table=table)(_method)
        if decide(principal(role, None), table.get(permission), org_id=None, now=NOW).allowed:
            has.add(permission)
    unheard = {about.permission for about in OPERATIONS.values()} - {p for allowed in HAND.values() for p in allowed}
    assert has - unheard == HAND[role]


def test_every_permission_is_written_down_for_some_role() -> None:
    assert known() == {permission for allowed in HAND.values() for permission in allowed}
    assert {name.partition(".")[0] for name in known()} == NOUNS


def test_what_is_not_registered_is_denied_to_everybody() -> None:
    for who in (*(principal(role, None) for role in HAND), local("ann", "u", "acme")):
        assert decide(
            who, Table().find("connection.read"), org_id="acme", connection_grant="owner", now=NOW
        ) == Decision(allowed=False, reason="there is no such operation", refusal="permission")


def test_the_person_at_this_machine_may_do_everything_of_their_own() -> None:
    who = local("ann", "u", "acme")
    for about in OPERATIONS.values():
        assert judged(about, who, "none", True) is None, about.name
        assert judged(about, who, "owner", False) is (NotFound if about.on else None)


@pytest.mark.parametrize("kind", ["account", "token", "hub", "service", "run"])
@pytest.mark.parametrize("age", [None, -1, 0, 15, 16, 10_000])
def test_step_up_needs_a_recent_login_of_a_person(kind: Any, age: int | None) -> None:
    about = OPERATIONS["organization.delete"]
    when = None if age is None else NOW - dt.timedelta(minutes=age)
    who = msgspec.structs.replace(principal("admin", None), kind=kind, authenticated_at=when)
    allowed = kind == "account" and age in (0, 15)
    assert judged(about, who, "none", True) is (None if allowed else NotAuthenticated)


@pytest.mark.parametrize("name", sorted(name for name, about in OPERATIONS.items() if about.step_up))
def test_every_step_up_is_for_a_recent_login_whatever_the_role(name: str) -> None:
    about = OPERATIONS[name]
    for role in HAND:
        fresh = principal(role, None)
        allowed = judged(about, fresh, "owner", True) is None
        for kind in ("account", "token", "hub", "service", "run"):
            for age in (None, 1, 16):
                when = None if age is None else NOW - dt.timedelta(minutes=age)
                who = msgspec.structs.replace(fresh, kind=kind, authenticated_at=when)  # type: ignore[arg-type]
                got = judged(about, who, "owner", True)
                if kind == "account" and age == 1:
                    assert (got is None) == allowed, (role, kind, age)
                else:
                    assert got is not None, (role, kind, age)


@pytest.mark.parametrize("kind", ["token", "hub", "service", "run"])
def test_a_super_admin_acts_by_own_login_only(kind: Any) -> None:
    for name in ("settings.update", "team.list", "audit.own"):
        who = msgspec.structs.replace(principal("super_admin", None), kind=kind)
        assert judged(OPERATIONS[name], who, "none", True) is PermissionDenied


def test_without_an_organization_there_is_nothing_of_one() -> None:
    who = msgspec.structs.replace(principal("admin", None), org_id=None)
    for name in ("team.list", "catalog.read"):
        for org_id in (None, "acme"):
            assert not decide(who, OPERATIONS[name], org_id=org_id, connection_grant="owner", now=NOW).allowed
    assert decide(who, OPERATIONS["audit.own"], org_id=None, now=NOW).allowed


def test_the_page_says_what_the_policy_does() -> None:
    page = render(OPERATIONS.values())
    roles = list(SYSTEM_ROLES)
    cells = {}
    for line in page.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if parts[0].startswith("`") and len(parts) == 4 + len(roles):
            cells[parts[0].strip("`")] = dict(zip(roles, parts[4:], strict=True))
    assert set(cells) == set(OPERATIONS)
    for name, about in OPERATIONS.items():
        for role in roles:
            allowed = judged(about, principal(role, None), "owner", True) is None
            assert (cells[name][role] == "yes") == allowed, (name, role)


def test_the_context_asks_for_a_login_of_the_last_quarter_of_an_hour() -> None:
    defaults = Context.__struct_defaults__
    named = dict(zip(Context.__struct_fields__[-len(defaults) :], defaults, strict=True))
    assert named["recent"] == dt.timedelta(minutes=15)
