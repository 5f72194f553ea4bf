"""A statement of a session's people that runs: its columns, its rows, its end; stopped on the server, and only there where it runs."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import pymysql

from dblens.engines.asking import Limits, Out
from dblens.engines.mysql.ask_columns import Convert, described, rows_of
from dblens.engines.mysql.ask_wire import Column, Done, Wire
from dblens.engines.mysql.driver import Link, translate
from dblens.errors import (
    Cancelled,
    ConnectionFailed,
    DBLensError,
    EngineError,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)

if TYPE_CHECKING:
    from dblens.engines.mysql.ask import MySQLAsks

SERVER: Final = "select concat(@@hostname, ':', @@port, ':', @@server_id)"
_FLOAT: Final = 4
_GRACE: Final = 0.15
"""Seconds that the server has to keep its own time limit before the statement is killed."""
_MARK: Final = "/* dblens "
_FIRST_LOOK, _REST, _STEPS, _REACH = 0.02, 0.05, 0.05, 0.9
Why = Literal["", "cancelled", "late", "left"]


class MySQLAnswer:
    """A statement that runs; see `dblens.engines.asking.Answer`."""

    def __init__(self, asks: MySQLAsks, *, read_only: bool, own: bool, limits: Limits) -> None:
        self._asks, self.read_only, self.own, self.limits = asks, read_only, own, limits
        self._columns: tuple[Out, ...] = ()
        self._converts: tuple[Convert, ...] = ()
        self.affected: int | None = None
        self.notices: tuple[str, ...] = ()
        self._token = secrets.token_hex(8)
        self._opening = f"{_MARK}{self._token} "
        self._why: Why = ""
        self._sent = self._over = self._streaming = False
        self._on_server = False  # between the statement and the end of its answer: then a KILL may reach it
        self._binary = self._does = False
        self._timer: threading.Timer | None = None
        self._begun = time.monotonic()

    @property
    def columns(self) -> tuple[Out, ...]:
        return self._columns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._over:
            self._leave()

    # --------------------------------------------------------------------------------------------------------------- start

    def _start(self, statement: str, tag: str) -> None:
        asks = self._asks
        limits = self.limits
        self._does = statement[:3].lower() == "do "  # it has nothing but what it was asked to wait for
        if limits.seconds is not None:
            if limits.seconds <= 0:
                raise TimedOut("no time is left for the statement", hint="raise the limit")
            self._timer = threading.Timer(limits.seconds + _GRACE, self._stop, ("late",))
            self._timer.daemon = True
            self._timer.start()
        asks._prepare(self)
        if not self.read_only:
            asks._touched = True
        wire = asks._wire
        assert wire is not None
        octets = f"{self._opening}{_comment(tag)}*/ {statement}".encode()
        with self._reading(statement):
            columns = self._sends(wire, octets)
            if self.read_only and any(c.type == _FLOAT for c in columns):
                columns = self._exactly(wire, octets, columns)
        if not columns:
            self._finish()
            return
        self._streaming = True
        outs, converts = zip(*[described(c) for c in columns], strict=True)
        self._columns, self._converts = outs, converts
        if not self.read_only:
            inexact = [c.name for c in columns if c.type == _FLOAT]
            if inexact:
                self.notices = (f"FLOAT comes with six digits from a statement that may write: {', '.join(inexact)}",)

    def _sends(self, wire: Wire, octets: bytes, *, binary: bool = False) -> tuple[Column, ...]:
        with self._asks._guard:
            if self._why:
                raise self._stopped()
            self._on_server = self._sent = True
        return wire.prepared(octets) if binary else wire.query(octets)

    def _exactly(self, wire: Wire, octets: bytes, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        """Ask again by the binary protocol: the text of a FLOAT has six digits, the value up to nine."""
        if not wire.drain(_FIRST_LOOK, 1 << 20):
            self._kill_once()
            if not wire.drain(2.0):
                self._asks._drop()
                raise ConnectionFailed("the server did not end its answer", hint="run it again")
        with self._asks._guard:
            self._on_server = False
        self._asks._simple("do 0")  # takes a kill that came late
        try:
            again = self._sends(wire, octets, binary=True)
        except pymysql.MySQLError as error:
            if error.args[0] != 1295:
                raise
            # SHOW and its like cannot be prepared; they have no FLOAT that is stored.
            return self._sends(wire, octets)
        self._binary = True
        return again or columns

    @contextlib.contextmanager
    def _reading(self, statement: str = "") -> Iterator[None]:
        """Turn what the driver raises into what it means."""
        try:
            yield
        except DBLensError:
            raise
        except (pymysql.MySQLError, OSError, RuntimeError, ValueError) as error:
            number = error.args[0] if error.args else 0
            if self._why in ("cancelled", "late") and number in (1317, 2013, 2006, 0, 1927, 1053, 3024, 1969):
                raise self._stopped() from error
            if isinstance(error, ValueError) and not isinstance(error, pymysql.MySQLError):
                if self._asks._link is None or self._asks._link.raw._sock is None:
                    raise ConnectionFailed(
                        "the connection was lost while the answer was read", hint="run it again"
                    ) from error
                raise
            found = translate(error, "the statement failed")
            if number == 1792:
                found = PermissionDenied(
                    f"read-only: {found.message}", hint="run it as a write, which asks for the right to"
                )
            if number in (1969, 3024):
                found = self._timed_out()
            place = _place(str(error.args[1]) if len(error.args) > 1 else "", statement)
            if place is not None and isinstance(found, QueryFailed):
                found.position = place  # type: ignore[attr-defined]
                found.message += f", at character {place + 1}"
                found.args = (found.message,)
            raise found from error

    def _stopped(self) -> EngineError:
        if self._why == "late":
            return self._timed_out()
        return Cancelled("the statement was cancelled")

    def _timed_out(self) -> TimedOut:
        return TimedOut(
            f"the statement took longer than {self.limits.seconds} s and was stopped", hint="raise the limit"
        )

    # ---------------------------------------------------------------------------------------------------------------- rows

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        if self._over:
            return
        wire, limits = self._asks._wire, self.limits
        if wire is None:
            raise ConnectionFailed("the connection was lost while the answer was read", hint="run it again")
        deadline = None if limits.seconds is None else self._begun + limits.seconds + _GRACE
        done = False
        try:
            with self._reading():
                for raw in wire.batches(max(limits.rows, 1), max(limits.octets, 1), limits.cell):
                    if self._why in ("cancelled", "late"):
                        raise self._stopped()
                    if deadline is not None and time.monotonic() > deadline:
                        self._why = self._why or "late"
                        raise self._stopped()
                    yield rows_of(raw, self._converts)
                    if self._over:
                        return
            done = True
        finally:
            if not done and not self._over:
                self._leave()
        self._finish()

    def _finish(self) -> None:
        """Take what the server says of a statement that has ended by itself."""
        asks, wire = self._asks, self._asks._wire
        if wire is None or wire.done is None:
            self._end(failed=True)
            raise ConnectionFailed("the connection was lost while the answer was read", hint="run it again")
        try:
            done = self._others(wire, wire.done)
            with asks._guard:
                self._on_server = False
            yields = bool(self._columns) or self.read_only or self._does
            if self._why in ("cancelled", "late") and yields:
                # MySQL's sleep() answers 1 when it is killed, as if nothing were wrong.
                raise self._stopped()
            if yields and self.limits.seconds is not None and time.monotonic() - self._begun > self.limits.seconds:
                raise self._timed_out()  # the same, when the server's own limit stops it
            if not self._columns and done.affected < 1 << 63:
                self.affected = done.affected
            if done.message:
                self.notices += (done.message,)
            if done.warnings:
                self.notices += self._warned()
            self._check(done)
        except BaseException:
            self._end(failed=True)
            raise
        self._end(failed=False)

    def _others(self, wire: Wire, done: Done) -> Done:
        """Read away the further answers of a procedure."""
        others = 0
        while done.more:
            with self._reading():
                others += bool(wire.next())
                for _ in wire.batches(8192, 1 << 20, 1 << 26):
                    pass
            assert wire.done is not None
            done = wire.done
        if others:
            self.notices += (f"{others} more answers of the statement are not shown",)
        return done

    def _warned(self) -> tuple[str, ...]:
        rows = self._asks._lookup("show warnings")
        return tuple(f"{level} {code}: {text}" for level, code, text in rows)

    def _check(self, done: Done) -> None:
        """Compare the state that the server is in now with the one that it should be in."""
        asks = self._asks
        if self.read_only and not done.in_read_only:
            raise PermissionDenied(
                "read-only: the statement ended the read-only transaction that it ran in",
                hint="what it did before it ended the transaction may be there; look at it, and report the statement",
            )
        if not self.read_only and self.own and done.in_transaction:
            asks._simple("rollback")
            raise QueryFailed(
                "the statement left a transaction open; it was rolled back",
                hint="a procedure that begins one has to commit it too",
            )
        if not self.own and not done.in_transaction and asks._transaction is not None:
            asks._transaction = None
            self.notices += ("the statement committed the transaction: it is over",)

    # ----------------------------------------------------------------------------------------------------------- the end

    def _leave(self) -> None:
        """Stop what still runs, and read away the little that was on its way."""
        asks, wire = self._asks, self._asks._wire
        ended = wire is None or wire.done is not None
        if not ended and wire is not None:
            try:
                ended = wire.drain(_FIRST_LOOK, 1 << 20)
                if not ended:
                    self._why = self._why or "left"
                    self._kill_once()
                    # What is on its way may be millions of short rows. Where no transaction is lost, another connection costs less.
                    ended = wire.drain(_REST if self.own else 2.0)
            except (pymysql.MySQLError, OSError, ValueError, RuntimeError):
                ended = wire.done is not None
        with asks._guard:
            self._on_server = False
        if not ended:
            asks._drop()
        self._end(failed=True)

    def _end(self, *, failed: bool) -> None:
        """Leave the transaction, and free the session for the next statement."""
        if self._over:
            return
        with self._asks._guard:
            self._on_server = False
            self._over = True
        if self._timer is not None:
            self._timer.cancel()
        asks = self._asks
        try:
            self._tidy(failed=failed)
        except DBLensError:
            asks._drop()
        finally:
            if asks._link is not None and asks._link.raw._sock is None:
                asks._drop()
            if asks._link is None and asks._transaction is not None:
                asks._transaction = None
            asks._ended(self)

    def _tidy(self, *, failed: bool) -> None:
        asks = self._asks
        if asks._link is None or asks._link.raw._sock is None or not self._sent:
            if asks._link is not None and self.own and self.read_only:
                asks._simple("rollback")
            return
        if self._binary and asks._wire is not None:
            asks._wire.forget()
        if failed:
            for _ in range(3):  # a kill that came too late hits this instead of the next statement
                try:
                    state = asks._simple("do 0")
                    break
                except Cancelled:
                    continue
            else:
                asks._drop()
                return
            if not self.own and not state.in_transaction:
                asks._transaction = None
        if self.own:
            asks._simple("rollback")

    # -------------------------------------------------------------------------------------------------------------- cancel

    def _kill_once(self) -> bool:
        """Kill the statement if it still runs. Return whether there was something to kill. Holding the guard keeps the next one away."""
        return self._look("kill query")

    def _look(self, command: str) -> bool:
        asks = self._asks
        with asks._guard:
            link = asks._link
            if not self._on_server or link is None:
                return False
            try:
                killer = asks._session.another_link(database=False)
            except DBLensError:
                # Without a second connection the only way to stop the server is to leave.
                link.close()
                return False
            try:
                rows = killer.rows(
                    "select left(info, 80), command from information_schema.processlist where id = %s", (link.id,)
                )
                text = rows[0][0] if rows else None
                if isinstance(text, bytes):
                    text = text.decode("utf-8", "replace")
                if not text or not (str(text).startswith(self._opening) or self._within(str(text), killer)):
                    return False
                killer.run(f"{command} {int(link.id)}")
                return True
            except DBLensError:
                return False  # it ended in the meantime, which is what was wanted
            finally:
                killer.close()

    def _within(self, text: str, killer: Link) -> bool:
        """Return whether what our connection runs is a statement within ours: of a procedure the server lists only the inner one.

        It is when it is nobody's first statement (those carry a mark), on the server that we are connected with, and we still are.
        """
        if text.startswith(_MARK) or str((killer.rows(SERVER)[0][0],)) != self._asks._server:
            return False
        link = self._asks._link
        sock = None if link is None else link.raw._sock
        if sock is None:
            return False
        try:
            return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _stop(self, why: Why) -> None:
        """Stop the statement from any thread: kill it, look until it is gone, and in the end kill its connection."""
        with self._asks._guard:
            if self._over:
                return
            self._why = self._why or why
        until = time.monotonic() + _REACH
        killed = False
        while not self._over and self._sent and time.monotonic() < until:
            found = self._look("kill query")  # again while it runs: one that comes as it begins is lost
            if killed and not found:
                return
            killed = killed or found
            if killed and self._streaming and time.monotonic() > until - _REACH / 2:
                # It is stuck in writing to a reader that does not read: then only the connection's end reaches it.
                self._look("kill connection")
                return
            time.sleep(_STEPS)


_CLOSING = re.compile(r"\*/|/\*|[\x00-\x1f\x7f]")


def _comment(tag: str) -> str:
    """Return a text as it can stand within a comment, whatever it holds."""
    while _CLOSING.search(tag):
        tag = _CLOSING.sub(lambda m: " " if len(m[0]) == 1 else f"{m[0][0]} {m[0][1]}", tag)
    tag = tag.encode("utf-8", "replace").decode()
    # A star at the end and a slash in front would close or open one with what stands beside them.
    return f"{tag} " if tag else ""


_NEAR = re.compile(r"near '(.*)' at line (\d+)$", re.DOTALL)


def _place(message: str, statement: str) -> int | None:
    """Return the position that a syntax error names: the text it quotes, on the line it names."""
    found = _NEAR.search(message)
    if found is None or not found[1]:
        return None
    lines = statement.split("\n")
    line = int(found[2]) - 1
    start = sum(len(text) + 1 for text in lines[:line])
    place = statement.find(found[1], start)
    return place if place >= 0 else None
