"""Logging in and out, refreshing, and finding out whose request it is."""

from __future__ import annotations

import datetime as dt

from dblens.accounts.base import (
    PAT,
    Accounts,
    Authenticated,
    Caller,
    LoggedIn,
    Tokens,
    digest,
    prove,
    prove_own,
    secret,
)
from dblens.accounts.base import own_session as _own
from dblens.accounts.jwt import REFUSED, Keys
from dblens.errors import NotAuthenticated, PermissionDenied
from dblens.store import accounts, sessions, tokens
from dblens.store.accounts import User
from dblens.store.database import Store, Transaction
from dblens.store.rows import Page
from dblens.store.sessions import Session

_SEEN = dt.timedelta(minutes=1)
"""How exactly the last use is known: a write per request would cost more than it tells."""


def log_in(at: Accounts, login: str, password: str, caller: Caller, *, kind: str = "login") -> LoggedIn:
    """Log in by name, or by e-mail address, and password. Raises NotAuthenticated, RateLimited."""
    at.limits.hit("login", address=caller.address, account=login)
    with at.store.read() as tx:
        found = accounts.find_credential(tx, login)
    user = prove(at, found, password)
    return open_session(at, user, caller, kind=kind)


def open_session(at: Accounts, user: User, caller: Caller, *, kind: str) -> LoggedIn:
    """Begin a session of a user who proved who they are: by password, or to an issuer. Raises NotAuthenticated."""
    moment, fresh = at.clock(), secret()
    ends = moment + at.rules.longest_session
    with at.store.write() as tx:
        held = accounts.lock_user(tx, user.id)
        if held is None or not held.user.active or not held.user.approved or held.user.version != user.version:
            raise NotAuthenticated(REFUSED, hint="log in again")
        accounts.record_login(tx, user.id, now=moment)
        made = sessions.create_session(
            tx, held.user, kind=kind, client=caller.client, address=caller.address, now=moment, expires_at=ends
        )
        until = _add_refresh(at, tx, made, fresh, moment)
        user = accounts.get_user(tx, user.id)
    return LoggedIn(user=user, session=made, tokens=_tokens(at, made, fresh, until, moment))


def refresh(at: Accounts, token: str, caller: Caller) -> LoggedIn:
    """Exchange a refresh token for new tokens. Used a second time, it ends the session. Raises NotAuthenticated, RateLimited."""
    at.limits.hit("refresh", address=caller.address)
    moment, fresh = at.clock(), secret()
    with at.store.write() as tx:  # kept also when nothing comes of it: a token used twice has ended its session
        visit = sessions.use_refresh_token(tx, digest(token), now=moment)
        if visit is not None:
            until = _add_refresh(at, tx, visit.session, fresh, moment)
            sessions.touch_session(tx, visit.session.id, address=caller.address, now=moment)
    if visit is None:
        raise NotAuthenticated(REFUSED, hint="log in again")
    return LoggedIn(user=visit.user, session=visit.session, tokens=_tokens(at, visit.session, fresh, until, moment))


def authenticate_bearer(
    store: Store, keys: Keys, token: str, now: dt.datetime, *, address: str = "", must_change_too: bool = False
) -> Authenticated:
    """Return whose request it is, by a session's access JWT or a personal access token, as the store says at this moment.

    `must_change_too` is for setting a new password, reading the profile and logging out only.
    Raises NotAuthenticated, and PermissionDenied while a new password has to be set.
    """
    found = _by_access_token(store, token, now) if token.startswith(PAT) else _by_jwt(store, keys, token, now, address)
    if found.user.must_change and not must_change_too:
        raise PermissionDenied("the password has to be changed first", hint="set a new password")
    return found


def _by_jwt(store: Store, keys: Keys, token: str, now: dt.datetime, address: str) -> Authenticated:
    claims = keys.read(token, now=now)
    with store.read() as tx:
        visit = sessions.find_visit(tx, claims.session_id, now=now)
    if visit is None or visit.user.id != claims.user_id:
        raise NotAuthenticated(REFUSED, hint="log in again")
    if now - visit.session.seen_at >= _SEEN:
        with store.write() as tx:
            sessions.touch_session(tx, visit.session.id, address=address, now=now)
    return Authenticated(user=visit.user, session=visit.session)


def _by_access_token(store: Store, token: str, now: dt.datetime) -> Authenticated:
    with store.read() as tx:
        bearer = tokens.find_bearer(tx, digest(token), now=now)
    if bearer is None:
        raise NotAuthenticated("the access token is not valid", hint="make another: it may have expired")
    if bearer.token.used_at is None or now - bearer.token.used_at >= _SEEN:
        with store.write() as tx:
            tokens.touch_access_token(tx, bearer.token.id, now=now)
    return Authenticated(user=bearer.user, token=bearer.token)


def log_out(at: Accounts, auth: Authenticated) -> None:
    """End the session of the request. Raises PermissionDenied for an access token."""
    with at.store.write() as tx:
        sessions.revoke_session(tx, auth.user.id, _own(auth).id, now=at.clock())


def log_out_everywhere(at: Accounts, auth: Authenticated, *, access_tokens_too: bool = False) -> None:
    """End every session of the user, also this one. Raises PermissionDenied for an access token."""
    _own(auth)
    with at.store.write() as tx:
        accounts.end_sessions(tx, auth.user.id)
        sessions.revoke_sessions(tx, auth.user.id, now=at.clock())
        if access_tokens_too:
            tokens.revoke_access_tokens(tx, auth.user.id, now=at.clock())


def confirm(at: Accounts, auth: Authenticated, password: str) -> None:
    """Prove again who one is, before administration (step-up). Raises NotAuthenticated, PermissionDenied, RateLimited."""
    session = _own(auth)
    prove_own(at, auth, password)
    with at.store.write() as tx:
        sessions.confirm_session(tx, session.id, now=at.clock())


def list_sessions(at: Accounts, auth: Authenticated, *, limit: int = 50, after: str | None = None) -> Page[Session]:
    """List the user's own live sessions. Raises InvalidInput."""
    with at.store.read() as tx:
        return sessions.list_sessions(tx, auth.user.id, live_at=at.clock(), limit=limit, after=after)


def revoke_session(at: Accounts, auth: Authenticated, session_id: str) -> None:
    """End one of the user's own sessions. Raises NotFound, PermissionDenied."""
    _own(auth)
    with at.store.write() as tx:
        sessions.revoke_session(tx, auth.user.id, session_id, now=at.clock())


def sweep(at: Accounts) -> int:
    """Delete what expired a month ago; return how many rows."""
    with at.store.write() as tx:
        return sessions.sweep(tx, before=at.clock() - dt.timedelta(days=30))


def _add_refresh(at: Accounts, tx: Transaction, session: Session, token: str, moment: dt.datetime) -> dt.datetime:
    until = min(moment + at.rules.idle, session.expires_at)
    sessions.add_refresh_token(tx, session.id, digest(token), expires_at=until)
    return until


def _tokens(at: Accounts, session: Session, token: str, until: dt.datetime, moment: dt.datetime) -> Tokens:
    return Tokens(
        access=at.keys.sign(session.user_id, session.id, now=moment),
        access_expires_at=moment + at.keys.lifetime,
        refresh=token,
        refresh_expires_at=until,
    )
