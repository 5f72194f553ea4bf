"""What the doors to people share: who asks, whom a name means to them, what leaves with somebody who leaves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from dblens.accounts.base import Accounts, Authenticated
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, PermissionDenied, Unsupported
from dblens.store import accounts, connections, organizations, sessions, tokens
from dblens.store.accounts import User
from dblens.store.database import Transaction
from dblens.store.organizations import Member, Role
from dblens.workspace.permissions import SUPER_ADMIN, is_super
from dblens.workspace.principal import Principal

if TYPE_CHECKING:
    from dblens.workspace.context import Context

ADMIN = "admin"
"""The role of which somebody active remains in every organization."""
_ID = re.compile(r"[0-9a-f]{32}")


def accounts_at(context: Context) -> Accounts:
    """Return the accounts of the house, with the rules that are set now. Raises StoreError, VaultError, Unsupported."""
    if context.house is None:
        raise Unsupported("accounts", "this workspace has no keys", hint="open it with `dblens.open()`")
    from dblens.workspace.entrance import accounts_of

    return accounts_of(context.house)


def instance_wide(principal: Principal) -> bool:
    """Say whether somebody administers the whole instance: a super_admin, or the person whose machine and store it is."""
    return is_super(principal) or principal.kind == "local"


def is_person(principal: Principal) -> bool:
    """Say whether it is a login, or the person at this machine, and no token that acts for somebody."""
    return principal.kind in ("local", "account")


def person(principal: Principal, what: str) -> None:
    """Return for a person. Raises PermissionDenied for a token: it must not change the account it belongs to, nor outlive itself."""
    if not is_person(principal):
        raise PermissionDenied(f"an access token cannot {what}", hint="log in")


def own_login(context: Context) -> Authenticated:
    """Return the caller's own user and live session. Raises PermissionDenied for a token, NotAuthenticated, InvalidInput for `local`."""
    principal = context.principal
    person(principal, "change the account it belongs to")
    if principal.kind == "local":
        raise InvalidInput(
            f"{principal.name!r} is the person at this machine, without password and sessions",
            hint="that is for accounts of a service: log in there",
        )
    with context.store.read() as tx:
        visit = None
        if principal.session_id is not None:
            visit = sessions.find_visit(tx, principal.session_id, now=context.clock())
    if visit is None or visit.user.id != principal.user_id:
        raise NotAuthenticated("the login is not valid any more", hint="log in again")
    return Authenticated(user=visit.user, session=visit.session)


def actor_of(context: Context) -> User:
    """Return the user who acts, super_admin only while acting as one: an ordinary role does not borrow it. Raises NotFound."""
    with context.store.read() as tx:
        found = accounts.get_user(tx, context.principal.user_id)
    return msgspec.structs.replace(found, super_admin=instance_wide(context.principal))


def chosen_organization(context: Context) -> str:
    """Return the id of the organization that the caller acts in. Raises InvalidInput without any."""
    if context.principal.org_id is None:
        raise InvalidInput("no organization is chosen", hint="`dblens org use NAME`")
    return context.principal.org_id


# ------------------------------------------------------------------------------------------------------------------------ naming


def find_user(tx: Transaction, name: str) -> User:
    """Return a user of the instance by id, name or e-mail address: for its administrators only. Raises NotFound."""
    if _ID.fullmatch(name):
        try:
            return accounts.get_user(tx, name)
        except NotFound:
            pass
    return accounts.find_user(tx, name)


def find_member(tx: Transaction, org_id: str, name: str) -> Member:
    """Return a member by id, name or e-mail address. Raises NotFound, the same for strangers and for nobody."""
    try:
        return organizations.get_member(tx, org_id, find_user(tx, name).id)
    except NotFound:
        raise NotFound(f"no member {name[:100]!r}", hint="`dblens org members`") from None


def find_role(tx: Transaction, org_id: str, name: str) -> Role:
    """Return a role that a member can have, by id or name. Raises NotFound, InvalidInput for what no membership gives."""
    found = None
    if _ID.fullmatch(name):
        try:
            found = organizations.get_role(tx, org_id, name)
        except NotFound:
            found = None
    found = found or organizations.find_role(tx, org_id, name)
    if found.name == SUPER_ADMIN:
        raise InvalidInput(
            f"{SUPER_ADMIN!r} is no role of an organization",
            hint="it is given to an account: `dblens user super-admin`",
        )
    return found


def find_organization(tx: Transaction, name: str) -> str:
    """Return the id of an organization by id or short name. Raises NotFound."""
    try:
        return organizations.get_organization(tx, name).id
    except NotFound:
        return organizations.find_organization(tx, name).id


def must_remain(tx: Transaction, org_id: str) -> frozenset[str]:
    """Return the ids of the roles of which one active member has to remain."""
    return frozenset({organizations.find_role(tx, org_id, ADMIN).id})


# ----------------------------------------------------------------------------------------------------------------------- leaving


def end_membership(tx: Transaction, context: Context, org_id: str, member: Member, to: str | None) -> tuple[int, int]:
    """End a membership: what the member owns goes to `to`, their access tokens for the organization end. Return how many of each.

    Raises NotFound, Conflict for the last admin, and when something is owned and nobody named to have it.
    """
    moved = hand_over(tx, context, org_id, member.user_id, to)
    ended = tokens.revoke_access_tokens(tx, member.user_id, now=context.clock(), org_id=org_id)
    organizations.remove_member(tx, org_id, member.user_id, must_remain=must_remain(tx, org_id))
    return moved, ended


def hand_over(tx: Transaction, context: Context, org_id: str, user_id: str, to: str | None) -> int:
    """Give what a user owns in an organization to another member; return how many connections. Raises NotFound, Conflict."""
    if not connections.list_connections(tx, org_id, owner_id=user_id, limit=1).items:
        if to is not None:
            _heir(tx, org_id, user_id, to)
        return 0
    if to is None:
        name = organizations.get_organization(tx, org_id).slug
        raise Conflict(f"connections of {name!r} are owned by this member", hint="name who gets them: `to`")
    return connections.transfer(tx, org_id, user_id, to=_heir(tx, org_id, user_id, to).user_id, now=context.clock())


def _heir(tx: Transaction, org_id: str, user_id: str, to: str) -> Member:
    heir = find_member(tx, org_id, to)
    if heir.user_id == user_id:
        raise InvalidInput("nobody hands over to themselves", hint="name another member")
    if not heir.active:
        raise Conflict(f"{heir.name!r} is disabled", hint="name another member")
    return heir
