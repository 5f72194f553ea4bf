"""Invitations into an organization: a secret by e-mail or by hand, kept as its hash, good once and for a while."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import Member, add_member, get_organization, get_role
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, fits, one, page, record, unique

_GONE = "the invitation is not valid: used, revoked or expired"


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation. What proves it is not here: only its hash is kept."""

    id: str
    org_id: str
    email: str
    role_id: str
    created_by: str | None
    created_at: dt.datetime
    expires_at: dt.datetime
    accepted_at: dt.datetime | None = None


def create_invitation(
    tx: Transaction,
    org_id: str,
    *,
    email: str,
    role_id: str,
    hash: bytes,
    created_by: str | None,
    expires_at: dt.datetime,
    now: dt.datetime,
) -> Invitation:
    """Keep an invitation; `hash` is SHA-256 of its secret. Raises InvalidInput, NotFound."""
    get_organization(tx, org_id)
    get_role(tx, org_id, role_id)
    made = Invitation(
        id=new_id(),
        org_id=org_id,
        email=fits("email", email, 320),
        role_id=role_id,
        created_by=created_by,
        created_at=now,
        expires_at=expires_at,
    )
    with unique(tx, "the invitation could not be kept", "is its author still a user?"):
        tx.execute(t.invitations.insert().values(**msgspec.structs.asdict(made), hash=hash))
    return made


def get_invitation(tx: Transaction, org_id: str, invitation_id: str) -> Invitation:
    """Return an invitation. Raises NotFound."""
    query = _invitations().where(t.invitations.c.org_id == org_id, t.invitations.c.id == invitation_id)
    return record(Invitation, one(tx, query, f"no invitation {invitation_id!r}"))


def list_invitations(
    tx: Transaction, org_id: str, *, open_at: dt.datetime | None = None, limit: int = 50, after: str | None = None
) -> Page[Invitation]:
    """List an organization's invitations, or those that can still be accepted at a time. Raises InvalidInput."""
    query = _invitations().where(t.invitations.c.org_id == org_id)
    if open_at is not None:
        query = query.where(*_open(open_at))
    return page(tx, query, lambda row: record(Invitation, row), by=t.invitations.c.id, limit=limit, after=after)


def revoke_invitation(tx: Transaction, org_id: str, invitation_id: str) -> None:
    """Delete an invitation that was not accepted. Raises NotFound."""
    where = t.invitations.c.org_id == org_id, t.invitations.c.id == invitation_id, t.invitations.c.accepted_at.is_(None)
    if not tx.execute(t.invitations.delete().where(*where)).rowcount:
        raise NotFound(f"no open invitation {invitation_id!r}")


def find_invitation(tx: Transaction, hash: bytes, *, now: dt.datetime) -> Invitation:
    """Return the invitation that a secret opens: whoever has it may see it. Raises NotFound."""
    query = _invitations().where(t.invitations.c.hash == hash, *_open(now))
    return record(Invitation, one(tx, query, _GONE))


def accept_invitation(tx: Transaction, hash: bytes, user_id: str, *, now: dt.datetime) -> Member:
    """Use up an invitation and make the user a member. Raises NotFound, Conflict when already a member (it stays open then)."""
    found = find_invitation(tx, hash, now=now)
    where = t.invitations.c.hash == hash, *_open(now)
    if not tx.execute(t.invitations.update().where(*where).values(accepted_at=now)).rowcount:
        raise NotFound(_GONE)  # another request was quicker
    return add_member(tx, found.org_id, user_id, found.role_id, now=now)


def _open(at: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return t.invitations.c.accepted_at.is_(None), t.invitations.c.expires_at > at


def _invitations() -> sa.Select[Any]:
    return sa.select(*columns(Invitation, t.invitations))
