"""What a user does with their own account: profile, e-mail address, personal access tokens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from dblens.accounts.base import PAT, Accounts, Authenticated, check_scopes, digest, prove_own, secret
from dblens.accounts.base import own_session as _own
from dblens.accounts.signup import email_token
from dblens.errors import InvalidInput
from dblens.store import accounts, tokens
from dblens.store.accounts import User, check_email
from dblens.store.rows import Page
from dblens.store.tokens import AccessToken


class NewAccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was made just now: the only time that it can be read."""

    token: AccessToken
    secret: str

    def __repr__(self) -> str:
        return f"NewAccessToken(token={self.token!r})"


def set_display(at: Accounts, auth: Authenticated, display: str) -> User:
    """Change the shown name. Raises InvalidInput, PermissionDenied for an access token."""
    _own(auth)
    with at.store.write() as tx:
        return accounts.update_user(tx, auth.user.id, display=display)


def set_email(at: Accounts, auth: Authenticated, email: str, password: str) -> User:
    """Change the e-mail address: at once without mail, else once the link sent to it was followed; the old address is told.

    Raises InvalidInput, NotAuthenticated, PermissionDenied, Conflict (without mail) for one that is taken, RateLimited.
    """
    _own(auth)
    check_email(email)
    user = prove_own(at, auth, password)
    if at.letters is None:
        with at.store.write() as tx:
            return accounts.update_user(tx, user.id, email=email)
    moment, token = at.clock(), email_token(email)
    if at.limits.allows("mail", account=email):
        with at.store.write() as tx:
            until = moment + at.rules.verification
            tokens.add_reset_token(tx, user.id, digest(token), purpose="email", expires_at=until)
        at.letters.verify(email, user.name, token)
        if user.email is not None:
            at.letters.changed(user.email, user.name, "The e-mail address")
    return user


def create_access_token(
    at: Accounts, auth: Authenticated, org_id: str, name: str, scopes: Sequence[str], expires_at: dt.datetime
) -> NewAccessToken:
    """Make a token for one of the user's organizations, limited to scopes and to what the user may.

    Raises InvalidInput, NotFound for an organization of others, PermissionDenied for an access token, RateLimited.
    """
    _own(auth)
    return issue_access_token(at, auth.user, org_id, name, scopes, expires_at)


def issue_access_token(
    at: Accounts, user: User, org_id: str, name: str, scopes: Sequence[str], expires_at: dt.datetime
) -> NewAccessToken:
    """Make a token for a user who proved who they are. Raises as `create_access_token` does."""
    at.limits.hit("token", account=user.name)
    moment, longest = at.clock(), at.rules.longest_access_token
    if expires_at.tzinfo is None:
        raise InvalidInput(f"expires_at is {expires_at.isoformat()}", hint="give a time zone")
    if expires_at > moment + longest:
        raise InvalidInput(f"expires_at is {expires_at.isoformat()}", hint=f"at most {longest.days} days from now")
    fresh = PAT + secret()
    with at.store.write() as tx:
        made = tokens.create_access_token(
            tx,
            org_id,
            user.id,
            name=name,
            hash=digest(fresh),
            scopes=check_scopes(tuple(scopes)),
            expires_at=expires_at,
            now=moment,
        )
    return NewAccessToken(token=made, secret=fresh)


def list_access_tokens(
    at: Accounts, auth: Authenticated, *, limit: int = 50, after: str | None = None
) -> Page[AccessToken]:
    """List the user's own tokens, also those that ended. Raises InvalidInput."""
    with at.store.read() as tx:
        return tokens.list_access_tokens(tx, auth.user.id, limit=limit, after=after)


def revoke_access_token(at: Accounts, auth: Authenticated, token_id: str) -> None:
    """End one of the user's own tokens; a token may end itself but no other. Raises NotFound, PermissionDenied."""
    if auth.token is None or auth.token.id != token_id:
        _own(auth)
    with at.store.write() as tx:
        tokens.revoke_access_token(tx, auth.user.id, token_id, now=at.clock())
