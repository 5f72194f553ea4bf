"""Log in to a service and out of it again; where the tokens are kept is `tokens`."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from dblens.client.address import address
from dblens.client.service import Answer, Service
from dblens.client.tokens import Given, Kept, Login, LoginFile, folder
from dblens.errors import ConnectionFailed
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.workspace.wire import PREFIX


class _Nobody:
    """No token: for what is asked before one is had."""

    def get(self) -> Secret | None:
        return None

    def renew(self, used: Secret) -> Secret | None:  # noqa: ARG002
        return None


class _Who(msgspec.Struct, frozen=True):
    name: str = ""


class _Grant(msgspec.Struct, frozen=True):
    """What the service gives to who logs in."""

    access: Secret
    access_expires_at: dt.datetime
    refresh: Secret | None = None
    refresh_expires_at: dt.datetime | None = None
    name: str | None = None
    must_change: bool = False


def now() -> dt.datetime:
    """Return the present moment."""
    return dt.datetime.now(dt.UTC)


def log_in(url: str, name: str, password: Secret) -> tuple[Login, bool]:
    """Log in by name and password; return what to keep, and whether the password has to be changed first.

    Raises NotAuthenticated, RateLimited, ConnectionFailed, InvalidInput.
    """
    url = address(url)
    found = _asked(url, "login", {"name": name, "password": password})
    return _kept(url, found), found.must_change


def refreshed(url: str, refresh: Secret) -> Login:
    """Exchange a refresh token for new tokens; it is good once. Raises NotAuthenticated, ConnectionFailed."""
    return _kept(url, _asked(url, "refresh", {"refresh": refresh}))


def taken(url: str, token: Secret) -> Login:
    """Return an access token as a login, after the service took it. Raises NotAuthenticated, ConnectionFailed."""
    url = address(url)
    service = Service(url, Given(token))
    try:
        answer = service.request("GET", f"{PREFIX}/account")
    finally:
        service.close()
    try:
        found = msgspec.json.decode(answer.body, type=_Who)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = _Who()
    return Login(url=url, user=found.name, access=token)


def log_out(settings: Settings, url: str) -> None:
    """End the session of the login that is kept here, in the service. Raises ConnectionFailed, NotAuthenticated when it has ended."""
    service = Service(url, kept(settings, url))
    try:
        service.request("POST", f"{PREFIX}/auth/logout", safe=True)
    finally:
        service.close()


def kept(settings: Settings, url: str) -> Kept:
    """Return the tokens of the login that this user made here."""
    url = address(url)
    return Kept(folder(settings), url, lambda refresh: refreshed(url, refresh), now=now)


def keep(file: LoginFile, login: Login) -> None:
    """Keep a login in place of the one before."""
    with file.locked():
        file.write(login)


def _asked(url: str, what: str, given: dict[str, Any]) -> _Grant:
    service = Service(url, _Nobody())
    try:
        answer = service.request(
            "POST", f"{PREFIX}/auth/{what}", body=lambda: msgspec.json.encode(given, enc_hook=Secret.reveal)
        )
    finally:
        service.close()
    found = _read(answer)
    if found is None:
        raise ConnectionFailed(f"{url} answers to a login what is none", hint="is it a DBLens service?")
    return found


def _read(answer: Answer) -> _Grant | None:
    """Return what an answer holds; nothing of it may get into a traceback."""
    try:
        return msgspec.json.decode(answer.body, type=_Grant, dec_hook=lambda _, text: Secret(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return None


def _kept(url: str, found: _Grant) -> Login:
    return Login(
        url=url,
        user=found.name or "",
        access=found.access,
        access_expires_at=found.access_expires_at,
        refresh=found.refresh,
        refresh_expires_at=found.refresh_expires_at,
    )
