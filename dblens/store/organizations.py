"""Organizations, their roles and members, and which one a user works in.

A system role has no organization and belongs to all; what it permits is decided by code, which writes it here (`ensure_roles`).
Ranks and rights are judged above; here lies what must hold whatever the caller does: a role is the organization's own or a
system one, a member keeps no team and no grant after leaving, and of the given roles one active member always remains.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, contains, fits, one, page, record, unique, values


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    """An organization: what its members share, and nobody else sees."""

    id: str
    name: str
    slug: str
    created_at: dt.datetime


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A set of `noun.verb` patterns; `org_id` is None for a system role. The higher the rank, the more it may grant."""

    id: str
    org_id: str | None
    name: str
    permissions: tuple[str, ...]
    rank: int
    created_at: dt.datetime


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A user in an organization, with the role held there."""

    org_id: str
    user_id: str
    name: str
    display: str
    email: str | None
    active: bool
    role_id: str
    role: str
    rank: int
    created_at: dt.datetime


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """An organization as one of its members sees it."""

    organization: Organization
    role: Role


# ---------------------------------------------------------------------------------------------------------------- organizations


def create_organization(tx: Transaction, name: str, *, slug: str | None = None, now: dt.datetime) -> Organization:
    """Make an organization without members. Raises InvalidInput, Conflict for a slug that is taken."""
    made = Organization(id=new_id(), name=fits("name", name, 255), slug=_slug(slug or _slugged(name)), created_at=now)
    with unique(tx, f"the short name {made.slug!r} is taken", "give another `slug`"):
        tx.execute(t.organizations.insert().values(**values(t.organizations, **msgspec.structs.asdict(made))))
    return made


def get_organization(tx: Transaction, org_id: str) -> Organization:
    """Return an organization that was not deleted. Raises NotFound."""
    query = _organizations().where(t.organizations.c.id == org_id)
    return record(Organization, one(tx, query, f"no organization {org_id!r}"))


def find_organization(tx: Transaction, slug: str) -> Organization:
    """Return an organization by its short name. Raises NotFound."""
    query = _organizations().where(t.organizations.c.slug == slug)
    return record(Organization, one(tx, query, f"no organization {slug!r}"))


def list_organizations(
    tx: Transaction, *, search: str | None = None, limit: int = 50, after: str | None = None
) -> Page[Organization]:
    """List every organization of the instance: for its administrators only. Raises InvalidInput."""
    query = _organizations()
    if search:
        query = query.where(contains(t.organizations.c.name, search) | contains(t.organizations.c.slug, search))
    return page(tx, query, lambda row: record(Organization, row), by=t.organizations.c.id, limit=limit, after=after)


def rename_organization(
    tx: Transaction, org_id: str, *, name: str | None = None, slug: str | None = None
) -> Organization:
    """Change the name or the short name. Raises InvalidInput, NotFound, Conflict."""
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = fits("name", name, 255)
    if slug is not None:
        changes["slug"] = _slug(slug)
    found = get_organization(tx, org_id)
    if changes:
        with unique(tx, f"the short name {slug!r} is taken", "give another `slug`"):
            tx.execute(t.organizations.update().where(t.organizations.c.id == org_id).values(**changes))
    return msgspec.structs.replace(found, **changes)


def delete_organization(tx: Transaction, org_id: str, *, now: dt.datetime) -> None:
    """Hide an organization from everyone and free its short name; what is in it stays for `purge_organization`. Raises NotFound."""
    get_organization(tx, org_id)
    tx.execute(
        t.organizations.update().where(t.organizations.c.id == org_id).values(deleted_at=now, slug=f"deleted-{org_id}")
    )
    tx.execute(t.users.update().where(t.users.c.current_org_id == org_id).values(current_org_id=None))


def purge_organization(tx: Transaction, org_id: str) -> None:
    """Delete a deleted organization with all that is in it, secrets and keys too; audit rows stay. Raises NotFound."""
    gone = t.organizations.c.id == org_id, t.organizations.c.deleted_at.is_not(None)
    if tx.execute(sa.select(t.organizations.c.id).where(*gone).with_for_update()).one_or_none() is None:
        raise NotFound(f"no deleted organization {org_id!r}")
    # Secrets hold on to their keys and members to their roles (RESTRICT), so these go first.
    for table in (t.secrets, t.data_keys, t.invitations, t.members, t.settings):
        tx.execute(table.delete().where((table.c.scope if table is t.settings else table.c.org_id) == org_id))
    tx.execute(t.organizations.delete().where(*gone))


def _organizations() -> sa.Select[Any]:
    return sa.select(*columns(Organization, t.organizations)).where(t.organizations.c.deleted_at.is_(None))


def _slugged(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-") or f"org-{new_id()[-8:]}"


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text) or text.startswith("deleted-"):
        raise InvalidInput(f"slug is {text!r}", hint="1 to 63 of a-z, 0-9 and - between them")
    return text


# ------------------------------------------------------------------------------------------------------------------------ roles


def ensure_roles(
    tx: Transaction, roles: Iterable[tuple[str, int, Sequence[str]]], *, now: dt.datetime
) -> tuple[Role, ...]:
    """Write the system roles (name, rank, permissions) as the code knows them, and return them. Members keep theirs."""
    made = []
    for name, rank, permissions in roles:
        # The id follows from the name: two processes that start at once write the same row.
        role_id = hashlib.sha256(f"role:{name}".encode()).hexdigest()[:32]
        row = {"name": name, "rank": rank, "permissions": list(permissions)}
        if not tx.execute(t.roles.update().where(t.roles.c.id == role_id).values(**row)).rowcount:
            with unique(tx, f"the system role {name!r} was made by another process", "try again"):
                tx.execute(t.roles.insert().values(id=role_id, org_id=None, created_at=now, **row))
        made.append(_role(one(tx, _roles().where(t.roles.c.id == role_id), f"no role {name!r}")))
    return tuple(made)


def has_roles(tx: Transaction, roles: Iterable[tuple[str, int, Sequence[str]]]) -> bool:
    """Return whether the system roles are as the code knows them, so that nothing has to be written."""
    c = t.roles.c
    rows = tx.execute(sa.select(c.name, c.rank, c.permissions).where(c.org_id.is_(None)))
    there = {row.name: (row.rank, list(row.permissions)) for row in rows}
    return all(there.get(name) == (rank, list(permissions)) for name, rank, permissions in roles)


def create_role(
    tx: Transaction, org_id: str, name: str, permissions: Sequence[str], *, rank: int, now: dt.datetime
) -> Role:
    """Make an organization's own role. Raises InvalidInput, NotFound, Conflict for a name that is taken, also by a system role."""
    get_organization(tx, org_id)
    fits("name", name, 63)
    _not_a_system_role(tx, name)
    made = Role(id=new_id(), org_id=org_id, name=name, permissions=tuple(permissions), rank=_rank(rank), created_at=now)
    with unique(tx, f"there is already a role {name!r}"):
        tx.execute(
            t.roles.insert().values(
                **values(t.roles, **(msgspec.structs.asdict(made) | {"permissions": list(permissions)}))
            )
        )
    return made


def get_role(tx: Transaction, org_id: str, role_id: str) -> Role:
    """Return a role of an organization or a system role. Raises NotFound."""
    return _role(one(tx, _roles(org_id).where(t.roles.c.id == role_id), f"no role {role_id!r}"))


def find_role(tx: Transaction, org_id: str, name: str) -> Role:
    """Return a role by its name. Raises NotFound."""
    return _role(one(tx, _roles(org_id).where(t.roles.c.name == name), f"no role {name!r}"))


def list_roles(tx: Transaction, org_id: str, *, limit: int = 50, after: str | None = None) -> Page[Role]:
    """List an organization's roles and the system roles. Raises InvalidInput."""
    return page(tx, _roles(org_id), _role, by=t.roles.c.id, limit=limit, after=after)


def update_role(
    tx: Transaction,
    org_id: str,
    role_id: str,
    *,
    name: str | None = None,
    permissions: Sequence[str] | None = None,
    rank: int | None = None,
) -> Role:
    """Change an organization's own role; its members feel it at once. Raises InvalidInput, NotFound (a system role too), Conflict."""
    changes: dict[str, Any] = {}
    if name is not None:
        _not_a_system_role(tx, fits("name", name, 63))
        changes["name"] = name
    if permissions is not None:
        changes["permissions"] = list(permissions)
    if rank is not None:
        changes["rank"] = _rank(rank)
    own = t.roles.c.id == role_id, t.roles.c.org_id == org_id
    one(tx, sa.select(t.roles.c.id).where(*own), f"no role {role_id!r} of the organization's own")
    if changes:
        with unique(tx, f"there is already a role {name!r}"):
            tx.execute(t.roles.update().where(*own).values(**values(t.roles, **changes)))
    return get_role(tx, org_id, role_id)


def delete_role(tx: Transaction, org_id: str, role_id: str) -> None:
    """Delete an organization's own role. Raises NotFound (a system role too), Conflict while a member or invitation has it."""
    own = t.roles.c.id == role_id, t.roles.c.org_id == org_id
    one(tx, sa.select(t.roles.c.id).where(*own), f"no role {role_id!r} of the organization's own")
    waiting = sa.select(t.invitations.c.id).where(
        t.invitations.c.org_id == org_id, t.invitations.c.role_id == role_id, t.invitations.c.accepted_at.is_(None)
    )
    if tx.execute(waiting.limit(1)).first():
        raise Conflict("an invitation is for this role", hint="revoke the invitation first")
    with unique(tx, "a member has this role", "give its members another role first"):
        tx.execute(t.roles.delete().where(*own))


def _roles(org_id: str | None = None) -> sa.Select[Any]:
    mine = t.roles.c.org_id.is_(None)
    return sa.select(*columns(Role, t.roles)).where(mine if org_id is None else mine | (t.roles.c.org_id == org_id))


def _role(row: sa.Row[Any]) -> Role:
    return Role(
        id=row.id,
        org_id=row.org_id,
        name=row.name,
        permissions=tuple(row.permissions),
        rank=row.rank,
        created_at=row.created_at,
    )


def _not_a_system_role(tx: Transaction, name: str) -> None:
    if tx.execute(_roles().where(t.roles.c.name == name)).first():
        raise Conflict(f"{name!r} is a system role", hint="give another name")


def _rank(rank: int) -> int:
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank <= 1000:
        raise InvalidInput(f"rank is {rank!r}", hint="a whole number from 0 to 1000")
    return rank


# ---------------------------------------------------------------------------------------------------------------------- members


def add_member(tx: Transaction, org_id: str, user_id: str, role_id: str, *, now: dt.datetime) -> Member:
    """Make a user a member. Raises NotFound for the organization, the user or the role, Conflict when already a member."""
    get_organization(tx, org_id)
    get_role(tx, org_id, role_id)
    one(tx, sa.select(t.users.c.id).where(t.users.c.id == user_id), f"no user {user_id!r}")
    with unique(tx, "the user is already a member", "change the role instead"):
        tx.execute(t.members.insert().values(org_id=org_id, user_id=user_id, role_id=role_id, created_at=now))
    return get_member(tx, org_id, user_id)


def get_member(tx: Transaction, org_id: str, user_id: str) -> Member:
    """Return a member, active or not. Raises NotFound."""
    return record(Member, one(tx, members_of(org_id).where(t.members.c.user_id == user_id), f"no member {user_id!r}"))


def list_members(
    tx: Transaction, org_id: str, *, search: str | None = None, limit: int = 50, after: str | None = None
) -> Page[Member]:
    """List an organization's members; `search` looks in name, shown name and e-mail. Raises InvalidInput."""
    query = members_of(org_id)
    if search:
        where = [contains(column, search) for column in (t.users.c.name, t.users.c.display, t.users.c.email)]
        query = query.where(sa.or_(*where))
    return page(
        tx,
        query,
        lambda row: record(Member, row),
        by=t.members.c.user_id,
        limit=limit,
        after=after,
        key=lambda member: member.user_id,
    )


def set_member_role(
    tx: Transaction, org_id: str, user_id: str, role_id: str, *, must_remain: Collection[str]
) -> Member:
    """Give a member another role. `must_remain` are the roles of which one active member has to remain.

    Raises NotFound, Conflict when it would be the last of them.
    """
    _alone(tx, org_id)
    get_role(tx, org_id, role_id)
    before = get_member(tx, org_id, user_id)
    if before.role_id in must_remain and role_id not in must_remain:
        _remaining(tx, org_id, user_id, must_remain)
    tx.execute(
        t.members.update().where(t.members.c.org_id == org_id, t.members.c.user_id == user_id).values(role_id=role_id)
    )
    return get_member(tx, org_id, user_id)


def remove_member(tx: Transaction, org_id: str, user_id: str, *, must_remain: Collection[str]) -> None:
    """End a membership with its teams and grants; connections stay with their owner's id until `connections.transfer`.

    Raises NotFound, Conflict when it is the last active member with one of the roles `must_remain`.
    """
    _alone(tx, org_id)
    if get_member(tx, org_id, user_id).role_id in must_remain:
        _remaining(tx, org_id, user_id, must_remain)
    for table, user in ((t.team_members, t.team_members.c.user_id), (t.members, t.members.c.user_id)):
        tx.execute(table.delete().where(table.c.org_id == org_id, user == user_id))
    grants = t.connection_grants
    tx.execute(
        grants.delete().where(
            grants.c.org_id == org_id, grants.c.grantee_kind == "user", grants.c.grantee_id == user_id
        )
    )
    here = t.users.c.id == user_id, t.users.c.current_org_id == org_id
    tx.execute(t.users.update().where(*here).values(current_org_id=None))


def sole_holder_of(tx: Transaction, user_id: str, roles: Collection[str]) -> tuple[Organization, ...]:
    """Return the organizations in which a user is the last active member with one of the roles: ask before deactivating."""
    others = sa.select(t.members.c.user_id).join(t.users, t.users.c.id == t.members.c.user_id)
    others = others.where(
        t.members.c.org_id == t.organizations.c.id,
        t.members.c.user_id != user_id,
        t.members.c.role_id.in_(roles),
        t.users.c.active,
    )
    mine = sa.select(t.members.c.user_id).where(
        t.members.c.org_id == t.organizations.c.id, t.members.c.user_id == user_id, t.members.c.role_id.in_(roles)
    )
    query = _organizations().where(mine.correlate(t.organizations).exists())
    query = query.where(~others.correlate(t.organizations).exists()).order_by(t.organizations.c.id)
    return tuple(record(Organization, row) for row in tx.execute(query.with_for_update()))


def role_of(tx: Transaction, org_id: str, user_id: str) -> Role:
    """Return what an active, approved user is in an organization: read on each request. Raises NotFound for everybody else."""
    query = _roles(org_id).join(t.members, t.members.c.role_id == t.roles.c.id)
    query = query.join(t.users, t.users.c.id == t.members.c.user_id)
    query = query.join(t.organizations, t.organizations.c.id == t.members.c.org_id)
    query = query.where(
        t.members.c.org_id == org_id,
        t.members.c.user_id == user_id,
        t.users.c.active,
        t.users.c.approved,
        t.organizations.c.deleted_at.is_(None),
    )
    return _role(one(tx, query, f"no organization {org_id!r}"))


def list_memberships(tx: Transaction, user_id: str, *, limit: int = 50, after: str | None = None) -> Page[Membership]:
    """List the organizations of a user with the role in each. Raises InvalidInput."""
    role = [column.label(f"role_{column.name}") for column in columns(Role, t.roles)]
    query = _organizations().add_columns(*role).join(t.members, t.members.c.org_id == t.organizations.c.id)
    query = query.join(t.roles, t.roles.c.id == t.members.c.role_id).where(t.members.c.user_id == user_id)

    def make(row: sa.Row[Any]) -> Membership:
        fields = {name: getattr(row, f"role_{name}") for name in Role.__struct_fields__}
        fields["permissions"] = tuple(fields["permissions"])
        return Membership(organization=record(Organization, row), role=Role(**fields))

    return page(
        tx,
        query,
        make,
        by=t.organizations.c.id,
        limit=limit,
        after=after,
        key=lambda membership: membership.organization.id,
    )


def share_organization(tx: Transaction, one_id: str, other_id: str) -> bool:
    """Say whether two users are members of one organization that was not deleted."""
    mine, theirs = t.members.alias(), t.members.alias()
    query = sa.select(mine.c.org_id).join(theirs, theirs.c.org_id == mine.c.org_id)
    query = query.join(t.organizations, t.organizations.c.id == mine.c.org_id)
    query = query.where(mine.c.user_id == one_id, theirs.c.user_id == other_id, t.organizations.c.deleted_at.is_(None))
    return tx.execute(query.limit(1)).first() is not None


def set_current(tx: Transaction, user_id: str, org_id: str) -> Organization:
    """Make an organization the one that a member works in. Raises NotFound."""
    get_member(tx, org_id, user_id)
    tx.execute(t.users.update().where(t.users.c.id == user_id).values(current_org_id=org_id))
    return get_organization(tx, org_id)


def get_current(tx: Transaction, user_id: str) -> Organization | None:
    """Return the organization that a user works in: the chosen one, else the only or oldest one, None without any."""
    query = _organizations().join(t.members, t.members.c.org_id == t.organizations.c.id)
    query = query.join(t.users, t.users.c.id == t.members.c.user_id).where(t.members.c.user_id == user_id)
    chosen = sa.case((t.organizations.c.id == t.users.c.current_org_id, 0), else_=1)
    row = tx.execute(query.order_by(chosen, t.organizations.c.id).limit(1)).first()
    return None if row is None else record(Organization, row)


def members_of(org_id: str) -> sa.Select[Any]:
    """Return the query for the members of an organization that was not deleted."""
    u, r, m = t.users.c, t.roles.c, t.members.c
    query = sa.select(
        m.org_id, m.user_id, u.name, u.display, u.email, u.active, m.role_id, r.name.label("role"), r.rank
    )
    query = query.add_columns(m.created_at).select_from(t.members).join(t.users, u.id == m.user_id)
    query = query.join(t.roles, r.id == m.role_id).join(t.organizations, t.organizations.c.id == m.org_id)
    return query.where(m.org_id == org_id, t.organizations.c.deleted_at.is_(None))


def _alone(tx: Transaction, org_id: str) -> None:
    """Let nobody else change the members meanwhile: two administrators who remove each other must not both succeed."""
    query = sa.select(t.organizations.c.id).where(t.organizations.c.id == org_id).with_for_update()
    one(tx, query.where(t.organizations.c.deleted_at.is_(None)), f"no organization {org_id!r}")


def _remaining(tx: Transaction, org_id: str, user_id: str, roles: Collection[str]) -> None:
    query = sa.select(t.members.c.user_id).join(t.users, t.users.c.id == t.members.c.user_id)
    query = query.where(
        t.members.c.org_id == org_id, t.members.c.user_id != user_id, t.members.c.role_id.in_(roles), t.users.c.active
    )
    if tx.execute(query.limit(1)).first() is None:
        raise Conflict(
            "nobody else could administer the organization", hint="give another active member the role first"
        )
