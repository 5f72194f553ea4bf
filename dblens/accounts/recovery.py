"""A new password: by the user who knows the old one, or who gets a link by mail or from an administrator."""

from __future__ import annotations

from dblens.accounts.base import LOCAL, Accounts, Authenticated, Caller, digest, prove_own, secret
from dblens.accounts.base import own_session as _own
from dblens.accounts.passwords import check_password
from dblens.errors import InvalidInput, NotAuthenticated, Unsupported
from dblens.store import accounts, sessions, tokens
from dblens.store.accounts import User

_VOID = "the link is not valid: used, replaced or expired"


def change_password(at: Accounts, auth: Authenticated, current: str, new: str) -> User:
    """Set a new password, ending every other session. Raises InvalidInput, NotAuthenticated, PermissionDenied, RateLimited."""
    session = _own(auth)
    check_password(new, name=auth.user.name, email=auth.user.email)
    if new == current:
        raise InvalidInput("the new password is the old one", hint="choose another")
    user = prove_own(at, auth, current)
    hashed = at.passwords.hash(new)
    with at.store.write() as tx:
        held = accounts.lock_user(tx, user.id)
        if held is None or held.user.version != user.version or not held.user.active:
            raise NotAuthenticated("the account was changed meanwhile", hint="log in again")
        user = accounts.set_password(tx, user.id, hashed)
        sessions.revoke_sessions(tx, user.id, now=at.clock(), but=session.id)
        sessions.follow_version(tx, session.id, user)
    if at.letters is not None and user.email is not None:
        at.letters.changed(user.email, user.name, "The password")
    return user


def forgot(at: Accounts, login: str, caller: Caller) -> None:
    """Have a link sent to the address of an account, if there is one: the answer is the same. Raises RateLimited, Unsupported."""
    if at.letters is None:
        raise Unsupported("a reset by mail", "no mail is configured", hint="ask an administrator for a link")
    at.limits.hit("forgot", address=caller.address, account=login)
    moment, token = at.clock(), secret()
    user: User | None = None
    with at.store.write() as tx:
        found = accounts.find_credential(tx, login)
        if found is not None and found.user.email is not None and found.user.active:
            ours = any(identity.issuer == LOCAL for identity in accounts.list_identities(tx, found.user.id))
            # By name and by address one may try twice as often; the mailbox counts once.
            if ours and at.limits.allows("mail", account=found.user.email):
                user = found.user
                until = moment + at.rules.reset
                tokens.add_reset_token(tx, user.id, digest(token), purpose="password", expires_at=until)
    if user is not None and user.email is not None:
        at.letters.reset(user.email, user.name, token)


def reset(at: Accounts, token: str, new: str, caller: Caller) -> User:
    """Set a new password by a token, which is used up unless the password is refused. Everything the account had open ends.

    Sessions end, and access tokens: who needs a reset may have lost more than a password. A lockout ends too.
    Raises InvalidInput, NotAuthenticated, RateLimited.
    """
    at.limits.hit("reset", address=caller.address)
    moment, hash = at.clock(), digest(token)
    with at.store.read() as tx:
        user_id = tokens.peek_reset_token(tx, hash, purpose="password", now=moment)
        user = None if user_id is None else accounts.get_user(tx, user_id)
    if user is None or not user.active:
        raise NotAuthenticated(_VOID, hint="ask for another")
    check_password(new, name=user.name, email=user.email)
    hashed = at.passwords.hash(new)
    with at.store.write() as tx:
        if tokens.take_reset_token(tx, hash, purpose="password", now=moment) != user.id:
            raise NotAuthenticated(_VOID, hint="ask for another")
        user = accounts.set_password(tx, user.id, hashed)
        sessions.revoke_sessions(tx, user.id, now=moment)
        tokens.revoke_access_tokens(tx, user.id, now=moment)
    if at.letters is not None and user.email is not None:
        at.letters.changed(user.email, user.name, "The password")
    return user
