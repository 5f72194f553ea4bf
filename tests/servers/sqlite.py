"""SQLite behind the verbs of a server: its databases are files in one folder."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Self

from tests.servers.process import Server, new_name


class SQLite(Server):
    """A folder of database files."""

    name, title = "sqlite", "SQLite"

    def __init__(self) -> None:
        self.folder: Path | None = None

    def start(self) -> Self:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="dblens-sqlite-"))
            self.version = sqlite3.sqlite_version
        return self

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None

    @property
    def running(self) -> bool:
        return self.folder is not None

    def path(self, database: str) -> Path:
        """The file of a database."""
        if self.folder is None:
            raise RuntimeError("SQLite was not started")
        return self.folder / f"{database}.sqlite"

    def url(self, database: str | None = None, *, low: bool = False) -> str:
        return f"sqlite:///{self.path(database or 'main')}"

    def create_database(self, name: str | None = None) -> str:
        name = name or new_name()
        sqlite3.connect(self.path(name)).close()
        self.path(name).touch()
        return self.url(name)

    def drop_database(self, name: str) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path(name)}{suffix}").unlink(missing_ok=True)
