"""A Mongo-wire server from PyPI (`secantusdb`), as a process of its own; see CONTRIBUTING for what it proves."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pymongo import MongoClient

from tests.servers.process import LOW_USER, PASSWORD, USER, ServerMissing, ServerProcess, new_name

Client = MongoClient[dict[str, Any]]


class Mongo(ServerProcess):
    """One Python process that speaks MongoDB's protocol over real WiredTiger storage."""

    name, title = "mongo", "Mongo-wire server"
    # It runs from the tests' own virtual environment, which an unprivileged user often cannot look into.
    account_needed = False

    def __init__(self, *, durable: bool = False, auth: bool = False) -> None:
        super().__init__()
        self.durable, self.auth = durable, auth
        self._enforced = False

    def prepare(self, folder: Path) -> None:
        if importlib.util.find_spec("secantus") is None:
            raise ServerMissing("the Mongo-wire server comes from PyPI; pip install secantusdb")

    def command(self, folder: Path) -> list[str]:
        flags = (["--sync-on-commit"] if self.durable else []) + (["--auth"] if self._enforced else [])
        # -I: nothing but the environment's own packages; --config: no file of the developer's home is read.
        start = [sys.executable, "-I", "-c", "from secantus.cli import main; raise SystemExit(main())"]
        config = folder / "secantusd.toml"
        config.touch()
        return [
            *start, "--config", str(config), "--host", "127.0.0.1", "--port", str(self.port),
            "--storage-path", str(folder / "data"), "--cache-size", "256M", "--log-level", "WARNING", *flags,
        ]  # fmt: skip

    def start(self) -> Self:
        """Start; with `auth`, the first start makes the users and the second one asks for them."""
        super().start()
        if self.auth and not self._enforced:
            with self.connect() as client:
                client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
                nothing = [{"role": "read", "db": "admin"}]
                client.admin.command("createUser", LOW_USER, pwd=PASSWORD, roles=nothing)
            self.stop()
            self._enforced = True
            super().start()
        return self

    def close(self) -> None:
        super().close()
        self._enforced = False

    def connect(self) -> Client:
        """A client with every right."""
        return MongoClient(self.url(), serverSelectionTimeoutMS=5000, connectTimeoutMS=5000)

    def handshake(self) -> str:
        # Ask the port first: a MongoClient whose first attempt is refused waits half a second.
        socket.create_connection(self.address, timeout=5).close()
        with self.connect() as client:
            return str(client.admin.command("buildInfo")["version"])

    def url(self, database: str | None = None, *, low: bool = False) -> str:
        who = f"{LOW_USER if low else USER}:{PASSWORD}@" if self._enforced else ""
        options = "directConnection=true" + ("&authSource=admin" if self._enforced else "")
        return f"mongodb://{who}127.0.0.1:{self.port}/{quote(database or '', safe='')}?{options}"

    def create_database(self, name: str | None = None) -> str:
        """Name a database; MongoDB makes it with its first collection."""
        return self.url(name or new_name())

    def drop_database(self, name: str) -> None:
        with self.connect() as client:
            client.drop_database(name)
