"""Load the public sample databases, where they are present, into test servers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.servers import Server

_HERE = Path(__file__).resolve()


def folder() -> Path:
    """The folder of sample databases; skips where there is none."""
    for place in (os.environ.get("DBLENS_SAMPLES"), _HERE.parents[2] / "shared" / "data"):
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("no sample databases: set DBLENS_SAMPLES")


def psql(server: Server, url: str, script: bytes) -> None:
    """Feed a script to psql; stop at the first error."""
    _run([*server.tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url], script, {})


def mysql(server: Server, url: str, script: bytes) -> None:
    """Feed a script to the mysql client."""
    parts = urlsplit(url)
    command = [
        *server.tool("mysql"),
        "--no-defaults",
        f"--host={parts.hostname}",
        f"--port={parts.port}",
        f"--user={unquote(parts.username or '')}",
        "--protocol=tcp",
        "--default-character-set=utf8mb4",
        parts.path.lstrip("/"),
    ]
    _run(command, script, {"MYSQL_PWD": unquote(parts.password or "")})


def _run(command: list[str], script: bytes, environment: dict[str, str]) -> None:
    done = subprocess.run(command, input=script, capture_output=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]


def sakila(server: Server, url: str) -> None:
    """Sakila for MySQL and MariaDB."""
    for name in ("sakila-mv-schema.sql", "sakila-mv-data.sql"):
        script = (folder() / "sakila" / name).read_bytes()
        script = re.sub(rb"(?im)^\s*(use|drop schema|create schema)\b[^;]*;", b"", script)
        mysql(server, url, re.sub(rb"\bsakila\.", b"", script))


def pagila(server: Server, url: str) -> None:
    """Pagila for PostgreSQL."""
    schema = (folder() / "pagila" / "pagila-schema.sql").read_bytes()
    schema = re.sub(
        rb"(?im)^(alter [^;]* owner to|create (or replace )?procedural language|grant|revoke|comment on (schema|extension))[^;]*;",
        b"",
        schema,
    )
    psql(server, url, schema)
    psql(server, url, (folder() / "pagila" / "pagila-data.sql").read_bytes())


def northwind(server: Server, url: str) -> None:
    """Northwind for PostgreSQL."""
    psql(server, url, (folder() / "northwind" / "northwind.sql").read_bytes())


def chinook_postgres(server: Server, url: str) -> None:
    """Chinook for PostgreSQL."""
    script = (folder() / "chinook" / "Chinook_PostgreSql.sql").read_bytes()
    script = re.sub(rb"(?im)^(drop database|create database|\\c)[^\n]*\n", b"", script)
    psql(server, url, script)


def chinook_mysql(server: Server, url: str) -> None:
    """Chinook for MySQL."""
    script = (folder() / "chinook" / "Chinook_MySql.sql").read_bytes()
    script = re.sub(rb"(?im)^(drop database|create database|use)\b[^\n]*\n", b"", script)
    mysql(server, url, script)


def chinook_sqlite(into: Path) -> str:
    """Chinook for SQLite: a copy, because the sample is read only."""
    path = into / "chinook.db"
    path.write_bytes((folder() / "chinook" / "Chinook_Sqlite.sqlite").read_bytes())
    return f"sqlite:///{path}"
