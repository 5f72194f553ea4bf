"""Whose token a request carries: the environment's, a file's, or the login that this user made here with `dblens login`.

A login is a file of one service's address, 0600 in a folder 0700. Its refresh token is good once: whoever renews holds the file's lock,
reads it again, and writes the new tokens before anybody else may look. So two processes never use the same refresh token, which the
service would take for a theft. It is never sent a second time either when its answer was lost: then the user logs in again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from dblens.client.address import whole_token
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, StoreError
from dblens.redaction import Secret
from dblens.settings import Settings

EARLY: Final = dt.timedelta(seconds=30)
"""How long before its end a token is renewed: clocks differ, and a request takes its time."""
_LONGEST: Final = 64 * 1024
_LOCK_SECONDS: Final = 30.0

Renew = Callable[[Secret], "Login"]


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a login: tokens of a session, or an access token that was given (then there is nothing to renew)."""

    url: str
    user: str
    access: Secret
    access_expires_at: dt.datetime | None = None
    refresh: Secret | None = None
    refresh_expires_at: dt.datetime | None = None

    def __reduce__(self) -> Any:
        raise TypeError("a login is not pickled")


class Given:
    """A token that was given: there is no other."""

    def __init__(self, token: Secret) -> None:
        self._token = whole_token(token.reveal(), "DBLENS_TOKEN")

    def get(self) -> Secret:
        """Return it."""
        return self._token

    def renew(self, used: Secret) -> Secret | None:  # noqa: ARG002
        """Return None."""
        return None


class InFile:
    """A token in a file that only its owner can read; read again when it changes, because whoever put it there may renew it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self) -> Secret:
        """Return what the file holds. Raises InvalidInput."""
        return whole_token(_read(self._path).decode("utf-8", "replace").strip(), str(self._path))

    def renew(self, used: Secret) -> Secret | None:
        """Return what the file holds now, None when that was refused."""
        found = self.get()
        return None if found == used else found


class Kept:
    """The tokens of a login that this user made here."""

    def __init__(self, folder: Path, url: str, renew: Renew, *, now: Callable[[], dt.datetime]) -> None:
        self._file, self._url, self._renew, self._now = LoginFile(folder, url), url, renew, now
        self._guard = threading.Lock()
        self._login: Login | None = None

    def get(self) -> Secret:
        """Return a token that is good for a while, renewed when it must be. Raises NotAuthenticated when nobody is logged in."""
        with self._guard:
            found = self._login
            if found is None or self._ends(found):
                found = self._login = self._file.read()
            if found is not None and self._ends(found):
                found = self._login = self._renewed(found.access)
            if found is None:
                raise NotAuthenticated(
                    f"nobody is logged in to {self._url}", hint=f"`dblens login {self._url}`, or DBLENS_TOKEN"
                )
            return found.access

    def renew(self, used: Secret) -> Secret | None:
        """Return another token than the refused one, or None. Raises NotAuthenticated when the login has ended."""
        with self._guard:
            found = self._login = self._renewed(used)
            return None if found is None or found.access == used else found.access

    def _ends(self, login: Login) -> bool:
        return login.access_expires_at is not None and login.access_expires_at - EARLY <= self._now()

    def _renewed(self, used: Secret) -> Login | None:
        with self._file.locked():
            found = self._file.read()
            if found is None or found.refresh is None:
                return found
            if found.access != used and not self._ends(found):
                return found  # another process was quicker
            try:
                fresh = self._renew(found.refresh)
            except NotAuthenticated:
                self._file.delete()
                ended: NotAuthenticated = NotAuthenticated(
                    f"the login at {self._url} has ended", hint=f"`dblens login {self._url}`"
                )
            else:
                self._file.write(fresh)
                return fresh
        raise ended


class LoginFile:
    """The login at one address, in a file that only this user can read."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        self.path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def read(self) -> Login | None:
        """Return the login, None when there is none. Raises InvalidInput for a file that others can read or that is broken."""
        try:
            octets = _read(self.path)
        except FileNotFoundError:
            return None
        try:
            found = msgspec.json.decode(octets, type=Login, dec_hook=_secret)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = None
        if found is None or found.url != self._url:
            raise InvalidInput(f"{self.path} is no login at {self._url}", hint="`dblens logout`, then log in again")
        return found

    def write(self, login: Login) -> None:
        """Keep a login in place of what was there, whole or not at all."""
        self._folder()
        beside = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(login, enc_hook=_shown))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise

    def delete(self) -> None:
        """Forget the login."""
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one, of all processes of this user, that changes the file. Raises Conflict after half a minute."""
        import fcntl

        self._folder()
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            ends = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > ends:
                        raise Conflict(
                            f"another process holds the login at {self._url}", hint="wait for it, then try again"
                        ) from None
                time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def _folder(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            raise StoreError(f"no folder {folder} for logins: {error.strerror}") from None
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
            raise InvalidInput(f"{folder} is not yours alone", hint=f"chmod 700 {folder}")


def folder(settings: Settings) -> Path:
    """Return where the logins of this user lie."""
    return settings.data_folder / "logins"


def _read(path: Path) -> bytes:
    """Return what a file holds. Raises FileNotFoundError, and InvalidInput when others can read it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise InvalidInput(f"{path} holds a token and can be read by others", hint=f"chmod 600 {path}")
        if found.st_uid not in (os.geteuid(), 0):
            raise InvalidInput(f"{path} holds a token and is another user's")
        return file.read(_LONGEST)


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("expected a text")


def _shown(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"no way to write {type(value).__name__}")
