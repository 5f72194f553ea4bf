"""Two workspaces over stores that are alike: in this process, and of a service that a real uvicorn serves on loopback."""

from __future__ import annotations

import datetime as dt
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from dblens.accounts.base import Caller
from dblens.api.app import create_app
from dblens.api.limits import Rates
from dblens.client import connect
from dblens.client.login import log_in
from dblens.errors import DBLensError
from dblens.events import Event, Progress
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.version import __version__
from dblens.workspace import Workspace, entrance
from dblens.workspace.house import House

NAME, PASSWORD = "ann", Secret("a long-enough passphrase 42")
CALLER = Caller(address="127.0.0.1", client=f"dblens/{__version__}")


class Served:
    """A service in a thread."""

    def __init__(self, house: House, *, port: int = 0, **more: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        plenty = Rates(**dict.fromkeys(Rates.__struct_fields__, "100000/minute"))
        app = create_app(house, rates=plenty, **more)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)
        self.thread.start()
        ends = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < ends, "the service does not start"
            time.sleep(0.01)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.listener.close()


class World:
    """A store with one person in it, and the workspace they have there."""

    def __init__(self, folder: Path, house: House, workspace: Workspace, super_admin: Workspace) -> None:
        self.folder, self.house, self.workspace, self.super_admin = folder, house, workspace, super_admin
        self.databases = (folder / "databases").resolve()
        self.heard: list[Event] = []


def settle(folder: Path) -> tuple[House, Settings]:
    """Make a store with one person and their organization."""
    folder.mkdir(parents=True, exist_ok=True)
    databases = folder / "databases"
    databases.mkdir(mode=0o700, exist_ok=True)
    settings = Settings(
        store_url=f"sqlite:///{folder}/store.sqlite", data_folder=folder, sqlite_roots=(databases.resolve(),)
    )
    house = House.open(settings)
    code = entrance.set_up_code(house)
    assert code is not None
    entrance.set_up(house, NAME, PASSWORD, CALLER, code=code, email="ann@example.org", organization="Acme")
    return house, settings


@contextmanager
def here(folder: Path) -> Iterator[World]:
    """The workspace in this process."""
    house, _ = settle(folder)
    heard: list[Event] = []
    try:
        done = entrance.log_in(house, NAME, PASSWORD, CALLER, kind="api")
        who = entrance.authenticate(house, Secret(done.tokens.access), CALLER)
        above = entrance.authenticate(house, Secret(done.tokens.access), CALLER, super_admin=True)
        world = World(folder, house, house.workspace(who, report=heard.append), house.workspace(above))
        world.heard = heard
        yield world
    finally:
        house.close()


@contextmanager
def there(folder: Path) -> Iterator[World]:
    """The workspace of a service."""
    house, _ = settle(folder)
    served = Served(house)
    heard: list[Event] = []
    try:
        made, _ = log_in(served.url, NAME, PASSWORD)
        mine = Settings(store_url="sqlite:////nowhere", data_folder=folder / "mine", url=served.url, token=made.access)
        workspace = connect(mine, report=heard.append)
        world = World(folder, house, workspace, connect(mine, super_admin=True))
        world.heard = heard
        yield world
        workspace.close()  # type: ignore[attr-defined]
        world.super_admin.close()  # type: ignore[attr-defined]
    finally:
        served.close()
        house.close()


# ------------------------------------------------------------------------------------------------------------------------ compare


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error it raises, as something to compare."""
    try:
        return call()
    except DBLensError as error:
        return error


class Shown:
    """Makes values comparable: classes and all fields, with ids by their order, and without times and measured durations."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.ids: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, DBLensError):
            return type(value).__name__, self.text(value.message), self.text(value.hint or "")
        if isinstance(value, msgspec.Struct):
            fields = {name: self.field(name, getattr(value, name)) for name in value.__struct_fields__}
            return type(value).__qualname__, fields
        if isinstance(value, dict):  # of anything, and JSON has one kind of list
            return {self(key): _lists(self.field(str(key), each)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value).__name__, [self(each) for each in value]
        if isinstance(value, dt.datetime):
            return "a time", value.tzinfo is not None
        if isinstance(value, Secret):
            return "Secret"
        return self.text(value) if isinstance(value, str) else value

    def field(self, name: str, value: Any) -> Any:
        if (name in _MEASURED or name.endswith("_ms")) and not isinstance(value, msgspec.Struct) and value is not None:
            return type(value).__name__
        if (
            name == "after" and isinstance(value, str) and value.isdigit()
        ):  # reads get their numbers when they are written
            return "a number"
        return self(value)

    def text(self, text: str) -> str:
        text = text.replace(self.folder, "FOLDER")
        text = _TIME.sub("TIME", text)
        return _ID.sub(lambda found: self.ids.setdefault(found[0], f"id{len(self.ids)}"), text)


def _lists(shown: Any) -> Any:
    return ("list", shown[1]) if isinstance(shown, tuple) and shown[:1] == ("tuple",) else shown


_ID = re.compile(
    r"(?<![0-9a-zA-Z])(?:[0-9a-f]{10}|[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{64})(?![0-9a-zA-Z])|\bdbl_[a-z]+_[A-Za-z0-9_-]+"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.0-9]*(Z|[+-]\d\d:\d\d)?")
_MEASURED = {
    "microseconds",
    "milliseconds",
    "seconds",
    "bytes",
    "mac",
    "previous",
    "worker",
    "number",
    "prefix",
    "age",
    "stages",
    "target_free",
    "token",
    "first_row_seconds",
    "confirm",
    "query",
}


def steps(heard: list[Event]) -> list[Any]:
    """Return what was heard, without how far it was and how long it took: a service says the first now and then."""
    shown = []
    for event in heard:
        if not isinstance(event, Progress):
            fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "seconds"}
            shown.append((type(event).__name__, fields))
    return shown
