"""LOAD DATA LOCAL without files: the server is served the announced stream, whatever file name it asks for.

A server may ask any client with local infile switched on for any file it can read. So the switch is on for this one connection only,
its handler never looks at the name, and outside a load the request is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymysql import connections, err

from dblens.engines.base import Url
from dblens.engines.mysql.driver import Link, translate

PIECE = 1 << 20


class _Result(connections.MySQLResult):
    def _read_load_local_packet(self, first_packet: Any) -> None:  # noqa: ARG002 - the file name in it is none of our business
        connection: Any = self.connection
        stream, connection.announced = connection.announced, None
        if stream is None:
            connection.write_packet(b"")
            connection._force_close()
            raise err.OperationalError(2000, "Received LOAD_LOCAL packet: the server asked for a file outside a load")
        try:
            for data in stream:
                view = memoryview(data)
                for start in range(0, len(view), PIECE):
                    connection.write_packet(bytes(view[start : start + PIECE]) if len(view) > PIECE else data)
        except BaseException:
            # The server must not take a broken-off stream for a whole one: without a connection it rolls back.
            connection._force_close()
            raise
        connection.write_packet(b"")
        packet = connection._read_packet()
        if not packet.is_ok_packet():
            raise err.OperationalError(2014, "commands out of sync after LOAD DATA")
        read: Any = getattr(self, "_read_ok_packet")  # noqa: B009 - unknown to the type stubs
        read(packet)


class _Connection(connections.Connection):  # type: ignore[type-arg,unused-ignore]
    announced: Iterable[bytes] | None = None

    def _read_query_result(self, unbuffered: bool = False) -> int:
        self._result: Any = None
        if unbuffered:
            result = _Result(self)
            result.init_unbuffered_query()
        else:
            result = _Result(self)
            result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return int(result.affected_rows or 0)


def _connect(**arguments: Any) -> _Connection:
    return _Connection(**{**arguments, "local_infile": True})


class Loader(Link):
    """The connection for loads: pymysql with the one-stream handler."""

    def __init__(self, url: Url, password: str | None, database: str | None) -> None:
        super().__init__(url, password, database, factory=_connect)

    def load(self, statement: str, stream: Iterable[bytes]) -> tuple[int, int]:
        """Run LOAD DATA LOCAL with the stream; return rows and warnings. Errors of the stream pass through unchanged."""
        self.raw.announced = stream
        try:
            with self.raw.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.rowcount), int(self.raw._result.warning_count)
        except self.errors as error:
            raise translate(error, "loading with LOAD DATA LOCAL") from error
        finally:
            self.raw.announced = None


REFUSED = (1148, 3948, 4166, 2068, 1290)
"""Server errors that mean: LOAD DATA LOCAL is switched off here, use INSERT."""
