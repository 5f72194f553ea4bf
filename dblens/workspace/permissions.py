"""Permissions, the system roles, and who may hand out what.

A permission is `noun.verb`. Most are the name of an operation and are not listed again: `known()` is the operation table plus
`REGISTERED`, the ones that several operations share or that no operation has yet. A role holds patterns, in which `*` stands for a
whole noun or a whole verb. What no pattern of a role covers is denied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from dblens.errors import InvalidInput, PermissionDenied
from dblens.workspace.principal import Principal
from dblens.workspace.registry import load


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS: Final = frozenset(
    _words(
        "account audit backup catalog connection migration monitor notification organization query role run schedule search "
        "settings snapshot store team template token user verify"
    )
)

ANY_CONNECTION: Final = "organization.connections"
"""Manages every connection of the organization, whoever owns it."""
EVERYWHERE: Final = "audit.instance"
"""Reads the audit of every organization and of the instance."""
INSTANCE_SETTINGS: Final = "settings.instance"
"""Reads and changes what holds for the whole instance; an organization's own settings need it not."""

REGISTERED: Final = frozenset(
    f"{noun}.{verb}"
    for noun, verbs in {
        "account": "read update password sessions revoke",
        "audit": "own read export verify retain instance",
        "backup": "list read create check restore drill delete",
        "catalog": "read compare",
        "connection": "list read create test update delete duplicate share import export pool create_database",
        "migration": "list read plan apply verify cancel rollback finalize clone",
        "monitor": "read advise kill",
        "notification": "list read",
        "organization": "read list create use accept leave update delete members invite admit remove assign connections",
        "query": "run write cancel history export save saved",
        "role": "list create update delete",
        "run": "list read log cancel",
        "schedule": "list read create update delete run",
        "search": "find",
        "settings": "read update instance",
        "snapshot": "list read create diff delete",
        "store": "check upgrade backup restore rotate",
        "team": "list create update delete",
        "template": "list read create update delete",
        "token": "list create revoke list_all revoke_all",
        "user": "list read create update disable delete reset",
        "verify": "run",
    }.items()
    for verb in verbs.split()
)

EVERYONE: Final = (
    *("account.*", "audit.own", "notification.*", "search.find"),
    *("organization.list", "organization.create", "organization.use", "organization.accept", "organization.leave"),
)
"""What everybody who is somebody may do, about themselves only; a search finds what the caller may see anyway."""


class SystemRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role that every organization has."""

    name: str
    rank: int
    permissions: tuple[str, ...]
    about: str


SUPER_ADMIN: Final = "super_admin"
SUPER_RANK: Final = 100
RESERVED: Final = frozenset({SUPER_ADMIN, "admin", "developer", "analyst", "auditor", "viewer", "owner"})

SYSTEM_ROLES: Final = {
    role.name: role
    for role in (
        SystemRole(
            name=SUPER_ADMIN,
            rank=SUPER_RANK,
            permissions=_words(
                "organization.* team.* role.* user.* token.list_all token.revoke_all audit.* settings.* store.* "
                "run.list run.read run.cancel"
            ),
            about="administers the instance and its organizations; has no use of any connection",
        ),
        SystemRole(
            name="admin",
            rank=80,
            permissions=_words(
                "connection.* catalog.* query.* migration.* verify.* backup.* snapshot.* schedule.* monitor.* run.* template.* "
                "team.* role.* token.* organization.read organization.update organization.delete organization.members "
                "organization.invite organization.admit organization.remove organization.assign organization.connections "
                "audit.read audit.export audit.verify user.list user.read settings.read settings.update"
            ),
            about="administers one organization and manages all of its connections",
        ),
        SystemRole(
            name="developer",
            rank=60,
            permissions=_words(
                "connection.list connection.read connection.create connection.test connection.update connection.delete "
                "connection.duplicate connection.share connection.import connection.export connection.pool "
                "connection.create_database catalog.* query.* migration.* verify.* backup.* snapshot.* schedule.* monitor.* "
                "template.* run.list run.read run.log run.cancel organization.read organization.members team.list role.list "
                "user.list token.list token.create token.revoke"
            ),
            about="builds: connections of their own, queries that write, migrations, backups",
        ),
        SystemRole(
            name="analyst",
            rank=40,
            permissions=_words(
                "connection.list connection.read connection.test catalog.read catalog.compare query.run query.cancel "
                "query.history query.export query.save query.saved verify.run snapshot.list snapshot.read snapshot.diff monitor.read template.list "
                "template.read run.list run.read run.log run.cancel organization.read organization.members team.list "
                "token.list token.create token.revoke"
            ),
            about="reads data: queries that do not write, comparisons, exports",
        ),
        SystemRole(
            name="auditor",
            rank=30,
            permissions=_words(
                "audit.read audit.export audit.verify organization.read organization.members team.list role.list user.list "
                "run.list run.read run.log token.list token.create token.revoke"
            ),
            about="reads the audit and who may do what; sees no data",
        ),
        SystemRole(
            name="viewer",
            rank=20,
            permissions=_words(
                "connection.list connection.read catalog.read snapshot.list snapshot.read monitor.read template.list "
                "template.read run.list run.read organization.read team.list"
            ),
            about="sees structure and history; runs nothing",
        ),
    )
}

_PATTERN = re.compile(r"(?:[a-z][a-z0-9_]*|\*)\.(?:[a-z][a-z0-9_]*|\*)")
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def is_name(text: str) -> bool:
    """Return whether a text is spelled `noun.verb` with a noun we know."""
    return _NAME.fullmatch(text) is not None and text.partition(".")[0] in NOUNS


def known() -> frozenset[str]:
    """Return every permission there is: the operations' and the registered."""
    return REGISTERED | {operation.permission for operation in load()}


def covers(patterns: Iterable[str], wanted: str) -> bool:
    """Return whether one of the patterns covers a permission, or a narrower pattern. What is no pattern covers nothing."""
    noun, _, verb = wanted.partition(".")
    for pattern in patterns:
        if _PATTERN.fullmatch(pattern) is None:
            continue
        theirs, _, do = pattern.partition(".")
        if theirs in ("*", noun) and do in ("*", verb):
            return True
    return False


def checked(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns that each cover a permission that exists, in order. Raises InvalidInput, which names those that do not."""
    given = sorted(set(patterns))
    names = known()
    wrong = [p for p in given if _PATTERN.fullmatch(p) is None or not any(covers((p,), name) for name in names)]
    if wrong:
        raise InvalidInput(
            f"no such permission: {', '.join(map(repr, wrong))}",
            hint="`noun.verb`, `noun.*`; `dblens role permissions`",
        )
    return tuple(given)


def may_define(actor: Principal, name: str, rank: int, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of a role that the actor may make or change. Raises InvalidInput, PermissionDenied."""
    if name.casefold().replace("-", "_") in RESERVED:
        raise InvalidInput(f"{name!r} is a role of the system", hint="give the role another name")
    if not 0 < rank < SUPER_RANK:
        raise InvalidInput(f"rank is {rank}", hint=f"from 1 to {SUPER_RANK - 1}")
    found = checked(patterns)
    may_grant(actor, rank, found)
    return found


def may_grant(actor: Principal, rank: int, patterns: Iterable[str]) -> None:
    """Return when the actor may hand out a role of that rank and those patterns, to anybody, themself too.

    Nobody grants above their own rank, nor a permission they lack, nor one that their token is not scoped for. A super_admin, who
    has no use of connections, may still make somebody the admin of an organization. Raises PermissionDenied.
    """
    if rank > actor.rank:
        raise PermissionDenied(f"a role of rank {rank} is above your own ({actor.rank})")
    patterns = tuple(patterns)
    lacking = [] if is_super(actor) else [p for p in patterns if not covers((*actor.permissions, *EVERYONE), p)]
    if actor.scopes is not None:
        lacking += [p for p in patterns if not covers(actor.scopes, p) and p not in lacking]
    if lacking:
        raise PermissionDenied(
            f"you cannot give what you do not have: {', '.join(sorted(lacking))}", hint="ask somebody who has it"
        )


def may_assign(actor: Principal, current: int | None, rank: int | None, patterns: Iterable[str] = ()) -> None:
    """Return when the actor may change a member's role, from rank `current` (None: no member yet) to `rank` (None: to no member).

    Raises PermissionDenied, also for a member who ranks above the actor.
    """
    if current is not None and current > actor.rank:
        raise PermissionDenied(f"a member of rank {current} is above you ({actor.rank})")
    if rank is not None:
        may_grant(actor, rank, patterns)


def is_super(actor: Principal) -> bool:
    """Return whether the actor is a super_admin."""
    return actor.role == SUPER_ADMIN and actor.rank >= SUPER_RANK
