"""The two sides of a pair: servers, sources, fresh targets, and how the engines' own tools are called."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.bench.data import Files, fill_mysql, fill_postgres
from tests.servers import PASSWORD, USER, MariaDB, Postgres

POSTGRES = {"wal_level": "replica", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "shared_buffers": "256MB"}
MARIADB = {"innodb_buffer_pool_size": "512M", "innodb_log_file_size": "1G"}
CLIENT_ENV = {"PGPASSWORD": PASSWORD, "MYSQL_PWD": PASSWORD}


class Bench:
    """Servers for the engines named, started once, and a folder for files."""

    def __init__(self, engines: set[str], rows: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dblens-bench-"))
        self.folder.chmod(0o755)
        self.files = Files(self.folder, rows)
        self.pg = Postgres(15, settings=POSTGRES) if "pg" in engines else None
        self.my = MariaDB(settings=MARIADB) if "my" in engines else None
        self._sources: dict[str, str] = {}
        self._made = 0

    def __enter__(self) -> Self:
        for server in (self.pg, self.my):
            if server:
                server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.pg, self.my):
            if server:
                server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- databases, by URL with password

    def create(self, engine: str) -> str:
        """A fresh, empty database."""
        self._made += 1
        name = f"bench_{self._made}"
        if engine == "pg":
            assert self.pg
            self.checkpoint()
            return self.pg.create_database(name)
        if engine == "my":
            assert self.my
            return self.my.create_database(name, options="CHARACTER SET utf8mb4")
        path = self.folder / f"{name}.sqlite"
        return f"sqlite:///{path}"

    def drop(self, engine: str, url: str) -> None:
        """Remove a database of `create`."""
        name = url.rpartition("/")[2]
        if engine == "pg":
            assert self.pg
            self.pg.drop_database(name)
        elif engine == "my":
            assert self.my
            self.my.drop_database(name)
        else:
            for path in self.folder.glob(f"{name}*"):
                path.unlink()

    def source(self, engine: str) -> str:
        """The source database of an engine, filled once."""
        if engine not in self._sources:
            if engine == "sl":
                self._sources[engine] = f"sqlite:///{self.files.sqlite()}"
            else:
                url = self._sources[engine] = self.create(engine)
                if engine == "pg":
                    fill_postgres(url, self.files)
                else:
                    assert self.my
                    with self.my.connect(url.rpartition("/")[2]) as db:
                        fill_mysql(db, self.files)
        return self._sources[engine]

    def checkpoint(self) -> None:
        """Write PostgreSQL's dirty pages now, so that no contender pays for another's."""
        if self.pg:
            with self.pg.connect() as db:
                db.execute("CHECKPOINT")

    # ---- command lines without passwords

    def psql(self, url: str, *arguments: str) -> list[str]:
        assert self.pg
        return [*self.pg.tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", bare(url), *arguments]

    def pg_dump(self, url: str) -> list[str]:
        assert self.pg
        return [*self.pg.tool("pg_dump"), "--no-owner", "-t", "orders", "-d", bare(url)]

    def mysql(self, tool: str, url: str, *arguments: str) -> list[str]:
        assert self.my
        where = ["--no-defaults", "--host=127.0.0.1", f"--port={self.my.port}", f"--user={USER}", "--protocol=tcp"]
        return [*self.my.tool(tool), *where, *arguments, url.rpartition("/")[2]]


def bare(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))


def installed(tools: Sequence[str]) -> bool:
    """Whether all these programs are on the path."""
    return all(shutil.which(tool) for tool in tools)
