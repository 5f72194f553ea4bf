"""Whose request it is: the bearer in its header and nothing else, no cookie, no header that a proxy or anybody may set.

`X-DBLens-Organization` chooses the organization (id or short name, percent-encoded), `X-DBLens-As: super_admin` asks for that role.
The address is what the server saw; only the proxies in `trusted_proxies` may name another (uvicorn looks at that).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import secrets
import threading
import urllib.parse
from pathlib import Path
from typing import Final

import msgspec
from starlette.requests import Request

from dblens.accounts.base import Caller
from dblens.api.problems import Refusal, Rejected
from dblens.errors import DBLensError, InvalidInput, NotAuthenticated, NotFound, StoreError
from dblens.redaction import Secret
from dblens.store.audit import Entry
from dblens.store.records import new_id
from dblens.store.sessions import clip
from dblens.workspace import entrance
from dblens.workspace.house import House
from dblens.workspace.principal import Principal

ORGANIZATION: Final = "X-DBLens-Organization"
AS: Final = "X-DBLens-As"
LOCAL: Final = "dbl_loc_"
LOCAL_FILE: Final = "local-secret"
_LIFETIME: Final = dt.timedelta(hours=12)
_LONGEST: Final = 4096
_MOST: Final = 1000


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a request's headers say of who it is from. Shown nowhere."""

    bearer: Secret | None
    organization: str | None
    super_admin: bool
    caller: Caller

    def __repr__(self) -> str:
        return "Wish()"


def caller(request: Request) -> Caller:
    """Return where a request comes from, as the server saw it."""
    address = request.client.host if request.client is not None else "unix"
    return Caller(address=address, client=clip(request.headers.get("user-agent", ""), 255))


def wish(request: Request) -> Wish:
    """Read the headers. Raises Refusal for one that is no such header."""
    wrong: list[Rejected] = []
    organization = _one(request, ORGANIZATION, wrong)
    if organization is not None:
        try:
            organization = urllib.parse.unquote(organization, errors="strict")
        except UnicodeDecodeError:
            wrong.append(Rejected(field=ORGANIZATION, message="not UTF-8"))
            organization = None
        if organization is not None and (not organization or len(organization) > 255 or "\0" in organization):
            wrong.append(Rejected(field=ORGANIZATION, message="the id or short name of an organization"))
    role = _one(request, AS, wrong)
    if role not in (None, "super_admin"):
        wrong.append(Rejected(field=AS, message="only super_admin can be asked for"))
    if wrong:
        told = "; ".join(f"{each.field}: {each.message}" for each in wrong)
        raise Refusal(422, told, fields=wrong)
    return Wish(
        bearer=_bearer(request),
        organization=organization,
        super_admin=role is not None,
        caller=caller(request),
    )


def _one(request: Request, name: str, wrong: list[Rejected]) -> str | None:
    found = request.headers.getlist(name)
    if len(found) > 1:
        wrong.append(Rejected(field=name, message="given more than once"))
    return found[0] if found else None


def _bearer(request: Request) -> Secret | None:
    found = request.headers.getlist("authorization")
    if len(found) != 1 or len(found[0]) > _LONGEST:
        return None
    scheme, _, token = found[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii() or " " in token:
        return None
    return Secret(token)


class Identity:
    """Finds out who asks. `local` is the secret of the person at this machine, None where there is no such person."""

    def __init__(self, house: House, local: Secret | None = None) -> None:
        self.house, self.local = house, local
        self._tokens: dict[bytes, dt.datetime] = {}
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return "Identity()"

    def principal(self, wish: Wish, *, operation: str | None = None) -> Principal:
        """Return who asks. Raises NotAuthenticated, PermissionDenied, NotFound for an organization of others."""
        if wish.bearer is None:
            raise NotAuthenticated(
                "nobody is logged in", hint="send `Authorization: Bearer …`; `dblens login` gets one"
            )
        if wish.bearer.reveal().startswith(LOCAL):
            return self._local(wish)
        return entrance.authenticate(
            self.house,
            wish.bearer,
            wish.caller,
            organization=wish.organization,
            super_admin=wish.super_admin,
            operation=operation,
        )

    # --------------------------------------------------------------------------------------------- the person at this machine

    def enter(self, given: Secret, who: Caller) -> tuple[str, dt.datetime]:
        """Exchange the secret of this machine for a token of this process. Raises NotAuthenticated, NotFound where there is none."""
        if self.local is None:
            raise NotFound("no such way in", hint="log in with name and password")
        right = hmac.compare_digest(_digest(given.reveal()), _digest(self.local.reveal()))
        error = (
            None
            if right
            else NotAuthenticated("the secret is wrong", hint=f"it lies in {LOCAL_FILE!r} in the data folder")
        )
        self._tell(who, error)
        if error is not None:
            raise error
        token, now = LOCAL + secrets.token_urlsafe(32), self.house.clock()
        with self._guard:
            self._tokens = {key: until for key, until in self._tokens.items() if until > now}
            while len(self._tokens) >= _MOST:
                del self._tokens[min(self._tokens, key=lambda key: self._tokens[key])]
            self._tokens[_digest(token)] = now + _LIFETIME
        return token, now + _LIFETIME

    def leave(self, bearer: Secret) -> bool:
        """End a token of this process; say whether it was one."""
        with self._guard:
            return self._tokens.pop(_digest(bearer.reveal()), None) is not None

    def _local(self, wish: Wish) -> Principal:
        assert wish.bearer is not None
        with self._guard:
            until = self._tokens.get(_digest(wish.bearer.reveal()))
        if self.local is None or until is None or until <= self.house.clock():
            raise NotAuthenticated("the login is not valid any more", hint="log in again")
        if wish.super_admin:
            raise InvalidInput("the person at this machine is no super_admin", hint="log in with an account")
        owner = self.house.owner
        if wish.organization not in (None, owner.org_id):
            raise NotFound(f"no organization {wish.organization!r}")
        return msgspec.structs.replace(owner, client=wish.caller.client, address=wish.caller.address)

    def _tell(self, who: Caller, error: DBLensError | None) -> None:
        self.house.journal.write(
            Entry(
                at=self.house.clock(),
                phase="denied" if error is not None else "ended",
                action="account.log_in",
                actor_id=None if error is not None else self.house.owner.user_id,
                actor="" if error is not None else self.house.owner.name,
                outcome=error.code if error is not None else "ok",
                client=who.client,
                address=clip(who.address, 64),
                run_id=new_id(),
                detail={"as": "local"},
            )
        )


def local_secret(folder: Path) -> Secret:
    """Return the secret of the person at this machine, made at the first use; only they can read its file. Raises StoreError."""
    path = folder / LOCAL_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            text = file.read(200).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} cannot be used: {type(error).__name__}", hint="it is a file of yours, chmod 600"
        ) from error
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise StoreError(f"{path} can be read by others", hint=f"remove it: `rm {path}`; a new one is made")
    if len(text) < 32:
        raise StoreError(f"{path} holds no secret", hint=f"remove it: `rm {path}`; a new one is made")
    return Secret(text)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
