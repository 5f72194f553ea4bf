"""The ways in, for who is nobody yet: set-up, sign-up, login and what follows. These are no operations: nobody is there to do them.

Bearer only: a login answers with tokens, and sets no cookie.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from dblens.accounts.base import Caller, LoggedIn
from dblens.api.identity import Identity, Wish
from dblens.errors import NotAuthenticated
from dblens.redaction import Secret
from dblens.workspace import entrance, wire
from dblens.workspace.house import House

BASE: Final = f"{wire.PREFIX}/auth"


class SetUp(msgspec.Struct, frozen=True, kw_only=True):
    """The first account, a super_admin, and the first organization. `code` is what the service printed when it started."""

    name: str
    password: Secret
    code: Secret
    email: str | None = None
    organization: str | None = None


class SignUp(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for an account."""

    name: str
    password: Secret
    email: str | None = None
    display: str | None = None


class LogIn(msgspec.Struct, frozen=True, kw_only=True):
    """Name or e-mail address, and password."""

    name: str
    password: Secret


class Refresh(msgspec.Struct, frozen=True, kw_only=True):
    """The refresh token of the last answer; it is good once."""

    refresh: Secret


class Forgot(msgspec.Struct, frozen=True, kw_only=True):
    """Name or e-mail address."""

    name: str


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """The token of the link, and the new password."""

    token: Secret
    password: Secret


class VerifyEmail(msgspec.Struct, frozen=True, kw_only=True):
    """The token of the link, and the account's password."""

    token: Secret
    password: Secret


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """What the file `local-secret` in the data folder holds, which only the person at this machine can read."""

    secret: Secret


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a client keeps of a login. `must_change`: it is good for nothing but a new password."""

    access: str
    access_expires_at: dt.datetime
    refresh: str | None = None
    refresh_expires_at: dt.datetime | None = None
    user_id: str | None = None
    name: str | None = None
    session_id: str | None = None
    must_change: bool = False

    def __repr__(self) -> str:
        return "Grant()"

    def __rich_repr__(self) -> Any:
        return iter(())


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a login page has to know."""

    mode: Literal["single", "team"]
    needs_set_up: bool
    local: bool
    """Whether there is a way in for the person at this machine."""


Do = Callable[[House, Identity, Wish, Any], Any]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A way in: where, what it takes, what it answers, which statuses it has beside the usual."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    doc: str
    do: Do
    takes: type[msgspec.Struct] | None = None
    gives: Any = None
    statuses: tuple[int, ...] = ()
    bearer: bool = False


def _set_up(house: House, _identity: Identity, wish: Wish, given: SetUp) -> None:
    entrance.set_up(
        house,
        given.name,
        given.password,
        wish.caller,
        code=given.code,
        email=given.email,
        organization=given.organization,
    )


def _sign_up(house: House, _identity: Identity, wish: Wish, given: SignUp) -> None:
    entrance.sign_up(house, given.name, given.password, wish.caller, email=given.email, display=given.display)


def _log_in(house: House, _identity: Identity, wish: Wish, given: LogIn) -> Grant:
    return _grant(entrance.log_in(house, given.name, given.password, wish.caller, kind="api"))


def _refresh(house: House, _identity: Identity, wish: Wish, given: Refresh) -> Grant:
    return _grant(entrance.refresh(house, given.refresh, wish.caller))


def _log_out(house: House, identity: Identity, wish: Wish, _given: None) -> None:
    if wish.bearer is None:
        raise NotAuthenticated("nobody is logged in", hint="send the bearer of the login that is to end")
    if not identity.leave(wish.bearer):
        # Who has to set a new password may still leave, as they may read their account.
        plain = msgspec.structs.replace(wish, organization=None, super_admin=False)
        entrance.log_out(house, identity.principal(plain, operation="account.read"))


def _forgot(house: House, _identity: Identity, wish: Wish, given: Forgot) -> None:
    entrance.forgot(house, given.name, wish.caller)


def _reset(house: House, _identity: Identity, wish: Wish, given: Reset) -> None:
    entrance.reset(house, given.token, given.password, wish.caller)


def _verify_email(house: House, _identity: Identity, wish: Wish, given: VerifyEmail) -> None:
    entrance.verify_email(house, given.token, given.password, wish.caller)


def _local(house: House, identity: Identity, wish: Wish, given: Local) -> Grant:
    who: Caller = wish.caller
    entrance.accounts_of(house).limits.hit("login", address=who.address)
    token, until = identity.enter(given.secret, who)
    return Grant(access=token, access_expires_at=until, user_id=house.owner.user_id, name=house.owner.name)


def _state(house: House, identity: Identity, _wish: Wish, _given: None) -> State:
    needs = entrance.needs_set_up(house)
    return State(mode=house.settings.mode, needs_set_up=needs, local=identity.local is not None)


def _grant(made: LoggedIn) -> Grant:
    return Grant(
        access=made.tokens.access,
        access_expires_at=made.tokens.access_expires_at,
        refresh=made.tokens.refresh,
        refresh_expires_at=made.tokens.refresh_expires_at,
        user_id=made.user.id,
        name=made.user.name,
        session_id=made.session.id,
        must_change=made.user.must_change,
    )


WAYS: Final = (
    Way(method="GET", path=f"{BASE}/state", name="auth.state", do=_state, gives=State,
        doc="Say what a login page has to know."),
    Way(method="POST", path=f"{BASE}/set-up", name="auth.set_up", do=_set_up, takes=SetUp, statuses=(403, 409),
        doc="Make the first account, a super_admin, once."),
    Way(method="POST", path=f"{BASE}/sign-up", name="auth.sign_up", do=_sign_up, takes=SignUp, statuses=(403, 502),
        doc="Ask for an account; the answer is the same whether or not the name is free."),
    Way(method="POST", path=f"{BASE}/login", name="auth.login", do=_log_in, takes=LogIn, gives=Grant, statuses=(401,),
        doc="Log in by name or e-mail address and password."),
    Way(method="POST", path=f"{BASE}/refresh", name="auth.refresh", do=_refresh, takes=Refresh, gives=Grant,
        statuses=(401,), doc="Exchange a refresh token for new tokens. Used a second time, it ends the session."),
    Way(method="POST", path=f"{BASE}/logout", name="auth.logout", do=_log_out, statuses=(401, 403, 404), bearer=True,
        doc="End the login of the bearer."),
    Way(method="POST", path=f"{BASE}/password/forgot", name="auth.forgot", do=_forgot, takes=Forgot,
        statuses=(501, 502), doc="Have a link sent to the address of an account; the answer is the same if there is none."),
    Way(method="POST", path=f"{BASE}/password/reset", name="auth.reset", do=_reset, takes=Reset, statuses=(401,),
        doc="Set a new password by the token of the link. Everything the account had open ends."),
    Way(method="POST", path=f"{BASE}/verify-email", name="auth.verify_email", do=_verify_email, takes=VerifyEmail,
        statuses=(401, 409), doc="Prove an e-mail address by the token of the link and the password."),
    Way(method="POST", path=f"{BASE}/local", name="auth.local", do=_local, takes=Local, gives=Grant, statuses=(401, 404),
        doc="Let in the person at this machine, by the secret in their data folder. Not in team mode."),
)  # fmt: skip
