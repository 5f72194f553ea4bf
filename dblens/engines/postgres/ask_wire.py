"""libpq's asynchronous calls: statements sent, their results taken one by one, so that a wait can be left and nothing is read ahead."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from dblens.engines.postgres.ask_types import Described
from dblens.engines.postgres.ask_values import Given
from dblens.engines.postgres.link import Link

Cells = list[tuple[str | None, ...]]
Status = pq.ExecStatus
# What answers rest on: their values are read from these texts.
_PINS: Final = (
    "SET client_encoding TO 'UTF8'; SET \"TimeZone\" TO 'UTC'; SET \"DateStyle\" TO 'ISO, YMD'; SET \"IntervalStyle\" TO 'postgres'; "
    "SET extra_float_digits TO 1; SET bytea_output TO 'hex'; SET standard_conforming_strings TO on; SET xmloption TO content"
)
COPIES: Final = (Status.COPY_OUT, Status.COPY_IN, Status.COPY_BOTH)


class Wire:
    """A connection of its own beside the session's, as people use it: their search path, their row security. Not thread-safe."""

    def __init__(self, link: Link) -> None:
        self.link, self.pgconn = link, link.db.pgconn
        self.socket = self.pgconn.socket
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self.touched = False
        """Something other than a read-only statement ran: settings, temporary tables, locks may be there."""
        self._severed = False
        self.fresh()

    def fresh(self) -> None:
        """Forget whatever ran before: settings, temporary tables, locks, prepared statements."""
        self.simple("DISCARD ALL")
        self.simple(f"{_PINS}{'; SET default_transaction_read_only TO on' if self.link.read_only else ''}")
        self.touched = False

    @property
    def pins(self) -> str:
        """Return what has to be set before a statement, when something else ran before."""
        return f"{_PINS}; " if self.touched else ""

    @property
    def alive(self) -> bool:
        """Say whether the server did not leave."""
        return not self._severed and not self.link.db.closed and self.pgconn.status == pq.ConnStatus.OK

    @property
    def state(self) -> pq.TransactionStatus:
        """Return the state of the transaction."""
        return pq.TransactionStatus(self.pgconn.transaction_status)

    # ---- sending

    def query(self, sql: str) -> None:
        """Send statements of ours."""
        self.pgconn.send_query(sql.encode())
        self.flush()

    def prepare(self, sql: str, types: Sequence[int]) -> None:
        """Send a statement to be understood, not run."""
        self.pgconn.send_prepare(b"", sql.encode(), types or None)
        self.flush()

    def describe(self) -> None:
        """Ask for the columns of what was prepared."""
        self.pgconn.send_describe_prepared(b"")
        self.flush()

    def execute(self, sql: str, params: Given, rows: int) -> None:
        """Send a statement to be run, whose rows come by so many at once."""
        self.pgconn.send_query_params(sql.encode(), params.values or None, params.types or None, params.formats or None)
        if rows > 1:
            self.pgconn.set_chunked_rows_mode(rows)
        else:
            self.pgconn.set_single_row_mode()
        self.flush()

    def flush(self) -> None:
        """Send all of it, also when the server sends at the same time."""
        both: select.poll | None = None
        while self.pgconn.flush():
            if both is None:
                both = select.poll()
                both.register(self.socket, select.POLLIN | select.POLLOUT)
            both.poll(1000)
            self.pgconn.consume_input()

    # ---- receiving

    def ready(self) -> bool:
        """Say whether a result can be taken without waiting; read what is there."""
        if not self.pgconn.is_busy():
            return True
        if not self._poll.poll(0):
            return False
        self.pgconn.consume_input()
        return not self.pgconn.is_busy()

    def next(self, seconds: float | None = None) -> Any:
        """Return the next result, None behind the last. Raises TimeoutError after so many seconds, psycopg's errors for a lost connection."""
        pgconn, wait = self.pgconn, 1000 if seconds is None else max(1, int(seconds * 1000))
        while pgconn.is_busy():
            if not self._poll.poll(wait) and seconds is not None:
                raise TimeoutError(f"no answer within {seconds} s")
            pgconn.consume_input()
        return pgconn.get_result()

    def all(self, seconds: float | None = None) -> list[Any]:
        """Return all results of what was sent. Raises psycopg's error of the first that failed, when all were read."""
        found: list[Any] = []
        failed = None
        while (result := self.next(seconds)) is not None:
            if result.status in COPIES:
                self.leave_copy(result)
                continue
            if result.status == Status.FATAL_ERROR and failed is None:
                failed = result
            found.append(result)
        if failed is not None:
            raise error_from_result(failed, "utf-8")
        return found

    def simple(self, sql: str) -> list[Any]:
        """Run statements of ours and return their results. Raises DBLens errors."""
        try:
            self.query(sql)
            return self.all()
        except psycopg.Error as error:
            raise self.link.failed(error, "preparing a statement") from error

    def lookup(self, sql: str) -> list[Cells]:
        """Run queries of ours and return their rows as texts."""
        return [cells(result) for result in self.simple(sql) if result.status == Status.TUPLES_OK]

    def leave_copy(self, result: Any) -> None:
        """End a COPY that nobody asked for."""
        if result.status == Status.COPY_IN:
            self.pgconn.put_copy_end(b"rows are not copied by a query")
            self.flush()
            return
        self.cancel()
        while True:
            octets, _ = self.pgconn.get_copy_data(1)
            if octets < 0:
                return
            if octets == 0:
                self._poll.poll(1000)
                self.pgconn.consume_input()

    # ---- stopping

    def cancel(self, seconds: float = 5.0) -> None:
        """Ask the server to stop what this connection runs, over another one; from any thread. It is said when this returns."""
        self.link.db.cancel_safe(timeout=seconds)

    def sever(self) -> None:
        """Cut the connection, from any thread; whoever waits for it is told."""
        self._severed = True
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.socket)) as cut:
            cut.shutdown(socket.SHUT_RDWR)


def cells(result: Any) -> Cells:
    """Return a result's rows as texts."""
    return [
        tuple(
            [
                None if (octets := result.get_value(row, column)) is None else octets.decode("utf-8", "replace")
                for column in range(result.nfields)
            ]
        )
        for row in range(result.ntuples)
    ]


def shape(result: Any) -> list[Described]:
    """Return the columns that a result announces."""
    return [
        Described(
            name=(result.fname(i) or b"").decode("utf-8", "backslashreplace"),
            type=result.ftype(i),
            modifier=result.fmod(i),
            table=result.ftable(i),
            number=result.ftablecol(i),
        )
        for i in range(result.nfields)
    ]
