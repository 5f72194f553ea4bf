"""MariaDB from Debian, and MySQL from Debian sid in a private folder (`sid.py`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pymysql
from pymysql.cursors import Cursor

from tests.servers import sid
from tests.servers.folders import cached, copy_tree
from tests.servers.process import LOW_USER, PASSWORD, USER, ServerMissing, ServerProcess, new_name

SETTINGS: dict[str, str] = {
    "bind_address": "127.0.0.1",
    "skip_name_resolve": "ON",
    "character_set_server": "utf8mb4",
    "innodb_buffer_pool_size": "128M",
    "secure_file_priv": "",
    "max_allowed_packet": "64M",
    "max_connections": "100",
}
# A killed process loses nothing the operating system already holds: without fsync kill -9 is still safe.
# The doublewrite buffer stays on, because a kill may tear a page in two.
NOT_DURABLE = {"innodb_flush_log_at_trx_commit": "2", "innodb_flush_method": "nosync"}
# root has no password after initialising; it keeps none that works.
USERS = f"""
CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL PRIVILEGES ON *.* TO {USER}@'%' WITH GRANT OPTION;
CREATE USER {LOW_USER}@'%' IDENTIFIED BY '{PASSWORD}';
ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';
"""


class _MySQLFamily(ServerProcess):
    """What MariaDB and MySQL share; `dblens` may do everything, `dblens_low` may only log in."""

    own_settings: Mapping[str, str] = {}

    def __init__(
        self, *, durable: bool = False, local_infile: bool = True, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        infile = {"local_infile": "ON" if local_infile else "OFF"}
        speed = {} if durable else NOT_DURABLE
        self.settings = {**SETTINGS, **self.own_settings, **infile, **speed, **(settings or {})}

    def server(self) -> list[str]:
        """Command line of the server program without its options. Raises ServerMissing."""
        raise NotImplementedError

    def initialise(self, part: Path) -> None:
        raise NotImplementedError

    def prepare(self, folder: Path) -> None:
        recipe = (*self.server(), str(self.account.uid), USERS, "1")
        template = cached(f"{self.name}-data", recipe, self._template)
        copy_tree(template / "data", folder / "data")
        (folder / "tmp").mkdir()
        os.chown(folder / "tmp", self.account.uid, self.account.gid)

    def _template(self, part: Path) -> None:
        os.chown(part, self.account.uid, self.account.gid)
        (part / "users.sql").write_text(USERS)
        (part / "users.sql").chmod(0o644)
        self.initialise(part)
        (part / "users.sql").unlink()

    def command(self, folder: Path) -> list[str]:
        settings = {
            **self.settings,
            "datadir": str(folder / "data"),
            "port": str(self.port),
            "socket": str(folder / "socket"),
            "pid_file": str(folder / "pid"),
            # A server that starts removes every `#sql…` in its folder for temporary files, also those of another one that runs.
            "tmpdir": str(folder / "tmp"),
        }
        return [*self.server(), *(f"--{key}={value}" for key, value in settings.items())]

    def handshake(self) -> str:
        with self.connect() as db, db.cursor() as cursor:
            cursor.execute("SELECT version()")
            row = cursor.fetchone()
        return str(row[0]) if row else ""

    def connect(self, database: str | None = None) -> pymysql.Connection[Cursor]:
        """A connection with every right, in autocommit mode."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, database=database,
            autocommit=True, connect_timeout=10, charset="utf8mb4", local_infile=True,
        )  # fmt: skip

    def url(self, database: str | None = None, *, low: bool = False) -> str:
        user = LOW_USER if low else USER
        return f"mysql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{quote(database or '', safe='')}"

    def create_database(self, name: str | None = None, *, options: str = "") -> str:
        """Create a database; `options` such as `CHARACTER SET latin1` end the statement."""
        name = name or new_name()
        self._execute(f"CREATE DATABASE {_quoted(name)} {options}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)}")

    def _execute(self, statement: str) -> None:
        with self.connect() as db, db.cursor() as cursor:
            cursor.execute(statement)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


class MariaDB(_MySQLFamily):
    """MariaDB 10.11."""

    name, title = "mariadb", "MariaDB"

    def server(self) -> list[str]:
        for folder in ("/usr/sbin", "/usr/local/sbin", "/usr/libexec"):
            if Path(folder, "mariadbd").exists():
                return [f"{folder}/mariadbd", "--no-defaults"]
        raise ServerMissing("no mariadbd; apt-get install mariadb-server")

    def initialise(self, part: Path) -> None:
        users = part / "users.sql"
        users.write_text(f"FLUSH PRIVILEGES;\nDELETE FROM mysql.global_priv WHERE User = '';{USERS}")
        self.account.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={part / 'data'}", "--skip-test-db",
             "--auth-root-authentication-method=normal", f"--extra-file={users}"],
            cwd=part,
        )  # fmt: skip

    def tool(self, name: str) -> list[str]:
        path = shutil.which(name)
        return [path] if path else super().tool(name)


class MySQL(_MySQLFamily):
    """MySQL 9.7."""

    name, title = "mysql", "MySQL"
    own_settings: Mapping[str, str] = {"mysqlx": "OFF", "log_bin": "OFF"}

    def server(self) -> list[str]:
        root = sid.mysql_root()
        return [*sid.program(root, "usr/sbin/mysqld"), "--no-defaults", f"--basedir={root}/usr"]

    def initialise(self, part: Path) -> None:
        self.account.run(
            [*self.server(), "--initialize-insecure", f"--datadir={part / 'data'}", "--log-bin=OFF",
             "--innodb-flush-method=nosync", f"--init-file={part / 'users.sql'}"],
            cwd=part,
        )  # fmt: skip

    def tool(self, name: str) -> list[str]:
        root = sid.mysql_root()
        if not (root / "usr/bin" / name).exists():
            return super().tool(name)
        return sid.program(root, f"usr/bin/{name}")
