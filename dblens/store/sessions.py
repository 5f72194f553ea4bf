"""Sessions, and the refresh tokens that prolong them.

A session is live while it is neither revoked nor expired and its user is active, approved and of the version it was made with.
Every access looks: a session that was ended is dead at once, whatever token was made for it.
A refresh token is good once. Using it again is a sign that somebody else has it, so the whole session ends.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import NotFound
from dblens.store import tables as t
from dblens.store.accounts import User, beside, user_beside
from dblens.store.database import Transaction
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, page, record


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A login on one device. `authenticated_at` is when its user last proved who they are."""

    id: str
    user_id: str
    user_version: int
    kind: str
    client: str
    address: str
    created_at: dt.datetime
    authenticated_at: dt.datetime
    seen_at: dt.datetime
    expires_at: dt.datetime
    revoked_at: dt.datetime | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A live session and its user, both as they are now."""

    user: User
    session: Session


def clip(text: str, longest: int) -> str:
    """Return what a client says of itself as one short line: it may say anything."""
    shown = "".join("?" if unicodedata.category(char)[0] == "C" else char for char in text[:longest])
    return shown[:longest]


def create_session(
    tx: Transaction, user: User, *, kind: str, client: str, address: str, now: dt.datetime, expires_at: dt.datetime
) -> Session:
    """Begin a session of a user who has just proved who they are."""
    made = Session(
        id=new_id(),
        user_id=user.id,
        user_version=user.version,
        kind=kind,
        client=clip(client, 255),
        address=clip(address, 64),
        created_at=now,
        authenticated_at=now,
        seen_at=now,
        expires_at=expires_at,
    )
    tx.execute(t.sessions.insert().values(**msgspec.structs.asdict(made)))
    return made


def find_visit(tx: Transaction, session_id: str, *, now: dt.datetime) -> Visit | None:
    """Return a live session with its user, None for any other."""
    return _visit(tx, t.sessions.c.id == session_id, now)


def list_sessions(
    tx: Transaction, user_id: str, *, live_at: dt.datetime, limit: int = 50, after: str | None = None
) -> Page[Session]:
    """List a user's live sessions, the newest first. Raises InvalidInput."""
    query = sa.select(*columns(Session, t.sessions)).join(t.users, t.users.c.id == t.sessions.c.user_id)
    query = query.where(t.sessions.c.user_id == user_id, *_live(live_at))
    return page(tx, query, _session, by=t.sessions.c.id, limit=limit, after=after, newest_first=True)


def touch_session(tx: Transaction, session_id: str, *, address: str, now: dt.datetime) -> None:
    """Keep when and from where a session was last used."""
    seen = {"seen_at": now, "address": clip(address, 64)} if address else {"seen_at": now}
    tx.execute(t.sessions.update().where(t.sessions.c.id == session_id).values(**seen))


def confirm_session(tx: Transaction, session_id: str, *, now: dt.datetime) -> None:
    """Keep that its user has just proved again who they are."""
    tx.execute(t.sessions.update().where(t.sessions.c.id == session_id).values(authenticated_at=now))


def follow_version(tx: Transaction, session_id: str, user: User) -> None:
    """Let one session outlive a new version of its user: that in which the password was changed."""
    tx.execute(t.sessions.update().where(t.sessions.c.id == session_id).values(user_version=user.version))


def revoke_session(tx: Transaction, user_id: str, session_id: str, *, now: dt.datetime) -> None:
    """End a session of a user. Raises NotFound, also for one that ended before and for somebody else's."""
    mine = t.sessions.c.id == session_id, t.sessions.c.user_id == user_id, t.sessions.c.revoked_at.is_(None)
    if not tx.execute(t.sessions.update().where(*mine).values(revoked_at=now)).rowcount:
        raise NotFound(f"no session {session_id!r}")


def revoke_sessions(tx: Transaction, user_id: str, *, now: dt.datetime, but: str | None = None) -> int:
    """End every session of a user, or all but one; return how many."""
    mine = [t.sessions.c.user_id == user_id, t.sessions.c.revoked_at.is_(None)]
    if but is not None:
        mine.append(t.sessions.c.id != but)
    return tx.execute(t.sessions.update().where(*mine).values(revoked_at=now)).rowcount


def sweep(tx: Transaction, *, before: dt.datetime) -> int:
    """Delete sessions (with their refresh tokens) and tokens that expired before a time; return how many rows."""
    return sum(
        tx.execute(table.delete().where(table.c.expires_at < before)).rowcount
        for table in (t.refresh_tokens, t.reset_tokens, t.access_tokens, t.sessions)
    )


# ---------------------------------------------------------------------------------------------------------------- refresh tokens


def add_refresh_token(tx: Transaction, session_id: str, hash: bytes, *, expires_at: dt.datetime) -> None:
    """Keep the hash of a token that prolongs a session."""
    tx.execute(t.refresh_tokens.insert().values(hash=hash, session_id=session_id, expires_at=expires_at))


def use_refresh_token(tx: Transaction, hash: bytes, *, now: dt.datetime) -> Visit | None:
    """Use up a refresh token and return its live session, None when it is unknown, expired, or its session is not live.

    A token that was used before ends its session: commit the transaction whatever the answer.
    """
    r = t.refresh_tokens.c
    session_id = tx.execute(sa.select(r.session_id).where(r.hash == hash)).scalar_one_or_none()
    if session_id is None:
        return None
    # One at a time per session: of two with the same token the second sees what the first did.
    tx.execute(sa.select(t.sessions.c.id).where(t.sessions.c.id == session_id).with_for_update())
    if not tx.execute(
        t.refresh_tokens.update().where(r.hash == hash, r.used_at.is_(None)).values(used_at=now)
    ).rowcount:
        ended = t.sessions.c.id == session_id, t.sessions.c.revoked_at.is_(None)
        tx.execute(t.sessions.update().where(*ended).values(revoked_at=now))
        return None
    if tx.execute(sa.select(r.hash).where(r.hash == hash, r.expires_at > now)).first() is None:
        return None
    return _visit(tx, t.sessions.c.id == session_id, now)


def _live(now: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    s, u = t.sessions.c, t.users.c
    return (
        s.revoked_at.is_(None),
        s.expires_at > now,
        s.user_version == u.version,
        u.active.is_(True),
        u.approved.is_(True),
    )


def _visit(tx: Transaction, which: sa.ColumnElement[bool], now: dt.datetime) -> Visit | None:
    query = beside(sa.select(*columns(Session, t.sessions))).join(t.users, t.users.c.id == t.sessions.c.user_id)
    row = tx.execute(query.where(which, *_live(now))).one_or_none()
    return None if row is None else Visit(user=user_beside(row), session=_session(row))


def _session(row: sa.Row[Any]) -> Session:
    return record(Session, row)
