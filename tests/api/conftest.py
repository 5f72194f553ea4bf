"""A team's service: two organizations, a user for each role, logins without the cost of a password; over ASGI and over a real socket."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from dblens.accounts import login
from dblens.accounts.base import Caller
from dblens.api.app import create_app
from dblens.api.limits import Rates
from dblens.settings import Settings
from dblens.store import accounts, connections, organizations
from dblens.store.keys import make_key
from dblens.store.records import now
from dblens.workspace import entrance
from dblens.workspace.house import House
from tests.api import doors

ROLES = ("admin", "developer", "analyst", "auditor", "viewer")
HERE = Caller(address="127.0.0.1", client="tests")


def team_settings(folder: Path, **more: Any) -> Settings:
    for name in ("kek", "audit"):
        if not (folder / name).exists():
            make_key(folder / name)
    return Settings(
        store_url=f"sqlite:///{folder / 'store.sqlite'}",
        mode="team",
        data_folder=folder,
        kek_file=folder / "kek",
        audit_key_file=folder / "audit",
        **more,
    )


class World:
    """Who there is. `token("acme", "admin")` is a login of now."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.users: dict[tuple[str, str], accounts.User] = {}
        self.orgs: dict[str, str] = {}
        self.connections: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        with house.store.write() as tx:
            root = accounts.create_user(tx, "root", super_admin=True, now=now())
            self.users["", "super_admin"] = root
            for org in ("acme", "beta"):
                made = organizations.create_organization(tx, org, now=now())
                self.orgs[org] = made.id
                for role in ROLES:
                    user = accounts.create_user(tx, f"{role}-{org}", now=now())
                    found = organizations.find_role(tx, made.id, role)
                    organizations.add_member(tx, made.id, user.id, found.id, now=now())
                    organizations.set_current(tx, user.id, made.id)
                    self.users[org, role] = user

    def user(self, org: str, role: str) -> accounts.User:
        return self.users[org, role]

    def token(self, org: str, role: str, *, fresh: bool = False) -> str:
        if fresh or (org, role) not in self._tokens:
            at = entrance.accounts_of(self.house)
            made = login.open_session(at, self._current(org, role), HERE, kind="api").tokens.access
            if fresh:
                return made
            self._tokens[org, role] = made
        return self._tokens[org, role]

    def _current(self, org: str, role: str) -> accounts.User:
        with self.house.store.read() as tx:
            return accounts.get_user(tx, self.users[org, role].id)

    def headers(self, org: str, role: str, **more: str) -> dict[str, str]:
        if role == "super_admin":
            return {**self.root(org), **more}
        found = {"Authorization": f"Bearer {self.token(org, role)}"}
        return {**found, **more}

    def root(self, org: str = "acme") -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.token('', 'super_admin')}",
            "X-DBLens-As": "super_admin",
            "X-DBLens-Organization": org,
        }

    def connection(self, org: str, name: str = "shop") -> str:
        key = f"{org}/{name}"
        if key not in self.connections:
            with self.house.store.write() as tx:
                made = connections.create_connection(
                    tx,
                    self.orgs[org],
                    owner_id=self.users[org, "developer"].id,
                    name=name,
                    engine="postgres",
                    fields={"engine": "postgres", "host": "127.0.0.1", "database": "shop"},
                    now=now(),
                )
            self.connections[key] = made.id
        return self.connections[key]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House.open(team_settings(tmp_path_factory.mktemp("team")))
    yield made
    made.close()


@pytest.fixture(scope="module")
def world(house: House) -> World:
    return World(house)


FAST = Rates(principal="100000/second", address="100000/second", stranger="100000/second")


@pytest.fixture(scope="module")
def app(house: House) -> Any:
    return create_app(house, rates=FAST)


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://service", raise_server_exceptions=False, client=("127.0.0.1", 50000)) as made:
        yield made


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application, or what a `uvicorn.Config` says, on a port of this machine, in a thread; yield its address."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(256)
    config = app if isinstance(app, uvicorn.Config) else uvicorn.Config(
        app, lifespan="on", loop="asyncio", ws="none", log_config=None, access_log=False, proxy_headers=False
    )  # fmt: skip
    config.timeout_graceful_shutdown = 3
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.fixture(scope="module")
def live(app: Any) -> Iterator[str]:
    with serving(app) as url:
        yield url


def until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something is true; say whether it became so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return true()


@pytest.fixture(scope="module")
def things(house: House) -> Any:
    """The service over the doors of the tests."""
    return create_app(house, rates=FAST, table=doors.TABLE, workspace=lambda who: things_of(house, who))


def things_of(house: House, who: Any) -> doors.Workspace:
    return doors.Workspace(house.context(who, background=True), house.workspace(who, background=True))


@pytest.fixture(scope="module")
def thing(things: Any) -> Iterator[TestClient]:
    with TestClient(things, base_url="http://service", raise_server_exceptions=False, client=("127.0.0.1", 5)) as made:
        yield made


@pytest.fixture(scope="module")
def live_things(things: Any) -> Iterator[str]:
    with serving(things) as url:
        yield url
