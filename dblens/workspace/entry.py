"""The end of every way to authenticate: a principal, with a role that is read from the store for each request."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import msgspec

from dblens.accounts.base import Authenticated
from dblens.errors import InvalidInput, NotFound, PermissionDenied
from dblens.store import accounts, organizations
from dblens.store.database import Store, Transaction
from dblens.workspace.permissions import SUPER_ADMIN, SYSTEM_ROLES
from dblens.workspace.principal import Kind, Principal

if TYPE_CHECKING:
    from dblens.workspace.house import House


def principal_of(
    store: Store,
    auth: Authenticated,
    *,
    organization: str | None = None,
    as_super_admin: bool = False,
    kind: Kind | None = None,
    client: str = "",
    address: str = "",
) -> Principal:
    """Return who an authenticated user is in an organization (its id or slug; else the token's, else the current one).

    `as_super_admin` is asked for by name and by a login only: whoever administers the instance acts in no organization by accident.
    A user without an organization, or who is no member any more, gets a principal with no role.
    Raises NotFound for another's organization, PermissionDenied for who is no super_admin, or asks with an access token.
    """
    user = auth.user
    if as_super_admin and (not user.super_admin or auth.session is None):
        raise PermissionDenied("only a super_admin acts as one, and by own login", hint="leave `super_admin` out")
    base = Principal(
        kind=kind or ("account" if auth.token is None else "token"),
        user_id=user.id,
        name=user.name,
        # A token's `*` is what a role's `*.*` is.
        scopes=None if auth.scopes is None else tuple("*.*" if scope == "*" else scope for scope in auth.scopes),
        session_id=None if auth.session is None else auth.session.id,
        token_id=None if auth.token is None else auth.token.id,
        authenticated_at=auth.authenticated_at,
        client=client,
        address=address,
    )
    with store.read() as tx:
        if auth.token is not None:
            org_id: str | None = auth.token.org_id
            if organization is not None and _id_of(tx, organization) != org_id:
                raise NotFound(f"no organization {organization!r}", hint="an access token is good for one only")
        elif organization is not None:
            org_id = _named(tx, organization, user.id, anyone=as_super_admin)
        else:
            current = organizations.get_current(tx, user.id)
            org_id = None if current is None else current.id
        if as_super_admin:
            return _super(base, org_id)
        if org_id is None:
            return base
        try:
            held = organizations.role_of(tx, org_id, user.id)
        except NotFound:
            return base
    if held.name == SUPER_ADMIN:  # nobody is one by membership, whatever a row says
        return base
    return msgspec.structs.replace(base, org_id=org_id, role=held.name, rank=held.rank, permissions=held.permissions)


def operator(house: House, name: str | None, *, organization: str | None = None) -> Principal:
    """Return a super_admin who acts on the service's own machine, where whoever has store and keys has everything anyway.

    The account has to be there, active and super_admin. While there is none, it is whoever is logged in here, without an account:
    good for making the first one (`dblens user create NAME --super-admin`). The audit shows the account and who was logged in here.
    Raises InvalidInput without a name, PermissionDenied for another account, NotFound for the organization.
    """
    here = getpass.getuser()
    client = f"command line, {here}"
    with house.store.read() as tx:
        org_id = None if organization is None else _id_of(tx, organization)
        if name is None:
            if accounts.any_super_admin(tx):
                raise InvalidInput("a team's store has no local owner", hint="say who acts: --as NAME, a super_admin")
            return _super(Principal(kind="local", user_id="", name=here, client=client), org_id)
        found = accounts.find_credential(tx, name)
    user = None if found is None else found.user
    if user is None or not (user.super_admin and user.active and user.approved):
        raise PermissionDenied(f"{name!r} is no active super_admin", hint="--as NAME of one: `dblens user list`")
    return _super(Principal(kind="local", user_id=user.id, name=user.name, client=client), org_id)


def _super(base: Principal, org_id: str | None) -> Principal:
    role = SYSTEM_ROLES[SUPER_ADMIN]
    return msgspec.structs.replace(base, org_id=org_id, role=role.name, rank=role.rank, permissions=role.permissions)


def _id_of(tx: Transaction, name: str) -> str:
    """Return the id of an organization by its id or short name. Raises NotFound."""
    try:
        return organizations.get_organization(tx, name).id
    except NotFound:
        return organizations.find_organization(tx, name).id


def _named(tx: Transaction, name: str, user_id: str, *, anyone: bool) -> str:
    """Return the id of an organization that the user is a member of. Others are not there."""
    try:
        org_id = _id_of(tx, name)
        if not anyone:
            organizations.role_of(tx, org_id, user_id)
    except NotFound:
        raise NotFound(f"no organization {name!r}") from None
    return org_id
