"""Private, throw-away database servers for tests: loopback only, own port, own folder, ended by pid.

Every server has the same verbs: `start`, `stop`, `kill` (SIGKILL; `start` again recovers), `close`, `url`,
`create_database`, `drop_database`, `version` and `tool` (the command line of a client program it brings).
"""

from tests.servers.mongo import Mongo
from tests.servers.mysql import MariaDB, MySQL
from tests.servers.postgres import Postgres
from tests.servers.process import LOW_USER, PASSWORD, USER, Server, ServerMissing, ServerProcess
from tests.servers.proxy import Proxy
from tests.servers.sqlite import SQLite

__all__ = [
    "LOW_USER",
    "PASSWORD",
    "USER",
    "MariaDB",
    "Mongo",
    "MySQL",
    "Postgres",
    "Proxy",
    "SQLite",
    "Server",
    "ServerMissing",
    "ServerProcess",
]
