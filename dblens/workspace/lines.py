"""Sessions of stored connections: secrets fetched, limits applied, TLS and tunnel as the connection says. No door of its own.

Whoever comes here was authorized: the id was given by the gate. Alone on a laptop an argument may also be a `Link`, or the address of
a database.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

from dblens import engines
from dblens.engines import address
from dblens.engines.access import connect as access
from dblens.engines.access import guard
from dblens.engines.access.pool import Limits, Pool, Status
from dblens.engines.access.spec import SECRETS, ConnectionSpec, from_fields
from dblens.engines.base import Target
from dblens.errors import Conflict, NotFound, PermissionDenied
from dblens.migrate.link import Link
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import connections, references, secrets
from dblens.store.connections import Connection
from dblens.store.database import Store
from dblens.store.keys import Keyring
from dblens.workspace import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

Login = Literal["main", "read_only"]
PRUNE_SECONDS = 30.0
"""How often idle sessions are looked at, to end those that are too old."""


class Line(Link):
    """A stored connection as one side of a migration: every session goes through the checks of `engines.access`."""

    __slots__ = ("_guard", "_opened", "_policy", "_secrets", "connection", "spec")

    def __init__(
        self, connection: Connection, spec: ConnectionSpec, found: Mapping[str, Secret], policy: guard.Policy
    ) -> None:
        super().__init__(spec.to_url())
        self.connection, self.spec, self._secrets, self._policy = connection, spec, dict(found), policy
        self._opened: set[access.Opened] = set()
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"Line({self.connection.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Line holds secrets and is not pickled")

    def connect(self, *, create: bool = False, read_only: bool = False) -> Target:
        """Open a session. A connection that is marked read-only gives no other. Raises what `access.connect` raises."""
        return self._kept(self.open(self.spec, create=create, read_only=read_only))

    def server(self) -> Target:
        """Open a session on the server's maintenance database; where databases come into being by themselves, on its own."""
        there = self.engine.facts.maintenance_database
        if self.spec.engine == "sqlite":
            return super().server()  # a database in memory: it says what the engine can, and touches no file
        return self._kept(self.open(self.spec if there is None else msgspec.structs.replace(self.spec, database=there)))

    def beside(self, database: str) -> Line:
        """Return a line to another database with the same login, of SQLite another file, which need not exist. The caller closes it."""
        spec = self.spec
        if spec.engine == "sqlite":
            folder = os.path.dirname(spec.path or "")
            spec = msgspec.structs.replace(spec, path=os.path.join(folder, database))
        else:
            if self.engine.facts.documents and spec.user and not spec.auth_database:
                spec = msgspec.structs.replace(spec, auth_database="admin" if spec.srv else spec.database)
            spec = msgspec.structs.replace(spec, database=database)
        return Line(self.connection, spec.validate(), self._secrets, self._policy)

    def writable(self) -> None:
        """Refuse a connection that is marked read-only, before anything is planned. Raises PermissionDenied."""
        if self.connection.read_only:
            raise PermissionDenied(
                f"the connection {self.connection.name!r} is read-only", hint="use another, or have it changed"
            )

    def close(self) -> None:
        """Close every session that is still open, and the tunnels they stand on."""
        while True:
            with self._guard:
                if not self._opened:
                    return
                opened = self._opened.pop()
            opened.close()

    def _kept(self, opened: access.Opened) -> Target:
        """Return the session. When its user closes it, what it stands on goes too: a tunnel is a process."""
        session = opened.session

        def close() -> None:
            with self._guard:
                self._opened.discard(opened)
            with contextlib.suppress(AttributeError):
                del session.close  # its own again
            if opened.closed:  # on its way out: `opened` closes the session
                session.close()
            else:
                opened.close()

        with self._guard:
            self._opened.add(opened)
        session.close = close  # type: ignore[method-assign]
        return self.remembered(session)

    def open(
        self, spec: ConnectionSpec | None = None, *, create: bool = False, read_only: bool = False
    ) -> access.Opened:
        """Open a session that the caller closes, with what it stands on."""
        spec = self.spec if spec is None else spec
        if self.connection.read_only:
            if create:
                self.writable()
            read_only = True
        login: Login = "read_only" if read_only and spec.read_only_user else "main"
        return access.connect(spec, self.plain(), self._policy, login=login, read_only=read_only, create=create)

    def plain(self) -> dict[str, str]:
        """Return the secrets by their names, for what opens a session and keeps none of them."""
        return {name: secret.reveal() for name, secret in self._secrets.items()}


class Lines:
    """What a process knows of how to reach databases. Safe for several threads."""

    def __init__(self, store: Store, keyring: Keyring, settings: Settings, limits: Limits = Limits()) -> None:
        self._store, self._keyring, self.limits = store, keyring, limits
        self.policy = bounds.policy(settings)
        self.references = bounds.reference_policy(settings)
        self._team = settings.mode == "team"
        self._pools: dict[tuple[str, str, Login], tuple[int, Pool]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._timer: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Lines({len(self._pools)} pools)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("lines hold keys and are not pickled")

    @contextlib.contextmanager
    def link(self, org_id: str | None, reference: str | Link) -> Iterator[Link]:
        """Lend one side of a migration; what it opened is closed at the end. Raises NotFound, InvalidInput, VaultError.

        An address is for one's own machine: the gate refuses it to everybody else, and a team's service has no such machine.
        """
        if local_only(reference):
            if self._team:
                raise PermissionDenied("a raw address is for single-user mode only", hint="name a connection")
            if isinstance(reference, Link):
                yield reference
                return
            parsed, inline = address.parse(reference, allow_password=True)
            yield Link(parsed, inline)
            return
        assert isinstance(reference, str)
        line = self.line(org_id, reference)
        with contextlib.closing(line):
            yield line

    def line(self, org_id: str | None, connection_id: str) -> Line:
        """Return a stored connection with its secrets. The caller closes it. Raises NotFound, InvalidInput, VaultError."""
        if org_id is None:
            raise NotFound(f"no connection {connection_id!r}")
        with self._store.read() as tx:
            found = connections.get_connection(tx, org_id, connection_id)
            kept = {s.field for s in secrets.list_secrets(tx, org_id, connection_id)}
            sealed = {
                name: secrets.get(tx, self._keyring, org_id, connection_id, name) for name in SECRETS if name in kept
            }
        return Line(found, from_fields(found.fields), {n: self._resolved(s) for n, s in sealed.items()}, self.policy)

    def resolved(self, given: Mapping[str, Secret | references.Reference]) -> dict[str, str]:
        """Return secrets that no connection has yet, by their names. Raises InvalidInput, Unsupported, VaultError."""
        return {name: self._resolved(secret).reveal() for name, secret in given.items()}

    def _resolved(self, secret: Secret | references.Reference) -> Secret:
        return secret if isinstance(secret, Secret) else references.resolve(secret, self.references)

    # ------------------------------------------------------------------------------------------------------------------ pools

    @contextlib.contextmanager
    def session(self, org_id: str | None, connection_id: str, *, login: Login = "main") -> Iterator[Target]:
        """Lend a session of a connection's pool. Raises what `line` and the pool raise."""
        with self.pool(org_id, connection_id, login=login).borrow() as session:
            yield session

    def pool(self, org_id: str | None, connection_id: str, *, login: Login = "main") -> Pool:
        """Return the pool of a connection; its sessions are made anew when the connection was changed since, by any process.

        Only the version is read here: secrets are opened, and asked of whoever keeps them, once for each session.
        """
        if org_id is None:
            raise NotFound(f"no connection {connection_id!r}")
        try:
            with self._store.read() as tx:
                found = connections.get_connection(tx, org_id, connection_id)
        except NotFound:
            self._close(lambda key: key[:2] == (org_id, connection_id))
            raise

        def opened() -> access.Opened:
            line = self.line(org_id, connection_id)
            return line.open(read_only=line.connection.read_only or login == "read_only")

        key = org_id, connection_id, login
        with self._guard:
            if self._stop.is_set():
                raise Conflict("the sessions of this process are closed", hint="open the workspace again")
            there = self._pools.get(key)
            if there is None:
                there = self._pools[key] = (found.version, Pool(opened, self.limits))
                self._watch()
            elif there[0] < found.version:
                there[1].renew()
                self._pools[key] = (found.version, there[1])
            return there[1]

    def reading(self, org_id: str | None, connection_id: str) -> Pool:
        """Return the pool for what only reads: of the read-only login where there is one, of a file opened for reading."""
        if org_id is None:
            raise NotFound(f"no connection {connection_id!r}")
        with self._store.read() as tx:
            found = connections.get_connection(tx, org_id, connection_id)
        a_file = engines.get(found.engine).default_port is None
        login: Login = "read_only" if a_file or found.fields.get("read_only_user") else "main"
        return self.pool(org_id, connection_id, login=login)

    def status(self, connection_id: str) -> dict[str, Status]:
        """Return what the pools of a connection hold now, by login; nothing when it was not used yet."""
        with self._guard:
            pools = [(login, pool) for (_, id, login), (_, pool) in self._pools.items() if id == connection_id]
        return {login: pool.status() for login, pool in pools}

    def changed(self, connection_id: str) -> None:
        """End the idle sessions of a connection that was changed: they are logged in as it was before."""
        with self._guard:
            found = [pool for (_, id, _), (_, pool) in self._pools.items() if id == connection_id]
        for pool in found:
            pool.renew()

    def forget(self, connection_id: str) -> None:
        """Close the pools of a connection: it was deleted."""
        self._close(lambda key: key[1] == connection_id)

    def _close(self, which: Callable[[tuple[str, str, Login]], bool]) -> None:
        with self._guard:
            pools = [self._pools.pop(key)[1] for key in list(self._pools) if which(key)]
        for pool in pools:
            pool.close()

    def prune(self) -> int:
        """End idle sessions that are too old; return how many."""
        with self._guard:
            pools = [pool for _, pool in self._pools.values()]
        return sum(pool.prune() for pool in pools)

    def close(self) -> None:
        """Close every pool."""
        with self._guard:
            self._stop.set()
            timer, self._timer = self._timer, None
        self._close(lambda _: True)
        if timer is not None:
            timer.join()

    def _watch(self) -> None:
        """Begin to look after the pools, with the first of them."""
        if self._timer is None:
            self._timer = threading.Thread(target=self._prunes, name="dblens-pools", daemon=True)
            self._timer.start()

    def _prunes(self) -> None:
        while not self._stop.wait(PRUNE_SECONDS):
            self.prune()


def local_only(reference: str | Link) -> bool:
    """Return whether an argument is no stored connection but an address, for one's own machine only."""
    return isinstance(reference, Link) or "://" in reference or reference.lower().startswith("sqlite:")
