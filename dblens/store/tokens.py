"""Tokens that are not a session: reset and verification (once, for minutes), personal access tokens (named, scoped, for days).

Only SHA-256 of a token is kept: each is 256 random bits, so that there is nothing to guess from its hash.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.accounts import User, beside, get_user, user_beside
from dblens.store.database import Transaction
from dblens.store.organizations import role_of
from dblens.store.records import new_id
from dblens.store.rows import Page, chosen, columns, fits, one, page, unique

PURPOSES = ("password", "email")
MOST_SCOPES = 100


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """A personal access token, without what proves it. It may do what its owner may and a scope allows, in one organization."""

    id: str
    user_id: str
    org_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: dt.datetime
    expires_at: dt.datetime
    used_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None


class Bearer(msgspec.Struct, frozen=True, kw_only=True):
    """An access token that is valid now, and its owner as they are now."""

    user: User
    token: AccessToken


# ------------------------------------------------------------------------------------------------------------------ reset tokens


def add_reset_token(tx: Transaction, user_id: str, hash: bytes, *, purpose: str, expires_at: dt.datetime) -> None:
    """Keep the hash of a token, in place of any that the user had for the same purpose. Raises InvalidInput, NotFound."""
    chosen("purpose", purpose, PURPOSES)
    get_user(tx, user_id)
    r = t.reset_tokens.c
    tx.execute(t.reset_tokens.delete().where(r.user_id == user_id, r.purpose == purpose))
    row = {"hash": hash, "user_id": user_id, "purpose": purpose, "expires_at": expires_at}
    tx.execute(t.reset_tokens.insert().values(**row))


def peek_reset_token(tx: Transaction, hash: bytes, *, purpose: str, now: dt.datetime) -> str | None:
    """Return whose token it is, without using it up; None when it is not valid."""
    return tx.execute(sa.select(t.reset_tokens.c.user_id).where(*_valid(hash, purpose, now))).scalar_one_or_none()


def take_reset_token(tx: Transaction, hash: bytes, *, purpose: str, now: dt.datetime) -> str | None:
    """Use up a token and return whose it was, None when it is not valid. Of two at once one gets it."""
    query = t.reset_tokens.delete().where(*_valid(hash, purpose, now)).returning(t.reset_tokens.c.user_id)
    return tx.execute(query).scalar_one_or_none()


def _valid(hash: bytes, purpose: str, now: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    r = t.reset_tokens.c
    return r.hash == hash, r.purpose == purpose, r.expires_at > now


# ----------------------------------------------------------------------------------------------------------------- access tokens


def create_access_token(
    tx: Transaction,
    org_id: str,
    user_id: str,
    *,
    name: str,
    hash: bytes,
    scopes: Sequence[str],
    expires_at: dt.datetime,
    now: dt.datetime,
) -> AccessToken:
    """Keep a member's token. Raises InvalidInput, NotFound for an organization in which the user is no active member."""
    role_of(tx, org_id, user_id)
    if not scopes or len(scopes) > MOST_SCOPES:
        raise InvalidInput(f"scopes: {len(scopes)} given", hint=f"from 1 to {MOST_SCOPES}, like `connection.*`")
    if expires_at <= now:
        raise InvalidInput(f"expires_at is {expires_at.isoformat()}", hint="a time to come")
    made = AccessToken(
        id=new_id(),
        user_id=user_id,
        org_id=org_id,
        name=fits("name", name, 255),
        scopes=tuple(sorted({fits("scope", scope, 100) for scope in scopes})),
        created_at=now,
        expires_at=expires_at,
    )
    row = msgspec.structs.asdict(made) | {"scopes": list(made.scopes), "hash": hash}
    with unique(tx, "the token could not be kept", "try again"):
        tx.execute(t.access_tokens.insert().values(**row))
    return made


def find_bearer(tx: Transaction, hash: bytes, *, now: dt.datetime) -> Bearer | None:
    """Return a valid access token with its owner, None when expired, revoked, unknown, or the owner may not log in."""
    a, u = t.access_tokens.c, t.users.c
    query = beside(_tokens()).join(t.users, u.id == a.user_id)
    query = query.where(a.hash == hash, a.revoked_at.is_(None), a.expires_at > now)
    row = tx.execute(query.where(u.active.is_(True), u.approved.is_(True))).one_or_none()
    return None if row is None else Bearer(user=user_beside(row), token=_token(row))


def touch_access_token(tx: Transaction, token_id: str, *, now: dt.datetime) -> None:
    """Keep when a token was last used."""
    tx.execute(t.access_tokens.update().where(t.access_tokens.c.id == token_id).values(used_at=now))


def get_access_token(tx: Transaction, user_id: str, token_id: str) -> AccessToken:
    """Return a user's token, revoked or not. Raises NotFound, also for somebody else's."""
    a = t.access_tokens.c
    return _token(one(tx, _tokens().where(a.user_id == user_id, a.id == token_id), f"no access token {token_id!r}"))


def list_access_tokens(
    tx: Transaction,
    user_id: str,
    *,
    live_at: dt.datetime | None = None,
    org_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[AccessToken]:
    """List a user's tokens, the newest first; of one organization; those that are valid at a time. Raises InvalidInput."""
    a = t.access_tokens.c
    query = _tokens().where(a.user_id == user_id)
    if org_id is not None:
        query = query.where(a.org_id == org_id)
    if live_at is not None:
        query = query.where(a.revoked_at.is_(None), a.expires_at > live_at)
    return page(tx, query, _token, by=a.id, limit=limit, after=after, newest_first=True)


def list_organization_tokens(
    tx: Transaction,
    org_id: str,
    *,
    user_id: str | None = None,
    live_at: dt.datetime | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Bearer]:
    """List the tokens for an organization with their owners, the newest first. Raises InvalidInput."""
    a = t.access_tokens.c
    query = beside(_tokens()).join(t.users, t.users.c.id == a.user_id).where(a.org_id == org_id)
    if user_id is not None:
        query = query.where(a.user_id == user_id)
    if live_at is not None:
        query = query.where(a.revoked_at.is_(None), a.expires_at > live_at)
    return page(
        tx,
        query,
        lambda row: Bearer(user=user_beside(row), token=_token(row)),
        by=a.id,
        limit=limit,
        after=after,
        newest_first=True,
        key=lambda bearer: bearer.token.id,
    )


def revoke_access_token(tx: Transaction, user_id: str, token_id: str, *, now: dt.datetime) -> None:
    """End a user's token. Raises NotFound, also for one that ended before and for somebody else's."""
    a = t.access_tokens.c
    mine = a.user_id == user_id, a.id == token_id, a.revoked_at.is_(None)
    if not tx.execute(t.access_tokens.update().where(*mine).values(revoked_at=now)).rowcount:
        raise NotFound(f"no access token {token_id!r}")


def revoke_access_tokens(tx: Transaction, user_id: str, *, now: dt.datetime, org_id: str | None = None) -> int:
    """End every token of a user, or those for one organization (when the membership ends); return how many."""
    a = t.access_tokens.c
    mine = [a.user_id == user_id, a.revoked_at.is_(None)]
    if org_id is not None:
        mine.append(a.org_id == org_id)
    return tx.execute(t.access_tokens.update().where(*mine).values(revoked_at=now)).rowcount


def _tokens() -> sa.Select[Any]:
    return sa.select(*columns(AccessToken, t.access_tokens))


def _token(row: sa.Row[Any]) -> AccessToken:
    fields = {name: getattr(row, name) for name in AccessToken.__struct_fields__}
    return AccessToken(**fields | {"scopes": tuple(row.scopes)})
