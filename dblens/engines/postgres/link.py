"""One libpq connection with the habits all chapters rely on: pinned settings, `$1` parameters, transactions, COPY both ways.

Own statements see only pg_catalog and qualify everything else, so that no function or operator in a user's schema can stand in
for a built-in one. Statements of a person (`Session.execute`) see the login's own search path.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from typing import Any

import psycopg
from psycopg import pq

from dblens.engines.access.route import route_of
from dblens.engines.base import Url
from dblens.engines.postgres import libpq
from dblens.engines.postgres.failures import connect_failure, failure
from dblens.engines.postgres.guarded import guarded, guarded_environment
from dblens.engines.postgres.libpq import State
from dblens.errors import Cancelled, ConnectionFailed, DBLensError, EngineError
from dblens.values.packed import Packed

BLOCK = 256 * 1024
NEAR = 0.001
"""Seconds of a round trip within one machine or rack."""
_PINNED = (
    "SET client_encoding TO 'UTF8'; SET \"TimeZone\" TO 'UTC'; SET \"DateStyle\" TO 'ISO, YMD'; "
    "SET \"IntervalStyle\" TO 'postgres'; SET extra_float_digits TO 1; SET bytea_output TO 'hex'; "
    "SET standard_conforming_strings TO on; SET xmloption TO content; SET row_security TO off; "
    # A cut-off network must not hold a target's locks for two hours (the kernel's default).
    "SET tcp_keepalives_idle TO 60; SET idle_in_transaction_session_timeout TO 0; SET statement_timeout TO 0; "
    # Compiling expressions costs 0.1 to 0.5 s a query and wins nothing on single scans.
    "SET jit TO off; SET search_path TO ''"
)
_ASK = (
    "SELECT current_setting('search_path') AS path, current_setting('server_version') AS version, "
    "current_setting('server_version_num')::int AS number, current_database() AS database, current_user AS login, "
    "current_setting('server_encoding') AS encoding"
)


class Link:
    """A connection. Not thread-safe, except `cancel`."""

    def __init__(self, url: Url, password: str | None, *, application: str, read_only: bool) -> None:
        self.url = url
        self._password = password
        self.application = application
        self.read_only = read_only
        self._own_path: bool | None = True
        self._closed = False
        self._guard = threading.Lock()
        self._reading = threading.Lock()
        self._names = itertools.count()
        try:
            with guarded_environment(url):
                self.db: psycopg.Connection[Any] = psycopg.connect(
                    **parameters(url, password, application), autocommit=True, prepare_threshold=None
                )
        except psycopg.Error as error:
            raise connect_failure(error, url) from None if _leaks(error, password) else error
        try:
            route = route_of(url)
            if route is not None:
                route.watch.add(self.db.fileno())
            row = self.db.execute(_ASK).fetchone()
            if row is None:
                raise EngineError("the server answered nothing")
            self.path, self.version, self.number, self.database, self.login, self.encoding = row
            self.db.execute(_PINNED + ("; SET default_transaction_read_only TO on" if read_only else ""))
        except psycopg.Error as error:
            self.db.close()
            raise connect_failure(error, url) from error
        self.db.cursor_factory = psycopg.RawCursor
        self.db.server_cursor_factory = psycopg.RawServerCursor

    # ---- statements

    @contextlib.contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self.failed(error, what) from error

    def failed(self, error: psycopg.Error, what: str) -> DBLensError:
        """Return the DBLens error for a driver error on this connection."""
        broken = self.db.closed or self.db.pgconn.status == pq.ConnStatus.BAD
        if isinstance(error, psycopg.errors.QueryCanceled) and self._guard.acquire(timeout=6):
            # The server signals both the process and its group: until the request has come back, the second signal
            # could still meet the next statement.
            self._guard.release()
        return failure(error, what, broken=broken)

    def rows(self, sql: str, params: Sequence[object] = (), *, what: str = "a catalog query") -> list[tuple[Any, ...]]:
        """Run a statement with `$1` parameters and return its rows."""
        with self._mapped(what):
            self.own_path()
            cursor = self.db.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, sql: str, params: Sequence[object] = (), *, what: str = "a catalog query") -> tuple[Any, ...]:
        """Run a statement and return its only row."""
        found = self.rows(sql, params, what=what)
        return found[0] if found else ()

    def run(self, sql: str, params: Sequence[object] = (), *, what: str = "a statement") -> int:
        """Run a statement and return how many rows it touched."""
        with self._mapped(what):
            self.own_path()
            return self.db.execute(sql, params or None).rowcount

    def own_path(self) -> None:
        """See only pg_catalog."""
        if self._own_path is not True:
            self.db.execute("SET search_path TO ''")
            self._own_path = True

    def user_path(self) -> None:
        """See what the login sees by itself."""
        if self._own_path is not False:
            self.db.execute("SELECT pg_catalog.set_config('search_path', $1, false)", [self.path])
            self._own_path = False

    @cached_property
    def near(self) -> bool:
        """Whether the server answers within a millisecond: then reading rows costs no more time than having them digested there."""
        trips = []
        for _ in range(3):
            start = time.perf_counter()
            self.one("SELECT 1")
            trips.append(time.perf_counter() - start)
        return min(trips) < NEAR

    # ---- transactions

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.db.pgconn.transaction_status != pq.TransactionStatus.IDLE

    @contextlib.contextmanager
    def transaction(self, what: str = "a transaction") -> Iterator[None]:
        """Run the body in a transaction, or in a savepoint of the open one; commit, or roll back on any exception.

        A connection lost at COMMIT raises ConnectionFailed: whether it was committed is then unknown.
        """
        nested = self.in_transaction
        begin, commit, undo = (
            ("SAVEPOINT dblens", "RELEASE SAVEPOINT dblens", "ROLLBACK TO SAVEPOINT dblens; RELEASE SAVEPOINT dblens")
            if nested
            else ("BEGIN", "COMMIT", "ROLLBACK")
        )
        with self._mapped(what):
            self.own_path()
            self.db.execute(begin)
        try:
            yield
        except BaseException:
            if not self.db.closed and self.db.pgconn.status == pq.ConnStatus.OK:
                with contextlib.suppress(psycopg.Error):
                    self.db.execute(undo)
            self._own_path = None  # a rolled-back SET is undone
            raise
        with self._mapped(f"{what} (at COMMIT)"):
            self.db.execute(commit)

    @contextlib.contextmanager
    def cursor(self, what: str) -> Iterator[psycopg.RawServerCursor[Any]]:
        """Open a binary server-side cursor, in the open transaction or in a read-only one of its own."""
        own = not self.in_transaction
        if own:
            with self._mapped(what):
                self.own_path()
                self.db.execute("BEGIN READ ONLY")
        name = f"dblens_{next(self._names)}"
        cursor = psycopg.RawServerCursor(self.db, name)
        cursor.format = pq.Format.BINARY
        try:
            yield cursor
        finally:
            if not self.db.closed and self.db.pgconn.status == pq.ConnStatus.OK:
                with contextlib.suppress(psycopg.Error):
                    cursor.close()
                if own:
                    with contextlib.suppress(psycopg.Error):
                        self.db.execute("ROLLBACK")

    # ---- COPY

    def copy_out(self, sql: str, what: str) -> Generator[bytes, None, None]:
        """Stream `COPY … TO STDOUT` as blocks of whole rows of at least 256 KiB. Closing early cancels it on the server."""
        with contextlib.closing(self.copy_rows(sql, what)) as lists:
            for rows in lists:
                yield rows.data

    def copy_rows(self, sql: str, what: str) -> Generator[Packed, None, None]:
        """Stream `COPY … TO STDOUT` as the server's messages, one a row, in blocks of at least 256 KiB. Closing early cancels it.

        In binary the first message begins with the header of 19 octets, the last one is the trailer of 2.
        """
        savepoint = self.in_transaction
        with self._mapped(what):
            self.own_path()
            if savepoint:
                self.db.execute("SAVEPOINT dblens_copy")
        pgconn = self.db.pgconn
        done = False
        try:
            self._start_copy(sql, pq.ExecStatus.COPY_OUT, what)
            yield from self._out_rows(what)
            self._finish(what)
            done = True
        finally:
            if not done and pgconn.status == pq.ConnStatus.OK:
                self._abandon()
                if savepoint:
                    with contextlib.suppress(psycopg.Error):
                        self.db.execute("ROLLBACK TO SAVEPOINT dblens_copy; RELEASE SAVEPOINT dblens_copy")
            elif done and savepoint:
                with self._mapped(what):
                    self.db.execute("RELEASE SAVEPOINT dblens_copy")

    def _start_copy(self, sql: str, wanted: pq.ExecStatus, what: str) -> None:
        result = self.db.pgconn.exec_(sql.encode("utf-8"))
        if result.status != wanted:
            raise self._result_error(result, what)

    def _result_error(self, result: pq.abc.PGresult | None, what: str) -> DBLensError:
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            error = psycopg.errors.error_from_result(result)
            return self.failed(error, what)
        message = self.db.pgconn.get_error_message("utf-8").strip() or "unexpected answer of the server"
        return ConnectionFailed(f"the connection broke during {what}: {message}", hint="check server and network")

    def _out_rows(self, what: str) -> Iterator[Packed]:
        receive = libpq.receiver()
        if receive is None:
            yield from self._out_rows_by_driver(what)
            return
        pgconn = self.db.pgconn
        rows = none = Packed.of(())
        while True:
            # Nobody may free the connection while C reads from it without the interpreter's lock; it returns every 0.25 s.
            with self._reading:
                if self._closed:
                    raise ConnectionFailed(f"the connection was closed during {what}")
                state, rows = receive(pgconn, BLOCK, rows)
            if state in (State.NOT_READ, State.NOT_GOT):
                raise self.failed(psycopg.OperationalError(pgconn.get_error_message("utf-8")), what)
            if state == State.ENOUGH or (state == State.ENDED and rows):
                yield rows
                rows = none
            if state == State.ENDED:
                return

    def _out_rows_by_driver(self, what: str) -> Iterator[Packed]:
        pgconn = self.db.pgconn
        get = pgconn.get_copy_data
        parts: list[memoryview] = []
        size = 0
        while True:
            # Asynchronous on purpose: the blocking call would wait for the network holding the interpreter's lock.
            try:
                octets, data = get(1)
                if octets == 0:
                    self._wait(read=True)
                    pgconn.consume_input()
            except psycopg.Error as error:
                raise self.failed(error, what) from error
            if octets > 0:
                parts.append(data)
                size += octets
            if parts and (size >= BLOCK or octets < 0):
                yield Packed.of(parts)
                parts, size = [], 0
            if octets < 0:
                return

    def _wait(self, *, read: bool, write: bool = False) -> None:
        poll = select.poll()
        poll.register(self.db.pgconn.socket, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        poll.poll(60_000)

    def _finish(self, what: str) -> pq.abc.PGresult | None:
        """Collect the results that end a COPY; raise when it failed."""
        pgconn = self.db.pgconn
        last = None
        failed: DBLensError | None = None
        while True:
            while pgconn.is_busy():
                self._wait(read=True)
                try:
                    pgconn.consume_input()
                except psycopg.Error as error:
                    raise self.failed(error, what) from error
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.COPY_IN:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR and failed is None:
                failed = self._result_error(result, what)
            last = result
        if failed is not None:
            raise failed
        if last is None or last.status != pq.ExecStatus.COMMAND_OK:
            raise self._result_error(last, what)
        return last

    def _abandon(self) -> None:
        """Cancel a running COPY OUT and swallow what is still on the wire."""
        pgconn = self.db.pgconn
        with contextlib.suppress(psycopg.Error):
            pgconn.get_cancel().cancel()
            while True:
                octets, _ = pgconn.get_copy_data(0)
                if octets <= 0:
                    break
        with contextlib.suppress(psycopg.Error):
            while pgconn.get_result() is not None:
                pass

    def copy_in(self, sql: str, blocks: Iterator[bytes], what: str) -> int:
        """Feed `COPY … FROM STDIN` and return the rows loaded. An exception of `blocks` aborts the COPY and is raised."""
        self.own_path()
        pgconn = self.db.pgconn
        self._start_copy(sql, pq.ExecStatus.COPY_IN, what)
        try:
            for block in blocks:
                pgconn.put_copy_data(block)
                while pgconn.flush():
                    self._wait(read=True, write=True)
                    pgconn.consume_input()
        except BaseException as error:
            if pgconn.status == pq.ConnStatus.OK:
                with contextlib.suppress(psycopg.Error):
                    pgconn.put_copy_end(b"the source failed")
                    while pgconn.flush():
                        self._wait(read=True, write=True)
                try:
                    self._finish(what)
                except DBLensError as said:
                    # A server that already refused the data says more than our own broken send.
                    if isinstance(error, psycopg.Error):
                        raise said from error
            if isinstance(error, psycopg.Error):
                raise self.failed(error, what) from error
            raise
        with self._mapped(what):
            pgconn.put_copy_end()
            while pgconn.flush():
                self._wait(read=True, write=True)
        result = self._finish(what)
        tag = (result.command_status or b"") if result is not None else b""
        return int(tag.rpartition(b" ")[2] or 0)

    # ---- the end

    def cancel(self) -> None:
        """Stop what runs now, from any thread."""
        with self._guard:
            if self._closed:
                return
            try:
                self.db.cancel_safe(timeout=5)
            except psycopg.Error as error:
                raise Cancelled("the cancel request did not reach the server") from error

    def close(self) -> None:
        """Close the connection; the server then rolls back and frees its locks."""
        with self._guard:
            self._closed = True
            with self._reading:
                self.db.close()

    def again(self) -> Link:
        """Open another connection like this one."""
        return Link(self.url, self._password, application=self.application, read_only=self.read_only)


def parameters(url: Url, password: str | None, application: str) -> dict[str, Any]:
    """Return psycopg's connection parameters. Without a password libpq looks into ~/.pgpass."""
    given: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "dbname": url.database,
        "password": password,
        "connect_timeout": 10,
        "application_name": application,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        "client_encoding": "UTF8",
        **url.options,
    }
    route = route_of(url)
    if route is not None:
        given |= guarded(route, url, password)
    return {k: v for k, v in given.items() if v is not None}


def _leaks(error: BaseException, password: str | None) -> bool:
    return password is not None and password != "" and password in str(error)
