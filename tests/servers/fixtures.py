"""One session-wide server per kind, started by the first test that asks for it.

A server that cannot be had is a skip with its reason; with DBLENS_REQUIRE_SERVERS=1 (tests/run.sh, CI) it is a
failure. MySQL may always be missing: Debian's unstable suite moves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import pytest

from tests.servers import MariaDB, Mongo, MySQL, Postgres, Server, ServerMissing, SQLite

S = TypeVar("S", bound=Server)
MISSING = "server missing: "
KINDS: dict[str, Callable[[], Server]] = {
    "pg15": lambda: Postgres(15),
    "pg18": lambda: Postgres(18),
    "mariadb": MariaDB,
    "mysql": MySQL,
    "sqlite": SQLite,
    "mongo": Mongo,
}
MAY_BE_MISSING = {"mysql"}
_started: dict[str, Server] = {}


def missing(kind: str, reason: object) -> NoReturn:
    """Skip, or fail where the server is required."""
    message = f"{MISSING}{kind}: {' '.join(str(reason).split())}"
    if os.environ.get("DBLENS_REQUIRE_SERVERS") == "1" and kind not in MAY_BE_MISSING:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def require(kind: str) -> Server:
    """The session's server of a kind, started; for tests that pick engines by parameter."""
    if kind not in _started:
        server = KINDS[kind]()
        try:
            _started[kind] = server.start()
        except ServerMissing as reason:
            missing(kind, reason)
    return _started[kind]


def revive() -> None:
    """Start servers again that a crash test left dead, so that the next test finds them."""
    for server in _started.values():
        server.start()


def close() -> None:
    """Close the session's servers."""
    while _started:
        _started.popitem()[1].close()


def _typed(kind: str, cls: type[S]) -> S:
    server = require(kind)
    assert isinstance(server, cls)
    return server


@pytest.fixture(scope="session")
def pg15() -> Postgres:
    """PostgreSQL 15."""
    return _typed("pg15", Postgres)


@pytest.fixture(scope="session")
def pg18() -> Postgres:
    """PostgreSQL 18."""
    return _typed("pg18", Postgres)


@pytest.fixture(scope="session")
def mariadb() -> MariaDB:
    """MariaDB 10.11."""
    return _typed("mariadb", MariaDB)


@pytest.fixture(scope="session")
def mysql() -> MySQL:
    """MySQL 9.7."""
    return _typed("mysql", MySQL)


@pytest.fixture(scope="session")
def sqlite() -> SQLite:
    """SQLite: a folder of files."""
    return _typed("sqlite", SQLite)


@pytest.fixture(scope="session")
def mongo() -> Mongo:
    """The Mongo-wire server."""
    return _typed("mongo", Mongo)


@pytest.fixture
def new_database() -> Iterator[Callable[..., str]]:
    """`new_database(server, **options) -> url` of a database that is dropped after the test."""
    made: list[tuple[Server, str]] = []

    def create(server: Server, **options: str) -> str:
        url = server.create_database(**options)
        made.append((server, url.partition("?")[0].rpartition("/")[2]))
        return url

    yield create
    for server, name in reversed(made):
        if server.running:
            server.drop_database(name)
