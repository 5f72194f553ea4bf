"""What every flow has at hand, who calls, and what comes out: a login with its tokens, a request with its user."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from dblens.accounts import lockout
from dblens.accounts.jwt import Keys
from dblens.accounts.limits import Limits
from dblens.accounts.lockout import Lockout
from dblens.accounts.mail import Letters
from dblens.accounts.passwords import Passwords
from dblens.errors import InvalidInput, NotAuthenticated, PermissionDenied
from dblens.store import accounts
from dblens.store.accounts import Credential, User
from dblens.store.database import Store
from dblens.store.records import now
from dblens.store.sessions import Session
from dblens.store.tokens import AccessToken

PAT = "dbl_pat_"
LOCAL = "local"
"""The issuer of those who have, or may be given, a password here."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance allows. `email_domains` are those from which somebody may sign up, all when empty."""

    sign_up: bool = False
    email_domains: tuple[str, ...] = ()
    approval: bool = True
    idle: dt.timedelta = dt.timedelta(days=7)
    longest_session: dt.timedelta = dt.timedelta(days=30)
    longest_access_token: dt.timedelta = dt.timedelta(days=366)
    reset: dt.timedelta = dt.timedelta(minutes=30)
    verification: dt.timedelta = dt.timedelta(days=1)
    recent: dt.timedelta = dt.timedelta(minutes=15)
    lockout: Lockout = Lockout()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from, as the server sees it and not as a header says."""

    address: str
    client: str = ""


class Accounts:
    """The accounts of an instance. `letters` is None where no mail is sent; `set_up_code` guards a set-up over the network."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        rules: Rules | None = None,
        passwords: Passwords | None = None,
        limits: Limits | None = None,
        letters: Letters | None = None,
        set_up_code: str | None = None,
        clock: Callable[[], dt.datetime] = now,
    ) -> None:
        self.store, self.keys, self.letters, self.clock = store, keys, letters, clock
        self.rules = rules or Rules()
        self.passwords = passwords or Passwords()
        self.limits = limits or Limits()
        self.set_up_code = set_up_code
        if self.rules.sign_up and self.rules.email_domains and letters is None and not self.rules.approval:
            raise InvalidInput(
                "sign-up is limited to e-mail domains, but nothing proves an address",
                hint="configure mail, or let an administrator approve",
            )

    def __repr__(self) -> str:
        return f"Accounts({self.store.place!r})"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a client keeps of a login. Shown nowhere."""

    access: str
    access_expires_at: dt.datetime
    refresh: str
    refresh_expires_at: dt.datetime

    def __repr__(self) -> str:
        return "Tokens()"

    def __rich_repr__(self) -> Any:
        return iter(())


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A login. While `user.must_change`, its tokens are good for nothing but a new password."""

    user: User
    session: Session
    tokens: Tokens


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    """Whose request it is, by a session or by an access token; never what they may do."""

    user: User
    session: Session | None = None
    token: AccessToken | None = None

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What an access token is limited to; None for a session, which is not."""
        return None if self.token is None else self.token.scopes

    @property
    def authenticated_at(self) -> dt.datetime | None:
        """When the user last proved who they are; None for an access token, which proves nothing recent."""
        return None if self.session is None else self.session.authenticated_at

    def recent(self, rules: Rules, now: dt.datetime) -> bool:
        """Say whether the user proved it recently enough for administration."""
        return self.authenticated_at is not None and now - self.authenticated_at <= rules.recent


def secret() -> str:
    """Return 256 random bits as a text that fits anywhere."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def own_session(auth: Authenticated) -> Session:
    """Return the session of a request. Raises PermissionDenied for an access token: it must not outlive itself."""
    if auth.session is None:
        raise PermissionDenied("an access token cannot change the account it belongs to", hint="log in")
    return auth.session


_SCOPE = re.compile(r"\*|[a-z][a-z_]*\.(?:[a-z][a-z_]*|\*)")


def check_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Return permission patterns: `*`, `noun.*`, `noun.verb`. Raises InvalidInput."""
    for scope in scopes:
        if not isinstance(scope, str) or len(scope) > 100 or not _SCOPE.fullmatch(scope):
            raise InvalidInput(f"scope {scope!a} is no permission", hint="like connection.read, connection.* or *")
    return scopes


# Said to everybody who cannot log in, whatever the reason.
_WRONG = "the name or the password is wrong, or the account cannot be used now"
_PERHAPS = "an account is locked for a while after some failures, and a new one may wait for approval"


def prove(at: Accounts, found: Credential | None, password: str, *, new_too: bool = False) -> User:
    """Return the user of a credential when the password is right and nothing stands against it. Raises NotAuthenticated.

    Every refusal costs one hash and one transaction that writes. Whether the account is locked is judged after the hash, with the account held,
    so that tries at the same time are counted as if they came one after the other.
    """
    kept = None if found is None else found.password_hash
    right = at.passwords.verify(kept, password)
    renewed = at.passwords.hash(password) if right and kept and at.passwords.outdated(kept) else None
    moment = at.clock()
    user: User | None = None
    counted = False
    with at.store.write() as tx:
        held = accounts.lock_user(tx, found.user.id if found else "")
        if held is not None and not lockout.locked(held.user, moment):
            if not right:
                lockout.count(tx, at.rules.lockout, held.user, now=moment)
                counted = True
            elif held.password_hash == kept and held.user.active and (held.user.approved or new_too):
                lockout.clear(tx, held.user)
                if renewed and kept:
                    accounts.renew_hash(tx, held.user.id, kept, renewed)
                user = accounts.get_user(tx, held.user.id)
        if user is None and not counted:
            accounts.write_anyway(tx)
    if user is None:
        raise NotAuthenticated(_WRONG, hint=_PERHAPS)
    return user


def prove_own(at: Accounts, auth: Authenticated, password: str) -> User:
    """Let a user prove again who they are. Raises NotAuthenticated, RateLimited."""
    at.limits.hit("login", account=auth.user.name)
    with at.store.read() as tx:
        found = accounts.find_credential(tx, auth.user.name)
    return prove(at, found if found and found.user.id == auth.user.id else None, password)
