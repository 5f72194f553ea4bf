"""One side of a migration at run time: an address, its password in memory, and the sessions opened with them."""

from __future__ import annotations

import msgspec

from dblens.engines import engine_of
from dblens.engines.base import Engine, Target, Url
from dblens.errors import NotFound


class Link:
    """Opens sessions on one database. The password is kept out of repr, pickles and tracebacks' locals of callers."""

    __slots__ = ("_password", "url")

    def __init__(self, url: Url, password: str | None = None) -> None:
        self.url = url
        self._password = password

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
        return self.engine.connect(self.url, self._password, create=create, read_only=read_only)

    def exists(self) -> Target | None:
        """Open a session, or return None when the database is missing."""
        try:
            return self.connect()
        except NotFound:
            return None

    def server(self) -> Target:
        """Open a session on the server's maintenance database, for a database that does not exist yet."""
        name = self.engine.facts.maintenance_database
        return self.engine.connect(msgspec.structs.replace(self.url, database=name), self._password)
