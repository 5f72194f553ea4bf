"""One side of a migration at run time: an address, its password in memory, and the sessions opened with them."""

from __future__ import annotations

import weakref
from contextlib import suppress

import msgspec

from dblens.engines import address, engine_of
from dblens.engines.base import Engine, Target, Url
from dblens.errors import EngineError, NotFound


class Link:
    """Opens sessions on one database. The password is kept out of repr, pickles and tracebacks' locals of callers."""

    __slots__ = ("_password", "_sessions", "url")

    def __init__(self, url: Url, password: str | None = None) -> None:
        self.url = url
        self._password = password
        self._sessions: list[weakref.ref[Target]] = []

    def __repr__(self) -> str:
        return f"Link({str(self.url)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Link holds a password and is not pickled")

    @property
    def engine(self) -> Engine:
        """Return the engine that the URL names."""
        return engine_of(self.url)

    def connect(self, *, create: bool = False, read_only: bool = False) -> Target:
        """Open a session. Raises what the engine's `connect` raises."""
        return self.remembered(self.engine.connect(self.url, self._password, create=create, read_only=read_only))

    def exists(self) -> Target | None:
        """Open a session, or return None when the database is missing."""
        try:
            return self.connect()
        except NotFound:
            return None

    def server(self) -> Target:
        """Open a session on the server's maintenance database, for a database that does not exist yet."""
        name = self.engine.facts.maintenance_database
        return self.remembered(self.engine.connect(msgspec.structs.replace(self.url, database=name), self._password))

    def remembered(self, session: Target) -> Target:
        """Return the session, which `cancel` will reach."""
        self._sessions = [ref for ref in self._sessions if ref() is not None]
        self._sessions.append(weakref.ref(session))
        return session

    def cancel(self) -> None:
        """Stop what the sessions run now, from any thread. One that is closed by now has nothing to stop."""
        for ref in list(self._sessions):
            session = ref()
            if session is not None:
                with suppress(EngineError):
                    session.cancel()


def link(url: str, password: str | None = None, *, allow_password: bool = False) -> Link:
    """Return a link to the database at `url`. Raises InvalidInput for a URL with a password unless allowed."""
    parsed, inline = address.parse(url, allow_password=allow_password)
    return Link(parsed, password if password is not None else inline)


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than the name of a stored connection."""
    return "://" in text or text.lower().startswith("sqlite:")


def side(text: str, password: str | None = None) -> Link | str:
    """Return a name as it is, an address as a link. Raises InvalidInput for a URL with a password."""
    return link(text, password) if is_address(text) else text
