"""The one decision: effective right = role ∩ grant on the connection ∩ scope of the token. Pure; what is not allowed is denied."""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal, TypeAlias

import msgspec

from dblens.errors import NotAuthenticated, NotFound, PermissionDenied
from dblens.workspace.permissions import ANY_CONNECTION, EVERYONE, SUPER_ADMIN, covers
from dblens.workspace.principal import Principal
from dblens.workspace.registry import Level, Operation

Grant: TypeAlias = Literal["none", "view", "use", "manage", "owner"]
Refusal: TypeAlias = Literal["not_found", "permission", "authentication"]

RECENT: Final = dt.timedelta(minutes=15)
"""How old a login may be for what needs a recent one."""
_RANKS: Final = {"none": 0, "view": 1, "use": 2, "manage": 3, "owner": 3}
_PERSONS: Final = ("local", "account")


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Yes, or no with the reason and the kind of error that tells it."""

    allowed: bool
    reason: str
    refusal: Refusal | None = None


def effective(principal: Principal, connection_id: str, grant: Grant) -> Grant:
    """Return the level on a connection: the grant, raised by a role that manages all, cut by what the principal is limited to."""
    if principal.connections is not None and connection_id not in principal.connections:
        return "none"
    if principal.role != SUPER_ADMIN and covers(principal.permissions, ANY_CONNECTION) and _RANKS[grant] < 3:
        return "manage"
    return grant


def decide(
    principal: Principal,
    operation: Operation | None,
    *,
    org_id: str | None,
    connection_grant: Grant = "none",
    level: Level | None = None,
    now: dt.datetime,
    recent: dt.timedelta = RECENT,
) -> Decision:
    """Decide whether a principal may do an operation on something of an organization.

    `connection_grant` is `effective`; `level` what this connection needs, when not the operation's own. Call it for each connection.
    An outsider is told that the thing is not there.
    """
    if operation is None:
        return _no("permission", "there is no such operation")
    if operation.on is not None:
        if principal.org_id is None:
            return _no("permission", "no organization is chosen")
        if org_id != principal.org_id:
            return _no("not_found", "it belongs to another organization")
    if principal.role == SUPER_ADMIN and principal.kind not in _PERSONS:
        return _no("permission", "a super_admin acts by own login or on the command line only")
    if operation.on == "connection":
        if principal.role == SUPER_ADMIN:
            return _no("permission", "a super_admin has no use of connections")
        if _RANKS[connection_grant] == 0:
            return _no("not_found", "the connection is not shared with you")
    if not covers((*principal.permissions, *EVERYONE), operation.permission):
        return _no("permission", f"the role {principal.role or 'of nobody'} has no {operation.permission}")
    if principal.scopes is not None and not covers(principal.scopes, operation.permission):
        return _no("permission", f"the token is not scoped for {operation.permission}")
    needed = level or operation.level
    if operation.on == "connection" and _RANKS[connection_grant] < _RANKS[needed]:
        return _no("permission", f"it needs {needed!r} on the connection; you have {connection_grant!r}")
    if operation.step_up and principal.kind != "local":
        if principal.kind != "account" or principal.authenticated_at is None:
            return _no("authentication", "it needs a login with a password")
        if not dt.timedelta(0) <= now - principal.authenticated_at <= recent:
            return _no("authentication", f"it needs a login not older than {int(recent.total_seconds() // 60)} minutes")
    return Decision(allowed=True, reason="")


def _no(refusal: Refusal, reason: str) -> Decision:
    return Decision(allowed=False, reason=reason, refusal=refusal)


def refusal(decision: Decision, operation: Operation | None, *, what: str) -> Exception:
    """Return the error that tells a refusal. An outsider's names only what the outsider gave (`what`), never the reason."""
    name = operation.name if operation is not None else what
    if decision.refusal == "not_found":
        return NotFound(f"no {what}")
    if decision.refusal == "authentication":
        return NotAuthenticated(f"{name} is refused: {decision.reason}", hint="log in again, then repeat it")
    return PermissionDenied(f"{name} is refused: {decision.reason}")
