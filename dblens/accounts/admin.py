"""What administrators do with the accounts of others. Whether somebody is one is decided by the operation that calls.

What holds here whoever calls: only a super_admin touches a super_admin, nobody disables or deletes themselves, and one
active super_admin always remains. Disabling and resetting end sessions and access tokens at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec

from dblens.accounts.base import LOCAL, Accounts, digest, secret
from dblens.accounts.passwords import check_password
from dblens.errors import Conflict, PermissionDenied
from dblens.store import accounts, sessions, tokens
from dblens.store.accounts import User, check_email, check_name
from dblens.store.database import Transaction
from dblens.store.rows import Page

Also = Callable[[Transaction, User], None]
"""More to do in the same transaction: memberships of a new user, what a deleted one owned."""


class ResetLink(msgspec.Struct, frozen=True, kw_only=True):
    """A token to hand over, which can be read only now. `link` is None where no address is configured."""

    user: User
    token: str
    expires_at: dt.datetime
    link: str | None = None

    def __repr__(self) -> str:
        return f"ResetLink(user={self.user!r}, expires_at={self.expires_at!r})"


def search_users(
    at: Accounts,
    *,
    search: str | None = None,
    active: bool | None = None,
    approved: bool | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[User]:
    """List users. Raises InvalidInput."""
    with at.store.read() as tx:
        return accounts.search_users(tx, search=search, active=active, approved=approved, limit=limit, after=after)


def create_user(
    at: Accounts,
    actor: User,
    name: str,
    *,
    email: str | None = None,
    display: str | None = None,
    password: str | None = None,
    super_admin: bool = False,
    also: Also | None = None,
) -> User | ResetLink:
    """Make a user: with a first password, to be changed at once, or with a link to set one.

    Raises InvalidInput, PermissionDenied, Conflict for a name or address that is taken.
    """
    if super_admin and not actor.super_admin:
        raise PermissionDenied("only a super_admin makes a super_admin", hint="ask one")
    check_name(name)
    if email is not None:
        check_email(email)
    if password is not None:
        check_password(password, name=name, email=email)
    hashed = None if password is None else at.passwords.hash(password)
    moment = at.clock()
    with at.store.write() as tx:
        made = accounts.create_user(
            tx,
            name,
            email=email,
            display=display,
            password_hash=hashed,
            must_change=hashed is not None,
            super_admin=super_admin,
            now=moment,
        )
        accounts.link_identity(tx, LOCAL, made.id, made.id, now=moment)
        if also is not None:
            also(tx, made)
        return made if hashed is not None else _link(at, tx, made, moment)


def first_super_admin(
    at: Accounts, name: str, *, email: str | None = None, password: str | None = None, also: Also | None = None
) -> User | ResetLink:
    """Make a super_admin where nobody can administer DBLens: for who stands at its machine. Raises InvalidInput, Conflict."""
    check_name(name)
    if email is not None:
        check_email(email)
    if password is not None:
        check_password(password, name=name, email=email)
    hashed = None if password is None else at.passwords.hash(password)
    moment = at.clock()
    with at.store.write() as tx:
        if accounts.any_super_admin(tx):
            raise Conflict("somebody administers DBLens already", hint="act as they do: --as NAME")
        if not accounts.any_user(tx):
            accounts.claim_set_up(tx)  # the way over the network ends here
        made = accounts.create_user(tx, name, email=email, password_hash=hashed, super_admin=True, now=moment)
        accounts.link_identity(tx, LOCAL, made.id, made.id, now=moment)
        if also is not None:
            also(tx, made)
        return made if hashed is not None else _link(at, tx, made, moment)


def approve_user(at: Accounts, actor: User, user_id: str) -> User:
    """Let somebody who signed up in. Raises NotFound, PermissionDenied."""
    with at.store.write() as tx:
        _judge(tx, actor, user_id)
        return accounts.update_user(tx, user_id, approved=True)


def disable_user(at: Accounts, actor: User, user_id: str, *, also: Also | None = None) -> User:
    """Let a user in no more; sessions and access tokens end at once. Raises NotFound, PermissionDenied, Conflict."""
    with at.store.write() as tx:
        found = _judge(tx, actor, user_id, other=True)
        if also is not None:
            also(tx, found)
        done = accounts.disable_user(tx, user_id)
        _end(at, tx, user_id)
    return done


def enable_user(at: Accounts, actor: User, user_id: str) -> User:
    """Let a user in again; a lockout ends too. Raises NotFound, PermissionDenied."""
    with at.store.write() as tx:
        _judge(tx, actor, user_id)
        return accounts.enable_user(tx, user_id)


def delete_user(at: Accounts, actor: User, user_id: str, *, also: Also | None = None) -> None:
    """Delete a user; `also` hands over what they own first. Raises NotFound, PermissionDenied, Conflict."""
    with at.store.write() as tx:
        found = _judge(tx, actor, user_id, other=True)
        if also is not None:
            also(tx, found)
        accounts.delete_user(tx, user_id)


def reset_user(at: Accounts, actor: User, user_id: str) -> ResetLink:
    """Make a link to set a new password. The old one, sessions and access tokens end at once, and a lockout.

    Raises NotFound, PermissionDenied.
    """
    moment = at.clock()
    with at.store.write() as tx:
        _judge(tx, actor, user_id)
        found = accounts.set_password(tx, user_id, None)
        _end(at, tx, user_id)
        return _link(at, tx, found, moment)


def end_sessions(at: Accounts, actor: User, user_id: str) -> None:
    """End every session and access token of a user. Raises NotFound, PermissionDenied."""
    with at.store.write() as tx:
        _judge(tx, actor, user_id)
        accounts.end_sessions(tx, user_id)
        _end(at, tx, user_id)


def set_super_admin(at: Accounts, actor: User, user_id: str, super_admin: bool) -> User:
    """Make a user super_admin, or no longer. Raises NotFound, PermissionDenied, Conflict for the last one."""
    if not actor.super_admin:
        raise PermissionDenied("only a super_admin makes a super_admin", hint="ask one")
    with at.store.write() as tx:
        accounts.get_user(tx, user_id)
        return accounts.update_user(tx, user_id, super_admin=super_admin)


def _judge(tx: Transaction, actor: User, user_id: str, *, other: bool = False) -> User:
    found = accounts.get_user(tx, user_id)
    if found.super_admin and not actor.super_admin:
        raise PermissionDenied(f"{found.name!r} is a super_admin", hint="ask a super_admin")
    if other and found.id == actor.id:
        raise Conflict("nobody disables or deletes their own account", hint="ask another administrator")
    return found


def _end(at: Accounts, tx: Transaction, user_id: str) -> None:
    sessions.revoke_sessions(tx, user_id, now=at.clock())
    tokens.revoke_access_tokens(tx, user_id, now=at.clock())


def _link(at: Accounts, tx: Transaction, user: User, moment: dt.datetime) -> ResetLink:
    token, until = secret(), moment + at.rules.reset
    tokens.add_reset_token(tx, user.id, digest(token), purpose="password", expires_at=until)
    link = None if at.letters is None else at.letters.link("reset-password", token)
    return ResetLink(user=user, token=token, expires_at=until, link=link)
